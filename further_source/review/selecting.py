"""Which cells somebody is to look at: the least sure of them, or a sample over all confidences."""

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from further_source.review.cells import CELL_COLUMNS, ReviewedCell
from further_source.review.store import ReviewStore
from further_source.review.views import CELLS_FINAL, WITHDRAWN, Sql
from further_source.tables.columns import REVIEWS, THRESHOLDS

__all__ = [
    "cells_below",
    "cells_below_thresholds",
    "cells_around",
    "cells_of_executions",
    "reviewer_of",
    "sampled_cells",
]

_KEYS_AT_ONCE = 500


def cells_below(store: ReviewStore, confidence: float, limit: int | None = None) -> list[ReviewedCell]:
    """Cells without a review, whose confidence is below this or absent; those without one first, then the least sure.

    Args:
        store: The reviews.
        confidence: From 0 to 1.
        limit: So many at most.
    """
    with store.sql() as sql:
        where = f"({sql.columns('confidence')} IS NULL OR {sql.columns('confidence')} < %s)"
        return list(_open_cells(sql, where, (confidence,), limit))


def cells_below_thresholds(store: ReviewStore, limit: int | None = None) -> list[ReviewedCell]:
    """Cells without a review, that do not go straight through by the thresholds that were computed last.

    Cells of fields that have no threshold are all among them.
    """
    with store.sql() as sql:
        thresholds = sql.table(THRESHOLDS.name)
        field = sql.columns("field", of="t")
        passes = (
            f"SELECT 1 FROM {thresholds} t WHERE {sql.same('t', 'f', ('step_name',))} "  # noqa: S608
            f"AND ({field} IS NULL OR {field} = {sql.columns('field', of='f')}) "
            f"AND {sql.columns('computed_at', of='t')} = (SELECT max({sql.columns('computed_at')}) FROM {thresholds}) "
            f"AND {sql.columns('confidence', of='f')} >= {sql.columns('threshold', of='t')}"
        )
        return list(_open_cells(sql, f"NOT EXISTS ({passes})", (), limit))


def _open_cells(sql: Sql, where: str, values: Sequence[Any], limit: int | None) -> Iterator[ReviewedCell]:
    confidence = sql.columns("confidence", of="f")
    order = f"CASE WHEN {confidence} IS NULL THEN 0 ELSE 1 END, {confidence}, {sql.columns(*CELL_COLUMNS[:7], of='f')}"
    query = (
        f"SELECT {_columns(sql, 'f')} FROM {sql.table(CELLS_FINAL)} f "  # noqa: S608
        f"WHERE {sql.columns('review_verdict', of='f')} IS NULL AND {where} ORDER BY {order}"
        + (f" LIMIT {limit:d}" if limit is not None else "")
    )
    return (ReviewedCell(*row) for row in sql.rows(query, *values))


def _columns(sql: Sql, alias: str) -> str:
    """Those of `ReviewedCell`, the value as it was extracted."""
    extracted = {"value": "extracted_value", "value_type": "extracted_type"}
    return ", ".join(sql.columns(extracted.get(name, name), of=alias) for name in CELL_COLUMNS)


def sampled_cells(store: ReviewStore, size: int, seed: str | None = None) -> list[ReviewedCell]:
    """A sample of about `size` cells, as many of each field, in which every confidence has its share.

    Within a field every cell has the same chance: cells are sorted by confidence, and one in every n is taken, where n
    is the same throughout and the first is drawn by lot. So low confidences are as frequent in the sample as they are
    in the field, and what is found above a threshold in the sample holds for all cells above the threshold. Cells that
    have a verdict from an earlier sample are left out. Cells that were reviewed for their low confidence stay in, or
    low confidences would be missing.

    Args:
        store: The reviews.
        size: How many; fewer where there are no more, and never less than one of a field.
        seed: The same one gives the same sample of the same cells.
    """
    seed = secrets.token_hex(8) if seed is None else seed
    with store.sql() as sql:
        group = sql.columns("step_name", "field")
        where = (
            f"{sql.columns('confidence')} IS NOT NULL "
            f"AND NOT ({sql.columns('review_sampled')} AND {sql.columns('review_verdict')} IS NOT NULL)"
        )
        final = sql.table(CELLS_FINAL)
        sizes = [row[-1] for row in sql.rows(f"SELECT {group}, count(*) FROM {final} WHERE {where} GROUP BY {group}")]  # noqa: S608
        of_each = _of_each(sizes, size)
        texts = [sql.columns(name) for name in ("workflow_id", "workflow_execution_id")]
        texts += [sql.as_text(sql.columns(name)) for name in ("step_index", "row_index")]
        lot = sql.hashed(*texts, sql.columns("field"), sql.as_text(sql.columns("occurrence")), "%s")
        start = _fraction(seed)
        drawn = (
            f"SELECT {_columns(sql, 'f')}, row_number() OVER (PARTITION BY {group} "  # noqa: S608
            f"ORDER BY {sql.columns('confidence')}, {lot}) AS place, "
            f"count(*) OVER (PARTITION BY {group}) AS of_field FROM {final} f WHERE {where}"
        )
        share = f"least({sql.as_double('of_field')}, {of_each:d}) / of_field"
        names = {"value": "extracted_value", "value_type": "extracted_type"}
        columns = sql.columns(*(names.get(name, name) for name in CELL_COLUMNS))
        query = (
            f"SELECT {columns} FROM ({drawn}) d "  # noqa: S608
            f"WHERE floor(place * {share} + {start!r}) > floor((place - 1) * {share} + {start!r}) "
            f"ORDER BY {sql.columns(*CELL_COLUMNS[:7])}"
        )
        return [ReviewedCell(*row) for row in sql.rows(query, seed)]


