"""A load that stands still for longer than its lease, and goes on beside another one."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.common.destination.exceptions import DestinationException

from further_source import AlreadyRunningError, run_in_slices
from further_source.command.main import main
from further_source.sandbox import Sandbox
from tests.conftest import MakePipeline
from tests.support.command import Command
from tests.support.loading import WORKFLOW, cells_of, query, serve_rows, source_of
from tests.support.pausing import PausedLoad

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
LEASE = 2.0  # seconds
Paused = Callable[..., PausedLoad]


@pytest.fixture
def paused(sandbox: Sandbox, tmp_path: Path) -> Iterator[Paused]:
    """Starts a load on the machine of a name, and returns once it stands still before a statement."""
    started: list[PausedLoad] = []
    for name in "abc":
        serve_rows(sandbox, name, cells_of(x=1, y=2))
    source: dict[str, Any] = {
        "executions": [f"{WORKFLOW}/a", f"{WORKFLOW}/b"],
        "base_url": sandbox.base_url,
        "access_token": sandbox.issue_token(),
        "initial_interval": 0.01,
        "max_wait": 0,
    }

    def start(database: str, machine: str, *before: str, dataset: str = "data") -> PausedLoad:
        load = PausedLoad(database, tmp_path / machine, before, source, dataset=dataset, lease=LEASE)
        started.append(load)
        assert load.wait(), load.end()
        return load

    yield start
    for load in started:
        load.kill()


@pytest.mark.slow
def test_rows_that_it_doubled_where_loads_cannot_be_fenced_are_named_and_mended(
    paused: Paused,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database = f"sqlite:///{tmp_path}/further.db"
    for name, value in Command(tmp_path, sandbox).env().items():
        if name.startswith("SOURCES__"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("DESTINATION__SQLALCHEMY__CREDENTIALS", database)
    into = ["--destination", "sqlalchemy", "--dataset", "data"]
    assert main(["load", "--quiet", *into, f"{WORKFLOW}/c"]) == 0

    first = paused(database, "first", "INSERT INTO data.cells")
    time.sleep(2 * LEASE)
    second = paused(database, "second", "INSERT INTO data.cells")
    assert second.end()[0] == 0
    code, said = first.end()
    assert (code, said.count("\n")) == (75, 1)
    assert "`further-source verify` names what came twice" in said

    capsys.readouterr()
    assert main(["verify", *into]) == 3
    lines = sorted(line for line in capsys.readouterr().out.splitlines() if line.startswith("wf/"))
    assert [line.partition(":")[0] for line in lines] == ["wf/a", "wf/b"]
    assert all("4 of 2 cells" in line for line in lines), lines
    assert main(["verify", "--repair", *into]) == 0
    assert capsys.readouterr().out == "complete\n"


@pytest.mark.slow
def test_one_in_the_middle_of_a_load_on_duckdb_keeps_others_out_and_doubles_nothing(
    paused: Paused, sandbox: Sandbox, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    load = paused(str(tmp_path / "further.duckdb"), "first", "INSERT INTO further_data.cells", dataset="further_data")
    time.sleep(LEASE)
    with pytest.raises(DestinationException, match="lock"):
        run_in_slices(make_pipeline(), source_of(sandbox, ["a", "b"]))
    code, said = load.end()
    assert code in (0, 75), said
    run_in_slices(make_pipeline(), source_of(sandbox, ["a", "b"]))
    cells = query(make_pipeline(), "SELECT workflow_execution_id, count(*) FROM cells GROUP BY 1 ORDER BY 1")
    assert cells == [("a", 2), ("b", 2)]


@pytest.mark.slow
def test_one_that_stands_still_while_it_takes_a_lease_keeps_nobody_out_for_longer_than_that(
    paused: Paused, sandbox: Sandbox, make_pipeline: MakePipeline, postgres_url: str
) -> None:
    third = make_pipeline(destination=dlt.destinations.postgres(postgres_url), dataset_name="takeover")
    with third.sql_client() as client:
        client.execute_sql("DROP SCHEMA IF EXISTS takeover CASCADE")
    run_in_slices(third, source_of(sandbox, ["c"]))
    with third.sql_client() as client:
        client.execute_sql("UPDATE _further_leases SET lease_id = 'of one that is gone', lease_seconds = 1")
    load = paused(postgres_url, "first", "UPDATE takeover._further_leases SET parts", dataset="takeover")
    give_up = time.monotonic() + 60
    while True:
        try:
            run_in_slices(third, source_of(sandbox, ["a"]))
            break
        except AlreadyRunningError:
            assert time.monotonic() < give_up
    code, said = load.end()
    assert (code, said.count("\n")) == (75, 1), said
    assert query(third, "SELECT count(*) FROM cells") == [(4,)]
