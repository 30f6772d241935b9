"""Arrow schemas, derived from the declarations of the tables."""

import pyarrow as pa

from further_source.tables.columns import Table

__all__ = ["ARROW_TYPES", "arrow_schema"]

ARROW_TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def arrow_schema(table: Table) -> pa.Schema:
    """The schema of a table's records, in the order of its columns."""
    return pa.schema(
        [pa.field(column.name, ARROW_TYPES[column.data_type], column.nullable) for column in table.columns]
    )
