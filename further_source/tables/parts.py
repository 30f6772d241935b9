"""Large answers, read part by part: all at once they would take ten times the memory of their text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import msgspec

from further_source import jsontext
from further_source.tables.answer import Answer, Block, Step, blocks_of

__all__ = ["in_parts"]

_PART_BYTES = 2_000_000
_BATCH_BYTES = 100_000  # are parsed at once: what comes of them stays in the processor's cache


def in_parts(
    answers: Iterable[Answer], part_bytes: int = _PART_BYTES, batch_bytes: int = _BATCH_BYTES
) -> Iterator[list[Answer]]:
    """The answers with all their rows read, in one list or more.

    An answer with unread rows comes as parts, each with some of these rows, in order. After its parts comes the answer
    itself, without rows: it alone stands for its record, those of its steps, and what it replaces.

    Args:
        part_bytes: How much text of unread rows goes into a list.
        batch_bytes: How much of it is parsed at once.
    """
    together: list[Answer] = []
    size = 0
    for answer in answers:
        if any(step.unread for step in answer.steps):
            cells = answer.parted_cells
            for part, part_size in _parts(answer, batch_bytes):
                together.append(part)
                cells += part.cell_count
                size += part_size
                if size >= part_bytes:
                    yield together
                    together, size = [], 0
            steps = [replace(step, blocks=[], unread=(), parted_rows=step.row_count) for step in answer.steps]
            answer = replace(answer, steps=steps, parted_cells=cells)
        together.append(answer)
    if together:
        yield together


def _parts(answer: Answer, batch_bytes: int) -> Iterator[tuple[Answer, int]]:
    """The parts of an answer, and how much text is in each that had not been read.

    Each step has one, also without rows: columns and tables are named in the order in which fields and steps come.
    """
    for step in answer.steps:
        first_row = step.first_row
        if step.blocks or not step.unread:
            yield _part(answer, step, step.blocks, first_row), 0
            first_row += step.row_count - len(step.unread)
        for batch in _batches(step.unread, batch_bytes):
            blocks = blocks_of(jsontext.loads_checked(b"[" + b",".join(batch) + b"]"))
            yield _part(answer, step, blocks, first_row), sum(map(len, batch))
            first_row += len(batch)


def _part(answer: Answer, step: Step, blocks: list[Block], first_row: int) -> Answer:
    rows = Step(step.index, step.name, blocks=blocks, first_row=first_row)
    return replace(answer, steps=[rows], replaces=False, is_part=True)


def _batches(texts: Sequence[msgspec.Raw], batch_bytes: int) -> Iterator[list[msgspec.Raw]]:
    batch: list[msgspec.Raw] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= batch_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
