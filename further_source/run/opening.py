"""How a run begins: it looks at what the destination holds, and starts to ask for the rest, or to read an inbox."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dlt
from dlt.extract import DltSource

from further_source.api.client import Client
from further_source.destination.appending import read_leftovers
from further_source.destination.catalog import knows_sql
from further_source.destination.dataset import has_tables
from further_source.destination.forgotten import erase_what_came_back, read_forgotten, stored_forgotten
from further_source.destination.ledger import MAX_IDS_IN_QUERY, Ledger, read_ledger, read_ledger_by
from further_source.destination.listing import read_executions_of_destination
from further_source.destination.strategy import Loading
from further_source.exceptions import ConfigurationError
from further_source.executions import ExecutionId
from further_source.inbox.deliveries import Deliveries
from further_source.inbox.signed_urls import SignedUrls
from further_source.manifest import merge_executions
from further_source.polling.poll import PollState
from further_source.run.arrivals import ONE_LOAD, Arrivals, Push
from further_source.run.report import Report
from further_source.run.session import Session
from further_source.settings import PollingSettings
from further_source.tables.columns import CELLS, EXECUTIONS, ROWS, STEPS

if TYPE_CHECKING:
    from further_source.run.records import Records

__all__ = ["Found", "Opened", "Plan", "look_first", "open_run"]


@dataclass(frozen=True)
class Plan:
    """What a source polls, and how.

    Attributes:
        listed: The executions in list order, each once.
        make_client: Makes the client of one run; None where there are no credentials, and an inbox.
        reload: Whether to ask also for what is loaded.
        commit_interval: Seconds after which a slice is loaded; None for what suits the destination.
        compact_every: Loads after which tables of a lake are compacted; 0 for never.
        push: How deliveries are read, where there is an inbox.
        listed_later: Lists that can be read only once a run extracts; they come after `listed`.
        query: SQL that lists executions in the destination; they come after all others.
    """

    listed: Sequence[ExecutionId]
    make_client: Callable[[], Client] | None
    settings: PollingSettings
    reload: bool
    commit_interval: float | None
    compact_every: int = 0
    push: Push | None = None
    listed_later: Sequence[Callable[[], Iterable[ExecutionId]]] = ()
    query: str | None = None

    def complete(self, pipeline: dlt.Pipeline) -> "Plan":
        """The plan with all its lists read."""
        later = [read() for read in self.listed_later]
        if self.query:
            later.append(read_executions_of_destination(pipeline, self.query))
        return (
            replace(self, listed=merge_executions(self.listed, *later), listed_later=(), query=None) if later else self
        )


@dataclass(frozen=True)
class Found:
    """What was found before anything is extracted.

    Attributes:
        plan: With all its lists read.
        ledger: What the destination holds of them.
        is_idle: Whether there is nothing to load, and no table to make or change.
    """

    plan: Plan
    ledger: Ledger
    is_idle: bool


@dataclass(frozen=True)
class Opened:
    """What a run goes on with once it has begun.

    Attributes:
        ledger: What the destination holds; None where this load does not keep the ledger, so that all is asked.
        leftovers: Executions that it has rows of and does not hold as ended; None where that is not known.
        can_ask: Whether there are credentials to ask the API with.
        unlisted: Executions that were delivered without being listed.
    """

    session: Session | Arrivals
    records: "Records"
    ledger: Ledger | None
    leftovers: frozenset[ExecutionId] | None
    can_ask: bool
    unlisted: set[ExecutionId]

    def held(self, execution: ExecutionId) -> str | None:
        """With which outcome the destination holds it as ended, if it does."""
        return self.ledger.held(execution) if self.ledger is not None else None

    def replaces(self, execution: ExecutionId) -> bool:
        """Whether rows of it are to be taken away when it is loaded."""
        return self.records.loading.can_replace and (
            self.ledger is None or self.held(execution) is not None or execution in (self.leftovers or ())
        )

    def is_new(self, execution: ExecutionId) -> bool:
        """Whether the destination has nothing of it but what `executions` says."""
        return self.leftovers is not None and self.held(execution) is None and execution not in self.leftovers


def look_first(plan: Plan, report: Report, pipeline: dlt.Pipeline, source: DltSource, *, shared: bool) -> Found | None:
    """Looks, before anything is extracted, whether there is anything to load; the report is told as by `open_run`.

    To extract, normalize and load nothing takes dlt twice as long as to find that there is nothing.

    Returns:
        None where only an extraction can tell, or has more to do than to load what is listed.

    Raises:
        DestinationException: The destination failed.
        ManifestError: A list cannot be read.
    """
    selected = source.resources.selected.keys()
    if not (EXECUTIONS.name in selected and selected <= {EXECUTIONS.name, STEPS.name, CELLS.name, ROWS.name}):
        return None
    if plan.reload or plan.listed_later or pipeline.refresh or source.name not in pipeline.schema_names:
        return None
    if not knows_sql(pipeline) or (plan.push is not None and (shared or not plan.push.inbox.is_empty)):
        return None
    pipeline.activate()  # as `run` does, so that credentials of this pipeline are found
    plan = plan.complete(pipeline)
    client = pipeline.destination_client()
    with client:
        tombstones = stored_forgotten(client)
        ledger = read_ledger_by(client, plan.listed, tombstones, seen=plan.push is not None)
        is_idle = not ledger.missing(plan.listed) and has_tables(client, selected - {ROWS.name})
    if is_idle:
        if tombstones:
            erase_what_came_back(pipeline)  # as after each load; one may have been killed before it came to that
        _tell(report, plan, ledger)
        report.rows.update(dict.fromkeys(selected - {ROWS.name}, 0))
    return Found(plan, ledger, is_idle)


def open_run(
    plan: Plan,
    report: Report,
    *,
    found: Found | None,
    alone: bool,
    shared: bool,
    stop: Callable[[], bool],
    on_change: Callable[[PollState], None],
) -> Opened:
    """Begins, from inside the first extraction of a run; the report is told what is listed, loaded and forgotten.

    Imports pyarrow only now: that takes long, and a run that finds its configuration wrong needs none.

    Args:
        found: What `look_first` found.
        alone: Whether it is sure that nobody else loads any of these executions until the run is over.
        shared: As of `run_in_slices`; so is `stop`.
        on_change: As of `Session`.

    Raises:
        ConfigurationError: The destination cannot do what is wanted.
        ManifestError: A list cannot be read.
    """
    from further_source.run.records import records_of  # noqa: PLC0415

    if plan.push is not None and shared:
        raise ConfigurationError(ONE_LOAD)
    plan = found.plan if found is not None else plan.complete(dlt.current.pipeline())
    records = records_of(dlt.current.pipeline(), dlt.current.source(), shared=shared)
    if found is not None:
        ledger: Ledger | None = found.ledger
    else:
        ledger = _ledger(plan.listed, records.loading.table_format, seen=plan.push is not None)
    _check(plan, records.loading, ledger)
    held = ledger or Ledger(forgotten=_forgotten(plan.listed))
    _tell(report, plan, held)
    to_ask = held.allowed(plan.listed) if plan.reload else held.missing(plan.listed)
    ask = _asking(plan, stop, on_change)
    unlisted: set[ExecutionId] = set()
    is_anything = bool(to_ask) or (plan.push is not None and not plan.push.inbox.is_empty)
    if is_anything or found is not None:  # found, and nothing to ask: a table or column is missing
        records.look()
    leftovers = None
    if alone and ledger is not None and (is_anything or plan.push is None):
        leftovers = _leftovers(plan, records, to_ask)
    session: Session | Arrivals
    if plan.push is not None:
        deliveries = _deliveries(plan, plan.push, records.loading.table_format, ledger, unlisted, stop)
        session = Arrivals(
            deliveries,
            to_ask,
            seen=None if ledger is None or plan.reload else ledger.seen,
            grace=plan.push.grace,
            ask=ask,
            counts=report.deliveries,
            stop=stop,
        )
    elif ask is None:
        raise ConfigurationError("no credentials")
    else:
        session = ask(to_ask)
    return Opened(session, records, ledger, leftovers, ask is not None, unlisted)


def _tell(report: Report, plan: Plan, held: Ledger) -> None:
    report.listed = len(plan.listed)
    report.forgotten = len(held.forgotten)
    if not plan.reload:
        report.earlier = held.counts()


def _asking(
    plan: Plan, stop: Callable[[], bool], on_change: Callable[[PollState], None]
) -> Callable[[Sequence[ExecutionId]], Session] | None:
    make_client = plan.make_client
    if make_client is None:
        return None
    return lambda executions: Session(executions, make_client(), plan.settings, stop=stop, on_change=on_change)


def _deliveries(
    plan: Plan,
    push: Push,
    table_format: str | None,
    ledger: Ledger | None,
    unlisted: set[ExecutionId],
    stop: Callable[[], bool],
) -> Deliveries:
    listed = frozenset(plan.listed)
    client = dlt.current.pipeline().destination_client()

    def held(executions: Sequence[ExecutionId]) -> Collection[ExecutionId]:
        """Those that are held as ended or were forgotten, and not to be loaded again."""
        new = [execution for execution in executions if execution not in listed]
        unlisted.update(new)
        if ledger is None:
            return _forgotten(executions)
        unknown = [execution for execution in new if execution not in ledger.outcomes]
        if unknown and (found := _ledger(unknown, table_format, client=client)) is not None:
            ledger.update(found)
        gone = forgotten(executions)
        return gone if plan.reload else gone.union(filter(ledger.outcome, executions))

    def forgotten(executions: Sequence[ExecutionId]) -> frozenset[ExecutionId]:
        return (
            _forgotten(executions) if ledger is None else frozenset(filter(ledger.forgotten.__contains__, executions))
        )

    return Deliveries(
        push.inbox,
        SignedUrls(
            push.hosts,
            request_timeout=push.request_timeout,
            max_workers=plan.settings.max_workers,
            max_bytes=push.max_bytes,
        ),
        held=held,
        forgotten=forgotten,
        terminal_statuses=plan.settings.terminal_statuses,
        max_bytes=push.max_bytes,
        max_workers=plan.settings.max_workers,
        verify=push.verify,
        stop=stop,
    )


def _ledger(
    listed: Sequence[ExecutionId], table_format: str | None, *, seen: bool = False, client: Any = None
) -> Ledger | None:
    """What the destination holds of the list; None where this load does not keep the ledger, so that all is asked.

    Args:
        seen: As of `read_ledger`; so is `client`.
    """
    if "executions" not in dlt.current.source().resources.selected:
        return None
    if not listed or _drops():  # the tombstones of `forget` are not dropped
        return Ledger(forgotten=_forgotten(listed))
    return read_ledger(dlt.current.pipeline(), listed, table_format, seen=seen, client=client)


def _leftovers(plan: Plan, records: "Records", to_ask: Sequence[ExecutionId]) -> frozenset[ExecutionId] | None:
    """Executions that the destination has rows of and does not hold as ended; None where that does not matter."""
    if plan.reload or records.loading.strategy != "delete-insert" or _drops():
        return None
    is_short = plan.push is None and len(to_ask) <= MAX_IDS_IN_QUERY
    return read_leftovers(dlt.current.pipeline(), records.tables_with_executions, to_ask if is_short else None)


def _drops() -> bool:
    """Whether this very load drops what is there now."""
    state = dlt.current.load_package_state()["state"]
    return bool(state.get("dropped_tables") or state.get("truncated_tables"))


def _forgotten(listed: Sequence[ExecutionId]) -> frozenset[ExecutionId]:
    return read_forgotten(dlt.current.pipeline()).intersection(listed) if listed else frozenset()


def _check(plan: Plan, loading: Loading, ledger: Ledger | None) -> None:
    if plan.reload and not loading.can_replace:
        raise ConfigurationError(f"reload: {loading} cannot take away what was loaded before; load into a new dataset")
    if (
        ledger is None
        and loading.strategy == "upsert"
        and not loading.can_replace
        and dlt.current.source_schema().data_table_names()
    ):
        raise ConfigurationError(
            f"executions is not selected, so all is asked again, and {loading} cannot take away what an execution no "
            "longer has; select it, or load into a new dataset"
        )
