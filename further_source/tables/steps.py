"""The records of `steps`: one per step of an ended execution."""

from collections.abc import Iterator
from typing import Any

from further_source import jsontext
from further_source.tables.answer import Answer

__all__ = ["step_rows"]


def step_rows(answer: Answer) -> Iterator[dict[str, Any]]:
    """One record per step; where an answer that replaces has none, a tombstone for those that were loaded before."""
    for step in answer.steps:
        yield {
            **answer.execution._asdict(),
            "step_index": step.index,
            "step_name": step.name,
            "row_count": step.row_count,
            "schema": _json(step.schema),
            "metadata": _json(step.metadata),
        }
    if answer.replaces and not answer.steps:
        yield {**answer.execution._asdict(), "_deleted": True}


def _json(value: Any) -> str | None:
    text = jsontext.dumps(value)
    return None if text == "null" else text
