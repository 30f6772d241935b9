"""The rate budget and the pauses of 429, told by hand what came and when."""

from dataclasses import replace
from typing import Any

import pytest

from further_source.polling.outcomes import Throttled
from further_source.polling.throttle import Throttle
from further_source.settings import PollingSettings

SETTINGS = PollingSettings(max_requests_per_second=4, max_wait=100)
BEGIN = 1000.0


def throttle(**changes: Any) -> Throttle:
    return Throttle(replace(SETTINGS, **changes), BEGIN, lambda: 0.0)


def pauses(throttle: Throttle, count: int, retry_after: float | None = None) -> list[float]:
    """How long each of so many 429 in a row pauses, each sent when the pause before is over."""
    found = []
    for _ in range(count):
        now = throttle.paused_until
        throttle.refused(Throttled("429", retry_after), now, now)
        found.append(throttle.paused_until - now)
    return found


def test_at_the_beginning_nothing_is_paused_and_a_slot_is_free() -> None:
    fresh = throttle()

    assert (fresh.paused_until, fresh.next_slot, fresh.given_up) == (BEGIN, BEGIN, None)


def test_a_request_takes_its_share_of_a_second() -> None:
    budget = throttle()
    budget.sent(BEGIN + 7)

    assert budget.next_slot == BEGIN + 7.25


@pytest.mark.parametrize(("retry_after", "pause"), [(7, 7), (0.5, 0.5), (0, 0), (-3, 0), (300, 300), (86_400, 300)])
def test_the_first_429_pauses_for_as_long_as_it_says_within_bounds(retry_after: float, pause: float) -> None:
    assert pauses(throttle(), 1, retry_after) == [pause]


def test_without_retry_after_the_pauses_grow_like_the_intervals_of_polling() -> None:
    assert pauses(throttle(), 7) == [5, 7.5, 11.25, 16.875, 25.3125, 30, 30]


def test_429_to_requests_sent_before_the_last_one_came_do_not_lengthen_the_pauses() -> None:
    paused = throttle()
    for came_at in (1, 2, 3):
        paused.refused(Throttled("429"), BEGIN, BEGIN + came_at)

    assert paused.paused_until == BEGIN + 3 + 5
    assert pauses(paused, 1) == [7.5]


def test_a_late_429_never_shortens_the_pause() -> None:
    paused = throttle()
    paused.refused(Throttled("429", 60), BEGIN, BEGIN + 1)
    paused.refused(Throttled("429", 2), BEGIN, BEGIN + 5)

    assert paused.paused_until == BEGIN + 61


def test_after_anything_else_the_pauses_begin_anew() -> None:
    paused = throttle()
    pauses(paused, 4)
    paused.passed(paused.paused_until)

    assert pauses(paused, 2) == [5, 7.5]


def test_what_was_sent_before_the_last_429_came_does_not_make_the_pauses_begin_anew() -> None:
    paused = throttle()
    paused.refused(Throttled("429"), BEGIN, BEGIN + 1)
    paused.passed(BEGIN)

    assert pauses(paused, 1) == [7.5]


def test_ten_in_a_row_for_max_wait_are_enough_and_fewer_or_sooner_are_not() -> None:
    enough = throttle()
    pauses(enough, 9)
    assert enough.given_up is None
    pauses(enough, 1)
    assert enough.given_up == "429"

    soon = throttle(max_wait=10_000)
    pauses(soon, 30)
    assert soon.given_up is None


def test_anything_else_begins_the_row_anew() -> None:
    paused = throttle()
    for _ in range(5):
        pauses(paused, 9)
        paused.passed(paused.paused_until)

    assert paused.given_up is None


def test_a_short_retry_after_is_obeyed_three_times_in_a_row_and_then_the_pauses_are_those_of_the_backoff() -> None:
    assert pauses(throttle(), 7, 0) == [0, 0, 0, 16.875, 25.3125, 30, 30]
    assert pauses(throttle(), 7, 20) == [20, 20, 20, 20, 25.3125, 30, 30]


def test_a_retry_after_is_never_made_shorter_and_no_backoff_longer() -> None:
    most = Throttle(SETTINGS, BEGIN, lambda: 1.0)
    assert pauses(most, 1, 10) == [12]

    most = Throttle(SETTINGS, BEGIN, lambda: 1.0)
    assert pauses(most, 6) == [4, 6, 9, 13.5, 20.25, 24]
