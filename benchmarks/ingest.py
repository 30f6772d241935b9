"""From answers to committed tables in DuckDB: ours, DuckDB's own SQL, and what one would write by hand.

What a case imports is imported before its time is taken, also what dlt, DuckDB and pyarrow import by themselves where
they find it (pandas, SQLAlchemy): start-up is measured by itself.
"""

import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import dlt.common.libs.sql_alchemy_compat
import duckdb
import pandas as pd
import pyarrow as pa
import requests
from dlt.sources.rest_api import rest_api_source

from benchmarks.measure import timed
from benchmarks.payloads import WORKFLOW_ID, bodies, execution_ids
from benchmarks.serve import TOKEN, serving
from further_source import further_pipeline, further_source, run_in_slices

importlib.import_module("further_source.run.records")  # as the source does when it is called
pa.array(["text"])  # imports what it needs with the first text
_PATH = f"/api/v1/workflow-builder/workflows/{WORKFLOW_ID}/executions"


def ours(
    executions: int, rows: int, fields: int, tables: list[str] | None = None, step_names: int = 1
) -> dict[str, Any]:
    """`run_in_slices`; all tables, or only `tables`."""
    result: dict[str, Any] = {}
    with serving(executions, rows, fields, step_names) as base_url:
        source = further_source(
            executions=[(WORKFLOW_ID, execution_id) for execution_id in execution_ids(executions)],
            base_url=base_url,
            access_token=TOKEN,
            max_requests_per_second=1_000_000,
        )
        if tables:
            source = source.with_resources(*tables)
        pipeline = further_pipeline("benchmark", destination="duckdb", dataset_name="data")
        with timed(result):
            report = run_in_slices(pipeline, source)
    result["cells"] = report.rows["cells"]
    result["executions"] = executions
    return result


def duckdb_sql(executions: int, rows: int, fields: int, *, all_tables: bool = False) -> dict[str, Any]:
    """(a) DuckDB's `read_json` and `unnest` over the same bytes in files, into the columns of `cells`; no HTTP.

    (a4) With `all_tables` the other three tables too, each read from the files with only what it needs.
    """
    result: dict[str, Any] = {}
    directory = Path("answers")
    directory.mkdir()
    for execution_id, body in bodies(executions, rows, fields):
        (directory / f"{execution_id}.json").write_bytes(body)
    names = [f"field_{position}" for position in range(fields)]
    with duckdb.connect("benchmark.duckdb") as connection:
        with timed(result):
            connection.execute(_CELLS)
            if all_tables:
                connection.execute(_EXECUTIONS)
                connection.execute(_STEPS)
                connection.execute(_wide(names))
            connection.execute("CHECKPOINT")
        for table in ["cells", *(["executions", "steps", "rows_extract"] if all_tables else [])]:
            (result[table],) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[misc]
    return result


def _read(**columns: str) -> str:
    keys = {"workflow_id": "VARCHAR", "workflow_execution_id": "VARCHAR", **columns}
    types = ", ".join(f"{name}: '{kind}'" for name, kind in keys.items())
    return f"read_json('answers/*.json', maximum_object_size = 500000000, columns = {{{types}}})"


_CELL = "MAP(VARCHAR, STRUCT(value JSON, confidence_score DOUBLE))"
_CELLS = f"""
    CREATE TABLE cells AS
    WITH steps AS (
        SELECT workflow_id, workflow_execution_id, unnest(steps) AS step,
               generate_subscripts(steps, 1) - 1 AS step_index
        FROM {_read(steps=f"STRUCT(step_name VARCHAR, data STRUCT(data {_CELL}[]))[]")}
    ), records AS (
        SELECT workflow_id, workflow_execution_id, step_index, step.step_name AS step_name,
               unnest(step.data.data) AS record, generate_subscripts(step.data.data, 1) - 1 AS row_index
        FROM steps
    ), entries AS (
        SELECT * EXCLUDE (record), unnest(map_entries(record)) AS entry FROM records
    ), cells AS (
        SELECT * EXCLUDE (entry), entry.key AS field, entry.value.value AS value,
               entry.value.confidence_score AS confidence
        FROM entries
    )
    SELECT workflow_id, workflow_execution_id, step_index, step_name, row_index, field, value ->> '$' AS value,
           CASE json_type(value) WHEN 'VARCHAR' THEN 'string' WHEN 'DOUBLE' THEN 'number' ELSE 'other' END
               AS value_type,
           CASE json_type(value) WHEN 'DOUBLE' THEN value::DOUBLE END AS value_number,
           confidence, NULL::VARCHAR AS extra, '1' AS _dlt_load_id, NULL::BOOLEAN AS _deleted
    FROM cells
"""
_EXECUTIONS = f"""
    CREATE TABLE executions AS
    SELECT workflow_id, workflow_execution_id, status, metadata ->> 'external_id' AS metadata__external_id,
           'completed' AS poll_outcome, now() AS poll_last_at, '1' AS _dlt_load_id
    FROM {_read(status="VARCHAR", metadata="JSON")}
"""
_STEPS = f"""
    CREATE TABLE steps AS
    SELECT workflow_id, workflow_execution_id, generate_subscripts(steps, 1) - 1 AS step_index,
           unnest(steps).step_name AS step_name, len(unnest(steps).data.data) AS row_count, '1' AS _dlt_load_id
    FROM {_read(steps="STRUCT(step_name VARCHAR, data STRUCT(data JSON[]))[]")}
"""


