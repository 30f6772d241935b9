"""Figures are what SQL says, on DuckDB and PostgreSQL; BigQuery's queries are read as its dialect."""

from datetime import datetime, timedelta, timezone
from typing import Any

import dlt
import pytest
import sqlglot
from sqlglot import exp

from further_source.exceptions import FurtherError
from further_source.report.figures import read_figures, share_bounds
from further_source.report.queries import Queries, translated
from tests.report.conftest import SCRIPT, Load


def ask(pipeline: dlt.Pipeline, query: str) -> list[tuple[Any, ...]]:
    with pipeline.sql_client() as client:
        return [tuple(row) for row in client.execute_sql(query) or ()]


def execute(pipeline: dlt.Pipeline, *statements: str) -> None:
    with pipeline.sql_client() as client:
        for statement in statements:
            client.execute_sql(statement)


def test_figures_are_what_sql_says(anywhere: dlt.Pipeline, load: Load) -> None:
    load(anywhere)
    figures = read_figures(anywhere)

    assert (figures.loads, figures.executions, figures.completed) == (2, 3, 2)
    assert figures.last_asked == ask(anywhere, "SELECT max(poll_last_at) FROM executions")[0][0]
    assert figures.last_load == ask(anywhere, "SELECT max(inserted_at) FROM _dlt_loads")[0][0]
    assert figures.cell_count == ask(anywhere, "SELECT count(*) FROM cells")[0][0] == 187
    assert figures.document_count == 2
    assert figures.cells[None] == 60
    assert sum(figures.waiting) == 3
    assert {outcome: n for day in figures.outcomes.values() for outcome, n in day.items()} == {
        "completed": 2,
        "failed": 1,
    }
    assert sum(figures.loads_by_day.values()) == 2
    cells = [row[0] for row in ask(anywhere, "SELECT coalesce(confidence, -1) FROM cells")]
    lowest = "SELECT min(coalesce(confidence, -1)) FROM cells GROUP BY workflow_execution_id"
    documents = [row[0] for row in ask(anywhere, lowest)]
    for one in figures.through:
        assert one.cells == sum(confidence >= one.threshold for confidence in cells), one
        assert one.documents == sum(confidence >= one.threshold for confidence in documents), one
    for step, field, count, mean in ask(
        anywhere, "SELECT step_name, field, count(*), avg(confidence) FROM cells GROUP BY 1, 2"
    ):
        [found] = [one for one in figures.fields if (one.step_name, one.field) == (step, field)]
        assert found.cells == count
        assert found.mean == pytest.approx(mean)
    assert figures.types[SCRIPT, "paid & <i>due</i>"] == {"number": 20, "string": 10}
    assert {(step, field) for _, step, field, _ in figures.without_column} == {("Extract", "note"), (SCRIPT, "note")}
    assert [one.confidence for one in figures.worst] == [
        row[0] for row in ask(anywhere, "SELECT confidence FROM cells WHERE confidence IS NOT NULL ORDER BY 1 LIMIT 50")
    ]
    assert {one.value for one in figures.worst} == {None}


def test_what_a_load_changed_is_seen_and_chance_is_not(anywhere: dlt.Pipeline, load: Load) -> None:
    load(anywhere)
    first, second = (row[0] for row in ask(anywhere, "SELECT load_id FROM _dlt_loads ORDER BY inserted_at"))
    execute(
        anywhere,
        f"INSERT INTO cells (workflow_id, workflow_execution_id, step_index, step_name, row_index, field, value_type, "
        f"confidence, _dlt_load_id) SELECT workflow_id, 'b', step_index, step_name, row_index, field, value_type, "
        f"CASE WHEN field = 'claimant' THEN confidence - 0.1 ELSE confidence END, '{second}' FROM cells "
        f"WHERE _dlt_load_id = '{first}' AND step_name <> 'Extract'",
        f"UPDATE _dlt_loads SET inserted_at = inserted_at - INTERVAL '30' DAY WHERE load_id = '{first}'",
    )
    figures = read_figures(anywhere)
    changes = {(one.step_name, one.field): one for one in figures.changes}

    assert changes[SCRIPT, "claimant"].difference == pytest.approx(-0.1)
    assert changes[SCRIPT, "claimant"].is_noteworthy
    assert not changes[SCRIPT, "paid & <i>due</i>"].is_noteworthy
    assert not changes["Extract", "claimant"].is_noteworthy  # seven cells are no evidence
    assert figures.changes[0] == changes[SCRIPT, "claimant"]

    since = read_figures(anywhere, datetime.now(timezone.utc) - timedelta(days=1))
    assert (since.loads, since.executions, since.completed) == (1, 2, 1)
    assert since.cell_count == 7 + 90
    assert since.changes == figures.changes


