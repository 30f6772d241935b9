"""dlt's PostgreSQL with what loads need of it: empty texts kept, lost leases noticed, no file twice, indexes made.

dlt loads CSV with `COPY … FORCE_NULL`, which makes null of an empty field even if it is in quotes. dlt's own writer of
CSV needs that. The writer of arrow tables does not: it puts texts in quotes and writes nothing for null, so that `COPY`
without `FORCE_NULL` can tell them apart.

A process that stood still for longer than its lease may go on in the middle of a load. So each transaction of a load
locks the row of the lease first, and fails if another load has it.

A connection may be lost after the server has committed and before it has said so. dlt then loads the file once more. So
the server is asked first what became of the transaction in which it was loaded before.

Tables get indexes as they are made, and the planner is told what a load replaces before it merges; see
`postgres_indexes`.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from dlt.common.destination.client import JobClientBase, RunnableLoadJob
from dlt.common.destination.exceptions import DestinationException, DestinationTransientException
from dlt.common.destination.reference import DestinationReference
from dlt.destinations import postgres

from further_source.destination.lease import Lease, lease_of_client
from further_source.destination.postgres_indexes import make_indexes, tell_planner
from further_source.tables.fields import has_executions

if TYPE_CHECKING:
    from dlt.destinations.impl.postgres.postgres import PostgresClient
    from dlt.destinations.typing import DBTransaction

__all__ = ["EMPTY_TEXTS", "adapt_postgres"]

EMPTY_TEXTS = "x-empty-texts-in-quotes"
"""The hint for tables whose CSV has empty texts in quotes, and nothing for null."""

_TYPE = "dlt.destinations.postgres"
_tried: dict[str, int] = {}
"""The transactions of tries to load files that ended in an error, by the ids of the files; of one package alone."""


def adapt_postgres(destination: Any) -> None:
    """If the destination is dlt's PostgreSQL, has it load by the classes here; else does nothing.

    Changes the object itself, and what dlt makes of the destination's name, because a pipeline may get either of them
    once more for the load.
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
    from dlt.destinations.insert_job_client import InsertValuesLoadJob  # noqa: PLC0415
    from dlt.destinations.job_client_impl import SqlLoadJob  # noqa: PLC0415

    class Once(RunnableLoadJob):
        """Loads a file that an earlier try has committed no second time."""

        def run(self) -> None:
            sql: SqlClient = self._job_client.sql_client  # type: ignore[attr-defined]
            file = self._parsed_file_name.file_id  # the same at each try
            if file in _tried:
                if sql.has_committed(_tried[file]):
                    return
                del _tried[file]
            try:
                super().run()  # type: ignore[safe-super]
            except Exception:
                if sql.transaction is not None:
                    _tried[file] = sql.transaction
                raise

    class Insert(Once, InsertValuesLoadJob):
        pass

    class Copy(Once, PostgresCsvCopyJob):
        pass

    class CopyAsIs(Copy):
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
                    tell_planner(staging.sql_client, self.load_table_name)
                yield

    class SqlClient(Psycopg2SqlClient):
        lease: Lease | None = None
        transaction: int | None = None  # the server's number of the last one

        @contextmanager
        def begin_transaction(self) -> "Iterator[DBTransaction]":
            self.transaction = None
            try:
                with super().begin_transaction() as transaction:
                    self.transaction = self.lease.lock_row(self) if self.lease else self._number()
                    yield transaction
            except Exception:
                if self.lease:
                    with suppress(DestinationException):
                        self.lease.check()  # the server ends transactions of who stands still
                raise

        def _number(self) -> int:
            return int(self.execute_sql("SELECT txid_current()")[0][0])  # type: ignore[index]

        def has_committed(self, transaction: int) -> bool:
            """Whether the server has committed it.

            Raises:
                DestinationTransientException: It has not ended.
            """
            status = self.execute_sql("SELECT txid_status(%s)", transaction)[0][0]  # type: ignore[index]
            if status == "in progress":
                raise DestinationTransientException(f"PostgreSQL has not ended transaction {transaction} yet")
            return bool(status == "committed")

    class Client(PostgresClient):
        def __init__(self, schema: Any, config: Any, capabilities: Any) -> None:
            super().__init__(schema, config, capabilities)
            own = self.sql_client
            self.sql_client = mine = SqlClient(
                own.dataset_name, own.staging_dataset_name, own.credentials, own.capabilities
            )
            mine.lease = lease_of_client(self)

        def initialize_storage(self, truncate_tables: Any = None) -> None:
            _tried.clear()  # a package begins: all its files are to be loaded
            with self.sql_client.begin_transaction():  # dlt would empty staging tables outside of one
                super().initialize_storage(truncate_tables)

        def update_stored_schema(
            self, only_tables: Any = None, expected_update: Any = None, force: bool = False
        ) -> Any:
            update = super().update_stored_schema(only_tables, expected_update, force)
            if not self.in_staging_dataset_mode:  # that holds one load at most, all of which is read
                make_indexes(self.sql_client)
            return update

        def create_load_job(self, table: Any, file_path: str, load_id: str, restore: bool = False) -> Any:
            job = super().create_load_job(table, file_path, load_id, restore)
            if isinstance(job, SqlLoadJob) and has_executions(table["name"]):
                return Merge(file_path)
            if isinstance(job, InsertValuesLoadJob):
                return Insert(file_path)
            if isinstance(job, PostgresCsvCopyJob):
                return CopyAsIs(file_path) if table.get(EMPTY_TEXTS) else Copy(file_path)
            return job

    return Client
