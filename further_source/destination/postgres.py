"""dlt's PostgreSQL with what these loads need of it: empty texts kept, lost leases noticed, indexes made.

dlt loads CSV with `COPY … FORCE_NULL`, which makes null of an empty field even if it is in quotes. dlt's own writer of
CSV needs that. The writer of arrow tables does not: it puts texts in quotes and writes nothing for null, so that `COPY`
without `FORCE_NULL` can tell them apart.

A process that stood still for longer than its lease may go on in the middle of a load. So each transaction of a load
locks the row of the lease first, and fails if another load has it.

Tables get indexes as they are made, and the planner is told what a load replaces before it merges; see
`postgres_indexes`.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from dlt.common.destination.client import JobClientBase
from dlt.common.destination.exceptions import DestinationException
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
                    tell_planner(staging.sql_client, self.load_table_name)
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
                make_indexes(self.sql_client)
            return update

        def create_load_job(self, table: Any, file_path: str, load_id: str, restore: bool = False) -> Any:
            job = super().create_load_job(table, file_path, load_id, restore)
            if isinstance(job, SqlLoadJob) and has_executions(table["name"]):
                return Merge(file_path)
            return Copy(file_path) if isinstance(job, PostgresCsvCopyJob) and table.get(EMPTY_TEXTS) else job

    return Client
