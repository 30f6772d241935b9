"""One load at a time into a dataset, on whatever machine it runs: a lease, held in the destination by its own clock.

The table `_further_leases` has a row for each part of a list that was ever loaded: `1/1` for loads of all, `2/4` for
`--shard 2/4`. A row that somebody holds has the id of that lease in it. It is taken by an UPDATE that names what the
row held before, so of two that try one finds nothing to update. Whoever was not heard of for `lease_seconds` holds it
no longer: a thread renews it while the load runs, and each load renews it before it begins.

A process that stood still for longer than its lease, and then goes on, finds that before the next load. On PostgreSQL
it finds it before each transaction: there each transaction that writes locks the row of its lease first, and a lease
whose row is locked is not taken away.
"""

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import dlt
from dlt.common import logger
from dlt.common.configuration import with_config
from dlt.common.destination.exceptions import (
    DestinationException,
    DestinationTerminalException,
    DestinationTransientException,
    DestinationUndefinedEntity,
)
from dlt.destinations.exceptions import DestinationConnectionError
from dlt.destinations.job_client_impl import SqlJobClientBase

from further_source.configuration import check_number
from further_source.destination.lease_table import FREE, WITHOUT_UPDATES, LeaseTable, Row, end_where_idle, is_locked
from further_source.destination.working_state import mend_storages
from further_source.dlt_internals import kept_capabilities
from further_source.exceptions import AlreadyRunningError, FurtherError
from further_source.lock import Lock, held_lock
from further_source.settings import LEASE_SECONDS, SOURCE_NAME
from further_source.text import one_line

__all__ = ["Lease", "configured_seconds", "lease_of_client", "leased", "lost_lease", "refuse_beside_a_lease"]

_RENEWALS_PER_LEASE = 4
_JOIN_SECONDS = 1.0
_ATTEMPTS = 5
_SECONDS_BETWEEN_ATTEMPTS = 0.2
_SHARD = re.compile(r"_shard_(\d+)_of_(\d+)$")


class Part(NamedTuple):
    """What a load loads: its part of the list, and how many parts there are.

    `parts` is 0 for loads that share a dataset under pipeline names of their own; whoever starts them sees to it that
    no execution is in two of them.
    """

    name: str
    parts: int

    def excludes(self, other: "Row") -> bool:
        """Whether it may share executions or staging tables with another. Parts of one number have none in common."""
        return other.part == self.name or other.parts != self.parts


