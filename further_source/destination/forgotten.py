"""Executions that were forgotten: their rows are deleted wherever they are, and tombstones keep them from coming back.

The table `forgotten` has their ids, and nothing else of them. It is written before anything is deleted, and looked at
after each load. So a load that was under way, or a package that waited on another machine, cannot bring one back:
either the load sees the tombstone, or the deletion sees the rows.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from itertools import islice
from typing import Any

import dlt
from dlt.common import logger
from dlt.common.destination.client import WithStagingDataset
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.storages.load_package import create_load_id
from dlt.destinations.job_client_impl import SqlJobClientBase

from further_source.destination.catalog import knows_sql, make_tables, tables_with
from further_source.destination.strategy import loading_of
from further_source.dlt_internals import base_tables
from further_source.executions import ExecutionId
from further_source.tables.columns import EXECUTIONS, FORGOTTEN, MERGE_KEY

__all__ = [
    "UNCOMPRESSED",
    "bury",
    "erase",
    "erase_what_came_back",
    "executions_of",
    "mark_erased",
    "read_forgotten",
    "stored_forgotten",
    "tables_to_rewrite",
    "unfinished",
]

UNCOMPRESSED = "SET force_compression = 'uncompressed'"
"""For what DuckDB writes while the memory of this process still has some of what is gone; see `duckdb_copy`."""

_IDS_AT_ONCE = 200
_EXTERNAL_ID = "metadata__external_id"


def read_forgotten(pipeline: dlt.Pipeline) -> frozenset[ExecutionId]:
    """All executions that were forgotten; none where the destination knows no SQL."""
    with pipeline.destination_client() as client:
        return frozenset(stored_forgotten(client))


def stored_forgotten(client: Any) -> list[ExecutionId]:
    """The same, by a client that is open."""
    return _tombstones(client)


def unfinished(client: Any) -> list[ExecutionId]:
    """Those with a tombstone that may not be gone everywhere, because the process was killed or failed."""
    (erased_at,) = _columns(client, "erased_at", of="f")
    return _tombstones(client, f" WHERE {erased_at} IS NULL")


def executions_of(client: Any, external_id: str) -> list[ExecutionId]:
    """The executions that are loaded with an external id."""
    sql = client.sql_client
    columns, (column,) = _columns(client, *MERGE_KEY), _columns(client, _EXTERNAL_ID)
    table = sql.make_qualified_table_name(EXECUTIONS.name)
    with suppress(DestinationUndefinedEntity):
        rows = sql.execute_sql(f"SELECT {', '.join(columns)} FROM {table} WHERE {column} = %s", external_id)  # noqa: S608
        return [ExecutionId(*row) for row in rows or ()]
    return []


def bury(pipeline: dlt.Pipeline, client: Any, executions: Iterable[ExecutionId]) -> None:
    """Writes tombstones, not finished yet; makes their table where there is none."""
    executions = list(dict.fromkeys(executions))
    if not executions:
        return
    if not _has_tombstones(client):
        _make_tombstones(pipeline, client)
    sql = client.sql_client
    table = sql.make_qualified_table_name(FORGOTTEN.name)
    (erased_at,) = _columns(client, "erased_at")
    held = set(stored_forgotten(client))
    columns = ", ".join(_columns(client, *MERGE_KEY, "forgotten_at", "_dlt_load_id"))
    for execution in executions:
        if execution in held:
            sql.execute_sql(f"UPDATE {table} SET {erased_at} = NULL WHERE {_are(client, [execution])}")  # noqa: S608
        else:
            values = (*execution, datetime.now(timezone.utc), create_load_id())
            sql.execute_sql(f"INSERT INTO {table} ({columns}) VALUES (%s, %s, %s, %s)", *values)  # noqa: S608


def mark_erased(client: Any, executions: Sequence[ExecutionId]) -> None:
    """Says in their tombstones that they are gone everywhere."""
    sql = client.sql_client
    if client.capabilities.sqlglot_dialect == "duckdb":
        sql.execute_sql(UNCOMPRESSED)
    (erased_at,) = _columns(client, "erased_at")
    table = sql.make_qualified_table_name(FORGOTTEN.name)
    for some in _parts(executions):
        query = f"UPDATE {table} SET {erased_at} = %s WHERE {_are(client, some)}"  # noqa: S608
        sql.execute_sql(query, datetime.now(timezone.utc))


def erase(client: Any, executions: Collection[ExecutionId]) -> Counter[str]:
    """Deletes all rows of executions, in the dataset and in the staging datasets of its loads; counts them by table.

    All tables that have both ids, those that others made in the dataset too. Rows of staging datasets are not counted.
    What a database keeps of deleted rows is for `rewriting`.
    """
    for dataset in _staging_datasets(client):
        with client.sql_client.with_alternative_dataset_name(dataset):
            _delete(client, executions)
    return _delete(client, executions)


def tables_to_rewrite(client: Any) -> list[str]:
    """The qualified names of all tables that `erase` deletes from."""
    found: list[str] = []
    for dataset in (client.sql_client.dataset_name, *_staging_datasets(client)):
        with client.sql_client.with_alternative_dataset_name(dataset):
            found += map(client.sql_client.make_qualified_table_name, _tables_of_executions(client))
    return found


def erase_what_came_back(pipeline: dlt.Pipeline) -> None:
    """Erases what a load has brought back of executions that were forgotten meanwhile; to be called after each load."""
    if not knows_sql(pipeline):
        return
    with pipeline.destination_client() as client:
        back = _back_again(client)
        if not back:
            return
        bury(pipeline, client, back)
        erase(client, back)
    logger.warning(
        f"{len(back)} executions that were forgotten had come back with this load, and their rows are deleted again: "
        f"run `further-source forget {back[0]}{' …' if len(back) > 1 else ''}` for what is left in files"
    )


def _tombstones(client: Any, condition: str = "") -> list[ExecutionId]:
    if not _has_tombstones(client):
        return []
    columns = ", ".join(_columns(client, *MERGE_KEY, of="f"))
    table = client.sql_client.make_qualified_table_name(FORGOTTEN.name)
    rows = client.sql_client.execute_sql(f"SELECT {columns} FROM {table} f{condition}")  # noqa: S608
    return [ExecutionId(*row) for row in rows or ()]


def _make_tombstones(pipeline: dlt.Pipeline, client: Any) -> None:
    """Makes their table, which no schema of dlt's knows, so that dlt never drops it."""
    client.initialize_storage()
    make_tables(client, {FORGOTTEN.name: loading_of(pipeline, None).stored_columns(FORGOTTEN.name).values()})


