"""Keeps empty texts in PostgreSQL from becoming null, and a load whose lease was lost from writing.

dlt loads CSV with `COPY … FORCE_NULL`, which makes null of an empty field even if it is in quotes. dlt's own writer of
CSV needs that. The writer of arrow tables does not: it puts texts in quotes and writes nothing for null, so that `COPY`
without `FORCE_NULL` can tell them apart.

A process that stood still for longer than its lease may go on in the middle of a load. So each transaction of a load
locks the row of the lease first, and fails if another load has it.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from dlt.common.destination.client import JobClientBase
from dlt.common.destination.reference import DestinationReference
from dlt.destinations import postgres

from further_source.destination.lease import Lease, lease_of_client

if TYPE_CHECKING:
    from dlt.destinations.impl.postgres.postgres import PostgresClient
    from dlt.destinations.typing import DBTransaction

__all__ = ["EMPTY_TEXTS", "keep_empty_texts"]

EMPTY_TEXTS = "x-empty-texts-in-quotes"
"""The hint for tables whose CSV has empty texts in quotes, and nothing for null."""

_TYPE = "dlt.destinations.postgres"


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

    class Copy(PostgresCsvCopyJob):
        def run_managed(self, job_client: JobClientBase, done_event: BoundedSemaphore, /) -> None:
            job_client = copy.copy(job_client)
            job_client.schema = job_client.schema.clone()
            for column in job_client.schema.get_table_columns(self.load_table_name).values():
                column["nullable"] = False  # dlt names only nullable columns in FORCE_NULL
            super().run_managed(job_client, done_event)

    class LeasedSqlClient(Psycopg2SqlClient):
        lease: Lease

        @contextmanager
        def begin_transaction(self) -> "Iterator[DBTransaction]":
            with super().begin_transaction() as transaction:
                self.lease.lock_row(self)
                yield transaction

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

        def create_load_job(self, table: Any, file_path: str, load_id: str, restore: bool = False) -> Any:
            job = super().create_load_job(table, file_path, load_id, restore)
            return Copy(file_path) if isinstance(job, PostgresCsvCopyJob) and table.get(EMPTY_TEXTS) else job

    return Client
