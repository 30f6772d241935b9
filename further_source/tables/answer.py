"""Reads one answer into steps, rows and cells; pure.

The documented shape of an answer is `steps[].data.data[]`, rows of cells with `value` and `confidence_score`.
Other shapes are read as the closest of these, and never stop a load:

- a cell that is no object with a `value` key is itself the value
- a row that is no object is one cell, of field `_row`
- `data.data` that is one object is one row; `data` that is a list is the rows
- `steps` that is one object is one step; a step that is no object has neither name nor rows
- anything else in place of steps, data or rows is none
- a `value` of `NaN` or an infinity is null, with its text as `value` in the cell's extra; a list or an object with
  such in it stands there a second time, with their texts in place of the nulls; `confidence_score` likewise
- of a key that comes twice in a row both stay, the second with `duplicate` 2 in its extra; wide tables have the first
- of a key that comes twice in a cell the last stands, the others are in the extra's `duplicates`; of one that comes
  twice in an object that is a value, both stay in its text; anywhere else the last stands, the others are dropped
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from further_source.executions import ExecutionId
from further_source.jsontext import Constant, OddObject, Unread, holds_constant, loads_checked, number_of
from further_source.polling.poll import Ended

__all__ = [
    "FINAL_OUTCOMES",
    "ROW_FIELD",
    "Answer",
    "Block",
    "Step",
    "blocks_of",
    "normalize_steps",
    "unpack_cell",
    "with_fields_once",
]

FINAL_OUTCOMES = frozenset({"completed", "failed"})
_SCORES = {float, type(None)}
_VALUE, _SCORE = itemgetter("value"), itemgetter("confidence_score")
_ODD = {Constant, OddObject, list}
_NULL = msgspec.Raw(b"null")
ROW_FIELD = "_row"
"""The field of a row that is no object."""


class Block(NamedTuple):
    """Consecutive rows of a step with the same fields, unpacked: so that most work is done by the list.

    The cells stand row by row, in a row in the order of `fields`, which has one twice where the rows have.
    `extras` is None where no cell has any.
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
    """One step of an execution.

    Attributes:
        name: None where the API gave no text.
        blocks: The rows that have been read; those of a large answer are read part by part, by `parts.in_parts`.
        first_row: Where in the step the first of these stands.
        unread: The texts of those that have not been read.
        parted_rows: How many rows were in parts of a large answer that came before.
    """

    index: int
    name: str | None = None
    schema: Any = None
    metadata: Any = None
    blocks: list[Block] = field(default_factory=list)
    first_row: int = 0
    unread: Sequence[msgspec.Raw] = ()
    parted_rows: int = 0

    @property
    def row_count(self) -> int:
        return self.parted_rows + sum(block.row_count for block in self.blocks) + len(self.unread)


@dataclass(frozen=True, slots=True)
class Answer:
    """An ended execution with its steps.

    Attributes:
        replaces: Whether the destination may hold rows of an earlier load of it.
        is_part: Whether this is a part of a large answer, with some of its rows, which comes before the answer itself.
        parted_cells: How many cells such parts had.
    """

    ended: Ended
    steps: list[Step] = field(default_factory=list)
    replaces: bool = False
    is_part: bool = False
    parted_cells: int = 0

    @property
    def cell_count(self) -> int:
        return self.parted_cells + sum(len(block.values) for step in self.steps for block in step.blocks)

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
    if isinstance(steps, Unread):
        try:
            return [_unread_step(index, text) for index, text in enumerate(_READ_LIST(steps.text))]
        except (msgspec.ValidationError, RecursionError):  # no list, or nested very deeply
            steps = loads_checked(bytes(steps.text))
    if isinstance(steps, dict):
        steps = [steps]
    if not isinstance(steps, list):
        return []
    return [_step(index, step) for index, step in enumerate(steps)]


class _UnreadData(msgspec.Struct):
    data: msgspec.Raw
    schema: msgspec.Raw = _NULL
    metadata: msgspec.Raw = _NULL


class _UnreadStep(msgspec.Struct):
    data: _UnreadData
    step_name: msgspec.Raw = _NULL


_READ_LIST = msgspec.json.Decoder(list[msgspec.Raw]).decode
_READ_STEP = msgspec.json.Decoder(_UnreadStep).decode


def _unread_step(index: int, text: msgspec.Raw) -> Step:
    try:
        step = _READ_STEP(text)
    except (msgspec.ValidationError, RecursionError):  # of another shape, or nested very deeply
        return _step(index, loads_checked(bytes(text)))
    data = {
        "data": Unread(step.data.data),
        "schema": loads_checked(bytes(step.data.schema)),
        "metadata": loads_checked(bytes(step.data.metadata)),
    }
    return _step(index, {"step_name": loads_checked(bytes(step.step_name)), "data": data})


