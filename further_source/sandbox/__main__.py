"""`python -m further_source.sandbox`: serves the sandbox and its demo executions until it is stopped."""

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

from further_source.console import open_closed_streams, show, tell
from further_source.sandbox.data import POLICY_WORKFLOW, demo_executions
from further_source.sandbox.push import Pusher, PushSettings
from further_source.sandbox.server import Sandbox
from further_source.sandbox_arguments import DESCRIPTION, add_arguments
from further_source.usage import OneLineParser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the arguments and serves."""
    open_closed_streams()
    parser = OneLineParser(prog="python -m further_source.sandbox", description=DESCRIPTION, called="sandbox")
    add_arguments(parser)
    return serve(parser.parse_args(arguments))


def serve(options: argparse.Namespace) -> int:
    """Serves until a signal; returns 0 after SIGINT or SIGTERM, 2 when the port cannot be had."""
    if options.list:
        show(_demo_list())
        return 0
    stopped = threading.Event()
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), lambda *_: stopped.set())
    sandbox = Sandbox(options.port, requests_per_second=options.requests_per_second)
    sandbox.serve_demo()
    try:
        sandbox.start()
    except OSError as error:
        tell("sandbox", f"cannot listen on 127.0.0.1:{options.port}: {error.strerror}")
        return 2
    pusher = _pusher(options, sandbox) if options.push else None
    try:
        show(_welcome(sandbox))
        if pusher is not None:
            pusher.start()
        # A wait without an end would not let Ctrl-C through on Windows.
        while not stopped.wait(1.0):
            pass
    finally:
        if pusher is not None:
            pusher.stop()
            tell(
                "sandbox",
                ", ".join(f"{count} deliveries {name}" for name, count in pusher.counts.items()) or "none sent",
            )
        sandbox.stop()
    return 0


def _pusher(options: argparse.Namespace, sandbox: Sandbox) -> Pusher:
    settings = PushSettings(options.push, options.push_format, dict(options.push_header or ()), options.push_faults)
    return Pusher(demo_executions(), settings, lambda data, lives: sandbox.sign(data, expires_in=lives))


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

  uv run further-source sandbox --list | \\
    uv run further-source load --executions - --polling simple --max-wait 20

Create an execution of your own (any workflow id will do), then ask for it:

  TOKEN=$(curl -s {sandbox.base_url}/api/v1/oauth2/access_token \\
    -H 'Content-Type: application/json' \\
    -d '{{"client_id": "{sandbox.client_id}", "client_secret": "{sandbox.client_secret}"}}' \\
    | uv run python -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')
  curl -X POST -H "Authorization: Bearer $TOKEN" \\
    {sandbox.base_url}/api/v1/workflow-builder/workflows/{POLICY_WORKFLOW}/executions
  curl -H "Authorization: Bearer $TOKEN" \\
    {sandbox.base_url}/api/v1/workflow-builder/workflows/{POLICY_WORKFLOW}/executions/EXECUTION_ID

Demo executions, as WORKFLOW_ID/EXECUTION_ID:

{_demo_list()}"""


if __name__ == "__main__":
    sys.exit(main())
