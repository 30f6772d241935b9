"""One document removed for good: from the destination, from what dlt has left of it here, from inboxes, and from all
later loads.

The order makes it repeatable after a kill at any moment: tombstones first, which name what is not gone everywhere yet;
`executions`, by which an external id is known, last of the rows; and at the very end the note that all of it is gone.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import dlt

from further_source.destination.catalog import knows_sql
from further_source.destination.copies import delete_copies, pending_copies
from further_source.destination.forgotten import (
    bury,
    erase,
    executions_of,
    mark_erased,
    tables_to_rewrite,
    unfinished,
)
from further_source.destination.lease import leased
from further_source.destination.pending import has_pending, load_pending
from further_source.destination.rewriting import rewrite
from further_source.exceptions import ConfigurationError, FurtherError
from further_source.executions import ExecutionId
from further_source.inbox.erasing import Erased, delivered_with, erase_deliveries
from further_source.inbox.store import Inbox

__all__ = ["Forgotten", "forget"]


@dataclass(frozen=True)
class Forgotten:
    """What went.

    Attributes:
        executions: Those that were forgotten, now or by an earlier call that did not come to its end.
        rows: How many rows were deleted of each table.
        copies: Packages and traces that were deleted here.
        inboxes: What was done in each inbox that was looked at.
        rest: A sentence on what the destination keeps of rows that are deleted.
    """

    executions: list[ExecutionId]
    rows: Counter[str] = field(default_factory=Counter)
    copies: list[Path] = field(default_factory=list)
    inboxes: list[Erased] = field(default_factory=list)
    rest: str = ""


def forget(
    pipeline: dlt.Pipeline,
    executions: Iterable[ExecutionId] = (),
    external_id: str | None = None,
    *,
    shards: Iterable[dlt.Pipeline] = (),
    inboxes: Iterable[Inbox] = (),
) -> Forgotten:
    """Removes executions for good: no later load brings them back. May be repeated, and ends what was interrupted.

    What is pending here is loaded first, so that nothing of other executions is lost.

    Args:
        pipeline: Its destination knows SQL. No other load of this machine may run meanwhile.
        executions: What to forget; they need not be loaded.
        external_id: Besides, all that are loaded with this `metadata.external_id`, or stand in an inbox with it.
        shards: Other pipelines of this machine into the same dataset, whose pending packages are loaded too.
        inboxes: Where deliveries are stored: theirs are deleted, those that are put away or in quarantine too.

    Raises:
        AlreadyRunningError: Something is pending, and another load into the dataset is running.
        ConfigurationError: The destination knows no SQL.
        FurtherError: None is loaded with that external id, the database cannot be written anew, an inbox cannot be read
            or changed, or a package of another pipeline has something of them.
        dlt.pipeline.exceptions.PipelineStepFailed: What is pending cannot be loaded. The tombstones are written.
    """
    if not knows_sql(pipeline):
        raise ConfigurationError(
            "forget: the destination knows no SQL, and files of a lake keep what is deleted: take the rows with these "
            "ids out by the means of its format, and the ids out of the list"
        )
    inboxes = list(inboxes)
    wanted = list(executions)
    if wanted:
        with pipeline.destination_client() as client:
            bury(pipeline, client, wanted)
    for one in (pipeline, *shards):
        if has_pending(one):
            with leased(one):
                load_pending(one)
    with pipeline.destination_client() as client:
        if external_id is not None:
            wanted += executions_of(client, external_id)
            wanted += sorted(one for inbox in inboxes for one in delivered_with(inbox, external_id))
            bury(pipeline, client, wanted)
        wanted = unfinished(client)
        if not wanted:
            raise FurtherError(f"no execution is loaded{_or_delivered(inboxes)} with external id {external_id!r}")
        rows = erase(client, wanted)
        tables = tables_to_rewrite(client)
    rest = rewrite(pipeline, tables)
    pipelines_dir = Path(pipeline.pipelines_dir)
    copies = delete_copies(pipelines_dir, wanted)
    if pending := pending_copies(pipelines_dir, wanted):
        raise FurtherError(
            f"{pending[0]}: a package that waits has something of them: load it, or discard it, and forget them again"
        )
    erased = [erase_deliveries(inbox, wanted) for inbox in inboxes]
    with pipeline.destination_client() as client:
        mark_erased(client, wanted)
    return Forgotten(wanted, rows, copies, erased, rest)


def _or_delivered(inboxes: list[Inbox]) -> str:
    return f", or stands in {' or '.join(inbox.shown for inbox in inboxes)}," if inboxes else ""
