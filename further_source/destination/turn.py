"""One load at a time decides about columns, where tables are not locked and changing one ends a transaction.

Parts of one list load at the same time. Whoever has the turn holds a row of the table of leases as a lease is held.
"""

import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import dlt
from dlt.common.destination.exceptions import DestinationException, DestinationUndefinedEntity

from further_source.destination.lease_table import FREE, TURN, LeaseTable, is_refused
from further_source.exceptions import FurtherError
from further_source.text import one_line

__all__ = ["in_turn"]

_SECONDS = 60.0  # nobody takes so long; whoever did not end in this time was killed
_PATIENCE = 3 * _SECONDS
_SECONDS_BETWEEN_ATTEMPTS = 0.1


@contextmanager
def in_turn(pipeline: dlt.Pipeline, *, patience: float = _PATIENCE) -> Iterator[None]:
    """Waits for the turn, and has it within.

    Args:
        patience: Seconds to wait.

    Raises:
        FurtherError: Others had it, or the destination failed, for so long; or this user may not write the table.
    """
    client: Any = pipeline.destination_client()  # of its own: it is no part of a transaction
    turn = str(uuid4())
    deadline = time.monotonic() + patience
    while True:
        failure = None
        try:
            if _taken(client, turn):
                break
        except DestinationException as error:  # of two that change the row at the same moment, one may be refused
            if is_refused(error):
                raise _not_usable(client, error) from error
            failure = error
        if time.monotonic() > deadline:
            raise _given_up(patience, failure) from failure
        time.sleep(_SECONDS_BETWEEN_ATTEMPTS * random.uniform(0.5, 1.5))  # noqa: S311
    try:
        yield
    finally:
        with suppress(DestinationException), client:  # else it ends by itself
            LeaseTable(client).free(TURN, turn)


def _given_up(patience: float, failure: DestinationException | None) -> FurtherError:
    if failure is None:
        return FurtherError(f"other loads decided about columns for {patience:g} s; run again")
    return FurtherError(
        one_line(f"the turn to decide about columns could not be taken for {patience:g} s, at last because: {failure}")
    )


def _not_usable(client: Any, error: DestinationException) -> FurtherError:
    return FurtherError(
        one_line(
            "the turn to decide about columns cannot be taken: let this user read and write "
            f"{LeaseTable(client).name}, which a load by a user who may make tables makes: {error}"
        )
    )


def _taken(client: Any, turn: str) -> bool:
    values = {
        "parts": 0,
        "lease_id": turn,
        "lease_seconds": _SECONDS,
        "pipeline_name": "",
        "host": socket.gethostname(),
        "process_id": os.getpid(),
        "lock_id": "",
    }
    with client:
        table = LeaseTable(client)
        try:
            rows = table.rows_of_turn()
        except DestinationUndefinedEntity:  # nobody holds leases here
            table.make()
            rows = []
        for row in rows:
            if row.lease_id == FREE or row.seconds_left < 0:
                table.replace(row, values)
        if not rows:
            table.insert({"part": TURN, "renewals": 0, **values})
        holders = {row.lease_id for row in table.rows_of_turn()}
        if holders == {turn}:
            return True
        if turn in holders:  # where no index is unique, two may have made a row
            table.free(TURN, turn)
        return False
