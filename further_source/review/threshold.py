"""The lowest confidence above which the error is at most a target, from a reviewed sample, by exact bounds.

A share of errors is bounded as Clopper and Pearson do it: the error is above the target only if so few errors in so
many reviews would be rarer than one minus the confidence level. That holds for one threshold that was chosen before.
Here the lowest is chosen that passes, and each further one that is tried is another chance to be wrong.

So the thresholds are tested in an order that the confidences alone decide, from the top down, each at the level that
is handed on by the one above it while that passes: fixed-sequence testing. Then the chance that any threshold passes
wrongly, and so that the lowest does, is at most one minus the confidence level. Bonferroni over all thresholds would
hold as well, but the thresholds are nested and nearly the same test many times, for which it pays in full.

What is lost is lost where a good threshold fails by chance and the sequence ends too early. Therefore it begins where
there are enough reviews above a threshold to forgive a few errors, and has only such thresholds as have just so many
reviews that one more error is forgiven. Of many reviews a tenth of the level begins at the very top, with the fewest
that can pass at all, and hands itself on (the fallback procedure of Wiens), for fields of which little is good.
"""

import math
import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby, takewhile
from typing import Any

from further_source.review.store import ReviewStore
from further_source.review.views import CELLS_FINAL
from further_source.tables.columns import THRESHOLDS

__all__ = ["Sampled", "Threshold", "compute_thresholds", "find_threshold", "reviews_without_error"]

_STEP = 1.02  # each threshold tested has at least so many times the reviews of the one before
_FORGIVEN = 3  # errors among the reviews that the first threshold has, if they are no more than half of all
_FIRST_SHARE = 0.3  # of all reviews, which the first threshold has at the least
_FAR = 1.25  # times the reviews that the first threshold should have
_EARLY = 0.1  # of the level, for a beginning at the top

Sampled = tuple[float, bool]
"""The confidence of a reviewed cell, and whether the extracted value was wrong."""


@dataclass(frozen=True)
class Threshold:
    """What a reviewed sample promises.

    Attributes:
        threshold: The lowest confidence above which (itself included) the error is at most the target; None where no
            promise can be given.
        reviewed: Reviews at and above it; all, where there is none.
        errors: Wrong values among these.
        error_upper: The upper bound of the error there.
        reviews_needed: Where there is no threshold, how many more reviews of a sample it needs at the least: so many if
            they find no further error. Else 0.
    """

    threshold: float | None
    reviewed: int
    errors: int
    error_upper: float
    reviews_needed: int


def reviews_without_error(target: float, alpha: float) -> int:
    """How many reviews without an error show that the error is at most the target."""
    return math.ceil(math.log(alpha) / math.log1p(-target))


def find_threshold(sample: Sequence[Sampled], target_error: float, confidence_level: float) -> Threshold:
    """The lowest threshold that passes, of a sample in which every cell of the population had the same chance.

    Args:
        sample: The reviewed cells.
        target_error: Above 0 and below 1.
        confidence_level: Above 0 and below 1: the chance at least that the promise holds.
    """
    alpha = 1 - confidence_level
    prefixes = _prefixes(sample)
    found = _lowest(prefixes, target_error, alpha)
    if found is not None:
        return Threshold(*found, _upper(found[2], found[1], alpha), 0)
    errors = sum(wrong for _, wrong in sample)
    upper = _upper(errors, len(sample), alpha)
    return Threshold(None, len(sample), errors, upper, _needed(prefixes, target_error, alpha))


_Prefix = tuple[float, int, int]
"""A confidence, the reviews at and above it, and the errors among them."""


def _prefixes(sample: Sequence[Sampled]) -> list[_Prefix]:
    """For each confidence that occurs, from the top down: reviews at and above it, and errors among them."""
    prefixes, reviewed, errors = [], 0, 0
    for confidence, alike in groupby(sorted(sample, key=lambda one: -one[0]), key=lambda one: one[0]):
        for _, wrong in alike:
            reviewed, errors = reviewed + 1, errors + wrong
        prefixes.append((confidence, reviewed, errors))
    return prefixes


