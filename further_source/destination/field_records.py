"""The records of the table `fields` in the destination: which field has which column, by SQL or in files of a lake."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.destinations.fs_client import FSClientBase

from further_source.destination.files import table_batches
from further_source.tables.columns import EXECUTIONS, FIELDS
from further_source.tables.fields import Field, FieldColumns

__all__ = [
    "fields_table_name",
    "first_wide_tables",
    "key_of_record",
    "replace_records",
    "stored_records",
    "stored_records_in_files",
]

_INSERTED_AT_ONCE = 200  # records in a statement
_COLUMNS = tuple(column.name for column in FIELDS.own_columns)


def stored_records(client: Any) -> tuple[list[Field], list[Field]]:
    """The records of `fields`, and those that later ones have taken the place of."""
    columns = ", ".join(client.sql_client.escape_column_name(name) for name in (*_COLUMNS, "_dlt_load_id"))
    try:
        rows = client.sql_client.execute_sql(f"SELECT {columns} FROM {fields_table_name(client)}")  # noqa: S608
    except DestinationUndefinedEntity:
        return [], []
    return _latest((Field(*values), load_id) for *values, load_id in rows or ())


def stored_records_in_files(pipeline: dlt.Pipeline, table_format: str | None) -> Iterator[Field]:
    """The last record of each field; a table of files only grows."""
    client: Any = pipeline.destination_client()
    if not isinstance(client, FSClientBase) or FIELDS.name not in client.schema.tables:
        return
    records = (
        (Field(*values), load_id)
        for batch in table_batches(client, FIELDS.name, (*_COLUMNS, "_dlt_load_id"), table_format)
        for *values, load_id in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    )
    yield from _latest(records)[0]


def replace_records(client: Any, changed: Sequence[Field], removed: Sequence[Field], load_id: str) -> None:
    """Deletes the records with the keys of those removed, and adds those changed, as of this load."""
    sql, table = client.sql_client, fields_table_name(client)
    name = sql.escape_column_name
    for field in removed:
        keys = {"rows_table": field.rows_table, "step_name": field.step_name, "field": field.field}
        where = " AND ".join(
            f"{name(key)} = %s" if value is not None else f"{name(key)} IS NULL" for key, value in keys.items()
        )
        sql.execute_sql(f"DELETE FROM {table} WHERE {where}", *(value for value in keys.values() if value is not None))  # noqa: S608
    columns = ", ".join(map(name, (*_COLUMNS, "_dlt_load_id")))
    for start in range(0, len(changed), _INSERTED_AT_ONCE):
        some = changed[start : start + _INSERTED_AT_ONCE]
        rows = [(*(getattr(field, key) for key in _COLUMNS), load_id) for field in some]
        # BigQuery's client takes no None for a parameter.
        places = ", ".join(f"({', '.join('NULL' if value is None else '%s' for value in row)})" for row in rows)
        values = (value for value in chain.from_iterable(rows) if value is not None)
        sql.execute_sql(f"INSERT INTO {table} ({columns}) VALUES {places}", *values)  # noqa: S608


def first_wide_tables(pipeline: dlt.Pipeline) -> list[str]:
    """The first wide table of each step that is recorded; only of destinations that know SQL."""
    with pipeline.destination_client() as client:
        recorded = [field for field in stored_records(client)[0] if field.rows_table != EXECUTIONS.name]
        naming = client.schema.naming
    return FieldColumns(recorded, {}, naming, 1).first_tables


def key_of_record(field: Field) -> tuple[str, str | None, str | None]:
    """By which records are deleted: the table, the step's name and the field."""
    return field.rows_table, field.step_name, field.field


def fields_table_name(client: Any) -> str:
    """The qualified name of the table."""
    return str(client.sql_client.make_qualified_table_name(FIELDS.name))


def _latest(records: Iterable[tuple[Field, str]]) -> tuple[list[Field], list[Field]]:
    """The last record of each field, by load, and the others."""
    latest: dict[Any, Field] = {}
    outdated: list[Field] = []
    for field, _ in sorted(records, key=itemgetter(1)):
        key = (field.rows_table.partition("__")[0], field.step_name, field.field)
        if key in latest:
            outdated.append(latest[key])
        latest[key] = field
    return list(latest.values()), outdated
