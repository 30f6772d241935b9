"""A dataset with cells to review, in DuckDB or PostgreSQL."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pytest

from further_source import run_in_slices
from further_source.pipeline import set_defaults
from further_source.review.store import ReviewStore
from further_source.sandbox import Sandbox, completed, step
from tests.support.loading import WORKFLOW, source_of
from tests.support.slow import few_of

Load = Callable[..., None]


@pytest.fixture(params=few_of(["duckdb", "postgres"]))
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dlt.Pipeline]:
    """A pipeline into each of them, in turn."""
    set_defaults()
    dataset = f"review_{abs(hash(request.node.nodeid)):x}"
    if request.param == "duckdb":
        destination: Any = dlt.destinations.duckdb(str(tmp_path / "further.duckdb"))
    else:
        url = request.getfixturevalue("postgres_url")
        destination = dlt.destinations.postgres(url)
    yield dlt.pipeline("further", pipelines_dir=str(tmp_path / "p"), destination=destination, dataset_name=dataset)
    if request.param == "postgres":
        connection = psycopg2.connect(url)
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '30s'; DROP SCHEMA IF EXISTS {dataset}, {dataset}_staging CASCADE")
        connection.close()


@pytest.fixture
def load(pipeline: dlt.Pipeline, sandbox: Sandbox) -> Load:
    """Serves an execution of such rows and loads it, in place of what it had."""

    def loads(name: str, rows: list[dict[str, Any]], step_name: str = "Extract", **served: Any) -> None:
        answer = completed(WORKFLOW, name, [step(step_name, rows)])
        sandbox.serve(WORKFLOW, name, served.get("answer") or answer)
        run_in_slices(pipeline, source_of(sandbox, [name], reload=True))

    return loads


@pytest.fixture
def store(pipeline: dlt.Pipeline) -> ReviewStore:
    return ReviewStore(pipeline)
