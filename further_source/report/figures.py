"""What the report shows, as plain numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from math import sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity

from further_source.exceptions import FurtherError
from further_source.report.queries import (
    BUCKETS,
    REVIEW_COLUMNS,
    THRESHOLD_COLUMNS,
    WAITING_BOUNDS,
    Queries,
    columns_of,
    rows,
)

__all__ = [
    "Change",
    "FieldConfidence",
    "Figures",
    "Reviewed",
    "Threshold",
    "Through",
    "WorstCell",
    "read_figures",
    "share_bounds",
]

_COMPARED = timedelta(days=7)
_LEVEL = 0.95
_ENOUGH = 30  # cells, below which a standard error tells little
_NOTEWORTHY = 4  # standard errors: with hundreds of fields two or three of them happen by chance


class FieldConfidence(NamedTuple):
    """The confidence of a step's field; `mean` and `lowest` are None where no cell has one."""

    step_name: str | None
    field: str | None
    cells: int
    with_confidence: int
    mean: float | None
    lowest: float | None


class Change(NamedTuple):
    """The mean confidence of a field in what was loaded before a moment, and from then on."""

    step_name: str | None
    field: str | None
    cells_before: int
    before: float
    cells_after: int
    after: float
    standard_error: float

    @property
    def difference(self) -> float:
        return self.after - self.before

    @property
    def is_noteworthy(self) -> bool:
        """Whether it is more than chance makes of hundreds of fields, and more than a hundredth."""
        if min(self.cells_before, self.cells_after) < _ENOUGH:
            return False
        return abs(self.difference) >= max(0.01, _NOTEWORTHY * self.standard_error)


class WorstCell(NamedTuple):
    """Where a cell of low confidence stands. `value` is None unless values were asked for."""

    workflow_id: str
    workflow_execution_id: str
    step_index: int
    step_name: str | None
    row_index: int
    field: str | None
    confidence: float
    value: str | None = None


class Through(NamedTuple):
    """What would go straight through at a threshold: cells of at least this confidence, and documents of no others.

    `error` is the share of wrong cells among those, as far as reviews tell it, else None.
    """

    threshold: float
    cells: int
    documents: int
    error: float | None


class Reviewed(NamedTuple):
    """Reviewed cells of confidence from `lower` to below `upper`: how many, how many right, bounds of that share."""

    lower: float
    upper: float
    cells: int
    right: int
    bounds: tuple[float, float]

    @property
    def share(self) -> float:
        return self.right / self.cells


class Threshold(NamedTuple):
    """A row of `thresholds` that is in force; `threshold` is None where reviews cannot promise one yet."""

    step_name: str | None
    field: str | None
    threshold: float | None
    target_error: float
    confidence_level: float
    cells: int
    cells_through: int
    reviews_needed: int | None


@dataclass(frozen=True)
class Figures:
    """All of a report.

    Attributes:
        since: Only what was loaded from then on is counted, if given.
        loads: How many, and the first and last of them.
        executions: How many are counted, and how many of them completed.
        loads_by_day: Loads by day, in UTC as all days are.
        outcomes: Executions by day of the last asking and by `poll_outcome`.
        waiting: Ended executions by the class of their time from first to last asking, as `WAITING_BOUNDS` has them.
        fields: Steps and fields, the lowest mean first within a step.
        cells: Cells by the hundredth of their confidence; None are those without one.
        documents: Executions with cells, by the hundredth of their lowest confidence; None if a cell has none.
        through: What would go straight through, threshold by threshold.
        types: Cells by type, of fields that came in more than one.
        without_column: Wide table, step, field and reason.
        compared_at: The changes are those from before this moment to after it.
        changes: Of fields with confidences on both sides, the most certain change first.
        reviewed: Reviews by class of confidence; empty where there is none.
    """

    since: datetime | None
    loads: int
    first_load: datetime | None
    last_load: datetime | None
    executions: int
    completed: int
    last_asked: datetime | None
    loads_by_day: Mapping[date, int]
    outcomes: Mapping[date, Mapping[str, int]]
    waiting: Sequence[int]
    fields: Sequence[FieldConfidence]
    cells: Mapping[int | None, int]
    documents: Mapping[int | None, int]
    through: Sequence[Through]
    types: Mapping[tuple[str | None, str | None], Mapping[str, int]]
    without_column: Sequence[tuple[str, str | None, str, str]]
    worst: Sequence[WorstCell]
    has_values: bool
    compared_at: datetime | None
    changes: Sequence[Change]
    reviewed: Sequence[Reviewed]
    thresholds: Sequence[Threshold]

    @property
    def cell_count(self) -> int:
        return sum(self.cells.values())

    @property
    def document_count(self) -> int:
        return sum(self.documents.values())


