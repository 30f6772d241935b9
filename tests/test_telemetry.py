"""dlt's telemetry in scripts of one's own, with an endpoint that would take it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from further_source.sandbox import Sandbox
from tests.support.command import HANG, Command, serve
from tests.support.slow import few_of

SCRIPT = """
import dlt

from further_source import further_source, load_pending, rebuild, run_in_slices

pipeline = dlt.pipeline("claims", destination="duckdb", dataset_name="claims_data")
{run}
"""
RUNS = {
    "pipeline.run": 'pipeline.run(further_source(executions=["wf/a"]))',
    "run_in_slices": 'run_in_slices(pipeline, further_source(executions=["wf/a"]))',
    "load_pending": 'pipeline.extract(further_source(executions=["wf/a"])); load_pending(pipeline)',
    "rebuild": 'run_in_slices(pipeline, further_source(executions=["wf/a"])); rebuild(pipeline)',
}


@pytest.fixture
def reports() -> Iterator[tuple[str, list[Any]]]:
    """The URL of an endpoint for telemetry, and the events that were posted to it."""
    events: list[Any] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["event"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", events
        server.shutdown()


def run(tmp_path: Path, sandbox: Sandbox, endpoint: str, script: str, **environment: str) -> None:
    command = Command(tmp_path, sandbox)
    serve(sandbox, "a")
    subprocess.run(
        [sys.executable, "-c", SCRIPT.format(run=script)],
        cwd=command.directory,
        env={**command.env(), "RUNTIME__DLTHUB_TELEMETRY_ENDPOINT": endpoint, **environment},
        timeout=HANG,
        check=True,
    )
    assert (command.directory / "claims.duckdb").exists()


@pytest.mark.parametrize(
    "way",
    few_of(RUNS),
)
def test_a_script_of_ones_own_reports_to_nobody(
    tmp_path: Path, sandbox: Sandbox, reports: tuple[str, list[Any]], way: str
) -> None:
    endpoint, events = reports
    run(tmp_path, sandbox, endpoint, RUNS[way])
    assert events == []


@pytest.mark.slow
def test_what_somebody_asked_for_still_goes_out(
    tmp_path: Path, sandbox: Sandbox, reports: tuple[str, list[Any]]
) -> None:
    endpoint, events = reports
    run(tmp_path, sandbox, endpoint, RUNS["run_in_slices"], RUNTIME__DLTHUB_TELEMETRY="true")
    assert "pipeline_load" in events
