"""Rewrites what a database keeps of rows that are deleted, as far as it can be made to.

- DuckDB leaves them in blocks of its file that are free, or shared with rows that stay, until something is written
  there. Its file is copied without them, and the copy takes its place. See `duckdb_copy`.
- PostgreSQL leaves them in the pages of the table. `VACUUM FULL` writes the table anew, `ANALYZE` the samples of values
  that the planner keeps, and a checkpoint removes the old files. The write-ahead log has them until it is recycled.
- SQLite leaves them in free pages of its file, unless it is built otherwise. `VACUUM` writes the file anew.
- MySQL and MariaDB leave them in the pages of the table. `OPTIMIZE TABLE` writes the table anew. Redo, undo and binary
  logs have them until they are recycled.
- Other destinations keep them by rules of their own (snapshots, time travel, backups).
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationException

from further_source.destination.forgotten import UNCOMPRESSED
from further_source.exceptions import FurtherError
from further_source.text import one_line

__all__ = ["rewrite"]


def rewrite(pipeline: dlt.Pipeline, tables: Iterable[str]) -> str:
    """Rewrites the pipeline's database, no client of which may be open here; says in a sentence what is left where.

    Args:
        tables: The qualified names of those that rows were deleted of.

    Raises:
        FurtherError: It cannot be. What was there is there as it was.
    """
    client: Any = pipeline.destination_client()
    dialect = client.capabilities.sqlglot_dialect
    if dialect == "duckdb" and client.config.destination_type.endswith("duckdb"):
        file = Path(str(client.config.credentials.database)).resolve()
        if file.is_file():
            _rewrite_file(file)
            return "DuckDB's file is written anew without them"
    if dialect == "postgres":
        with client:
            _vacuum(client.sql_client, tables)
        return (
            "PostgreSQL's tables are written anew without them; its write-ahead log, replicas and backups have them "
            "until they are recycled"
        )
    if dialect == "sqlite":
        with client:
            files = [Path(file) for _, _, file in client.sql_client.execute_sql("PRAGMA database_list") if file]
        _vacuum_files(files)
        return "SQLite's file is written anew without them"
    if dialect == "mysql":
        with client:
            for table in tables:
                client.sql_client.execute_sql(f"OPTIMIZE TABLE {table}")
        return (
            "the tables are written anew without them; the database's logs, replicas and backups have them until they "
            "are recycled"
        )
    return "what the destination keeps of deleted rows (snapshots, time travel, backups) goes by its own rules"


def _vacuum(sql: Any, tables: Iterable[str]) -> None:
    for table in tables:
        sql.execute_sql(f"VACUUM (FULL, ANALYZE) {table}")
    # Only who owns the database, or is told so, may do these; PostgreSQL does them by itself in time.
    for statement in ("VACUUM FULL pg_catalog.pg_statistic", "CHECKPOINT"):
        with suppress(DestinationException):
            sql.execute_sql(statement)


def _vacuum_files(files: Iterable[Path]) -> None:
    for file in files:
        try:
            with closing(sqlite3.connect(file, isolation_level=None)) as connection:
                connection.execute("VACUUM")
        except sqlite3.Error as error:
            raise _cannot(file, str(error)) from error


def _rewrite_file(file: Path) -> None:
    """Puts a copy of all that is in a DuckDB file in its place; whoever opens it meets the one or the other."""
    import duckdb  # noqa: PLC0415  where it is the destination

    from further_source.destination import duckdb_copy  # noqa: PLC0415

    plain, copy = (file.with_name(f"{file.stem}.forget{number}{file.suffix}") for number in (1, 2))
    _unlink(plain, copy)
    try:
        with duckdb.connect(str(file)) as connection:
            connection.execute(UNCOMPRESSED)
            duckdb_copy.copy_database(connection, plain)
            command = [sys.executable, "-m", duckdb_copy.__name__, str(plain), str(copy)]
            subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  of ours
            shutil.copymode(file, copy)
            _sync(copy)
            connection.execute("CHECKPOINT")
            if os.name != "nt":
                copy.replace(file)  # under the lock of the connection, so that nobody writes to the old one meanwhile
        if os.name == "nt":
            copy.replace(file)
    except (duckdb.Error, OSError, subprocess.CalledProcessError) as error:
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        raise _cannot(file, str(reason)) from error
    finally:
        _unlink(plain, copy)


def _cannot(file: Path, reason: str) -> FurtherError:
    return FurtherError(
        one_line(f"{file} cannot be written anew, so it may still hold bytes of rows that are deleted: {reason}")
    )


def _unlink(*files: Path) -> None:
    for file in files:
        for path in (file, file.with_name(file.name + ".wal")):
            path.unlink(missing_ok=True)


def _sync(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