class Lease:
    """One lease, from `acquire` to `release`.

    Attributes:
        lost: Set once another load has taken it away.
    """

    def __init__(self, pipeline: dlt.Pipeline, part: Part, seconds: float, lock: Lock | None) -> None:
        self.pipeline = pipeline
        self.lost: AlreadyRunningError | None = None
        self._part = part
        self._seconds = seconds
        self._id = str(uuid4())
        self._lock = lock
        self._client: Any = pipeline.destination_client()
        self._alone = threading.Lock()  # the client's connection is for one thread at a time
        self._over = threading.Event()
        self._renewed_at = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name="further_source lease", daemon=True)

    @property
    def place(self) -> tuple[str, ...]:
        """What it is for: the dataset and its staging dataset."""
        return _place(self._client)

    def acquire(self) -> None:
        """Takes the lease, and keeps it until `release`.

        Raises:
            AlreadyRunningError: Another load has it, or one that it excludes; the message names the holder.
            DestinationException: The destination failed.
            FurtherError: The table of leases cannot be made, or may not be read or written.
        """
        with self._table() as table:
            try:
                self._take(table, self._rows(table))
            except DestinationTerminalException as error:
                raise _not_usable(table, error) from error
        _active[self._id] = self
        self._thread.start()

    def check(self) -> None:
        """Makes sure that it still is this load's, for a whole time of a lease.

        Raises:
            AlreadyRunningError: Another load has taken it away, because it was not renewed in time.
        """
        with self._table() as table:
            self._renew(table)
        self._renewed_at = time.monotonic()

    def end(self) -> None:
        """After the last load, which no other check follows: makes sure that none began beside it.

        Raises:
            AlreadyRunningError: One did, because this one stood still.
        """
        if self.lost or time.monotonic() - self._renewed_at >= self._seconds:
            with suppress(DestinationException):  # all is loaded
                self.check()

    def release(self) -> None:
        """Gives it back; where the destination does not answer, it ends by itself."""
        self._over.set()
        _active.pop(self._id, None)
        self._thread.join(_JOIN_SECONDS)
        if self._alone.acquire(timeout=_JOIN_SECONDS):
            try:
                with suppress(DestinationException), _opened(self._client):
                    LeaseTable(self._client).free(self._part.name, self._id)
            finally:
                self._alone.release()

    def lock_row(self, sql_client: Any) -> int:
        """Locks its row until the transaction ends, on PostgreSQL; returns the number of that transaction.

        Should this process stand still in the transaction, the server ends that after the time of the lease.

        Raises:
            AlreadyRunningError: Another load has taken it away.
        """
        table = LeaseTable(self._client)
        where = f"{table.column('part')} = %s AND {table.column('lease_id')} = %s"
        select = f"SELECT txid_current() FROM {table.name} WHERE {where} FOR KEY SHARE"  # noqa: S608
        rows = sql_client.execute_sql(f"{end_where_idle(self._seconds)}; {select}", self._part.name, self._id)
        if not rows:
            raise self._lose("another load")
        return int(rows[0][0])

    @contextmanager
    def _table(self) -> Iterator[LeaseTable]:
        with self._alone, _opened(self._client):
            yield LeaseTable(self._client)

    def _rows(self, table: LeaseTable) -> list[Row]:
        try:
            return table.rows()
        except DestinationUndefinedEntity:
            pass
        if not self._client.is_storage_initialized():
            _forget_what_was_dropped(self.pipeline)
        for attempt in range(_ATTEMPTS):
            try:
                table.make()
                return []
            except DestinationException as error:
                # Another load may make the dataset or the table at this moment: of two, a server refuses one.
                with suppress(DestinationUndefinedEntity):
                    return table.rows()
                if attempt + 1 == _ATTEMPTS:
                    raise _not_usable(table, error) from error
            self._over.wait(_SECONDS_BETWEEN_ATTEMPTS)
        return []

    def _take(self, table: LeaseTable, rows: list[Row]) -> None:
        for row in (row for row in rows if self._part.excludes(row)):
            if self._is_held(row):
                raise _already_running(row)
        for row in (row for row in rows if self._part.excludes(row)):
            if row.part == self._part.name:
                self._replace(table, row, self._values)
            elif row.lease_id != FREE:
                self._replace(table, row, {"lease_id": FREE})
        if not any(row.part == self._part.name for row in rows):
            self._insert(table)
        rows = table.rows()
        if all(row.lease_id != self._id for row in rows) or self._others(rows):
            table.free(self._part.name, self._id)
            raise _already_running(*self._others(rows))

    def _insert(self, table: LeaseTable) -> None:
        try:
            table.insert({"part": self._part.name, "renewals": 0, **self._values})
        except DestinationException:
            if all(row.part != self._part.name for row in table.rows()):  # else another load was faster
                raise

    def _others(self, rows: list[Row]) -> list[Row]:
        return [row for row in rows if row.lease_id != self._id and self._part.excludes(row) and self._is_held(row)]

    def _replace(self, table: LeaseTable, row: Row, values: dict[str, Any]) -> None:
        try:
            table.replace(row, values)
        except DestinationTransientException as error:
            if not (is_locked(error) or self._has_changed(table, row)):
                raise
            raise AlreadyRunningError(
                f"another load into this dataset ({row.holder}) has let its lease run out, and its transaction, or "
                "another load that takes over, is not done with it. It is left alone, and this one asked nothing"
            ) from error

    def _has_changed(self, table: LeaseTable, row: Row) -> bool:
        with suppress(DestinationException):  # it tells nothing new
            return all((one.part, one.renewals) != (row.part, row.renewals) for one in table.rows())
        return False

    def _is_held(self, row: Row) -> bool:
        if row.lease_id == FREE or row.seconds_left < 0:
            return False
        # Two that hold the same lock do so one after the other. So the process that held the lease is gone.
        is_dead = self._lock is not None and row.lock_id == self._lock.identity != "" and row.lease_id not in _active
        return not is_dead

    @property
    def _values(self) -> dict[str, Any]:
        return {
            "parts": self._part.parts,
            "lease_id": self._id,
            "lease_seconds": self._seconds,
            "pipeline_name": self.pipeline.pipeline_name,
            "host": socket.gethostname(),
            "process_id": os.getpid(),
            "lock_id": self._lock.identity if self._lock else "",
        }

    def _renew(self, table: LeaseTable) -> None:
        if self.lost:
            raise self.lost
        try:
            table.renew(self._part.name, self._id)
            rows = [row for row in table.rows() if row.part == self._part.name]
        except DestinationUndefinedEntity:
            rows = []
        if not rows:  # somebody dropped the table, or the dataset
            self._take(table, self._rows(table))
        elif all(row.lease_id != self._id for row in rows):
            raise self._lose("another load" if rows[0].lease_id == FREE else f"another load ({rows[0].holder})")

    def _lose(self, to: str) -> AlreadyRunningError:
        self.lost = AlreadyRunningError(
            f"{to} into this dataset has begun while this one did not renew its lease of {self._seconds:g} s; this one "
            "stops. What had arrived waits in the pending package for the next run; if this one was in the middle of a "
            "load, `further-source verify` names what came twice"
        )
        return self.lost

    def _keep(self) -> None:
        while not self._over.wait(self._seconds / _RENEWALS_PER_LEASE):
            try:
                self.check()
            except AlreadyRunningError:
                return
            except Exception as error:  # the destination is away; the next load will tell
                logger.info(f"the lease was not renewed: {error}")


