"""What is new is appended; whatever may replace something is merged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt
import pytest

from further_source import further_webhooks, run_in_slices
from further_source.destination.appending import read_leftovers
from further_source.executions import ExecutionId
from further_source.sandbox import Sandbox
from tests.conftest import MakePipeline
from tests.support.deliveries import inline, store
from tests.support.loading import WORKFLOW, cells_of, query, serve_rows, serve_steps, source_of

APPENDED = {"steps", "cells", "rows_extract"}


def staged(pipeline: dlt.Pipeline) -> set[str]:
    """The tables that a load has ever merged by way of the staging dataset."""
    sql = f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{pipeline.dataset_name}_staging'"
    return {name for (name,) in query(pipeline, sql) if not name.startswith("_dlt")}


def rows(pipeline: dlt.Pipeline) -> dict[str, list[tuple[Any, ...]]]:
    """Executions and row indices by table."""
    sql = "SELECT workflow_execution_id, {} FROM {} ORDER BY 1, 2"
    indices = {"executions": "0", "steps": "step_index", "cells": "row_index", "rows_extract": "row_index"}
    return {table: query(pipeline, sql.format(index, table)) for table, index in indices.items()}


def test_what_is_new_is_appended_and_a_reload_is_merged(pipeline: dlt.Pipeline, sandbox: Sandbox) -> None:
    for name in "abc":
        serve_rows(sandbox, name, cells_of(x=name))
    run_in_slices(pipeline, source_of(sandbox, ["a"]))
    run_in_slices(pipeline, source_of(sandbox, ["a", "b"]))
    run_in_slices(pipeline, source_of(sandbox, []))
    assert staged(pipeline) == {"executions"}
    run_in_slices(pipeline, source_of(sandbox, ["b", "c"], reload=True))
    assert staged(pipeline) == {"executions", *APPENDED}
    assert rows(pipeline) == {key: [("a", 0), ("b", 0), ("c", 0)] for key in ["executions", *APPENDED]}


@pytest.mark.parametrize("statement", ["DELETE FROM executions", "DELETE FROM _dlt_loads"])
def test_rows_without_an_ending_are_replaced_also_by_none(
    pipeline: dlt.Pipeline, sandbox: Sandbox, statement: str
) -> None:
    """As a load that was never finished leaves them, or somebody who deletes from `executions`."""
    for name in "ab":
        serve_rows(sandbox, name, cells_of(x=1), cells_of(x=2))
    run_in_slices(pipeline, source_of(sandbox, ["a", "b"]))
    with pipeline.sql_client() as client:
        client.execute_sql(statement)
    serve_rows(sandbox, "a", cells_of(x=3))
    serve_steps(sandbox, "b")
    serve_rows(sandbox, "c", cells_of(x=4))
    run_in_slices(pipeline, source_of(sandbox, ["a", "b", "c"]))
    found = rows(pipeline)
    assert found.pop("executions") == [("a", 0), ("b", 0), ("c", 0)]
    assert found == {key: [("a", 0), ("c", 0)] for key in APPENDED}


def test_deliveries_of_what_has_rows_without_an_ending_replace_them(
    pipeline: dlt.Pipeline, sandbox: Sandbox, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    store(inbox, "1.json", inline("a", {"x": 1}, {"x": 2}))
    run_in_slices(pipeline, further_webhooks(str(inbox)))
    store(inbox, "2.json", inline("b", {"x": 1}))
    run_in_slices(pipeline, further_webhooks(str(inbox)))
    assert staged(pipeline) == {"executions"}
    with pipeline.sql_client() as client:
        client.execute_sql("DELETE FROM executions WHERE workflow_execution_id = 'a'")
    store(inbox, "3.json", inline("a", {"x": 1}))
    run_in_slices(pipeline, further_webhooks(str(inbox)))
    assert rows(pipeline) == {key: [("a", 0), ("b", 0)] for key in ["executions", *APPENDED]}


@pytest.mark.parametrize("without", ["a lease", "the ledger", "slices"])
def test_a_load_merges_where_it_cannot_know_that_nothing_is_there(
    pipeline: dlt.Pipeline, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    serve_rows(sandbox, "a", cells_of(x=1))
    source = source_of(sandbox, ["a"])
    if without == "a lease":
        monkeypatch.setenv("SOURCES__FURTHER_SOURCE__LEASE_DURATION", "0")
    if without == "the ledger":
        source = source.with_resources("steps", "cells", "rows")
    if without == "slices":
        pipeline.run(source)
    else:
        run_in_slices(pipeline, source)
    assert staged(pipeline) >= APPENDED


def test_what_one_machine_has_pending_is_merged_after_another_one_has_loaded_it(
    make_pipeline: MakePipeline, sandbox: Sandbox, tmp_path: Path
) -> None:
    serve_rows(sandbox, "a", cells_of(x=1), cells_of(x=2))
    one = make_pipeline()
    run_in_slices(one, source_of(sandbox, []))
    one.load, load = _fail, one.load  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        run_in_slices(one, source_of(sandbox, ["a"]))
    assert one.has_pending_data
    serve_rows(sandbox, "a", cells_of(x=3))
    other = make_pipeline(pipelines_dir=str(tmp_path / "other"))
    run_in_slices(other, source_of(sandbox, ["a"]))
    assert staged(other) == {"executions"}
    del load
    again = make_pipeline()
    run_in_slices(again, source_of(sandbox, ["a"]))
    assert rows(again)["cells"] == [("a", 0), ("a", 1)]


def _fail(*_: Any, **__: Any) -> Any:
    raise ConnectionError


@pytest.fixture(params=["duckdb", "postgres", "sqlite"])
def any_pipeline(request: pytest.FixtureRequest, make_pipeline: MakePipeline, tmp_path: Path) -> dlt.Pipeline:
    if request.param == "duckdb":
        return make_pipeline()
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return make_pipeline(destination=dlt.destinations.postgres(url), dataset_name="leftovers")
    return make_pipeline(destination=dlt.destinations.sqlalchemy(f"sqlite:///{tmp_path}/further.db"))


def test_leftovers_are_found_by_their_ids_and_without(any_pipeline: dlt.Pipeline, sandbox: Sandbox) -> None:
    for name in ("done", "deleted", "unfinished"):
        serve_rows(sandbox, name, cells_of(x=1))
        run_in_slices(any_pipeline, source_of(sandbox, [name]))
    with any_pipeline.sql_client() as client:
        executions, loads = map(client.make_qualified_table_name, ("executions", "_dlt_loads"))
        last = "SELECT _dlt_load_id FROM {} WHERE workflow_execution_id = 'unfinished'"
        client.execute_sql(f"DELETE FROM {loads} WHERE load_id IN ({last.format(executions)})")
        client.execute_sql(f"DELETE FROM {executions} WHERE workflow_execution_id = 'deleted'")
    found: Callable[[Any], Any] = lambda executions: read_leftovers(any_pipeline, ["steps", "cells"], executions)  # noqa: E731
    deleted, unfinished, new = (ExecutionId(WORKFLOW, name) for name in ("deleted", "unfinished", "new"))
    assert found(None) == {deleted, unfinished}
    assert found([deleted, new, ExecutionId("other", "unfinished")]) == {deleted}
    assert found([new]) == found([]) == set()
