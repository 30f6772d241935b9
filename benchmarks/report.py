"""The report of many cells in DuckDB, as the command makes it."""

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import ingest
from benchmarks.measure import timed
from further_source.command.main import main

_EXECUTIONS, _ROWS, _FIELDS = 10, 100, 20


def made(cells: int) -> dict[str, Any]:
    """Seconds and size of the report of so many cells: 20,000 that were loaded, and copies of them by other ids.

    Confidences are drawn anew, so that no cell is like its copy.
    """
    os.environ["DESTINATION__DUCKDB__CREDENTIALS"] = "benchmark.duckdb"
    ingest.ours(_EXECUTIONS, _ROWS, _FIELDS)
    copies = cells // (_EXECUTIONS * _ROWS * _FIELDS) - 1
    with duckdb.connect("benchmark.duckdb") as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute("USE data")
        columns = "* EXCLUDE (n) REPLACE (workflow_execution_id || '-' || n AS workflow_execution_id{})"
        for table, drawn in (
            ("executions", ""),
            ("steps", ""),
            ("cells", ", 1 - 0.3 * random() * random() AS confidence"),
        ):
            connection.execute(
                f"INSERT INTO {table} SELECT {columns.format(drawn)} FROM {table}, range({copies}) AS t(n)"
            )
    result: dict[str, Any] = {}
    with timed(result), contextlib.redirect_stdout(io.StringIO()):
        code = main(["report", "--dataset", "data", "--out", "report.html"])
    if code:
        raise RuntimeError(f"report ended with {code}")
    with duckdb.connect("benchmark.duckdb", read_only=True) as connection:
        ((result["cells"],),) = connection.sql("SELECT count(*) FROM data.cells").fetchall()
    result["mb"] = Path("report.html").stat().st_size / 1e6
    return result
