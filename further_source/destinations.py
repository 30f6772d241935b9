"""How a load meets what a destination holds: the one place where destinations differ.

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
from dlt.common.schema.typing import TTableSchemaColumns

from further_source.tables import CELLS_COLUMNS, EXECUTIONS_COLUMNS, MERGE_KEY, ROWS_COLUMNS, STEPS_COLUMNS

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
# The order in which BigQuery sorts within a table: merges look for executions, readers of cells for fields too.
_CLUSTERS = {"cells": [*MERGE_KEY, "field"]}


@dataclass(frozen=True)
class Loading:
    """How tables are loaded into one destination."""

    strategy: Strategy
    table_format: str | None
    formats: frozenset[str]
    is_bigquery: bool

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
        if table in _DICT_TABLES and "parquet" in self.formats:
            hints["file_format"] = "parquet"
        if self.is_bigquery:
            for name in _CLUSTERS.get(table, MERGE_KEY):
                columns[name]["cluster"] = True
            if table == "executions":
                columns["poll_last_at"]["partition"] = True
        return hints

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
        formats=frozenset(capabilities.supported_loader_file_formats or ()),
        is_bigquery=pipeline.destination.destination_type.endswith(".bigquery"),
    )


def _strategy(capabilities: DestinationCapabilitiesContext, table_format: str | None) -> Strategy:
    strategies = capabilities.supported_merge_strategies or []
    if capabilities.merge_strategies_selector is not None:
        table: Any = {"table_format": table_format} if table_format else {}
        strategies = capabilities.merge_strategies_selector(strategies, table_schema=table)
    for strategy in ("delete-insert", "upsert"):
        if strategy in strategies:
            return strategy
    return "append"
