"""Two machines that load into one data lake at the same time, which no lease keeps apart there."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import dlt
import pytest

from further_source.sandbox import Sandbox
from tests.support.campaign import contents_of_lake
from tests.support.loading import WORKFLOW, cells_of, serve_rows

EXECUTIONS = [f"ex{number}" for number in range(8)]
PROJECT = Path(__file__).parents[2]
LOAD = """
import json, sys
import dlt
from further_source import further_source, run_in_slices
from further_source.run.records import records_of
options = json.loads(sys.argv[1])
pipeline = dlt.pipeline("further", pipelines_dir=options["pipelines_dir"], dataset_name="further_data",
                        destination=dlt.destinations.filesystem(options["url"]))
print("ready", flush=True)
sys.stdin.readline()
run_in_slices(pipeline, further_source(**options["source"]), table_format=options["table_format"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("table_format", ["delta", "iceberg"])
def test_two_machines_that_load_the_same_at_once_leave_every_row_once(
    table_format: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    for name in EXECUTIONS:
        serve_rows(sandbox, name, cells_of(x=name), cells_of(x=name, y=1))
    for reload in (False, True):
        load_at_once(tmp_path, table_format, sandbox, reload=reload)
        found = contents_of_lake(pipeline_of(tmp_path, table_format, "one"), table_format)
        counts = {
            table: Counter(row["workflow_execution_id"] for row in rows)
            for table, rows in found.items()
            if table != "fields"
        }
        rows = {"executions": 1, "steps": 1, "cells": 3, "rows_extract": 2}
        assert counts == {table: dict.fromkeys(EXECUTIONS, count) for table, count in rows.items()}


def load_at_once(directory: Path, table_format: str, sandbox: Sandbox, *, reload: bool) -> None:
    options = {
        "url": str(directory / "lake"),
        "table_format": table_format,
        "source": {
            "executions": [f"{WORKFLOW}/{name}" for name in EXECUTIONS],
            "base_url": sandbox.base_url,
            "access_token": sandbox.issue_token(),
            "commit_interval": 0,
            "max_requests_per_second": 4,
            "reload": reload,
        },
    }
    loads = [
        subprocess.Popen(
            [sys.executable, "-c", LOAD, json.dumps({**options, "pipelines_dir": str(directory / machine)})],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for machine in ("one", "other")
    ]
    for load in loads:
        assert load.stdout is not None
        assert load.stdout.readline() == "ready\n"
    for load in loads:
        assert load.stdin is not None
        load.stdin.write("go\n")
        load.stdin.flush()
    for load in loads:
        _, errors = load.communicate(timeout=100)
        assert load.returncode == 0, errors[-8000:]


def pipeline_of(directory: Path, table_format: str, machine: str) -> dlt.Pipeline:
    return dlt.pipeline(
        "further",
        pipelines_dir=str(directory / machine),
        destination=dlt.destinations.filesystem(str(directory / "lake")),
        dataset_name="further_data",
    )
