"""Runs the SQL of a list on a database that SQLAlchemy reaches, and only reads there."""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import sqlglot
from sqlglot import exp

from further_source.exceptions import FurtherError
from further_source.text import one_line, shown

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

__all__ = ["FETCH_SIZE", "Columns", "Rows", "Unanswered", "check_reads", "queried"]

FETCH_SIZE = 10_000
"""Rows that are in memory at once, as far as the database's driver lets them be fetched part by part."""

Columns = Sequence[str]
Rows = Iterator[Sequence[Any]]

_WRITES = (
    exp.Insert,
    exp.Update,
    exp.Delete,
    exp.Merge,
    exp.Into,
    exp.Create,
    exp.Drop,
    exp.Alter,
    exp.TruncateTable,
    exp.Copy,
)
_BEGINNINGS = {"SELECT", "WITH", "FROM", "VALUES", "TABLE", "PIVOT"}
_BEGINNINGS_THAT_WRITE = {
    "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "CREATE", "DROP", "ALTER", "TRUNCATE", "COPY"
}  # fmt: skip
_INTO_FILES = {"OUTFILE", "DUMPFILE"}  # of MySQL's server
_CONNECT_SECONDS = 30
_WITHOUT_TIMEOUT = {"postgresql", "postgresql+psycopg2", "postgresql+psycopg", "mysql+mysqldb", "mariadb+mysqldb"}
"""Drivers that would wait for ever for a server that takes connections and says nothing."""

_DIALECTS = {"postgresql": "postgres", "mariadb": "mysql", "mssql": "tsql"}
_NO_URL = "executions_database is no URL of SQLAlchemy's, as postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE"
_IS_SECRET = re.compile(r"pass|pwd|secret|token|key|credential", re.IGNORECASE)
_USER = re.compile(r"[^:/]+://[^:@/]*:([^@]*)@")
_PASSWORD = re.compile(r"(?:pwd|password)\s*=\s*([^;&]+)", re.IGNORECASE)


class Unanswered(Exception):
    """Why a query gives no list, without secrets."""


def check_reads(query: str, dialect: str | None) -> None:
    """Finds a query that would change something before any database is asked, so that it is told in the same words.

    Some databases write files though they are told to only read. So it has to begin as a SELECT does; the rest of what
    cannot be parsed is left to the database.

    Raises:
        Unanswered: It writes, is no SELECT, or is not one statement.
    """
    try:
        known = dialect if dialect in sqlglot.Dialect.classes else None
        _check_words(_words(query, known))
        statements = [statement for statement in sqlglot.parse(query, dialect=known) if statement is not None]
    except sqlglot.errors.SqlglotError:
        return
    if len(statements) != 1:
        raise Unanswered(f"it has {len(statements)} statements: it has to be one SELECT")
    if statements[0].find(*_WRITES):
        raise Unanswered("it writes: it has to be a SELECT")


def _words(query: str, dialect: str | None) -> list[str]:
    """What it consists of, in upper case, without texts and comments."""
    texts = (sqlglot.TokenType.STRING, sqlglot.TokenType.IDENTIFIER)
    return [token.text.upper() for token in sqlglot.tokenize(query, read=dialect) if token.token_type not in texts]


def _check_words(words: Sequence[str]) -> None:
    first = next((word for word in words if word != "("), ";")
    writes_file = any(one == "INTO" and other in _INTO_FILES for one, other in pairwise(words))
    if first in _BEGINNINGS_THAT_WRITE or writes_file:
        raise Unanswered("it writes: it has to be a SELECT")
    if first != ";" and first not in _BEGINNINGS:
        raise Unanswered(f"it begins with {shown(first)}: it has to be a SELECT")