@contextmanager
def _opened(client: Any) -> Iterator[None]:
    """Opens a client. Where dlt lets a driver's own error through, as psycopg2's, it is one of the destination too."""
    with ExitStack() as stack:
        try:
            stack.enter_context(client)
        except DestinationException:
            raise
        except Exception as error:
            sql = client.sql_client
            raise DestinationConnectionError(type(sql).__name__, sql.dataset_name, str(error), error) from error
        yield


def _not_usable(table: LeaseTable, error: Exception) -> FurtherError:
    return FurtherError(
        one_line(
            f"the lease of this dataset cannot be taken: let this user read and write {table.name}, which a load by a "
            "user who may make tables makes, or set lease_duration = 0 and see that there is one load at a time: "
            f"{error}"
        )
    )


def _already_running(row: Row | None = None, *_: Row) -> AlreadyRunningError:
    left = f"; its lease runs out in {max(0, round(row.seconds_left))} s unless it is renewed" if row else ""
    who = f": {row.holder}{left}" if row else ""
    return AlreadyRunningError(
        f"another load into this dataset is running{who}. It is left alone, and this one asked nothing"
    )


_active: dict[str, Lease] = {}
"""The leases that this process holds, by their ids."""


@contextmanager
def leased(pipeline: dlt.Pipeline, *, shared: bool = False) -> Iterator[Lease | None]:
    """Holds the lease of a pipeline's dataset, for whatever loads the pipeline makes within; None where there is none.

    Before each load of the pipeline it is made sure that the lease is still held, and the lock of `only_load` too, if
    this process has that. What holds the lease already, holds it on.

    Args:
        pipeline: Where to load.
        shared: As of `run_in_slices`.

    Raises:
        AlreadyRunningError: Another load has it. Or it was lost, which is found before the next load.
        DestinationException: The destination failed.
        FurtherError: The table of leases cannot be made, or may not be read or written.
    """
    for lease in list(_active.values()):
        if lease.pipeline is pipeline:
            yield lease
            return
    with kept_capabilities(pipeline):
        yield from _leased(pipeline, shared)


