"""How a load meets what a destination holds.

- delete-insert (DuckDB, PostgreSQL, BigQuery, Snowflake, …): an execution that is loaded again has its rows replaced
- upsert (Delta, Iceberg and others that have no delete-insert): rows are replaced by their own key, so none that is
  no longer there would go; what could shrink is refused
- append (plain files): nothing is replaced
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import dlt
import pyarrow as pa
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.capabilities import merge_caps_file_formats
from dlt.common.schema.typing import TColumnSchema, TTableSchemaColumns

from further_source.settings import MAX_FIELDS_PER_TABLE
from further_source.tables.columns import CELLS_COLUMNS, EXECUTIONS_COLUMNS, MERGE_KEY, ROWS_COLUMNS, STEPS_COLUMNS

__all__ = ["Loading", "loading_of"]

Strategy = Literal["delete-insert", "upsert", "append"]

_COLUMNS: Mapping[str, TTableSchemaColumns] = {
    "executions": EXECUTIONS_COLUMNS,
    "steps": STEPS_COLUMNS,
    "cells": CELLS_COLUMNS,
    "rows": ROWS_COLUMNS,
}
_OWN_KEYS = {
    "executions": [],
    "steps": ["step_index"],
    "cells": ["step_index", "row_index", "field"],
    "rows": ["step_index", "row_index"],
}
_DICT_TABLES = {"executions", "steps"}
_LOAD_ID: TColumnSchema = {"name": "_dlt_load_id", "data_type": "text", "nullable": False}
_ROW_ID: TColumnSchema = {"name": "_dlt_id", "data_type": "text", "nullable": False, "unique": True, "row_key": True}
# PostgreSQL keeps a row within a page of 8 kB; a text and its confidence take up to 32 bytes of it, moved out or not.
_MAX_FIELDS = {"postgres": 240}
# The order in which BigQuery sorts within a table: merges look for executions, readers of cells for fields too.
_CLUSTERS = {"cells": [*MERGE_KEY, "field"]}


@dataclass(frozen=True)
class Loading:
    """How tables are loaded into one destination."""

    strategy: Strategy
    table_format: str | None
    formats: frozenset[str]
    destination: str

    def hints(self, table: str) -> dict[str, Any]:
        """Arguments for dlt's `apply_hints` and `make_hints`, for a table that is named or any of the `rows`."""
        columns = {name: dict(column) for name, column in _COLUMNS[table].items()}
        hints: dict[str, Any] = {"columns": columns}
        if self.strategy == "delete-insert":
            # With a primary key besides, dlt would emit DELETE … WHERE pk OR mk: minutes and gigabytes. What is
            # listed twice is asked once, so there is nothing to deduplicate.
            hints["write_disposition"] = {"disposition": "merge", "strategy": "delete-insert", "deduplicated": True}
            hints["merge_key"] = MERGE_KEY
        elif self.strategy == "upsert":
            hints["write_disposition"] = {"disposition": "merge", "strategy": "upsert"}
            hints["primary_key"] = [*MERGE_KEY, *_OWN_KEYS[table]]
            for name in _OWN_KEYS[table]:
                columns[name]["nullable"] = False
        else:
            hints["write_disposition"] = "append"
        if self.strategy != "delete-insert":
            del columns["_deleted"]["hard_delete"]
        if self.table_format:
            hints["table_format"] = self.table_format
        file_format = self._file_format(table)
        if file_format in self.formats:
            hints["file_format"] = file_format
        if self.destination == "bigquery":
            # As dlt's bigquery_adapter has it, which takes resources alone; the hints of columns are deprecated.
            hints["additional_table_hints"] = {"x-bigquery-cluster-columns": _CLUSTERS.get(table, MERGE_KEY)}
            if table == "executions":
                columns["poll_last_at"]["partition"] = True
        return hints

    def stored_columns(self, name: str) -> TTableSchemaColumns:
        """The columns that the table has from the start, those that dlt adds too."""
        columns: TTableSchemaColumns = dict(self.hints(name if name in _COLUMNS else "rows")["columns"])
        columns["_dlt_load_id"] = _LOAD_ID
        if name in _DICT_TABLES:
            columns["_dlt_id"] = _ROW_ID
        return columns

    def _file_format(self, table: str) -> str:
        if self.destination == "postgres":
            # Never parquet: with an ADBC driver installed dlt would load it, and fails on a file without rows.
            return "insert_values" if table in _DICT_TABLES else "csv"
        return "parquet"

    def keyed(self, table: str, records: pa.Table) -> pa.Table:
        """Arrow records with their own keys not nullable, where a merge is by these."""
        if self.strategy != "upsert":
            return records
        keys = _OWN_KEYS[table]
        fields = [field.with_nullable(field.nullable and field.name not in keys) for field in records.schema]
        return records.cast(pa.schema(fields))

    def __str__(self) -> str:
        return f"a destination of {self.table_format} tables" if self.table_format else "this destination"

    @property
    def max_fields(self) -> int:
        """How many fields of a step get columns."""
        return _MAX_FIELDS.get(self.destination, MAX_FIELDS_PER_TABLE)

    @property
    def can_replace(self) -> bool:
        """Whether an execution that is loaded again loses the rows that it no longer has."""
        return self.strategy == "delete-insert"


def loading_of(pipeline: dlt.Pipeline, table_format: str | None) -> Loading:
    """How to load into the pipeline's destination, chosen by what it can do."""
    capabilities = pipeline.destination.capabilities()
    table_format = table_format or capabilities.preferred_table_format
    return Loading(
        strategy=_strategy(capabilities, table_format),
        table_format=table_format,
        formats=_formats(pipeline, capabilities, table_format),
        destination=pipeline.destination.destination_type.rpartition(".")[2],
    )


def _formats(
    pipeline: dlt.Pipeline, capabilities: DestinationCapabilitiesContext, table_format: str | None
) -> frozenset[str]:
    """The files that can be loaded: by way of the staging if there is one, with the drivers that are installed."""
    staging = pipeline.staging
    preferred, formats = merge_caps_file_formats(
        pipeline.destination.destination_name,
        staging.destination_name if staging else "",
        capabilities,
        staging.capabilities() if staging else None,  # type: ignore[arg-type]
    )
    if capabilities.loader_file_format_selector is not None:
        table: Any = {"table_format": table_format} if table_format else {}
        _, formats = capabilities.loader_file_format_selector(preferred, list(formats), table_schema=table)
    return frozenset(formats)


def _strategy(capabilities: DestinationCapabilitiesContext, table_format: str | None) -> Strategy:
    strategies = capabilities.supported_merge_strategies or []
    if capabilities.merge_strategies_selector is not None:
        table: Any = {"table_format": table_format} if table_format else {}
        strategies = capabilities.merge_strategies_selector(strategies, table_schema=table)
    for strategy in ("delete-insert", "upsert"):
        if strategy in strategies:
            return strategy
    return "append"
