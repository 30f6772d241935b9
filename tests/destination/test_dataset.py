"""Columns that loads add: decided by what the destination has, and in the destination before they are used."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dlt
import pytest
import sqlalchemy

from further_source.destination.dataset import Dataset, Decisions
from further_source.destination.strategy import loading_of
from further_source.tables.fields import Field, StepKey
from tests.support.command import until
from tests.support.loading import columns, query
from tests.support.slow import few_of

MakePipeline = Callable[..., dlt.Pipeline]
STEP = StepKey("X")


@pytest.fixture(params=few_of(["duckdb", "postgres"]))
def make_dataset(
    request: pytest.FixtureRequest, make_pipeline: MakePipeline
) -> Callable[[], tuple[Dataset, dlt.Pipeline]]:
    """What one more load knows of the same dataset."""
    more: dict[str, Any] = {}
    if request.param == "postgres":
        more = {
            "destination": dlt.destinations.postgres(request.getfixturevalue("postgres_url")),
            "dataset_name": f"d{abs(hash(request.node.name))}",
        }

    def make() -> tuple[Dataset, dlt.Pipeline]:
        pipeline = make_pipeline(**more)
        return Dataset(pipeline, loading_of(pipeline, None), dlt.Schema("further_source")), pipeline

    return make


def take(dataset: Dataset, name: str, kind: str) -> Field:
    """The record of a field that a value of `kind` comes for."""
    field, recorded = dataset.settle(lambda decisions: decisions.fields.field(STEP, name, [kind]), "load")
    assert recorded == []
    return field


def stored_fields(pipeline: dlt.Pipeline) -> set[tuple[Any, ...]]:
    return set(query(pipeline, "SELECT rows_table, step_name, field, text_column, number_column FROM fields"))


def test_a_new_column_and_its_record_are_in_the_destination_before_they_are_used(
    make_dataset: Callable[[], tuple[Dataset, dlt.Pipeline]],
) -> None:
    dataset, pipeline = make_dataset()
    field = take(dataset, "a", "double")

    assert (field.rows_table, field.number_column, field.confidence_column) == ("rows_x", "a", "a__confidence")
    assert list(columns(pipeline, "rows_x"))[-2:] == ["a", "a__confidence"]
    assert {"workflow_id", "step_index", "_deleted", "_dlt_load_id"} <= columns(pipeline, "rows_x").keys()
    assert stored_fields(pipeline) == {("rows_x", "X", "a", None, "a")}
    assert query(pipeline, "SELECT DISTINCT _dlt_load_id FROM fields") == [("load",)]


def test_whoever_comes_second_takes_what_it_finds(
    make_dataset: Callable[[], tuple[Dataset, dlt.Pipeline]],
) -> None:
    (one, pipeline), (other, _), (third, _) = make_dataset(), make_dataset(), make_dataset()
    for dataset in (one, other, third):  # all of them have seen that there is nothing
        dataset.settle(lambda decisions: None, "load")

    assert take(one, "a", "double").number_column == "a"
    assert take(other, "a", "text").text_column == "a__v_text"
    assert take(third, "A", "double").number_column == "a_2"
    assert take(one, "a", "text").text_column == "a__v_text"
    assert take(third, "a", "double").number_column == "a"

    assert [column for column in columns(pipeline, "rows_x") if column.startswith("a")] == [
        "a",
        "a__confidence",
        "a__v_text",
        "a_2",
        "a_2__confidence",
    ]
    assert stored_fields(pipeline) == {("rows_x", "X", "a", "a__v_text", "a"), ("rows_x", "X", "A", None, "a_2")}


def test_what_is_known_is_not_built_twice_or_written_again(
    make_dataset: Callable[[], tuple[Dataset, dlt.Pipeline]],
) -> None:
    take(make_dataset()[0], "a", "double")
    dataset, pipeline = make_dataset()
    built: list[Field] = []

    def build(decisions: Decisions) -> None:
        built.append(decisions.fields.field(STEP, "a", ["double"]))

    dataset.settle(build, "another load")
    assert len(built) == 1
    assert query(pipeline, "SELECT _dlt_load_id FROM fields") == [("load",)]


def test_executions_are_made_with_the_columns_that_dlt_adds(
    make_dataset: Callable[[], tuple[Dataset, dlt.Pipeline]],
) -> None:
    """A column that must not be null could not be added to a table with rows."""
    dataset, pipeline = make_dataset()
    dataset.settle(lambda decisions: decisions.answers.row({"metadata": {"a": 1}}, ()), "load")

    stored = columns(pipeline, "executions")
    assert {"_dlt_id", "_dlt_load_id", "poll_outcome", "metadata__external_id", "metadata__a"} <= stored.keys()


def test_executions_that_another_load_has_made_meanwhile_are_taken_as_they_are(
    make_dataset: Callable[[], tuple[Dataset, dlt.Pipeline]],
) -> None:
    (one, pipeline), (other, _) = make_dataset(), make_dataset()
    for dataset in (one, other):  # both have seen that there is nothing
        dataset.settle(lambda decisions: None, "load")

    other.settle(lambda decisions: decisions.answers.row({"metadata": {"k": True}}, ()), "load")
    row, _ = one.settle(lambda decisions: decisions.answers.row({"metadata": {"k": "x"}}, ()), "load")
    assert row == {"metadata__k__v_text": "x"}
    assert columns(pipeline, "executions")["metadata__k"] != columns(pipeline, "executions")["metadata__k__v_text"]


def test_nothing_is_made_where_nothing_has_come(
    make_dataset: Callable[[], tuple[Dataset, dlt.Pipeline]],
) -> None:
    dataset, pipeline = make_dataset()
    dataset.settle(lambda decisions: decisions.answers.row({"status": "running"}, ("status",)), "load")

    with pipeline.destination_client() as client:
        assert not client.is_storage_initialized()


def test_many_records_are_written(make_dataset: Callable[[], tuple[Dataset, dlt.Pipeline]]) -> None:
    dataset, pipeline = make_dataset()
    dataset.settle(
        lambda decisions: [decisions.fields.field(StepKey(f"S{n % 7}"), f"f{n}'%s", ["text"]) for n in range(450)],
        "load",
    )

    assert query(pipeline, "SELECT count(*), count(DISTINCT field), count(DISTINCT rows_table) FROM fields") == [
        (450, 450, 7)
    ]
    names = {name for (name,) in query(pipeline, "SELECT field FROM fields")}
    assert names == {f"f{number}'%s" for number in range(450)}


def test_of_records_that_came_with_loads_the_last_one_holds_and_is_kept(
    make_dataset: Callable[[], tuple[Dataset, dlt.Pipeline]],
) -> None:
    """As where the destination was away while it was decided: then a record is loaded beside the one before it."""
    dataset, pipeline = make_dataset()
    dataset.settle(lambda decisions: decisions.fields.field(STEP, "a", []), "1")
    with pipeline.sql_client() as client:
        client.execute_sql(
            "INSERT INTO fields (rows_table, step_name, field, number_column, confidence_column, _dlt_load_id) "
            "VALUES ('rows_x', 'X', 'a', 'a', 'a__confidence', '2')"
        )

    assert take(make_dataset()[0], "b", "text").text_column == "b"
    assert stored_fields(pipeline) == {("rows_x", "X", "a", None, "a"), ("rows_x", "X", "b", "b", None)}
    assert take(make_dataset()[0], "a", "double").number_column == "a"


@pytest.mark.slow
@pytest.mark.mariadb
def test_parts_that_decide_at_the_same_moment_take_turns_where_tables_have_no_transactions(
    make_pipeline: MakePipeline, mariadb_url: str
) -> None:
    destination = {"destination": dlt.destinations.sqlalchemy(mariadb_url), "dataset_name": "turns"}

    def make() -> tuple[Dataset, dlt.Pipeline]:
        pipeline = make_pipeline(**destination)
        return Dataset(pipeline, loading_of(pipeline, None), dlt.Schema("further_source"), shared=True), pipeline

    (one, pipeline), (same, _), (other, _) = make(), make(), make()
    take(one, "x", "double")
    engine = sqlalchemy.create_engine(mariadb_url)
    with ThreadPoolExecutor() as threads, engine.connect() as connection:
        # Whoever decides can read the records, and add a column, but not yet record it.
        connection.execute(sqlalchemy.text("LOCK TABLES turns.fields READ"))
        first = threads.submit(take, one, "a", "double")
        until(lambda: "a" in columns(pipeline, "rows_x"))
        beside = [threads.submit(take, same, "a", "double"), threads.submit(take, other, "A", "double")]
        time.sleep(1)
        connection.execute(sqlalchemy.text("UNLOCK TABLES"))
        taken = [future.result() for future in (first, *beside)]
        recorded = connection.execute(sqlalchemy.text("SELECT field FROM turns.fields ORDER BY 1")).scalars().all()
    engine.dispose()
    assert taken[0].number_column == taken[1].number_column == "a"
    assert taken[2].number_column == "a_2"
    assert sorted(recorded) == ["A", "a", "x"]
