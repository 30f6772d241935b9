"""The declaration of each table: its columns, its keys, and how its records are made.

A column that is added here is created in every destination, and belongs in the module that fills the table, in
`docs/tables.md` and in the tests of that module; nothing else knows the columns.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "CELLS",
    "EXECUTIONS",
    "FIELDS",
    "FORGOTTEN",
    "MERGE_KEY",
    "REVIEWS",
    "ROWS",
    "STEPS",
    "TABLES",
    "THRESHOLDS",
    "Column",
    "Table",
]

DataType = Literal["text", "bigint", "double", "bool", "timestamp"]

MERGE_KEY = ("workflow_id", "workflow_execution_id")
"""The key by which loads replace what an execution had."""


@dataclass(frozen=True)
class Column:
    """A column by its name and dlt data type.

    Attributes:
        of_api: Whether it holds what the API sent under a key of that name, so that other keys may become columns
            beside it; all other columns are ours, and no key of an answer may take one.
    """

    name: str
    data_type: DataType
    nullable: bool = True
    of_api: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: Its name; of the wide tables, that of the resource which yields them all.
        own_columns: The columns besides those of `merge_key`, the load's id and the tombstone's mark.
        merge_key: The columns by which a load replaces rows; empty where none is replaced, and then there are no
            tombstones either.
        own_key: The columns that tell rows of the same merge key apart.
        is_arrow: Whether its records are arrow tables; else they are dicts.
        clustered_by: The order in which BigQuery sorts within it: merges look for executions, readers for more.
        partitioned_by: The column by which BigQuery partitions it, if any.
    """

    name: str
    own_columns: tuple[Column, ...]
    merge_key: tuple[str, ...] = MERGE_KEY
    own_key: tuple[str, ...] = ()
    is_arrow: bool = False
    clustered_by: tuple[str, ...] = MERGE_KEY
    partitioned_by: str | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns of its records, in their order. Of dict records dlt adds `_dlt_load_id` and `_dlt_id`."""
        keys = tuple(Column(name, "text", nullable=False) for name in self.merge_key)
        load_id = (Column("_dlt_load_id", "text", nullable=False),) if self.is_arrow else ()
        deleted = (Column("_deleted", "bool"),) if self.merge_key else ()
        return (*keys, *self.own_columns, *load_id, *deleted)


EXECUTIONS = Table(
    "executions",
    (
        Column("status", "text"),
        Column("metadata__external_id", "text", of_api=True),
        Column("poll_outcome", "text"),
        Column("poll_error", "text"),
        Column("step_count", "bigint"),
        Column("cell_count", "bigint"),
        Column("poll_count", "bigint"),
        Column("poll_first_at", "timestamp"),
        Column("poll_last_at", "timestamp"),
    ),
    partitioned_by="poll_last_at",
)
STEPS = Table(
    "steps",
    (
        Column("step_index", "bigint"),
        Column("step_name", "text"),
        Column("row_count", "bigint"),
        Column("schema", "text"),
        Column("metadata", "text"),
    ),
    own_key=("step_index",),
)
CELLS = Table(
    "cells",
    (
        Column("step_index", "bigint"),
        Column("step_name", "text"),
        Column("row_index", "bigint"),
        Column("field", "text"),
        Column("value", "text"),
        Column("value_type", "text"),
        Column("value_number", "double"),
        Column("confidence", "double"),
        Column("extra", "text"),
    ),
    own_key=("step_index", "row_index", "field"),
    is_arrow=True,
    clustered_by=(*MERGE_KEY, "field"),
)
ROWS = Table(
    "rows",
    (
        Column("step_index", "bigint"),
        Column("row_index", "bigint"),
    ),
    own_key=("step_index", "row_index"),
    is_arrow=True,
)
"""What every wide table has; two columns for each field come after them."""

FIELDS = Table(
    "fields",
    (
        Column("rows_table", "text"),
        Column("step_name", "text"),
        Column("field", "text"),
        Column("text_column", "text"),
        Column("number_column", "text"),
        Column("boolean_column", "text"),
        Column("confidence_column", "text"),
        Column("reason", "text"),
    ),
    merge_key=(),
    is_arrow=True,
    clustered_by=("rows_table",),
)

FORGOTTEN = Table(
    "forgotten",
    (
        Column("workflow_id", "text", nullable=False),
        Column("workflow_execution_id", "text", nullable=False),
        Column("forgotten_at", "timestamp"),
        Column("erased_at", "timestamp"),
    ),
    merge_key=(),
    is_arrow=True,
)
"""The tombstones of `forget`. No load writes or replaces them, so nothing that is loaded later can undo one."""

REVIEWS = Table(
    "reviews",
    (
        Column("review_id", "text", nullable=False),
        Column("workflow_id", "text", nullable=False),
        Column("workflow_execution_id", "text", nullable=False),
        Column("step_index", "bigint"),
        Column("step_name", "text"),
        Column("row_index", "bigint"),
        Column("field", "text"),
        Column("occurrence", "bigint"),
        Column("value", "text"),
        Column("value_type", "text"),
        Column("confidence", "double"),
        Column("verdict", "text"),
        Column("corrected_value", "text"),
        Column("corrected_value_type", "text"),
        Column("corrected_value_number", "double"),
        Column("reviewer", "text"),
        Column("reviewed_at", "timestamp"),
        Column("reason", "text"),
        Column("sampled", "bool"),
    ),
    merge_key=(),
    is_arrow=True,
    clustered_by=MERGE_KEY,
)
"""What people said of cells; rows are only ever added."""

THRESHOLDS = Table(
    "thresholds",
    (
        Column("step_name", "text"),
        Column("field", "text"),
        Column("threshold", "double"),
        Column("target_error", "double"),
        Column("confidence_level", "double"),
        Column("sampled", "bigint"),
        Column("reviewed", "bigint"),
        Column("errors", "bigint"),
        Column("error_upper", "double"),
        Column("cells", "bigint"),
        Column("cells_through", "bigint"),
        Column("reviews_needed", "bigint"),
        Column("computed_at", "timestamp"),
    ),
    merge_key=(),
    is_arrow=True,
    clustered_by=("step_name", "field"),
)
"""What `further-source threshold` found; the rows of the latest `computed_at` are in force."""

TABLES = {table.name: table for table in (EXECUTIONS, STEPS, CELLS, ROWS, FIELDS, FORGOTTEN, REVIEWS, THRESHOLDS)}
