"""Reads tables of a data lake, and takes loads back.

Not by dlt's DuckDB client, which would have to download extensions.
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

__all__ = ["delete_load", "table_batches"]


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
