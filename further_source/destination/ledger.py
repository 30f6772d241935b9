"""The ledger is the destination itself: an execution that it holds as ended is not asked again."""

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

from further_source.destination.files import table_batches
from further_source.destination.forgotten import stored_forgotten
from further_source.executions import ExecutionId
from further_source.tables.answer import FINAL_OUTCOMES

__all__ = ["MAX_IDS_IN_QUERY", "WAITED_FOR", "Ledger", "ended_query", "ids_condition", "read_ledger", "read_ledger_by"]

WAITED_FOR = "running"
"""The `poll_outcome` of an execution whose delivery is waited for: it has no status, because it was never asked."""

MAX_IDS_IN_QUERY = 1_000
_FETCH_SIZE = 50_000
_Ids = tuple[str, str]
"""An `ExecutionId`, or a plain tuple that equals one."""
_Row = tuple[str, str, str, str, str | None]
_FINAL = ", ".join(f"'{outcome}'" for outcome in sorted(FINAL_OUTCOMES))
_COLUMNS = ("workflow_id", "workflow_execution_id", "poll_outcome", "_dlt_load_id", "status")


@dataclass
class Ledger:
    """What the destination holds of the listed executions.

    Attributes:
        outcomes: The `poll_outcome` of each listed execution; None for one that the destination does not hold as ended.
        partial: The `poll_outcome` of executions that ended in a load that was never finished: it was dropped, or lost
            with its working directory. Their other tables may lack rows, so they are asked again.
        seen: When executions that have not ended were first loaded, in seconds since 1970, where they have only been
            waited for; 0 for those that have been asked. Only as `read_ledger` was told to.
        forgotten: Those that were forgotten, and are never asked again.
    """

    outcomes: dict[_Ids, str | None] = field(default_factory=dict)
    partial: dict[_Ids, str] = field(default_factory=dict)
    seen: dict[_Ids, float] = field(default_factory=dict)
    forgotten: frozenset[_Ids] = frozenset()

    def outcome(self, execution: ExecutionId) -> str | None:
        """The execution's `poll_outcome`; None if the destination does not hold it as ended."""
        return self.outcomes.get(execution)

    def held(self, execution: ExecutionId) -> str | None:
        """The execution's `poll_outcome`, also if its load was never finished."""
        return self.outcomes.get(execution) or self.partial.get(execution)

    def missing(self, listed: Iterable[ExecutionId]) -> list[ExecutionId]:
        """The executions to ask: those that the destination does not hold as ended, in the order of the list."""
        outcomes = self.outcomes
        return self.allowed(execution for execution in listed if outcomes.get(execution) is None)

    def allowed(self, listed: Iterable[ExecutionId]) -> list[ExecutionId]:
        """Those that were not forgotten."""
        return [execution for execution in listed if execution not in self.forgotten]

    def counts(self) -> Counter[str]:
        """How many executions it holds as ended, by `poll_outcome`."""
        return Counter(filter(None, self.outcomes.values()))

    def add(self, rows: Iterable[_Row], finished_loads: Collection[str]) -> None:
        """Takes note of the rows of listed executions, and ignores others.

        Args:
            rows: Workflow id, execution id, `poll_outcome`, load id and status of rows of executions.
            finished_loads: The ids of all loads that were finished.
        """
        outcomes = self.outcomes
        for workflow_id, execution_id, poll_outcome, load_id, status in rows:
            execution = (workflow_id, execution_id)
            if execution not in outcomes:
                continue
            if poll_outcome not in FINAL_OUTCOMES:
                is_waited_for = poll_outcome == WAITED_FOR and status is None
                seen_at = _time_of(load_id) if is_waited_for else 0.0
                self.seen[execution] = min(seen_at, self.seen.get(execution, seen_at))  # plain files have many rows
            elif load_id in finished_loads:
                outcomes[execution] = sys.intern(poll_outcome)
            else:
                self.partial[execution] = poll_outcome

    def update(self, other: "Ledger") -> None:
        """Takes over what another one knows."""
        self.outcomes.update(other.outcomes)
        self.partial.update(other.partial)
        self.seen.update(other.seen)
        self.forgotten |= other.forgotten


def read_ledger(
    pipeline: dlt.Pipeline,
    listed: Collection[ExecutionId],
    table_format: str | None = None,
    *,
    seen: bool = False,
    client: Any = None,
) -> Ledger:
    """What the pipeline's destination holds of the list.

    Of a short list, the rows of its ids are queried. Of a long list, and in a data lake, the rows of all executions
    that ended are read one after the other.

    Args:
        seen: Whether to read those of executions that have not ended, too.
        client: The pipeline's client of its destination, for who reads again and again: until a load ends, dlt keeps
            each one that was made, and with it whatever was in memory then.
    """
    client = client or pipeline.destination_client()
    if not issubclass(pipeline.destination.client_class, FSClientBase):
        with client:
            return read_ledger_by(client, listed, stored_forgotten(client), seen=seen)
    ledger = _empty(listed)
    try:
        _add_from_files(ledger, pipeline, client, table_format, seen=seen)
    except DestinationUndefinedEntity:
        return Ledger()  # the first load
    return ledger


