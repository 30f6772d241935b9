"""Which request to send next and when, and how an execution ended."""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from further_source.executions import ExecutionId
from further_source.polling.backoff import Chance, jittered, next_interval
from further_source.polling.outage import Outage
from further_source.polling.outcomes import (
    Answered,
    Failure,
    Outcome,
    Refused,
    Throttled,
    Token,
    TokenOutcome,
    Unauthorized,
)
from further_source.polling.state import PollState
from further_source.polling.throttle import Throttle
from further_source.polling.tokens import Tokens
from further_source.settings import MAX_FAILURES_IN_A_ROW, MAX_UNREADABLE_IN_A_ROW, PollingSettings

__all__ = ["Ended", "Request", "Schedule"]

_WEIGHT_WITHOUT_ANSWER = 500  # bytes, roughly


@dataclass(frozen=True, slots=True)
class Ended:
    """How polling of one execution ended; becomes its row of `executions`.

    `status` and `payload` are of the last readable answer, None if there was none. `size` is that answer's in
    bytes. `poll_first_at` and `poll_last_at` are when its first and last request were sent, None without any.
    """

    execution: ExecutionId
    poll_outcome: str
    status: str | None
    payload: dict[str, Any] | None
    poll_error: str | None
    poll_count: int
    poll_first_at: datetime | None
    poll_last_at: datetime | None
    size: int

    @property
    def weight(self) -> int:
        """About what it takes in memory, in bytes: for what was never answered takes some too."""
        return self.size or _WEIGHT_WITHOUT_ANSWER


