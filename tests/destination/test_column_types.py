"""Columns that several loads add at once: each has the type that the first of them gave it."""

from collections.abc import Callable, Mapping
from typing import Any

import dlt
import pytest

from further_source.destination.column_types import SharedTables, Tables
from further_source.destination.strategy import loading_of
from tests.support.loading import columns

MakePipeline = Callable[..., dlt.Pipeline]


@pytest.fixture
def make_tables(make_pipeline: MakePipeline) -> Callable[[], SharedTables]:
    """What one more load knows of the same dataset."""

    def make() -> SharedTables:
        pipeline = make_pipeline()
        return SharedTables(pipeline, loading_of(pipeline, None).stored_columns)

    return make


def routed(table: str, kind: str) -> Callable[[Tables], tuple[str, Tables]]:
    """A value of `kind` in field `a`, routed as the wide tables do it: by the column's type, if it has one."""

    def build(tables: Tables) -> tuple[str, Tables]:
        known = tables.get(table, {}).get("a", kind)
        column = "a" if known == kind else f"a__v_{kind}"
        return column, {table: {column: kind}}

    return build


def own(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: kind for name, kind in stored.items() if name.partition("__")[0] in ("a", "metadata")}


def test_a_new_column_is_in_the_destination_before_it_is_used(
    make_tables: Callable[[], SharedTables], pipeline: dlt.Pipeline
) -> None:
    assert make_tables().settle(routed("rows_x", "double")) == "a"

    assert columns(pipeline, "rows_x") == {
        "workflow_id": "VARCHAR",
        "workflow_execution_id": "VARCHAR",
        "step_index": "BIGINT",
        "row_index": "BIGINT",
        "_deleted": "BOOLEAN",
        "_dlt_load_id": "VARCHAR",
        "a": "DOUBLE",
    }


def test_whoever_comes_second_takes_the_type_it_finds(
    make_tables: Callable[[], SharedTables], pipeline: dlt.Pipeline
) -> None:
    one, other, third = make_tables(), make_tables(), make_tables()  # none of them knows of a table

    assert one.settle(routed("rows_x", "double")) == "a"
    assert other.settle(routed("rows_x", "text")) == "a__v_text"
    assert third.settle(routed("rows_x", "double")) == "a"
    assert one.settle(routed("rows_x", "text")) == "a__v_text"

    assert own(columns(pipeline, "rows_x")) == {"a": "DOUBLE", "a__v_text": "VARCHAR"}


def test_what_is_known_is_not_built_twice(make_tables: Callable[[], SharedTables]) -> None:
    make_tables().settle(routed("rows_x", "double"))
    tables, built = make_tables(), []

    def build(known: Tables) -> tuple[None, Tables]:
        built.append(known)
        return None, {"rows_x": {"a": "double"}}

    tables.settle(build)

    assert len(built) == 1
    assert built[0]["rows_x"]["a"] == "double"


def test_executions_are_made_with_the_columns_that_dlt_adds(
    make_tables: Callable[[], SharedTables], pipeline: dlt.Pipeline
) -> None:
    """A column that must not be null could not be added to a table with rows."""
    make_tables().settle(lambda known: (None, {"executions": {"metadata__a": "bigint"}}))

    stored = columns(pipeline, "executions")
    assert {"_dlt_id", "_dlt_load_id", "poll_outcome", "metadata__external_id"} <= stored.keys()
    assert own(stored) == {"metadata__external_id": "VARCHAR", "metadata__a": "BIGINT"}


def test_nothing_is_made_where_nothing_has_come(
    make_tables: Callable[[], SharedTables], pipeline: dlt.Pipeline
) -> None:
    assert make_tables().settle(lambda known: (dict(known), {})) == {}

    with pipeline.destination_client() as client:
        assert not client.is_storage_initialized()