def _step(index: int, step: Any) -> Step:
    if not isinstance(step, dict):
        return Step(index)
    name = step.get("step_name")
    name = name if isinstance(name, str) else None
    data = step.get("data")
    if isinstance(data, list):
        return Step(index, name, blocks=blocks_of(data))
    if not isinstance(data, dict):
        return Step(index, name)
    rows, schema, metadata = data.get("data"), data.get("schema"), data.get("metadata")
    if isinstance(rows, Unread):
        try:
            return Step(index, name, schema, metadata, unread=_READ_LIST(rows.text))
        except (msgspec.ValidationError, RecursionError):  # no list, or nested very deeply
            rows = loads_checked(bytes(rows.text))
    if isinstance(rows, dict):
        rows = [rows]
    return Step(index, name, schema, metadata, blocks_of(rows if isinstance(rows, list) else []))


def blocks_of(rows: list[Any]) -> list[Block]:
    """Rows as `data.data` has them."""
    blocks = []
    for fields, run in groupby(rows, key=_fields):
        alike = list(run)
        cells = alike if fields is None else list(chain.from_iterable(map(_cells, alike)))
        values, confidences, extras = _unpack(cells)
        if fields is not None and len(set(fields)) < len(fields):
            extras = _marked(fields, extras or [None] * len(cells))
        blocks.append(Block((ROW_FIELD,) if fields is None else fields, len(alike), values, confidences, extras))
    return blocks


def _fields(row: Any) -> tuple[str, ...] | None:
    if type(row) is OddObject:
        return tuple(key for key, _ in row.pairs)
    return tuple(row) if type(row) is dict else None


def _cells(row: dict[str, Any]) -> Iterable[Any]:
    return (cell for _, cell in row.pairs) if type(row) is OddObject else row.values()


def _marked(fields: tuple[str, ...], extras: list[dict[str, Any] | None]) -> list[dict[str, Any] | None]:
    """The extras, with a number in those of a field's second cell in a row, third cell and so on."""
    numbers: Counter[str] = Counter()
    for position, name in enumerate(fields):
        numbers[name] += 1
        if numbers[name] > 1:
            for index in range(position, len(extras), len(fields)):
                extras[index] = _with(extras[index] or {}, "duplicate", numbers[name])
    return extras


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
    extra: dict[str, Any] = {}
    if isinstance(cell, dict) and "value" in cell:
        value, score = cell["value"], cell.get("confidence_score")
        confidence = score if type(score) is float else number_of(score)
        is_known = {"value"} if confidence is None and score is not None else {"value", "confidence_score"}
        if not cell.keys() <= is_known:
            extra = {key: other for key, other in cell.items() if key not in is_known}
        if type(cell) is OddObject and len(cell.pairs) > len(cell):
            extra = _with(extra, "duplicates", _earlier(cell))
    else:
        value, confidence = cell, None
    if type(value) in _ODD and holds_constant(value):
        extra["value"] = value
        if type(value) is Constant:
            value = None
    return value, confidence, extra or None


def with_fields_once(block: Block) -> Block:
    """The block with each field once: later cells of a field are in the extra of its first, as `other_cells`."""
    fields = tuple(dict.fromkeys(block.fields))
    if len(fields) == len(block.fields):
        return block
    values, confidences, extras = block.values, block.confidences, list(block.extras or [None] * len(block.values))
    firsts, kept = [block.fields.index(name) for name in block.fields], []
    for index, value in enumerate(values):
        position = index % len(firsts)
        if firsts[position] == position:
            kept.append(index)
            continue
        cell = {"value": value, "confidence_score": confidences[index], **(extras[index] or {})}
        first = index - position + firsts[position]
        extra = extras[first] or {}
        extras[first] = {**extra, "other_cells": [*extra.get("other_cells", ()), cell]}
    return Block(
        fields,
        block.row_count,
        [values[index] for index in kept],
        [confidences[index] for index in kept],
        [extras[index] for index in kept],
    )


def _earlier(cell: OddObject) -> dict[str, list[Any]]:
    """By key that comes more than once, its values but the last."""
    values: dict[str, list[Any]] = {}
    for key, value in cell.pairs:
        values.setdefault(key, []).append(value)
    return {key: of_key[:-1] for key, of_key in values.items() if len(of_key) > 1}


def _with(extra: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The extra with a key of ours, which gives way to one of the API's."""
    while name in extra:
        name = "_" + name
    return {**extra, name: value}
