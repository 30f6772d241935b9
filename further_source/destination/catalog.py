"""The tables and columns that a dataset has, whoever made them, and how tables of ours are made beside dlt's schema."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.schema.typing import TColumnSchema
from dlt.common.schema.utils import new_table
from dlt.destinations.job_client_impl import SqlJobClientBase

from further_source.dlt_internals import stored_columns, update_tables

__all__ = ["knows_sql", "make_tables", "stored_types", "tables_with"]


def knows_sql(pipeline: dlt.Pipeline) -> bool:
    """Whether SQL can read and alter the pipeline's tables, so that several loads can add to them at once."""
    return pipeline.destination is not None and issubclass(pipeline.destination.client_class, SqlJobClientBase)


def stored_types(client: Any) -> dict[str, dict[str, str]]:
    """dlt data types by table and column; none where there is no dataset yet.

    Names are in lower case where the destination's are in upper case, as in Snowflake.
    """
    lower = client.capabilities.casefold_identifier is str.upper
    types: dict[str, dict[str, str]] = {}
    with suppress(DestinationUndefinedEntity):
        for table, column, kind in stored_columns(client):
            if lower:
                table, column = table.lower(), column.lower()
            types.setdefault(table, {})[column] = kind
    return types


def tables_with(client: Any, *columns: str) -> list[str]:
    """The tables and views that have all of these columns, in the destination's own case; none without a dataset."""
    found: dict[str, set[str]] = {}
    with suppress(DestinationUndefinedEntity):
        for table, column, _ in stored_columns(client):
            found.setdefault(table, set()).add(column.lower())
    return [table for table, names in found.items() if names >= {*columns}]


def make_tables(client: Any, tables: Mapping[str, Iterable[TColumnSchema]]) -> None:
    """Makes tables with these columns, or adds those that they lack, with dlt's own statements and types.

    The client's schema stays as it was. Tables that no schema of dlt's knows, dlt never drops.
    """
    schema = client.schema.clone()
    for name, columns in tables.items():
        schema.tables.pop(name, None)
        schema.update_table(new_table(name, write_disposition="append", columns=list(columns)))
    own, client.schema = client.schema, schema
    try:
        update_tables(client, list(tables))
    finally:
        client.schema = own