def _wide(names: list[str]) -> str:
    """The wide table of the one step, its types told to DuckDB."""
    types = ", ".join(
        f"{name} STRUCT(value {'DOUBLE' if position % 4 == 3 else 'VARCHAR'}, confidence_score DOUBLE)"
        for position, name in enumerate(names)
    )
    columns = ", ".join(
        f"record.{name}.value AS {name}, record.{name}.confidence_score AS {name}__confidence" for name in names
    )
    return f"""
        CREATE TABLE rows_extract AS
        WITH steps AS (
            SELECT workflow_id, workflow_execution_id, unnest(steps) AS step,
                   generate_subscripts(steps, 1) - 1 AS step_index
            FROM {_read(steps=f"STRUCT(data STRUCT(data STRUCT({types})[]))[]")}
        ), records AS (
            SELECT workflow_id, workflow_execution_id, step_index, unnest(step.data.data) AS record,
                   generate_subscripts(step.data.data, 1) - 1 AS row_index
            FROM steps
        )
        SELECT workflow_id, workflow_execution_id, step_index, row_index, '1' AS _dlt_load_id, {columns} FROM records
    """


def dlt_dicts(executions: int, rows: int, fields: int) -> dict[str, Any]:
    """(b) The documentation's polling function and a plain dlt resource of dicts, default settings."""
    result: dict[str, Any] = {}
    with serving(executions, rows, fields) as base_url:

        @dlt.resource(name="cells")
        def cells() -> Iterator[dict[str, Any]]:
            for execution_id in execution_ids(executions):
                yield from _cells(poll_as_documented(base_url, execution_id))

        pipeline = dlt.pipeline("benchmark", destination="duckdb", dataset_name="data")
        with timed(result):
            pipeline.run(cells())
    result["cells"] = _count("benchmark.duckdb", "data.cells")
    return result


def data_frame(executions: int, rows: int, fields: int) -> dict[str, Any]:
    """(c) The documentation's polling function and a DataFrame per execution, inserted by hand."""
    result: dict[str, Any] = {}
    server, database = serving(executions, rows, fields), duckdb.connect("benchmark.duckdb")
    with server as base_url, database as connection, timed(result):
        for position, execution_id in enumerate(execution_ids(executions)):
            frame = pd.DataFrame(list(_cells(poll_as_documented(base_url, execution_id))))
            frame["value"] = frame["value"].astype(str)
            connection.register("frame", frame)
            if position == 0:
                connection.execute("CREATE TABLE cells AS SELECT * FROM frame")
            else:
                connection.execute("INSERT INTO cells SELECT * FROM frame")
        connection.execute("CHECKPOINT")
    result["cells"] = _count("benchmark.duckdb", "cells")
    return result


def rest_api(executions: int, rows: int, fields: int) -> dict[str, Any]:
    """(d) dlt's `rest_api` source over the same endpoint: wide rows in nested tables, no `cells`."""
    result: dict[str, Any] = {}
    with serving(executions, rows, fields) as base_url:

        @dlt.resource(name="listed", selected=False)
        def listed() -> Iterator[list[dict[str, str]]]:
            yield [{"execution_id": execution_id} for execution_id in execution_ids(executions)]

        source = rest_api_source(
            {
                "client": {
                    "base_url": base_url,
                    "auth": {"type": "bearer", "token": TOKEN},
                    "paginator": "single_page",
                },
                "resources": [
                    {
                        "name": "steps",
                        "endpoint": {
                            "path": _PATH + "/{resources.listed.execution_id}",
                            "data_selector": "steps",
                        },
                    },
                    listed(),
                ],
            }
        )
        pipeline = dlt.pipeline("benchmark", destination="duckdb", dataset_name="data")
        with timed(result):
            pipeline.run(source)
    result["cells"] = fields * _count("benchmark.duckdb", "data.steps__data__data")
    return result


def poll_as_documented(base_url: str, execution_id: str) -> dict[str, Any]:
    """The loop of the API's documentation: 5 s, times 1.5, at most 30 s, for 600 s."""
    interval, waited = 5.0, 0.0
    while waited < 600:
        response = requests.get(
            f"{base_url}{_PATH}/{execution_id}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
        )
        response.raise_for_status()
        answer = response.json()
        if answer["status"] in ("completed", "failed"):
            return dict(answer)
        time.sleep(interval)
        waited += interval
        interval = min(interval * 1.5, 30)
    raise TimeoutError(execution_id)


def _cells(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for step_index, step in enumerate(answer["steps"]):
        for row_index, row in enumerate(step["data"]["data"]):
            for field, cell in row.items():
                yield {
                    "workflow_id": answer["workflow_id"],
                    "workflow_execution_id": answer["workflow_execution_id"],
                    "step_index": step_index,
                    "step_name": step["step_name"],
                    "row_index": row_index,
                    "field": field,
                    "value": cell["value"],
                    "confidence": cell["confidence_score"],
                }


def _count(database: str, table: str) -> int:
    with duckdb.connect(database) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # type: ignore[index]
