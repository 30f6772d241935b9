"""How each destination would be loaded, as far as its capabilities and dlt's own normalizing tell without it.

Run for real elsewhere: DuckDB (most tests), PostgreSQL (`test_postgres.py`), the filesystem (`test_data_lake.py`).
Statements for BigQuery are in `test_bigquery.py`.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dlt
import pytest
import sqlglot
from dlt.common.exceptions import MissingDependencyException

from further_source.destination.strategy import loading_of
from further_source.executions import ExecutionId
from further_source.polling.poll import Ended
from further_source.run.records import WideRecords
from further_source.sandbox import Sandbox, cell, completed, step
from further_source.source import rebuilding_source
from further_source.tables.answer import Answer, normalize_steps
from further_source.tables.columns import ROWS, TABLES
from further_source.tables.fields import FieldColumns
from further_source.tables.rows import wide_tables
from tests.support.loading import WORKFLOW, serve_rows, source_of

S3: dict[str, str] = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "eu-central-1"}


def on_s3() -> Any:
    return dlt.destinations.filesystem("s3://staging", credentials=S3)


# Destination, table format, staging, strategy, file format of arrow tables and of plain rows, longest column name.
Case = tuple[Callable[[], Any], str | None, Callable[[], Any] | None, str, str, str, int]
CASES: dict[str, Case] = {
    "duckdb": (dlt.destinations.duckdb, None, None, "delete-insert", "parquet", "parquet", 65536),
    "motherduck": (dlt.destinations.motherduck, None, None, "delete-insert", "parquet", "parquet", 65536),
    "postgres": (dlt.destinations.postgres, None, None, "delete-insert", "csv", "insert_values", 63),
    "bigquery": (dlt.destinations.bigquery, None, None, "delete-insert", "parquet", "parquet", 300),
    "snowflake": (dlt.destinations.snowflake, None, None, "delete-insert", "parquet", "parquet", 255),
    "databricks": (dlt.destinations.databricks, None, None, "delete-insert", "parquet", "parquet", 255),
    "clickhouse": (dlt.destinations.clickhouse, None, None, "delete-insert", "parquet", "parquet", 255),
    "redshift": (dlt.destinations.redshift, None, None, "delete-insert", "insert_values", "insert_values", 127),
    "redshift-s3": (dlt.destinations.redshift, None, on_s3, "delete-insert", "parquet", "parquet", 127),
    "mssql": (dlt.destinations.mssql, None, None, "delete-insert", "insert_values", "insert_values", 128),
    "athena": (dlt.destinations.athena, None, on_s3, "append", "parquet", "parquet", 255),
    "athena-iceberg": (dlt.destinations.athena, "iceberg", on_s3, "delete-insert", "parquet", "parquet", 255),
    "filesystem": (lambda: dlt.destinations.filesystem("lake"), None, None, "append", "parquet", "parquet", 65536),
    "delta": (lambda: dlt.destinations.filesystem("lake"), "delta", None, "upsert", "parquet", "parquet", 65536),
    "iceberg": (lambda: dlt.destinations.filesystem("lake"), "iceberg", None, "upsert", "parquet", "parquet", 65536),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def pipeline_of(case: Case, directory: Path) -> dlt.Pipeline:
    destination, _, staging, *_ = case
    return dlt.pipeline(
        "further",
        pipelines_dir=str(directory / "pipelines"),
        destination=destination(),
        staging=staging() if staging else None,
        dataset_name="further_data",
    )


def extract(sandbox: Sandbox, pipeline: dlt.Pipeline, table_format: Any = None) -> None:
    """What comes of an execution, as far as it needs no connection.

    The ledger, and so `executions`, would ask the destination, and so would the columns of wide tables. These are made
    here of nothing.
    """
    long = "a long name " * 40
    rows = [{"amount": cell(1.5, 0.5), long: cell("x", 0.5), f"{long}!": cell("y", 0.5)}, {"amount": cell("?", None)}]
    serve_rows(sandbox, "ex", *rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCES__FURTHER_SOURCE__LEASE_DURATION", "0")
        patch.setattr(pipeline, "destination_client", nullcontext)  # there is none to be asked what was forgotten
        pipeline.extract(source_of(sandbox, ["ex"]).with_resources("steps", "cells"), table_format=table_format)
    payload = completed(WORKFLOW, "ex", [step("Extract", rows)])
    ended = Ended(ExecutionId(WORKFLOW, "ex"), "completed", "completed", payload, None, 1, None, None, 0)
    loading = loading_of(pipeline, table_format)
    fields = FieldColumns([], {}, pipeline.default_schema.naming, loading.max_fields)
    wide = [
        WideRecords(name, loading.keyed(ROWS, table), loading.hints(ROWS))
        for name, table in wide_tables([Answer(ended, normalize_steps(payload))], fields, "load")
    ]
    pipeline.extract(rebuilding_source(lambda: iter(wide)), table_format=table_format)


def test_the_strategy_follows_from_what_the_destination_can_do(case: Case, tmp_path: Path) -> None:
    _, table_format, _, strategy, _, of_rows, _ = case
    loading = loading_of(pipeline_of(case, tmp_path), table_format)

    assert loading.strategy == strategy
    assert loading.can_replace == (strategy == "delete-insert" or table_format in ("delta", "iceberg"))
    for table in TABLES.values():
        hints = loading.hints(table)
        keys = {"delete-insert": "merge_key", "upsert": "primary_key"}
        replaced = strategy in keys and table.merge_key
        assert {"merge_key", "primary_key"} & hints.keys() == ({keys[strategy]} if replaced else set())
        assert hints.get("table_format") == table_format
        if not table.is_arrow:
            assert hints.get("file_format", of_rows) == of_rows


def test_a_day_of_loads_stays_far_below_the_load_jobs_that_bigquery_takes_of_a_table(
    case: Case, tmp_path: Path
) -> None:
    """1,500, failed ones too."""
    destination, table_format, *_ = case
    loads = 24 * 60 * 60 / loading_of(pipeline_of(case, tmp_path), table_format).commit_interval

    assert loads == (144 if destination is dlt.destinations.bigquery else 1_440)


def test_the_files_that_dlt_makes_for_it(case: Case, sandbox: Sandbox, tmp_path: Path) -> None:
    _, table_format, _, _, of_arrow, of_rows, max_column = case
    pipeline = pipeline_of(case, tmp_path)
    extract(sandbox, pipeline, table_format)
    pipeline.normalize()
    packages = map(pipeline.get_load_package_info, pipeline.list_normalized_load_packages())
    jobs = [job.job_file_info for package in packages for job in package.jobs["new_jobs"]]
    formats = {job.table_name: job.file_format for job in jobs}

    assert {name: formats[name] for name in formats if not name.startswith("_dlt")} == {
        "steps": of_rows,
        "cells": of_arrow,
        "rows_extract": of_arrow,
    }
    columns = pipeline.default_schema.get_table_columns("rows_extract")
    assert len(columns) == 6 + 2 * 3 + 1
    assert max(map(len, columns)) <= max_column
    assert pipeline.destination.capabilities().max_column_identifier_length == max_column


DUMMY = {"username": "loader", "password": "none", "host": "localhost", "database": "further"}
OF_STATEMENTS: dict[str, Callable[[], Any]] = {
    "duckdb": lambda: dlt.destinations.duckdb("further.duckdb"),
    "motherduck": lambda: dlt.destinations.motherduck("md:further?motherduck_token=none"),
    "postgres": lambda: dlt.destinations.postgres(DUMMY),
    "redshift": lambda: dlt.destinations.redshift(DUMMY),
}
# dlt makes their statements only where their driver is installed, and none of these is among what is developed with.
WITHOUT_DRIVER: dict[str, Callable[[], Any]] = {
    "snowflake": lambda: dlt.destinations.snowflake({**DUMMY, "warehouse": "w"}),
    "databricks": lambda: dlt.destinations.databricks(
        {"server_hostname": "h", "http_path": "p", "access_token": "t", "catalog": "c"}
    ),
    "clickhouse": lambda: dlt.destinations.clickhouse(DUMMY),
    "mssql": lambda: dlt.destinations.mssql(DUMMY),
    "athena": lambda: dlt.destinations.athena("s3://results", S3),
}


@pytest.mark.parametrize("name", OF_STATEMENTS)
def test_the_statements_that_make_the_tables(name: str, sandbox: Sandbox, tmp_path: Path) -> None:
    pipeline = dlt.pipeline(
        "further",
        pipelines_dir=str(tmp_path / "pipelines"),
        destination=OF_STATEMENTS[name](),
        dataset_name="further_data",
    )
    extract(sandbox, pipeline)
    pipeline.normalize()
    client: Any = pipeline.destination_client()
    for table in ("steps", "cells", "rows_extract"):
        columns = client.schema.get_table_columns(table)
        statements = client._get_table_update_sql(table, list(columns.values()), False)
        create = sqlglot.parse_one(statements[0], dialect=client.capabilities.sqlglot_dialect)
        assert [column.name for column in create.find_all(sqlglot.exp.ColumnDef)] == list(columns)


@pytest.mark.parametrize("name", WITHOUT_DRIVER)
def test_statements_that_need_a_driver_are_not_checked(
    name: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = dlt.pipeline(
        "further",
        pipelines_dir=str(tmp_path / "pipelines"),
        destination=WITHOUT_DRIVER[name](),
        dataset_name="further_data",
    )
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", "staging")  # of Athena
    extract(sandbox, pipeline)
    with pytest.raises(MissingDependencyException):
        pipeline.destination_client()
