"""PostgreSQL: an empty text stays one.

dlt loads CSV with `COPY … FORCE_NULL`, which takes an empty field for null even where it is in quotes. Its own writer
of CSV needs that. That of arrow tables puts texts in quotes and writes nothing for null, so `COPY` alone tells the two
apart.
"""

import copy
from functools import cache
from typing import TYPE_CHECKING, Any

from dlt.common.destination.reference import DestinationReference
from dlt.destinations import postgres

if TYPE_CHECKING:
    from dlt.destinations.impl.postgres.postgres import PostgresClient

__all__ = ["EMPTY_TEXTS", "keep_empty_texts"]

EMPTY_TEXTS = "x-empty-texts-in-quotes"
"""A hint for tables whose CSV has empty texts in quotes, and nothing in place of null."""

_TYPE = "dlt.destinations.postgres"


def keep_empty_texts(destination: Any) -> None:
    """Has dlt load tables with the hint as they are, if this destination is its PostgreSQL; others stay as they were.

    The object itself is changed, because a pipeline may be handed it again for the load; so is what dlt makes of the
    name, because it may be handed that.
    """
    if type(destination) is postgres:
        DestinationReference.register(_Postgres, _TYPE)
        destination.__class__ = _Postgres


class _Postgres(postgres):
    @property
    def destination_type(self) -> str:
        return _TYPE  # pipelines store it, and find the destination by it

    @property
    def client_class(self) -> "type[PostgresClient]":
        return _client_class()


@cache
def _client_class() -> "type[PostgresClient]":
    from dlt.destinations.impl.postgres.postgres import PostgresClient, PostgresCsvCopyJob  # noqa: PLC0415  a driver

    class Copy(PostgresCsvCopyJob):
        def run(self) -> None:
            self._job_client = copy.copy(self._job_client)
            self._job_client.schema = self._job_client.schema.clone()
            for column in self._job_client.schema.get_table_columns(self.load_table_name).values():
                column["nullable"] = False  # of which FORCE_NULL is not said
            super().run()

    class Client(PostgresClient):
        def create_load_job(self, table: Any, file_path: str, load_id: str, restore: bool = False) -> Any:
            job = super().create_load_job(table, file_path, load_id, restore)
            return Copy(file_path) if isinstance(job, PostgresCsvCopyJob) and table.get(EMPTY_TEXTS) else job

    return Client
