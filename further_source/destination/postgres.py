"""Keeps empty texts in PostgreSQL from becoming null.

dlt loads CSV with `COPY … FORCE_NULL`, which makes null of an empty field even if it is in quotes. dlt's own writer of
CSV needs that. The writer of arrow tables does not: it puts texts in quotes and writes nothing for null, so that `COPY`
without `FORCE_NULL` can tell them apart.
"""

import copy
from functools import cache
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from dlt.common.destination.client import JobClientBase
from dlt.common.destination.reference import DestinationReference
from dlt.destinations import postgres

if TYPE_CHECKING:
    from dlt.destinations.impl.postgres.postgres import PostgresClient

__all__ = ["EMPTY_TEXTS", "keep_empty_texts"]

EMPTY_TEXTS = "x-empty-texts-in-quotes"
"""The hint for tables whose CSV has empty texts in quotes, and nothing for null."""

_TYPE = "dlt.destinations.postgres"


def keep_empty_texts(destination: Any) -> None:
    """If the destination is dlt's PostgreSQL, makes it load tables with the hint as they are; else does nothing.

    It changes the object itself, and what dlt makes of the destination's name, because a pipeline may get either of
    them once more for the load.
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

    class Copy(PostgresCsvCopyJob):
        def run_managed(self, job_client: JobClientBase, done_event: BoundedSemaphore, /) -> None:
            job_client = copy.copy(job_client)
            job_client.schema = job_client.schema.clone()
            for column in job_client.schema.get_table_columns(self.load_table_name).values():
                column["nullable"] = False  # dlt names only nullable columns in FORCE_NULL
            super().run_managed(job_client, done_event)

    class Client(PostgresClient):
        def create_load_job(self, table: Any, file_path: str, load_id: str, restore: bool = False) -> Any:
            job = super().create_load_job(table, file_path, load_id, restore)
            return Copy(file_path) if isinstance(job, PostgresCsvCopyJob) and table.get(EMPTY_TEXTS) else job

    return Client
