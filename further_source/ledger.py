"""What the destination already holds. It is the ledger: what ended there is not asked again."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.destinations.sql_client import SqlClientBase

from further_source.normalize import FINAL_OUTCOMES
from further_source.outcomes import ExecutionId

__all__ = ["Ledger", "read_ledger"]

_MAX_IDS_IN_QUERY = 1_000
_FETCH_SIZE = 50_000
_COLUMNS = ("workflow_id", "workflow_execution_id", "poll_outcome", "_dlt_load_id")


@dataclass(frozen=True)
class Ledger:
    """Listed executions that are in the destination as ended: `held` with their `poll_outcome`.

    `partial` are those of a load that was never finished (dropped, or lost with its working directory): their other
    tables may lack rows, so they are asked again.
    """

    held: dict[ExecutionId, str] = field(default_factory=dict)
    partial: set[ExecutionId] = field(default_factory=set)


def read_ledger(pipeline: dlt.Pipeline, listed: Collection[ExecutionId], table_format: str | None = None) -> Ledger:
    """What the pipeline's destination holds of the list.

    A short list is asked for by id; for a long one, and from the tables of a data lake, all ended executions are
    streamed past it.
    """
    ledger = Ledger()
    wanted = set(listed)
    with pipeline.sql_client() as client:
        try:
            finished_loads = {load_id for (load_id,) in _rows(client, _loads_query(client))}
            if table_format in ("delta", "iceberg"):
                rows = _open_table_rows(pipeline, table_format)
            else:
                rows = _rows(client, _executions_query(client, listed))
            for workflow_id, execution_id, poll_outcome, load_id in rows:
                execution = ExecutionId(workflow_id, execution_id)
                if execution in wanted:
                    if load_id in finished_loads:
                        ledger.held[execution] = poll_outcome
                    else:
                        ledger.partial.add(execution)
        except DestinationUndefinedEntity:
            return Ledger()  # the first load
    return ledger


def _open_table_rows(pipeline: dlt.Pipeline, table_format: str) -> Iterator[tuple[str, ...]]:
    """Ended executions of a Delta or Iceberg table, read without DuckDB's extensions, which it would download."""
    if "executions" not in pipeline.default_schema.tables:
        return
    table: Any
    batches: Iterable[Any]
    if table_format == "delta":
        from dlt.common.libs.deltalake import get_delta_tables

        table = get_delta_tables(pipeline, "executions")["executions"]
        batches = table.to_pyarrow_dataset().to_batches(columns=list(_COLUMNS))
    else:
        from dlt.common.libs.pyiceberg import get_iceberg_tables

        table = get_iceberg_tables(pipeline, "executions")["executions"]
        batches = table.scan(selected_fields=_COLUMNS).to_arrow_batch_reader()
    for batch in batches:
        for row in zip(*(batch.column(name).to_pylist() for name in _COLUMNS), strict=True):
            if row[2] in FINAL_OUTCOMES:
                yield row


def _loads_query(client: SqlClientBase[Any]) -> str:
    load_id, status = (client.escape_column_name(name) for name in ("load_id", "status"))
    return f"SELECT {load_id} FROM {client.make_qualified_table_name('_dlt_loads')} WHERE {status} = 0"  # noqa: S608


def _executions_query(client: SqlClientBase[Any], listed: Collection[ExecutionId]) -> str:
    columns = [client.escape_column_name(name) for name in _COLUMNS]
    outcomes = ", ".join(f"'{outcome}'" for outcome in sorted(FINAL_OUTCOMES))
    query = (
        f"SELECT {', '.join(columns)} FROM {client.make_qualified_table_name('executions')} "  # noqa: S608
        f"WHERE {columns[2]} IN ({outcomes})"
    )
    if len(listed) <= _MAX_IDS_IN_QUERY:
        # Ids are letters, digits, - and _ alone: the manifest lets no other pass.
        ids = ", ".join(f"'{execution.workflow_execution_id}'" for execution in listed)
        query += f" AND {columns[1]} IN ({ids})"
    return query


def _rows(client: SqlClientBase[Any], query: str) -> Iterator[tuple[str, ...]]:
    with client.execute_query(query) as cursor:
        for chunk in cursor.iter_fetch(_FETCH_SIZE):
            yield from chunk
