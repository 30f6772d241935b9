"""Polling by example, in virtual time: nothing here sleeps."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from further_source.executions import ExecutionId
from further_source.polling.backoff import next_interval
from further_source.polling.outcomes import (
    Answered,
    Failure,
    Refused,
    Throttled,
    Token,
    Unauthorized,
)
from further_source.settings import POLLING_PRESETS, PollingSettings
from tests.support.virtual import (
    COMPLETED,
    RUNNING,
    Reply,
    Run,
    answer,
    fault,
    garbled,
    grant,
    listed,
    poll,
    refuse,
    throttle,
    unauthorized,
    utc,
)

A, B, C, D = listed(4)
# Intervals of binary fractions and a budget that is never felt, so that times are exact.
SETTINGS = PollingSettings(max_requests_per_second=2**20)
TICK = 2**-20  # seconds between two requests of that budget
# What fails alone counts at once: where outages are sat out is in test_outage.py.
IMPATIENT = replace(SETTINGS, outage_patience=0)


def settings(**changes: Any) -> PollingSettings:
    return replace(SETTINGS, **changes)


def sums(waits: Iterable[float]) -> list[float]:
    """The moments after each of these waits, from the start on."""
    moments = [0.0]
    for wait in waits:
        moments.append(moments[-1] + wait)
    return moments


def close(moments: Sequence[float]) -> Any:
    return pytest.approx(list(moments), abs=1e-3)


# First polls


def test_first_polls_go_in_list_order_spread_by_the_rate_budget() -> None:
    executions = [ExecutionId(*pair) for pair in [("w2", "b"), ("w1", "z"), ("w1", "a"), ("w3", "m")]]
    run = poll({execution: [COMPLETED] for execution in executions}, settings(max_requests_per_second=4))

    assert [(sent.execution, sent.at) for sent in run.sent] == list(zip(executions, [0, 0.25, 0.5, 0.75], strict=True))


def test_an_empty_list_asks_nothing_not_even_for_a_token() -> None:
    run = poll({}, SETTINGS, tokens=[grant()])

    assert (run.ends, run.sent, run.waits) == ([], [], 0)


def test_first_polls_of_a_long_list_do_not_starve_what_was_already_asked() -> None:
    executions = listed(100)
    scripts = {execution: [RUNNING] for execution in executions} | {executions[0]: [RUNNING, COMPLETED]}
    run = poll(scripts, settings(max_requests_per_second=4, max_wait=60))

    assert run.times(executions[0])[1] <= 5.25
    assert 99 / 4 < run.times(executions[99])[0] < 60


def test_as_the_budget_is_exceeded_requests_stay_apart_and_every_execution_is_asked() -> None:
    executions = listed(50)
    run = poll({execution: [RUNNING] for execution in executions}, settings(max_requests_per_second=2))

    apart = [later.at - earlier.at for earlier, later in zip(run.sent, run.sent[1:], strict=False)]
    assert min(apart) == 0.5
    counts = [ended.poll_count for ended in run.ends]
    assert max(counts) - min(counts) <= 2


# Intervals


@pytest.mark.parametrize(
    ("preset", "waits"),
    [
        ("default", [5, 7.5, 11.25, 16.875, 25.3125, 30, 30, 30]),
        ("simple", [3, 4.5, 5, 5, 5]),
        ("standard", [5, 7.5, 10, 10, 10]),
        ("complex", [10, 15, 15, 15]),
        ("bulk", [15, 22.5, 30, 30]),
        ("steady", [13, 13, 13, 13]),
    ],
)
def test_intervals_of_a_preset(preset: str, waits: list[float]) -> None:
    chosen = POLLING_PRESETS[preset]
    run = poll(
        {A: [RUNNING] * len(waits) + [COMPLETED]},
        settings(
            initial_interval=chosen.initial_interval,
            backoff_factor=chosen.backoff_factor,
            max_interval=chosen.max_interval,
        ),
    )

    assert run.times(A) == sums(waits)
    assert run.outcome(A) == "completed"


def test_an_interval_is_counted_from_the_answer_not_from_the_request() -> None:
    run = poll({A: [answer("running", 2), answer("running", 3), COMPLETED]}, SETTINGS)

    assert run.times(A) == [0, 7, 17.5]


def test_the_next_interval_is_capped() -> None:
    assert next_interval(5, SETTINGS) == 7.5
    assert next_interval(25, SETTINGS) == 30
    assert next_interval(30, SETTINGS) == 30
    assert next_interval(1e308, settings(backoff_factor=1e308, max_interval=1e308)) == 1e308


# max_wait


def test_max_wait_cuts_the_last_wait_and_a_last_request_follows() -> None:
    run = poll({A: [RUNNING]}, settings(max_wait=30))

    assert run.times(A) == [0, 5, 12.5, 23.75, 30]
    ended = run.end(A)
    assert (ended.poll_outcome, ended.status, ended.poll_error) == ("running", "running", None)


def test_what_the_last_request_brings_counts() -> None:
    run = poll({A: [RUNNING] * 4 + [COMPLETED]}, settings(max_wait=30))

    assert run.times(A) == [0, 5, 12.5, 23.75, 30]
    assert run.outcome(A) == "completed"


def test_a_wait_that_ends_exactly_at_max_wait_is_the_last() -> None:
    run = poll({A: [RUNNING]}, settings(max_wait=12.5))

    assert run.times(A) == [0, 5, 12.5]


def test_by_default_an_execution_is_waited_for_ten_minutes() -> None:
    run = poll({A: [RUNNING]}, SETTINGS)

    assert run.times(A)[-1] == 600
    assert run.times(A) == [*sums([5, 7.5, 11.25, 16.875, 25.3125, *[30] * 17]), 600]


def test_max_wait_is_counted_from_an_executions_own_first_readable_answer() -> None:
    executions = listed(40)
    run = poll(
        {execution: [answer("running", 1)] for execution in executions},
        settings(max_requests_per_second=1, max_wait=10),
    )

    for number, execution in enumerate(executions):
        first, *_, last = run.of(execution)
        assert first.at >= number
        assert last.arrives_at - first.arrives_at >= 10


def test_max_wait_does_not_run_before_the_first_readable_answer() -> None:
    run = poll({A: [*[fault()] * 5, RUNNING]}, settings(max_wait=10))

    answered_at = sum([5, 7.5, 11.25, 16.875, 25.3125])
    assert run.times(A)[-2:] == [answered_at, answered_at + 10]
    assert run.end(A).poll_count == 7


def test_a_max_wait_of_zero_asks_each_once() -> None:
    run = poll(
        {A: [RUNNING], B: [COMPLETED], C: [answer("queued")]},
        settings(max_wait=0),
    )

    assert [run.outcome(execution) for execution in (A, B, C)] == ["running", "completed", "running"]
    assert [ended.poll_count for ended in run.ends] == [1, 1, 1]


def test_a_max_wait_of_zero_still_asks_again_until_there_is_an_answer() -> None:
    run = poll({A: [fault(), RUNNING], B: [fault("boom")]}, settings(max_wait=0, outage_patience=0))

    assert run.times(A) == close([0, 5])
    assert run.outcome(A) == "running"
    assert (run.outcome(B), run.end(B).poll_count) == ("unreachable", 10)


def test_a_last_request_that_fails_ends_it_as_running() -> None:
    run = poll({A: [RUNNING, fault()]}, settings(max_wait=5))

    assert run.times(A) == [0, 5]
    assert (run.end(A).poll_outcome, run.end(A).poll_error) == ("running", None)


def test_a_last_request_that_is_throttled_ends_it_as_running() -> None:
    run = poll({A: [RUNNING, throttle(60)]}, settings(max_wait=5))

    assert run.times(A) == [0, 5]
    assert run.outcome(A) == "running"


# Statuses


@pytest.mark.parametrize(
    ("status", "poll_outcome"),
    [
        ("completed", "completed"),
        ("Completed", "completed"),
        ("COMPLETED", "completed"),
        ("failed", "failed"),
        ("Failed", "failed"),
        ("Cancelled", "failed"),
        (" completed\n", "completed"),
    ],
)
def test_a_terminal_status_in_any_case_ends_it(status: str, poll_outcome: str) -> None:
    run = poll(
        {A: [answer(status)]},
        settings(terminal_statuses=frozenset({"completed", "failed", "cancelled"})),
    )

    ended = run.end(A)
    assert (ended.poll_outcome, ended.status, ended.poll_error) == (poll_outcome, status, None)
    assert ended.payload == {"status": status}
    assert ended.size == len(status)


def test_unknown_statuses_are_polled_on_and_told_once() -> None:
    run = poll(
        {
            A: [answer("queued"), answer("Queued"), answer("paused"), COMPLETED],
            B: [answer("QUEUED"), answer("RUNNING"), answer("paused"), answer("failed")],
        },
        SETTINGS,
    )

    assert run.unknown == [(A, "queued"), (A, "paused")]
    assert run.times(A) == sums([5, 7.5, 11.25])
    assert [run.outcome(A), run.outcome(B)] == ["completed", "failed"]


def test_an_end_holds_what_was_said_last() -> None:
    run = poll({A: [answer("queued"), RUNNING, answer("Failed")]}, SETTINGS)

    assert (run.end(A).status, run.end(A).payload) == ("Failed", {"status": "Failed"})


def test_an_unknown_status_when_waiting_ends_counts_as_running() -> None:
    run = poll({A: [answer("Queued")]}, settings(max_wait=5))

    assert (run.outcome(A), run.end(A).status) == ("running", "Queued")


# Failures


def test_failures_back_off_like_polling_and_ten_in_a_row_end_it() -> None:
    run = poll({A: [fault("500")]}, IMPATIENT)

    assert run.times(A) == sums([5, 7.5, 11.25, 16.875, 25.3125, 30, 30, 30, 30])
    ended = run.end(A)
    assert (ended.poll_outcome, ended.poll_error) == ("unreachable", "500")
    assert (ended.status, ended.payload, ended.size) == (None, None, 0)


def test_ten_failures_in_a_row_end_one_that_fails_while_others_are_answered() -> None:
    others = {execution: [answer("running", 0.5)] for execution in listed(5, "others")}
    for scripts in ({A: [fault("500")]} | others, others | {A: [fault("500")]}):
        run = poll(scripts, SETTINGS)

        assert run.times(A) == close(sums([5, 7.5, 11.25, 16.875, 25.3125, 30, 30, 30, 30]))
        assert (run.outcome(A), run.end(A).poll_error) == ("unreachable", "500")
        assert {run.outcome(execution) for execution in others} == {"running"}


def test_ten_failures_in_a_row_end_it_whatever_it_said_before() -> None:
    run = poll({A: [RUNNING, fault("502")]}, IMPATIENT)

    ended = run.end(A)
    assert (ended.poll_outcome, ended.poll_error, ended.poll_count) == ("unreachable", "502", 11)
    assert (ended.status, ended.payload) == ("running", {"status": "running"})


def test_the_error_told_is_the_last_one() -> None:
    run = poll({A: [*[fault("timeout")] * 9, fault("502")]}, IMPATIENT)

    assert run.end(A).poll_error == "502"


def test_an_answer_in_between_starts_the_count_of_failures_anew() -> None:
    nine = [fault()] * 9
    run = poll({A: [*nine, RUNNING, *nine, RUNNING, *nine, COMPLETED]}, settings(max_wait=6000, outage_patience=0))

    assert (run.outcome(A), run.end(A).poll_count) == ("completed", 30)


def test_answers_and_failures_lengthen_one_and_the_same_interval() -> None:
    run = poll({A: [RUNNING, fault(), RUNNING, fault(), COMPLETED]}, SETTINGS)

    assert run.times(A) == sums([5, 7.5, 11.25, 16.875])


@pytest.mark.parametrize("poll_outcome", ["not_found", "forbidden", "rejected", "invalid"])
def test_a_final_word_ends_it_at_once_and_what_it_last_said_stays(poll_outcome: str) -> None:
    run = poll({A: [refuse(poll_outcome)], B: [RUNNING, refuse(poll_outcome)]}, SETTINGS)

    ended = run.end(A)
    assert (ended.poll_outcome, ended.poll_error) == (poll_outcome, f"it is {poll_outcome}")
    assert (ended.poll_count, ended.status, ended.payload) == (1, None, None)
    ended = run.end(B)
    assert (ended.poll_outcome, ended.poll_error) == (poll_outcome, f"it is {poll_outcome}")
    assert (ended.poll_count, ended.status) == (2, "running")


def test_an_answer_that_is_unreadable_the_same_way_three_times_in_a_row_is_invalid() -> None:
    run = poll({A: [garbled()], B: [RUNNING, garbled()]}, SETTINGS)

    assert run.times(A) == sums([5, 7.5])
    assert (run.outcome(A), run.end(A).poll_error, run.end(A).status) == ("invalid", "not JSON: <html>", None)
    assert (run.outcome(B), run.end(B).poll_count, run.end(B).status) == ("invalid", 4, "running")


@pytest.mark.parametrize("between", [fault(), garbled("empty"), RUNNING])
def test_anything_else_in_between_starts_the_count_of_unreadable_answers_anew(between: Reply) -> None:
    twice = [garbled(), garbled()]
    run = poll({A: [*twice, between, *twice, between, *twice, COMPLETED]}, settings(max_wait=6000))

    assert (run.outcome(A), run.end(A).poll_count) == ("completed", 9)


@pytest.mark.parametrize("between", [throttle(1), unauthorized()])
def test_what_says_nothing_of_the_body_does_not_interrupt_a_row_of_unreadable_answers(between: Reply) -> None:
    run = poll({A: [garbled(), between, garbled(), garbled()]}, SETTINGS, tokens=[grant()])

    assert (run.outcome(A), run.end(A).poll_count) == ("invalid", 4)


def test_answers_unreadable_in_ever_different_ways_end_like_failures() -> None:
    run = poll({A: [garbled(str(number)) for number in range(10)]}, SETTINGS)

    assert (run.outcome(A), run.end(A).poll_count) == ("unreachable", 10)


# Counts and times


def test_an_end_tells_how_often_and_when_it_was_asked_refused_requests_too() -> None:
    run = poll(
        {A: [fault(latency=3), RUNNING, throttle(1), unauthorized(latency=2), answer("completed", 60)]},
        SETTINGS,
        tokens=[grant(latency=1)],
    )

    ended = run.end(A)
    assert ended.poll_count == len(run.times(A)) == 5
    assert ended.poll_first_at == utc(run.times(A)[0]) == utc(1)
    # 1 + 3 + 5 failed, + 7.5 answered, + 11.25 throttled, 2 until the 401, 1 for the token
    assert run.times(A) == [1, 9, 16.5, 27.75, 30.75]
    assert ended.poll_last_at == utc(30.75)


def test_an_execution_that_was_never_asked_has_no_times() -> None:
    run = poll({A: [COMPLETED]}, IMPATIENT, tokens=[fault("no route")])

    ended = run.end(A)
    assert (ended.poll_outcome, ended.poll_error) == ("unreachable", "no route")
    assert (ended.poll_count, ended.poll_first_at, ended.poll_last_at) == (0, None, None)


# 429


def test_a_429_pauses_every_execution_for_its_retry_after() -> None:
    run = poll(
        {A: [RUNNING, throttle(20), COMPLETED], B: [RUNNING, RUNNING, COMPLETED], C: [RUNNING, COMPLETED]},
        SETTINGS,
    )

    assert run.times(A) == close([0, 5, 25])
    assert run.times(B) == close([0, 25, 32.5])
    assert run.times(C) == close([0, 25])


def test_a_429_holds_first_polls_and_tokens_too() -> None:
    run = poll(
        {A: [throttle(50), COMPLETED], B: [COMPLETED]},
        settings(max_workers=1),
        tokens=[grant(20)],
    )

    assert run.token_times == close([0, 50])
    assert run.times(A) == close([0, 50])
    assert run.times(B) == close([50])


def test_a_429_neither_counts_against_an_execution_nor_lengthens_its_interval() -> None:
    # One of the others is answered between any two 429, so that they are not in a row.
    others = {
        execution: [answer("completed", 2.5 + 5 * number)] for number, execution in enumerate(listed(30, "others"))
    }
    script = [*[throttle(1)] * 30, *[fault()] * 9, RUNNING, COMPLETED]
    run = poll({A: script} | others, settings(max_workers=64))

    assert run.times(A)[:31] == sums([5] * 30)
    assert run.outcome(A) == "completed"


def test_a_429_does_not_interrupt_a_row_of_failures() -> None:
    run = poll({A: [*[fault()] * 9, throttle(1), fault()]}, IMPATIENT)

    assert (run.outcome(A), run.end(A).poll_count) == ("unreachable", 11)


def test_an_execution_waits_its_own_interval_when_that_is_longer_than_the_pause() -> None:
    for retry_after in (0, 1, 7):
        run = poll({A: [RUNNING, throttle(retry_after), COMPLETED]}, SETTINGS)

        assert run.times(A) == [0, 5, 12.5]


@pytest.mark.parametrize(("retry_after", "pause"), [(7, 7), (300, 300), (86_400, 300), (-3, 5)])
def test_a_retry_after_is_capped(retry_after: float, pause: float) -> None:
    run = poll({A: [throttle(retry_after), COMPLETED]}, SETTINGS)

    assert run.times(A) == [0, pause]


def test_429_without_retry_after_backs_off_for_all_while_they_come_in_a_row() -> None:
    run = poll(
        {A: [throttle(), COMPLETED], B: [COMPLETED]},
        settings(initial_interval=2, backoff_factor=2, max_interval=8, max_workers=1),
        tokens=[*[throttle()] * 4, grant()],
    )

    # Four for the token, up to the cap of 8 s; the new token is no answer about an execution, so A's is the fifth.
    assert run.token_times == close([0, 2, 6, 14, 22])
    assert run.times(A) == close([22, 30])
    assert run.times(B) == close([30])


def test_the_back_off_of_429_starts_anew_after_an_answer() -> None:
    run = poll({A: [throttle(), throttle(), throttle(), RUNNING, throttle(), COMPLETED]}, SETTINGS)

    # Pauses of 5, 7.5 and 11.25 s; then its own 5; then a pause of 5, and its own interval of 7.5.
    assert run.times(A) == sums([5, 7.5, 11.25, 5, 7.5])


def test_429_to_requests_in_flight_together_are_one_429() -> None:
    executions = listed(8)
    run = poll({execution: [throttle(latency=1), COMPLETED] for execution in executions}, SETTINGS)

    for execution in executions:
        assert run.times(execution) == close([0, 6])


def test_a_late_429_extends_the_pause_and_never_shortens_it() -> None:
    run = poll(
        {
            A: [throttle(20, latency=1), COMPLETED],
            B: [throttle(30, latency=3), COMPLETED],
            C: [throttle(2, latency=5), COMPLETED],
        },
        SETTINGS,
    )

    assert [run.times(execution)[1] for execution in (A, B, C)] == close([33, 33, 33])


def test_a_retry_after_of_zero_for_ever_is_not_obeyed_at_full_rate() -> None:
    executions = listed(1000)
    run = poll({execution: [throttle(0, latency=0.1)] for execution in executions}, PollingSettings())

    told_nothing = poll({execution: [throttle(latency=0.1)] for execution in executions}, PollingSettings())
    assert len(run.sent) <= len(told_nothing.sent) + 6
    assert run.sent[-1].at >= 600


def test_a_retry_after_that_is_longer_than_the_backoff_is_obeyed_however_many_come() -> None:
    run = poll({A: [*[throttle(100)] * 8, COMPLETED]}, SETTINGS)

    assert run.times(A) == sums([100] * 8)


def test_a_few_short_retry_afters_are_obeyed_again_after_an_answer() -> None:
    few = [throttle(1)] * 3
    run = poll({A: [*few, RUNNING, *few, RUNNING, *few, COMPLETED]}, settings(backoff_factor=1))

    assert run.times(A) == sums([5] * 11)


# Jitter


def test_runs_that_are_paused_together_do_not_go_on_together() -> None:
    shares = [0.0, 0.25, 0.5, 1.0]
    runs = [poll({A: [throttle(20), COMPLETED]}, SETTINGS, chance=partial(float, share)) for share in shares]

    assert [run.times(A)[1] for run in runs] == [20, 21, 22, 24]


def test_no_jitter_makes_a_pause_longer_than_the_cap() -> None:
    for retry_after in (299, 300, 86_400):
        assert poll({A: [throttle(retry_after), COMPLETED]}, SETTINGS, chance=lambda: 1.0).times(A) == [0, 300]


def test_jitter_makes_the_waits_after_failures_a_little_shorter_and_none_longer() -> None:
    waits = [5, 7.5, 11.25, 16.875, 25.3125, 30, 30, 30, 30]
    for script, tokens in (([fault()], None), ([COMPLETED], [fault()])):
        run = poll({A: script}, IMPATIENT, tokens=tokens, chance=lambda: 1.0)
        assert [sent.at for sent in run.sent] == close(sums(wait * 0.8 for wait in waits))

    run = poll({A: [throttle()]}, settings(max_wait=0), chance=lambda: 1.0)
    # Each is asked when its own interval is over and the pause too, which alone has jitter.
    assert run.times(A) == close(sums([5, 6, 9, 13.5, 20.25, 24, 24, 24, 24]))


def test_waits_after_answers_have_no_jitter() -> None:
    run = poll({A: [*[RUNNING] * 5, COMPLETED]}, SETTINGS, chance=lambda: 1.0)

    assert run.times(A) == sums([5, 7.5, 11.25, 16.875, 25.3125])


def test_with_jitter_max_wait_still_cuts_the_last_wait() -> None:
    run = poll({A: [RUNNING, fault(), fault(), RUNNING]}, settings(max_wait=20), chance=lambda: 0.5)

    assert run.times(A) == close([0, 5, 11.75, 20])
    assert run.outcome(A) == "running"


# 429 for ever


def test_429_for_ever_ends_as_unreachable_for_what_never_answered_and_running_for_what_did() -> None:
    quiet = settings(max_wait=100, max_workers=1)
    run = poll({A: [RUNNING, throttle()], B: [throttle()]}, quiet)

    assert (run.outcome(A), run.end(A).status, run.end(A).poll_error) == ("running", "running", None)
    assert (run.outcome(B), run.end(B).poll_error) == ("unreachable", "429: slow down")
    assert max(run.end_times) >= 100


def test_what_answered_and_waits_when_429_end_the_run_is_running() -> None:
    # It is B's 429, at 150 s, that is one too many, and A waits for its last request.
    run = poll({A: [answer("running", 50), throttle(10)], B: [throttle(10)]}, settings(max_wait=100, max_interval=10))

    assert run.times(A)[-1] < 150
    assert (run.outcome(A), run.end(A).poll_error) == ("running", None)
    assert run.outcome(B) == "unreachable"


def test_429_for_ever_ends_no_sooner_than_max_wait_and_ten_in_a_row() -> None:
    # Ten are over after 216 s; the pauses go on as they are until max_wait.
    run = poll({A: [throttle()], B: [COMPLETED]}, settings(max_workers=1, max_wait=1000))
    assert run.outcome(B) == "completed"

    run = poll({A: [throttle()]}, settings(max_wait=1000))
    assert run.times(A)[-1] >= 1000 > run.times(A)[-2]

    run = poll({A: [throttle()]}, settings(max_wait=0))
    assert run.times(A) == sums([5, 7.5, 11.25, 16.875, 25.3125, 30, 30, 30, 30])

    run = poll({A: [throttle(300)]}, SETTINGS)
    assert run.times(A) == sums([300] * 9)


def test_when_429_for_ever_ends_what_was_never_asked_ends_too() -> None:
    executions = listed(30)
    run = poll(
        {execution: [throttle(60)] for execution in executions},
        settings(max_wait=60, max_workers=1),
    )

    assert [run.outcome(execution) for execution in executions] == ["unreachable"] * 30
    assert run.end(executions[29]).poll_count == 0
    assert run.end(executions[29]).poll_error == "429: slow down"


def test_429_end_nothing_as_long_as_others_answer() -> None:
    # Whenever both are asked after a pause, A's 429 comes first and B's answer, till B's last at 60 s, after it.
    run = poll(
        {A: [throttle(latency=1)], B: [answer("running", 2)]},
        settings(backoff_factor=1, max_wait=60),
    )

    assert run.outcome(A) == "unreachable"
    assert run.times(A)[-1] >= run.of(B)[-1].arrives_at + 50


def test_an_answer_that_was_under_way_at_a_429_does_not_start_the_back_off_anew() -> None:
    run = poll({A: [throttle(latency=1)] * 2 + [COMPLETED], B: [answer("completed", 2)]}, SETTINGS)

    assert run.times(A) == close([0, 6, 14.5])


def test_429_for_ever_ends_also_where_each_comes_later_than_the_next_request() -> None:
    # Each is still under way when the pause of the one before it is over, so none is sent "after the pause".
    executions = listed(20)
    scripts = {execution: [throttle(0, latency=3)] for execution in executions}
    run = poll(scripts, settings(max_wait=60, max_requests_per_second=1, initial_interval=1, max_interval=2))

    assert {ended.poll_outcome for ended in run.ends} == {"unreachable"}
    assert max(run.end_times) < 120


def test_429_for_ever_ends_also_where_every_token_is_short_lived() -> None:
    run = poll({A: [throttle()]}, settings(max_wait=60), tokens=[grant(1)])

    assert run.outcome(A) == "unreachable"
    assert len(run.times(A)) == 10


def test_429_to_a_single_execution_ends_once_nobody_else_answers() -> None:
    run = poll({A: [throttle()], B: [RUNNING]}, SETTINGS)

    assert (run.outcome(A), run.outcome(B)) == ("unreachable", "running")


def test_what_is_still_in_flight_when_429_for_ever_ends_is_heard() -> None:
    quiet = settings(max_wait=0)
    run = poll(
        {A: [throttle()], B: [answer("completed", 1000)], C: [fault(latency=1000)]},
        quiet,
    )

    assert [run.outcome(execution) for execution in (A, B, C)] == ["unreachable", "completed", "unreachable"]
    assert run.end(C).poll_error == "429: slow down"
    assert [ended.poll_count for ended in (run.end(B), run.end(C))] == [1, 1]


# Tokens


def test_a_token_is_asked_for_once_and_before_anything_else() -> None:
    run = poll(
        {A: [RUNNING, COMPLETED], B: [COMPLETED]},
        settings(max_requests_per_second=2),
        tokens=[grant(3600, latency=1)],
    )

    assert [sent.execution for sent in run.sent] == [None, A, B, A]
    assert [sent.at for sent in run.sent] == [0, 1, 1.5, 6]
    assert {sent.token.value for sent in run.sent if sent.token} == {"token 1"}


def test_requests_for_tokens_count_on_the_rate_budget() -> None:
    run = poll({A: [COMPLETED], B: [COMPLETED]}, settings(max_requests_per_second=0.5), tokens=[grant(0)])

    assert [(sent.execution, sent.at) for sent in run.sent] == [(None, 0), (A, 2), (None, 4), (B, 6)]


def test_a_token_is_renewed_when_a_tenth_of_its_life_is_left() -> None:
    run = poll({A: [RUNNING]}, settings(backoff_factor=1, max_wait=200), tokens=[grant(100)])

    assert run.token_times == close([0, 90, 180])


def test_the_old_token_is_used_until_it_expires_while_a_new_one_is_asked_for() -> None:
    run = poll(
        {A: [RUNNING]},
        settings(backoff_factor=1, max_wait=120),
        tokens=[grant(100), grant(100, latency=30)],
    )

    assert run.token_times == close([0, 90])
    late = [sent for sent in run.of(A) if sent.at >= 85]
    assert [sent.at for sent in late] == close([85, 90, 95, 120])
    assert [sent.token.value for sent in late if sent.token] == ["token 1"] * 3 + ["token 2"]


def test_a_failed_renewal_backs_off_while_the_old_token_is_used() -> None:
    run = poll(
        {A: [RUNNING]},
        settings(initial_interval=2, backoff_factor=2, max_interval=4, max_wait=110),
        tokens=[grant(100), fault(), fault(), grant(100)],
    )

    first, second, third, fourth = run.token_times
    assert first == 0
    assert 90 <= second <= 94
    assert third - second >= 2
    assert fourth - third >= 4
    assert all(sent.at < 100 or sent.token.value == "token 2" for sent in run.of(A) if sent.token)
    assert run.outcome(A) == "running"


@pytest.mark.parametrize("life", [0, 0.5, -10])
def test_a_token_of_very_short_life_is_still_used_once(life: float) -> None:
    run = poll({A: [RUNNING, COMPLETED], B: [COMPLETED]}, SETTINGS, tokens=[grant(life, latency=1)])

    assert [run.outcome(A), run.outcome(B)] == ["completed", "completed"]
    assert len(run.token_times) <= 3


def test_a_token_is_not_renewed_when_nobody_needs_it() -> None:
    run = poll({A: [RUNNING, COMPLETED]}, settings(initial_interval=30), tokens=[grant(10)])

    assert run.token_times == close([0, 30])


def test_failed_requests_for_a_token_back_off_and_ten_in_a_row_end_everything() -> None:
    executions = listed(50)
    run = poll({execution: [COMPLETED] for execution in executions}, IMPATIENT, tokens=[fault("503")])

    assert run.token_times == sums([5, 7.5, 11.25, 16.875, 25.3125, 30, 30, 30, 30])
    assert len(run.sent) == 10
    assert [(ended.execution, ended.poll_outcome, ended.poll_error) for ended in run.ends] == [
        (execution, "unreachable", "503") for execution in executions
    ]


def test_a_token_after_nine_failures_starts_the_count_anew() -> None:
    nine = [fault()] * 9
    run = poll({A: [RUNNING, COMPLETED]}, IMPATIENT, tokens=[*nine, grant(1), *nine, grant(1)])

    assert run.outcome(A) == "completed"


def test_failed_renewals_end_what_had_answered_as_unreachable_once_the_token_has_expired() -> None:
    run = poll({A: [RUNNING]}, settings(max_wait=6000, outage_patience=0), tokens=[grant(100), fault("503")])

    ended = run.end(A)
    assert (ended.poll_outcome, ended.poll_error, ended.status) == ("unreachable", "503", "running")
    assert len(run.token_times) >= 11


def test_failed_renewals_end_nothing_as_long_as_the_token_can_be_used() -> None:
    run = poll(
        {A: [RUNNING]},
        settings(initial_interval=1, max_interval=1, max_wait=400),
        tokens=[grant(300), *[fault()] * 15, grant(300)],
    )

    assert len(run.token_times) == 17
    assert 270 <= run.token_times[1] < run.token_times[-1] < 300
    assert run.outcome(A) == "running"


def test_a_429_for_a_token_pauses_and_the_token_is_asked_for_again() -> None:
    run = poll({A: [COMPLETED]}, SETTINGS, tokens=[throttle(40), throttle(), throttle(0), grant()])

    # The second in a row backs off for 7.5 s. No pause is no reason to ask more often than its interval.
    assert run.token_times == [0, 40, 47.5, 52.5]
    assert run.outcome(A) == "completed"


def test_429_for_ever_for_a_token_ends_everything() -> None:
    run = poll({A: [COMPLETED], B: [COMPLETED]}, settings(max_wait=60), tokens=[throttle(0)])

    assert [run.outcome(A), run.outcome(B)] == ["unreachable", "unreachable"]
    # Three are obeyed, so that the token's own interval of 5 s counts; from the fourth on there is a pause.
    assert run.token_times == sums([5, 5, 5, 16.875, 25.3125, 30, 30, 30, 30])


def test_refused_credentials_stop_the_run() -> None:
    run = poll({A: [COMPLETED]}, SETTINGS, tokens=[Reply(Unauthorized("wrong client_secret"))])

    assert str(run.error) == "wrong client_secret"
    assert (run.ends, len(run.sent)) == ([], 1)


# 401


def test_after_a_401_the_token_is_renewed_once_and_the_execution_asked_again_at_once() -> None:
    run = poll({A: [RUNNING, unauthorized(), RUNNING, COMPLETED]}, SETTINGS, tokens=[grant(latency=1)])

    assert run.token_times == close([0, 6])
    # The 401 at 6 lengthened nothing: 7.5 s after the answer at 7 it is asked again.
    assert run.times(A) == close([1, 6, 7, 14.5])
    assert [sent.token.value for sent in run.of(A) if sent.token] == ["token 1"] * 2 + ["token 2"] * 2
    assert run.error is None


def test_a_401_after_one_renewal_stops_the_run_and_what_ended_before_comes_first() -> None:
    run = poll(
        {A: [COMPLETED], B: [RUNNING, unauthorized()], C: [RUNNING]},
        SETTINGS,
        tokens=[grant()],
    )

    assert [ended.execution for ended in run.ends] == [A]
    assert str(run.error) == "401: invalid token"
    assert len(run.token_times) == 2


def test_what_arrives_together_with_a_final_401_is_not_lost() -> None:
    run = poll(
        {A: [answer("completed", 1)], B: [unauthorized(1 - TICK)]},
        SETTINGS,
    )

    assert [ended.execution for ended in run.ends] == [A]
    assert run.error is not None


@pytest.mark.parametrize("between", [throttle(1), fault()])
def test_a_401_stops_the_run_though_no_answer_but_a_fault_came_since_the_renewal(between: Reply) -> None:
    script = [unauthorized(), between] * 100
    run = poll({A: script}, SETTINGS, tokens=[grant()])

    assert run.error is not None
    assert len(run.times(A)) == 3


def test_a_401_long_after_a_renewal_that_helped_is_renewed_again() -> None:
    run = poll(
        {A: [unauthorized(), RUNNING, unauthorized(), RUNNING, unauthorized(), COMPLETED]},
        SETTINGS,
        tokens=[grant()],
    )

    assert run.outcome(A) == "completed"
    assert len(run.token_times) == 4


def test_many_401_in_flight_together_cause_one_renewal() -> None:
    executions = listed(8)
    run = poll(
        {execution: [answer("running", 3), answer("completed", 1)] for execution in executions},
        SETTINGS,
        tokens=[grant(latency=0.5)],
        revoked_at=[8.0],
    )

    assert len(run.token_times) == 2
    assert [run.outcome(execution) for execution in executions] == ["completed"] * 8
    refused = [sent for sent in run.sent if isinstance(sent.outcome, Unauthorized)]
    assert len(refused) == 8


def test_a_late_401_for_the_old_token_does_not_cost_the_new_one() -> None:
    run = poll({A: [unauthorized(1), COMPLETED], B: [unauthorized(60), COMPLETED]}, SETTINGS, tokens=[grant()])

    assert run.times(B) == close([0, 60])
    assert len(run.token_times) == 2


def test_a_401_for_a_token_that_cannot_be_renewed_stops_the_run_at_once() -> None:
    run = poll({A: [COMPLETED], B: [unauthorized()], C: [COMPLETED]}, settings(max_requests_per_second=1))

    assert str(run.error) == "401: invalid token"
    assert [ended.execution for ended in run.ends] == [A]
    assert len(run.sent) == 2


def test_two_rotations_of_the_token_with_a_fault_between_do_not_stop_the_run() -> None:
    run = poll(
        {A: [RUNNING, fault(), COMPLETED], B: [RUNNING]},
        settings(backoff_factor=1, max_wait=30),
        tokens=[grant()],
        revoked_at=[4.0, 9.0],
    )

    # A: an answer, 401 and a fault with the second token, 401 for it, and an answer with the third.
    assert [type(sent.outcome) for sent in run.of(A)] == [Answered, Unauthorized, Failure, Unauthorized, Answered]
    assert (run.error, run.outcome(A), run.outcome(B)) == (None, "completed", "running")
    assert len(run.token_times) == 3


def test_rotations_of_the_token_do_not_stop_a_run_however_many_faults_come_between() -> None:
    replies = [RUNNING, fault(latency=0.5), throttle(1, latency=0.2), answer("running", 3)]
    for seed in range(40):
        chance = random.Random(seed)  # noqa: S311
        run = poll(
            {execution: [*chance.choices(replies, k=20), COMPLETED] for execution in listed(10)},
            settings(max_wait=10_000),
            tokens=[grant(latency=1)],
            revoked_at=[chance.uniform(start, start + 40) for start in range(0, 240, 60)],
        )

        assert run.error is None, seed
        assert len(run.ends) == 10


def test_what_was_refused_is_asked_first_once_there_is_another_token() -> None:
    executions = listed(20)
    run = poll(
        {execution: [COMPLETED] for execution in executions} | {executions[5]: [unauthorized(), COMPLETED]},
        settings(max_requests_per_second=1),
        tokens=[grant(latency=10)],
    )

    order = [sent.execution for sent in run.sent]
    renewal = order.index(None, 1)
    assert order[renewal - 1] == order[renewal + 1] == executions[5]
    assert order[renewal + 2 :] == executions[6:]


@pytest.mark.parametrize("latency", [0, 0.3, 30])
@pytest.mark.parametrize("token_latency", [0, 10])
def test_401_for_ever_costs_two_tokens_and_ends_at_once(latency: float, token_latency: float) -> None:
    executions = listed(100)
    run = poll(
        {execution: [unauthorized(latency)] for execution in executions},
        settings(max_requests_per_second=10),
        tokens=[grant(latency=token_latency)],
    )

    assert str(run.error) == "401: invalid token"
    assert len(run.token_times) == 2
    assert run.clock.since_start < 2 * (latency + token_latency) + 1


@pytest.mark.parametrize("latency", [0, 0.3, 30])
def test_401_for_ever_to_one_execution_ends_as_soon_though_others_are_answered(latency: float) -> None:
    executions = listed(100)
    run = poll(
        {execution: [RUNNING] for execution in executions} | {executions[50]: [unauthorized(latency)]},
        settings(max_requests_per_second=10),
        tokens=[grant(latency=1)],
    )

    assert str(run.error) == "401: invalid token"
    assert len(run.token_times) == 2
    assert len(run.times(executions[50])) == 2


def test_401_for_ever_ends_also_where_every_token_is_replaced_before_its_401_comes() -> None:
    executions = listed(10)
    run = poll(
        {execution: [unauthorized(3)] for execution in executions},
        settings(max_requests_per_second=10),
        tokens=[grant(0.5)],
    )

    assert run.error is not None
    assert run.clock.since_start < 10


# Stopping, workers, whoever takes the ends


def test_once_stopped_nothing_is_asked_and_nothing_told_of_what_had_not_ended() -> None:
    run = poll({A: [COMPLETED], B: [RUNNING], C: [answer("completed", 60)]}, SETTINGS, stop_at=10)

    assert [ended.execution for ended in run.ends] == [A]
    assert max(sent.at for sent in run.sent) < 10


def test_once_stopped_what_had_arrived_is_still_told_if_it_is_an_ending() -> None:
    slow_taker = 20.0  # it takes the first end, and is stopped meanwhile
    scripts = {
        A: [answer("completed", 5)],
        B: [answer("completed", 5)],
        C: [fault(latency=5)],
        D: [refuse("not_found", 5)],
    }
    run = poll(scripts, settings(max_requests_per_second=1e6), stop_at=10, seconds_per_end=slow_taker)

    assert [ended.poll_outcome for ended in run.ends] == ["completed", "completed", "not_found"]
    assert len(run.sent) == 4


def test_a_tenth_failure_that_comes_of_the_stop_is_no_end() -> None:
    run = poll(
        {A: [answer("completed", 5)], B: [*[fault()] * 9, fault(latency=5)]},
        settings(initial_interval=0.1, max_interval=0.1, max_requests_per_second=1e6),
        stop_at=7,
        seconds_per_end=20,
    )

    assert [ended.execution for ended in run.ends] == [A]


def test_stopped_from_the_beginning_asks_nothing() -> None:
    run = poll({A: [COMPLETED]}, SETTINGS, tokens=[grant()], stop_at=0)

    assert (run.ends, run.sent) == ([], [])


@pytest.mark.parametrize("max_workers", [1, 3])
def test_no_more_requests_are_in_flight_than_there_are_workers(max_workers: int) -> None:
    executions = listed(9)
    run = poll(
        {execution: [answer("completed", 10)] for execution in executions},
        settings(max_workers=max_workers),
    )

    assert run.most_in_flight == max_workers
    assert [run.times(execution)[0] for execution in executions] == close(
        [10 * (number // max_workers) for number in range(9)]
    )


def test_a_request_that_hangs_holds_nobody_else_up() -> None:
    run = poll({A: [answer("completed", 3600)], B: [RUNNING, COMPLETED]}, SETTINGS)

    assert run.times(B) == close([0, 5])
    assert [ended.execution for ended in run.ends] == [B, A]


def test_a_429_that_came_while_an_end_was_taken_is_heard_before_anything_is_asked() -> None:
    run = poll(
        {A: [answer("completed", 0.5)], B: [throttle(100, latency=1), COMPLETED], C: [COMPLETED]},
        settings(max_workers=2),
        seconds_per_end=20,
    )

    assert run.times(C) == close([101])


def test_ends_come_as_they_happen() -> None:
    run = poll({A: [answer("completed", 9)], B: [COMPLETED], C: [answer("failed", 4)]}, SETTINGS)

    assert [ended.execution for ended in run.ends] == [B, C, A]
    assert run.end_times == close([0, 4, 9])


def test_a_run_counts_every_kind_of_request_it_sent() -> None:
    run: Run = poll(
        {A: [fault(), throttle(1), unauthorized(), RUNNING, refuse("not_found")]}, SETTINGS, tokens=[grant()]
    )

    kinds = [type(sent.outcome) for sent in run.sent]
    assert kinds == [Token, Failure, Throttled, Unauthorized, Token, Answered, Refused]
    assert run.end(A).poll_count == 5
