"""A cell as a reviewer sees it, and the token by which a verdict finds the way back to it.

A token names the cell *and* the value that was shown. Whatever a spreadsheet makes of ids, long numbers and dates, the
token is still there to tell which cell of the destination is meant, and that the value in it is the one that was seen.
"""

import hashlib
import json
import re
import secrets
from dataclasses import dataclass

__all__ = ["CELL_COLUMNS", "ReviewedCell", "Token", "new_queue"]

CELL_COLUMNS = (
    "workflow_id",
    "workflow_execution_id",
    "step_index",
    "step_name",
    "row_index",
    "field",
    "occurrence",
    "value",
    "value_type",
    "confidence",
)
"""The columns of `cells_final` and of `reviews` that a `ReviewedCell` has, in its order."""

_TOKEN = re.compile(r"([qs])([0-9a-f]{8})-([0-9a-f]{32})")


@dataclass(frozen=True)
class ReviewedCell:
    """A cell with the value that the API gave.

    `occurrence` is 1, or which cell of its key in its row it is. `confidence` is from 0 to 1, or None.
    """

    workflow_id: str
    workflow_execution_id: str
    step_index: int
    step_name: str | None
    row_index: int
    field: str
    occurrence: int
    value: str | None
    value_type: str
    confidence: float | None

    @property
    def fingerprint(self) -> str:
        """32 hex digits that stand for the cell's key and its value; its confidence is not in it."""
        named = [getattr(self, name) for name in CELL_COLUMNS[:-1]]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Token:
    """A cell in a queue.

    Attributes:
        queue: 8 hex digits of the export; the same cell in another export is another question.
        fingerprint: That of the cell.
        sampled: Whether the queue is a sample over all confidences, from which errors may be reckoned.
    """

    queue: str
    fingerprint: str
    sampled: bool = False

    def __str__(self) -> str:
        # The letter first, so that no spreadsheet takes it for a number.
        return f"{'s' if self.sampled else 'q'}{self.queue}-{self.fingerprint}"

    @classmethod
    def parse(cls, text: str) -> "Token | None":
        match = _TOKEN.fullmatch(text.strip())
        return cls(match[2], match[3], match[1] == "s") if match else None


def new_queue() -> str:
    """The name of a new queue."""
    return secrets.token_hex(4)
