"""Asks until all have ended; knows no HTTP, no threads and no dlt.

`poll_executions` runs a `Schedule` against workers, and its `wait` is the only place where a run waits.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Protocol

from further_source.executions import ExecutionId
from further_source.polling.backoff import Chance
from further_source.polling.outcomes import Answered, Outcome, Refused, Token, TokenOutcome
from further_source.polling.schedule import Ended, Request, Schedule
from further_source.polling.state import PollState
from further_source.settings import PollingSettings

__all__ = ["Api", "Arrival", "Ended", "PollState", "Request", "Workers", "poll_executions"]


class Api(Protocol):
    """What can be asked. Each call is one request, and none raises for what the API answers."""

    token: Token | None
    renewable: bool

    def get_execution(self, execution: ExecutionId, token: Token) -> Outcome: ...

    def request_token(self) -> TokenOutcome: ...


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
    chance: Chance = random.random,
    on_unknown_status: Callable[[ExecutionId, str], None] = lambda execution, status: None,
    on_change: Callable[[PollState], None] | None = None,
) -> Iterator[Ended]:
    """Asks all listed executions until each has ended, or `stopped()`; yields each end as it comes.

    Nothing is yielded for what had not ended when polling was stopped.

    Args:
        chance: Makes the jitter of waits after failures.
        on_unknown_status: Called once for each status that is neither `running` nor terminal.
        on_change: Called whenever the state of polling has changed, in the thread that polls; should be quick.

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
        chance=chance,
        on_unknown_status=on_unknown_status,
    )
    tell = _tell_changes(schedule, clock, on_change)
    while not schedule.finished and not stopped():
        tell()
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
    tell()


def _tell_changes(
    schedule: Schedule, clock: Callable[[], float], on_change: Callable[[PollState], None] | None
) -> Callable[[], None]:
    told: PollState | None = None

    def tell() -> None:
        nonlocal told
        if on_change is not None and (state := schedule.state(clock())) != told:
            told = state
            on_change(state)

    return tell


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