def _lowest(prefixes: Sequence[_Prefix], target: float, alpha: float) -> _Prefix | None:
    """The lowest threshold that passes in its turn."""
    found = None
    level = 0.0
    for (confidence, reviewed, errors), added in _tested(prefixes, target, alpha):
        level += added
        if level and _chance(errors, reviewed, target) <= level:
            found = (confidence, reviewed, errors)
        else:
            level = 0.0
    return found


def _tested(prefixes: Sequence[_Prefix], target: float, alpha: float) -> list[tuple[_Prefix, float]]:
    """The thresholds that are tested, and the level that is put in at each; no verdict decides which they are."""
    counts = [reviewed for _, reviewed, _ in prefixes]
    size = counts[-1] if counts else 0
    added: dict[int, float] = {}
    beginnings = _beginnings(size, target, alpha)
    ends = [start for start, _ in beginnings[1:]] + [size]
    for (start, level), end in zip(beginnings, ends, strict=True):
        first = _first(counts, start, reviews_without_error(target, level))
        added[first] = added.get(first, 0.0) + level
        for reviewed in _sizes(start, end, target, level):
            added.setdefault(max(bisect_left(counts, reviewed), first), 0.0)
    if min(added) < len(counts):
        added.setdefault(len(counts) - 1, 0.0)
    return [(prefixes[place], added[place]) for place in sorted(added) if place < len(counts)]


def _first(counts: Sequence[int], start: float, least: float) -> int:
    """The threshold with `start` reviews or more; the one above where many cells of one confidence lie between."""
    first = bisect_left(counts, start)
    is_far = first == len(counts) or counts[first] > start * _FAR
    return first - 1 if is_far and first and counts[first - 1] >= least else first


def _beginnings(size: int, target: float, alpha: float) -> list[tuple[float, float]]:
    """Numbers of reviews with which a sequence begins, and the level of each, of a sample of that size."""
    least = reviews_without_error(target, alpha)
    about = max(min(_size_that_passes(_FORGIVEN, target, alpha, least), size / 2), size * _FIRST_SHARE)
    start = max(takewhile(lambda reviewed: reviewed <= about, _sizes(0, size, target, alpha)), default=least)
    top = reviews_without_error(target, alpha * _EARLY)
    return [(start, alpha)] if start < 3 * top else [(top, alpha * _EARLY), (start, alpha * (1 - _EARLY))]


def _sizes(start: float, end: float, target: float, level: float) -> Iterator[int]:
    """Numbers of reviews, above `start` and below `end`, from which on one more error is forgiven."""
    size = reviews_without_error(target, level)
    if start >= size:
        size = _next_size(math.floor(start), target, level)
    while size < end:
        yield size
        size = _next_size(max(math.ceil(size * _STEP) - 1, size), target, level)


def _next_size(size: int, target: float, level: float) -> int:
    """The first number of reviews above `size` from which on one more error is forgiven."""
    from scipy.special import bdtrik  # noqa: PLC0415  of the extra

    errors = math.floor(bdtrik(level, size, target))
    while errors >= 0 and _chance(errors, size, target) > level:
        errors -= 1
    while _chance(errors + 1, size, target) <= level:
        errors += 1
    return _size_that_passes(errors + 1, target, level, size)


def _chance(errors: int, reviewed: int, share: float) -> float:
    """Of so few errors or fewer, if that share of all is wrong."""
    from scipy.special import bdtr  # noqa: PLC0415  of the extra

    return float(bdtr(errors, reviewed, share))


def _upper(errors: int, reviewed: int, alpha: float) -> float:
    """Clopper and Pearson's upper bound, one-sided."""
    from scipy.special import betaincinv  # noqa: PLC0415  of the extra

    return 1.0 if errors >= reviewed else float(betaincinv(errors + 1, reviewed - errors, 1 - alpha))