def _leased(pipeline: dlt.Pipeline, shared: bool) -> Iterator[Lease | None]:
    lock = held_lock(pipeline.pipeline_name, pipeline.pipelines_dir)
    if not (seconds := _seconds_of(pipeline)):
        with _checked_before_loads(pipeline, lock.check if lock else lambda: None):
            yield None
        return
    lease = Lease(pipeline, _part(pipeline.pipeline_name, shared=shared), seconds, lock)
    lease.acquire()
    try:
        with _checked_before_loads(pipeline, partial(_check, lock, lease)):
            yield lease
        lease.end()
    except Exception as error:
        if lease.lost and error is not lease.lost:
            raise lease.lost from error
        raise
    finally:
        lease.release()


def _check(lock: Lock | None, lease: Lease) -> None:
    if lock is not None:
        lock.check()
    lease.check()


def refuse_beside_a_lease(pipeline: dlt.Pipeline) -> None:
    """For a load that holds no lease.

    Raises:
        AlreadyRunningError: Another load does.
    """
    if any(lease.pipeline is pipeline for lease in _active.values()) or not _seconds_of(pipeline):
        return
    client: Any = pipeline.destination_client()
    with suppress(DestinationUndefinedEntity), client:
        for row in LeaseTable(client).rows():
            if row.lease_id != FREE and row.seconds_left >= 0:
                raise _already_running(row)


def lease_of_client(client: Any) -> Lease | None:
    """The lease that this process holds of the dataset a client writes to; of several the last, others are lost."""
    place = _place(client)
    return next((lease for lease in reversed(list(_active.values())) if lease.place == place), None)


def lost_lease() -> bool:
    """Whether another load has taken away a lease that this process holds, so that this one stops."""
    return any(lease.lost for lease in list(_active.values()))


def _place(client: Any) -> tuple[str, ...]:
    sql = client.sql_client
    return client.config.fingerprint(), sql.database_name, sql.dataset_name, sql.staging_dataset_name


def _part(pipeline_name: str, *, shared: bool) -> Part:
    if not shared:
        return Part("1/1", 1)
    if found := _SHARD.search(pipeline_name):
        return Part("/".join(found.groups()), int(found[2]))
    return Part(pipeline_name, 0)


def _seconds_of(pipeline: dlt.Pipeline) -> float:
    """How long a lease is; 0 where there is none."""
    seconds = configured_seconds()
    if not seconds or pipeline.destination is None:
        return 0
    if not issubclass(pipeline.destination.client_class, SqlJobClientBase):
        return 0
    if pipeline.destination.capabilities().sqlglot_dialect in WITHOUT_UPDATES:
        return 0
    return seconds


@with_config(sections=("sources", SOURCE_NAME))
def configured_seconds(lease_duration: float = LEASE_SECONDS) -> float:
    """How long a lease is where the destination can hold one; its argument is a key of the source's section."""
    return check_number("lease_duration", lease_duration, least=0)


def _forget_what_was_dropped(pipeline: dlt.Pipeline) -> None:
    """Lets dlt forget its local state where the dataset is gone, as it would if the lease did not make the dataset."""
    mend_storages(Path(pipeline.working_dir))
    is_pending = pipeline.list_extracted_load_packages() or pipeline.list_normalized_load_packages()
    if pipeline.config.restore_from_destination and not pipeline.dev_mode and not is_pending:
        pipeline.sync_destination()


@contextmanager
def _checked_before_loads(pipeline: dlt.Pipeline, check: Callable[[], None]) -> Iterator[None]:
    """Calls `check` whenever the pipeline is about to load, be it out of `run`."""
    load = pipeline.load

    def checked(*arguments: Any, **keywords: Any) -> Any:
        check()
        return load(*arguments, **keywords)

    pipeline.load = checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        del pipeline.load
