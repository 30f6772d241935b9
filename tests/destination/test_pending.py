"""Destinations that fail, packages that stay pending, and loads that overlap."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from further_source import load_pending, run_in_slices
from further_source.destination.pending import has_pending
from further_source.sandbox import Sandbox, cell, running
from tests.conftest import MakePipeline
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
    told,
    until,
)
from tests.support.loading import query, serve_rows, source_of
from tests.support.slow import few_of

PENDING = "What had arrived waits in the pending package"


@pytest.fixture
def command(tmp_path: Path, sandbox: Sandbox) -> Command:
    return Command(tmp_path, sandbox)


def fail_to_load(command: Command, sandbox: Sandbox, *names: str) -> "subprocess.CompletedProcess[str]":
    """Runs the command, and takes its database away once it has looked into it."""
    before = asked(sandbox)
    process = command.start(*ids(names))
    until(lambda: asked(sandbox) != before, process)
    with held(command.database):
        return finish(process)


def pending(command: Command) -> list[Path]:
    return [*command.pipeline.glob("load/normalized/*"), *command.pipeline.glob("normalize/extracted/*")]


def execute(command: Command, sql: str) -> None:
    with duckdb.connect(str(command.database)) as connection:
        connection.execute("USE further_data")
        connection.execute(sql)


def test_a_package_with_a_schema_that_was_not_saved_is_loaded(
    sandbox: Sandbox, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    """As a kill between the two leaves it: the tables of the package are in its own schema alone."""
    serve_rows(sandbox, "a", {"x": cell(1, 0.5)})
    pipeline = make_pipeline()
    run_in_slices(pipeline, source_of(sandbox, []))
    schemas = Path(pipeline.working_dir) / "schemas"
    shutil.copytree(schemas, tmp_path / "before")
    pipeline.extract(source_of(sandbox, ["a"]))
    shutil.rmtree(schemas)
    shutil.copytree(tmp_path / "before", schemas)

    load_pending(make_pipeline())

    assert query(make_pipeline(), "SELECT x FROM rows_extract") == [(1.0,)]
    assert not has_pending(make_pipeline())


# A destination that is away for a while


@pytest.mark.slow
@pytest.mark.parametrize("first", few_of([False, True]), ids=["later load", "first load"])
def test_what_arrived_waits_for_the_destination_and_is_loaded_first(
    command: Command, sandbox: Sandbox, first: bool
) -> None:
    payloads = [serve(sandbox, "a", {"x": 1}, {"x": 2}, after=2), serve(sandbox, "b")]
    if not first:
        payloads.append(serve(sandbox, "earlier"))
        loaded(command.run_here("wf/earlier"))

    done = fail_to_load(command, sandbox, "a")

    loaded(done, 1)
    line = done.stderr.splitlines()[-1]
    assert line.startswith("load.py: destination duckdb failed: ")
    assert line.endswith(f"{PENDING}, and the next run loads it first")
    assert "lock" in line
    assert done.stdout == ""
    assert pending(command)

    asked_for_a = asked(sandbox)["a"]
    done = loaded(command.run_here(*ids("ab")))
    assert asked(sandbox)["a"] == asked_for_a
    assert "1 loaded earlier (1 completed)" in done.stdout
    assert command.outcomes() == dict.fromkeys(["a", "b"] if first else ["a", "b", "earlier"], "completed")
    assert stored_cells(command) == cells_of(payloads)
    assert pending(command) == []


@pytest.mark.slow
def test_a_destination_that_is_still_away_keeps_it_waiting(command: Command, sandbox: Sandbox) -> None:
    payloads = [serve(sandbox, "a", after=2)]
    loaded(fail_to_load(command, sandbox, "a"), 1)
    asked_so_far = asked(sandbox)
    with held(command.database):
        line = told(command.run_here("wf/a", "--quiet"), 1)
    assert line.endswith(f"{PENDING}, and the next run loads it first")
    assert asked(sandbox) == asked_so_far
    loaded(command.run_here("wf/a"))
    assert asked(sandbox) == asked_so_far
    assert stored_cells(command) == cells_of(payloads)


def test_a_destination_that_is_away_from_the_start_leaves_nothing_pending(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a")
    with held(command.database):
        line = told(command.run_here("wf/a"), 1)
    assert "destination duckdb failed" in line
    assert PENDING not in line
    assert sandbox.requests == []
    assert pending(command) == []


@pytest.mark.slow
def test_what_was_pending_is_loaded_though_the_list_is_empty(command: Command, sandbox: Sandbox) -> None:
    payloads = [serve(sandbox, "a", after=2)]
    loaded(fail_to_load(command, sandbox, "a"), 1)
    loaded(command.run_here("--executions", "-", stdin=""))
    assert stored_cells(command) == cells_of(payloads)


# A load that can never succeed

BROKEN: dict[str, tuple[str, str]] = {
    "column of another type": (
        "ALTER TABLE cells ALTER field TYPE INTEGER USING NULL",
        "ALTER TABLE cells ALTER field TYPE VARCHAR USING CASE WHEN workflow_execution_id = 'old' THEN 'x' END",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("way", few_of(["mend", "abort"]))
def test_a_load_that_can_never_succeed_is_named_and_can_be_got_past(
    command: Command, sandbox: Sandbox, way: str, broken: str
) -> None:
    payloads = [serve(sandbox, "old", {"x": "0"}), serve(sandbox, "a", {"x": "1"}, {"x": "2"})]
    loaded(command.run_here("wf/old"))
    breaks, mends = BROKEN[broken]
    execute(command, breaks)

    done = loaded(command.run_here(*ids(["old", "a"])), 1)
    line = done.stderr.splitlines()[-1]
    assert line.startswith("load.py: destination duckdb failed: table cells: ")
    assert f"{PENDING}: mend the destination and run again" in line
    assert "`dlt --yes pipeline further abort-packages`" in line
    assert done.stdout == ""

    again = loaded(command.run_here(*ids(["old", "a"]), "--quiet"), 1)
    assert "table cells" in again.stderr.splitlines()[-1]
    assert asked(sandbox) == {"old": 1, "a": 1}

    if way == "abort":
        aborted = dlt_command(command, "--yes", "pipeline", "further", "abort-packages")
        assert aborted.returncode == 0, aborted.stdout + aborted.stderr
        assert pending(command) == []
    execute(command, mends)
    loaded(command.run_here(*ids(["old", "a"])))
    assert asked(sandbox) == {"old": 1, "a": 2 if way == "abort" else 1}
    assert command.outcomes() == {"old": "completed", "a": "completed"}
    assert stored_cells(command) == cells_of(payloads)
    assert command.query("SELECT workflow_execution_id, x FROM rows_extract ORDER BY 2") == [
        ("old", "0"),
        ("a", "1"),
        ("a", "2"),
    ]
    assert command.query("SELECT workflow_execution_id, row_count FROM steps ORDER BY 1") == [("a", 2), ("old", 1)]


def dlt_command(command: Command, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [Path(sys.executable).with_name("dlt"), *arguments],
        cwd=command.directory,
        env=command.env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


# Loads that overlap


@contextmanager
def endless_load(command: Command, sandbox: Sandbox, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A load of `slow` that does not end by itself."""
    sandbox.add(WORKFLOW, "slow", running(WORKFLOW, "slow"))
    process = command.start(f"{WORKFLOW}/slow", *arguments)
    try:
        until(lambda: asked(sandbox)["slow"], process)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            finish(process)


