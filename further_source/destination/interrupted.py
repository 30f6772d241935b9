"""Packages whose loading was interrupted: what had reached the destination is taken back, or told to the ledger.

dlt notes on disk which files of a package it has loaded. A process that is killed between the one and the other leaves
no note, and after a power cut any note may be gone. Files would be loaded twice, and merges here rely on it that no row
comes twice. So a package is loaded anew, all of it: merging it again gives the same rows, also where it was begun by
appending, and what can only be appended is removed before.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dlt
from dlt.common.destination.client import WithStagingDataset
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.schema import Schema
from dlt.common.storages.load_package import PackageStorage
from dlt.destinations.fs_client import FSClientBase
from dlt.destinations.job_client_impl import SqlJobClientBase

from further_source.destination.appending import merge_package
from further_source.destination.catalog import tables_with
from further_source.destination.files import delete_load, disown, executions_of_load
from further_source.destination.package_manifest import FOLLOW_UPS, copies, job_files
from further_source.executions import ExecutionId
from further_source.tables.answer import FINAL_OUTCOMES
from further_source.tables.columns import EXECUTIONS, FIELDS, MERGE_KEY
from further_source.tables.fields import has_executions

__all__ = ["begin_anew", "give_up", "is_loaded"]

_LOAD_ID = "_dlt_load_id"
_FIELD_KEYS = ("rows_table", "step_name", "field")


def is_loaded(pipeline: dlt.Pipeline, load_id: str) -> bool:
    """Whether the destination holds a load as finished; False if it knows no SQL."""
    with _client(pipeline) as client:
        if not isinstance(client, SqlJobClientBase):
            return False
        name = client.sql_client.escape_column_name
        loads = client.sql_client.make_qualified_table_name(client.schema.loads_table_name)
        with suppress(DestinationUndefinedEntity):
            query = f"SELECT 1 FROM {loads} WHERE {name('load_id')} = %s AND {name('status')} = 0"  # noqa: S608
            return bool(client.sql_client.execute_sql(query, load_id))
    return False


def begin_anew(pipeline: dlt.Pipeline, packages: PackageStorage, load_id: str) -> None:
    """Makes a package such that dlt loads it from its first file, and takes back what was appended of it.

    Nothing need be taken back in tables that loads merge into: the merge removes it. Files of tables in which nothing
    can be taken back (those without load ids, of other sources) stay as they are.
    """
    merge_package(packages, load_id)
    directory = Path(packages.storage.make_full_path(packages.get_package_path(load_id)))
    with _client(pipeline, packages.load_schema(load_id)) as client:
        files: dict[str, list[Path]] = {}
        for job, path in job_files(directory):
            files.setdefault(job.table_name, []).append(path)
        anew = {table for table, paths in files.items() if _can_be_loaded_anew(client, table, load_id, paths)}
    _queue_again(packages, load_id, anew)
    updates = directory / PackageStorage.SCHEMA_UPDATES_FILE_NAME
    applied = directory / PackageStorage.APPLIED_SCHEMA_UPDATES_FILE_NAME
    # Without this file dlt takes the tables for made, and the staging tables for emptied.
    packages.storage.save(str(updates), copies(directory).get(updates.name, "{}"))
    applied.unlink(missing_ok=True)


@contextmanager
def _client(pipeline: dlt.Pipeline, schema: Schema | None = None) -> Iterator[Any]:
    """A client for the schema of a package, which the pipeline's own may be behind."""
    client: Any = pipeline.destination_client()
    if schema is not None:
        client = pipeline.destination.client(schema, client.config)
    with client:
        yield client


def _can_be_loaded_anew(client: Any, table: str, load_id: str, files: list[Path]) -> bool:
    """Whether no row of a table is there of this load, or none will be once it begins; makes it so where it can."""
    if isinstance(client, WithStagingDataset) and client.should_load_data_to_staging_dataset(table):
        return True  # dlt empties its staging table
    if client.should_truncate_table_before_load(table):
        return True
    if isinstance(client, FSClientBase):
        _delete_in_files(client, table, load_id)
        return True
    if not isinstance(client, SqlJobClientBase) or _LOAD_ID not in client.schema.tables[table]["columns"]:
        return False
    with suppress(DestinationUndefinedEntity):
        if table == FIELDS.name:
            _delete_fields(client, load_id, files)
        else:
            _delete(client, table, {_LOAD_ID: load_id})
    return True


def _delete(client: SqlJobClientBase, table: str, values: dict[str, str | None]) -> None:
    sql = client.sql_client
    where = " AND ".join(
        f"{sql.escape_column_name(key)} {'IS NULL' if value is None else '= %s'}" for key, value in values.items()
    )
    known = [value for value in values.values() if value is not None]
    sql.execute_sql(f"DELETE FROM {sql.make_qualified_table_name(table)} WHERE {where}", *known)  # noqa: S608


