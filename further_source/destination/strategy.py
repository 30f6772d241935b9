"""How a load treats the rows that the destination already holds.

- delete-insert (DuckDB, PostgreSQL, BigQuery, Snowflake, …): loading an execution again replaces all its rows
- by executions (Delta and Iceberg): the same, see `lake`; to dlt it is an upsert
- upsert (others without delete-insert): a row replaces the one with the same key, and no other row goes; so loads that
  could leave rows behind are refused
- append (plain files): nothing is replaced
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dlt
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.capabilities import merge_caps_file_formats
from dlt.common.schema.typing import TColumnSchema, TTableSchemaColumns
from dlt.destinations import sqlalchemy

from further_source.destination.postgres import EMPTY_TEXTS
from further_source.settings import MAX_FIELDS_PER_TABLE
from further_source.tables.columns import ROWS, TABLES, Table

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Loading", "loading_of"]

Strategy = Literal["delete-insert", "upsert", "append"]

_TOMBSTONE = "_deleted"
_LOAD_ID: TColumnSchema = {"name": "_dlt_load_id", "data_type": "text", "nullable": False}
_ROW_ID: TColumnSchema = {"name": "_dlt_id", "data_type": "text", "nullable": False, "unique": True, "row_key": True}
# A row of PostgreSQL fits into a page of 8 kB. A text and its confidence take up to 32 bytes, even if it is moved out.
# One of InnoDB's too, and a text of up to 40 bytes is never moved out.
_MAX_FIELDS = {"postgres": 240, "mysql": 150}
_COMMIT_INTERVAL = 60.0  # seconds
# BigQuery takes 1,500 load jobs per table and day, failed ones too; 60 s would make 1,440 of them.
_COMMIT_INTERVALS = {"bigquery": 600.0}
_FEW_TABLES = 16
_NO_KEY: dict[bool, Any] = {True: "", False: -1}
"""By whether a column is text: what stands for null in columns that have no null."""
_WORKERS_FOR_MANY = 20  # dlt's own default


@dataclass(frozen=True)
class Loading:
    """How tables are loaded into one destination."""

    strategy: Strategy
    table_format: str | None
    formats: frozenset[str]
    destination: str
    dialect: str | None

    def hints(self, table: Table) -> dict[str, Any]:
        """Arguments for dlt's `apply_hints` and `make_hints`."""
        columns = _dlt_columns(table)
        hints: dict[str, Any] = {"columns": columns}
        if not table.merge_key:
            hints["write_disposition"] = "append"
        elif self.strategy == "delete-insert":
            # Without a primary key: with both, dlt emits DELETE … WHERE pk OR mk, which takes minutes and gigabytes.
            # An execution that is listed twice is asked once, so there is nothing to deduplicate.
            hints["write_disposition"] = {"disposition": "merge", "strategy": "delete-insert", "deduplicated": True}
            hints["merge_key"] = list(table.merge_key)
            columns[_TOMBSTONE]["hard_delete"] = True
        elif self.strategy == "upsert":
            hints["write_disposition"] = {"disposition": "merge", "strategy": "upsert"}
            hints["primary_key"] = [*table.merge_key, *table.own_key]
            for name in table.own_key:
                columns[name]["nullable"] = False
        else:
            hints["write_disposition"] = "append"
        if self.table_format:
            hints["table_format"] = self.table_format
        file_format = self._file_format(table)
        if file_format in self.formats:
            hints["file_format"] = file_format
        if self.destination == "bigquery":
            # What dlt's bigquery_adapter sets; that takes resources only. Hints of columns for this are deprecated.
            hints["additional_table_hints"] = {"x-bigquery-cluster-columns": list(table.clustered_by)}
            if table.partitioned_by:
                columns[table.partitioned_by]["partition"] = True
        if self.destination == "postgres" and table.is_arrow:
            hints["additional_table_hints"] = {EMPTY_TEXTS: True}
        return hints

    def stored_columns(self, name: str) -> TTableSchemaColumns:
        """The columns that a table has from the start, including those that dlt adds."""
        table = TABLES.get(name, ROWS)
        hinted = self.hints(table)["columns"]
        columns: TTableSchemaColumns = {column.name: hinted.get(column.name, _LOAD_ID) for column in table.columns}
        columns.setdefault("_dlt_load_id", _LOAD_ID)
        if not table.is_arrow:
            columns["_dlt_id"] = _ROW_ID
        return columns

    def _file_format(self, table: Table) -> str:
        if self.destination == "postgres":
            # Never parquet: with an ADBC driver installed dlt would choose it, and fail at a file without rows.
            return "csv" if table.is_arrow else "insert_values"
        return "parquet"

    def keyed(self, table: Table, records: "pa.Table") -> "pa.Table":
        """The records, with columns of the table's own key not nullable if rows are merged by that key.

        Tombstones, which have no such key, get one; they are never stored.
        """
        if self.strategy != "upsert":
            return records
        for name in table.own_key:
            position = records.schema.get_field_index(name)
            column, field = records.column(position), records.schema.field(position).with_nullable(False)
            filled = column.fill_null(_NO_KEY[field.type == "string"]) if column.null_count else column
            records = records.set_column(position, field, filled)
        return records

    def keyed_row(self, table: Table, row: dict[str, Any]) -> dict[str, Any]:
        """The same for a table of plain rows, whose own key is of numbers."""
        return {**dict.fromkeys(table.own_key, _NO_KEY[False]), **row} if self.strategy == "upsert" else row

    def __str__(self) -> str:
        return f"a destination of {self.table_format} tables" if self.table_format else "this destination"

    def workers(self, tables: int) -> int | None:
        """How many jobs dlt should load at once, of so many tables; None where its own number is right.

        A job of DuckDB's uses all cores, and two of them only take more memory. But dlt looks at all jobs again after
        each round, so that many small ones, one in a round, take most of their time for that.
        """
        if self.destination != "duckdb":
            return None
        return 1 if tables <= _FEW_TABLES else _WORKERS_FOR_MANY

    @property
    def commit_interval(self) -> float:
        """Seconds between two loads of a run, where nobody configured it."""
        return _COMMIT_INTERVALS.get(self.destination, _COMMIT_INTERVAL)

    @property
    def max_fields(self) -> int:
        """How many fields of a step get columns."""
        return _MAX_FIELDS.get(self.dialect or "", MAX_FIELDS_PER_TABLE)

    @property
    def can_replace(self) -> bool:
        """Whether an execution that is loaded again loses the rows that it no longer has."""
        return self.strategy == "delete-insert" or self.is_lake

    @property
    def is_lake(self) -> bool:
        """Whether the tables are Delta's or Iceberg's in files, where loads replace by executions."""
        return self.destination == "filesystem" and self.table_format in ("delta", "iceberg")


