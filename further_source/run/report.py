"""How a run went, as its caller is told."""

from collections import Counter
from dataclasses import dataclass, field

from further_source.executions import ExecutionId
from further_source.polling.poll import PollState

__all__ = ["NotCompleted", "Report"]


@dataclass(frozen=True)
class NotCompleted:
    """One execution that ended otherwise than `completed` or `running`, and the error of its row."""

    execution: ExecutionId
    poll_outcome: str
    poll_error: str | None


@dataclass
class Report:
    """How a run went.

    Attributes:
        listed: How many executions are listed, or were delivered without being listed.
        ended: Those that ended in this run, by `poll_outcome`.
        earlier: Those that are not asked, because they were loaded before, by `poll_outcome`.
        kept: Those that `reload` asked again and that gave no new ending, by the `poll_outcome` they keep.
        forgotten: How many are not asked, because they were forgotten.
        unreachable: How many of `ended` and `kept` were unreachable when they were asked.
        unreachable_error: The error of the last of these.
        not_completed: The first few of `ended` that did not complete, of each outcome.
        rows: Records by table.
        deliveries: Of an inbox: deliveries that were `delivered`, how many of these were `doubled` (of an execution
            loaded or delivered before), documents that were `quarantined`, and executions that were `reconciled` (ended
            by the API's answer, because no delivery had settled them), `never_delivered` (listed, and no delivery came
            in time) or `awaited` (listed, and a delivery may still come).
        loaded: How many of `ended` are in the destination.
        loaded_at: Since when the last of these are, in seconds since 1970.
        polling: How polling stands; changes at any time until polling is over.
    """

    listed: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    earlier: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    forgotten: int = 0
    unreachable: int = 0
    unreachable_error: str | None = None
    not_completed: list[NotCompleted] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)
    loaded: int = 0
    loaded_at: float | None = None
    polling: PollState = field(default_factory=PollState)

    @property
    def asked(self) -> int:
        """How many have ended, in whatever way."""
        return self.ended.total() + self.kept.total()

    @property
    def remaining(self) -> int:
        return self.to_ask - self.asked

    @property
    def to_ask(self) -> int:
        """How many this run asks."""
        return self.listed - self.earlier.total() - self.forgotten

    @property
    def all_completed(self) -> bool:
        """Whether every listed execution's `poll_outcome`, loaded now or earlier, is `completed`.

        One that was forgotten has none, and is as it should be.
        """
        found = self.ended + self.earlier + self.kept
        return found["completed"] == self.listed - self.forgotten

    @property
    def nothing_reached(self) -> bool:
        """Whether executions were asked, and every one of them was unreachable."""
        return 0 < self.asked == self.unreachable
