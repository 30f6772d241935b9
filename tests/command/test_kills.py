"""Commands that are killed or stopped, at any point: nothing is lost for good, nothing comes twice."""

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from further_source.sandbox import Reply, Sandbox, cell, completed, failed, running, step
from tests.support.command import (
    WORKFLOW,
    Command,
    asked,
    cells_of,
    finish,
    held,
    ids,
    loaded,
    serve,
    stored_cells,
    until,
)
from tests.support.slow import few_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
slow = pytest.mark.slow

# SIGKILL

EXTRACTED = "normalize/extracted/*"
NORMALIZING = "load/new/*/new_jobs/*"
NORMALIZED = "load/normalized/*"
STARTED = "load/normalized/*/started_jobs/*"
COMPLETED = "load/normalized/*/completed_jobs/*"
LOADED = "load/loaded/*"


class Run:
    """One run of a command, to be looked at while it runs."""

    def __init__(self, command: Command, sandbox: Sandbox, names: list[str]) -> None:
        self._command = command
        self._sandbox = sandbox
        self._asked_before = len(sandbox.requests)
        self._made_before = set(command.pipeline.rglob("*"))
        self._made: set[Path] = set()
        self.process = command.start(*ids(names))

    @property
    def seconds(self) -> float:
        """Since its first request; -1 before that."""
        requests = self._sandbox.requests[self._asked_before :]
        return time.monotonic() - requests[0].at if requests else -1

    def made(self, pattern: str) -> int:
        """How many such files or directories it has made so far in its working directory, gone ones too."""
        found = {path for path in self._command.pipeline.glob(pattern) if path not in self._made_before}
        self._made |= found
        return sum(path.match(pattern) for path in self._made)

    def until(self, due: Callable[["Run"], bool]) -> None:
        """Waits until it is due, or has ended before."""
        until(lambda: due(self) or self.process.poll() is not None, every=0.001)

    @property
    def is_writing(self) -> bool:
        return self.seconds >= 0 and self._command.database.with_suffix(".duckdb.wal").exists()


def after(seconds: float) -> Callable[[Run], bool]:
    return lambda run: run.seconds >= seconds


def made(pattern: str, times: int = 1) -> Callable[[Run], bool]:
    return lambda run: run.made(pattern) >= times


CHAINS: list[list[Callable[[Run], bool]]] = [
    [after(0), after(0.7), after(1.4)],
    [after(0.2), after(0.9), after(1.6)],
    [after(0.5), after(1.2), after(2)],
    [made(EXTRACTED), made(EXTRACTED, 2), lambda run: run.is_writing],
    [made(NORMALIZING), made(NORMALIZED, 2), made(NORMALIZED)],
    [made(STARTED), made(STARTED, 6), made(COMPLETED)],
    [made(COMPLETED, 4), made(LOADED), made(LOADED, 2)],
]
SIZE = 60


def execution(number: int) -> dict[str, Any]:
    """Executions of all sizes, one without a step and one that failed among them."""
    name = f"e{number:02}"
    if number % 20 == 7:
        return failed(WORKFLOW, name, error="unreadable")
    rows = [
        {"name": cell(f"{name}/{row}", 0.5), "amount": cell(row * 1.5, 0.25), "none": cell(None, 0.125)}
        for row in range(number % 5)
    ]
    steps = [step("Extract", rows), step("Review", rows[:1])] if number % 11 else []
    return completed(WORKFLOW, name, steps, metadata={"external_id": name})


@pytest.mark.slow
@pytest.mark.parametrize(
    "first", [pytest.param(first, marks=() if first == 4 else slow) for first in range(0, len(CHAINS), 2)]
)
def test_killed_runs_leave_every_row_exactly_once(tmp_path: Path, first: int) -> None:
    chains = CHAINS[first : first + 2]  # two at a time
    with ThreadPoolExecutor(len(chains)) as pool:
        killed = list(pool.map(_run_killed, chains, [tmp_path / str(number) for number in range(len(chains))]))
    assert sum(killed) >= len(chains)  # a state of a few milliseconds may be missed now and then