@dataclass(slots=True, eq=False)
class _Watch:
    """One execution that has been asked and has not ended. Times are seconds on the run's clock."""

    execution: ExecutionId
    interval: float
    poll_count: int = 0
    first_sent_at: float | None = None
    last_sent_at: float | None = None
    first_answer_at: float | None = None
    answer: Answered | None = None
    failures: int = 0
    error: str | None = None  # where the last request failed
    unreadable: str | None = None
    unreadable_in_a_row: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request to send now: of an execution, or of a token where `watch` is None."""

    watch: _Watch | None
    token: Token | None
    sent_at: float


class Schedule:
    """The whole decision: told the time and the outcomes, it says what to send and how long to wait.

    Args:
        executions: What to ask, in list order; each listed once.
        now: Seconds on a monotonic clock; `wall` is the same moment as a time of day.
        token: The token to begin with, or None where one must be asked for.
        renewable: Whether a token can be asked for at all.
        chance: Makes the jitter of waits after failures.
        on_unknown_status: Told once about each status that is neither `running` nor terminal.
    """

    def __init__(
        self,
        executions: Sequence[ExecutionId],
        settings: PollingSettings,
        *,
        now: float,
        wall: datetime,
        token: Token | None,
        renewable: bool,
        chance: Chance,
        on_unknown_status: Callable[[ExecutionId, str], None] = lambda execution, status: None,
    ) -> None:
        self._executions = executions
        self._settings = settings
        self._start = now
        self._wall = wall
        self._chance = chance
        self._on_unknown_status = on_unknown_status
        self._known_statuses = {"running", *settings.terminal_statuses}
        self._tokens = Tokens(token, settings, renewable=renewable, now=now, chance=chance)
        self._throttle = Throttle(settings, now, chance)
        self._outage = Outage(settings, chance)
        self._in_flight = 0
        self._next_first = 0
        self._waiting: list[tuple[float, int, _Watch]] = []
        self._pushed = 0
        self._unended = len(executions)
        self._asked = 0
        self._asked_and_unended = 0
        self._retried = 0
        self._retry_reason: str | None = None

    @property
    def finished(self) -> bool:
        return self._unended == 0

    def state(self, now: float) -> PollState:
        """How polling stands."""
        paused = now < self._throttle.paused_until
        return PollState(
            asked=self._asked,
            waiting=self._asked_and_unended,
            retried=self._retried,
            retry_reason=self._tokens.error or (self._retry_reason if self._retried else None),
            paused_until=self._throttle.paused_until if paused else None,
            pause_reason=self._throttle.reason if paused else None,
            outage_reason=self._outage.reason,
            outage_ends_at=self._outage.ends_at if self._outage.is_on else None,
        )

    # What to do next

    def next(self, now: float) -> Request | float:
        """The request to send now, or the seconds until there may be one (infinite: when an answer comes)."""
        if now < self._throttle.paused_until:
            return self._throttle.paused_until - now
        if self._in_flight >= (1 if self._outage.is_on else self._settings.max_workers):
            return math.inf
        due = max(self._next_due(), self._outage.probe_at)
        if due > now:
            return due - now
        asks_for_token = self._tokens.is_due(now) and now >= self._tokens.ask_at
        if not asks_for_token and not self._tokens.is_usable(now):
            return self._tokens.ask_at - now if self._tokens.is_due(now) else math.inf
        if now < self._throttle.next_slot:
            return self._throttle.next_slot - now
        return self._send_token_request(now) if asks_for_token else self._send(self._take(), now)

    def _next_due(self) -> float:
        due = self._waiting[0][0] if self._waiting else math.inf
        if self._next_first < len(self._executions):
            due = min(due, self._first_due())
        return due

    def _first_due(self) -> float:
        # First polls are due as fast as the budget allows and no faster: so they share it fairly with later ones.
        return self._start + self._next_first / self._settings.max_requests_per_second

    def _take(self) -> _Watch:
        if self._next_first < len(self._executions) and (not self._waiting or self._first_due() <= self._waiting[0][0]):
            execution = self._executions[self._next_first]
            self._next_first += 1
            return _Watch(execution, self._settings.initial_interval)
        return heapq.heappop(self._waiting)[2]

    def _send_token_request(self, now: float) -> Request:
        self._throttle.sent(now)
        self._in_flight += 1
        self._tokens.requested()
        return Request(None, None, now)

    def _send(self, watch: _Watch, now: float) -> Request:
        self._throttle.sent(now)
        self._in_flight += 1
        watch.poll_count += 1
        watch.last_sent_at = now
        if watch.first_sent_at is None:
            watch.first_sent_at = now
            self._asked += 1
            self._asked_and_unended += 1
        return Request(watch, self._tokens.take(), now)

    # What came of it

    def record(self, request: Request, outcome: Outcome | TokenOutcome, now: float) -> Ended | None:
        """Takes the outcome of a request that arrived at `now`; returns the execution's end, if this was it.

        Raises:
            CredentialsError: 401 for a token that was obtained after a 401 and never accepted, 401 for a token that
                cannot be renewed, or a token endpoint that refuses the credentials.
        """
        self._in_flight -= 1
        if isinstance(outcome, Throttled):
            self._throttle.refused(outcome, request.sent_at, now)
        elif request.watch is not None:
            self._throttle.passed(request.sent_at)
        if request.watch is None:
            self._record_token(request, outcome, now)
            return None
        return self._record_execution(request, request.watch, outcome, now)

    def _record_token(self, request: Request, outcome: Outcome | TokenOutcome, now: float) -> None:
        self._tokens.record(outcome, now)
        if isinstance(outcome, Failure) and not self._tokens.is_usable(now):
            self._outage.token_failed(outcome.error, sent_at=request.sent_at, now=now)
        else:
            self._outage.said_nothing(now)

    def _record_execution(
        self, request: Request, watch: _Watch, outcome: Outcome | TokenOutcome, now: float
    ) -> Ended | None:
        if isinstance(outcome, Failure):
            return self._failed(request, watch, outcome, now)
        if isinstance(outcome, Answered | Refused):
            self._tokens.accepted(request.sent_at, now)
            self._outage.answered(watch, now)
            self._note_error(watch, None)
        else:
            self._outage.said_nothing(now)
        if isinstance(outcome, Answered):
            return self._answered(watch, outcome, now)
        if isinstance(outcome, Refused):
            return self._end(watch, outcome.poll_outcome, outcome.error)
        if isinstance(outcome, Unauthorized):
            self._tokens.refused(request.token, outcome, request.sent_at)
            self._push(watch, -math.inf)  # asked before all others: one request tells whether the next token is good
            return None
        # 429 speaks of all of us: it neither counts as a failure nor lengthens the execution's own interval.
        return self._ask_again(watch, now, watch.interval, lengthen=False, may_end=not self._outage.is_on)

    def _failed(self, request: Request, watch: _Watch, failure: Failure, now: float) -> Ended | None:
        self._note_error(watch, failure.error)
        same = failure.unreadable is not None and failure.unreadable == watch.unreadable
        watch.unreadable = failure.unreadable
        watch.unreadable_in_a_row = watch.unreadable_in_a_row + 1 if same else 1
        was_on = self._outage.is_on
        if failure.unreadable is None:
            self._outage.failed(watch, failure.error, sent_at=request.sent_at, now=now, left=self._unended)
        else:
            self._outage.said_nothing(now)
            if watch.unreadable_in_a_row >= MAX_UNREADABLE_IN_A_ROW:
                return self._end(watch, "invalid", failure.error)
        wait = jittered(watch.interval, self._chance)
        if self._outage.is_on and (was_on or now < self._deadline(watch)):
            return self._ask_again(watch, now, wait, may_end=False)  # the failure is not this execution's
        watch.failures += 1
        if watch.failures >= MAX_FAILURES_IN_A_ROW:
            return self._end(watch, "unreachable", failure.error)
        return self._ask_again(watch, now, wait)

    def _note_error(self, watch: _Watch, error: str | None) -> None:
        self._retried += (error is not None) - (watch.error is not None)
        watch.error = error
        self._retry_reason = error or self._retry_reason

    def _answered(self, watch: _Watch, answer: Answered, now: float) -> Ended | None:
        watch.failures = 0
        watch.unreadable = None
        watch.answer = answer
        if watch.first_answer_at is None:
            watch.first_answer_at = now
        status = answer.status.strip().lower()
        if status in self._settings.terminal_statuses:
            return self._end(watch, "completed" if status == "completed" else "failed", None)
        if status not in self._known_statuses:
            self._known_statuses.add(status)
            self._on_unknown_status(watch.execution, answer.status)
        return self._ask_again(watch, now, watch.interval)

    def _ask_again(
        self, watch: _Watch, now: float, wait: float, *, lengthen: bool = True, may_end: bool = True
    ) -> Ended | None:
        deadline = self._deadline(watch)
        if may_end and now >= deadline:
            return self._end(watch, "running", None)
        due = max(now + wait, self._throttle.paused_until)
        if lengthen:
            watch.interval = next_interval(watch.interval, self._settings)
        # The last wait is cut; what was asked after it ends it.
        self._push(watch, min(due, deadline) if now < deadline else due)
        return None

    def _deadline(self, watch: _Watch) -> float:
        return math.inf if watch.first_answer_at is None else watch.first_answer_at + self._settings.max_wait

    def _push(self, watch: _Watch, due: float) -> None:
        self._pushed += 1
        heapq.heappush(self._waiting, (due, self._pushed, watch))

    # Ends

    def give_up(self) -> Iterator[Ended]:
        """The ends of all that wait, once the API as a whole was out of reach too long; nothing before that."""
        out = self._tokens.given_up or self._outage.given_up
        error = out or self._throttle.given_up
        if error is None:
            return
        while self._waiting or self._next_first < len(self._executions):
            watch = self._take()
            if out is None and watch.answer is not None:
                yield self._end(watch, "running", None)  # it was answered, and then only 429 came
            else:
                yield self._end(watch, "unreachable", error)

    def _end(self, watch: _Watch, poll_outcome: str, error: str | None) -> Ended:
        self._unended -= 1
        self._asked_and_unended -= watch.first_sent_at is not None
        self._outage.ended(watch)
        self._note_error(watch, None)
        answer, watch.answer = watch.answer, None  # an idle thread may still know of the watch, and answers are large
        return Ended(
            execution=watch.execution,
            poll_outcome=poll_outcome,
            status=answer.status if answer else None,
            payload=answer.payload if answer else None,
            poll_error=error,
            poll_count=watch.poll_count,
            poll_first_at=self._time_of_day(watch.first_sent_at),
            poll_last_at=self._time_of_day(watch.last_sent_at),
            size=answer.size if answer else 0,
        )

    def _time_of_day(self, at: float | None) -> datetime | None:
        return None if at is None else self._wall + timedelta(seconds=at - self._start)
