"""One load at a time into a dataset, from whatever machine: a pipelines directory stands for a machine here."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import psycopg2.extensions
import pytest
from dlt.common.destination.exceptions import DestinationException

from further_source import AlreadyRunningError, FurtherError, rebuild, run_in_slices
from further_source.destination.lease import leased
from further_source.destination.stored import incomplete_executions
from further_source.sandbox import Sandbox, running
from tests.support.loading import WORKFLOW, asked, cells_of, columns, query, serve_rows, source_of, tables

LOAD = Path(__file__).parents[2] / "pipelines" / "load.py"
SECONDS = 60.0
Machine = Callable[..., dlt.Pipeline]


@pytest.fixture
def dataset(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[str]:
    name = f"lease_{abs(hash(request.node.nodeid)):x}"
    yield name
    execute(postgres_url, f"SET lock_timeout = '30s'; DROP SCHEMA IF EXISTS {name}, {name}_staging CASCADE")


def execute(url: str, *statements: str) -> None:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()


@pytest.fixture
def machine(postgres_url: str, dataset: str, tmp_path: Path) -> Machine:
    """Makes the pipeline of a machine, by the machine's name."""

    def make(name: str, pipeline_name: str = "further", **arguments: Any) -> dlt.Pipeline:
        usual = {"destination": dlt.destinations.postgres(postgres_url), "dataset_name": dataset}
        pipeline: dlt.Pipeline = dlt.pipeline(
            pipeline_name, pipelines_dir=str(tmp_path / name), **{**usual, **arguments}
        )
        return pipeline

    return make


def test_a_second_machine_is_told_who_loads_and_asks_nothing(sandbox: Sandbox, machine: Machine) -> None:
    serve_rows(sandbox, "ex", cells_of(a=1))
    with leased(machine("first")):
        with pytest.raises(AlreadyRunningError) as told:
            run_in_slices(machine("second"), source_of(sandbox, ["ex"]))
        assert f"pipeline further, process {os.getpid()} on " in str(told.value)
        assert "its lease runs out in 1" in str(told.value)
        assert "\n" not in str(told.value)
        with pytest.raises(AlreadyRunningError):
            run_in_slices(machine("third", "another_name"), source_of(sandbox, ["ex"]))
    assert asked(sandbox) == {}
    second = machine("second")
    run_in_slices(second, source_of(sandbox, ["ex"]))
    assert query(second, "SELECT count(*) FROM cells") == [(1,)]


@pytest.mark.parametrize(
    ("held", "asks", "excluded"),
    [
        ("further_shard_1_of_4", "further_shard_1_of_4", True),
        ("further_shard_1_of_4", "further_shard_2_of_4", False),
        ("further_shard_1_of_4", "further_shard_2_of_3", True),
        ("further_shard_1_of_4", "further", True),
        ("further", "further_shard_1_of_4", True),
    ],
)
def test_shards_of_one_number_run_side_by_side_and_nothing_else_does(
    held: str, asks: str, excluded: bool, machine: Machine
) -> None:
    with leased(machine("first", held), shared="shard" in held):
        try:
            with leased(machine("second", asks), shared="shard" in asks):
                found = False
        except AlreadyRunningError:
            found = True
    assert found is excluded


def test_a_rebuild_and_a_single_run_wait_for_no_lease_and_take_none_away(sandbox: Sandbox, machine: Machine) -> None:
    serve_rows(sandbox, "ex", cells_of(a=1))
    run_in_slices(machine("first"), source_of(sandbox, ["ex"]))
    with leased(machine("first")):
        with pytest.raises(AlreadyRunningError):
            rebuild(machine("second"))
        with pytest.raises(Exception, match="another load into this dataset is running"):
            machine("second").run(source_of(sandbox, ["other"]))
    assert asked(sandbox) == {"ex": 1}
    assert rebuild(machine("second")) == {"rows_extract": 1}


def test_a_lease_that_ran_out_is_taken_and_its_holder_loads_no_more(
    sandbox: Sandbox, machine: Machine, postgres_url: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__LEASE_DURATION", "1000")
    serve_rows(sandbox, "ex", cells_of(a=1))
    first = machine("first")
    lost = "has begun while this one did not renew"
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(AlreadyRunningError, match=lost))
        stack.enter_context(leased(first))
        execute(postgres_url, f"UPDATE {dataset}._further_leases SET renewed_at = renewed_at - INTERVAL '1001 seconds'")
        run_in_slices(machine("second"), source_of(sandbox, ["ex"]))
        with pytest.raises(AlreadyRunningError, match=lost):
            run_in_slices(first, source_of(sandbox, ["ex"], reload=True))
    assert query(machine("second"), "SELECT count(*) FROM cells") == [(1,)]
    assert asked(sandbox)["ex"] == 2


