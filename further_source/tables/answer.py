"""Reads one answer into steps, rows and cells; pure.

The documented shape of an answer is `steps[].data.data[]`, rows of cells with `value` and `confidence_score`.
Other shapes are read as the closest of these, and never stop a load:

- a cell that is no object with a `value` key is itself the value
- a row that is no object is one cell, of field `_row`
- `data.data` that is one object is one row; `data` that is a list is the rows
- `steps` that is one object is one step; a step that is no object has neither name nor rows
- anything else in place of steps, data or rows is none
"""

import math
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple

from further_source.executions import ExecutionId
from further_source.polling.poll import Ended

__all__ = [
    "FINAL_OUTCOMES",
    "ROW_FIELD",
    "Answer",
    "Block",
    "Step",
    "number_of",
    "normalize_steps",
    "unpack_cell",
]

FINAL_OUTCOMES = frozenset({"completed", "failed"})
_SCORES = {float, type(None)}
_VALUE, _SCORE = itemgetter("value"), itemgetter("confidence_score")
ROW_FIELD = "_row"
"""The field of a row that is no object."""


class Block(NamedTuple):
    """Consecutive rows of a step with the same fields, unpacked: so that most work is done by the list.

    The cells stand row by row, in a row in the order of `fields`. `extras` is None where no cell has any.
    """

    fields: tuple[str, ...]
    row_count: int
    values: list[Any]
    confidences: list[float | None]
    extras: list[dict[str, Any] | None] | None

    def of_field(self, position: int) -> slice:
        """Where the cells of a field stand."""
        return slice(position, None, len(self.fields))


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an execution. `name` is None where the API gave no text."""

    index: int
    name: str | None = None
    schema: Any = None
    metadata: Any = None
    blocks: list[Block] = field(default_factory=list)

    @property
    def row_count(self) -> int:
        return sum(block.row_count for block in self.blocks)


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
        return Step(index)
    name = step.get("step_name")
    name = name if isinstance(name, str) else None
    data = step.get("data")
    if isinstance(data, list):
        return Step(index, name, blocks=_blocks(data))
    if not isinstance(data, dict):
        return Step(index, name)
    rows = data.get("data")
    if isinstance(rows, dict):
        rows = [rows]
    return Step(index, name, data.get("schema"), data.get("metadata"), _blocks(rows if isinstance(rows, list) else []))


def _blocks(rows: list[Any]) -> list[Block]:
    blocks = []
    for fields, run in groupby(rows, key=_fields):
        alike = list(run)
        cells = alike if fields is None else list(chain.from_iterable(map(dict.values, alike)))
        blocks.append(Block((ROW_FIELD,) if fields is None else fields, len(alike), *_unpack(cells)))
    return blocks


def _fields(row: Any) -> tuple[str, ...] | None:
    return tuple(row) if type(row) is dict else None


def _unpack(cells: list[Any]) -> tuple[list[Any], list[float | None], list[dict[str, Any] | None] | None]:
    """Values, confidences and extras of cells."""
    if set(map(type, cells)) == {dict} and set(map(len, cells)) == {2}:
        try:
            scores = list(map(_SCORE, cells))
            if set(map(type, scores)) <= _SCORES:
                return list(map(_VALUE, cells)), scores, None
        except KeyError:
            pass
    unpacked = [unpack_cell(cell) for cell in cells]
    extras = [extra for _, _, extra in unpacked]
    return (
        [value for value, _, _ in unpacked],
        [confidence for _, confidence, _ in unpacked],
        extras if any(extras) else None,
    )


def unpack_cell(cell: Any) -> tuple[Any, float | None, dict[str, Any] | None]:
    """A cell's value, its confidence as a double, and whatever else it holds; the last two None where absent."""
    if type(cell) is not dict or "value" not in cell:
        return cell, None, None
    score = cell.get("confidence_score")
    confidence = score if type(score) is float else number_of(score)
    if len(cell) == 2 and "confidence_score" in cell and (confidence is not None or score is None):
        return cell["value"], confidence, None
    is_known = {"value"} if confidence is None and score is not None else {"value", "confidence_score"}
    rest = {key: value for key, value in cell.items() if key not in is_known}
    return cell["value"], confidence, rest or None


def number_of(value: Any) -> float | None:
    """A JSON number as a double; None where it is no number, or none that a double can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    number = float(value)
    return number if math.isfinite(number) else None