def _fraction(seed: str) -> float:
    """From 0 to below 1, as good as drawn by lot."""
    return int(hashlib.sha256(seed.encode()).hexdigest()[:8], 16) / 2**32


def _of_each(sizes: Sequence[int], size: int) -> int:
    """How many to take of each group, at most, for about so many in all."""
    left, level = size, 0
    for position, of_group in enumerate(sorted(sizes)):
        level = left // (len(sizes) - position)
        if level < of_group:
            break
        left -= of_group
    return max(level, 1)


def cells_of_executions(store: ReviewStore, executions: Sequence[str]) -> Iterator[ReviewedCell]:
    """All cells of executions of these ids, with the values that the API gave."""
    with store.sql() as sql:
        for start in range(0, len(executions), _KEYS_AT_ONCE):
            some = executions[start : start + _KEYS_AT_ONCE]
            query = (
                f"SELECT {_columns(sql, 'f')} FROM {sql.table(CELLS_FINAL)} f "  # noqa: S608
                f"WHERE {sql.columns('workflow_execution_id', of='f')} IN ({', '.join(['%s'] * len(some))})"
            )
            yield from (ReviewedCell(*row) for row in sql.rows(query, *some))


def cells_around(store: ReviewStore, cell: ReviewedCell, rows: int) -> list[ReviewedCell]:
    """The cells of its row, and of so many rows before and after it, as they are now."""
    of_step = ("workflow_id", "workflow_execution_id", "step_index")
    with store.sql() as sql:
        same = " AND ".join(f"{sql.columns(name, of='f')} = %s" for name in of_step)
        row_index = sql.columns("row_index", of="f")
        query = (
            f"SELECT {_columns(sql, 'f')} FROM {sql.table(CELLS_FINAL)} f "  # noqa: S608
            f"WHERE {same} AND {row_index} BETWEEN %s AND %s"
        )
        values = [getattr(cell, name) for name in of_step]
        return [ReviewedCell(*row) for row in sql.rows(query, *values, cell.row_index - rows, cell.row_index + rows)]


def reviewer_of(store: ReviewStore, cell: ReviewedCell, *, sampled: bool) -> str | None:
    """Who gave the cell, with this very value, its last verdict; None where it has none, or that was taken back.

    Args:
        store: The reviews.
        cell: As it was extracted.
        sampled: Whether only verdicts count that were given in a sample.
    """
    with store.sql() as sql:
        reviewed = {name: getattr(cell, name) for name in CELL_COLUMNS if name != "confidence"}
        where = " AND ".join(
            f"{sql.columns(name)} {'IS NULL' if value is None else '= %s'}" for name, value in reviewed.items()
        )
        query = (
            f"SELECT {sql.columns('verdict', 'reviewer', 'sampled')} FROM {sql.table(REVIEWS.name)} WHERE {where} "  # noqa: S608
            f"ORDER BY {sql.columns('reviewed_at')} DESC, {sql.columns('review_id')} DESC"
        )
        found = list(sql.rows(query, *(value for value in reviewed.values() if value is not None)))
    if not found or found[0][0] == WITHDRAWN or (sampled and not any(row[2] for row in found)):
        return None
    return str(found[0][1])
