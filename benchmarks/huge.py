"""One huge answer."""

import resource
from typing import Any

import orjson

from benchmarks import ingest
from benchmarks.measure import timed
from benchmarks.payloads import bodies


def loaded(rows: int, fields: int) -> dict[str, Any]:
    """Asked and loaded into `cells`."""
    return ingest.ours(1, rows, fields, tables=["executions", "steps", "cells"])


def parsed(rows: int, fields: int) -> dict[str, Any]:
    """`orjson.loads` of the same bytes, and nothing else; `before_mb` is what the bytes alone took."""
    ((_, body),) = bodies(1, rows, fields)
    result: dict[str, Any] = {"mb": len(body) / 1e6}
    result["before_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with timed(result):
        orjson.loads(body)
    return result