def _delete_fields(client: SqlJobClientBase, load_id: str, files: Iterable[Path]) -> None:
    """Deletes the records that are in the package, and not those written to the destination while it was extracted."""
    for file in files:
        for record in _records(file):
            _delete(client, FIELDS.name, {**{key: record[key] for key in _FIELD_KEYS}, _LOAD_ID: load_id})


def _records(file: Path) -> list[dict[str, str | None]]:
    """The keys of records of `fields`; imports pyarrow only here, because that takes long."""
    if file.suffix == ".parquet":
        import pyarrow.parquet  # noqa: PLC0415

        table = pyarrow.parquet.read_table(file, columns=list(_FIELD_KEYS))
    else:
        import pyarrow.csv  # noqa: PLC0415

        convert = pyarrow.csv.ConvertOptions(
            include_columns=_FIELD_KEYS,
            column_types=dict.fromkeys(_FIELD_KEYS, pyarrow.string()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
        table = pyarrow.csv.read_csv(file, parse_options=parse, convert_options=convert)
    records: list[dict[str, str | None]] = table.to_pylist()
    return records


def _queue_again(packages: PackageStorage, load_id: str, tables: set[str]) -> None:
    for state, job in packages.list_all_jobs_with_states(load_id):
        if job.table_name not in tables or state == "failed_jobs":
            continue
        path = packages.get_job_file_path(load_id, state, job.file_name())
        if job.file_format in FOLLOW_UPS:
            packages.storage.delete(path)  # dlt makes it again
        else:
            # Under another name: a destination that knows its jobs by name would take the old one for done.
            again = packages.get_job_file_path(load_id, "new_jobs", job.with_retry().file_name())
            packages.storage.atomic_rename(path, again)
        packages.clear_pending_transition(load_id, job.file_name())


def give_up(pipeline: dlt.Pipeline, load_id: str) -> None:
    """Has the next run ask for all executions that a load which will never be finished has something of.

    Where loads replace, it may have replaced some tables of what an earlier load had, and not `executions` yet. Where
    they append, what it appended is deleted.
    """
    with _client(pipeline) as client:
        if isinstance(client, FSClientBase):
            for table in client.schema.tables:
                _delete_in_files(client, table, load_id)
            disown(client, _replaced_in_files(client, load_id), load_id)
        elif isinstance(client, SqlJobClientBase):
            _disown(client, load_id)


def _delete_in_files(client: Any, table: str, load_id: str) -> None:
    prepared = client.prepare_load_table(table)
    if prepared["write_disposition"] == "append":
        with suppress(DestinationUndefinedEntity):
            delete_load(client, table, prepared.get("table_format"), load_id)


def _replaced_in_files(client: Any, load_id: str) -> set[ExecutionId]:
    """The executions that a load has replaced in some table of Delta or Iceberg."""
    found: set[ExecutionId] = set()
    for table in filter(has_executions, client.schema.tables):
        if table_format := client.prepare_load_table(table).get("table_format"):
            with suppress(DestinationUndefinedEntity):
                found |= executions_of_load(client, table, table_format, load_id)
    return found


def _disown(client: SqlJobClientBase, load_id: str) -> None:
    """Says in `executions` that it is of the unfinished load, whatever any table has of that."""
    sql = client.sql_client
    name, executions = sql.escape_column_name, sql.make_qualified_table_name(EXECUTIONS.name)
    keys = "CONCAT(CONCAT({}, '/'), {})".format(*map(name, MERGE_KEY))
    outcomes = ", ".join(f"'{outcome}'" for outcome in sorted(FINAL_OUTCOMES))
    for table in _tables_of_executions(client):
        with suppress(DestinationUndefinedEntity):
            sql.execute_sql(
                f"UPDATE {executions} SET {name(_LOAD_ID)} = %s "  # noqa: S608
                f"WHERE {name('poll_outcome')} IN ({outcomes}) AND {name(_LOAD_ID)} <> %s "
                f"AND {keys} IN (SELECT {keys} FROM {table} WHERE {name(_LOAD_ID)} = %s)",
                *[load_id] * 3,
            )


def _tables_of_executions(client: SqlJobClientBase) -> list[str]:
    """The qualified names of all tables with executions and load ids, of the dataset and of its staging dataset."""
    found = _with_executions(client)
    if isinstance(client, WithStagingDataset):
        with client.with_staging_dataset() as staging:
            found += _with_executions(staging)
    return found


def _with_executions(client: Any) -> list[str]:
    return list(map(client.sql_client.make_qualified_table_name, tables_with(client, *MERGE_KEY, _LOAD_ID)))