@contextmanager
def queried(query: str, database: str) -> Iterator[tuple[Columns, Rows]]:
    """The names of the columns that a query gives, and its rows, as they come.

    The database is told that nothing is to be written, if it is one of PostgreSQL, MariaDB, MySQL, SQLite and DuckDB;
    on others what a query wrote is rolled back. Imports SQLAlchemy only now, because it need not be installed.

    Args:
        database: A URL of SQLAlchemy's.

    Raises:
        Unanswered: There is no answer that has rows; while it is read, too.
    """
    try:
        import sqlalchemy  # noqa: PLC0415
    except ImportError:
        raise Unanswered("executions_database needs a package: install further_source[sql]") from None
    url = _url(database)
    backend = url.get_backend_name()
    check_reads(query, _DIALECTS.get(backend, backend))
    try:
        engine = _read_only_engine(url)
        with closing(engine.connect()) as connection:
            _forbid_writing(connection, backend)
            connection = connection.execution_options(stream_results=True, no_parameters=True)
            result = connection.exec_driver_sql(query)
            if not result.returns_rows:
                raise Unanswered("it gives no rows: it has to be a SELECT")
            yield [*result.keys()], _rows(result, url, database)
    except sqlalchemy.exc.NoSuchModuleError:
        raise Unanswered(
            f"SQLAlchemy knows no database {shown(url.drivername)}: install its package, or mend executions_database"
        ) from None
    except ImportError as error:
        raise Unanswered(
            f"the driver {error.name} is missing: install it, or name another one in executions_database, "
            "as in postgresql+psycopg2:// or mysql+pymysql://"
        ) from None
    except (Unanswered, FurtherError):
        raise
    except Exception as error:  # not every error of a driver becomes one of SQLAlchemy's
        raise Unanswered(_reason(error, url, database)) from None


def _rows(result: Any, url: "URL", database: str) -> Rows:
    """The rows of a result. The error of a driver may be anything, whose text is not known to be free of secrets."""
    try:
        for rows in result.partitions(FETCH_SIZE):
            yield from rows
    except Exception as error:
        raise Unanswered(_reason(error, url, database)) from None


def _url(database: str) -> "URL":
    """The parsed URL. Of one that is wrong nothing is shown: any part may be the password."""
    import sqlalchemy  # noqa: PLC0415  see `queried`

    try:
        url = sqlalchemy.make_url(database)
    except Exception:
        raise Unanswered(_NO_URL) from None
    if url.host and "@" in f"{url.host}{url.database or ''}":
        raise Unanswered("executions_database has several @: in a user or a password write %40, and %2F for /")
    return url


def _read_only_engine(url: "URL") -> "Engine":
    """The engine of a database; where that is a file, it is opened for reading alone, and not made."""
    import sqlalchemy  # noqa: PLC0415  see `queried`

    options: dict[str, Any] = {}
    is_file = url.database not in (None, "", ":memory:")
    if url.get_backend_name() == "sqlite" and is_file and not str(url.database).startswith("file:"):
        file = Path(str(url.database)).absolute().as_uri()
        url = url.set(database=file).update_query_dict({"mode": "ro", "uri": "true"})
    if url.get_backend_name() == "duckdb" and is_file:
        options["connect_args"] = {"read_only": True}
    if url.drivername in _WITHOUT_TIMEOUT and "connect_timeout" not in url.query:
        options["connect_args"] = {"connect_timeout": _CONNECT_SECONDS}
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, **options)


def _forbid_writing(connection: "Connection", backend: str) -> None:
    if backend == "postgresql":
        connection.execution_options(postgresql_readonly=True)
    elif backend in ("mysql", "mariadb"):
        connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")


def _reason(error: Exception, url: "URL", database: str) -> str:
    """What the database said, in a line and without what is secret in the URL, however it is spelled."""
    text = one_line(str(getattr(error, "orig", None) or error))
    for secret in _secrets(url, database):
        spellings = {
            secret,
            quote(secret, safe=""),
            quote(secret, safe="!*'()"),
            quote_plus(secret),
            repr(secret)[1:-1],
        }
        for spelling in sorted(spellings, key=len, reverse=True):
            text = re.sub(re.escape(spelling), "***", text, flags=re.IGNORECASE)
    return text


def _secrets(url: "URL", database: str) -> list[str]:
    values = [(key, value) for key, held in url.query.items() for value in ([held] if isinstance(held, str) else held)]
    found = [str(url.password or ""), *_USER.findall(database)]
    found += [value for key, value in values if _IS_SECRET.search(key)]
    found += [match for _, value in values for match in _PASSWORD.findall(value)]
    return sorted(filter(None, found), key=len, reverse=True)
