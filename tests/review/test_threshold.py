"""Thresholds keep what they promise, on samples whose truth is known."""

import math
import random
from typing import Any

import numpy as np
import pytest
from scipy.special import bdtr

from further_source.review.threshold import _lowest, _prefixes, find_threshold, reviews_without_error

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
        _lowest(_prefixes([(lot.random(), lot.random() < 0.0101) for _ in range(1200)]), TARGET, 1 - LEVEL) is not None
        for _ in range(runs)
    )

    assert broken <= 0.05 * runs + 3 * math.sqrt(0.05 * 0.95 * runs)
    assert broken > 0  # else the bound would be wasteful


@pytest.mark.parametrize(("reviews", "at_least"), [(1_000, 0.45), (8_000, 0.85)])
def test_thresholds_of_miscalibrated_fields_hold(reviews: int, at_least: float) -> None:
    broken, error, share = outcome(seed=0, reviews=reviews)

    assert broken <= 2
    assert error <= TARGET
    assert share >= at_least


def test_a_field_of_which_little_is_good_gets_a_threshold_for_that() -> None:
    lot = random.Random(2)  # noqa: S311
    sample = [(confidence, confidence < 0.9 and lot.random() < 0.3) for confidence in (n / 8000 for n in range(8000))]

    assert find_threshold(sample, TARGET, LEVEL).threshold == pytest.approx(0.9, abs=0.01)


def test_the_reviews_that_are_said_to_be_needed_are_enough_if_they_find_no_error() -> None:
    sample = [(n / 600, n % 100 == 7) for n in range(600)]
    found = find_threshold(sample, TARGET, LEVEL)
    assert found.threshold is None

    def with_more(count: int) -> float | None:
        more = [(600 * n / count / 600, False) for n in range(count)]
        return find_threshold([*sample, *more], TARGET, LEVEL).threshold

    assert with_more(found.reviews_needed + 10) is not None
    assert with_more(found.reviews_needed // 2) is None


@pytest.mark.slow
def test_over_100_seeds_the_promise_is_kept_and_little_is_given_away() -> None:
    outcomes = [outcome(seed, reviews=8_000) for seed in range(100)]

    assert sum(error > TARGET for _, error, _ in outcomes) <= 5
    assert sum(broken for broken, *_ in outcomes) <= 0.05 * 1200 + 3 * math.sqrt(0.05 * 0.95 * 1200)
    assert sum(share for *_, share in outcomes) / 100 >= 0.9


def share_of_one_chosen_in_hindsight(reviews: int, seeds: range) -> float:
    """What goes through, of the oracle's, at the one threshold of each field that does best when only it is tested.

    Nobody can know it beforehand, so no level is spent on looking for it: what is left to lose is for want of reviews.
    """
    grid = np.arange(0, 1.0005, 0.01)
    through = ideal = 0.0
    for number in range(12):
        fields = [Field(number, seed, reviews) for seed in seeds]
        ideal += sum(field.oracle() for field in fields)
        gained = np.zeros(len(grid))
        for field in fields:
            confidences, wrong = map(np.array, zip(*field.sample, strict=True))
            above = np.array([(confidences >= threshold).sum() for threshold in grid])
            errors = np.array([wrong[confidences >= threshold].sum() for threshold in grid])
            passes = bdtr(errors, above, TARGET) <= 1 - LEVEL
            gained += np.where(passes, [field.through(threshold) for threshold in grid], 0)
        through += gained.max()
    return through / ideal


@pytest.mark.slow
@pytest.mark.parametrize(("reviews", "at_least"), [(1_000, 0.9), (2_000, 0.92), (4_000, 0.95)])
def test_to_search_for_a_threshold_costs_little(reviews: int, at_least: float) -> None:
    """Fewer reviews promise less by any exact test, and the search takes little of that."""
    seeds = range(1000, 1020)
    found = sum(outcome(seed, reviews)[2] for seed in seeds) / len(seeds)

    assert found >= at_least * share_of_one_chosen_in_hindsight(reviews, seeds)
