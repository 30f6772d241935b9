"""The records of `executions`: how polling went, and the columns that come from the API."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from dlt.common.normalizers.naming import NamingConvention

from further_source import jsontext
from further_source.tables import names
from further_source.tables.answer import Answer
from further_source.tables.columns import EXECUTIONS
from further_source.tables.fields import Field
from further_source.tables.values import Types, routed

__all__ = ["OWN_COLUMNS", "AnswerColumns", "declared_types", "execution_row"]

OWN_COLUMNS = frozenset(column.name for column in EXECUTIONS.columns if not column.of_api)
"""The columns that no key of an answer may take."""

_NOT_AS_THEY_COME = frozenset({"workflow_id", "workflow_execution_id", "status", "steps"})
_MAX_DEPTH = 32
_TYPES = {"text", "bigint", "double", "bool"}
_SLOTS = {"text": "text_column", "bigint": "number_column", "double": "number_column", "bool": "boolean_column"}
_EXACT_IN_DOUBLE = 2**53
_Path = tuple[str, ...]


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
        "step_count": len(answer.steps) if answer.is_final else None,
        "cell_count": answer.cell_count if answer.is_final else None,
        "poll_count": ended.poll_count,
        "poll_first_at": ended.poll_first_at,
        "poll_last_at": ended.poll_last_at,
    }


class AnswerColumns:
    """The columns of `executions` that come from the API: `metadata__…` and any other key of an answer.

    A key that collides with a column of ours becomes `answer__<key>`. A column belongs to one key for ever. That of a
    key which is named like it needs no record; every other key is recorded in `fields`, by its JSON pointer.

    Args:
        naming: dlt's naming convention for the destination.
        types: dlt data types of the columns of `executions` that exist.
        recorded: The records of `fields` for `executions`.
        max_columns: How many columns `executions` may have.

    Attributes:
        changed: Records that are new.
        wanted: Columns that rows rely on, and that do not exist.
    """

    OTHER = "answer__other"
    """JSON text of the keys without a column, nested as they came."""

    def __init__(
        self,
        naming: NamingConvention,
        types: Mapping[str, str],
        recorded: Iterable[Field] = (),
        max_columns: int = 400,
    ) -> None:
        self._max_columns = max_columns
        self._own = {*OWN_COLUMNS, self.OTHER}
        self._naming = naming
        self._types = dict(types)
        self._bases: dict[_Path, str | None] = {}
        self._owners: dict[str, _Path] = {}
        self.changed: dict[_Path, Field] = {}
        self.wanted: Types = {}
        for field in recorded:
            path = _path(field.field or "")
            base = field.text_column or field.number_column or field.boolean_column
            self._bases[path] = base
            if base:
                self._owners[base] = path

    def settled(self) -> None:
        """What was wanted exists now, and what was changed is recorded."""
        self.wanted, self.changed = {}, {}

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
            self._want(self.OTHER, "text")
        return row

    def _add(self, row: dict[str, Any], other: dict[str, Any], path: _Path, value: Any) -> None:
        if isinstance(value, dict) and len(path) < _MAX_DEPTH:
            for key, inner in value.items():
                self._add(row, other, (*path, key), inner)
            return
        kind, typed = _typed(value)
        if kind is None:
            return
        column = self._column(path, kind)
        if column is not None:
            column, kind, typed = self._fitted(column, kind, typed)
        if column is None or column in row or (column not in self._types and self._is_full()):
            for key in path[:-1]:
                other = other.setdefault(key, {})
            other[path[-1]] = value
            return
        self._want(column, kind)
        row[column] = typed

    def _want(self, column: str, kind: str) -> None:
        if column not in self._types:
            self._types[column] = self.wanted[column] = kind

    def _is_full(self) -> bool:
        return len(self._types) >= self._max_columns

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

    def _column(self, path: _Path, kind: str) -> str | None:
        """The column of a key, decided when its first value comes."""
        if path not in self._bases:
            self._bases[path] = self._decided(path, kind)
        return self._bases[path]

    def _decided(self, path: _Path, kind: str) -> str | None:
        base = names.path_name(path, self._naming)
        if base in self._own:
            base = names.path_name(("answer", *path), self._naming)
        is_named_like_it = "__".join(path) == base and base not in self._own and base not in self._owners
        if is_named_like_it and base in self._types:
            self._owners[base] = path
            return base
        field = Field(EXECUTIONS.name, None, _pointer(path))
        if self._is_full():
            reason = f"executions has {self._max_columns} columns; such keys are in {self.OTHER}"
            self.changed[path] = replace(field, reason=reason)
            return None
        taken = {*self._own, *self._owners, *self._types}
        column = names.free_name(base, taken)
        self._owners[column] = path
        if not is_named_like_it:
            self.changed[path] = replace(field, **{_SLOTS[kind]: column})
        return column


def _pointer(path: _Path) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)


def _path(pointer: str) -> _Path:
    return tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:])


def _typed(value: Any) -> tuple[str | None, Any]:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return routed(value)
    if -(2**63) <= value < 2**63:
        return "bigint", int(value)  # of -0 too
    return "text", jsontext.dumps(value)  # more digits than a bigint has
