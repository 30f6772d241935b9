"""How fast requests may be sent: the rate budget, and the pauses that a 429 asks for."""

from further_source.polling.backoff import Backoff, Chance
from further_source.polling.outcomes import Throttled
from further_source.settings import (
    MAX_FAILURES_IN_A_ROW,
    MAX_JITTER,
    MAX_RETRY_AFTER,
    SHORT_RETRY_AFTERS_IN_A_ROW,
    PollingSettings,
)

__all__ = ["Throttle"]


class Throttle:
    """One rate budget for all requests of a run. Times are seconds on the run's clock.

    A pause is as long as the `Retry-After` says, or a little longer. Without one it is that of a `Backoff`, and after a
    few 429 in a row it is never shorter than that.

    Attributes:
        next_slot: When the budget allows the next request.
        paused_until: When the latest pause is over.
        reason: The text of the latest 429, None before the first.
        given_up: The text of the latest 429, once nothing else has come for long enough; None before that.
    """

    def __init__(self, settings: PollingSettings, now: float, chance: Chance) -> None:
        self._chance = chance
        self._max_wait = settings.max_wait
        self._spacing = 1 / settings.max_requests_per_second
        self.next_slot = now
        self.paused_until = now
        self.reason: str | None = None
        self.given_up: str | None = None
        self._in_a_row = 0
        self._first_sent_at = now
        self._last_at = now
        self._eased = True
        self._backoff = Backoff(settings, chance)
        self._wait = 0.0

    def sent(self, now: float) -> None:
        """Takes the slot of a request that is sent now."""
        self.next_slot = now + self._spacing

    def refused(self, outcome: Throttled, sent_at: float, now: float) -> None:
        """Takes a 429 that came now."""
        self.reason = outcome.error
        # A request that was under way when the last 429 came tells nothing new: its 429 does not count as another one.
        if sent_at >= self._last_at:
            if self._in_a_row == 0:
                self._first_sent_at = sent_at
            if self._eased:
                self._backoff.restart()
            self._eased = False
            self._wait = self._backoff.next_wait()
            self._in_a_row += 1
            self._last_at = now
        self.paused_until = max(self.paused_until, now + self._pause(outcome.retry_after))
        # A 429 is not counted against an execution, so an API that answers nothing else would never let a run end.
        waited = now - self._first_sent_at >= self._max_wait
        if self._in_a_row >= MAX_FAILURES_IN_A_ROW and waited:
            self.given_up = outcome.error

    def _pause(self, retry_after: float | None) -> float:
        if retry_after is None:
            return self._wait
        pause = min(max(retry_after, 0.0) * (1 + MAX_JITTER * self._chance()), MAX_RETRY_AFTER)
        if self._in_a_row <= SHORT_RETRY_AFTERS_IN_A_ROW:
            return pause
        return max(pause, self._wait)  # it did not help to ask again that soon

    def passed(self, sent_at: float) -> None:
        """Takes any other outcome of a request for an execution.

        Not that of a request for a token: where tokens are short-lived, 429 for ever would be interrupted by them.
        """
        self._in_a_row = 0
        self._eased = self._eased or sent_at >= self._last_at
