"""How polling stands, for whoever shows its progress."""

from dataclasses import dataclass

__all__ = ["PollState"]


@dataclass(frozen=True, slots=True)
class PollState:
    """How polling stands. Times are seconds on the run's clock.

    Attributes:
        asked: How many executions have been asked.
        waiting: How many of these have not ended.
        retried: How many of these have failed since they were last answered.
        retry_reason: The latest of their errors, or that of the last request for a token; None where none failed.
        paused_until: While requests are paused because of a 429, when the pause is over; else None.
        pause_reason: The text of that 429.
        outage_reason: While the API as a whole is out, the latest error; else None.
        outage_ends_at: While the API as a whole is out, when the patience is over; else None.
    """

    asked: int = 0
    waiting: int = 0
    retried: int = 0
    retry_reason: str | None = None
    paused_until: float | None = None
    pause_reason: str | None = None
    outage_reason: str | None = None
    outage_ends_at: float | None = None
