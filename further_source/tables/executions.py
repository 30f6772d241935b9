"""The records of `executions`: how polling went, and the columns that come from the API."""

from collections.abc import Container, Mapping
from decimal import Decimal
from typing import Any

from dlt.common.normalizers.naming import NamingConvention

from further_source import jsontext
from further_source.settings import MAX_FIELDS_PER_TABLE
from further_source.tables.answer import Answer
from further_source.tables.columns import EXECUTIONS
from further_source.tables.values import OF_DLT, Types, column_name, routed

__all__ = ["OWN_COLUMNS", "AnswerColumns", "declared_types", "execution_row"]

OWN_COLUMNS = frozenset(column.name for column in EXECUTIONS.columns if not column.of_api)
"""The columns that no key of an answer may take."""

_NOT_AS_THEY_COME = frozenset({"workflow_id", "workflow_execution_id", "status", "steps"})
_MAX_DEPTH = 32
_TYPES = {"text", "bigint", "double", "bool"}
_EXACT_IN_DOUBLE = 2**53


def declared_types() -> Types:
    """dlt data types of the columns that `executions` has from the start."""
    return {column.name: column.data_type for column in EXECUTIONS.columns}


def execution_row(answer: Answer, columns: "AnswerColumns") -> dict[str, Any]:
    """The record of an execution."""
    ended = answer.ended
    return {
        **columns.row(ended.payload, _NOT_AS_THEY_COME),
        **ended.execution._asdict(),
        "status": ended.status,
        "poll_outcome": ended.poll_outcome,
        "poll_error": ended.poll_error,
        "poll_count": ended.poll_count,
        "poll_first_at": ended.poll_first_at,
        "poll_last_at": ended.poll_last_at,
    }


class AnswerColumns:
    """The columns of `executions` that come from the API: `metadata__…` and any other key of an answer.

    A key that collides with a column of ours becomes `answer__<key>`.

    Args:
        naming: dlt's naming convention for the destination.
        types: dlt data types of the columns of `executions` that exist.
        max_columns: How many columns `executions` may have.
    """

    OTHER = "answer__other"
    """JSON text of the keys that have no column (names that collide, one key too many), nested as they came."""

    def __init__(
        self, naming: NamingConvention, types: Mapping[str, str], max_columns: int = MAX_FIELDS_PER_TABLE
    ) -> None:
        self._max_columns = max_columns
        self._own = {*OWN_COLUMNS, self.OTHER}
        self._naming = naming
        self._types = dict(types)

    @property
    def types(self) -> Types:
        """Those that exist, and those that rows brought since."""
        return self._types

    def row(self, payload: Mapping[str, Any] | None, skip: Container[str]) -> dict[str, Any]:
        """The columns of one answer without its keys `skip`; objects are flattened, lists are JSON text.

        So are objects more than 32 levels down.
        """
        row: dict[str, Any] = {}
        other: dict[str, Any] = {}
        for key, value in (payload or {}).items():
            if key not in skip:
                self._add(row, other, (key,), value)
        if other:
            row[self.OTHER] = jsontext.dumps(other)
        return row

    def _add(self, row: dict[str, Any], other: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
        if isinstance(value, dict) and len(path) < _MAX_DEPTH:
            for key, inner in value.items():
                self._add(row, other, (*path, key), inner)
            return
        kind, typed = _typed(value)
        if kind is None:
            return
        column = self._column(path)
        if column is not None:
            column, kind, typed = self._fitted(column, kind, typed)
        is_new = column not in self._types
        if column is None or column in row or (is_new and len(self._types) >= self._max_columns):
            for key in path[:-1]:
                other = other.setdefault(key, {})
            other[path[-1]] = value
            return
        if is_new:
            self._types[column] = kind
        row[column] = typed

    def _fitted(self, column: str, kind: str, value: Any) -> tuple[str | None, str, Any]:
        """Column, type and value such that dlt makes no other value of it; without a column where none fits."""
        of_column = self._types.get(column, kind)
        if kind == of_column or of_column not in _TYPES:
            return column, kind, value
        if of_column == "text":
            return column, "text", value if isinstance(value, str) else jsontext.dumps(value)
        if of_column == "double" and kind == "bigint":
            return column, "double", float(value)
        if of_column == "bigint" and kind == "double" and value.is_integer() and abs(value) < _EXACT_IN_DOUBLE:
            return column, "bigint", int(value)
        variant = self._naming.normalize_path(f"{column}__v_{kind}")
        return variant if self._types.get(variant, kind) == kind else None, kind, value

    def _column(self, path: tuple[str, ...]) -> str | None:
        parts = [column_name(key, self._naming) for key in path]
        if None in parts:
            return None
        column = self._naming.normalize_path("__".join(part for part in parts if part))
        if column in self._own or column.startswith(OF_DLT):
            column = self._naming.normalize_path(f"answer__{column}")
        return None if column in self._own else column


def _typed(value: Any) -> tuple[str | None, Any]:
    if isinstance(value, int) and not isinstance(value, bool):
        return "bigint", value
    if isinstance(value, Decimal):
        return "text", jsontext.dumps(value)  # more digits than a bigint has
    return routed(value)
