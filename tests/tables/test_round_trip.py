"""What the API answered can be rebuilt from `steps` and `cells` alone."""

import json
import re
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dlt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from further_source.sandbox import Sandbox, completed
from tests.support.loading import WORKFLOW, records, source_of

TEXTS = st.text(st.characters(), max_size=8)
NUMBERS = (
    st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([-0.0, 1e-320, 2**63, -(2**63), 2**53 + 1])
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS | st.sampled_from(["02139", "1.50", "null", "true"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=5
)
CELLS = st.fixed_dictionaries(
    {"value": VALUES, "confidence_score": st.floats(0, 1)},
    optional={"page": VALUES, "bounding_box": st.lists(st.floats(0, 1), max_size=4)},
)
FIELDS = st.sampled_from(["a", "A", "a__confidence", "Größe", "", "_row", "workflow_id"]) | TEXTS
STEPS = st.fixed_dictionaries(
    {
        "step_name": TEXTS | st.sampled_from(["Extract", "Summary"]),
        "data": st.fixed_dictionaries(
            {
                "schema": st.dictionaries(TEXTS, VALUES, max_size=2),
                "data": st.lists(st.dictionaries(FIELDS, CELLS, max_size=5), max_size=4),
                "metadata": st.dictionaries(TEXTS, VALUES, max_size=2),
            }
        ),
    }
)
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(value: Any) -> Any:
    """The value with U+FFFD for what no SQL destination holds; of two keys that become one the last is left."""
    if isinstance(value, str):
        return UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return value


def value_of(cell: dict[str, Any]) -> Any:
    """The value of a record of `cells`."""
    text = cell["value"]
    if cell["value_type"] == "string":
        return text
    value = None if cell["value_type"] == "null" else json.loads(text)
    kinds = {"null": type(None), "boolean": bool, "number": int | float, "array": list, "object": dict}
    assert isinstance(value, kinds[cell["value_type"]])
    assert cell["value_number"] == (float(Decimal(text)) if cell["value_type"] == "number" else None)
    return value


def rebuilt(steps: list[dict[str, Any]], cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The `steps` of one execution in the API's own shape."""
    found = []
    for index, step in enumerate(steps):
        assert step["step_index"] == index
        rows: list[dict[str, Any]] = [{} for _ in range(step["row_count"])]
        for cell in cells:
            if cell["step_index"] == index:
                assert cell["step_name"] == step["step_name"]
                assert cell["field"] not in rows[cell["row_index"]]
                rows[cell["row_index"]][cell["field"]] = {
                    "value": value_of(cell),
                    "confidence_score": cell["confidence"],
                    **json.loads(cell["extra"] or "{}"),
                }
        found.append(
            {
                "step_name": step["step_name"],
                "data": {
                    "schema": json.loads(step["schema"]),
                    "data": rows,
                    "metadata": json.loads(step["metadata"]),
                },
            }
        )
    return found


REPEATABLE = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
EXECUTIONS = st.lists(st.lists(STEPS, max_size=3), min_size=10, max_size=20)


@pytest.mark.slow
@settings(REPEATABLE, max_examples=3)
@given(EXECUTIONS)
def test_steps_can_be_rebuilt_from_the_tables(executions: list[list[dict[str, Any]]]) -> None:
    assert_can_be_rebuilt(executions)


@pytest.mark.slow
@settings(REPEATABLE, max_examples=30)
@given(EXECUTIONS)
def test_steps_of_many_kinds_can_be_rebuilt_from_the_tables(executions: list[list[dict[str, Any]]]) -> None:
    assert_can_be_rebuilt(executions)


def assert_can_be_rebuilt(executions: list[list[dict[str, Any]]]) -> None:
    with Sandbox() as sandbox, TemporaryDirectory() as directory:
        for number, steps in enumerate(executions):
            sandbox.serve(WORKFLOW, f"ex{number:02}", completed(WORKFLOW, f"ex{number:02}", steps))
        pipeline = dlt.pipeline(
            "further",
            destination=dlt.destinations.duckdb(str(Path(directory) / "further.duckdb")),
            dataset_name="further_data",
            pipelines_dir=directory,
        )

        pipeline.run(source_of(sandbox, [f"ex{number:02}" for number in range(len(executions))]))

        loaded = records(pipeline, "steps"), records(pipeline, "cells")
    for number, steps in enumerate(executions):
        own = [[row for row in rows if row["workflow_execution_id"] == f"ex{number:02}"] for rows in loaded]
        # Compared as text: 1 and 1.0, true and 1, 0.0 and -0.0 are equal in Python.
        assert json.dumps(rebuilt(*own), sort_keys=True) == json.dumps(storable(steps), sort_keys=True)
