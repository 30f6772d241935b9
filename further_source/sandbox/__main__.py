"""`python -m further_source.sandbox`: serves the sandbox and its demo executions until it is stopped."""

import argparse
import math
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from further_source.sandbox.data import POLICY_WORKFLOW, demo_executions
from further_source.sandbox.server import Sandbox

DEFAULT_PORT = 8765


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0 after SIGINT or SIGTERM, 2 when the port cannot be had."""
    options = _parse(arguments)
    if options.list:
        print(_demo_list())
        return 0
    stopped = threading.Event()
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), lambda *_: stopped.set())
    sandbox = Sandbox(options.port, requests_per_second=options.requests_per_second)
    sandbox.serve_demo()
    try:
        sandbox.start()
    except OSError as error:
        print(f"sandbox: cannot listen on 127.0.0.1:{options.port}: {error.strerror}", file=sys.stderr)
        return 2
    try:
        print(_welcome(sandbox), flush=True)
        # A wait without an end would not let Ctrl-C through on Windows.
        while not stopped.wait(1.0):
            pass
    finally:
        sandbox.stop()
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sandbox: {message}\n")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m further_source.sandbox", description="Serves a local stand-in of the Further AI API."
    )
    parser.add_argument(
        "--port", type=_port, default=DEFAULT_PORT, help=f"port on 127.0.0.1, 0 for any ({DEFAULT_PORT})"
    )
    parser.add_argument(
        "--requests-per-second", type=_rate, metavar="N", help="answer 429 beyond so many requests (no limit)"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the demo executions, one WORKFLOW_ID/EXECUTION_ID a line"
    )
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return rate


def _demo_list() -> str:
    return "\n".join(f"{execution.workflow_id}/{execution.execution_id}" for execution in demo_executions())


def _welcome(sandbox: Sandbox) -> str:
    return f"""\
Sandbox of the Further AI API on {sandbox.base_url} (this machine only). Ctrl-C stops it.

Client id      {sandbox.client_id}
Client secret  {sandbox.client_secret}

Point the source at it:

  export SOURCES__FURTHER_SOURCE__BASE_URL={sandbox.base_url}
  export SOURCES__FURTHER_SOURCE__CLIENT_ID={sandbox.client_id}
  export SOURCES__FURTHER_SOURCE__CLIENT_SECRET={sandbox.client_secret}

Load the demo executions below (one fails, one never ends; all others complete within seconds):

  python -m further_source.sandbox --list | \\
    python pipelines/load.py --executions - --polling simple --max-wait 20

Create an execution of your own (any workflow id will do), then ask for it:

  TOKEN=$(curl -s {sandbox.base_url}/api/v1/oauth2/access_token \\
    -H 'Content-Type: application/json' \\
    -d '{{"client_id": "{sandbox.client_id}", "client_secret": "{sandbox.client_secret}"}}' \\
    | python -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')
  curl -X POST -H "Authorization: Bearer $TOKEN" \\
    {sandbox.base_url}/api/v1/workflow-builder/workflows/{POLICY_WORKFLOW}/executions
  curl -H "Authorization: Bearer $TOKEN" \\
    {sandbox.base_url}/api/v1/workflow-builder/workflows/{POLICY_WORKFLOW}/executions/EXECUTION_ID

Demo executions, as WORKFLOW_ID/EXECUTION_ID:

{_demo_list()}"""


if __name__ == "__main__":
    sys.exit(main())
