"""A queue of cells of which each is handed out once, and the verdicts on them.

It is held in memory, and made anew by a restart from what has no review yet, so that a server that is killed loses
nothing but who had which cell. A verdict is in the destination before anybody is told so.
"""

import hashlib
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import chain, islice
from typing import NamedTuple

from further_source.review.cells import ReviewedCell
from further_source.review.importing import NO_VALUE, VERDICTS, review_record
from further_source.review.selecting import cells_around, reviewer_of
from further_source.review.store import ReviewStore
from further_source.review.views import WITHDRAWN
from further_source.tables.columns import REVIEWS

__all__ = ["Queue"]

_CLAIM_SECONDS = 900.0
_NEIGHBOURS = 2  # rows before and after


@dataclass
class _Claim:
    reviewer: str
    until: float


class _Done(NamedTuple):
    reviewer: str
    verdict: str
    corrected: str | None
    reason: str


@dataclass
class Queue:
    """Which cells are open, and who has which.

    Args:
        store: The reviews, prepared.
        cells: The queue, in the order in which it is handed out.
        sampled: Whether it is a sample over all confidences.
    """

    store: ReviewStore
    cells: Sequence[ReviewedCell]
    sampled: bool
    _places: dict[str, int] = field(default_factory=dict)
    _claims: dict[str, _Claim] = field(default_factory=dict)
    _done: dict[str, _Done] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._places = {cell.fingerprint: place for place, cell in enumerate(self.cells)}

    @property
    def left(self) -> int:
        """How many cells have no verdict."""
        return len(self.cells) - len(self._done) - len(self._gone)

    def take(self, reviewer: str, skipped: str = "") -> ReviewedCell | None:
        """The cell that the reviewer has, or the next that nobody has; after `skipped`, if there is any there.

        A cell that somebody has had for a quarter of an hour is open again.
        """
        with self._lock:
            now = time.monotonic()
            self._claims = {key: claim for key, claim in self._claims.items() if claim.until > now}
            if skipped and (claim := self._claims.get(skipped)) and claim.reviewer == reviewer:
                del self._claims[skipped]
            mine = [key for key, claim in self._claims.items() if claim.reviewer == reviewer]
            taken = mine[0] if mine else self._next_free(self._places.get(skipped, -1) + 1)
            if taken is None:
                return None
            self._claims[taken] = _Claim(reviewer, now + _CLAIM_SECONDS)
            return self.cells[self._places[taken]]

    def _next_free(self, start: int) -> str | None:
        """The first cell from that place on, and then from the beginning, that is open and nobody's."""
        fingerprints = list(self._places)
        turned = chain(islice(fingerprints, start, None), islice(fingerprints, start))
        taken = (self._done, self._claims, self._gone)
        return next((one for one in turned if not any(one in some for some in taken)), None)

    def save(self, reviewer: str, fingerprint: str, verdict: str, corrected: str, reason: str) -> str | None:
        """Stores a verdict; what is wrong with it, if anything is. By the return it is in the destination.

        Sent once more, it is stored once.
        """
        place = self._places.get(fingerprint)
        if place is None or verdict not in VERDICTS:
            return "no such cell or verdict"
        cell = self.cells[place]
        if verdict == "corrected" and (not corrected or corrected == cell.value):
            return f"write what the value should be, {NO_VALUE} for none"
        said = _Done(reviewer, verdict, corrected if verdict == "corrected" else None, reason)
        with self._lock:
            if (done := self._done.get(fingerprint)) is not None:
                if done == said:
                    return None  # its answer was lost on the way
                return f"{done.reviewer} has given it a verdict already"
            claim = self._claims.get(fingerprint)
            if claim and claim.reviewer != reviewer:
                return "somebody else has this cell"
            if (other := reviewer_of(self.store, cell, sampled=self.sampled)) is not None:
                self._take_off(cell)
                return f"{other} has given it a verdict already"
            self._append(cell, reviewer, verdict, said.corrected, reason)
            self._done[fingerprint] = said
            self._claims.pop(fingerprint, None)
        return None

    def undo(self, reviewer: str) -> ReviewedCell | None:
        """Takes back the reviewer's last verdict, and gives the cell again."""
        with self._lock:
            mine = (key for key, done in reversed(self._done.items()) if done.reviewer == reviewer)
            fingerprint = next(mine, None)
            if fingerprint is None:
                return None
            cell = self.cells[self._places[fingerprint]]
            self._append(cell, reviewer, WITHDRAWN, None, None)
            del self._done[fingerprint]
            for key in [key for key, claim in self._claims.items() if claim.reviewer == reviewer]:
                del self._claims[key]
            self._claims[fingerprint] = _Claim(reviewer, time.monotonic() + _CLAIM_SECONDS)
            return cell

    def _append(
        self, cell: ReviewedCell, reviewer: str, verdict: str, corrected: str | None, reason: str | None
    ) -> None:
        record = review_record(
            cell,
            verdict,
            corrected_value=corrected,
            reason=reason or None,
            reviewer=reviewer,
            reviewed_at=datetime.now(timezone.utc),
            review_id=hashlib.sha256(secrets.token_bytes(16)).hexdigest()[:32],
            sampled=self.sampled,
        )
        self.store.append(REVIEWS, [record])

    def rows_around(self, cell: ReviewedCell) -> list[list[ReviewedCell]] | None:
        """The cells of its row and of those before and after it, as they are now, row by row.

        None if the cell is not there any more, has another value, or got a verdict by another server or an import: then
        it is taken off the queue.
        """
        rows: dict[int, list[ReviewedCell]] = {}
        for one in cells_around(self.store, cell, _NEIGHBOURS):
            rows.setdefault(one.row_index, []).append(one)
        is_gone = all(one.fingerprint != cell.fingerprint for one in rows.get(cell.row_index, ()))
        if is_gone or reviewer_of(self.store, cell, sampled=self.sampled) is not None:
            with self._lock:
                self._take_off(cell)
            return None
        return [rows[index] for index in sorted(rows)]

    def _take_off(self, cell: ReviewedCell) -> None:
        if cell.fingerprint not in self._done:  # meanwhile, by this server
            self._gone.add(cell.fingerprint)
        self._claims.pop(cell.fingerprint, None)
