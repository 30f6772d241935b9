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
    """How a run went: executions by `poll_outcome`, and records by table.

    `ended` are those loaded in this run, `earlier` those not asked because they were loaded before, `kept` those
    asked again by `reload` that gave no new ending, with the outcome they keep. `unreachable_error` is the error
    of the last one that was unreachable. `not_completed` are the first few of `ended` that did not complete, of each
    outcome. `loaded` of `ended` are in the destination, the last since `loaded_at` (seconds since the epoch). `polling`
    is how polling stands, and changes at any time until it is over. `forgotten` are never asked. `listed` are the
    listed ones, and those that were delivered without being listed.

    Of an inbox `deliveries` counts what was `delivered`, how many of these were `doubled` (of an execution that was
    loaded or delivered before), documents that were `quarantined`, and executions: `reconciled` are those that ended by
    the API's answer because no delivery had settled them, `never_delivered` the listed ones that no delivery came for
    in time, `awaited` those for which one may still come.
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
