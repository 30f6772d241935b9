"""The wide tables `rows_<step name>` as arrow: one record per extracted row, with columns for each field."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from further_source.executions import ExecutionId
from further_source.tables.answer import Block, Step
from further_source.tables.arrow import ARROW_TYPES, arrow_schema
from further_source.tables.columns import FIELDS, ROWS
from further_source.tables.fields import Field, FieldColumns, StepKey
from further_source.tables.values import routed

__all__ = ["fields_table", "wide_tables"]

_SCHEMA = arrow_schema(ROWS)
_KEY_COLUMNS = {field.name: field for field in _SCHEMA}


class HasSteps(Protocol):
    """An answer, or what is loaded of one."""

    @property
    def execution(self) -> ExecutionId: ...
    @property
    def steps(self) -> list[Step]: ...
    @property
    def replaces(self) -> bool: ...


def wide_tables(answers: Iterable[HasSteps], fields: FieldColumns, load_id: str) -> Iterator[tuple[str, pa.Table]]:
    """Names and records of the wide tables.

    A row stands in each table of its step that has a field of it, and always in the first. An execution that replaces
    gets a tombstone in each wide table where it has no row now.
    """
    builders: dict[str, _Builder] = {}

    def builder(table: str) -> _Builder:
        return builders.get(table) or builders.setdefault(table, _Builder())

    for answer in answers:
        filled: set[str] = set()
        for step in answer.steps:
            key = fields.step_key(step.name, step.index)
            first = fields.table_of(key)
            builder(first)
            row_index = step.first_row
            for block in step.blocks:
                values = list(_values(block, key, fields))
                tables = dict.fromkeys([first, *(one.field.rows_table for one in values)])
                for table in tables:
                    builder(table).begin(answer, step, range(row_index, row_index + block.row_count))
                for one in values:
                    builder(one.field.rows_table).append(one)
                row_index += block.row_count
                filled.update(tables)
        if answer.replaces:
            for table in fields.tables:
                if table not in filled:
                    builder(table).add_tombstone(answer)
    for table, one_builder in builders.items():
        yield table, one_builder.finish(load_id)


def fields_table(fields: Iterable[Field], load_id: str) -> pa.Table:
    """Records of `fields`."""
    records = [{**asdict(field), "_dlt_load_id": load_id} for field in fields]
    return pa.Table.from_pylist(records, schema=arrow_schema(FIELDS))


class _Values(NamedTuple):
    """The values of one field in a block, by their dlt data types; null where a value is of another one."""

    field: Field
    by_kind: dict[str, list[Any]]
    confidences: list[float | None]


def _values(block: Block, step: StepKey, fields: FieldColumns) -> Iterator[_Values]:
    """Of the fields that have a column. Of a key that comes twice in a row, the first value."""
    seen: set[str] = set()
    for position, name in enumerate(block.fields):
        if name in seen:
            continue
        seen.add(name)
        of_field = block.of_field(position)
        by_kind = _by_kind(block.values[of_field])
        field = fields.field(step, name, by_kind)
        if field.confidence_column is not None:
            yield _Values(field, by_kind, block.confidences[of_field])


def _by_kind(values: list[Any]) -> dict[str, list[Any]]:
    types = set(map(type, values))
    if types <= {str, type(None)}:
        return {"text": values} if str in types else {}
    if types <= {float, type(None)}:
        return {"double": values}
    kinds = [routed(value) for value in values]
    return {
        kind: [value if kind == own else None for own, value in kinds]
        for kind in dict.fromkeys(kind for kind, _ in kinds if kind is not None)
    }


class _Builder:
    """Collects the records of one wide table, column by column."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in _KEY_COLUMNS if name != "_dlt_load_id"}
        self._types: dict[str, str | None] = {}
        self._begun = 0
        self._count = 0

    def begin(self, answer: HasSteps, step: Step, row_indexes: Sequence[int]) -> None:
        """Begins the records of a block of rows."""
        self._append_keys(answer, step.index, row_indexes, None)

    def append(self, values: _Values) -> None:
        """Appends the values of a field of that block."""
        for column in values.field.columns:  # a value stands before its confidence, whichever comes first
            self._types.setdefault(column, None)
        for kind, of_kind in values.by_kind.items():
            self._extend(str(values.field.column(kind)), kind, of_kind)
        self._extend(str(values.field.confidence_column), "double", values.confidences)

    def add_tombstone(self, answer: HasSteps) -> None:
        self._append_keys(answer, None, [None], True)

    def _append_keys(
        self, answer: HasSteps, step_index: int | None, row_indexes: Sequence[int | None], deleted: bool | None
    ) -> None:
        self._begun = self._count
        count = len(row_indexes)
        self._columns["workflow_id"] += [answer.execution.workflow_id] * count
        self._columns["workflow_execution_id"] += [answer.execution.workflow_execution_id] * count
        self._columns["step_index"] += [step_index] * count
        self._columns["row_index"] += row_indexes
        self._columns["_deleted"] += [deleted] * count
        self._count += count

    def _extend(self, column: str, kind: str, values: list[Any]) -> None:
        self._types[column] = kind
        stored = self._columns.setdefault(column, [])
        if len(stored) < self._begun:
            stored += [None] * (self._begun - len(stored))
        stored += values

    def finish(self, load_id: str) -> pa.Table:
        """The records so far, with only the columns that have a value."""
        self._columns["_dlt_load_id"] = [load_id] * self._count
        fields = list(_KEY_COLUMNS.values())
        arrays = [pa.array(self._columns[field.name], field.type) for field in fields]
        for column, kind in self._types.items():
            if kind is None:
                continue
            values = self._columns[column]
            values += [None] * (self._count - len(values))
            fields.append(pa.field(column, ARROW_TYPES[kind]))
            arrays.append(pa.array(values, ARROW_TYPES[kind]))
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
