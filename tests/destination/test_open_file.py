"""A DuckDB file is open while it is read and written, and free for others while the API is polled."""

import subprocess
import sys
import threading
from pathlib import Path

import dlt

from further_source.destination.open_file import OpenFile
from further_source.run import run_in_slices
from further_source.sandbox import Sandbox, running
from tests.support.loading import WORKFLOW, asked, query, serve_rows, source_of

_READ = "import duckdb, sys; held = duckdb.connect(sys.argv[1], read_only=True)"


def can_be_read(pipeline: dlt.Pipeline) -> bool:
    """Whether another process can."""
    with pipeline.destination_client() as client:
        file = client.config.credentials.database  # type: ignore[union-attr]
    return subprocess.run([sys.executable, "-c", _READ, str(Path(file))], capture_output=True).returncode == 0


def test_it_is_open_within_and_closed_after(pipeline: dlt.Pipeline) -> None:
    with OpenFile(pipeline) as file:
        assert not can_be_read(pipeline)
        file.close()
        assert can_be_read(pipeline)
        file.open()
        file.open()
        assert not can_be_read(pipeline)
    assert can_be_read(pipeline)


def test_a_load_holds_it_also_where_another_process_had_it_when_polling_ended(pipeline: dlt.Pipeline) -> None:
    with pipeline.sql_client() as client:
        client.execute_sql("SELECT 1")  # makes the file
        file = str(client.credentials.database)
    reads = f"{_READ}; print(flush=True); input()"
    found: list[bool] = []
    pipeline.load = lambda: found.append(can_be_read(pipeline))  # type: ignore[method-assign, assignment, misc]
    with OpenFile(pipeline) as held:
        held.close()
        with subprocess.Popen([sys.executable, "-c", reads, file], stdin=-1, stdout=-1, text=True) as other:
            assert other.stdout is not None
            other.stdout.readline()
            held.open()
            other.communicate("\n")
        pipeline.load()
    assert found == [False]


def test_it_can_be_read_while_the_api_is_polled_in_each_slice(pipeline: dlt.Pipeline, sandbox: Sandbox) -> None:
    serve_rows(sandbox, "done", {"A": "1"})
    sandbox.add(WORKFLOW, "slow", running(WORKFLOW, "slow"))
    seen: list[bool] = []
    loads: list[int] = []

    def stop() -> bool:
        polls_alone = threading.current_thread() is threading.main_thread()  # which loads, too
        if polls_alone and asked(sandbox)["slow"] >= 3 and len(seen) < 2 and (not seen or loads):
            seen.append(can_be_read(pipeline))
        return len(seen) == 2

    source = source_of(sandbox, ["done", "slow"], commit_interval=0.2, max_wait=60)
    run_in_slices(pipeline, source, stop=stop, on_progress=lambda report: loads.extend([1] * report.rows["cells"]))
    assert seen == [True, True]
    assert can_be_read(pipeline)
    assert query(pipeline, "SELECT count(*) FROM cells") == [(1,)]
