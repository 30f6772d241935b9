"""Garbage collection while answers are handled."""

import gc
from collections.abc import Iterator

import pytest

from further_source.garbage import rarely_collected


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_it_is_rarer_within_and_as_before_afterwards() -> None:
    gc.set_threshold(701, 11, 12)
    with rarely_collected():
        first, *others = gc.get_threshold()
        assert (first > 50_000, others) == (True, [11, 12])
    assert gc.get_threshold() == (701, 11, 12)


def test_as_before_once_all_have_left_whatever_the_order() -> None:
    gc.set_threshold(701, 11, 12)
    one, other = rarely_collected(), rarely_collected()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert gc.get_threshold()[0] > 50_000
    other.__exit__(None, None, None)
    assert gc.get_threshold() == (701, 11, 12)


@pytest.mark.parametrize("first", [0, 1_000_000])
def test_what_is_off_or_rarer_stays_so(first: int) -> None:
    gc.set_threshold(first, 11, 12)
    with rarely_collected():
        assert gc.get_threshold() == (first, 11, 12)


def test_as_before_after_an_error() -> None:
    gc.set_threshold(701, 11, 12)
    with pytest.raises(KeyError), rarely_collected():
        raise KeyError
    assert gc.get_threshold() == (701, 11, 12)