def test_reviews_stand_beside_the_curve_and_the_last_of_each_cell_counts(anywhere: dlt.Pipeline, load: Load) -> None:
    load(anywhere)
    key = "workflow_id, workflow_execution_id, step_index, step_name, row_index, field"
    verdict = "CASE WHEN row_index < 3 THEN 'corrected' WHEN row_index = 6 THEN 'unreadable' ELSE 'correct' END"
    execute(
        anywhere,
        f"CREATE TABLE reviews AS SELECT {key}, 1 AS occurrence, value, value_type, confidence, {verdict} AS verdict, "
        "TIMESTAMP '2026-01-02 00:00:00' AS reviewed_at, '2' AS review_id "
        "FROM cells WHERE workflow_execution_id = 'b'",
        f"INSERT INTO reviews SELECT {key}, occurrence, value, value_type, confidence, 'corrected', "
        "TIMESTAMP '2026-01-01 00:00:00', '1' FROM reviews",
    )
    figures = read_figures(anywhere)

    [reviewed] = figures.reviewed
    assert (reviewed.lower, reviewed.upper, reviewed.cells, reviewed.right) == (0.95, 0.98, 6, 3)
    assert reviewed.bounds == share_bounds(3, 6)
    errors = {one.threshold: one.error for one in figures.through}
    assert errors[0.96] == pytest.approx(0.5)
    assert errors[0.9] is None  # cells of 0.9 were never reviewed


def test_thresholds_in_force_are_the_latest(anywhere: dlt.Pipeline, load: Load) -> None:
    load(anywhere)
    row = "'Extract', 'claimant', {}, 0.01, 0.95, 37, 7, {}, TIMESTAMP '2026-01-0{} 00:00:00'"
    names = "step_name, field, threshold, target_error, confidence_level, cells, cells_through, reviews_needed"
    values = ", ".join(f"({row.format(*one)})" for one in ((0.5, 0, 1), (0.9, 12, 2)))
    execute(anywhere, f"CREATE TABLE thresholds AS SELECT * FROM (VALUES {values}) AS t ({names}, computed_at)")

    [threshold] = read_figures(anywhere).thresholds

    assert [float(one or 0) for one in threshold[2:]] == [0.9, 0.01, 0.95, 37, 7, 12]


@pytest.mark.slow
def test_a_dataset_without_rows_has_figures_and_one_without_tables_has_none(anywhere: dlt.Pipeline, load: Load) -> None:
    with pytest.raises(FurtherError, match="nothing is loaded into this dataset yet"):
        read_figures(anywhere)
    load(anywhere)
    execute(anywhere, *(f"DELETE FROM {table}" for table in ("executions", "cells", "_dlt_loads")))
    execute(anywhere, "DROP TABLE fields")

    figures = read_figures(anywhere)

    assert (figures.loads, figures.cell_count, figures.document_count, figures.worst) == (0, 0, 0, [])
    assert {(one.cells, one.documents, one.error) for one in figures.through} == {(0, 0, None)}


class _BigQuery:
    """Names of tables as BigQuery's client makes them."""

    class capabilities:
        sqlglot_dialect = "bigquery"

    @staticmethod
    def make_qualified_table_name(name: str) -> str:
        return f"`project-1`.`further_data`.`{name}`"


def test_queries_are_bigquerys_too() -> None:
    moment = datetime(2026, 7, 1, tzinfo=timezone.utc)
    for queries in (Queries(), Queries(moment)):
        asked = [
            getattr(queries, name)()
            for name in vars(Queries)
            if not name.startswith("_") and name not in ("worst", "changes")
        ]
        for query in (*asked, queries.worst(values=False), queries.changes(moment)):
            made = translated(query, _BigQuery())  # type: ignore[arg-type]
            tree = sqlglot.parse_one(made, read="bigquery")
            assert not list(tree.find_all(exp.Anonymous)), made
            assert all(table.db == "further_data" for table in tree.find_all(exp.Table) if table.name)
            assert "TIMESTAMPTZ" not in made


@pytest.mark.parametrize(
    ("hits", "count", "expected"), [(0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634)), (299, 300, (0.9814, 0.9994))]
)
def test_bounds_are_wilsons(hits: int, count: int, expected: tuple[float, float]) -> None:
    assert share_bounds(hits, count) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_thresholds_that_doubles_cannot_hold_are_counted_exactly(pipeline: dlt.Pipeline, load: Load) -> None:
    load(pipeline)
    execute(pipeline, "UPDATE cells SET confidence = row_index / 100.0")
    figures = read_figures(pipeline)
    confidences = [row[0] for row in ask(pipeline, "SELECT confidence FROM cells")]
    for one in figures.through:
        assert one.cells == sum(confidence >= one.threshold for confidence in confidences), one
