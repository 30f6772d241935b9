"""Columns that several loads add to the same tables at once: each has the type that the first load gave it."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import dlt
from dlt.common.destination.exceptions import DestinationException, DestinationUndefinedEntity
from dlt.common.schema import Schema
from dlt.common.schema.typing import TTableSchemaColumns
from dlt.common.schema.utils import new_table
from dlt.destinations.job_client_impl import SqlJobClientBase

from further_source.dlt_internals import schema_update_statements, stored_columns

__all__ = ["SharedTables", "Tables"]

Tables = Mapping[str, Mapping[str, str]]
"""dlt data types by table and column."""

_ATTEMPTS = 10

_T = TypeVar("_T")


class SharedTables:
    """The tables of a dataset as they are now, whichever load made them so.

    Loads that run side by side do not know of each other's columns, and dlt compares the names of columns, not their
    types: it would try to load text into a column that another load has made for numbers. So a new column is added to
    the destination before any value is routed to it. If another load was faster, the values are routed again, by the
    type that the column has.

    Args:
        pipeline: The pipeline that loads; its destination knows SQL.
        columns_of: Gives, for the name of a table, the columns that it has from the start.
    """

    def __init__(self, pipeline: dlt.Pipeline, columns_of: Callable[[str], TTableSchemaColumns]) -> None:
        self._pipeline = pipeline
        self._columns_of = columns_of
        with self._client() as client:
            self._types = _stored_types(client)

    @staticmethod
    def can_be(pipeline: dlt.Pipeline) -> bool:
        """Whether the destination's tables can be read and altered by SQL."""
        return isinstance(pipeline.destination_client(), SqlJobClientBase)

    def settle(self, build: Callable[[Tables], tuple[_T, Tables]]) -> _T:
        """What `build` makes of the tables as they are. By then the destination has all columns that it uses.

        `build` takes the types of all tables; it returns its result, and the types that this result relies on. It is
        called again if one of these columns has got another type meanwhile.
        """
        while True:
            built, wanted = build(self._types)
            if self._missing(wanted):
                self._add(wanted)
            if all(
                self._types.get(name, {}).get(column, kind) == kind
                for name, kinds in wanted.items()
                for column, kind in kinds.items()
            ):
                return built

    def _missing(self, wanted: Tables) -> dict[str, dict[str, str]]:
        missing = {
            name: {column: kind for column, kind in kinds.items() if column not in self._types.get(name, {})}
            for name, kinds in wanted.items()
        }
        return {name: kinds for name, kinds in missing.items() if kinds}

    def _add(self, wanted: Tables) -> None:
        with self._client() as client:
            for attempts_left in reversed(range(_ATTEMPTS)):
                collided = False
                try:
                    client.initialize_storage()
                    for name, kinds in self._missing(wanted).items():
                        _add_columns(client, name, self._columns_of(name), kinds)
                except DestinationException:  # another load may have made the table or a column first
                    if not attempts_left:
                        raise
                    collided = True
                self._types = _stored_types(client)
                if not (collided and self._missing(wanted)):
                    return

    def _client(self) -> Any:
        return self._pipeline.destination_client()


def _stored_types(client: Any) -> dict[str, dict[str, str]]:
    """All tables of the dataset, also those that others made."""
    lower = client.capabilities.casefold_identifier is str.upper  # as in Snowflake
    types: dict[str, dict[str, str]] = {}
    with suppress(DestinationUndefinedEntity):  # no such dataset yet
        for table, column, kind in stored_columns(client):
            if lower:
                table, column = table.lower(), column.lower()
            types.setdefault(table, {})[column] = kind
    return types


def _add_columns(client: Any, name: str, columns: TTableSchemaColumns, kinds: Mapping[str, str]) -> None:
    added: dict[str, Any] = {column: {"name": column, "data_type": kind} for column, kind in kinds.items()}
    schema: Schema = client.schema.clone()
    schema.tables.pop(name, None)
    schema.update_table(new_table(name, write_disposition="append", columns=[*columns.values(), *added.values()]))
    own, client.schema = client.schema, schema
    try:
        client.sql_client.execute_many(schema_update_statements(client, name))
    finally:
        client.schema = own
