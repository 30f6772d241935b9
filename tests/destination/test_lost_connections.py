"""PostgreSQL whose connection is lost after it has committed: dlt loads the file once more, and each row comes once."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import dlt
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from further_source import run_in_slices
from further_source.lock import only_load
from further_source.sandbox import Sandbox
from tests.conftest import MakePipeline
from tests.support.cutting import CutConnections
from tests.support.loading import cells_of, query, serve_rows, source_of
from tests.support.slow import few_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sockets in directories")
COUNTS = {"executions": 1, "steps": 1, "cells": 2, "rows_extract": 2}


@pytest.fixture
def connections(postgres_url: str) -> Iterator[CutConnections]:
    (server,) = parse_qs(urlsplit(postgres_url).query)["host"]
    # Not in a directory of pytest's: the name of a socket may not be long.
    with tempfile.TemporaryDirectory() as directory, closing(CutConnections(Path(server), Path(directory))) as cut:
        yield cut


@pytest.fixture
def pipeline(
    request: pytest.FixtureRequest, connections: CutConnections, make_pipeline: MakePipeline, postgres_url: str
) -> dlt.Pipeline:
    (server,) = parse_qs(urlsplit(postgres_url).query)["host"]
    url = postgres_url.replace(server, str(connections.directory))
    return make_pipeline(
        destination=dlt.destinations.postgres(url), dataset_name=f"cut_{abs(hash(request.node.name)):x}"
    )


def counts(pipeline: dlt.Pipeline) -> dict[str, int]:
    return {table: query(pipeline, f"SELECT count(*) FROM {table}")[0][0] for table in COUNTS}


@pytest.mark.parametrize(
    ("after", "lease"),
    [
        ('"."cells"', 180),
        *few_of([('"."steps"', 180), ('"."rows_extract"', 180), ('_staging"."executions"', 180)]),
        *few_of([('_staging"."cells"', 0), ('_staging"."executions"', 0)]),
    ],
)
def test_a_file_is_loaded_once_though_nobody_heard_of_its_commit(
    after: str,
    lease: float,
    connections: CutConnections,
    pipeline: dlt.Pipeline,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__LEASE_DURATION", str(lease))
    serve_rows(sandbox, "a", cells_of(x=1), cells_of(x=2))
    connections.after = after
    run_in_slices(pipeline, source_of(sandbox, ["a"]))
    assert connections.was_cut
    assert counts(pipeline) == COUNTS


@pytest.mark.slow
def test_a_load_that_gave_up_then_is_made_up_for_by_the_same_process(
    connections: CutConnections, pipeline: dlt.Pipeline, sandbox: Sandbox
) -> None:
    """It begins with the first file again, and does not take for loaded what an earlier try has loaded."""
    serve_rows(sandbox, "a", cells_of(x=1), cells_of(x=2))
    connections.after, connections.is_away_then = '"."cells"', True
    with only_load(pipeline.pipeline_name, pipeline.pipelines_dir):  # so that it takes its lease again
        with pytest.raises(PipelineStepFailed):
            run_in_slices(pipeline, source_of(sandbox, ["a"]))
        assert connections.was_cut
        connections.is_away_then = False
        run_in_slices(pipeline, source_of(sandbox, ["a"]))
    assert counts(pipeline) == COUNTS
