"""Wide tables: under many step names, and made anew."""

from typing import Any

import dlt
import duckdb

from benchmarks import ingest
from benchmarks.measure import timed
from further_source import further_pipeline, rebuild

_DATABASE = "benchmark.duckdb"


def plain_dlt(step_names: int, rows: int, fields: int) -> dict[str, Any]:
    """The same wide tables read as arrow and merged by a plain dlt pipeline with dlt's defaults: its cost per table."""
    ingest.ours(step_names, rows, fields, step_names=step_names)
    with duckdb.connect(_DATABASE, read_only=True) as connection:
        names = connection.execute("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'rows_%'").fetchall()
        tables = {name: connection.execute(f"SELECT * FROM data.{name}").to_arrow_table() for (name,) in names}
    pipeline = dlt.pipeline("plain", destination="duckdb", dataset_name="data")
    key = ["workflow_id", "workflow_execution_id"]
    resources = [
        dlt.resource(table, name=name, write_disposition="merge", merge_key=key) for name, table in tables.items()
    ]
    result: dict[str, Any] = {"tables": len(tables)}
    with timed(result):
        pipeline.run(resources)
    return result


def rebuilt(executions: int, rows: int, fields: int) -> dict[str, Any]:
    """A load of all four tables, and `rebuild` of its wide table."""
    result = ingest.ours(executions, rows, fields)
    pipeline = further_pipeline("benchmark", destination="duckdb", dataset_name="data")
    with timed(result, "rebuild"):
        rebuild(pipeline)
    return result
