"""Whether the API as a whole is out, as opposed to one execution that cannot be had."""

import math
from collections.abc import Hashable

from further_source.polling.backoff import Backoff, Chance
from further_source.settings import OUTAGE_WITNESSES, PollingSettings

__all__ = ["Outage"]


class Outage:
    """Nothing is answered any more, or everything is well. Times are seconds on the run's clock.

    The API is out once three executions have failed, or all that are left if these are fewer, and nothing was
    answered in between. An execution that fails while others are answered is no witness: it is that execution's own
    trouble, until it is answered. Nor can anything be had without a token.

    While the API is out, one request at a time asks whether it is back. Whatever answers about an execution ends the
    outage. 429, 401, a token, and an answer that nobody can read neither begin nor end one.

    Attributes:
        reason: The latest error, None as long as the API is not out.
        ends_at: When the patience is over, infinite as long as the API is not out.
        probe_at: When the next request may be sent while the API is out.
        given_up: The error after which it made no sense to go on, None before that.
    """

    def __init__(self, settings: PollingSettings, chance: Chance) -> None:
        self._patience = settings.outage_patience
        self._backoff = Backoff(settings, chance)
        self._began_at = -math.inf
        self._answered_at = -math.inf
        self._witnesses: set[Hashable] = set()  # have failed since anything was answered
        self._troubled: set[Hashable] = set()  # have failed while others were answered
        self.reason: str | None = None
        self.ends_at = math.inf
        self.probe_at = -math.inf
        self.given_up: str | None = None

    @property
    def is_on(self) -> bool:
        return self.reason is not None

    def failed(self, execution: Hashable, error: str, *, sent_at: float, now: float, left: int) -> None:
        """Takes a failed request for an execution; `left` are those that have not ended, this one too."""
        if execution not in self._troubled:
            (self._troubled if sent_at <= self._answered_at else self._witnesses).add(execution)
        enough = min(OUTAGE_WITNESSES, left - len(self._troubled))
        if self.is_on or len(self._witnesses) >= max(enough, 1):
            self._go_on(error, sent_at, now)

    def token_failed(self, error: str, *, sent_at: float, now: float) -> None:
        """Takes a failed request for a token, where there is none that could be used."""
        self._go_on(error, sent_at, now)

    def said_nothing(self, now: float) -> None:
        """Takes what neither begins nor ends an outage."""
        if now >= self.ends_at:
            self.given_up = self.reason

    def answered(self, execution: Hashable, now: float) -> None:
        """Takes an answer about an execution, which shows that the API is there."""
        self._answered_at = now
        self._troubled |= self._witnesses
        self._witnesses.clear()
        self._troubled.discard(execution)
        self.reason, self.ends_at, self.probe_at = None, math.inf, -math.inf

    def ended(self, execution: Hashable) -> None:
        """The execution is not asked any more."""
        self._witnesses.discard(execution)
        self._troubled.discard(execution)

    def _go_on(self, error: str, sent_at: float, now: float) -> None:
        if not self._patience:
            return
        if not self.is_on:
            self._began_at, self.ends_at = now, now + self._patience
            self._backoff.restart()
        if sent_at >= self._began_at or not self.is_on:  # what was under way when it began is no probe
            self.probe_at = now + self._backoff.lengthen()
        self.reason = error
        self.said_nothing(now)