@pytest.mark.parametrize(("seconds", "is_held"), [(999, True), (1001, False)])
def test_a_clock_that_was_set_back_keeps_nobody_out_for_longer_than_a_lease(
    seconds: int, is_held: bool, machine: Machine, postgres_url: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__LEASE_DURATION", "1000")
    with leased(machine("first")):
        later = f"renewed_at + INTERVAL '{seconds} seconds'"
        execute(postgres_url, f"UPDATE {dataset}._further_leases SET renewed_at = {later}")
        with pytest.raises(AlreadyRunningError) if is_held else nullcontext(), leased(machine("second")):
            pass


@pytest.mark.parametrize("has_run_out", [False, True])
def test_a_connection_that_is_lost_while_a_lease_is_taken_is_no_other_load(
    has_run_out: bool, machine: Machine, postgres_url: str, dataset: str
) -> None:
    with leased(machine("first")):
        pass
    if has_run_out:
        execute(postgres_url, f"UPDATE {dataset}._further_leases SET lease_id = 'gone', lease_seconds = 0")
    execute(
        postgres_url,
        f"CREATE FUNCTION {dataset}.cut() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'",
        f"CREATE TRIGGER cut BEFORE UPDATE ON {dataset}._further_leases FOR EACH ROW EXECUTE FUNCTION {dataset}.cut()",
    )
    with (
        pytest.raises(DestinationException, match="closed the connection|terminating connection"),
        leased(machine("second")),
    ):
        pass


@pytest.mark.parametrize("dropped", ["TABLE {}._further_leases", "SCHEMA {} CASCADE"])
def test_a_table_of_leases_that_somebody_drops_is_made_anew(
    dropped: str, sandbox: Sandbox, machine: Machine, postgres_url: str, dataset: str
) -> None:
    serve_rows(sandbox, "ex", cells_of(a=1))
    first = machine("first")
    with leased(first) as lease:
        assert lease is not None
        execute(postgres_url, f"DROP {dropped.format(dataset)}")
        lease.check()
        with pytest.raises(AlreadyRunningError), leased(machine("second")):
            pass
    run_in_slices(first, source_of(sandbox, ["ex"]))
    assert query(first, "SELECT count(*) FROM cells") == [(1,)]


def test_a_dataset_that_another_load_makes_at_this_moment_is_no_failure(
    machine: Machine, postgres_url: str, dataset: str
) -> None:
    other = psycopg2.connect(postgres_url)
    collided: list[bool] = []

    def commit_once_somebody_waits() -> None:
        deadline = time.monotonic() + SECONDS
        while not collided and time.monotonic() < deadline:
            with other.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
                if cursor.fetchone():
                    collided.append(True)
            time.sleep(0.01)
        other.commit()

    with other.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {dataset}")
    committing = threading.Thread(target=commit_once_somebody_waits)
    committing.start()
    try:
        with leased(machine("first")) as lease:
            assert lease is not None
    finally:
        committing.join()
        other.close()
    assert collided == [True]


def test_refresh_and_drop_leave_the_leases_and_dev_mode_has_its_own(sandbox: Sandbox, machine: Machine) -> None:
    serve_rows(sandbox, "ex", cells_of(a=1))
    run_in_slices(machine("first"), source_of(sandbox, ["ex"]))
    refreshed = machine("first", refresh="drop_sources")
    run_in_slices(refreshed, source_of(sandbox, ["ex"]))
    assert query(refreshed, "SELECT part, lease_id FROM _further_leases") == [("1/1", "free")]
    assert tables(refreshed) >= {"executions", "cells"}
    with leased(machine("first")):
        fresh = machine("second", dev_mode=True)
        run_in_slices(fresh, source_of(sandbox, ["ex"]))
        assert query(fresh, "SELECT count(*) FROM cells") == [(1,)]
        with fresh.sql_client() as client:
            client.drop_dataset()


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_statements_on_other_destinations(kind: str, machine: Machine, tmp_path: Path) -> None:
    destination: Any = (
        dlt.destinations.duckdb(str(tmp_path / "leases.duckdb"))
        if kind == "duckdb"
        else dlt.destinations.sqlalchemy(f"sqlite:///{tmp_path}/leases.db")
    )
    first, second = (machine(name, destination=destination, dataset_name="data") for name in ("first", "second"))
    for _ in range(2):
        with leased(first) as lease:
            assert lease is not None
            lease.check()
            with pytest.raises(AlreadyRunningError, match="its lease runs out in 1"), leased(second):
                pass
    with leased(second):
        pass
    assert query(second, "SELECT part, lease_id FROM _further_leases") == [("1/1", "free")]


@pytest.mark.slow
def test_a_load_of_nothing_costs_few_statements(
    sandbox: Sandbox, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_rows(sandbox, "ex", cells_of(a=1))
    run_in_slices(machine("first"), source_of(sandbox, ["ex"]))
    counts = []
    for lease_duration in ("0", "180"):
        monkeypatch.setenv("SOURCES__FURTHER_SOURCE__LEASE_DURATION", lease_duration)
        pipeline = machine("first")
        with counted_statements() as statements:
            run_in_slices(pipeline, source_of(sandbox, ["ex"]))
        counts.append(len(statements))
    without, with_lease = counts
    assert 0 < without < with_lease <= without + 12
    own = [statement for statement in statements if '_further_leases"' in statement and "SET LOCAL" not in statement]
    assert len(own) == 4  # 3 to take it, 1 to give it back


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_: Any, event: str, called: Any) -> None:
        if (
            event == "c_return"
            and called.__name__ == "execute"
            and isinstance(called.__self__, psycopg2.extensions.cursor)
        ):
            statements.append(str(called.__self__.query))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield statements
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.fixture
def reader(postgres_url: str, dataset: str) -> Iterator[str]:
    """The URL of a user who may read and write what is in the dataset, and make nothing."""
    name = f"user_of_{dataset}"
    execute(postgres_url, f"CREATE ROLE {name} LOGIN PASSWORD 'none'")
    yield postgres_url.replace("postgres:none@", f"{name}:none@")
    execute(postgres_url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def test_who_may_not_make_the_table_is_told_what_to_do(
    sandbox: Sandbox, machine: Machine, reader: str, postgres_url: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_rows(sandbox, "ex", cells_of(a=1))
    run_in_slices(machine("first"), source_of(sandbox, ["ex"]))
    user = f"user_of_{dataset}"
    execute(
        postgres_url,
        f"DROP TABLE {dataset}._further_leases",
        f"GRANT USAGE ON SCHEMA {dataset} TO {user}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {dataset} TO {user}",
    )
    limited = machine("second", destination=dlt.destinations.postgres(reader))
    with pytest.raises(FurtherError, match=r"_further_leases.*lease_duration = 0.*permission denied") as told:
        run_in_slices(limited, source_of(sandbox, ["other"]))
    assert "\n" not in str(told.value)
    assert asked(sandbox) == {"ex": 1}
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__LEASE_DURATION", "0")
    with leased(limited) as lease:
        assert lease is None
    monkeypatch.delenv("SOURCES__FURTHER_SOURCE__LEASE_DURATION")
    with leased(machine("first")):
        pass
    execute(postgres_url, f"GRANT SELECT ON {dataset}._further_leases TO {user}")
    with pytest.raises(FurtherError, match=r"_further_leases.*lease_duration = 0.*permission denied"), leased(limited):
        pass
    execute(postgres_url, f"GRANT INSERT, UPDATE ON {dataset}._further_leases TO {user}")
    with leased(limited) as lease:
        assert lease is not None


def test_an_execution_with_several_rows_is_found_and_mended_by_a_reload(sandbox: Sandbox, machine: Machine) -> None:
    serve_rows(sandbox, "ex", cells_of(a=1))
    first = machine("first")
    run_in_slices(first, source_of(sandbox, ["ex"]))
    with first.sql_client() as client:
        assert incomplete_executions(client) == []
        names = ", ".join(f'"{name}"' for name in columns(first, "executions"))
        doubled = names.replace('"_dlt_id"', "_dlt_id || '2'")
        client.execute_sql(f"INSERT INTO executions ({names}) SELECT {doubled} FROM executions")
        (found,) = incomplete_executions(client)
    assert str(found) == "wf/ex: 2 rows in executions, 1 of 1 steps and 1 of 1 cells"
    run_in_slices(first, source_of(sandbox, ["ex"], reload=True))
    with first.sql_client() as client:
        assert incomplete_executions(client) == []


class Load:
    """The command in a process, on a machine of its own."""

    def __init__(self, sandbox: Sandbox, url: str, dataset: str, directory: Path, executions: list[str]) -> None:
        self.command = [sys.executable, str(LOAD), "--destination", "postgres", "--dataset", dataset, "--quiet"]
        self.command += [f"{WORKFLOW}/{name}" for name in executions]
        self.directory = directory
        self.directory.mkdir(exist_ok=True)
        self.environment = {
            **os.environ,
            "DESTINATION__POSTGRES__CREDENTIALS": url,
            "DLT_DATA_DIR": str(directory / "dlt"),
            "SOURCES__FURTHER_SOURCE__BASE_URL": sandbox.base_url,
            "SOURCES__FURTHER_SOURCE__ACCESS_TOKEN": sandbox.issue_token(),
            "SOURCES__FURTHER_SOURCE__INITIAL_INTERVAL": "0.1",
            "SOURCES__FURTHER_SOURCE__MAX_INTERVAL": "0.1",
            "SOURCES__FURTHER_SOURCE__MAX_REQUESTS_PER_SECOND": "1000",
            "SOURCES__FURTHER_SOURCE__MAX_WAIT": "60",
            "SOURCES__FURTHER_SOURCE__COMMIT_INTERVAL": "0.1",
            "SOURCES__FURTHER_SOURCE__LEASE_DURATION": "3",
        }

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command, env=self.environment, cwd=self.directory, stderr=subprocess.PIPE, encoding="utf-8"
        )

    def run(self) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command, env=self.environment, cwd=self.directory, capture_output=True, encoding="utf-8", check=False
        )

    def run_when_it_may(self) -> "subprocess.CompletedProcess[str]":
        give_up = time.monotonic() + SECONDS
        while (ended := self.run()).returncode == 75:
            assert time.monotonic() < give_up
        return ended


@pytest.fixture
def loads(sandbox: Sandbox, postgres_url: str, dataset: str, tmp_path: Path, machine: Machine) -> tuple[Load, Load]:
    """Of two machines that load the same: `done`, and `slow` that goes on running."""
    serve_rows(sandbox, "done", cells_of(a=1, b=2))
    sandbox.serve(WORKFLOW, "slow", running(WORKFLOW, "slow"))
    run_in_slices(machine("before"), source_of(sandbox, []))
    first, second = (
        Load(sandbox, postgres_url, dataset, tmp_path / name, ["done", "slow"]) for name in ("one", "other")
    )
    return first, second


def wait_for(pipeline: dlt.Pipeline, query_text: str) -> None:
    give_up = time.monotonic() + SECONDS
    while query(pipeline, query_text) in ([], [(0,)]):
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_after_a_kill_the_lease_keeps_other_machines_out_but_not_the_same_one(
    loads: tuple[Load, Load], machine: Machine
) -> None:
    first, second = loads
    first.environment["SOURCES__FURTHER_SOURCE__LEASE_DURATION"] = "1000"
    killed = first.start()
    wait_for(machine("watch"), "SELECT count(*) FROM cells")
    refused = second.run()
    assert (refused.returncode, refused.stderr.count("\n")) == (75, 1)
    assert f"process {killed.pid} on " in refused.stderr
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert second.run().returncode == 75
    first.environment["SOURCES__FURTHER_SOURCE__MAX_WAIT"] = "0"
    again = first.run()
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    "held_up_at", ["polling", "{}_staging.executions", "{}.executions", "{}.steps", "{}._dlt_loads"]
)
def test_who_stood_still_for_longer_than_the_lease_doubles_nothing(
    held_up_at: str, loads: tuple[Load, Load], sandbox: Sandbox, machine: Machine, postgres_url: str, dataset: str
) -> None:
    first, second = loads
    holding = psycopg2.connect(postgres_url)
    if held_up_at == "polling":
        stopped = first.start()
        wait_for(machine("watch"), "SELECT count(*) FROM cells")
    else:
        serve_rows(sandbox, "warm", cells_of(a=1))
        run_in_slices(machine("before"), source_of(sandbox, ["warm"]))  # makes the staging tables
        with holding.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {held_up_at.format(dataset)} IN SHARE MODE")
        stopped = first.start()
        wait_for(machine("watch"), "SELECT count(*) FROM pg_locks WHERE NOT granted")
    stopped.send_signal(signal.SIGSTOP)
    holding.rollback()
    holding.close()
    serve_rows(sandbox, "slow", cells_of(a=1, b=2))
    try:
        other = second.run_when_it_may()
    finally:
        stopped.send_signal(signal.SIGCONT)
        _, line = stopped.communicate()
    assert (other.returncode, other.stderr) == (0, "")
    assert (stopped.returncode, line.count("\n")) == (75, 1), line
    last = first.run_when_it_may()
    assert (last.returncode, last.stderr) == (0, "")
    assert_each_cell_once(machine)


def assert_each_cell_once(machine: Machine) -> None:
    watch = machine("watch")
    found = query(watch, "SELECT workflow_execution_id, field, count(*) FROM cells GROUP BY 1, 2")
    found = [row for row in found if row[0] != "warm"]
    assert sorted(found) == [(name, field, 1) for name in ("done", "slow") for field in "ab"]
    assert sorted(query(watch, "SELECT a, count(*) FROM rows_extract GROUP BY 1")) in ([(1.0, 2)], [(1.0, 3)])
    with watch.sql_client() as client:
        assert incomplete_executions(client) == []
