"""The tables `reviews` and `thresholds`, and the views over them, in the destination.

Rows are only ever added, by INSERT in one transaction: verdicts come one at a time, and BigQuery allows a table 1,500
load jobs a day, but any number of INSERTs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.storages.load_package import create_load_id
from dlt.destinations.sql_client import SqlClientBase

from further_source.destination.catalog import knows_sql
from further_source.destination.dataset import add_columns
from further_source.destination.strategy import loading_of
from further_source.exceptions import ConfigurationError, FurtherError
from further_source.review.views import CELLS_FINAL, REVIEW_CONFLICTS, Sql, cells_final_query, review_conflicts_query
from further_source.tables.columns import CELLS, REVIEWS, THRESHOLDS, Table

__all__ = ["ReviewStore"]

_INSERTED_AT_ONCE = 50  # DuckDB takes far longer for statements of thousands of parameters


class ReviewStore:
    """Reads and adds to what people said of the cells of a dataset.

    The connection is opened for each call and closed after it, so that a load can write to a DuckDB file in between.

    Args:
        pipeline: Its destination knows SQL.

    Raises:
        ConfigurationError: The destination knows no SQL.
    """

    def __init__(self, pipeline: dlt.Pipeline) -> None:
        if not knows_sql(pipeline):
            raise ConfigurationError(f"review: destination {pipeline.destination.destination_name} knows no SQL")
        self._pipeline = pipeline
        self._loading = loading_of(pipeline, None)

    def prepare(self) -> None:
        """Makes the tables and views that are not there yet, and brings the views up to date.

        Raises:
            FurtherError: Nothing is loaded into the dataset.
        """
        with self._pipeline.destination_client() as client:
            sql: SqlClientBase[Any] = client.sql_client  # type: ignore[attr-defined]
            try:
                sql.execute_sql(f"SELECT 1 FROM {sql.make_qualified_table_name(CELLS.name)} WHERE 1 = 0")  # noqa: S608
            except DestinationUndefinedEntity:
                raise FurtherError("nothing is loaded into this dataset yet") from None
            add_columns(client, self._loading, {REVIEWS.name: {}, THRESHOLDS.name: {}})
        with self.sql() as opened:
            views = {CELLS_FINAL: cells_final_query(opened), REVIEW_CONFLICTS: review_conflicts_query(opened)}
            with opened.transaction():
                for name in reversed(views):
                    opened.run(f"DROP VIEW IF EXISTS {opened.table(name)}")
                for name, query in views.items():
                    opened.run(f"CREATE VIEW {opened.table(name)} AS {query}")

    @contextmanager
    def sql(self) -> Iterator[Sql]:
        """A connection for queries."""
        with self._pipeline.sql_client() as client:
            yield Sql(client)

    def rows(self, query: str, *values: Any) -> list[Any]:
        """The rows of a query; `{name}` in it is the table of that name."""
        with self.sql() as sql:
            named = {name: sql.table(name) for name in (CELLS_FINAL, REVIEW_CONFLICTS, REVIEWS.name, THRESHOLDS.name)}
            return list(sql.rows(query.format(**named), *values))

    def append(self, table: Table, records: Sequence[dict[str, Any]]) -> None:
        """Adds records to `reviews` or `thresholds`: all of them, or none where it fails."""
        names = [column.name for column in table.columns if column.name != "_deleted"]
        load_id = create_load_id()
        with self.sql() as sql, sql.transaction():
            columns = sql.columns(*names)
            for start in range(0, len(records), _INSERTED_AT_ONCE):
                some = records[start : start + _INSERTED_AT_ONCE]
                rows = [[{"_dlt_load_id": load_id, **record}.get(name) for name in names] for record in some]
                # BigQuery's client cannot tell the type of a parameter that is null.
                places = (", ".join("NULL" if value is None else "%s" for value in row) for row in rows)
                listed = ", ".join(f"({row})" for row in places)
                values = [value for value in chain.from_iterable(rows) if value is not None]
                sql.run(f"INSERT INTO {sql.table(table.name)} ({columns}) VALUES {listed}", *values)  # noqa: S608