def read_figures(pipeline: dlt.Pipeline, since: datetime | None = None, *, values: bool = False) -> Figures:
    """Has the destination compute them.

    Args:
        since: Count only what was loaded from then on; changes are those that came with it.
        values: Also read the values of the worst cells; else no value leaves the destination.

    Raises:
        FurtherError: The dataset has no tables yet.
    """
    queries = Queries(since)
    with pipeline.sql_client() as client:

        def ask(query: str) -> list[tuple[Any, ...]]:
            return list(rows(query, client))

        try:
            [(loads, first_load, last_load)] = ask(queries.freshness())
            [(executions, completed, last_asked)] = ask(queries.totals())
        except DestinationUndefinedEntity:
            raise FurtherError("nothing is loaded into this dataset yet") from None
        cells = _by_bucket(ask(queries.cells()))
        documents = _by_bucket(ask(queries.documents()))
        has_reviews = set(columns_of("reviews", client)) >= REVIEW_COLUMNS
        reviews = {bucket: (n, wrong) for bucket, n, wrong in ask(queries.reviews())} if has_reviews else {}
        has_thresholds = set(columns_of("thresholds", client)) >= THRESHOLD_COLUMNS
        compared_at = since or (_utc(last_load) - _COMPARED if last_load else None)
        return Figures(
            since=since,
            loads=int(loads),
            first_load=_utc(first_load),
            last_load=_utc(last_load),
            executions=int(executions),
            completed=int(completed or 0),
            last_asked=_utc(last_asked),
            loads_by_day={_day(day): int(count) for day, count in ask(queries.loads())},
            outcomes=_outcomes(ask(queries.outcomes())),
            waiting=_waiting(ask(queries.waiting())),
            fields=_fields(ask(queries.fields())),
            cells=cells,
            documents=documents,
            through=_through(cells, documents, reviews),
            types=_types(ask(queries.types())),
            without_column=[
                (str(table), step, str(field), str(reason))
                for table, step, field, reason in (
                    ask(queries.without_column()) if columns_of("fields", client) else ()
                )
            ],
            worst=[WorstCell(*row) for row in ask(queries.worst(values=values))],
            has_values=values,
            compared_at=compared_at,
            changes=_changes(ask(queries.changes(compared_at))) if compared_at else [],
            reviewed=_reviewed(reviews),
            thresholds=[Threshold(*row) for row in ask(queries.thresholds())] if has_thresholds else [],
        )


def _utc(moment: Any) -> Any:
    """A moment of a database in UTC; those without a zone are UTC already."""
    if moment is None or moment.tzinfo is None:
        return moment and moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc)


def _day(day: Any) -> date:
    return day.date() if isinstance(day, datetime) else day


def _by_bucket(counted: Iterable[tuple[Any, ...]]) -> dict[int | None, int]:
    return {None if bucket is None else int(bucket): int(count) for bucket, count in counted}


def _outcomes(counted: Iterable[tuple[Any, ...]]) -> dict[date, dict[str, int]]:
    days: dict[date, dict[str, int]] = {}
    for day, outcome, count in counted:
        if day is not None:
            days.setdefault(_day(day), {})[str(outcome)] = int(count)
    return days


