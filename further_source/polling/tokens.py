"""Which token requests are sent with, and when to ask for another."""

import math

from further_source.exceptions import CredentialsError
from further_source.polling.backoff import Backoff, Chance
from further_source.polling.outcomes import Failure, Outcome, Token, TokenOutcome, Unauthorized
from further_source.settings import MAX_FAILURES_IN_A_ROW, PollingSettings

__all__ = ["Tokens"]


class Tokens:
    """The token of a run. Times are seconds on the run's clock.

    A 401 is held against the token that was sent: another one is asked for. Only if that one is refused too, before
    any request was accepted with it, are the credentials no good.

    Args:
        token: The token to begin with, or None where one must be asked for.
        renewable: Whether a token can be asked for at all.
        now: When the run begins.

    Attributes:
        ask_at: When a token may be asked for: not sooner, for the last request failed.
        error: Why the last request for a token failed, None since a token came.
        given_up: The error after which it made no sense to go on, None before that.
    """

    def __init__(
        self, token: Token | None, settings: PollingSettings, *, renewable: bool, now: float, chance: Chance
    ) -> None:
        self._token = token
        self._renewable = renewable
        self._used = False
        self._requested = False
        self._failures = 0
        # A token endpoint that is out is part of an outage, if these are sat out.
        self._max_failures = math.inf if settings.outage_patience else MAX_FAILURES_IN_A_ROW
        self._backoff = Backoff(settings, chance)
        self._refused = False  # a 401 came, and no token since
        self._renewed_at: float | None = None  # when the first token after the last such 401 came
        self._accepted_at: float | None = None  # when a request sent since then first turned out to be accepted
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
        """Whether another token is to be asked for, and has not been yet."""
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
            self.ask_at = now + self._backoff.lengthen()
            if self._failures >= self._max_failures and not self.is_usable(now):
                self.given_up = outcome.error
        else:
            self.ask_at = now + self._backoff.interval  # 429 may say that no pause is needed

    def accepted(self, sent_at: float, now: float) -> None:
        """Takes an answer that came now and shows that the token was accepted."""
        if self._renewed_at is not None and self._renewed_at <= sent_at and self._accepted_at is None:
            self._accepted_at = now

    def refused(self, token: Token | None, outcome: Unauthorized, sent_at: float) -> None:
        """Takes a 401 for a request that was sent with `token`.

        Raises:
            CredentialsError: The token cannot be renewed, or was obtained after a 401 and has not been accepted once.
        """
        renewed = self._renewed_at is not None and self._renewed_at <= sent_at
        # What counts is what was known when the request was sent: a slow 401 may come after others' answers, and
        # an execution that gets nothing but 401 would have a token renewed again and again.
        accepted = self._accepted_at is not None and self._accepted_at <= sent_at
        if not self._renewable or (renewed and not accepted):
            raise CredentialsError(outcome.error)
        if renewed or self._renewed_at is None:
            self._refused = True
        if self._token is token:
            self._token = None
