"""What polling tells of itself while it goes on."""

from dataclasses import replace

from further_source.polling.poll import PollState
from further_source.settings import PollingSettings
from tests.support.virtual import COMPLETED, RUNNING, START, Run, answer, fault, grant, listed, poll, throttle

A, B, C = listed(3)
SETTINGS = PollingSettings(max_requests_per_second=4)


def told(run: Run, at: float) -> PollState:
    """What had been told last at that moment."""
    return [state for moment, state in run.states if moment <= at][-1]


def test_how_many_were_asked_and_wait_is_told_as_it_changes() -> None:
    run = poll({A: [answer("running", 1), COMPLETED], B: [answer("completed", 1)], C: [COMPLETED]}, SETTINGS)

    seen = [(moment, state.asked, state.waiting) for moment, state in run.states]
    assert seen == [(0, 0, 0), (0, 1, 1), (0.25, 2, 2), (0.5, 3, 3), (0.5, 3, 2), (1.25, 3, 1), (6, 3, 0)]


def test_nothing_is_told_twice() -> None:
    run = poll({A: [*[RUNNING] * 20, COMPLETED]}, SETTINGS)

    assert [state.asked for _, state in run.states] == [0, 1, 1]


def test_what_is_tried_again_is_told_with_the_latest_error() -> None:
    run = poll({A: [fault("503"), fault("502"), RUNNING, COMPLETED], B: [*[RUNNING] * 5, COMPLETED]}, SETTINGS)

    states = [told(run, at) for at in (4, 6, 14)]
    assert [(state.retried, state.retry_reason) for state in states] == [(1, "503"), (1, "502"), (0, None)]


def test_what_has_ended_is_not_tried_again() -> None:
    run = poll({A: [fault("503")], B: [RUNNING]}, SETTINGS)

    assert run.outcome(A) == "unreachable"
    assert told(run, 300).retried == 0


def test_what_was_never_asked_does_not_wait() -> None:
    run = poll({A: [COMPLETED], B: [COMPLETED]}, replace(SETTINGS, outage_patience=10), tokens=[fault("503")])

    assert [ended.poll_outcome for ended in run.ends] == ["unreachable", "unreachable"]
    assert {(state.asked, state.waiting) for _, state in run.states} == {(0, 0)}


def test_a_token_that_does_not_come_is_told_too() -> None:
    run = poll({A: [COMPLETED]}, SETTINGS, tokens=[fault("token endpoint: 503"), grant()])

    assert (told(run, 4).retried, told(run, 4).retry_reason) == (0, "token endpoint: 503")
    assert told(run, 5.5).retry_reason is None


def test_a_pause_is_told_until_it_is_over() -> None:
    run = poll({A: [throttle(60), COMPLETED], B: [COMPLETED]}, SETTINGS)

    assert (told(run, 30).paused_until, told(run, 30).pause_reason) == (START + 60, "429: slow down")
    assert (told(run, 60).paused_until, told(run, 60).pause_reason) == (None, None)


def test_the_reason_of_an_outage_is_told_at_once_and_taken_back_when_it_is_over() -> None:
    run = poll({A: [RUNNING, *[fault("503: down")] * 3, RUNNING, COMPLETED]}, SETTINGS)

    assert told(run, 4).outage_reason is None
    assert (told(run, 5).outage_reason, told(run, 5).outage_ends_at) == ("503: down", START + 5 + 900)
    back_at = run.times(A)[4]
    assert told(run, back_at - 1).outage_reason == "503: down"
    assert (told(run, back_at).outage_reason, told(run, back_at).outage_ends_at) == (None, None)


def test_a_run_that_is_stopped_tells_how_it_stood() -> None:
    run = poll({A: [RUNNING], B: [fault()], C: [COMPLETED]}, SETTINGS, stop_at=20)

    assert (run.states[-1][1].asked, run.states[-1][1].waiting, run.states[-1][1].retried) == (3, 2, 1)
