"""The views `cells_final` and `review_conflicts` in the SQL of each destination.

A review is joined to a cell by its key and by the value that was reviewed, and so can never reach another value: not
after a reload, and not while one is under way.
"""

from contextlib import AbstractContextManager
from typing import Any

from dlt.destinations.sql_client import SqlClientBase

from further_source.destination.stored import Tables
from further_source.tables.columns import CELLS, REVIEWS

__all__ = ["CELLS_FINAL", "REVIEW_CONFLICTS", "WITHDRAWN", "Sql", "cells_final_query", "review_conflicts_query"]

CELLS_FINAL = "cells_final"
REVIEW_CONFLICTS = "review_conflicts"
WITHDRAWN = "withdrawn"
"""The verdict of a record that takes back the one before it; the table only grows."""

_KEY = ("workflow_id", "workflow_execution_id", "step_index", "step_name", "row_index", "field", "occurrence")
_REVIEWED = (*_KEY, "value", "value_type")
_MAY_BE_NULL = {"step_name", "value"}


class Sql(Tables):
    """A connection, and the names and functions of its SQL."""

    def __init__(self, client: SqlClientBase[Any]) -> None:
        super().__init__(client)
        self.dialect = str(client.capabilities.sqlglot_dialect)

    def run(self, statement: str, *values: Any) -> None:
        self._client.execute_sql(statement, *values)

    def transaction(self) -> AbstractContextManager[Any]:
        return self._client.begin_transaction()

    def hashed(self, *texts: str) -> str:
        """Hex digits that follow from the texts alone, and are as good as drawn by lot."""
        joined = " || '/' || ".join(texts)
        return f"TO_HEX(MD5({joined}))" if self.dialect == "bigquery" else f"md5({joined})"

    def as_text(self, expression: str) -> str:
        return f"CAST({expression} AS {'STRING' if self.dialect == 'bigquery' else 'VARCHAR'})"

    def as_double(self, expression: str) -> str:
        return f"CAST({expression} AS {'FLOAT64' if self.dialect == 'bigquery' else 'DOUBLE PRECISION'})"

    def occurrence(self, extra: str) -> str:
        """Which cell of its key in its row it is, from the text in `extra`; 1 unless a key came twice."""
        pattern = r'"duplicate": ?([0-9]{1,9})[,}]'
        if self.dialect == "postgres":
            found = f"substring({extra} from '{pattern}')"
        elif self.dialect == "bigquery":
            found = f"REGEXP_EXTRACT({extra}, r'{pattern}')"
        else:
            found = f"nullif(regexp_extract({extra}, '{pattern}', 1), '')"
        return f"coalesce(CAST({found} AS BIGINT), 1)"

    def same(self, one: str, other: str, names: tuple[str, ...]) -> str:
        """Whether two tables agree in columns, nulls too."""
        return " AND ".join(
            f"{self.columns(name, of=one)} {'IS NOT DISTINCT FROM' if name in _MAY_BE_NULL else '='} "
            f"{self.columns(name, of=other)}"
            for name in names
        )


def _cells(sql: Sql) -> str:
    """`cells`, each with its occurrence."""
    names = [column.name for column in CELLS.columns if column.name != "_deleted"]
    occurrence = f"{sql.occurrence(sql.columns('extra'))} AS {sql.columns('occurrence')}"
    return (
        f"SELECT {sql.columns(*names)}, {occurrence} FROM {sql.table(CELLS.name)} "  # noqa: S608
        f"WHERE {sql.columns('_deleted')} IS NULL"
    )


def _latest(sql: Sql) -> str:
    """Every review, with `latest` 1 in the last one of each cell and value."""
    names = [column.name for column in REVIEWS.own_columns]
    return (
        f"SELECT {sql.columns(*names)}, row_number() OVER (PARTITION BY {sql.columns(*_REVIEWED)} "  # noqa: S608
        f"ORDER BY {sql.columns('reviewed_at')} DESC, {sql.columns('review_id')} DESC) AS latest, "
        f"max(CASE WHEN {sql.columns('sampled')} THEN 1 ELSE 0 END) OVER (PARTITION BY {sql.columns(*_REVIEWED)}) "
        f"AS ever_sampled FROM {sql.table(REVIEWS.name)}"
    )


