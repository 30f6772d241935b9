"""Datasets of known cells, made by plain SQL on DuckDB and on PostgreSQL."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dlt
import pytest

from further_source.sandbox import Sandbox, cell, completed, failed, step
from tests.support.loading import WORKFLOW, source_of
from tests.support.slow import few_of

SCRIPT = "<script>alert('step')</script>"
SECRET = "Sandoval, Sean & <b>Sons</b>"  # the value of every text cell
Load = Callable[[dlt.Pipeline], None]


@pytest.fixture
def load(sandbox: Sandbox) -> Load:
    """Loads three executions: names that are markup, fields of two types, cells without confidence, and a failure."""

    def rows(low: float) -> list[Any]:
        return [
            {
                "claimant": cell(SECRET, low),
                "paid & <i>due</i>": cell(number if number % 3 else "n/a", 0.29 + number / 50),
                "note": cell(None, None),
            }
            for number in range(30)
        ]

    def into(pipeline: dlt.Pipeline) -> None:
        sandbox.serve(WORKFLOW, "a", completed(WORKFLOW, "a", [step("Extract", rows(0.31)), step(SCRIPT, rows(0.9))]))
        sure = [{"claimant": cell(SECRET, 0.97)}] * 7
        sandbox.serve(WORKFLOW, "b", completed(WORKFLOW, "b", [step("Extract", sure)]))
        sandbox.serve(WORKFLOW, "c", failed(WORKFLOW, "c"))
        for listed in (["a"], ["b", "c"]):
            pipeline.run(source_of(sandbox, listed))

    return into


@pytest.fixture(params=few_of(["duckdb", "postgres"]))
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, pipeline: dlt.Pipeline) -> Iterator[dlt.Pipeline]:
    """A pipeline into an empty dataset of either."""
    if request.param == "duckdb":
        yield pipeline
        return
    made = dlt.pipeline(
        "further",
        pipelines_dir=str(tmp_path / "pipelines"),
        destination=dlt.destinations.postgres(request.getfixturevalue("postgres_url")),
        dataset_name=f"report_{next(_numbers)}_{tmp_path.name}"[:40],
    )
    yield made
    with made.sql_client() as client:
        if client.has_dataset():
            client.drop_dataset()


_numbers = itertools.count()