def _run_killed(chain: list[Callable[[Run], bool]], directory: Path) -> int:
    """Runs that are killed in turn, each with more executions than the one before, and one that is not."""
    with Sandbox() as sandbox:
        command = Command(directory, sandbox, commit_interval=0.4, max_requests_per_second=60)
        payloads = [execution(number) for number in range(SIZE)]
        names = [payload["workflow_execution_id"] for payload in payloads]
        for number, payload in enumerate(payloads):
            sandbox.serve(WORKFLOW, names[number], payload, after=number * 7 % 10 * 0.3)
        killed = 0
        for number, due in enumerate(chain, start=1):
            run = Run(command, sandbox, names[: SIZE * number // (len(chain) + 1)])
            run.until(due)
            run.process.kill()
            killed += finish(run.process).returncode == -signal.SIGKILL
            _assert_nothing_twice(command)
        loaded(command.run(*ids(names)))
        _assert_everything_once(command, payloads)
        return killed


def _assert_nothing_twice(command: Command) -> None:
    """The file can be opened, however it was left, and no row is there twice."""
    if not command.database.exists():
        return
    there = {
        name
        for (name,) in command.query("FROM (SHOW ALL TABLES) SELECT name WHERE schema = 'further_data'", schema="main")
    }
    keys = {"executions": "1", "steps": "step_index", "cells": "step_index, row_index, field"}
    for table in there & keys.keys():
        doubled = command.query(
            f"SELECT workflow_id, workflow_execution_id, {keys[table]}, count(*) FROM further_data.{table} "
            "GROUP BY ALL HAVING count(*) > 1",
            schema="main",
        )
        assert doubled == [], table


def _assert_everything_once(command: Command, payloads: list[dict[str, Any]]) -> None:
    executions = command.query(
        "SELECT workflow_execution_id, status, poll_outcome, metadata__external_id FROM executions"
    )
    assert sorted(executions) == sorted(
        (one["workflow_execution_id"], one["status"], one["status"], one["metadata"].get("external_id"))
        for one in payloads
    )
    steps = command.query(
        "SELECT workflow_execution_id, step_index, step_name, row_count FROM steps WHERE _deleted IS NULL"
    )
    assert sorted(steps) == sorted(
        (one["workflow_execution_id"], index, a_step["step_name"], len(a_step["data"]["data"]))
        for one in payloads
        for index, a_step in enumerate(one.get("steps", []))
    )
    assert stored_cells(command) == cells_of(payloads)
    for index, table in enumerate(("rows_extract", "rows_review")):
        rows = command.query(
            f"SELECT workflow_execution_id, step_index, row_index, name, name__confidence, amount "
            f"FROM {table} WHERE _deleted IS NULL"
        )
        assert sorted(rows) == sorted(
            (one["workflow_execution_id"], index, number, row["name"]["value"], 0.5, row["amount"]["value"])
            for one in payloads
            if len(one.get("steps", [])) > index
            for number, row in enumerate(one["steps"][index]["data"]["data"])
        )


def serve_large(sandbox: Sandbox, name: str, *, rows: int = 3000, after: float = 0) -> dict[str, Any]:
    """Serves an execution of so many rows of 20 cells."""
    values = [{f"f{field}": f"{row}.{field}" for field in range(20)} for row in range(rows)]
    return serve(sandbox, name, *values, after=after)


@pytest.mark.slow
@pytest.mark.parametrize("size", [pytest.param(0, marks=slow), 500_000])
def test_a_kill_while_the_database_is_written_leaves_one_that_opens(
    tmp_path: Path, sandbox: Sandbox, size: int
) -> None:
    command = Command(tmp_path, sandbox)
    payloads = [serve_large(sandbox, name) for name in "ab"]
    loaded(command.run_here(*ids("a")))
    log = command.database.with_suffix(".duckdb.wal")
    run = Run(command, sandbox, ["a", "b"])
    until(lambda: run.is_writing and log.stat().st_size >= size, run.process, every=0.001)
    run.process.kill()
    finish(run.process)
    _assert_nothing_twice(command)
    loaded(command.run_here(*ids("ab")))
    assert stored_cells(command) == cells_of(payloads)
    assert asked(sandbox) == {"a": 1, "b": 1}  # its package was complete, and was loaded


@slow
def test_kills_while_a_pending_package_is_loaded(tmp_path: Path, sandbox: Sandbox) -> None:
    command = Command(tmp_path, sandbox)
    loaded(command.run_here("--executions", "-", stdin=""))
    payloads = [serve_large(sandbox, "a", after=2), serve(sandbox, "b")]
    process = command.start(*ids("a"))
    until(lambda: asked(sandbox)["a"], process)  # the ledger has been read
    with held(command.database):
        loaded(finish(process), 1)
    asked_for_it = asked(sandbox)["a"]
    for due in (made(STARTED), made(STARTED, 3), made(COMPLETED, 2)):
        run = Run(command, sandbox, ["a", "b"])
        run.until(due)
        run.process.kill()
        finish(run.process)
        _assert_nothing_twice(command)
    loaded(command.run_here(*ids("ab")))
    assert stored_cells(command) == cells_of(payloads)
    assert command.outcomes() == {"a": "completed", "b": "completed"}
    assert asked(sandbox)["a"] == asked_for_it


@pytest.mark.slow
def test_a_file_that_may_be_loaded_already_is_not_loaded_twice(tmp_path: Path, sandbox: Sandbox) -> None:
    """A kill between the moment a file is in its table and the moment dlt notes so, put together by hand."""
    command = Command(tmp_path, sandbox, commit_interval=3600)
    payloads = [serve(sandbox, "a"), serve(sandbox, "b", {"x": 1}, {"x": 2}, after=2)]
    loaded(command.run_here(*ids("a")))
    process = command.start(*ids("ab"))
    until(lambda: asked(sandbox)["b"], process)  # the ledger has been read
    with held(command.database):
        loaded(finish(process), 1)
    (package,) = command.pipeline.glob(NORMALIZED)
    (cells,) = package.glob("*_jobs/cells.*")
    table = pq.read_table(cells)
    pq.write_table(table.slice(0, 1), cells)
    pq.write_table(table.slice(1), cells.with_name("cells.0123456789.0.parquet"))
    with duckdb.connect(str(command.database)) as connection:
        connection.execute("DELETE FROM further_data_staging.executions")
        for name in ("executions", "steps", "cells"):
            table = f"further_data_staging.{name}" if name == "executions" else f"further_data.{name}"
            for job in sorted(package.glob(f"*_jobs/{name}.*")):
                connection.execute(f"INSERT INTO {table} BY NAME FROM read_parquet('{job}')")
                state = "completed_jobs" if "0123456789" in job.name else "started_jobs"
                job.rename(package / state / job.name)

    loaded(command.run_here(*ids("ab")))
    assert command.outcomes() == {"a": "completed", "b": "completed"}
    assert stored_cells(command) == cells_of(payloads)
    assert command.query("SELECT workflow_execution_id, row_count FROM steps ORDER BY 1") == [("a", 1), ("b", 2)]
    rows = command.query("SELECT workflow_execution_id, row_index FROM rows_extract ORDER BY ALL")
    assert rows == [("a", 0), ("b", 0), ("b", 1)]


def test_a_loaded_package_that_was_not_put_away_is_not_loaded_again(tmp_path: Path, sandbox: Sandbox) -> None:
    """A kill between the end of a load and the moment dlt puts its package away, put together by hand."""
    command = Command(tmp_path, sandbox)
    payloads = [serve(sandbox, "a"), serve(sandbox, "b")]
    loaded(command.run_here(*ids("a")))
    (package,) = command.pipeline.glob(LOADED)
    package.rename(command.pipeline / "load" / "normalized" / package.name)
    loaded(command.run_here(*ids("ab")))
    assert asked(sandbox) == {"a": 1, "b": 1}
    assert stored_cells(command) == cells_of(payloads)
    assert package.exists()
    assert len(command.query("SELECT * FROM _dlt_loads")) == 2


# SIGTERM and SIGINT

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", few_of(SIGNALS), ids=lambda number: number.name)
def test_a_signal_stops_polling_and_loads_what_had_arrived(
    tmp_path: Path, sandbox: Sandbox, number: signal.Signals
) -> None:
    command = Command(tmp_path, sandbox, initial_interval=4, max_interval=4, max_workers=2)
    names = [f"e{position}" for position in range(8)]
    payloads = [serve(sandbox, name) for name in names]
    sandbox.add(WORKFLOW, "slow", running(WORKFLOW, "slow"))
    process = command.start(*ids([*names, "slow"]))
    until(lambda: asked(sandbox)["slow"], process)
    time.sleep(0.5)  # its answer arrives
    process.send_signal(number)
    sent_at = time.monotonic()
    done = loaded(finish(process), 128 + number)
    assert [record for record in sandbox.requests if record.at > sent_at] == []
    assert command.outcomes() == dict.fromkeys(names, "completed")
    assert stored_cells(command) == cells_of(payloads)
    assert "1 not ended yet: the next run asks again" in done.stdout
    assert "KeyboardInterrupt" not in done.stderr

    payloads.append(serve(sandbox, "slow"))
    loaded(command.run_here(*ids([*names, "slow"])))
    assert stored_cells(command) == cells_of(payloads)
    assert asked(sandbox) == {**dict.fromkeys(names, 1), "slow": 2}


@pytest.mark.slow
def test_a_load_that_fails_after_a_signal_exits_1_as_any_that_fails(tmp_path: Path, sandbox: Sandbox) -> None:
    command = Command(tmp_path, sandbox)
    serve(sandbox, "a")
    sandbox.add(WORKFLOW, "slow", running(WORKFLOW, "slow"))
    process = command.start(*ids(["a", "slow"]), "--json")
    until(lambda: asked(sandbox)["slow"] > 1, process)
    with held(command.database):
        process.send_signal(signal.SIGTERM)
        done = loaded(finish(process), 1)
    assert "What had arrived waits" in done.stderr
    assert json.loads(done.stdout)["exit_code"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "pattern"), [(signal.SIGTERM, STARTED), (signal.SIGINT, EXTRACTED)])
def test_a_signal_while_loading_lets_the_load_end(
    tmp_path: Path, sandbox: Sandbox, number: signal.Signals, pattern: str
) -> None:
    command = Command(tmp_path, sandbox, commit_interval=0.1)
    payload = serve_large(sandbox, "a")
    sandbox.add(WORKFLOW, "slow", running(WORKFLOW, "slow"))
    process = command.start(*ids(["a", "slow"]))
    until(lambda: list(command.pipeline.glob(pattern)), process, every=0.001)
    process.send_signal(number)
    loaded(finish(process), 128 + number)
    assert command.outcomes() == {"a": "completed"}
    assert stored_cells(command) == cells_of([payload])


@pytest.mark.slow
def test_a_signal_does_not_wait_for_a_request_that_hangs(tmp_path: Path, sandbox: Sandbox) -> None:
    command = Command(tmp_path, sandbox, request_timeout=3600)
    serve(sandbox, "a")
    sandbox.add(WORKFLOW, "b", Reply(fault="silent"))
    process = command.start(*ids("ab"))
    until(lambda: asked(sandbox)["a"] and asked(sandbox)["b"], process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    loaded(finish(process), 143)
    assert command.outcomes() == {"a": "completed"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "pattern"), [(signal.SIGTERM, EXTRACTED), pytest.param(signal.SIGINT, NORMALIZED, marks=slow)]
)
def test_a_second_signal_ends_it_at_once(
    tmp_path: Path, sandbox: Sandbox, number: signal.Signals, pattern: str
) -> None:
    command = Command(tmp_path, sandbox, max_workers=1)  # so that a has arrived whole when the other is asked
    loaded(command.run_here("--executions", "-", stdin=""))
    payload = serve_large(sandbox, "a", rows=20_000)
    sandbox.add(WORKFLOW, "slow", running(WORKFLOW, "slow"))
    process = command.start(*ids(["a", "slow"]))
    until(lambda: asked(sandbox)["slow"] > 3, process)
    process.send_signal(number)
    until(lambda: list(command.pipeline.glob(pattern)), process, every=0.001)
    process.send_signal(number)
    done = finish(process)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert "Traceback" not in done.stderr
    loaded(command.run_here(*ids(["a"])))
    assert asked(sandbox)["a"] == 1
    assert stored_cells(command) == cells_of([payload])
