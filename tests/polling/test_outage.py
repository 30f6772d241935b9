"""Outages of the API as a whole: told by hand what came and when, and as whole runs in virtual time."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from further_source.executions import ExecutionId
from further_source.polling.outage import Outage
from further_source.settings import POLLING_PRESETS, PollingSettings
from tests.support import virtual
from tests.support.virtual import (
    COMPLETED,
    RUNNING,
    Reply,
    Run,
    Script,
    Sent,
    answer,
    fault,
    garbled,
    grant,
    listed,
    poll,
    refuse,
    throttle,
    unauthorized,
)

A, B, C, D = listed(4)
BEGIN = 1000.0
SETTINGS = PollingSettings()


def settings(preset: str = "default", **changes: Any) -> PollingSettings:
    chosen = POLLING_PRESETS[preset]
    return replace(
        SETTINGS,
        initial_interval=chosen.initial_interval,
        backoff_factor=chosen.backoff_factor,
        max_interval=chosen.max_interval,
        **changes,
    )


# Told by hand


def outage(**changes: Any) -> Outage:
    return Outage(replace(SETTINGS, **changes), lambda: 0.0)


def fail(outage: Outage, *executions: str, at: float = BEGIN, left: int = 100) -> None:
    for execution in executions:
        outage.failed(execution, f"503 of {execution}", sent_at=at, now=at, left=left)


def test_three_that_fail_with_no_answer_in_between_are_an_outage() -> None:
    beginning = outage()
    fail(beginning, "a", "b")
    assert not beginning.is_on

    fail(beginning, "c")
    assert beginning.reason == "503 of c"
    assert (beginning.probe_at, beginning.ends_at) == (BEGIN + 5, BEGIN + 900)


def test_one_that_fails_three_times_is_none_as_long_as_others_were_not_asked() -> None:
    beginning = outage()
    fail(beginning, "a", "a", "a", "b", "b")

    assert not beginning.is_on


@pytest.mark.parametrize("left", [1, 2])
def test_where_fewer_are_left_these_are_enough(left: int) -> None:
    beginning = outage()
    for number, execution in enumerate(["a", "b"][:left]):
        assert not beginning.is_on, number
        fail(beginning, execution, left=left)

    assert beginning.is_on


def test_an_answer_in_between_makes_those_that_failed_no_witnesses() -> None:
    fine = outage()
    fail(fine, "a", "b")
    fine.answered("d", BEGIN)
    fail(fine, "a", "b", "c", "a", "b", "c", at=BEGIN + 1)

    assert not fine.is_on


def test_what_failed_while_others_were_answered_does_not_count_among_those_that_are_left() -> None:
    fine = outage()
    fail(fine, "a")
    fine.answered("b", BEGIN)
    fail(fine, "a", at=BEGIN + 1, left=2)
    assert not fine.is_on

    fail(fine, "b", at=BEGIN + 2, left=2)
    assert fine.is_on


def test_what_is_left_alone_after_it_failed_while_others_were_answered_is_no_outage() -> None:
    fine = outage()
    fail(fine, "a")
    fine.answered("b", BEGIN)
    fine.ended("b")
    fail(fine, "a", at=BEGIN + 1, left=1)

    assert not fine.is_on


def test_a_request_that_failed_while_others_were_answered_is_no_witness_however_late_it_fails() -> None:
    fine = outage()
    fine.answered("b", BEGIN + 10)
    fine.failed("a", "timed out", sent_at=BEGIN, now=BEGIN + 60, left=1)

    assert not fine.is_on


def test_a_request_that_was_sent_at_the_moment_of_the_last_answer_may_be_a_witness() -> None:
    """As from one worker, on a clock whose ticks are long."""
    beginning = outage()
    beginning.answered("b", BEGIN)
    beginning.ended("b")
    fail(beginning, "a", at=BEGIN, left=1)

    assert beginning.is_on


def test_an_execution_that_was_answered_may_be_a_witness_again() -> None:
    beginning = outage()
    fail(beginning, "a")
    beginning.answered("b", BEGIN)
    beginning.answered("a", BEGIN + 1)
    fail(beginning, "a", "b", "c", at=BEGIN + 2)

    assert beginning.is_on


def test_what_has_ended_is_no_witness() -> None:
    fine = outage()
    fail(fine, "a", "b")
    fine.ended("a")
    fail(fine, "c")
    assert not fine.is_on


def test_what_has_ended_is_not_taken_off_those_that_are_left() -> None:
    fine = outage()
    fail(fine, "a")
    fine.answered("b", BEGIN)
    fine.ended("a")
    fail(fine, "b", at=BEGIN + 1, left=2)

    assert not fine.is_on


def test_probes_back_off_like_polling() -> None:
    out = outage()
    fail(out, "a", "b", "c")
    waits = []
    for _ in range(7):
        now = out.probe_at
        fail(out, "a", at=now)
        waits.append(out.probe_at - now)

    assert waits == [7.5, 11.25, 16.875, 25.3125, 30, 30, 30]


def test_what_was_under_way_when_it_began_is_no_probe() -> None:
    out = outage()
    fail(out, "a", "b", "c", at=BEGIN)
    for _ in range(8):
        out.failed("d", "timed out", sent_at=BEGIN - 50, now=BEGIN + 1, left=100)

    assert (out.probe_at, out.reason) == (BEGIN + 5, "timed out")


def test_an_answer_ends_it_and_the_next_one_begins_with_short_waits() -> None:
    out = outage()
    fail(out, "a", "b", "c")
    fail(out, "a", at=BEGIN + 50)
    out.answered("a", BEGIN + 60)
    assert (out.reason, out.ends_at, out.probe_at) == (None, math.inf, -math.inf)

    fail(out, "d", "e", "f", at=BEGIN + 100)
    assert (out.probe_at, out.ends_at) == (BEGIN + 105, BEGIN + 1000)


def test_it_is_given_up_when_the_patience_is_over() -> None:
    out = outage(outage_patience=100)
    fail(out, "a", "b", "c")
    fail(out, "a", at=BEGIN + 99)
    assert out.given_up is None

    fail(out, "b", at=BEGIN + 100)
    assert out.given_up == "503 of b"


def test_what_says_nothing_neither_prolongs_it_nor_ends_it() -> None:
    out = outage(outage_patience=100)
    fail(out, "a", "b", "c")
    out.said_nothing(BEGIN + 99)
    assert (out.is_on, out.given_up) == (True, None)

    out.said_nothing(BEGIN + 100)
    assert out.given_up == "503 of c"


def test_nothing_can_be_had_without_a_token() -> None:
    out = outage()
    out.token_failed("token endpoint: 503", sent_at=BEGIN, now=BEGIN)
    assert (out.reason, out.probe_at) == ("token endpoint: 503", BEGIN + 5)


def test_without_patience_there_is_no_outage() -> None:
    impatient = outage(outage_patience=0)
    fail(impatient, "a", "b", "c", "d", left=4)
    impatient.token_failed("503", sent_at=BEGIN, now=BEGIN)

    assert not impatient.is_on


# Whole runs


class During:
    """The requests that were sent while the API was out."""

    def __init__(self, run: Run, begins_at: float, ends_at: float) -> None:
        self.sent = [sent for sent in run.sent if begins_at <= sent.at < ends_at]

    def after(self, begins_at: float) -> list[Sent]:
        return [sent for sent in self.sent if sent.at >= begins_at]


def running_until(ends_at: float, count: int = 60) -> dict[ExecutionId, Script]:
    """Executions that run until about then, each asked at the intervals of the preset `default`."""
    times, at, interval = 0, 0.0, 5.0
    while at < ends_at:
        times, at, interval = times + 1, at + interval, min(interval * 1.5, 30)
    return {execution: [*[RUNNING] * times, COMPLETED] for execution in listed(count)}


@pytest.mark.parametrize(("preset", "seconds"), [("default", 200), ("simple", 40), ("default", 800), ("bulk", 800)])
@pytest.mark.parametrize("count", [1, 2, 5, 60])
@pytest.mark.parametrize("latency", [0.0, 0.2, 60.0])
@pytest.mark.parametrize("begins_at", [0.0, 100.0])
def test_an_outage_that_is_shorter_than_the_patience_makes_nothing_unreachable(
    preset: str, seconds: float, count: int, latency: float, begins_at: float
) -> None:
    run = poll(
        {execution: [*[RUNNING] * 20, COMPLETED] for execution in listed(count)},
        settings(preset, max_wait=10_000),
        outages=[virtual.Outage(begins_at, begins_at + seconds, latency)],
    )

    assert {ended.poll_outcome for ended in run.ends} == {"completed"}
    assert len(run.ends) == count


def test_while_the_api_is_out_one_request_at_a_time_asks_whether_it_is_back() -> None:
    run = poll(running_until(300), SETTINGS, outages=[virtual.Outage(100, 300, 0.5)])

    during = During(run, 100, 300)
    # Three fail, and so does what was sent before the third of them was known to have failed.
    assert len(during.sent) <= 8 + 13
    probes = during.after(105)
    assert all(later.at >= sent.arrives_at for sent, later in pairwise(probes))
    waits = [later.at - sent.arrives_at for sent, later in pairwise(probes)]
    assert waits[:3] == pytest.approx([7.5, 11.25, 16.875], abs=1)
    assert max(waits) <= 30 + 1


def test_once_the_api_is_back_all_are_asked_again_at_the_pace_of_the_budget() -> None:
    run = poll(running_until(300), SETTINGS, outages=[virtual.Outage(100, 300, 0.5)])

    after = [sent for sent in run.sent if sent.at >= 300]
    assert after[0].at <= 330
    assert len({sent.execution for sent in after[:60]}) >= 50
    assert after[59].at - after[0].at <= 8
    assert {ended.poll_outcome for ended in run.ends} == {"completed"}


def test_when_the_patience_is_over_all_that_is_left_is_unreachable_and_says_why() -> None:
    scripts = running_until(10_000, 50) | {A: [COMPLETED]}
    run = poll(scripts, settings(max_wait=10_000), outages=[virtual.Outage(100, latency=0.5)])

    assert run.outcome(A) == "completed"
    left = [ended for ended in run.ends if ended.execution != A]
    assert {(ended.poll_outcome, ended.poll_error, ended.status) for ended in left} == {
        ("unreachable", "out", "running")
    }
    assert 1000 <= min(run.end_times[1:]) <= max(run.end_times) <= 1000 + 2 * 30 + 1


def test_what_is_answered_after_the_patience_is_over_is_asked_on() -> None:
    failing: dict[ExecutionId, Script] = {execution: [fault(latency=6)] for execution in (B, C, D)}
    # B is asked a second time before the outage begins, and fails again when the patience is over.
    rules = replace(SETTINGS, outage_patience=5, initial_interval=0.5, max_requests_per_second=2)
    run = poll({A: [answer("running", 60), COMPLETED]} | failing, rules)

    assert {run.outcome(execution) for execution in failing} == {"unreachable"}
    assert run.outcome(A) == "completed"


@pytest.mark.parametrize("patience", [60.0, 900.0])
@pytest.mark.parametrize("count", [1, 2, 100])
@pytest.mark.parametrize("tokens", [None, [grant(latency=0.1)]])
def test_an_api_that_is_never_there_is_waited_for_as_long_as_the_patience_and_no_longer(
    patience: float, count: int, tokens: list[Reply] | None
) -> None:
    run = poll(
        {execution: [COMPLETED] for execution in listed(count)},
        settings(outage_patience=patience),
        tokens=tokens,
        outages=[virtual.Outage(0, latency=0.1)],
    )

    assert {(ended.poll_outcome, ended.poll_error) for ended in run.ends} == {("unreachable", "out")}
    assert len(run.ends) == count
    assert patience <= run.clock.since_start <= patience + 35
    assert len(run.sent) <= 8 + 6 + patience / 30


@pytest.mark.parametrize("count", [1, 20])
def test_without_patience_each_counts_for_itself(count: int) -> None:
    run = poll(
        {execution: [COMPLETED] for execution in listed(count)},
        settings(outage_patience=0),
        outages=[virtual.Outage(0)],
    )

    assert {(ended.poll_outcome, ended.poll_count) for ended in run.ends} == {("unreachable", 10)}


def test_during_an_outage_nobodys_count_grows() -> None:
    nine = [fault()] * 9
    alone = settings(max_wait=10_000, outage_patience=10_000)
    run = poll({A: [RUNNING, *[fault()] * 50, RUNNING, *nine, COMPLETED]}, alone)

    assert (run.outcome(A), run.end(A).poll_count) == ("completed", 62)


def test_what_was_under_way_when_the_outage_began_does_not_count_either() -> None:
    scripts: dict[ExecutionId, Script] = {
        execution: [*[fault(latency=10)] * 9, *[fault(latency=10)] * 3, COMPLETED] for execution in listed(8)
    }
    run = poll(scripts, settings(outage_patience=10_000))

    assert {ended.poll_outcome for ended in run.ends} == {"completed"}


def test_several_that_fail_for_ever_end_while_others_are_answered() -> None:
    bad: dict[ExecutionId, Script] = {execution: [fault("500")] for execution in listed(5, "bad")}
    good: dict[ExecutionId, Script] = {execution: [answer("running", 0.1)] for execution in listed(20, "good")}
    for scripts in (bad | good, good | bad):
        run = poll(scripts, settings(max_wait=1200))

        assert {run.outcome(execution) for execution in bad} == {"unreachable"}
        assert {run.outcome(execution) for execution in good} == {"running"}
        assert max(run.end(execution).poll_count for execution in bad) <= 11
        assert max(run.times(execution)[-1] for execution in bad) <= 300


def test_one_that_fails_for_ever_ends_as_soon_when_the_others_have_ended() -> None:
    run = poll({A: [fault("500", latency=3)], B: [answer("completed", 0.1)]}, SETTINGS)

    assert (run.outcome(A), run.end(A).poll_count) == ("unreachable", 10)
    assert run.clock.since_start < 300


def test_max_wait_ends_nobody_while_the_api_is_out() -> None:
    run = poll({A: [RUNNING, COMPLETED], B: [RUNNING]}, settings(max_wait=60), outages=[virtual.Outage(3, 300)])

    assert [run.outcome(A), run.outcome(B)] == ["completed", "running"]
    assert run.times(A)[-1] >= 300


def test_a_429_ends_nobody_while_the_api_is_out_though_max_wait_is_over() -> None:
    run = poll({A: [RUNNING, fault(), throttle(60), COMPLETED]}, settings(max_wait=8))

    assert run.times(A) == [0, 5, 10, 70]
    assert run.outcome(A) == "completed"


def test_a_last_request_that_fails_before_there_is_an_outage_ends_it_as_ever() -> None:
    run = poll({A: [RUNNING, fault()]}, settings(max_wait=5))

    assert (run.outcome(A), run.times(A)) == ("running", [0, 5])


@pytest.mark.parametrize("word", [refuse("not_found"), COMPLETED, RUNNING])
def test_any_word_about_an_execution_ends_the_outage(word: Reply) -> None:
    scripts: dict[ExecutionId, Script] = {A: [fault()], B: [fault()], C: [fault(), word, RUNNING]}
    run = poll(scripts, settings(max_wait=20, outage_patience=2000))

    # C is answered, so A and B fail by themselves and end at ten; were the API out, they would be waited for.
    assert [run.outcome(A), run.outcome(B)] == ["unreachable", "unreachable"]
    assert run.clock.since_start < 1000


@pytest.mark.parametrize("between", [throttle(1), unauthorized(), garbled()])
def test_what_says_nothing_about_an_execution_does_not_end_the_outage(between: Reply) -> None:
    scripts: dict[ExecutionId, Script] = {execution: [fault(), between] * 500 for execution in (A, B, C)}
    run = poll(scripts, settings(outage_patience=1000), tokens=[grant()])

    if run.error is None:  # 401 for one token after the other stop the run
        assert {ended.poll_outcome for ended in run.ends} == {"unreachable"}
        assert 1000 <= run.clock.since_start <= 1100


def test_an_unreadable_answer_counts_though_the_api_is_out() -> None:
    run = poll({A: [fault(), garbled()]}, SETTINGS)

    assert (run.outcome(A), run.end(A).poll_count) == ("invalid", 4)


def test_a_token_endpoint_that_is_out_is_sat_out_too() -> None:
    run = poll(
        {execution: [*[RUNNING] * 15, COMPLETED] for execution in listed(20)},
        settings(max_wait=10_000),
        tokens=[grant(60, latency=0.1), *[fault("token endpoint: 503", latency=0.1)] * 30, grant(3600)],
    )

    assert {ended.poll_outcome for ended in run.ends} == {"completed"}
    assert run.clock.since_start > 600


def test_as_soon_as_there_is_a_token_again_it_is_tried() -> None:
    run = poll({A: [COMPLETED]}, SETTINGS, tokens=[*[fault(latency=0.5)] * 6, grant(latency=0.5)])

    assert run.times(A)[0] == run.token_times[-1] + 0.5


def test_a_token_endpoint_that_stays_out_ends_everything_when_the_patience_is_over() -> None:
    run = poll({A: [COMPLETED], B: [COMPLETED]}, SETTINGS, tokens=[fault("token endpoint: 503")])

    assert [(ended.poll_outcome, ended.poll_error) for ended in run.ends] == [
        ("unreachable", "token endpoint: 503")
    ] * 2
    assert 900 <= run.clock.since_start <= 930
    assert len(run.sent) <= 35


def test_a_renewal_that_fails_is_no_outage_as_long_as_the_token_can_be_used() -> None:
    often = replace(SETTINGS, initial_interval=1, max_interval=1, max_wait=200)
    run = poll({A: [RUNNING]}, often, tokens=[grant(100), *[fault("503")] * 5, grant(3600)])

    assert len(run.token_times) == 7
    assert all(state.outage_reason is None for _, state in run.states)
    assert run.outcome(A) == "running"


def test_short_lived_tokens_do_not_hasten_the_probes() -> None:
    run = poll(running_until(300, 20), SETTINGS, tokens=[grant(1)], outages=[virtual.Outage(100, 500)])
    probes = During(run, 130, 500).sent

    assert len(probes) <= 2 * (370 / 25 + 1)
    assert len(run.ends) == 20


def test_an_api_that_throttles_before_it_is_back_is_left_alone_for_as_long_as_it_says() -> None:
    run = poll({A: [*[fault()] * 5, throttle(200), COMPLETED]}, SETTINGS)

    assert run.times(A)[-1] - run.times(A)[-2] == 200
    assert run.outcome(A) == "completed"
