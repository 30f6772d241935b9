"""The sandbox posts deliveries as the API does, and what goes wrong with them is what was asked for."""

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from further_source.sandbox import Sandbox, cell, completed, failed, step
from further_source.sandbox.__main__ import main
from further_source.sandbox.data import DemoExecution
from further_source.sandbox.push import Pusher, PushSettings
from further_source.sandbox_arguments import PUSH_FAULTS
from tests.support.command import HANG, until


class Endpoint:
    """Takes deliveries; answers the statuses that it is told to, then 202."""

    def __init__(self) -> None:
        endpoint = self
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(endpoint.statuses.pop(0) if endpoint.statuses else 202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/further"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    started = Endpoint()
    yield started
    started.close()


def executions(count: int) -> list[DemoExecution]:
    names = [f"e{number}" for number in range(count)]
    steps = [step("Extract", [{"a": cell("x", 0.9)}])]
    return [DemoExecution("wf", name, completed("wf", name, steps), 0.0) for name in names]


def push(sandbox: Sandbox, listed: list[DemoExecution], settings: PushSettings) -> Counter[str]:
    pusher = Pusher(listed, settings, lambda data, lives: sandbox.sign(data, expires_in=lives))
    pusher.start()
    assert pusher.join(HANG)
    return pusher.counts


def test_inline_deliveries_are_the_answers(sandbox: Sandbox, endpoint: Endpoint) -> None:
    listed = [
        *executions(2),
        DemoExecution("wf", "failed", failed("wf", "failed"), 0.1),
        DemoExecution("wf", "endless", {}, None),
    ]

    counts = push(sandbox, listed, PushSettings(endpoint.url, "inline", {"X-Key": "k"}))

    assert counts == {"acknowledged": 3}
    assert [json.loads(body) for body in endpoint.bodies] == [execution.payload for execution in listed[:3]]
    assert {headers["x-key"] for headers in endpoint.headers} == {"k"}
    assert {headers["content-type"] for headers in endpoint.headers} == {"application/json"}


def test_signed_urls_lead_to_the_data(sandbox: Sandbox, endpoint: Endpoint) -> None:
    [execution] = listed = executions(1)

    push(sandbox, listed, PushSettings(endpoint.url))

    delivery = json.loads(endpoint.bodies[0])
    [delivered] = delivery["steps"]
    assert delivered["data"].keys() == {"url"}
    assert requests.get(delivered["data"]["url"], timeout=HANG).json() == execution.payload["steps"][0]["data"]


def test_each_fault_befalls_its_share(sandbox: Sandbox, endpoint: Endpoint) -> None:
    counts = push(sandbox, executions(6), PushSettings(endpoint.url, "url", faults=PUSH_FAULTS))

    assert counts == {"acknowledged": 6, "dropped": 1}
    [truncated] = [body for body in endpoint.bodies if not body.endswith(b"}")]
    whole = [json.loads(body) for body in endpoint.bodies if body is not truncated]
    assert [delivery["workflow_execution_id"] for delivery in whole] == ["e0", "e0", "e3", "e5", "e1"]
    assert b'"e4"' in truncated
    statuses = [requests.get(delivery["steps"][0]["data"]["url"], timeout=HANG).status_code for delivery in whole]
    assert statuses == [200, 200, 403, 200, 200]


def test_server_errors_are_tried_again_and_other_refusals_are_final(sandbox: Sandbox, endpoint: Endpoint) -> None:
    endpoint.statuses = [503, 400]

    counts = push(sandbox, executions(2), PushSettings(endpoint.url, "inline"))

    assert counts == {"acknowledged": 1, "refused": 1}
    posted = [json.loads(body)["workflow_execution_id"] for body in endpoint.bodies]
    assert posted == ["e0", "e1", "e0"]


def test_the_command_pushes_the_demo_and_tells_how_it_went(endpoint: Endpoint) -> None:
    options = ["--port", "0", "--push", endpoint.url, "--push-format", "inline", "--push-header", "X-Key: k"]
    with subprocess.Popen(
        [sys.executable, "-m", "further_source.sandbox", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        until(lambda: len(endpoint.bodies) >= 3, process)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=HANG)

    assert process.returncode == 0
    assert "deliveries acknowledged" in told
    assert endpoint.headers[0]["x-key"] == "k"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--push", "ftp://x"], "--push"),
        (["--push", "http://"], "--push"),
        (["--push", "http://x", "--push-header", "secret-without-name"], "--push-header"),
        (["--push", "http://x", "--push-faults", "lost"], "'lost'"),
        (["--push", "http://x", "--push-format", "xml"], "xml"),
    ],
)
def test_wrong_usage_is_told_in_one_line(options: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(options)

    assert end.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert named in line
    assert "secret" not in line
