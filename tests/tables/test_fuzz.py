"""Any JSON in any place of the documented shape, among good neighbours: nothing stops a load or gets lost."""

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dlt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from further_source.sandbox import Sandbox, completed, step
from tests.support.loading import WORKFLOW, cells_of, query, records, source_of, tables

REPEATABLE = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
AWKWARD = [
    "value", "confidence_score", "_row", "_dlt_id", "_dlt_load_id", "_deleted", "workflow_id", "step_index", "a", "A",
    "a__confidence", "a__v_text", "a__v_double", "external_id", "poll_outcome", "", "__", "\x00", "\ud800", "select",
    "metadata__external_id", "_dlt_parent_id", "a__v_bigint", "Größe", "x" * 300, "answer__other", "a.b",
]  # fmt: skip
TEXTS = st.sampled_from(AWKWARD) | st.text(st.characters(), max_size=4)
STRINGS = TEXTS | st.sampled_from(
    ["02139", "1.5", "true", "2024-01-01", "2024-01-01T00:00:00Z", "2024-05-05 10:00", "10:00:00", "NaN", "inf"]
)
NUMBERS = (
    st.sampled_from(
        [0, -1, 1.5, -0.0, 2**63, -(2**63) - 1, 2**53 + 1, 10**400, 1e300, 1e-320, 3.0, math.nan, -math.inf]
    )
    | st.integers()
)
SCALARS = st.none() | st.booleans() | NUMBERS | STRINGS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=8
)
CELLS = JSON | st.fixed_dictionaries({"value": JSON}, optional={"confidence_score": JSON, "page": JSON})
FIELDS = st.sampled_from(["a", "a__confidence", "a__v_text", "a__v_double"]) | TEXTS
ROWS = JSON | st.dictionaries(FIELDS, CELLS, max_size=5)
DATA = JSON | st.fixed_dictionaries(
    {}, optional={"schema": JSON, "metadata": JSON, "data": st.lists(ROWS, max_size=4) | ROWS}
)
STEPS = JSON | st.fixed_dictionaries(
    {"step_name": st.just("Extract") | TEXTS | JSON, "data": DATA}, optional={"more": JSON}
)
EXTRAS = st.dictionaries(TEXTS, JSON, max_size=4)
OVERRIDES = st.fixed_dictionaries({"steps": JSON | st.lists(STEPS, max_size=3)}, optional={"metadata": JSON | EXTRAS})
GOOD = [step("Good", [cells_of(a="text", b=1.5), {}])]


def load(bodies: list[Any], *, after: list[Any] | None = None) -> tuple[list[dict[str, Any]], int, set[str]]:
    """Loads the bodies, each between good neighbours; rows of `executions`, cells of good ones, and the tables."""
    with Sandbox() as sandbox, TemporaryDirectory() as directory:
        listed = []
        for number, body in enumerate(bodies):
            for name, payload in ((f"bad{number:02}", body), (f"good{number:02}", None)):
                sandbox.add(WORKFLOW, name, completed(WORKFLOW, name, GOOD) if payload is None else payload(name))
                listed.append(name)
        pipeline = dlt.pipeline(
            "further",
            destination=dlt.destinations.duckdb(str(Path(directory) / "further.duckdb")),
            dataset_name="further_data",
            pipelines_dir=directory,
        )
        half = len(listed) // 2 // 2 * 2
        for part in (listed[:half], listed):  # what the first load made must not be in the way of the second
            pipeline.run(source_of(sandbox, part))
        wide = query(pipeline, "SELECT a, b FROM rows_good WHERE workflow_execution_id LIKE 'good%'")
        assert sorted(wide, key=str) == sorted([("text", 1.5), (None, None)] * len(bodies), key=str)
        good = query(pipeline, "SELECT count(*) FROM cells WHERE workflow_execution_id LIKE 'good%'")
        return records(pipeline, "executions"), good[0][0], tables(pipeline)


ANSWERS = st.lists(st.tuples(OVERRIDES, EXTRAS), min_size=10, max_size=10)
BODIES = st.lists(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()), min_size=10, max_size=10)


@pytest.mark.slow
@settings(REPEATABLE, max_examples=14)
@given(ANSWERS)
def test_any_json_in_any_place_loads_and_harms_no_neighbour(
    answers: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    def body(override: dict[str, Any], extra: dict[str, Any]) -> Any:
        kept = {key: value for key, value in extra.items() if key not in ("workflow_id", "status")}
        return lambda name: {**completed(WORKFLOW, name, []), **kept, **override}

    executions, good, names = load([body(*answer) for answer in answers])

    assert len(executions) == 20
    assert {row["poll_outcome"] for row in executions} == {"completed"}
    assert good == 20
    step_count = sum(len(o["steps"]) if isinstance(o["steps"], list) else 1 for o, _ in answers)
    assert len(names) <= 4 + step_count


@pytest.mark.slow
@settings(REPEATABLE, max_examples=10)
@given(BODIES)
def test_any_bytes_in_place_of_an_answer_end_as_one_row(bodies: list[bytes]) -> None:
    executions, good, names = load([lambda name, body=body: body for body in bodies])

    assert len(executions) == 20
    assert {row["poll_outcome"] for row in executions} <= {"completed", "invalid", "unreachable"}
    assert (good, names) == (20, {"executions", "steps", "cells", "rows_good"})
