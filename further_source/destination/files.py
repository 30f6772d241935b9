"""Reads tables of a data lake, and takes loads back.

Not by dlt's DuckDB client, which would have to download extensions.
"""

import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity

from further_source.destination.by_execution import grouped, of_executions
from further_source.destination.committing import until_it_passes
from further_source.executions import ExecutionId
from further_source.tables.columns import EXECUTIONS, MERGE_KEY

__all__ = ["delete_load", "disown", "executions_of_load", "table_batches"]

_LOAD_ID = "_dlt_load_id"


def table_batches(client: Any, table: str, columns: Sequence[str], table_format: str | None) -> Iterable[Any]:
    """All rows of a table, as arrow batches of some of its columns, which are text.

    Imports pyarrow's datasets only here: they import pandas, which takes long.

    Args:
        client: dlt's client of a filesystem.
        table_format: `delta`, `iceberg`, or None for plain parquet files.
    """
    import pyarrow.dataset  # noqa: PLC0415

    if table_format == "delta":
        batches: Iterable[Any] = (
            client.load_open_table("delta", table).to_pyarrow_dataset().to_batches(columns=list(columns))
        )
    elif table_format == "iceberg":
        batches = client.load_open_table("iceberg", table).scan(selected_fields=tuple(columns)).to_arrow_batch_reader()
    else:
        files = [file for file in client.list_table_files(table) if file.endswith(".parquet")]
        schema = pyarrow.schema([(name, pyarrow.string()) for name in columns])
        batches = pyarrow.dataset.dataset(files, schema, format="parquet", filesystem=client.fs_client).to_batches()
    return batches


def delete_load(client: Any, table: str, table_format: str | None, load_id: str) -> None:
    """Deletes the rows that a load has appended to a table; of plain files those with its id in their names.

    Args:
        client: dlt's client of a filesystem.
        table_format: `delta`, `iceberg`, or None for plain files.

    Raises:
        DestinationUndefinedEntity: There is no such table yet.
    """
    if table_format is not None:
        with warnings.catch_warnings():
            # Of pyiceberg, where the load had not come that far.
            warnings.filterwarnings("ignore", "Delete operation did not match any records", UserWarning)
            client.load_open_table(table_format, table).delete(f"_dlt_load_id = '{load_id}'")
    else:
        for file in client.list_table_files(table):
            if load_id in PurePosixPath(file).name:
                client.fs_client.rm(file)


def executions_of_load(client: Any, table: str, table_format: str, load_id: str) -> set[ExecutionId]:
    """The executions of which a table of Delta or Iceberg has rows of a load.

    Raises:
        DestinationUndefinedEntity: There is no such table yet.
    """
    import pyarrow.dataset as ds  # noqa: PLC0415

    found = client.load_open_table(table_format, table)
    if table_format == "delta":
        batches = found.to_pyarrow_dataset().to_batches(columns=list(MERGE_KEY), filter=ds.field(_LOAD_ID) == load_id)
    else:
        batches = found.scan(f"{_LOAD_ID} = '{load_id}'", selected_fields=MERGE_KEY).to_arrow_batch_reader()
    return {ExecutionId(workflow, one) for workflow, ids in grouped(batches).items() for one in ids}


def disown(client: Any, executions: Iterable[ExecutionId], load_id: str) -> None:
    """Says in `executions`, a table of Delta or Iceberg, that executions are of a load, if it has them."""
    by_workflow: dict[str, set[str]] = {}
    for workflow, execution in executions:
        by_workflow.setdefault(workflow, set()).add(execution)
    table_format = client.prepare_load_table(EXECUTIONS.name).get("table_format")
    if not by_workflow:
        return
    with suppress(DestinationUndefinedEntity):
        if table_format == "delta":
            from deltalake.exceptions import CommitFailedError  # noqa: PLC0415

            others = f"{_LOAD_ID} <> '{load_id}' AND ({of_executions(by_workflow)})"
            open_table = partial(client.load_open_table, "delta", EXECUTIONS.name)
            until_it_passes(
                lambda: open_table().update({_LOAD_ID: f"'{load_id}'"}, predicate=others), CommitFailedError
            )
        elif table_format == "iceberg":
            from further_source.destination.iceberg import Conflict, disown_rows  # noqa: PLC0415

            until_it_passes(lambda: disown_rows(client, EXECUTIONS.name, by_workflow, load_id), Conflict)
