"""How polling stands, for whoever shows its progress."""

from dataclasses import dataclass

__all__ = ["PollState"]


@dataclass(frozen=True, slots=True)
class PollState:
    """How polling stands at a moment. Moments are seconds on the run's clock.

    Attributes:
        asked: Executions that have been asked at least once.
        waiting: Those of them that have not ended.
        retried: Those of them whose last request failed.
        retry_reason: The latest error of those, or of a request for a token; None where nothing is tried again.
        paused_until: When the pause is over that a 429 asked for, None where there is none.
        pause_reason: The text of that 429.
        outage_reason: The latest error, where the API as a whole is out; else None.
        outage_ends_at: When an outage has been sat out long enough, None where there is none.
    """

    asked: int = 0
    waiting: int = 0
    retried: int = 0
    retry_reason: str | None = None
    paused_until: float | None = None
    pause_reason: str | None = None
    outage_reason: str | None = None
    outage_ends_at: float | None = None
