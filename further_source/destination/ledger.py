"""What the destination already holds. It is the ledger: what ended there is not asked again."""

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePath
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.destinations.fs_client import FSClientBase
from dlt.destinations.sql_client import SqlClientBase

from further_source.executions import ExecutionId
from further_source.tables.answer import FINAL_OUTCOMES

__all__ = ["Ledger", "read_ledger"]

_MAX_IDS_IN_QUERY = 1_000
_FETCH_SIZE = 50_000
_Ids = tuple[str, str]
"""An `ExecutionId`, or its equal."""
_Ended = tuple[str, str, str, str]
_COLUMNS = ("workflow_id", "workflow_execution_id", "poll_outcome", "_dlt_load_id")


@dataclass(frozen=True)
class Ledger:
    """Listed executions that are in the destination as ended.

    Args:
        outcomes: Their `poll_outcome`; None for a listed one that is not there.
        partial: The same of those whose load was never finished (dropped, or lost with its working directory): their
            other tables may lack rows, so they are asked again.
    """

    outcomes: dict[_Ids, str | None] = field(default_factory=dict)
    partial: dict[_Ids, str] = field(default_factory=dict)

    def outcome(self, execution: ExecutionId) -> str | None:
        """The `poll_outcome` that the destination holds, None where it does not hold the execution as ended."""
        return self.outcomes.get(execution)

    def held(self, execution: ExecutionId) -> str | None:
        """The `poll_outcome` of a row that is there, whether its load was finished or not."""
        return self.outcomes.get(execution) or self.partial.get(execution)

    def missing(self, listed: Iterable[ExecutionId]) -> list[ExecutionId]:
        """Those that are not held as ended, in their order."""
        outcomes = self.outcomes
        return [execution for execution in listed if outcomes.get(execution) is None]

    def counts(self) -> Counter[str]:
        """How many are held, by `poll_outcome`."""
        return Counter(filter(None, self.outcomes.values()))

    def add(self, ended: Iterable[_Ended], finished_loads: Collection[str]) -> None:
        """Takes in what is listed of these."""
        outcomes = self.outcomes
        for workflow_id, execution_id, poll_outcome, load_id in ended:
            execution = (workflow_id, execution_id)
            if execution in outcomes:
                if load_id in finished_loads:
                    outcomes[execution] = sys.intern(poll_outcome)
                else:
                    self.partial[execution] = poll_outcome


def read_ledger(pipeline: dlt.Pipeline, listed: Collection[ExecutionId], table_format: str | None = None) -> Ledger:
    """What the pipeline's destination holds of the list.

    A short list is asked for by id; for a long one, and from the tables of a data lake, all ended executions are
    streamed past it.
    """
    # One dict that already has every key, so that a million ids are in memory once.
    ledger = Ledger(dict.fromkeys(listed))
    try:
        if issubclass(pipeline.destination.client_class, FSClientBase):
            _add_from_files(ledger, pipeline, table_format)
        else:
            with pipeline.sql_client() as client:
                finished_loads = {load_id for (load_id,) in _rows(client, _loads_query(client))}
                ledger.add(_rows(client, _executions_query(client, listed)), finished_loads)
    except DestinationUndefinedEntity:
        return Ledger()  # the first load
    return ledger


def _add_from_files(ledger: Ledger, pipeline: dlt.Pipeline, table_format: str | None) -> None:
    """From a data lake, read without DuckDB: for that it would have to download extensions."""
    if not pipeline.default_schema_name or "executions" not in pipeline.default_schema.tables:
        return
    client: Any = pipeline.destination_client()
    # One file of dlt's for each finished load, called after it.
    load_files = client.list_table_files(pipeline.default_schema.loads_table_name)
    finished_loads = {PurePath(file).name.removesuffix(".jsonl").rpartition("__")[2] for file in load_files}
    for batch in _batches(client, table_format):
        columns = (batch.column(name).to_pylist() for name in _COLUMNS)
        ledger.add((row for row in zip(*columns, strict=True) if row[2] in FINAL_OUTCOMES), finished_loads)


def _batches(client: Any, table_format: str | None) -> Iterable[Any]:
    """All of `executions`."""
    import pyarrow.dataset  # takes long to import: pandas comes with it

    batches: Iterable[Any]
    if table_format == "delta":
        batches = client.load_open_table("delta", "executions").to_pyarrow_dataset().to_batches(columns=list(_COLUMNS))
    elif table_format == "iceberg":
        batches = client.load_open_table("iceberg", "executions").scan(selected_fields=_COLUMNS).to_arrow_batch_reader()
    else:
        files = [file for file in client.list_table_files("executions") if file.endswith(".parquet")]
        schema = pyarrow.schema([(name, pyarrow.string()) for name in _COLUMNS])
        batches = pyarrow.dataset.dataset(files, schema, format="parquet", filesystem=client.fs_client).to_batches()
    return batches


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


def _rows(client: SqlClientBase[Any], query: str) -> Iterator[Any]:
    with client.execute_query(query) as cursor:
        yield from chain.from_iterable(cursor.iter_fetch(_FETCH_SIZE))
