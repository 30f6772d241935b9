"""Waiting for executions that take a while: requests, delay between end and detection, time to the last.

1,000 executions take lognormal times with a median of 90 s (sigma 0.5). In virtual time the real schedule runs
against a clock that only waiting moves; `real` runs the whole source over HTTP at 1/20 of the scale.
"""

import heapq
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import dlt

from benchmarks.measure import timed
from further_source import further_source, run_in_slices
from further_source.executions import ExecutionId
from further_source.polling.outcomes import Answered, Outcome, Token, TokenOutcome
from further_source.polling.poll import Request, poll_executions
from further_source.sandbox import Sandbox, completed
from further_source.settings import POLLING_PRESETS, PollingSettings

_LATENCY = 0.2  # seconds per request
_WORKERS = 64


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class _Api:
    """Executions that end by themselves; counts what it is asked."""

    renewable = False
    token: Token | None = Token("static")

    def __init__(self, clock: _Clock, ends: dict[ExecutionId, float]) -> None:
        self._clock = clock
        self._ends = ends
        self.requests = 0

    def get_execution(self, execution: ExecutionId, token: Token) -> Outcome:
        self.requests += 1
        status = "completed" if self._clock.now >= self._ends[execution] else "running"
        return Answered(status, {"status": status})

    def request_token(self) -> TokenOutcome:
        raise AssertionError("a static token is not renewed")


class _Workers:
    """Requests that take `_LATENCY` seconds of virtual time."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._under_way: list[tuple[float, int, Request, Outcome | TokenOutcome]] = []
        self._count = 0

    def submit(self, request: Request, call: Callable[[], Outcome | TokenOutcome]) -> None:
        self._count += 1
        heapq.heappush(self._under_way, (self._clock.now + _LATENCY, self._count, request, call()))

    def wait(self, seconds: float) -> list[tuple[Request, Outcome | TokenOutcome, float]]:
        until = self._clock.now + seconds
        if not self._under_way or self._under_way[0][0] > until:
            self._clock.now = until
            return []
        arrived_at, _, request, outcome = heapq.heappop(self._under_way)
        self._clock.now = max(self._clock.now, arrived_at)
        return [(request, outcome, arrived_at)]


def durations(count: int) -> list[float]:
    numbers = random.Random(1)
    return [numbers.lognormvariate(math.log(90), 0.5) for _ in range(count)]


def ages(count: int) -> list[float]:
    """How long each had been running when polling began, where nobody knows: up to three minutes."""
    numbers = random.Random(2)
    return [numbers.uniform(0, 180) for _ in range(count)]


def polled(count: int, preset: str, rate: float, *, unknown_age: bool = False) -> dict[str, Any]:
    """Our schedule in virtual time."""
    chosen = POLLING_PRESETS[preset]
    settings = PollingSettings(
        chosen.initial_interval, chosen.backoff_factor, chosen.max_interval, 100_000, rate, _WORKERS
    )
    return _simulate(settings, _ends(count, unknown_age))


def fixed(count: int, seconds: float) -> dict[str, Any]:
    """All at once at a fixed interval, without a budget."""
    settings = PollingSettings(seconds, 1, seconds, 100_000, 1e9, count)
    return _simulate(settings, _ends(count, False))


def documented_at_once(count: int, *, unknown_age: bool = False) -> dict[str, Any]:
    """The documented loop for each, all at once, without a budget."""
    settings = replace(PollingSettings(), max_wait=100_000, max_requests_per_second=1e9, max_workers=count)
    return _simulate(settings, _ends(count, unknown_age))


def documented_in_turn(count: int) -> dict[str, Any]:
    """The documented loop, one execution after the other."""
    now, requests, delays = 0.0, 0, []
    for end in _ends(count, False):
        interval = 5.0
        while True:
            requests += 1
            now += _LATENCY
            if now - _LATENCY >= end:
                break
            now += interval
            interval = min(interval * 1.5, 30)
        delays.append(now - max(end, 0))
    return _figures(requests, delays, now)


def lower_bound(count: int) -> dict[str, Any]:
    """The longest execution: nothing can be known sooner."""
    return {"last": max(durations(count))}


def _ends(count: int, unknown_age: bool) -> list[float]:
    if not unknown_age:
        return durations(count)
    return [duration - age for duration, age in zip(durations(count), ages(count), strict=True)]


def _simulate(settings: PollingSettings, ends: Sequence[float]) -> dict[str, Any]:
    clock = _Clock()
    listed = {ExecutionId("w", str(number)): end for number, end in enumerate(ends)}
    api = _Api(clock, listed)
    delays = []
    for ended in poll_executions(list(listed), api, settings, workers=_Workers(clock), clock=clock):
        if listed[ended.execution] > 0:  # what had ended before polling began has no delay of ours
            delays.append(clock.now - listed[ended.execution])
    return _figures(api.requests, delays, clock.now, len(ends))


def _figures(requests: int, delays: Sequence[float], last: float, count: int | None = None) -> dict[str, Any]:
    return {
        "requests_per_execution": requests / (count or len(delays)),
        "mean_delay": statistics.fmean(delays),
        "p95_delay": statistics.quantiles(delays, n=20)[-1],
        "last": last,
    }


def real(count: int, scale: float, rate: float) -> dict[str, Any]:
    """The whole source over HTTP, every time divided by `scale`; times are given back at full scale."""
    result: dict[str, Any] = {}
    preset = POLLING_PRESETS["default"]
    taken = durations(count)
    with Sandbox() as sandbox:
        for number, seconds in enumerate(taken):
            payload = completed("w", str(number), [])
            sandbox.serve("w", str(number), payload, after=seconds / scale)
        source = further_source(
            executions=[("w", str(number)) for number in range(count)],
            base_url=sandbox.base_url,
            access_token=sandbox.issue_token(),
            initial_interval=preset.initial_interval / scale,
            backoff_factor=preset.backoff_factor,
            max_interval=preset.max_interval / scale,
            max_wait=100_000,
            max_requests_per_second=rate * scale,
            max_workers=_WORKERS,
        )
        pipeline = dlt.pipeline("benchmark", destination="duckdb", dataset_name="data")
        with timed(result, "last"):
            run_in_slices(pipeline, source)
        requests = [request for request in sandbox.requests if request.workflow_execution_id]
    first: dict[str, float] = {}
    detected: dict[str, float] = {}
    for request in requests:
        first.setdefault(str(request.workflow_execution_id), request.at)
        detected[str(request.workflow_execution_id)] = request.at
    delays = [(detected[str(n)] - first[str(n)]) * scale - seconds for n, seconds in enumerate(taken)]
    result["last"] = (max(detected.values()) - min(first.values())) * scale
    return {**result, **_figures(len(requests), delays, result["last"])}
