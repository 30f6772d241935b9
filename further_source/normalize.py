"""Pure: one answer in, records of the tables out.

The documented shape of an answer is `steps[].data.data[]`, rows of cells with `value` and `confidence_score`.
Other shapes are read as the closest of these, and never stop a load:

- a cell that is no object with a `value` key is itself the value
- a row that is no object is one cell, of field `_row`
- `data.data` that is one object is one row; `data` that is a list is the rows
- `steps` that is one object is one step; a step that is no object has neither name nor rows
- anything else in place of steps, data or rows is none
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa

from further_source import jsontext
from further_source.outcomes import ExecutionId
from further_source.polling import Ended

__all__ = [
    "CELLS_SCHEMA",
    "FINAL_OUTCOMES",
    "ROW_FIELD",
    "Answer",
    "Step",
    "cells_table",
    "confidence_of",
    "normalize_steps",
    "poll_columns",
    "step_rows",
    "unpack_cell",
]

FINAL_OUTCOMES = frozenset({"completed", "failed"})
ROW_FIELD = "_row"
"""The field of a row that is no object."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an execution. `name` is None where the API gave no text; `rows` are as the API gave them."""

    index: int
    name: str | None
    schema: Any
    metadata: Any
    rows: list[Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """An ended execution with its steps, and whether the destination may hold rows of an earlier load of it."""

    ended: Ended
    steps: list[Step] = field(default_factory=list)
    replaces: bool = False

    @property
    def execution(self) -> ExecutionId:
        return self.ended.execution

    @property
    def is_final(self) -> bool:
        """Whether the execution itself ended: only then has it steps, and replaces what was loaded of it."""
        return self.ended.poll_outcome in FINAL_OUTCOMES


def normalize_steps(payload: dict[str, Any] | None) -> list[Step]:
    """The steps of an answer, whatever its shape."""
    steps = payload.get("steps") if payload else None
    if isinstance(steps, dict):
        steps = [steps]
    if not isinstance(steps, list):
        return []
    return [_step(index, step) for index, step in enumerate(steps)]


def _step(index: int, step: Any) -> Step:
    if not isinstance(step, dict):
        return Step(index, None, None, None, [])
    name = step.get("step_name")
    name = name if isinstance(name, str) else None
    data = step.get("data")
    if isinstance(data, list):
        return Step(index, name, None, None, data)
    if not isinstance(data, dict):
        return Step(index, name, None, None, [])
    rows = data.get("data")
    if isinstance(rows, dict):
        rows = [rows]
    if not isinstance(rows, list):
        rows = []
    return Step(index, name, data.get("schema"), data.get("metadata"), rows)


def poll_columns(ended: Ended) -> dict[str, Any]:
    """The columns of `executions` that are ours: the keys, `status`, and how polling went."""
    return {
        "workflow_id": ended.execution.workflow_id,
        "workflow_execution_id": ended.execution.workflow_execution_id,
        "status": ended.status,
        "poll_outcome": ended.poll_outcome,
        "poll_error": ended.poll_error,
        "poll_count": ended.poll_count,
        "poll_first_at": ended.poll_first_at,
        "poll_last_at": ended.poll_last_at,
    }


def step_rows(answer: Answer) -> Iterator[dict[str, Any]]:
    """Records of `steps`: one per step."""
    for step in answer.steps:
        yield {
            "workflow_id": answer.execution.workflow_id,
            "workflow_execution_id": answer.execution.workflow_execution_id,
            "step_index": step.index,
            "step_name": step.name,
            "row_count": len(step.rows),
            "schema": None if step.schema is None else jsontext.dumps(step.schema),
            "metadata": None if step.metadata is None else jsontext.dumps(step.metadata),
        }


CELLS_SCHEMA = pa.schema(
    [
        pa.field("workflow_id", pa.string(), nullable=False),
        pa.field("workflow_execution_id", pa.string(), nullable=False),
        pa.field("step_index", pa.int64()),
        pa.field("step_name", pa.string()),
        pa.field("row_index", pa.int64()),
        pa.field("field", pa.string()),
        pa.field("value", pa.string()),
        pa.field("value_type", pa.string()),
        pa.field("value_number", pa.float64()),
        pa.field("confidence", pa.float64()),
        pa.field("extra", pa.string()),
        pa.field("_dlt_load_id", pa.string(), nullable=False),
        pa.field("_deleted", pa.bool_()),
    ]
)
"""The columns of `cells`, the same in every load."""


def cells_table(answers: Iterable[Answer], load_id: str) -> pa.Table:
    """Records of `cells`: one per cell, and a tombstone for each execution that replaces and has no cell."""
    columns: dict[str, list[Any]] = {name: [] for name in CELLS_SCHEMA.names}
    for answer in answers:
        before = len(columns["field"])
        for step in answer.steps:
            _append_step(columns, step)
        count = len(columns["field"]) - before
        if count == 0 and answer.replaces:
            for name in CELLS_SCHEMA.names:
                columns[name].append(True if name == "_deleted" else None)
            columns["workflow_id"].pop()
            columns["workflow_execution_id"].pop()
            columns["_dlt_load_id"].pop()
            count = 1
        else:
            columns["_deleted"] += [None] * count
        columns["workflow_id"] += [answer.execution.workflow_id] * count
        columns["workflow_execution_id"] += [answer.execution.workflow_execution_id] * count
        columns["_dlt_load_id"] += [load_id] * count
    return pa.table(columns, schema=CELLS_SCHEMA)


def _append_step(columns: dict[str, list[Any]], step: Step) -> None:
    fields, row_index = columns["field"], columns["row_index"]
    confidence, extra = columns["confidence"], columns["extra"]
    value_text, value_type, value_number = columns["value"], columns["value_type"], columns["value_number"]
    before = len(fields)
    for index, row in enumerate(step.rows):
        cells = row if type(row) is dict else {ROW_FIELD: row}
        fields += cells
        row_index += [index] * len(cells)
        for cell in cells.values():
            value, number, rest = unpack_cell(cell)
            confidence.append(number)
            extra.append(None if rest is None else jsontext.dumps(rest))
            if type(value) is str:
                value_text.append(value)
                value_type.append("string")
                value_number.append(None)
            else:
                text, kind, number = _text_type_number(value)
                value_text.append(text)
                value_type.append(kind)
                value_number.append(number)
    count = len(fields) - before
    columns["step_index"] += [step.index] * count
    columns["step_name"] += [step.name] * count


def unpack_cell(cell: Any) -> tuple[Any, float | None, dict[str, Any] | None]:
    """A cell's value, its confidence as a double, and whatever else it holds; the last two None where absent."""
    if type(cell) is not dict or "value" not in cell:
        return cell, None, None
    score = cell.get("confidence_score")
    confidence = score if type(score) is float else confidence_of(score)
    if len(cell) == 2 and "confidence_score" in cell and (confidence is not None or score is None):
        return cell["value"], confidence, None
    is_known = {"value"} if confidence is None and score is not None else {"value", "confidence_score"}
    rest = {key: value for key, value in cell.items() if key not in is_known}
    return cell["value"], confidence, rest or None


def confidence_of(score: Any) -> float | None:
    """A `confidence_score` as a double; None where it is no number a double can hold."""
    if isinstance(score, bool) or not isinstance(score, int | float | Decimal):
        return None
    number = float(score)
    return number if math.isfinite(number) else None


def _text_type_number(value: Any) -> tuple[str | None, str, float | None]:
    if value is None:
        return None, "null", None
    if isinstance(value, bool):
        return ("true" if value else "false"), "boolean", None
    if isinstance(value, int | float):
        return repr(value), "number", float(value)
    if isinstance(value, Decimal):
        return jsontext.dumps(value), "number", confidence_of(value)
    return jsontext.dumps(value), ("array" if isinstance(value, list) else "object"), None