def _waiting(counted: Iterable[tuple[Any, ...]]) -> list[int]:
    classes = [0] * (len(WAITING_BOUNDS) + 1)
    for number, count in counted:
        classes[int(number)] = int(count)
    return classes if any(classes) else []


def _fields(counted: Iterable[tuple[Any, ...]]) -> list[FieldConfidence]:
    fields = [
        FieldConfidence(step, field, int(cells), int(known), _double(mean), _double(lowest))
        for step, field, cells, known, mean, lowest in counted
    ]
    return sorted(fields, key=lambda one: (one.step_name or "", one.mean is None, one.mean or 0.0, one.field or ""))


def _double(number: Any) -> float | None:
    return None if number is None else float(number)


def _types(counted: Iterable[tuple[Any, ...]]) -> dict[tuple[str | None, str | None], dict[str, int]]:
    types: dict[tuple[str | None, str | None], dict[str, int]] = {}
    for step, field, kind, count in sorted(counted, key=lambda row: tuple(map(str, row[:3]))):
        types.setdefault((step, field), {})[str(kind)] = int(count)
    return types


def _changes(counted: Iterable[tuple[Any, ...]]) -> list[Change]:
    sides: dict[tuple[Any, Any], dict[int, tuple[int, float, float]]] = {}
    for step, field, later, cells, mean, deviation in counted:
        sides.setdefault((step, field), {})[int(later)] = int(cells), float(mean), float(deviation or 0.0)
    changes = [
        Change(step, field, *both[0][:2], *both[1][:2], sqrt(sum(s**2 / n for n, _, s in both.values())))
        for (step, field), both in sides.items()
        if len(both) == 2
    ]
    return sorted(changes, key=lambda one: (not one.is_noteworthy, -abs(one.difference), str(one[:2])))


# What would go straight through, and whether rightly


def _through(
    cells: Mapping[int | None, int], documents: Mapping[int | None, int], reviews: Mapping[int, tuple[int, int]]
) -> list[Through]:
    """From the highest threshold down, each adds what has just this confidence."""
    classes = _classes(reviews)
    through: list[Through] = []
    of_cells = of_documents = 0
    wrong: float | None = 0.0
    for bucket in range(BUCKETS, -1, -1):
        of_cells += cells.get(bucket, 0)
        of_documents += documents.get(bucket, 0)
        if cells.get(bucket):
            reviewed, errors = classes.get(_class_of(bucket), (0, 0))
            # One class without reviews, and nothing is known of all below it.
            wrong = None if wrong is None or not reviewed else wrong + cells[bucket] * errors / reviewed
        error = wrong / of_cells if wrong is not None and of_cells and reviews else None
        through.append(Through(bucket / BUCKETS, of_cells, of_documents, error))
    return through[::-1]


_CLASS_BOUNDS = (0, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95, 98, 101)
"""The classes of confidence that reviews are counted in, in hundredths; finer where most cells are."""


def _class_of(bucket: int) -> int:
    return sum(bucket >= bound for bound in _CLASS_BOUNDS) - 1


def _classes(reviews: Mapping[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    classes: dict[int, tuple[int, int]] = {}
    for bucket, (reviewed, wrong) in reviews.items():
        before = classes.get(_class_of(int(bucket)), (0, 0))
        classes[_class_of(int(bucket))] = before[0] + int(reviewed), before[1] + int(wrong)
    return classes


def _reviewed(reviews: Mapping[int, tuple[int, int]]) -> list[Reviewed]:
    return [
        Reviewed(
            _CLASS_BOUNDS[number] / BUCKETS,
            min(1.0, _CLASS_BOUNDS[number + 1] / BUCKETS),
            cells,
            cells - wrong,
            share_bounds(cells - wrong, cells),
        )
        for number, (cells, wrong) in sorted(_classes(reviews).items())
    ]


def share_bounds(hits: int, count: int, level: float = _LEVEL) -> tuple[float, float]:
    """Wilson's bounds of a share, of `hits` in `count`, between which it is at this level."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, widened = hits / count, 1 + z**2 / count
    middle = (share + z**2 / (2 * count)) / widened
    half = z / widened * sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)
