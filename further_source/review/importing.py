"""Verdicts that people filled into a file: checked row by row, then added to `reviews`, all of them or none."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

from further_source.exceptions import ConfigurationError
from further_source.executions import ExecutionId
from further_source.jsontext import storable_text
from further_source.review.cells import CELL_COLUMNS, ReviewedCell, Token
from further_source.review.files import FilledRow
from further_source.review.selecting import cells_of_executions
from further_source.review.store import ReviewStore
from further_source.tables.columns import REVIEWS

__all__ = ["VERDICTS", "Imported", "RowErrors", "import_reviews", "review_record"]

VERDICTS = ("correct", "corrected", "unreadable")
NO_VALUE = "<null>"
"""The corrected value of a cell that should have none."""
EMPTY_TEXT = "<empty>"
"""The corrected value of a cell that should have a text without characters."""

_IDS_AT_ONCE = 500


class RowErrors(ConfigurationError):
    """Rows that cannot be imported; nothing was.

    Attributes:
        lines: One for each fault, which names row and column.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(f"{len(lines)} faults, nothing is imported: {lines[0]}")
        self.lines = list(lines)


@dataclass(frozen=True)
class Imported:
    """How an import went.

    Attributes:
        added: Reviews that are new.
        known: Reviews that were imported before.
        left_open: Rows without a verdict.
        stale: Those of the added whose cell has another value by now; they are kept and never applied.
    """

    added: int
    known: int
    left_open: int
    stale: int


class _Checked(NamedTuple):
    row: FilledRow
    token: Token
    verdict: str


def import_reviews(store: ReviewStore, rows: Iterable[FilledRow], reviewer: str) -> Imported:
    """Adds the reviews of a file.

    The same row again, of the same queue, by the same reviewer and with the same verdict, changes nothing, whatever
    was imported in between.

    Args:
        store: The reviews, prepared.
        rows: Of `read_queue`.
        reviewer: Who filled in the rows that do not say so.

    Raises:
        RowErrors: Some cannot be imported.
    """
    rows = list(rows)
    problems: list[str] = []
    checked = [found for row in rows if (found := _checked(row, problems)) is not None]
    _find_repeated(checked, problems)
    cells = _cells(store, checked, problems)
    now = datetime.now(timezone.utc)
    records = {}
    for row, token, verdict in checked:
        cell = cells.get(token.fingerprint)
        if cell is None:
            continue
        by = row.texts.get("reviewer", "").strip() or reviewer
        record = _record(cell.cell, token, verdict, row, by, now, problems)
        records[record["review_id"]] = (record, cell.is_current)
    if problems:
        raise RowErrors(problems)
    known = _known(store, list(records))
    new = [(record, is_current) for review_id, (record, is_current) in records.items() if review_id not in known]
    store.append(REVIEWS, [record for record, _ in new])
    left_open = len(rows) - len(checked)
    return Imported(len(new), len(checked) - len(new), left_open, sum(not is_current for _, is_current in new))


def _checked(row: FilledRow, problems: list[str]) -> _Checked | None:
    """The row, if it has a verdict."""
    verdict, corrected = row.texts.get("verdict", "").strip().lower(), row.texts.get("corrected_value", "")
    token = Token.parse(row.texts.get("cell", ""))
    found = dict(row.problems)
    if not verdict and corrected:
        found.setdefault("verdict", "is empty, and corrected_value is not")
    elif verdict and verdict not in VERDICTS:
        found.setdefault("verdict", f"{verdict!r} is none of {', '.join(VERDICTS)}")
    elif verdict == "corrected" and not corrected:
        found.setdefault(
            "corrected_value", f"is empty; write {NO_VALUE} for no value, {EMPTY_TEXT} for a text without characters"
        )
    elif verdict not in ("", "corrected") and corrected:
        found.setdefault("corrected_value", f"has a value, and the verdict is {verdict}")
    if token is None and (verdict or found):
        found.setdefault("cell", f"{row.texts.get('cell', '')[:60]!r} is no cell of a queue; leave it as it is")
    problems += [f"{row.place}, column {column}: {problem}" for column, problem in found.items()]
    return _Checked(row, token, verdict) if token is not None and verdict and not found else None


def _find_repeated(checked: Sequence[_Checked], problems: list[str]) -> None:
    first: dict[Any, str] = {}
    for row, token, _ in checked:
        key = (token, row.reviewed_at, row.texts.get("reviewer"))
        if key in first:
            problems.append(f"{row.place}, column cell: is the same as in {first[key]}")
        first.setdefault(key, row.place)


class _Found(NamedTuple):
    cell: ReviewedCell
    is_current: bool


