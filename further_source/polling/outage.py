"""Whether the API as a whole is out, as opposed to one execution that cannot be had."""

import math
from collections.abc import Hashable

from further_source.polling.backoff import Backoff, Chance
from further_source.settings import OUTAGE_WITNESSES, PollingSettings

__all__ = ["Outage"]


class Outage:
    """Decides whether the API as a whole is out. Times are seconds on the run's clock.

    The API is out when three executions have failed and nothing was answered in between; where fewer are left, when
    all of these have failed. An execution that failed while others were answered does not count until it is answered
    itself: the trouble is its own. Without a token nothing can be asked, so one failed request for a token is enough.

    While the API is out, one request at a time asks whether it is back, after waits that grow. Any answer about an
    execution ends the outage. A 429, a 401, a token or an unreadable answer neither begins nor ends it.

    Attributes:
        reason: The latest error while the API is out, else None.
        ends_at: When the patience is over while the API is out, else infinite.
        probe_at: While the API is out, when the next request may be sent.
        given_up: The latest error once the patience is over, None before that and after an answer.
    """

    def __init__(self, settings: PollingSettings, chance: Chance) -> None:
        self._patience = settings.outage_patience
        self._backoff = Backoff(settings, chance)
        self._began_at = -math.inf
        self._answered_at = -math.inf
        self._witnesses: set[Hashable] = set()  # have failed, and nothing was answered since
        self._troubled: set[Hashable] = set()  # have failed, and others were answered meanwhile
        self.reason: str | None = None
        self.ends_at = math.inf
        self.probe_at = -math.inf
        self.given_up: str | None = None

    @property
    def is_on(self) -> bool:
        return self.reason is not None

    def failed(self, execution: Hashable, error: str, *, sent_at: float, now: float, left: int) -> None:
        """Takes a failed request for an execution; `left` is how many have not ended, this one included."""
        if execution not in self._troubled:
            (self._troubled if sent_at < self._answered_at else self._witnesses).add(execution)
        enough = min(OUTAGE_WITNESSES, left - len(self._troubled))
        if self.is_on or len(self._witnesses) >= max(enough, 1):
            self._fail(error, sent_at, now)

    def token_failed(self, error: str, *, sent_at: float, now: float) -> None:
        """Takes a failed request for a token at a time when there is none that could be used."""
        self._fail(error, sent_at, now)

    def said_nothing(self, now: float) -> None:
        """Takes an outcome that neither begins nor ends an outage."""
        if now >= self.ends_at:
            self.given_up = self.reason

    def answered(self, execution: Hashable, now: float) -> None:
        """Takes an answer about an execution, which shows that the API is there."""
        self._answered_at = now
        self._troubled |= self._witnesses
        self._witnesses.clear()
        self._troubled.discard(execution)
        self.reason, self.given_up = None, None
        self.ends_at, self.probe_at = math.inf, -math.inf

    def ended(self, execution: Hashable) -> None:
        """The execution is not asked any more."""
        self._witnesses.discard(execution)
        self._troubled.discard(execution)

    def _fail(self, error: str, sent_at: float, now: float) -> None:
        if not self._patience:
            return
        begins = not self.is_on
        if begins:
            self._began_at, self.ends_at = now, now + self._patience
            self._backoff.restart()
        if begins or sent_at >= self._began_at:  # a request that was under way when it began does not ask for its end
            self.probe_at = now + self._backoff.next_wait()
        self.reason = error
        self.said_nothing(now)
