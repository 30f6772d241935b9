"""Copies all that is in a DuckDB file into a new one; run as a module, in a process of its own.

DuckDB writes blocks of compressed texts with whatever the memory of the process had behind them
(https://github.com/duckdb/duckdb/issues/23382). So the copy of a process that has read what is to be gone is not
compressed, and the compressed one is made of that copy by a process that has not.
"""

import sys
from pathlib import Path

import duckdb

__all__ = ["copy_database"]

_COUNTED = ("duckdb_tables", "duckdb_views", "duckdb_indexes", "duckdb_sequences", "duckdb_types", "duckdb_constraints")


def copy_database(connection: duckdb.DuckDBPyConnection, target: Path) -> None:
    """Copies the connection's database into a file of the same version of storage, with all that a database can hold.

    Raises:
        duckdb.Error, OSError: It cannot, or something is missing in the copy.
    """
    name, version = connection.execute(
        "SELECT database_name, tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchall()[0]
    path, quoted = str(target).replace("'", "''"), name.replace('"', '""')
    options = f" (STORAGE_VERSION '{version.rstrip('+')}')" if version else ""
    connection.execute(f"ATTACH '{path}' AS further_copy{options}")
    connection.execute(f'COPY FROM DATABASE "{quoted}" TO further_copy')
    for function in _COUNTED:
        query = f"SELECT count(*) FROM {function}() WHERE database_name = ?"  # noqa: S608
        counts = [connection.execute(query, [database]).fetchall() for database in (name, "further_copy")]
        if counts[0] != counts[1]:
            raise OSError(f"its {function.removeprefix('duckdb_')} cannot be copied")
    connection.execute("DETACH further_copy")


if __name__ == "__main__":
    with duckdb.connect(sys.argv[1]) as source:
        copy_database(source, Path(sys.argv[2]))
