"""The lossless record as arrow: one record per cell."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from further_source import jsontext
from further_source.jsontext import OddObject, number_of
from further_source.tables.answer import Answer, Block, Step, with_fields_once
from further_source.tables.arrow import arrow_schema
from further_source.tables.columns import CELLS

__all__ = ["CELLS_SCHEMA", "RowGroups", "cells_table"]

CELLS_SCHEMA = arrow_schema(CELLS)

_VALUE_TYPES = {
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    Decimal: "number",
    list: "array",
    dict: "object",
    OddObject: "object",
    type(None): "null",
}


def cells_table(answers: Iterable[Answer], load_id: str, *, unique: bool = False) -> pa.Table:
    """Records of `cells`: one per cell, and a tombstone for each execution that replaces and has no cell.

    Args:
        unique: Whether a row may have one record of a field at most. Then those of a field that comes more than once
            are in the `extra` of the first.
    """
    builder = _Builder(unique)
    for answer in answers:
        builder.add(answer)
    return builder.finish(load_id)


class RowGroups:
    """Joins tables of `cells` to row groups of the size that DuckDB has in its own files.

    DuckDB writes these as they are. Smaller or larger ones it takes apart and puts together again, which takes twice
    the time and three times the memory.
    """

    ROWS = 122_880

    def __init__(self) -> None:
        self._kept: list[pa.Table] = []

    def add(self, table: pa.Table) -> list[pa.Table]:
        """The groups that are full now."""
        if table.num_rows:
            self._kept.append(table)
        count = sum(table.num_rows for table in self._kept)
        if count < self.ROWS:
            return []
        joined = pa.concat_tables(self._kept)
        whole = count - count % self.ROWS
        self._kept = [joined.slice(whole)]
        return [joined.slice(start, self.ROWS) for start in range(0, whole, self.ROWS)]

    def rest(self) -> pa.Table:
        """What is in no full group, perhaps nothing."""
        rest = pa.concat_tables([CELLS_SCHEMA.empty_table(), *self._kept])
        self._kept = []
        return rest


class _Runs:
    """A column of values that stay the same from record to record: each with where its run ends."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._ends: list[int] = []

    def add(self, value: Any, end: int) -> None:
        if end > (self._ends[-1] if self._ends else 0):
            self._values.append(value)
            self._ends.append(end)

    def column(self, value_of: Callable[[Any], Any], of_type: pa.DataType) -> pa.Array:
        values = pa.array(map(value_of, self._values), of_type)
        if not self._ends:
            return values
        return pc.run_end_decode(pa.RunEndEncodedArray.from_arrays(pa.array(self._ends, pa.int32()), values))


class _Builder:
    """Collects cells; what is the same for many of them is kept in runs, and written out by arrow."""

    def __init__(self, unique: bool) -> None:
        self._unique = unique
        self._executions, self._steps, self._rows, self._deleted = _Runs(), _Runs(), _Runs(), _Runs()
        self._fields: list[str | None] = []
        self._values: list[str | None] = []
        self._value_types: list[str | None] = []
        self._numbers: list[float | None] = []
        self._confidences: list[float | None] = []
        self._extras: list[str | None] = []

    def add(self, answer: Answer) -> None:
        before = len(self._fields)
        for step in answer.steps:
            self._add_step(step)
        is_tombstone = answer.replaces and len(self._fields) == before
        if is_tombstone:
            for column in (
                self._fields,
                self._values,
                self._value_types,
                self._numbers,
                self._confidences,
                self._extras,
            ):
                column.append(None)
            self._steps.add(None, len(self._fields))
            self._rows.add(None, len(self._fields))
        self._executions.add(answer.execution, len(self._fields))
        self._deleted.add(True if is_tombstone else None, len(self._fields))

    def _add_step(self, step: Step) -> None:
        row_index = step.first_row
        for block in map(with_fields_once, step.blocks) if self._unique else step.blocks:
            width, end = len(block.fields), len(self._fields)
            for _ in range(block.row_count):
                end += width
                self._rows.add(row_index, end)
                row_index += 1
            self._add_block(block)
        self._steps.add(step, len(self._fields))

    def _add_block(self, block: Block) -> None:
        count, nothing = len(block.values), [None] * len(block.values)
        self._fields += block.fields * block.row_count
        self._confidences += block.confidences
        if block.extras is None:
            self._extras += nothing
        else:
            self._extras += [None if extra is None else jsontext.dumps(extra, spell=True) for extra in block.extras]
        values, value_types = block.values.copy(), ["string"] * count
        numbers: list[float | None] = [*nothing]
        for position in range(len(block.fields)):
            of_field = block.of_field(position)
            of_one = block.values[of_field]
            kinds = set(map(type, of_one))
            if kinds == {str}:
                continue
            value_types[of_field] = [_VALUE_TYPES[type(value)] for value in of_one]
            if kinds == {float}:
                values[of_field] = map(repr, of_one)
                numbers[of_field] = of_one
            else:
                values[of_field] = map(_text, of_one)
                numbers[of_field] = map(number_of, of_one)
        self._values += values
        self._value_types += value_types
        self._numbers += numbers

    def finish(self, load_id: str) -> pa.Table:
        text, whole, double = pa.string(), pa.int64(), pa.float64()
        columns = {
            "workflow_id": self._executions.column(lambda execution: execution.workflow_id, text),
            "workflow_execution_id": self._executions.column(lambda execution: execution.workflow_execution_id, text),
            "step_index": self._steps.column(lambda step: step and step.index, whole),
            "step_name": self._steps.column(lambda step: step and step.name, text),
            "row_index": self._rows.column(lambda row_index: row_index, whole),
            "field": pa.array(self._fields, text),
            "value": pa.array(self._values, text),
            "value_type": pa.array(self._value_types, text),
            "value_number": pa.array(self._numbers, double),
            "confidence": pa.array(self._confidences, double),
            "extra": pa.array(self._extras, text),
            "_dlt_load_id": pa.repeat(pa.scalar(load_id, text), len(self._fields)),
            "_deleted": self._deleted.column(lambda deleted: deleted, pa.bool_()),
        }
        return pa.table(columns, schema=CELLS_SCHEMA)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else jsontext.dumps(value)