def _dlt_columns(table: Table) -> dict[str, dict[str, Any]]:
    """The declared columns in dlt's terms, without the id of the load, which dlt adds."""
    return {
        column.name: {"name": column.name, "data_type": column.data_type, "nullable": column.nullable}
        for column in table.columns
        if column.name != _LOAD_ID["name"]
    }


def loading_of(pipeline: dlt.Pipeline, table_format: str | None) -> Loading:
    """How to load into the pipeline's destination, chosen by what it can do."""
    capabilities = pipeline.destination.capabilities()
    table_format = table_format or capabilities.preferred_table_format
    return Loading(
        strategy=_strategy(capabilities, table_format),
        table_format=table_format,
        formats=_formats(pipeline, capabilities, table_format),
        destination=pipeline.destination.destination_type.rpartition(".")[2],
        dialect=_dialect(pipeline, capabilities),
    )


def _dialect(pipeline: dlt.Pipeline, capabilities: DestinationCapabilitiesContext) -> str | None:
    """sqlglot's name of the destination's SQL; which database is behind SQLAlchemy only the configured client knows."""
    if isinstance(pipeline.destination, sqlalchemy):
        capabilities = pipeline.destination_client().capabilities
    return capabilities.sqlglot_dialect


def _formats(
    pipeline: dlt.Pipeline, capabilities: DestinationCapabilitiesContext, table_format: str | None
) -> frozenset[str]:
    """The formats of files that can be loaded through the staging, if there is one, and with the installed drivers."""
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
