"""Loads into a data lake that holds the loads before: what the hundredth costs beside the first."""

import statistics
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import dlt

from benchmarks.measure import timed
from benchmarks.payloads import WORKFLOW_ID, execution_ids
from benchmarks.serve import TOKEN, serving
from further_source import further_source, run_in_slices
from further_source.destination.compacting import compact, compact_where_due

_EXECUTIONS, _ROWS, _FIELDS = 5, 100, 20  # of a load: 10,000 cells
_AVERAGED = 3


def loads(table_format: str, loads: int, compact_every: int = 0) -> dict[str, Any]:
    """CPU seconds of loads, each the median of three: the first, the last, and those after `compact`; and of that.

    With `compact_every` what that takes after each load is measured by itself, and summed up.
    """
    seconds, compacting, result = [], [0.0], {}
    count = _EXECUTIONS * (loads + _AVERAGED)
    with serving(count, _ROWS, _FIELDS) as base_url:
        _load(base_url, _pipeline("warm"), table_format, execution_ids(1))  # whatever is imported with the first load
        ids = iter(execution_ids(count))

        def load(times: int) -> Iterator[float]:
            for _ in range(times):
                yield _load(base_url, _pipeline("data"), table_format, list(islice(ids, _EXECUTIONS)))
                begun = time.process_time()
                compact_where_due(_pipeline("data"), compact_every)
                compacting[0] += time.process_time() - begun

        seconds = list(load(loads))
        result = {"first": statistics.median(seconds[:_AVERAGED]), "last": statistics.median(seconds[-_AVERAGED:])}
        result["compacting"] = compacting[0]
        with timed(result, "compact"):
            compact(_pipeline("data"))
        return {**result, "compact": result["cpu_compact"], "after": statistics.median(load(_AVERAGED))}


def _pipeline(dataset: str) -> dlt.Pipeline:
    return dlt.pipeline(f"benchmark_{dataset}", destination=dlt.destinations.filesystem("lake"), dataset_name=dataset)


def _load(base_url: str, pipeline: dlt.Pipeline, table_format: str, executions: list[str]) -> float:
    source = further_source(
        executions=[(WORKFLOW_ID, execution_id) for execution_id in executions],
        base_url=base_url,
        access_token=TOKEN,
        max_requests_per_second=1_000_000,
    )
    result: dict[str, Any] = {}
    with timed(result):
        run_in_slices(pipeline, source, table_format=table_format)
    return float(result["cpu_seconds"])
