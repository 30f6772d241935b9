"""Which token requests are sent with, and when to ask for another."""

import math

from further_source.exceptions import CredentialsError
from further_source.polling.backoff import Backoff, Chance
from further_source.polling.outcomes import Failure, Outcome, Token, TokenOutcome, Unauthorized
from further_source.settings import MAX_FAILURES_IN_A_ROW, PollingSettings

__all__ = ["Tokens"]


class Tokens:
    """The token of a run. Times are seconds on the run's clock.

    A 401 is held against the token that was sent, and another token is asked for. Only when that one too is refused,
    before any request was accepted with it, are the credentials refused.

    Args:
        token: The token to begin with, or None where one must be asked for.
        renewable: Whether a token can be asked for at all.
        now: When the run begins.

    Attributes:
        ask_at: When a token may be asked for again after a failure.
        error: Why the latest request for a token failed; None once a token has come.
        given_up: The latest error once too many were in a row, None before that.
    """

    def __init__(
        self, token: Token | None, settings: PollingSettings, *, renewable: bool, now: float, chance: Chance
    ) -> None:
        self._token = token
        self._renewable = renewable
        self._used = False
        self._requested = False
        self._failures = 0
        # Where outages are sat out, a token endpoint that is out is one.
        self._max_failures = math.inf if settings.outage_patience else MAX_FAILURES_IN_A_ROW
        self._backoff = Backoff(settings, chance)
        self._refused = False  # whether a token was refused, and no other one has come since
        self._renewed_at: float | None = None  # when that other one came
        self._accepted_at: float | None = None  # when it was known that a request sent since then had been accepted
        self.ask_at = now
        self.error: str | None = None
        self.given_up: str | None = None

    def is_usable(self, now: float) -> bool:
        """Whether there is a token to send requests with."""
        if self._token is None:
            return False
        # A token is used at least once, however short its life: else a run could renew and never ask.
        return not self._used or self._token.expires_at is None or now < self._token.expires_at

    def is_due(self, now: float) -> bool:
        """Whether another token has to be asked for, and has not been asked for yet."""
        if not self._renewable or self._requested:
            return False
        if self._token is None or not self.is_usable(now):
            return True
        return self._used and self._token.renew_at is not None and now >= self._token.renew_at

    def take(self) -> Token | None:
        """The token for a request that is sent now."""
        self._used = True
        return self._token

    def requested(self) -> None:
        """Another token is asked for now."""
        self._requested = True

    def record(self, outcome: Outcome | TokenOutcome, now: float) -> None:
        """Takes what the request for a token came to.

        Raises:
            CredentialsError: The credentials are refused.
        """
        self._requested = False
        if isinstance(outcome, Token):
            self._token = outcome
            self._used = False
            self._failures = 0
            self.error = None
            self._backoff.restart()
            if self._refused:
                self._refused, self._renewed_at, self._accepted_at = False, now, None
        elif isinstance(outcome, Unauthorized):
            raise CredentialsError(outcome.error)
        elif isinstance(outcome, Failure):
            self._failures += 1
            self.error = outcome.error
            self.ask_at = now + self._backoff.next_wait()
            if self._failures >= self._max_failures and not self.is_usable(now):
                self.given_up = outcome.error
        else:
            self.ask_at = now + self._backoff.interval  # 429 may say that no pause is needed

    def accepted(self, sent_at: float, now: float) -> None:
        """Takes an answer that came now, and shows that the token of its request was accepted."""
        if self._renewed_at is not None and self._renewed_at <= sent_at and self._accepted_at is None:
            self._accepted_at = now

    def refused(self, token: Token | None, outcome: Unauthorized, sent_at: float) -> None:
        """Takes a 401 for a request that was sent with `token`.

        Raises:
            CredentialsError: The token cannot be renewed; or it came after a 401, and was not accepted before.
        """
        renewed = self._renewed_at is not None and self._renewed_at <= sent_at
        # What was known when the request was sent counts. If others' answers that came since then counted, an
        # execution that gets nothing but 401 could have tokens renewed for ever.
        accepted = self._accepted_at is not None and self._accepted_at <= sent_at
        if not self._renewable or (renewed and not accepted):
            raise CredentialsError(outcome.error)
        if renewed or self._renewed_at is None:
            self._refused = True
        if self._token is token:
            self._token = None