def _cells(store: ReviewStore, checked: Sequence[_Checked], problems: list[str]) -> dict[str, _Found]:
    """The cells that are meant, by fingerprint: as loaded, or as the file has them where they have changed since."""
    wanted = {token.fingerprint for _, token, _ in checked}
    ids = sorted({row.texts.get("workflow_execution_id", "") for row, _, _ in checked})
    loaded = (cell for cell in cells_of_executions(store, ids))
    found = {key: _Found(cell, True) for cell in loaded if (key := cell.fingerprint) in wanted}
    for row, token, _ in checked:
        if token.fingerprint in found:
            continue
        read = (_cell_of_file(row.texts, no_name) for no_name in (None, ""))
        cell = next((one for one in read if one and one.fingerprint == token.fingerprint), None)
        if cell is None:
            problems.append(
                f"{row.place}, column cell: no loaded cell has this value any more, and the row is not as it was "
                "exported, so it is not known what was reviewed; export it again"
            )
        else:
            found[token.fingerprint] = _Found(cell, False)
    return found


def _cell_of_file(texts: Mapping[str, str], no_name: str | None) -> ReviewedCell | None:
    """The cell as the file has it, which does not tell a step without a name from one with an empty name."""
    value_type = texts.get("value_type", "")
    value = None if value_type == "null" else texts.get("value", "")
    confidence = texts.get("confidence", "")
    try:
        return ReviewedCell(
            *ExecutionId(texts["workflow_id"], texts["workflow_execution_id"]),
            int(texts["step_index"]),
            texts["step_name"] or no_name,
            int(texts["row_index"]),
            texts["field"],
            int(texts["occurrence"]),
            value,
            value_type,
            float(confidence) if confidence else None,
        )
    except (KeyError, ValueError):
        return None


def _record(
    cell: ReviewedCell,
    token: Token,
    verdict: str,
    row: FilledRow,
    reviewer: str,
    now: datetime,
    problems: list[str],
) -> dict[str, Any]:
    corrected = row.texts.get("corrected_value", "") if verdict == "corrected" else None
    if corrected is not None and _meant(corrected) == (cell.value,) and cell.value_type != "null":
        problems.append(f"{row.place}, column corrected_value: is what was extracted; then the verdict is correct")
    said = [token.queue, cell.fingerprint, verdict, corrected, reviewer, row.texts.get("reason", "")]
    review_id = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]
    return review_record(
        cell,
        verdict,
        corrected_value=corrected,
        reason=row.texts.get("reason", "") or None,
        reviewer=reviewer,
        reviewed_at=row.reviewed_at or now,
        review_id=review_id,
        sampled=token.sampled,
    )


def _meant(corrected: str) -> tuple[str | None]:
    return (None,) if corrected == NO_VALUE else ("",) if corrected == EMPTY_TEXT else (corrected,)


def review_record(
    cell: ReviewedCell,
    verdict: str,
    *,
    corrected_value: str | None,
    reason: str | None,
    reviewer: str,
    reviewed_at: datetime,
    review_id: str,
    sampled: bool,
) -> dict[str, Any]:
    """A record of `reviews`.

    A corrected value is of the type that the reviewed one had where it can be read so, else a string. `<null>` is no
    value, `<empty>` a text without characters.
    """
    value, value_type, number = None, None, None
    if verdict == "corrected" and corrected_value is not None:
        (value,) = _meant(storable_text(corrected_value))
        value_type, number = _typed(value, cell.value_type)
    return {
        "review_id": review_id,
        **{name: getattr(cell, name) for name in CELL_COLUMNS},
        "verdict": verdict,
        "corrected_value": value,
        "corrected_value_type": value_type,
        "corrected_value_number": number,
        "reviewer": storable_text(reviewer),
        "reviewed_at": reviewed_at,
        "reason": reason if reason is None else storable_text(reason),
        "sampled": sampled,
    }


def _typed(value: str | None, value_type: str) -> tuple[str, float | None]:
    if value is None:
        return "null", None
    kinds = {"number": (int, float), "boolean": bool, "array": list, "object": dict}
    if value_type not in kinds:
        return "string", None
    try:
        read = json.loads(value)
    except ValueError:
        return "string", None
    if not isinstance(read, kinds[value_type]) or (value_type == "number" and isinstance(read, bool)):  # type: ignore[arg-type]
        return "string", None
    if value_type != "number":
        return value_type, None
    number = float(read)
    return ("number", number) if math.isfinite(number) else ("string", None)


def _known(store: ReviewStore, review_ids: Sequence[str]) -> set[str]:
    known: set[str] = set()
    for start in range(0, len(review_ids), _IDS_AT_ONCE):
        some = review_ids[start : start + _IDS_AT_ONCE]
        places = ", ".join(["%s"] * len(some))
        query = f"SELECT review_id FROM {{reviews}} WHERE review_id IN ({places})"  # noqa: S608
        known.update(row[0] for row in store.rows(query, *some))
    return known