def read_ledger_by(
    client: Any, listed: Collection[ExecutionId], forgotten: Iterable[ExecutionId], *, seen: bool = False
) -> Ledger:
    """The same, by a client of a destination that knows SQL, which is open.

    Args:
        forgotten: All executions that were forgotten.
    """
    ledger = _empty(listed)
    ledger.forgotten = frozenset(one for one in forgotten if one in ledger.outcomes)
    if not listed:
        return ledger
    sql: SqlClientBase[Any] = client.sql_client
    try:
        finished_loads = {load_id for (load_id,) in _rows(sql, _loads_query(sql))}
        ledger.add(_rows(sql, _executions_query(sql, listed, seen=seen)), finished_loads)
    except DestinationUndefinedEntity:
        return Ledger(forgotten=ledger.forgotten)  # the first load
    return ledger


def _empty(listed: Collection[ExecutionId]) -> Ledger:
    """In one dict that has every key from the start, so that a million ids are in memory once."""
    return Ledger(dict.fromkeys(listed))


def _add_from_files(
    ledger: Ledger, pipeline: dlt.Pipeline, client: Any, table_format: str | None, *, seen: bool
) -> None:
    """Reads a data lake. Not by dlt's DuckDB client, which would have to download extensions."""
    if not pipeline.default_schema_name or "executions" not in pipeline.default_schema.tables:
        return
    # For each finished load dlt writes a file, whose name holds the load's id.
    load_files = client.list_table_files(pipeline.default_schema.loads_table_name)
    finished_loads = {PurePath(file).name.removesuffix(".jsonl").rpartition("__")[2] for file in load_files}
    for batch in table_batches(client, "executions", _COLUMNS, table_format):
        columns = (batch.column(name).to_pylist() for name in _COLUMNS)
        ledger.add((row for row in zip(*columns, strict=True) if seen or row[2] in FINAL_OUTCOMES), finished_loads)


def _loads_query(client: SqlClientBase[Any]) -> str:
    load_id, status = (client.escape_column_name(name) for name in ("load_id", "status"))
    return f"SELECT {load_id} FROM {client.make_qualified_table_name('_dlt_loads')} WHERE {status} = 0"  # noqa: S608


def _time_of(load_id: str) -> float:
    """When a load began: dlt's ids of loads are times."""
    try:
        return float(load_id)
    except ValueError:
        return 0.0


def _executions_query(client: SqlClientBase[Any], listed: Collection[ExecutionId], *, seen: bool) -> str:
    columns = [client.escape_column_name(name) for name in _COLUMNS]
    query = (
        f"SELECT {', '.join(columns)} FROM {client.make_qualified_table_name('executions')} "  # noqa: S608
        f"WHERE {columns[2]} IS NOT NULL"
    )
    if not seen:
        query += f" AND {columns[2]} IN ({_FINAL})"
    if len(listed) <= MAX_IDS_IN_QUERY:
        query += f" AND {ids_condition(client, listed)}"
    return query


def ids_condition(client: SqlClientBase[Any], executions: Collection[ExecutionId]) -> str:
    """A condition on both ids that holds for executions, and seldom for others; by both, so that an index serves."""
    # They need no escaping: the manifest lets only ids of letters, digits, - and _ pass.
    columns = zip(_COLUMNS, map(set, zip(*executions, strict=True)), strict=False)
    return " AND ".join(
        f"{client.escape_column_name(name)} IN ({', '.join(map(repr, sorted(ids)))})" for name, ids in columns
    )


def ended_query(client: SqlClientBase[Any]) -> str:
    """SQL for both ids of all executions that the destination holds as ended."""
    name, table = client.escape_column_name, client.make_qualified_table_name
    columns = ", ".join(f"e.{name(column)}" for column in _COLUMNS[:2])
    return (
        f"SELECT {columns} FROM {table('executions')} e "  # noqa: S608
        f"JOIN {table('_dlt_loads')} l ON l.{name('load_id')} = e.{name('_dlt_load_id')} "
        f"WHERE l.{name('status')} = 0 AND e.{name('poll_outcome')} IN ({_FINAL})"
    )


def _rows(client: SqlClientBase[Any], query: str) -> Iterator[Any]:
    with client.execute_query(query) as cursor:
        yield from chain.from_iterable(cursor.iter_fetch(_FETCH_SIZE))