def _needed(prefixes: Sequence[_Prefix], target: float, alpha: float) -> int:
    """How many more reviews until some threshold passes, if they are spread as these are and find no further error."""
    size = prefixes[-1][1] if prefixes else 0
    if not size:
        return reviews_without_error(target, alpha)

    def would_pass(more: int) -> bool:
        grown = [(confidence, reviewed + more * reviewed // size, errors) for confidence, reviewed, errors in prefixes]
        return _lowest(grown, target, alpha) is not None

    low, high = 0, 1
    while not would_pass(high):
        low, high = high, high + max(1, high // 3)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if would_pass(middle) else (middle, high)
    return high


def _size_that_passes(errors: int, target: float, alpha: float, least: int) -> int:
    low, high = least, least + math.ceil(2 / target)
    while _chance(errors, high, target) > alpha:
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _chance(errors, middle, target) <= alpha else (middle + 1, high)
    return low


# Of a dataset


def compute_thresholds(
    store: ReviewStore, target_error: float, confidence_level: float, *, by_step: bool = False
) -> list[dict[str, Any]]:
    """Thresholds of each step and field, or of each step; adds them to the table `thresholds`, and returns its records.

    Only reviews of samples count: of what was looked at for its low confidence, nothing follows for the rest. A value
    that was unreadable counts as wrong, for nobody can promise that it is right.

    Args:
        store: The reviews, prepared.
        target_error: As of `find_threshold`, for each line on its own.
        confidence_level: As of `find_threshold`.
        by_step: One threshold for all fields of a step. Then of fields with more reviews to a cell some are left out by
            lot, so that each cell of the step had the same chance; a field without any leaves its step without any.
    """
    sizes = {row[:2]: int(row[2]) for row in store.rows(_SIZES)}
    samples: dict[Any, list[Sampled]] = {group: [] for group in sizes}
    for *_, step_name, field, confidence, verdict in store.rows(_SAMPLED):
        samples[step_name, field].append((confidence, verdict != "correct"))
    if by_step:
        sizes, samples = _joined(sizes, samples)
    now = datetime.now(timezone.utc)
    records = []
    for group in sorted(sizes, key=str):
        found = find_threshold(samples[group], target_error, confidence_level)
        records.append(
            {
                "step_name": group[0],
                "field": group[1],
                "threshold": found.threshold,
                "target_error": target_error,
                "confidence_level": confidence_level,
                "sampled": len(samples[group]),
                "reviewed": found.reviewed,
                "errors": found.errors,
                "error_upper": found.error_upper,
                "cells": sizes[group],
                "cells_through": 0 if found.threshold is None else _through(store, group, found.threshold),
                "reviews_needed": found.reviews_needed,
                "computed_at": now,
            }
        )
    store.append(THRESHOLDS, records)
    return records


_SIZES = (
    f"SELECT step_name, field, count(*) FROM {{{CELLS_FINAL}}} WHERE confidence IS NOT NULL GROUP BY step_name, field"  # noqa: S608
)
_SAMPLED = (
    f"SELECT workflow_id, workflow_execution_id, step_index, row_index, step_name, field, confidence, review_verdict "  # noqa: S608
    f"FROM {{{CELLS_FINAL}}} WHERE review_sampled AND review_verdict IS NOT NULL AND confidence IS NOT NULL "
    "ORDER BY workflow_id, workflow_execution_id, step_index, row_index, field, occurrence"
)


def _joined(
    sizes: dict[Any, int], samples: dict[Any, list[Sampled]]
) -> tuple[dict[Any, int], dict[Any, list[Sampled]]]:
    step_sizes: dict[Any, int] = {}
    step_samples: dict[Any, list[Sampled]] = {}
    lot = random.Random(0)  # noqa: S311  the same reviews each time
    for step in sorted({group[0] for group in sizes}, key=str):
        fields = sorted(group for group in sizes if group[0] == step)
        share = min(len(samples[group]) / sizes[group] for group in fields)
        step_sizes[step, None] = sum(sizes[group] for group in fields)
        step_samples[step, None] = [
            one for group in fields for one in lot.sample(samples[group], math.floor(share * sizes[group] + 1e-9))
        ]
    return step_sizes, step_samples


def _through(store: ReviewStore, group: Any, threshold: float) -> int:
    step_name, field = group
    wheres = ["confidence >= %s", "step_name IS NULL" if step_name is None else "step_name = %s"]
    values = [threshold, *([] if step_name is None else [step_name])]
    if field is not None:
        wheres.append("field = %s")
        values.append(field)
    ((count,),) = store.rows(f"SELECT count(*) FROM {{{CELLS_FINAL}}} WHERE {' AND '.join(wheres)}", *values)  # noqa: S608
    return int(count)