def _has_tombstones(client: Any) -> bool:
    """Asked of the catalog: a query would leave an error in the server's log at every load."""
    if isinstance(client, SqlJobClientBase):
        with suppress(DestinationUndefinedEntity):
            return any(columns for _, columns in client.get_storage_tables([FORGOTTEN.name]))
    return False


def _back_again(client: Any) -> list[ExecutionId]:
    same = " AND ".join(
        f"{ours} = {theirs}"
        for ours, theirs in zip(_columns(client, *MERGE_KEY, of="f"), _columns(client, *MERGE_KEY, of="e"), strict=True)
    )
    executions = client.sql_client.make_qualified_table_name(EXECUTIONS.name)
    with suppress(DestinationUndefinedEntity):  # no executions yet
        return _tombstones(client, f" JOIN {executions} e ON {same}")
    return []


def _columns(client: Any, *names: str, of: str = "") -> list[str]:
    prefix = f"{of}." if of else ""
    return [prefix + client.sql_client.escape_column_name(name) for name in names]


def _parts(executions: Iterable[ExecutionId]) -> Iterator[list[ExecutionId]]:
    rest = iter(executions)
    while some := list(islice(rest, _IDS_AT_ONCE)):
        yield some


def _are(client: Any, executions: Iterable[ExecutionId]) -> str:
    """The condition for rows of executions. Ids need no escaping: they are letters, digits, - and _."""
    workflow_id, execution_id = _columns(client, *MERGE_KEY)
    return " OR ".join(
        f"({workflow_id} = '{one.workflow_id}' AND {execution_id} = '{one.workflow_execution_id}')"
        for one in executions
    )


def _delete(client: Any, executions: Collection[ExecutionId]) -> Counter[str]:
    """Of one dataset; `executions` comes last, by which an external id is known until all else is gone."""
    counts: Counter[str] = Counter()
    for name in sorted(_tables_of_executions(client), key=lambda name: name.lower() == EXECUTIONS.name):
        table = client.sql_client.make_qualified_table_name(name)
        for some in _parts(executions):
            condition = _are(client, some)
            ((count,),) = client.sql_client.execute_sql(f"SELECT count(*) FROM {table} WHERE {condition}")  # noqa: S608
            if count:
                client.sql_client.execute_sql(f"DELETE FROM {table} WHERE {condition}")  # noqa: S608
                counts[name.lower()] += count
    return counts


def _tables_of_executions(client: Any) -> list[str]:
    """All tables with both ids, but those of the tombstones."""
    having = {name for name in tables_with(client, *MERGE_KEY) if name.lower() != FORGOTTEN.name}
    return [table for table in base_tables(client) if table in having] if having else []


def _staging_datasets(client: Any) -> list[str]:
    """Those of all loads into the dataset; of shards only where the names of all datasets can be asked for."""
    if not isinstance(client, WithStagingDataset):
        return []
    sql: Any = client.sql_client  # type: ignore[attr-defined]
    own = sql.staging_dataset_name
    if sql.capabilities.sqlglot_dialect not in {"duckdb", "postgres"}:
        return [own]
    names = {name for (name,) in sql.execute_sql("SELECT schema_name FROM information_schema.schemata") or ()}
    return sorted(name for name in names if name == own or name.startswith(f"{own}_shard_"))
