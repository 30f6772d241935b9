"""Decides when to ask again; knows no HTTP, no threads and no dlt.

`Schedule` is the whole decision: told the time and the outcomes, it says what to send and how long to wait.
`poll_executions` runs it against workers, and its `wait` is the only place where a run waits.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from further_source.exceptions import CredentialsError
from further_source.executions import ExecutionId
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
from further_source.settings import MAX_FAILURES_IN_A_ROW, MAX_RETRY_AFTER, PollingSettings

_WEIGHT_WITHOUT_ANSWER = 500  # bytes, roughly

__all__ = ["Api", "Arrival", "Ended", "Request", "Schedule", "Workers", "next_interval", "poll_executions"]


class Api(Protocol):
    """What can be asked. Each call is one request, and none raises for what the API answers."""

    token: Token | None
    renewable: bool

    def get_execution(self, execution: ExecutionId, token: Token) -> Outcome: ...

    def request_token(self) -> TokenOutcome: ...


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
    unauthorized: bool = False


@dataclass(frozen=True, slots=True)
class _GivenUp:
    """Why nobody is asked any more: no token was to be had, or the API only throttled."""

    error: str
    throttled: bool


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request to send now: of an execution, or of a token where `watch` is None."""

    watch: _Watch | None
    token: Token | None
    sent_at: float


def next_interval(interval: float, settings: PollingSettings) -> float:
    """The wait after the one of `interval` seconds."""
    return min(interval * settings.backoff_factor, settings.max_interval)


