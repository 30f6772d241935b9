"""The SQL of the report: one query per figure, each of which leaves only aggregates to be fetched.

They are written in DuckDB's dialect, and sqlglot, which dlt brings, writes them in the destination's.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlglot
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.destinations.sql_client import SqlClientBase
from sqlglot import exp

__all__ = [
    "BUCKETS",
    "REVIEW_COLUMNS",
    "THRESHOLD_COLUMNS",
    "WAITING_BOUNDS",
    "WORST_CELLS",
    "Queries",
    "columns_of",
    "rows",
    "translated",
]

BUCKETS = 100
"""Confidence is counted in steps of a hundredth."""
WORST_CELLS = 50
REVIEW_COLUMNS = {
    *("workflow_id", "workflow_execution_id", "step_index", "step_name", "row_index", "field", "occurrence", "value"),
    *("value_type", "confidence", "verdict", "reviewed_at", "review_id"),
}
"""The columns of `reviews` that are read."""
THRESHOLD_COLUMNS = {
    *("step_name", "field", "threshold", "target_error", "confidence_level", "cells", "cells_through"),
    *("reviews_needed", "computed_at"),
}
"""The columns of `thresholds` that are read."""

# A product with 100 may be a hair off, as 0.29 * 100 is: the bucket is the one that comparing with hundredths gives.
_BUCKET = (
    "CASE WHEN {0} >= 1 THEN 100 WHEN {0} < 0 THEN 0 "
    "WHEN {0} >= (FLOOR({0} * 100) + 1) / 100 THEN CAST(FLOOR({0} * 100) AS BIGINT) + 1 "
    "WHEN {0} < FLOOR({0} * 100) / 100 THEN CAST(FLOOR({0} * 100) AS BIGINT) - 1 "
    "ELSE CAST(FLOOR({0} * 100) AS BIGINT) END AS bucket"
)
_SECONDS = "EXTRACT(EPOCH FROM poll_last_at) - EXTRACT(EPOCH FROM poll_first_at)"
WAITING_BOUNDS = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600)
"""Upper bounds, in seconds, of the classes of time from the first asking to the last."""


class Queries:
    """The queries, each by the name of its figure.

    Args:
        since: Only what loads have brought from then on is counted; everything unless given.
    """

    def __init__(self, since: datetime | None = None) -> None:
        self._counted = "_deleted IS NULL"
        if since is not None:
            loads = f"SELECT load_id FROM _dlt_loads WHERE inserted_at >= {_timestamp(since)}"  # noqa: S608
            self._counted += f" AND _dlt_load_id IN ({loads})"
        self._loaded = "status = 0" + (f" AND inserted_at >= {_timestamp(since)}" if since else "")

    def freshness(self) -> str:
        """Loads: how many, the first and the last."""
        return f"SELECT COUNT(*), MIN(inserted_at), MAX(inserted_at) FROM _dlt_loads WHERE {self._loaded}"  # noqa: S608

    def totals(self) -> str:
        """Executions: how many, how many completed, and when the last was asked."""
        return (
            "SELECT COUNT(*), SUM(CASE WHEN poll_outcome = 'completed' THEN 1 ELSE 0 END), MAX(poll_last_at) "  # noqa: S608
            f"FROM executions WHERE {self._counted}"
        )

    def loads(self) -> str:
        """Loads by day."""
        day = "CAST(inserted_at AT TIME ZONE 'UTC' AS DATE)"
        return f"SELECT {day} AS day, COUNT(*) FROM _dlt_loads WHERE {self._loaded} GROUP BY 1 ORDER BY 1"  # noqa: S608

    def outcomes(self) -> str:
        """Executions by day of the last asking and by outcome."""
        day = "CAST(poll_last_at AT TIME ZONE 'UTC' AS DATE)"
        return (
            f"SELECT {day} AS day, poll_outcome, COUNT(*) FROM executions "  # noqa: S608
            f"WHERE {self._counted} GROUP BY 1, 2 ORDER BY 1, 2"
        )

    def waiting(self) -> str:
        """Ended executions by the class of their time from the first asking to the last."""
        classes = " ".join(f"WHEN {_SECONDS} < {bound} THEN {number}" for number, bound in enumerate(WAITING_BOUNDS))
        return (
            f"SELECT CASE {classes} ELSE {len(WAITING_BOUNDS)} END AS waited, COUNT(*) FROM executions "  # noqa: S608
            f"WHERE {self._counted} AND poll_outcome IN ('completed', 'failed') GROUP BY 1 ORDER BY 1"
        )

    def fields(self) -> str:
        """Step and field: cells, cells with a confidence, the mean and the lowest of it."""
        return (
            "SELECT step_name, field, COUNT(*), COUNT(confidence), AVG(confidence), MIN(confidence) "  # noqa: S608
            f"FROM cells WHERE {self._counted} GROUP BY 1, 2"
        )

    def cells(self) -> str:
        """Cells by bucket of confidence; of those without one the bucket is null."""
        return f"SELECT {_bucket('confidence')}, COUNT(*) FROM cells WHERE {self._counted} GROUP BY 1"  # noqa: S608

    def documents(self) -> str:
        """Executions that have cells, by the bucket of their lowest confidence; null where a cell has none."""
        lowest = "CASE WHEN COUNT(*) = COUNT(confidence) THEN MIN(confidence) END"
        by_document = (
            f"SELECT {lowest} AS lowest FROM cells WHERE {self._counted} "  # noqa: S608
            "GROUP BY workflow_id, workflow_execution_id"
        )
        return f"SELECT {_bucket('lowest')}, COUNT(*) FROM ({by_document}) AS documents GROUP BY 1"  # noqa: S608

    def types(self) -> str:
        """Step, field, type and cells, of fields that have more than one type besides null."""
        typed = f"SELECT step_name, field, value_type, COUNT(*) AS n FROM cells WHERE {self._counted} GROUP BY 1, 2, 3"  # noqa: S608
        several = (
            f"SELECT step_name, field FROM ({typed}) AS typed WHERE value_type <> 'null' "  # noqa: S608
            "GROUP BY 1, 2 HAVING COUNT(*) > 1"
        )
        return (
            f"SELECT t.step_name, t.field, t.value_type, t.n FROM ({typed}) AS t JOIN ({several}) AS s "  # noqa: S608
            "ON COALESCE(s.step_name, '') = COALESCE(t.step_name, '') AND COALESCE(s.field, '') = COALESCE(t.field, '')"
        )

    def without_column(self) -> str:
        """Wide table, step, field and reason, of fields that have no column."""
        return (
            "SELECT rows_table, step_name, field, reason FROM fields WHERE reason IS NOT NULL "
            "AND text_column IS NULL AND number_column IS NULL AND boolean_column IS NULL "
            "AND field IS NOT NULL ORDER BY 1, 2, 3 LIMIT 500"
        )

    def worst(self, *, values: bool) -> str:
        """The cells of the lowest confidence: where they stand, and what they hold only if `values`."""
        key = "workflow_id, workflow_execution_id, step_index, step_name, row_index, field"
        value = ", value" if values else ""
        return (
            f"SELECT {key}, confidence{value} FROM cells WHERE {self._counted} AND confidence IS NOT NULL "  # noqa: S608
            f"ORDER BY confidence, workflow_id, workflow_execution_id, step_index, row_index, field LIMIT {WORST_CELLS}"
        )

    def changes(self, after: datetime) -> str:
        """Step, field, whether loaded from `after` on, cells with a confidence, its mean and standard deviation."""
        return (
            f"SELECT c.step_name, c.field, CASE WHEN l.inserted_at >= {_timestamp(after)} THEN 1 ELSE 0 END AS later, "  # noqa: S608
            "COUNT(c.confidence), AVG(c.confidence), STDDEV_SAMP(c.confidence) "
            "FROM cells AS c JOIN _dlt_loads AS l ON l.load_id = c._dlt_load_id "
            "WHERE c._deleted IS NULL AND c.confidence IS NOT NULL AND l.status = 0 GROUP BY 1, 2, 3"
        )

    def reviews(self) -> str:
        """Cells by bucket of the confidence that was reviewed: how many, and how many were wrong.

        Of several reviews of a cell with the same value the last counts; what nobody could read says nothing.
        """
        reviewed = "workflow_id, workflow_execution_id, step_index, step_name, row_index, field, occurrence"
        latest = (
            f"SELECT confidence, verdict, ROW_NUMBER() OVER (PARTITION BY {reviewed}, value, value_type "  # noqa: S608
            "ORDER BY reviewed_at DESC, review_id DESC) AS newest FROM reviews"
        )
        wrong = "SUM(CASE WHEN verdict = 'corrected' THEN 1 ELSE 0 END)"
        return (
            f"SELECT {_bucket('confidence')}, COUNT(*), {wrong} FROM ({latest}) AS latest "  # noqa: S608
            "WHERE newest = 1 AND verdict IN ('correct', 'corrected') AND confidence IS NOT NULL GROUP BY 1"
        )

    def thresholds(self) -> str:
        """The thresholds in force: step, field, threshold, target, level, cells, cells through, reviews needed."""
        return (
            "SELECT step_name, field, threshold, target_error, confidence_level, cells, cells_through, reviews_needed "
            "FROM thresholds WHERE computed_at = (SELECT MAX(computed_at) FROM thresholds) ORDER BY 1, 2"
        )


def _bucket(column: str) -> str:
    return _BUCKET.format(column)


def _timestamp(moment: datetime) -> str:
    return f"CAST('{moment.isoformat()}' AS TIMESTAMPTZ)"


def translated(query: str, client: SqlClientBase[Any]) -> str:
    """The query in the destination's dialect, its tables those of the client's dataset."""
    dialect = client.capabilities.sqlglot_dialect
    tree = sqlglot.parse_one(query, read="duckdb")
    for table in list(tree.find_all(exp.Table)):
        qualified: exp.Expression = exp.to_table(client.make_qualified_table_name(table.name), dialect=dialect)
        table.replace(exp.alias_(qualified, table.alias, table=True) if table.alias else qualified)
    return tree.sql(dialect=dialect)


def rows(query: str, client: SqlClientBase[Any]) -> Iterator[tuple[Any, ...]]:
    """What the destination answers to a query in DuckDB's dialect."""
    with client.execute_query(translated(query, client)) as cursor:
        yield from cursor.fetchall()


def columns_of(table: str, client: SqlClientBase[Any]) -> list[str]:
    """The names of a table's columns in small letters; none where there is no such table."""
    try:
        with client.execute_query(translated(f"SELECT * FROM {table} LIMIT 0", client)) as cursor:  # noqa: S608
            return [column[0].lower() for column in cursor.description]
    except DestinationUndefinedEntity:
        return []
