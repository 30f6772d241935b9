"""The schedule, told by hand what came and when; whole runs are in test_poll.py."""

import math
from dataclasses import replace
from typing import Any

from further_source.executions import ExecutionId
from further_source.polling.outcomes import Answered, Failure, Refused, Throttled, Token, Unauthorized
from further_source.polling.schedule import Request, Schedule
from further_source.settings import PollingSettings
from tests.support.virtual import START_UTC, listed, utc

SETTINGS = PollingSettings(max_requests_per_second=4)
BEGIN = 1000.0
STATIC = Token("static")
RUNNING = Answered("running", {"status": "running"}, size=7)
COMPLETED = Answered("completed", {"status": "completed"}, size=9)


def schedule(count: int, *, token: Token | None = STATIC, **changes: Any) -> Schedule:
    return Schedule(
        listed(count),
        replace(SETTINGS, **changes),
        now=BEGIN,
        wall=START_UTC,
        token=token,
        renewable=token is None,
        chance=lambda: 0.0,
    )


def sent(schedule: Schedule, now: float) -> Request:
    """The request that it sends now."""
    step = schedule.next(now)
    assert isinstance(step, Request), f"it waits for {step} s"
    return step


def asked(request: Request) -> ExecutionId:
    assert request.watch is not None
    return request.watch.execution


def test_first_polls_come_in_list_order_as_the_budget_allows() -> None:
    fresh = schedule(3)

    assert [asked(sent(fresh, BEGIN + number / 4)) for number in range(3)] == listed(3)
    assert fresh.next(BEGIN + 10) == math.inf


def test_it_says_how_long_to_wait_for_a_slot() -> None:
    fresh = schedule(2)
    sent(fresh, BEGIN)

    assert fresh.next(BEGIN) == 0.25


def test_it_waits_for_an_answer_when_all_workers_are_busy() -> None:
    busy = schedule(2, max_workers=1)
    first = sent(busy, BEGIN)
    assert busy.next(BEGIN + 1) == math.inf

    busy.record(first, COMPLETED, BEGIN + 1)
    assert asked(sent(busy, BEGIN + 1)) == listed(2)[1]


def test_what_runs_is_due_again_after_its_interval() -> None:
    running = schedule(1)
    assert running.record(sent(running, BEGIN), RUNNING, BEGIN + 1) is None

    assert running.next(BEGIN + 1) == 5
    assert running.record(sent(running, BEGIN + 6), RUNNING, BEGIN + 7) is None
    assert running.next(BEGIN + 7) == 7.5


def test_what_is_due_first_is_asked_first_and_in_order_of_arrival_when_due_together() -> None:
    waiting = schedule(3)
    first, second, third = (sent(waiting, BEGIN + number / 4) for number in range(3))
    for request, at in ((third, 1.0), (first, 1.0), (second, 0.5)):
        waiting.record(request, RUNNING, BEGIN + at)

    order = [asked(sent(waiting, BEGIN + 50 + number)) for number in range(3)]
    assert order == [asked(second), asked(third), asked(first)]


def test_an_end_is_told_once_with_all_that_is_known_of_it() -> None:
    ending = schedule(1)
    ending.record(sent(ending, BEGIN), RUNNING, BEGIN + 1)
    ended = ending.record(sent(ending, BEGIN + 6), Refused("not_found", "404: gone"), BEGIN + 9)

    assert ended is not None
    assert (ended.execution, ended.poll_outcome, ended.poll_error) == (listed(1)[0], "not_found", "404: gone")
    assert (ended.status, ended.payload, ended.size) == ("running", {"status": "running"}, 7)
    assert (ended.poll_count, ended.poll_first_at, ended.poll_last_at) == (2, utc(0), utc(6))
    assert ending.finished
    assert ending.next(BEGIN + 9) == math.inf


def test_a_429_holds_everybody() -> None:
    paused = schedule(2)
    paused.record(sent(paused, BEGIN), Throttled("429", 40), BEGIN + 1)

    assert paused.next(BEGIN + 1) == 40
    assert isinstance(paused.next(BEGIN + 41), Request)


def test_after_a_401_it_asks_for_a_token_and_then_first_for_what_was_refused() -> None:
    refused = schedule(3, token=None)
    refused.record(sent(refused, BEGIN), Token("one"), BEGIN)
    first = sent(refused, BEGIN + 0.25)
    refused.record(first, Unauthorized("401"), BEGIN + 20)  # others are due long since

    asks_for_token = sent(refused, BEGIN + 20)
    assert asks_for_token.watch is None
    refused.record(asks_for_token, Token("two"), BEGIN + 30)
    again = sent(refused, BEGIN + 30)
    assert (again.watch, again.token) == (first.watch, Token("two"))


def test_while_the_api_is_out_one_request_at_a_time_is_sent() -> None:
    out = schedule(5)
    requests = [sent(out, BEGIN + number / 4) for number in range(4)]
    for request in requests[:3]:
        out.record(request, Failure("503"), BEGIN + 10)
    assert out.next(BEGIN + 20) == math.inf  # the fourth is under way

    out.record(requests[3], Failure("503"), BEGIN + 20)
    probe = sent(out, BEGIN + 20)
    assert out.next(BEGIN + 30) == math.inf
    out.record(probe, Failure("503"), BEGIN + 30)
    assert out.next(BEGIN + 30) == 7.5


def test_nothing_is_given_up_as_long_as_there_is_hope() -> None:
    failing = schedule(2)
    failing.record(sent(failing, BEGIN), Failure("503"), BEGIN + 1)

    assert list(failing.give_up()) == []
    assert not failing.finished


def test_once_given_up_all_that_waits_or_was_never_asked_ends() -> None:
    hopeless = schedule(3, max_wait=0)
    hopeless.record(sent(hopeless, BEGIN), Failure("503"), BEGIN)
    now = BEGIN + 100
    for _ in range(10):
        hopeless.record(sent(hopeless, now), Throttled("429"), now)
        now += 100

    ends = list(hopeless.give_up())
    assert sorted(ended.execution for ended in ends) == listed(3)
    assert {(ended.poll_outcome, ended.poll_error) for ended in ends} == {("unreachable", "429")}
    assert hopeless.finished
