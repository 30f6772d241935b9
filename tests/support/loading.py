"""What tests of loads share: a source of a sandbox, and the tables as plain rows."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import dlt
from dlt.extract import DltSource

from further_source import further_source
from further_source.sandbox import Sandbox, cell, completed, step

WORKFLOW = "wf"
KEYS = ["workflow_id", "workflow_execution_id"]
NAMED_COLUMNS = {
    "executions": {
        "workflow_id": "VARCHAR",
        "workflow_execution_id": "VARCHAR",
        "status": "VARCHAR",
        "metadata__external_id": "VARCHAR",
        "poll_outcome": "VARCHAR",
        "poll_error": "VARCHAR",
        "step_count": "BIGINT",
        "cell_count": "BIGINT",
        "poll_count": "BIGINT",
        "poll_first_at": "TIMESTAMP WITH TIME ZONE",
        "poll_last_at": "TIMESTAMP WITH TIME ZONE",
        "_deleted": "BOOLEAN",
        "_dlt_load_id": "VARCHAR",
        "_dlt_id": "VARCHAR",
    },
    "steps": {
        "workflow_id": "VARCHAR",
        "workflow_execution_id": "VARCHAR",
        "step_index": "BIGINT",
        "step_name": "VARCHAR",
        "row_count": "BIGINT",
        "schema": "VARCHAR",
        "metadata": "VARCHAR",
        "_deleted": "BOOLEAN",
        "_dlt_load_id": "VARCHAR",
        "_dlt_id": "VARCHAR",
    },
    "cells": {
        "workflow_id": "VARCHAR",
        "workflow_execution_id": "VARCHAR",
        "step_index": "BIGINT",
        "step_name": "VARCHAR",
        "row_index": "BIGINT",
        "field": "VARCHAR",
        "value": "VARCHAR",
        "value_type": "VARCHAR",
        "value_number": "DOUBLE",
        "confidence": "DOUBLE",
        "extra": "VARCHAR",
        "_dlt_load_id": "VARCHAR",
        "_deleted": "BOOLEAN",
    },
}


def source_of(sandbox: Sandbox, executions: Any, **arguments: Any) -> DltSource:
    """The source of a sandbox, in a hurry; of a sequence of texts, `ex` is execution `ex` of `WORKFLOW`."""
    if isinstance(executions, Sequence):
        executions = [(WORKFLOW, ex) if isinstance(ex, str) and "/" not in ex else ex for ex in executions]
    hurry: dict[str, Any] = {
        "base_url": sandbox.base_url,
        "access_token": sandbox.issue_token(),
        "initial_interval": 0.01,
        "max_interval": 0.01,
        "max_requests_per_second": 10_000,
        "max_wait": 0,
        "outage_patience": 0,
    }
    return further_source(executions, **{**hurry, **arguments})


def serve_rows(sandbox: Sandbox, execution_id: str, *rows: Any, step_name: str = "Extract") -> None:
    """Serves an execution with one step of such rows."""
    serve_steps(sandbox, execution_id, step(step_name, rows))


def serve_steps(sandbox: Sandbox, execution_id: str, *steps: Any, **extra: Any) -> None:
    sandbox.serve(WORKFLOW, execution_id, completed(WORKFLOW, execution_id, steps, **extra))


def cells_of(**values: Any) -> dict[str, Any]:
    """A row of these values, each of confidence 0.5."""
    return {name: cell(value, 0.5) for name, value in values.items()}


def query(pipeline: dlt.Pipeline, sql: str) -> list[tuple[Any, ...]]:
    with pipeline.sql_client() as client, client.execute_query(sql) as cursor:
        return list(cursor.fetchall())


def columns(pipeline: dlt.Pipeline, table: str) -> dict[str, str]:
    """Column types in their order; empty where there is no such table."""
    return dict(
        query(
            pipeline,
            "SELECT column_name, data_type FROM information_schema.columns "
            f"WHERE table_schema = '{pipeline.dataset_name}' AND table_name = '{table}' ORDER BY ordinal_position",
        )
    )


def tables(pipeline: dlt.Pipeline) -> set[str]:
    """The tables with records of executions."""
    rows = query(
        pipeline,
        f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{pipeline.dataset_name}'",
    )
    return {name for (name,) in rows if not name.startswith("_") and name != "fields"}


def records(pipeline: dlt.Pipeline, table: str, *without: str) -> list[dict[str, Any]]:
    """The rows of a table in the order of their keys, without those of dlt, `_deleted` and `without`."""
    names = [name for name in columns(pipeline, table) if not name.startswith("_d") and name not in without]
    order = [*KEYS, *(name for name in ("step_index", "row_index") if name in names)]
    selected = ", ".join(f'"{name}"' for name in names)
    sql = f'SELECT {selected} FROM "{table}" ORDER BY {", ".join(order)}'
    return [dict(zip(names, row, strict=True)) for row in query(pipeline, sql)]


def wide(pipeline: dlt.Pipeline, table: str) -> list[dict[str, Any]]:
    """The rows of a wide table by execution, without confidences and nulls."""
    rows = records(pipeline, table, "workflow_id", "step_index", "row_index")
    return [
        {key: value for key, value in row.items() if value is not None and not key.endswith("__confidence")}
        for row in rows
    ]


def asked(sandbox: Sandbox) -> Counter[str]:
    """How often each execution has been asked so far."""
    return Counter(
        record.workflow_execution_id for record in sandbox.requests if record.workflow_execution_id is not None
    )
