"""The lowest confidence above which the error is at most a target, from a reviewed sample, by exact bounds.

A share of errors is bounded as Clopper and Pearson do it: the error is above the target only if so few errors in so
many reviews would be rarer than one minus the confidence level. That holds for one threshold that was chosen before.
Here the lowest is chosen that passes, and each further one that is tried is another chance to be wrong.

So the thresholds are tested in an order that the confidences alone decide, from the top down, each at the level that
is handed on by the one above it while that passes (the fallback procedure of Wiens; with one beginning it is
fixed-sequence testing). All levels that are put in are one minus the confidence level together, whence the chance that
any threshold passes wrongly, and so that the lowest does, is at most that. Bonferroni over all thresholds would hold as
well, but the thresholds are nested and nearly the same test many times, for which it pays in full.

The first threshold tested is the one with as few reviews above it as can pass at all, 299 without an error for 1 % at
95 %. With many reviews there is more than one beginning: a field with few errors at the very top fails the first one by
chance, and passes where there are more reviews.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from typing import Any

from further_source.review.store import ReviewStore
from further_source.review.views import CELLS_FINAL
from further_source.tables.columns import THRESHOLDS

__all__ = ["Sampled", "Threshold", "compute_thresholds", "find_threshold", "reviews_without_error"]

_STEP = 1.02  # each threshold tested has so many times the reviews of the one before
_MAX_BEGINNINGS = 3

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
    found = None
    level = 0.0
    beginnings = _beginnings(len(sample), target_error, alpha)
    for confidence, reviewed, errors in _tested(prefixes, beginnings[0]):
        while beginnings and reviewed >= beginnings[0]:
            level += alpha / _count(len(sample), target_error, alpha)
            beginnings = beginnings[1:]
        if level and _chance(errors, reviewed, target_error) <= level:
            found = (confidence, reviewed, errors)
        else:
            level = 0.0
    if found is not None:
        return Threshold(*found, _upper(found[2], found[1], alpha), 0)
    errors = sum(wrong for _, wrong in sample)
    upper = _upper(errors, len(sample), alpha)
    return Threshold(None, len(sample), errors, upper, _needed(prefixes, len(sample), target_error, alpha))


def _prefixes(sample: Sequence[Sampled]) -> list[tuple[float, int, int]]:
    """For each confidence that occurs, from the top down: reviews at and above it, and errors among them."""
    prefixes, reviewed, errors = [], 0, 0
    for confidence, alike in groupby(sorted(sample, key=lambda one: -one[0]), key=lambda one: one[0]):
        for _, wrong in alike:
            reviewed, errors = reviewed + 1, errors + wrong
        prefixes.append((confidence, reviewed, errors))
    return prefixes


def _count(size: int, target: float, alpha: float) -> int:
    """How many beginnings there are: more, the more reviews there are."""
    least = reviews_without_error(target, alpha)
    return max(1, min(_MAX_BEGINNINGS, int(math.log2(max(size / least, 1)))))


def _beginnings(size: int, target: float, alpha: float) -> list[float]:
    """Numbers of reviews, evenly spread by their ratio, at which a share of the level is put in."""
    count = _count(size, target, alpha)
    least = reviews_without_error(target, alpha / count)
    return [least * (size / least) ** (number / count) for number in range(count)]


def _tested(prefixes: Sequence[tuple[float, int, int]], least: float) -> list[tuple[float, int, int]]:
    """The thresholds that are tested; which ones, no verdict decides."""
    tested, following = [], least
    for prefix in prefixes:
        if prefix[1] >= following:
            tested.append(prefix)
            following = max(prefix[1] * _STEP, prefix[1] + 1)
    if prefixes and prefixes[-1][1] >= least and tested[-1] != prefixes[-1]:
        tested.append(prefixes[-1])
    return tested


def _chance(errors: int, reviewed: int, share: float) -> float:
    """Of so few errors or fewer, if that share of all is wrong."""
    from scipy.special import bdtr  # noqa: PLC0415  of the extra

    return float(bdtr(errors, reviewed, share))


def _upper(errors: int, reviewed: int, alpha: float) -> float:
    """Clopper and Pearson's upper bound, one-sided."""
    from scipy.special import betaincinv  # noqa: PLC0415  of the extra

    return 1.0 if errors >= reviewed else float(betaincinv(errors + 1, reviewed - errors, 1 - alpha))


def _needed(prefixes: Sequence[tuple[float, int, int]], size: int, target: float, alpha: float) -> int:
    """How many more reviews of all, so that the part above some threshold could pass without a further error."""
    alpha /= _count(size, target, alpha)
    least = reviews_without_error(target, alpha)
    needed = [_size_that_passes(0, target, alpha, least)] if not prefixes else []
    best: dict[int, int] = {errors: reviewed for _, reviewed, errors in prefixes}
    for errors, reviewed in best.items():
        enough = _size_that_passes(errors, target, alpha, least)
        needed.append(math.ceil(max(enough - reviewed, 1) * size / reviewed))
        if enough > (min(needed) + size) * 2:
            break
    return min(needed)


def _size_that_passes(errors: int, target: float, alpha: float, least: int) -> int:
    low, high = least, least + 1
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