def test_a_second_load_exits_75_at_once_and_harms_nothing(command: Command, sandbox: Sandbox) -> None:
    payload = serve(sandbox, "other")
    with endless_load(command, sandbox) as first:
        line = told(command.run_here("wf/other"), 75)
        assert "another load of pipeline further is running" in line
        assert told(command.run_here("wf/other", "--quiet"), 75) == line
        assert asked(sandbox)["other"] == 0
        assert first.poll() is None

        slow = serve(sandbox, "slow")
        loaded(finish(first))
    loaded(command.run_here(*ids(["other", "slow"])))
    assert stored_cells(command) == cells_of([slow, payload])


def test_wrong_usage_is_told_though_another_load_is_running(command: Command, sandbox: Sandbox) -> None:
    with endless_load(command, sandbox):
        assert "'oops'" in told(command.run_here("oops"), 2)


@pytest.mark.slow
def test_another_pipelines_directory_is_another_load(command: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    serve(sandbox, "other")
    with endless_load(command, sandbox):
        settings: dict[str, Any] = command.settings
        elsewhere = Command(tmp_path / "elsewhere", **settings)
        loaded(elsewhere.run("wf/other"))
        assert elsewhere.outcomes() == {"other": "completed"}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_the_lock_goes_with_its_process(command: Command, sandbox: Sandbox, number: signal.Signals) -> None:
    with endless_load(command, sandbox) as first:
        first.send_signal(number)
        finish(first)
        serve(sandbox, "slow")
        loaded(command.run_here("wf/slow"))
    assert command.outcomes() == {"slow": "completed"}
