"""A list of executions that is a query on the destination itself: whoever submits documents may keep the ids there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

import dlt
from dlt.destinations.sql_client import SqlClientBase

from further_source.destination.catalog import knows_sql
from further_source.dlt_internals import is_sqlalchemy
from further_source.exceptions import ConfigurationError, FurtherError, ManifestError
from further_source.executions import ExecutionId
from further_source.manifest import read_executions_rows
from further_source.manifest.listquery import FETCH_SIZE, Unanswered, check_reads
from further_source.text import one_line

__all__ = ["read_executions_of_destination"]

_READ_ONLY = {
    "postgres": ("START TRANSACTION READ ONLY", "ROLLBACK"),
    "duckdb": ("BEGIN TRANSACTION READ ONLY", "ROLLBACK"),
}
_READ_ONLY_BY_SQLALCHEMY = {
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION TRANSACTION READ WRITE"),
    "sqlite": ("PRAGMA query_only = ON", "PRAGMA query_only = OFF"),
}
"""What allows only reading from here on, and what ends that, by the dialect of the destination."""


def read_executions_of_destination(pipeline: dlt.Pipeline, query: str) -> Iterator[ExecutionId]:
    """Reads executions from what a query on the pipeline's destination gives.

    Nothing is written: PostgreSQL, DuckDB, MariaDB, MySQL and SQLite are told so, and what writes is refused.

    Raises:
        ConfigurationError: The destination knows no SQL.
        ManifestError: As of `manifest.read_executions_query`.
        DestinationException: The destination is away.
    """
    if not knows_sql(pipeline):
        name = pipeline.destination.destination_name if pipeline.destination else None
        raise ConfigurationError(
            f"executions_query: destination {name} knows no SQL; configure executions_database, where the list is"
        )
    with pipeline.destination_client() as destination:
        client: SqlClientBase[Any] = destination.sql_client  # type: ignore[attr-defined]
        dialect = str(client.capabilities.sqlglot_dialect)
        by_sqlalchemy = is_sqlalchemy(destination)
        try:
            check_reads(query, dialect)
            with _only_reading(client, (_READ_ONLY_BY_SQLALCHEMY if by_sqlalchemy else _READ_ONLY).get(dialect)):
                if by_sqlalchemy:
                    rows = _executed(client, _unbuffered(query))
                else:
                    rows = _declared(client, query) if dialect == "postgres" else _executed(client, query)
                yield from read_executions_rows(next(rows), rows)
        except FurtherError:
            raise
        except Unanswered as problem:
            raise ManifestError(f"executions_query: {problem}") from None
        except Exception as error:  # not every error of a driver becomes one of dlt's
            raise ManifestError(f"executions_query: {_reason(error)}") from None


@contextmanager
def _only_reading(client: SqlClientBase[Any], statements: tuple[str, str] | None) -> Iterator[None]:
    if statements is None:
        yield
        return
    client.execute_sql(statements[0])
    try:
        yield
    finally:
        with suppress(Exception):  # of a connection that is lost
            client.execute_sql(statements[1])


def _executed(client: SqlClientBase[Any], query: Any) -> Iterator[Any]:
    """The names of the columns, and then the rows."""
    with client.execute_query(query) as cursor:
        yield _columns(cursor)
        yield from chain.from_iterable(cursor.iter_fetch(FETCH_SIZE))


def _declared(client: SqlClientBase[Any], query: str) -> Iterator[Any]:
    """The same of PostgreSQL, where only a cursor of the server's own does not send all rows at once."""
    client.execute_sql(f"DECLARE further_list NO SCROLL CURSOR FOR {query}")
    is_first = True
    while True:
        with client.execute_query(f"FETCH FORWARD {FETCH_SIZE} FROM further_list") as cursor:
            if is_first:
                yield _columns(cursor)
            rows = cursor.fetchall()
        if not rows:
            return
        is_first = False
        yield from rows


def _columns(cursor: Any) -> list[str]:
    native = cursor.native_cursor
    if hasattr(native, "returns_rows"):  # SQLAlchemy's
        native = native.cursor
    if native is None or native.description is None:
        raise Unanswered("it gives no rows: it has to be a SELECT")
    return [column[0] for column in native.description]


def _unbuffered(query: str) -> Any:
    """The query for a destination behind SQLAlchemy, of which the driver does not hold all rows. Imports a driver."""
    import sqlalchemy  # noqa: PLC0415

    no_parameters = re.sub(r":(?=\w)", r"\:", query)
    return sqlalchemy.text(no_parameters).execution_options(stream_results=True)


def _reason(error: Exception) -> str:
    """What the database said, in a line."""
    error = getattr(error, "dbapi_exception", error)
    return one_line(str(getattr(error, "orig", None) or error))