def cells_final_query(sql: Sql) -> str:
    """Every cell once: its value with the last review of this very value applied, and how it was reviewed."""

    def corrected(column: str) -> str:
        return (
            f"CASE WHEN {sql.columns('verdict', of='r')} = 'corrected' "
            f"THEN {sql.columns('corrected_' + column, of='r')} ELSE {sql.columns(column, of='c')} END "
            f"AS {sql.columns(column)}"
        )

    verdict = sql.columns("verdict", of="r")
    state = (
        f"CASE WHEN {verdict} IN ('correct', 'corrected') THEN {verdict} "
        f"WHEN {sql.columns('review_id', of='r')} IS NULL AND k.n > 0 THEN 'stale' ELSE 'none' END"
    )
    of_cell = (*_KEY[:-1], "occurrence")
    key_of_any = (
        f"SELECT {sql.columns(*_KEY)}, count(*) AS n FROM {sql.table(REVIEWS.name)} GROUP BY {sql.columns(*_KEY)}"  # noqa: S608
    )
    return (
        f"SELECT {sql.columns(*of_cell, of='c')}, "  # noqa: S608
        f"{', '.join(map(corrected, ('value', 'value_type', 'value_number')))}, "
        f"{sql.columns('confidence', 'extra', '_dlt_load_id', of='c')}, "
        f"{sql.columns('value', of='c')} AS extracted_value, {sql.columns('value_type', of='c')} AS extracted_type, "
        f"{state} AS review_state, nullif({verdict}, '{WITHDRAWN}') AS review_verdict, "
        f"{sql.columns('reviewer', of='r')}, {sql.columns('reviewed_at', of='r')}, "
        f"{sql.columns('reason', of='r')} AS review_reason, coalesce(r.ever_sampled, 0) = 1 AS review_sampled "
        f"FROM ({_cells(sql)}) c "
        f"LEFT JOIN ({_latest(sql)}) r ON r.latest = 1 AND {sql.same('r', 'c', _REVIEWED)} "
        f"LEFT JOIN ({key_of_any}) k ON {sql.same('k', 'c', _KEY)}"
    )


def review_conflicts_query(sql: Sql) -> str:
    """Each review that is not applied and why: the value changed, the cell is gone, or a later one says otherwise."""
    names = [column.name for column in REVIEWS.own_columns]
    agrees = " AND ".join(
        f"{sql.columns(name, of='l')} IS NOT DISTINCT FROM {sql.columns(name, of='r')}"
        for name in ("verdict", "corrected_value")
    )
    gone = f"{sql.columns('field', of='c')} IS NULL"
    changed = (
        f"({sql.columns('value', of='c')} IS DISTINCT FROM {sql.columns('value', of='r')} "
        f"OR {sql.columns('value_type', of='c')} <> {sql.columns('value_type', of='r')})"
    )
    overruled = f"(r.latest > 1 AND NOT ({agrees}))"
    withdrawn = f"{sql.columns('verdict', of='r')} = '{WITHDRAWN}'"
    return (
        f"SELECT {sql.columns(*names, of='r')}, {sql.columns('value', of='c')} AS current_value, "  # noqa: S608
        f"CASE WHEN {gone} THEN 'cell_gone' WHEN {changed} THEN 'value_changed' ELSE 'overruled' END AS conflict "
        f"FROM ({_latest(sql)}) r "
        f"JOIN ({_latest(sql)}) l ON l.latest = 1 AND {sql.same('l', 'r', _REVIEWED)} "
        f"LEFT JOIN ({_cells(sql)}) c ON {sql.same('c', 'r', _KEY)} "
        f"WHERE NOT {withdrawn} AND ({gone} OR {changed} OR {overruled})"
    )
