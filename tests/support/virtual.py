"""Virtual time for the poller: a clock, workers, and an API that says beforehand how long each answer takes.

Nothing sleeps and nothing runs side by side: `VirtualWorkers.wait` moves the clock to the next arrival.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

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
from further_source.polling.poll import Ended, PollState, Request, poll_executions
from further_source.settings import PollingSettings

START = 1024.0  # seconds on the virtual clock; not zero, so that a time taken for a duration shows
START_UTC = datetime(2024, 1, 1, tzinfo=timezone.utc)
MAX_REQUESTS = 50_000  # a run that sends more does not end


@dataclass(frozen=True)
class Grant:
    """A token of `life` seconds from when it was asked for; None: unknown."""

    life: float | None = None


@dataclass(frozen=True)
class Reply:
    """What one request comes to, and after how many seconds."""

    outcome: Outcome | Grant
    latency: float = 0.0


@dataclass(frozen=True)
class Outage:
    """Every request sent in between fails, after `latency` seconds."""

    begins_at: float
    ends_at: float = math.inf
    latency: float = 0.0


Script = Sequence[Reply]  # one reply per request; the last one is given for ever


@dataclass(frozen=True)
class Sent:
    """One request as the API saw it; `execution` is None for a token's. Times are seconds since the start."""

    at: float
    execution: ExecutionId | None
    token: Token | None
    outcome: Outcome | TokenOutcome
    arrives_at: float


class VirtualClock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now

    @property
    def since_start(self) -> float:
        return self.now - START


class FakeApi:
    """Replies by script, one per execution and one for tokens.

    Args:
        tokens: What requests for tokens come to; None: the token is static.
        revoked_at: Moments from which on the tokens asked for earlier are answered 401.
        outages: From when to when every request fails, those for tokens too.
    """

    def __init__(
        self,
        clock: VirtualClock,
        scripts: Mapping[ExecutionId, Script],
        *,
        tokens: Script | None = None,
        revoked_at: Iterable[float] = (),
        outages: Iterable[Outage] = (),
    ) -> None:
        self._clock = clock
        self._outages = tuple(outages)
        self._scripts = scripts
        self._asked: dict[ExecutionId | None, int] = {}
        self._tokens = tokens
        self._revoked_at = tuple(revoked_at)
        self._asked_at: dict[str, float] = {}
        self.renewable = tokens is not None
        self.token = None if self.renewable else Token("static")
        self.sent: list[Sent] = []

    def get_execution(self, execution: ExecutionId, token: Token) -> Outcome:
        now = self._clock.since_start
        if (out := self._out()) is not None:
            reply = out
        elif any(self._asked_at.get(token.value, 0) < moment <= now for moment in self._revoked_at):
            reply = Reply(Unauthorized("revoked"), 0.01)
        else:
            reply = self._next(execution, self._scripts[execution])
        assert not isinstance(reply.outcome, Grant)
        self._log(execution, token, reply.outcome, reply.latency)
        return reply.outcome

    def request_token(self) -> TokenOutcome:
        assert self._tokens is not None, "a static token was to be renewed"
        reply = self._out() or self._next(None, self._tokens)
        outcome = self._grant(reply.outcome) if isinstance(reply.outcome, Grant) else reply.outcome
        assert not isinstance(outcome, Answered | Refused)
        self._log(None, None, outcome, reply.latency)
        return outcome

    def _out(self) -> Reply | None:
        now = self._clock.since_start
        return next((fault("out", out.latency) for out in self._outages if out.begins_at <= now < out.ends_at), None)

    def _next(self, key: ExecutionId | None, script: Script) -> Reply:
        asked = self._asked[key] = self._asked.get(key, 0) + 1
        return script[min(asked, len(script)) - 1]

    def _grant(self, grant: Grant) -> Token:
        value = f"token {len(self._asked_at) + 1}"
        self._asked_at[value] = self._clock.since_start
        if grant.life is None:
            return Token(value)
        expires_at = self._clock.now + grant.life
        return Token(value, expires_at - min(60.0, grant.life / 10), expires_at)

    def _log(
        self, execution: ExecutionId | None, token: Token | None, outcome: Outcome | TokenOutcome, latency: float
    ) -> None:
        arrives_at = self._clock.now + latency - START  # rounded as the clock will be
        self.sent.append(Sent(self._clock.since_start, execution, token, outcome, arrives_at))
        assert len(self.sent) <= MAX_REQUESTS, "polling does not end"


