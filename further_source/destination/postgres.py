"""Keeps empty texts in PostgreSQL from becoming null, and a load whose lease was lost from writing; makes indexes.

dlt loads CSV with `COPY … FORCE_NULL`, which makes null of an empty field even if it is in quotes. dlt's own writer of
CSV needs that. The writer of arrow tables does not: it puts texts in quotes and writes nothing for null, so that `COPY`
without `FORCE_NULL` can tell them apart.

A process that stood still for longer than its lease may go on in the middle of a load. So each transaction of a load
locks the row of the lease first, and fails if another load has it.

Loads delete rows of executions by both ids. Without an index PostgreSQL reads each table from end to end for that, so
each table gets one, and the planner is told what a load replaces before it chooses.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from dlt.common import logger
from dlt.common.destination.client import JobClientBase
from dlt.common.destination.exceptions import DestinationException, DestinationTerminalException
from dlt.common.destination.reference import DestinationReference
from dlt.destinations import postgres

from further_source.destination.lease import Lease, lease_of_client
from further_source.tables.columns import MERGE_KEY, TABLES
from further_source.tables.fields import ROWS_PREFIX

if TYPE_CHECKING:
    from dlt.destinations.impl.postgres.postgres import PostgresClient
    from dlt.destinations.typing import DBTransaction

__all__ = ["EMPTY_TEXTS", "keep_empty_texts"]

EMPTY_TEXTS = "x-empty-texts-in-quotes"
"""The hint for tables whose CSV has empty texts in quotes, and nothing for null."""

_TYPE = "dlt.destinations.postgres"
_MERGED = frozenset(table.name for table in TABLES.values() if table.merge_key)
_WITHOUT_INDEX = """
    SELECT c.relname FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute one ON one.attrelid = c.oid AND one.attname = %s
    JOIN pg_attribute other ON other.attrelid = c.oid AND other.attname = %s
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT EXISTS (
        SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL
        AND i.indkey[0] IN (one.attnum, other.attnum) AND i.indkey[1] IN (one.attnum, other.attnum)
    )
"""


def keep_empty_texts(destination: Any) -> None:
    """If the destination is dlt's PostgreSQL, makes it load tables with the hint as they are; else does nothing.

    It then loads nothing for a lease that was lost, either. It changes the object itself, and what dlt makes of the
    destination's name, because a pipeline may get either of them once more for the load.
    """
    if type(destination) is postgres:
        DestinationReference.register(_Postgres, _TYPE)
        destination.__class__ = _Postgres


class _Postgres(postgres):
    @property
    def destination_type(self) -> str:
        return _TYPE  # pipelines store it, to find the destination again

    @property
    def client_class(self) -> "type[PostgresClient]":
        return _client_class()


@cache
def _client_class() -> "type[PostgresClient]":
    from dlt.destinations.impl.postgres.postgres import PostgresClient, PostgresCsvCopyJob  # noqa: PLC0415  a driver
    from dlt.destinations.impl.postgres.sql_client import Psycopg2SqlClient  # noqa: PLC0415
    from dlt.destinations.job_client_impl import SqlLoadJob  # noqa: PLC0415

    class Copy(PostgresCsvCopyJob):
        def run_managed(self, job_client: JobClientBase, done_event: BoundedSemaphore, /) -> None:
            job_client = copy.copy(job_client)
            job_client.schema = job_client.schema.clone()
            for column in job_client.schema.get_table_columns(self.load_table_name).values():
                column["nullable"] = False  # dlt names only nullable columns in FORCE_NULL
            super().run_managed(job_client, done_event)

    class Merge(SqlLoadJob):
        @contextmanager
        def maybe_transaction(self, sql: str) -> Iterator[None]:
            with self._sql_client.begin_transaction():  # dlt would send the statements alone
                with self._job_client.with_staging_dataset() as staging:  # type: ignore[attr-defined]
                    _tell_planner(staging.sql_client, self.load_table_name)
                yield

    class LeasedSqlClient(Psycopg2SqlClient):
        lease: Lease

        @contextmanager
        def begin_transaction(self) -> "Iterator[DBTransaction]":
            try:
                with super().begin_transaction() as transaction:
                    self.lease.lock_row(self)
                    yield transaction
            except Exception:
                with suppress(DestinationException):
                    self.lease.check()  # the server ends transactions of who stands still
                raise

    class Client(PostgresClient):
        def __init__(self, schema: Any, config: Any, capabilities: Any) -> None:
            super().__init__(schema, config, capabilities)
            if (lease := lease_of_client(self)) is not None:
                own = self.sql_client
                self.sql_client = leased = LeasedSqlClient(
                    own.dataset_name, own.staging_dataset_name, own.credentials, own.capabilities
                )
                leased.lease = lease

        def initialize_storage(self, truncate_tables: Any = None) -> None:
            with self.sql_client.begin_transaction():  # dlt would empty staging tables outside of one
                super().initialize_storage(truncate_tables)

        def update_stored_schema(
            self, only_tables: Any = None, expected_update: Any = None, force: bool = False
        ) -> Any:
            update = super().update_stored_schema(only_tables, expected_update, force)
            if not self.in_staging_dataset_mode:  # that holds one load at most, all of which is read
                _make_indexes(self.sql_client)
            return update

        def create_load_job(self, table: Any, file_path: str, load_id: str, restore: bool = False) -> Any:
            job = super().create_load_job(table, file_path, load_id, restore)
            if isinstance(job, SqlLoadJob) and _is_merged(table["name"]):
                return Merge(file_path)
            return Copy(file_path) if isinstance(job, PostgresCsvCopyJob) and table.get(EMPTY_TEXTS) else job

    return Client


def _make_indexes(sql: Any) -> None:
    """Makes an index on the ids of executions for each table that loads merge into and that has none.

    Other loads may do so at the same time, and one of them at a time makes one. Who may not make any loads without.
    """
    for name in _without_index(sql):
        table = sql.make_qualified_table_name(name)
        try:
            with sql.begin_transaction():
                sql.execute_sql(f"LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE")
                if name in _without_index(sql):
                    sql.execute_sql(f"CREATE INDEX ON {table} ({_keys(sql)})")
        except DestinationTerminalException as error:
            logger.info(f"{table} gets no index, and is read from end to end by each load that replaces: {error}")


def _without_index(sql: Any) -> list[str]:
    rows = sql.execute_sql(_WITHOUT_INDEX, *MERGE_KEY, sql.dataset_name)
    return [name for (name,) in rows if _is_merged(name)]


def _is_merged(table: str) -> bool:
    return table in _MERGED or table.startswith(ROWS_PREFIX)


def _tell_planner(sql: Any, staging_table: str) -> None:
    """Has PostgreSQL count the executions in a staging table: it would take them for many, and read all of the other.

    That takes about 10 ms. Where it is not done, DELETE took 490 ms at a million cells, with it and the index 16 ms.
    """
    sql.execute_sql(f"ANALYZE {sql.make_qualified_table_name(staging_table)} ({_keys(sql)})")


def _keys(sql: Any) -> str:
    return ", ".join(map(sql.escape_column_name, MERGE_KEY))
