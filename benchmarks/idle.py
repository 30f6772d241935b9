"""Nothing to do: all listed executions are loaded already, so nothing is asked."""

import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import dlt
import duckdb

from benchmarks.measure import timed
from benchmarks.payloads import WORKFLOW_ID
from benchmarks.serve import TOKEN
from further_source import further_source, run_in_slices
from further_source.sandbox import Sandbox, cell, completed, step

_LIST = "executions.csv"
_ROW = {"number": cell("A-1", 0.9), "amount": cell(12.5, 0.8)}


def listed(count: int) -> dict[str, Any]:
    """A run over a list of `count`, the source's reading of it included."""
    result: dict[str, Any] = {}
    # In a process of its own, for its memory would count as ours.
    subprocess.run([sys.executable, "-m", "benchmarks.idle", str(count)], check=True)
    with Sandbox() as sandbox:
        pipeline = dlt.pipeline("benchmark", destination="duckdb", dataset_name="data")
        with timed(result):
            source = further_source(executions_file=_LIST, base_url=sandbox.base_url, access_token=TOKEN)
            report = run_in_slices(pipeline, source)
        result["requests"] = len(sandbox.requests)
    assert report.earlier.total() == count
    return result


def repeated(times: int) -> dict[str, Any]:
    """Median CPU seconds of a run in a process that has imported all: with nothing new, and with one new execution.

    The source and the pipeline are made anew, as by a process that is started for each.
    """
    result: dict[str, Any] = {}
    with Sandbox() as sandbox:
        token = sandbox.issue_token()
        names: list[str] = []

        def run(new: int) -> float:
            for _ in range(new):
                names.append(f"e{len(names)}")
                sandbox.add(WORKFLOW_ID, names[-1], completed(WORKFLOW_ID, names[-1], [step("invoice", [_ROW])]))
            one: dict[str, float] = {}
            with timed(one):
                pipeline = dlt.pipeline("benchmark", destination="duckdb", dataset_name="data")
                executions = [f"{WORKFLOW_ID}/{name}" for name in names]
                source = further_source(executions=executions, base_url=sandbox.base_url, access_token=token)
                report = run_in_slices(pipeline, source)
            assert report.ended.total() == new
            return one["cpu_seconds"]

        run(1)
        for name, new in (("nothing", 0), ("one", 1)):
            result[name] = median([run(new) for _ in range(times)])
    return result


def _prepare(count: int) -> None:
    """Loads one execution, and writes the others' rows beside it."""
    with Sandbox() as sandbox:
        sandbox.add("w", "e", completed("w", "e", []))
        source = further_source(executions=["w/e"], base_url=sandbox.base_url, access_token=sandbox.issue_token())
        run_in_slices(dlt.pipeline("benchmark", destination="duckdb", dataset_name="data"), source)
    execution_id = "'e1f2a3b4-c5d6-7890-abcd-' || lpad(number::VARCHAR, 12, '0')"
    with duckdb.connect("benchmark.duckdb") as connection:
        connection.execute(
            f"INSERT INTO data.executions BY NAME SELECT e.* REPLACE ('{WORKFLOW_ID}' AS workflow_id, "
            f"{execution_id} AS workflow_execution_id, md5(number::VARCHAR) AS _dlt_id) "
            f"FROM data.executions e, range({count}) numbers(number)"
        )
        connection.execute(
            f"COPY (SELECT workflow_id, workflow_execution_id AS execution_id FROM data.executions "
            f"WHERE workflow_id = '{WORKFLOW_ID}' ORDER BY 2) TO '{_LIST}' (HEADER)"
        )
    assert Path(_LIST).exists()


if __name__ == "__main__":
    _prepare(int(sys.argv[1]))