class VirtualWorkers:
    """The `Workers` of `poll_executions`, in virtual time."""

    def __init__(self, clock: VirtualClock, api: FakeApi) -> None:
        self._clock = clock
        self._api = api
        self._under_way: list[tuple[float, int, Request, Outcome | TokenOutcome]] = []
        self.most_in_flight = 0
        self.waits = 0

    def submit(self, request: Request, call: Callable[[], Outcome | TokenOutcome]) -> None:
        outcome = call()
        sent = self._api.sent[-1]
        heapq.heappush(self._under_way, (START + sent.arrives_at, len(self._api.sent), request, outcome))
        self.most_in_flight = max(self.most_in_flight, len(self._under_way))

    def wait(self, seconds: float) -> list[tuple[Request, Outcome | TokenOutcome, float]]:
        self.waits += 1
        assert seconds >= 0
        assert self._under_way or not math.isinf(seconds), "waiting for ever, and nothing is in flight"
        until = self._clock.now + seconds
        if not self._under_way or self._under_way[0][0] > until:
            self._clock.now = until
            return []
        self._clock.now = max(self._clock.now, self._under_way[0][0])
        arrivals = []
        while self._under_way and self._under_way[0][0] <= self._clock.now:
            arrived_at, _, request, outcome = heapq.heappop(self._under_way)
            arrivals.append((request, outcome, arrived_at))
        return arrivals


@dataclass
class Run:
    """All that can be seen of one polling. Times are seconds since its start."""

    settings: PollingSettings
    clock: VirtualClock = field(default_factory=VirtualClock)
    ends: list[Ended] = field(default_factory=list)
    end_times: list[float] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    unknown: list[tuple[ExecutionId, str]] = field(default_factory=list)
    states: list[tuple[float, PollState]] = field(default_factory=list)
    error: CredentialsError | None = None
    most_in_flight: int = 0
    waits: int = 0

    def of(self, execution: ExecutionId) -> list[Sent]:
        return [sent for sent in self.sent if sent.execution == execution]

    def times(self, execution: ExecutionId) -> list[float]:
        """When it was asked."""
        return [sent.at for sent in self.of(execution)]

    @property
    def token_times(self) -> list[float]:
        """When a token was asked for."""
        return [sent.at for sent in self.sent if sent.execution is None]

    def end(self, execution: ExecutionId) -> Ended:
        """Its one end."""
        (ended,) = (ended for ended in self.ends if ended.execution == execution)
        return ended

    def outcome(self, execution: ExecutionId) -> str:
        return self.end(execution).poll_outcome


def poll(
    scripts: Mapping[ExecutionId, Script],
    settings: PollingSettings,
    *,
    tokens: Script | None = None,
    revoked_at: Iterable[float] = (),
    outages: Iterable[Outage] = (),
    stop_at: float = math.inf,
    seconds_per_end: float = 0.0,
    chance: Callable[[], float] = lambda: 0.0,
) -> Run:
    """Polls to the end, or to `stop_at`; whoever takes the ends takes `seconds_per_end` for each.

    Waits have no jitter where `chance` is not given.
    """
    run = Run(settings)
    api = FakeApi(run.clock, scripts, tokens=tokens, revoked_at=revoked_at, outages=outages)
    workers = VirtualWorkers(run.clock, api)
    run.sent = api.sent
    try:
        for ended in poll_executions(
            list(scripts),
            api,
            settings,
            workers=workers,
            clock=run.clock,
            stopped=lambda: run.clock.since_start >= stop_at,
            now_utc=lambda: START_UTC,
            chance=chance,
            on_unknown_status=lambda execution, status: run.unknown.append((execution, status)),
            on_change=lambda state: run.states.append((run.clock.since_start, state)),
        ):
            run.ends.append(ended)
            run.end_times.append(run.clock.since_start)
            run.clock.now += seconds_per_end
    except CredentialsError as error:
        run.error = error
    run.most_in_flight = workers.most_in_flight
    run.waits = workers.waits
    return run


def listed(count: int, workflow: str = "wf") -> list[ExecutionId]:
    return [ExecutionId(workflow, f"ex-{number}") for number in range(count)]


def answer(status: str, latency: float = 0.0) -> Reply:
    return Reply(Answered(status, {"status": status}, size=len(status)), latency)


def fault(error: str = "connection reset", latency: float = 0.0) -> Reply:
    return Reply(Failure(error), latency)


def garbled(how: str = "not JSON", latency: float = 0.0) -> Reply:
    """An answer that came whole and cannot be read; what it looks like differs from one to the next."""
    return Reply(Failure(f"{how}: <html>", unreadable=how), latency)


def throttle(retry_after: float | None = None, latency: float = 0.0) -> Reply:
    return Reply(Throttled("429: slow down", retry_after), latency)


def refuse(poll_outcome: str, latency: float = 0.0) -> Reply:
    return Reply(Refused(poll_outcome, f"it is {poll_outcome}"), latency)


def unauthorized(latency: float = 0.0) -> Reply:
    return Reply(Unauthorized("401: invalid token"), latency)


def grant(life: float | None = None, latency: float = 0.0) -> Reply:
    return Reply(Grant(life), latency)


def utc(seconds: float) -> datetime:
    """The time of day so many seconds after the start."""
    return START_UTC + timedelta(seconds=seconds)


RUNNING = answer("running")
COMPLETED = answer("completed")