class Schedule:
    """One schedule and one rate budget for all requests of a run.

    Args:
        executions: What to ask, in list order; each listed once.
        now: Seconds on a monotonic clock; `wall` is the same moment as a time of day.
        token: The token to begin with, or None where one must be asked for.
        renewable: Whether a token can be asked for at all.
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
        on_unknown_status: Callable[[ExecutionId, str], None] = lambda execution, status: None,
    ) -> None:
        self._executions = executions
        self._settings = settings
        self._start = now
        self._wall = wall
        self._renewable = renewable
        self._on_unknown_status = on_unknown_status
        self._known_statuses = {"running", *settings.terminal_statuses}

        self._spacing = 1 / settings.max_requests_per_second
        self._next_slot = now
        self._in_flight = 0
        self._next_first = 0
        self._waiting: list[tuple[float, int, _Watch]] = []
        self._pushed = 0
        self._unended = len(executions)

        self._token = token
        self._token_used = False
        self._token_requested = False
        self._token_failures = 0
        self._token_interval = settings.initial_interval
        self._token_due = now

        self._pause_until = now
        self._throttled = 0
        self._throttled_since = now
        self._throttled_at = now
        self._throttle_eased = True
        self._throttle_interval = settings.initial_interval
        self._given_up: _GivenUp | None = None

    @property
    def finished(self) -> bool:
        return self._unended == 0

    # What to do next

    def next(self, now: float) -> Request | float:
        """The request to send now, or the seconds until there may be one (infinite: when an answer comes)."""
        if now < self._pause_until:
            return self._pause_until - now
        if self._in_flight >= self._settings.max_workers:
            return math.inf
        due = self._next_due()
        if due > now:
            return due - now
        if self._token_is_due(now):
            if now >= self._token_due:
                return self._send(None, now) if now >= self._next_slot else self._next_slot - now
            if not self._token_is_usable(now):
                return self._token_due - now
        if not self._token_is_usable(now):
            return math.inf
        if now < self._next_slot:
            return self._next_slot - now
        return self._send(self._take(), now)

    def _next_due(self) -> float:
        due = self._waiting[0][0] if self._waiting else math.inf
        if self._next_first < len(self._executions):
            due = min(due, self._first_due())
        return due

    def _first_due(self) -> float:
        # First polls are due as fast as the budget allows and no faster: so they share it fairly with later ones.
        return self._start + self._next_first * self._spacing

    def _take(self) -> _Watch:
        if self._next_first < len(self._executions) and (not self._waiting or self._first_due() <= self._waiting[0][0]):
            execution = self._executions[self._next_first]
            self._next_first += 1
            return _Watch(execution, self._settings.initial_interval)
        return heapq.heappop(self._waiting)[2]

    def _send(self, watch: _Watch | None, now: float) -> Request:
        self._next_slot = now + self._spacing
        self._in_flight += 1
        if watch is None:
            self._token_requested = True
            return Request(None, None, now)
        self._token_used = True
        watch.poll_count += 1
        watch.last_sent_at = now
        if watch.first_sent_at is None:
            watch.first_sent_at = now
        return Request(watch, self._token, now)

    def _token_is_due(self, now: float) -> bool:
        if not self._renewable or self._token_requested:
            return False
        if self._token is None or not self._token_is_usable(now):
            return True
        # A token is used at least once, however short its life: else a run could renew and never ask.
        return self._token_used and self._token.renew_at is not None and now >= self._token.renew_at

    def _token_is_usable(self, now: float) -> bool:
        if self._token is None:
            return False
        return not self._token_used or self._token.expires_at is None or now < self._token.expires_at

    # What came of it

    def record(self, request: Request, outcome: Outcome | TokenOutcome, now: float) -> Ended | None:
        """Takes the outcome of a request that arrived at `now`; returns the execution's end, if this was it.

        Raises:
            CredentialsError: 401 again after one renewal, 401 for a token that cannot be renewed, or a token
                endpoint that refuses the credentials.
        """
        self._in_flight -= 1
        if isinstance(outcome, Throttled):
            self._throttle(request, outcome, now)
        elif request.watch is not None:  # not by a new token: short lives would let 429 go on for ever
            self._throttled = 0
            self._throttle_eased = self._throttle_eased or request.sent_at >= self._throttled_at
        if request.watch is None:
            self._record_token(outcome, now)
            return None
        return self._record_execution(request.watch, request.token, outcome, now)

    def _record_token(self, outcome: Outcome | TokenOutcome, now: float) -> None:
        self._token_requested = False
        if isinstance(outcome, Token):
            self._token = outcome
            self._token_used = False
            self._token_failures = 0
            self._token_interval = self._settings.initial_interval
        elif isinstance(outcome, Unauthorized):
            raise CredentialsError(outcome.error)
        elif isinstance(outcome, Failure):
            self._token_failures += 1
            self._token_due = now + self._token_interval
            self._token_interval = next_interval(self._token_interval, self._settings)
            if self._token_failures >= MAX_FAILURES_IN_A_ROW and not self._token_is_usable(now):
                self._given_up = _GivenUp(outcome.error, throttled=False)
        else:
            self._token_due = now + self._token_interval  # 429 may say that no pause is needed

    def _record_execution(
        self, watch: _Watch, token: Token | None, outcome: Outcome | TokenOutcome, now: float
    ) -> Ended | None:
        if isinstance(outcome, Unauthorized):
            return self._unauthorized(watch, token, outcome, now)
        if isinstance(outcome, Refused):
            return self._end(watch, outcome.poll_outcome, outcome.error)
        if isinstance(outcome, Answered):
            return self._answered(watch, outcome, now)
        if isinstance(outcome, Failure):
            watch.failures += 1
            if watch.failures >= MAX_FAILURES_IN_A_ROW:
                return self._end(watch, "unreachable", outcome.error)
            return self._ask_again(watch, now)
        # 429 speaks of all of us: it neither counts as a failure nor lengthens the execution's own interval.
        return self._ask_again(watch, now, lengthen=False)

    def _answered(self, watch: _Watch, answer: Answered, now: float) -> Ended | None:
        watch.failures = 0
        watch.unauthorized = False
        watch.answer = answer
        if watch.first_answer_at is None:
            watch.first_answer_at = now
        status = answer.status.lower()
        if status in self._settings.terminal_statuses:
            return self._end(watch, "completed" if status == "completed" else "failed", None)
        if status not in self._known_statuses:
            self._known_statuses.add(status)
            self._on_unknown_status(watch.execution, answer.status)
        return self._ask_again(watch, now)

    def _unauthorized(self, watch: _Watch, token: Token | None, outcome: Unauthorized, now: float) -> Ended | None:
        if watch.unauthorized or not self._renewable:
            raise CredentialsError(outcome.error)
        watch.unauthorized = True
        if self._token is token:
            self._token = None
        self._push(watch, now)
        return None

    def _ask_again(self, watch: _Watch, now: float, *, lengthen: bool = True) -> Ended | None:
        deadline = math.inf
        if watch.first_answer_at is not None:
            deadline = watch.first_answer_at + self._settings.max_wait
        if now >= deadline:
            return self._end(watch, "running", None)
        due = max(now + watch.interval, self._pause_until)
        if lengthen:
            watch.interval = next_interval(watch.interval, self._settings)
        self._push(watch, min(due, deadline))  # the last wait is cut; what was asked after it ends it
        return None

    def _push(self, watch: _Watch, due: float) -> None:
        self._pushed += 1
        heapq.heappush(self._waiting, (due, self._pushed, watch))

    def _throttle(self, request: Request, outcome: Throttled, now: float) -> None:
        # Those that were under way when the last one came say nothing new: they neither count nor lengthen.
        if request.sent_at >= self._throttled_at:
            if self._throttled == 0:
                self._throttled_since = request.sent_at
            if self._throttle_eased:
                self._throttle_interval = self._settings.initial_interval
            else:
                self._throttle_interval = next_interval(self._throttle_interval, self._settings)
            self._throttle_eased = False
            self._throttled += 1
            self._throttled_at = now
        pause = self._throttle_interval
        if outcome.retry_after is not None:
            pause = min(max(outcome.retry_after, 0.0), MAX_RETRY_AFTER)
        self._pause_until = max(self._pause_until, now + pause)
        # Nobody's own count grows by a 429, so an API that answers nothing else would never let a run end.
        waited = now - self._throttled_since >= self._settings.max_wait
        if self._throttled >= MAX_FAILURES_IN_A_ROW and waited:
            self._given_up = _GivenUp(outcome.error, throttled=True)

    # Ends

    def give_up(self) -> Iterator[Ended]:
        """The ends of all that wait, once the API as a whole was out of reach too long; nothing before that."""
        if self._given_up is None:
            return
        while self._waiting or self._next_first < len(self._executions):
            watch = self._take()
            if self._given_up.throttled and watch.answer is not None:
                yield self._end(watch, "running", None)  # it has been waited for: only 429 came since
            else:
                yield self._end(watch, "unreachable", self._given_up.error)

    def _end(self, watch: _Watch, poll_outcome: str, error: str | None) -> Ended:
        self._unended -= 1
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


Arrival = tuple[Request, Outcome | TokenOutcome, float]
"""A request, what it came to, and when."""


class Workers(Protocol):
    """Runs requests side by side."""

    def submit(self, request: Request, call: Callable[[], Outcome | TokenOutcome]) -> None:
        """Starts `call`; at most `max_workers` are under way at once."""

    def wait(self, seconds: float) -> Sequence[Arrival]:
        """Waits until one ends or `seconds` pass (infinite: until one ends); what ended."""


def poll_executions(
    executions: Sequence[ExecutionId],
    api: Api,
    settings: PollingSettings,
    *,
    workers: Workers,
    clock: Callable[[], float],
    stopped: Callable[[], bool] = lambda: False,
    now_utc: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    on_unknown_status: Callable[[ExecutionId, str], None] = lambda execution, status: None,
) -> Iterator[Ended]:
    """Asks all listed executions until each has ended, or `stopped()`; yields each end as it comes.

    Nothing is yielded for what had not ended when polling was stopped.

    Raises:
        CredentialsError: The API refuses the credentials; what ended before has been yielded.
    """
    schedule = Schedule(
        executions,
        settings,
        now=clock(),
        wall=now_utc(),
        token=api.token,
        renewable=api.renewable,
        on_unknown_status=on_unknown_status,
    )
    while not schedule.finished and not stopped():
        step = schedule.next(clock())
        if isinstance(step, Request):
            workers.submit(step, _call(api, step))
            continue
        arrivals = workers.wait(step)
        while arrivals:
            yield from _ends(schedule, arrivals, stopped)
            arrivals = workers.wait(0)  # a 429 may have come while whoever takes the ends took their time
    if stopped():
        yield from _ends(schedule, workers.wait(0), stopped)


def _ends(schedule: Schedule, arrivals: Sequence[Arrival], stopped: Callable[[], bool]) -> Iterator[Ended]:
    """The ends among arrivals. After a stop these are endings alone: what failed then may have failed by the stop."""
    for request, outcome, arrived_at in arrivals:
        if stopped() and not isinstance(outcome, Answered | Refused):
            continue
        ended = schedule.record(request, outcome, arrived_at)
        if ended is not None and not (stopped() and ended.poll_outcome == "running"):
            yield ended
    if not stopped():
        yield from schedule.give_up()


def _call(api: Api, request: Request) -> Callable[[], Outcome | TokenOutcome]:
    watch, token = request.watch, request.token
    if watch is None or token is None:
        return api.request_token
    return lambda: api.get_execution(watch.execution, token)
