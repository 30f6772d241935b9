"""Thresholds keep what they promise, on samples whose truth is known."""

import math
import random
from typing import Any

import numpy as np
import pytest

from further_source.review.threshold import find_threshold, reviews_without_error

TARGET, LEVEL = 0.01, 0.95
CELLS = 20_000


def rates(number: int, confidences: Any) -> Any:
    """The shares of wrong values at confidences, of field `number` of 12: each is miscalibrated in its own way."""
    middle, steepness, floor = 0.2 + 0.04 * number, 12 + 4 * (number % 4), (0, 0.001, 0.002, 0.004)[number % 4]
    return floor + (0.6 - floor) / (1 + np.exp(steepness * (confidences - middle)))


class Field:
    """A population, its truth, and a sample of it, the surest cells first."""

    def __init__(self, number: int, seed: int, reviews: int) -> None:
        lot = np.random.default_rng(100 * seed + number)
        self.confidences = np.sort(np.round(lot.beta(3, 1.2, CELLS), 3))[::-1]
        self.wrong = lot.random(CELLS) < rates(number, self.confidences)
        places = ((np.arange(reviews) + lot.random()) * CELLS / reviews).astype(int)
        self.sample = list(zip(self.confidences[places].tolist(), self.wrong[places].tolist(), strict=True))
        self.counts = np.cumsum(self.wrong)
        self.is_last = np.append(self.confidences[1:] != self.confidences[:-1], True)

    def through(self, threshold: float) -> int:
        return int((self.confidences >= threshold).sum())

    def oracle(self) -> int:
        """How many go through at the lowest threshold whose error is at most the target."""
        numbers = np.arange(1, CELLS + 1)
        good = numbers[self.is_last & (self.counts <= TARGET * numbers)]
        return int(good[-1]) if len(good) else 0


def outcome(seed: int, reviews: int) -> tuple[int, float, float]:
    """Of a run over 12 fields: fields whose promise is broken, the error of all that went through, share of oracle."""
    broken = through = wrong = ideal = 0
    for number in range(12):
        field = Field(number, seed, reviews)
        found = find_threshold(field.sample, TARGET, LEVEL).threshold
        ideal += field.oracle()
        if found is not None:
            count = field.through(found)
            broken += int(field.counts[count - 1]) > TARGET * count
            through += count
            wrong += int(field.counts[count - 1])
    return broken, wrong / max(through, 1), through / ideal


def test_of_no_error_299_reviews_are_enough_and_298_are_not() -> None:
    assert reviews_without_error(TARGET, 1 - LEVEL) == 299
    sample = [(0.5 + n / 1000, False) for n in range(299)]
    assert find_threshold(sample, TARGET, LEVEL).threshold == 0.5
    assert find_threshold(sample[1:], TARGET, LEVEL).threshold is None
    assert find_threshold(sample[:87], TARGET, LEVEL).reviews_needed == 212
    assert find_threshold([], TARGET, LEVEL).reviews_needed == 299


def test_ties_are_not_cut_apart() -> None:
    sample = [(0.9, False)] * 400 + [(0.8, True)] * 40 + [(0.8, False)] * 400

    assert find_threshold(sample, TARGET, LEVEL).threshold == 0.9


def test_what_is_always_wrong_gets_no_threshold() -> None:
    found = find_threshold([(n / 2000, True) for n in range(2000)], TARGET, LEVEL)

    assert found.threshold is None
    assert found.error_upper == 1
    assert found.reviews_needed > 0


def test_a_bound_is_that_of_clopper_and_pearson() -> None:
    found = find_threshold([(0.9, n < 3) for n in range(1000)], TARGET, LEVEL)

    assert (found.threshold, found.reviewed, found.errors) == (0.9, 1000, 3)
    assert found.error_upper == pytest.approx(0.00773, abs=5e-5)


def test_a_border_case_passes_no_more_often_than_it_may() -> None:
    """Wherever it is cut, the error is just above the target: any threshold is a broken promise."""
    lot = random.Random(1)  # noqa: S311
    runs = 300
    broken = sum(
        find_threshold([(lot.random(), lot.random() < 0.0101) for _ in range(1200)], TARGET, LEVEL).threshold
        is not None
        for _ in range(runs)
    )

    assert broken <= 0.05 * runs + 3 * math.sqrt(0.05 * 0.95 * runs)
    assert broken > 0  # else the bound would be wasteful


def test_thresholds_of_miscalibrated_fields_hold() -> None:
    broken, error, share = outcome(seed=0, reviews=8_000)

    assert broken <= 2
    assert error <= TARGET
    assert share >= 0.85


@pytest.mark.slow
def test_over_100_seeds_the_promise_is_kept_and_little_is_given_away() -> None:
    outcomes = [outcome(seed, reviews=8_000) for seed in range(100)]

    assert sum(error > TARGET for _, error, _ in outcomes) <= 5
    assert sum(broken for broken, *_ in outcomes) <= 0.05 * 1200 + 3 * math.sqrt(0.05 * 0.95 * 1200)
    assert sum(share for *_, share in outcomes) / 100 >= 0.9
