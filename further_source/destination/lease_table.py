"""The table of leases, and the statements on it.

They are such as any SQL destination of dlt's understands, but for the clock. No time is compared with this machine's
clock, and none is computed in SQL, where each destination has its own way of adding seconds.
"""

import re
from datetime import datetime, timezone
from typing import Any, NamedTuple

from dlt.common.schema.typing import TColumnSchema

from further_source.destination.catalog import make_tables

__all__ = [
    "FREE",
    "LEASES",
    "TURN",
    "WITHOUT_UPDATES",
    "LeaseTable",
    "Row",
    "end_where_idle",
    "is_locked",
    "is_refused",
]

LEASES = "_further_leases"
FREE = "free"
"""In place of the id of a lease, where nobody has it."""

TURN = "(fields)"
"""In place of a part of a list: the row of whoever decides about columns."""

WITHOUT_UPDATES = {"athena", "clickhouse"}
"""Dialects in which nobody sees what an UPDATE has changed when it ends, or that have none."""

_CLOCKS = {"mysql": "UTC_TIMESTAMP(6)", "tsql": "SYSUTCDATETIME()", "redshift": "GETDATE()"}
"""Of destinations whose CURRENT_TIMESTAMP has no time zone, or is not known where rows are."""


class Row(NamedTuple):
    """A row of the table, and the destination's time when it was read."""

    part: str
    parts: int
    lease_id: str
    renewals: int
    lease_seconds: float
    renewed_at: Any
    pipeline_name: str
    host: str
    process_id: int
    lock_id: str
    now: Any

    @property
    def seconds_left(self) -> float:
        """Below 0 once it has run out, and where it was renewed in a future that a clock set back has not reached."""
        return self.lease_seconds - abs((_utc(self.now) - _utc(self.renewed_at)).total_seconds())

    @property
    def holder(self) -> str:
        return f"pipeline {self.pipeline_name}, process {self.process_id} on {self.host}"


_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code of it
_REFUSED = {"42501", "25006"}  # PostgreSQL's codes: no privilege, and only reading
_REFUSAL = re.compile(r"(permission|access|command) (was )?denied|insufficient privilege|read-?only", re.IGNORECASE)

_TYPES = {
    "part": "text",
    "parts": "bigint",
    "lease_id": "text",
    "renewals": "bigint",
    "lease_seconds": "double",
    "renewed_at": "timestamp",
    "pipeline_name": "text",
    "host": "text",
    "process_id": "bigint",
    "lock_id": "text",
}


def _utc(time: Any) -> datetime:
    """A time as a destination gives it: one without a zone is in UTC."""
    found: datetime = datetime.fromisoformat(time) if isinstance(time, str) else time
    return found.replace(tzinfo=timezone.utc) if found.tzinfo is None else found.astimezone(timezone.utc)


def end_where_idle(seconds: float) -> str:
    """A statement by which PostgreSQL ends the transaction should nothing come in it for so long."""
    return f"SET LOCAL idle_in_transaction_session_timeout = {max(1, round(seconds * 1000))}"


def is_locked(error: Any) -> bool:
    """Whether an error of dlt's says that a row of PostgreSQL's is locked by somebody else."""
    return getattr(getattr(error, "dbapi_exception", None), "pgcode", None) == _LOCK_NOT_AVAILABLE


def is_refused(error: Any) -> bool:
    """Whether an error of dlt's says that this user may not do what was tried, which no waiting mends."""
    error = getattr(error, "dbapi_exception", error)
    return getattr(error, "pgcode", None) in _REFUSED or bool(_REFUSAL.search(str(getattr(error, "orig", error))))


class LeaseTable:
    """The statements, each of which is a transaction of its own."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._sql = client.sql_client
        self.name = self._sql.make_qualified_table_name(LEASES)
        self._clock = _CLOCKS.get(client.capabilities.sqlglot_dialect, "CURRENT_TIMESTAMP")

    def column(self, name: str) -> str:
        return str(self._sql.escape_column_name(name))

    def rows(self) -> list[Row]:
        return [row for row in self._rows() if row.part != TURN]

    def rows_of_turn(self) -> list[Row]:
        return [row for row in self._rows() if row.part == TURN]

    def _rows(self) -> list[Row]:
        columns = ", ".join(map(self.column, _TYPES))
        found = self._sql.execute_sql(f"SELECT {columns}, {self._clock} FROM {self.name}")  # noqa: S608
        return [Row(*row) for row in found or ()]

    def insert(self, values: dict[str, Any]) -> None:
        columns = ", ".join(map(self.column, (*values, "renewed_at")))
        places = ", ".join(["%s"] * len(values))
        self._sql.execute_sql(
            f"INSERT INTO {self.name} ({columns}) VALUES ({places}, {self._clock})",  # noqa: S608
            *values.values(),
        )

    def replace(self, row: Row, values: dict[str, Any]) -> None:
        """Changes the row if it still is as it was read.

        Raises:
            DestinationTransientException: Its holder is in the middle of a transaction, or somebody else changes it, or
                the destination failed.
        """
        as_read = {"part": row.part, "lease_id": row.lease_id, "renewals": row.renewals}
        if row.lease_id == FREE or self._client.capabilities.sqlglot_dialect != "postgres":
            self._update(values, as_read)
            return
        with self._sql.begin_transaction():
            # An UPDATE alone would not wait for transactions that hold the row for their lease.
            # Nor may this one keep the row locked where it stands still itself.
            select = f"SELECT 1 FROM {self.name} WHERE {self.column('part')} = %s FOR UPDATE NOWAIT"  # noqa: S608
            self._sql.execute_sql(f"{end_where_idle(row.lease_seconds)}; {select}", row.part)
            self._update(values, as_read)

    def renew(self, part: str, lease_id: str) -> None:
        self._update({}, {"part": part, "lease_id": lease_id}, renews=True)

    def free(self, part: str, lease_id: str) -> None:
        self._update({"lease_id": FREE}, {"part": part, "lease_id": lease_id})

    def _update(self, values: dict[str, Any], where: dict[str, Any], *, renews: bool = False) -> None:
        renewals = self.column("renewals")
        changes = [*(f"{self.column(name)} = %s" for name in values), f"{renewals} = {renewals} + 1"]
        if renews or "host" in values:
            changes.append(f"{self.column('renewed_at')} = {self._clock}")
        conditions = " AND ".join(f"{self.column(name)} = %s" for name in where)
        self._sql.execute_sql(
            f"UPDATE {self.name} SET {', '.join(changes)} WHERE {conditions}",  # noqa: S608
            *values.values(),
            *where.values(),
        )

    def make(self) -> None:
        """Makes the table, which no schema of dlt's knows, so that dlt never drops it."""
        self._client.initialize_storage()
        columns: list[TColumnSchema] = [
            {"name": name, "data_type": kind, "nullable": False, **({"precision": 255} if kind == "text" else {})}  # type: ignore[typeddict-item]
            for name, kind in _TYPES.items()
        ]
        columns[0]["unique"] = True  # where dlt makes such an index
        make_tables(self._client, {LEASES: columns})
