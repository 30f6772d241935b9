"""One run: a list is polled once, and what ended is loaded at the end, or in slices while the rest is still polled."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from random import uniform
from typing import TYPE_CHECKING, Any

import dlt
from dlt.common import logger
from dlt.extract import DltSource
from dlt.pipeline.helpers import retry_schema_update

from further_source.api.client import Client
from further_source.destination.ledger import Ledger, read_ledger
from further_source.destination.pending import load_pending
from further_source.destination.strategy import Loading
from further_source.exceptions import ConfigurationError
from further_source.executions import ExecutionId
from further_source.garbage import rarely_collected
from further_source.polling.poll import Ended
from further_source.session import Portion, Session
from further_source.settings import PollingSettings
from further_source.tables.answer import Answer, normalize_steps
from further_source.tables.parts import in_parts

if TYPE_CHECKING:
    from further_source.records import Page, Records

__all__ = ["Plan", "Report", "pages_of_load", "run_in_slices"]

SLICE_BYTES = 32_000_000
"""Of answers: a bound on what a destination has to take at once."""

_SCHEMA_ATTEMPTS = 8
_SCHEMA_MAX_WAIT = 2.0  # seconds


@dataclass
class Report:
    """How a run went: executions by `poll_outcome`, and records by table.

    `ended` are those loaded in this run, `earlier` those not asked because they were loaded before, `kept` those
    asked again by `reload` that gave no new ending, with the outcome they keep. `unreachable_error` is the error
    of the last one that was unreachable.
    """

    listed: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    earlier: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    unreachable: int = 0
    unreachable_error: str | None = None
    rows: Counter[str] = field(default_factory=Counter)

    @property
    def asked(self) -> int:
        """How many were asked and have ended, in whatever way."""
        return self.ended.total() + self.kept.total()

    @property
    def remaining(self) -> int:
        return self.listed - self.earlier.total() - self.asked

    @property
    def all_completed(self) -> bool:
        """Whether every listed execution's `poll_outcome`, loaded now or earlier, is `completed`."""
        found = self.ended + self.earlier + self.kept
        return found["completed"] == self.listed

    @property
    def nothing_reached(self) -> bool:
        """Whether executions were asked, and every one of them was unreachable."""
        return 0 < self.asked == self.unreachable


def _never() -> bool:
    return False


def _ignore(report: Report) -> None:
    pass


@dataclass(frozen=True)
class Plan:
    """What a source polls, and how.

    Attributes:
        listed: The executions in list order, each once.
        make_client: Makes the client of one run.
        reload: Whether to ask also for what is loaded.
        commit_interval: Seconds after which a slice is loaded.
    """

    listed: Sequence[ExecutionId]
    make_client: Callable[[], Client]
    settings: PollingSettings
    reload: bool
    commit_interval: float


class _Run:
    """One run of a plan. Each of its loads takes its pages from here; polling goes on between them.

    Args:
        in_slices: Whether a load ends when a slice is full; else it ends with the polling.
        stop: As of `run_in_slices`; so are `on_progress` and `shared`.
    """

    def __init__(
        self,
        *,
        in_slices: bool,
        stop: Callable[[], bool] = _never,
        on_progress: Callable[[Report], None] = _ignore,
        shared: bool = False,
    ) -> None:
        self.report = Report()
        self._in_slices = in_slices
        self._stop = stop
        self._on_progress = on_progress
        self._shared = shared
        self._session: Session | None = None
        self._records: Records | None = None
        self._ledger: Ledger | None = None

    @property
    def begun(self) -> bool:
        return self._session is not None

    @property
    def over(self) -> bool:
        """Whether polling is over and everything has been handed out."""
        return self._session is not None and self._session.exhausted

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def check(self) -> None:
        """Raises what ended polling before its time, if anything did."""
        if self._session is not None and self._session.error is not None:
            raise self._session.error

    def tell(self) -> None:
        self._on_progress(self.report)

    def pages(self, plan: Plan) -> Iterator["Page"]:
        """The pages of one load, from inside its extraction; the first is empty, and makes the tables."""
        if self._session is None or self._records is None:
            self._session, self._records = self._begin(plan)
        load_id = dlt.current.load_package_state()["load_id"]
        portion = Portion(plan.commit_interval, SLICE_BYTES) if self._in_slices else Portion()
        yield self._records.page([], load_id, self.report.rows)
        for page in self._session.pages(portion):
            answers = [answer for answer in map(self._answer, page) if answer is not None]
            page.clear()  # with the answers as they were parsed, which take the most memory
            for part in in_parts(answers):
                yield self._records.page(part, load_id, self.report.rows)
            answers.clear()
            self.tell()
        yield self._records.rest()
        self._records.free_memory()
        _choose_workers(self._records.loading, len(self.report.rows))
        if not self._in_slices:
            self.check()

    def _begin(self, plan: Plan) -> tuple[Session, "Records"]:
        """Looks at the destination and starts to ask.

        Imports pyarrow only now: that takes long, and a run that finds its configuration wrong needs none.
        """
        from further_source.records import records_of  # noqa: PLC0415

        records = records_of(dlt.current.pipeline(), dlt.current.source(), shared=self._shared)
        self._ledger = _ledger(plan.listed, records.loading.table_format)
        _check(plan, records.loading, self._ledger)
        self._can_replace = records.loading.can_replace
        held = self._ledger or Ledger()
        self.report.listed = len(plan.listed)
        if plan.reload:
            to_ask = list(plan.listed)
        else:
            to_ask = held.missing(plan.listed)
            self.report.earlier = held.counts()
        if to_ask:
            records.look()
        return Session(to_ask, plan.make_client(), plan.settings, stop=self._stop), records

    def _answer(self, ended: Ended) -> Answer | None:
        """What is to be loaded of an execution; None where what was loaded of it stays."""
        if ended.poll_outcome == "unreachable":
            self.report.unreachable += 1
            self.report.unreachable_error = ended.poll_error
        held = self._ledger.held(ended.execution) if self._ledger is not None else None
        answer = Answer(ended)
        if held is not None and not answer.is_final:
            self.report.kept[held] += 1
            logger.warning(
                f"{ended.execution}: asked again, and it is {ended.poll_outcome}: what was loaded of it stays as it was"
            )
            return None
        self.report.ended[ended.poll_outcome] += 1
        if not answer.is_final:
            return answer
        replaces = self._ledger is None or held is not None
        steps = normalize_steps(ended.payload)
        rest = {key: value for key, value in (ended.payload or {}).items() if key != "steps"}
        return Answer(replace(ended, payload=rest), steps, replaces and self._can_replace)


_chosen_workers: int | None = None


def _choose_workers(loading: Loading, tables: int) -> None:
    """Tells dlt how many jobs to load at once, where nobody configured it; it reads that when a load begins."""
    global _chosen_workers
    if dlt.config.get("load.workers", int) in (None, _chosen_workers) and (workers := loading.workers(tables)):
        dlt.config["load.workers"] = _chosen_workers = workers


def _ledger(listed: Sequence[ExecutionId], table_format: str | None) -> Ledger | None:
    """What the destination holds of the list; None where this load does not keep the ledger, so that all is asked."""
    if "executions" not in dlt.current.source().resources.selected:
        return None
    state = dlt.current.load_package_state()["state"]
    if not listed or state.get("dropped_tables") or state.get("truncated_tables"):
        return Ledger()  # with refresh, what is there now is dropped by this very load
    return read_ledger(dlt.current.pipeline(), listed, table_format)


def _check(plan: Plan, loading: Loading, ledger: Ledger | None) -> None:
    if plan.reload and not loading.can_replace:
        raise ConfigurationError(f"reload: {loading} cannot take away what was loaded before; load into a new dataset")
    if ledger is None and loading.strategy == "upsert" and dlt.current.source_schema().data_table_names():
        raise ConfigurationError(
            f"executions is not selected, so all is asked again, and {loading} cannot take away what an execution no "
            "longer has; select it, or load into a new dataset"
        )


_in_slices: ContextVar[_Run | None] = ContextVar("further_source_run", default=None)


def pages_of_load(plan: Plan) -> Iterator["Page"]:
    """What one load takes, from inside its extraction: the next slice of `run_in_slices`, or all to the end."""
    run = _in_slices.get()
    if run is not None:
        yield from run.pages(plan)
        return
    with closing(_Run(in_slices=False)) as run, rarely_collected():
        yield from run.pages(plan)


@contextmanager
def _as_slices_of(run: _Run) -> Iterator[None]:
    token = _in_slices.set(run)
    try:
        yield
    finally:
        _in_slices.reset(token)


def run_in_slices(
    pipeline: dlt.Pipeline,
    source: DltSource,
    *,
    stop: Callable[[], bool] = _never,
    on_progress: Callable[[Report], None] = _ignore,
    table_format: Any = None,
    shared: bool = False,
) -> Report:
    """Runs a `further_source` to its end, loading what has arrived every `commit_interval` seconds.

    A run that is killed loses at most what arrived since the last load; the next run asks only for what is not
    loaded. Packages that an earlier run left pending are loaded first.

    Args:
        pipeline: Where to load. Its `refresh`, if any, holds for the first load alone.
        source: Made by `further_source()`; may be narrowed by `with_resources`.
        stop: Looked at before each request and several times a second. Once true, nothing more is asked, what has
            arrived is loaded, and the run ends without a record for what had not ended.
        on_progress: Called about once a second while polling, and after each load.
        table_format: As of `pipeline.run`, for data lakes.
        shared: Whether other loads write to the same dataset at the same time. Each needs a pipeline name and a
            staging dataset of its own, and executions that no other one is given (`manifest.shard`).

    Returns:
        How the run went.

    Raises:
        CredentialsError: The API refused the credentials; what had arrived is loaded.
        dlt.pipeline.exceptions.PipelineStepFailed: As of `pipeline.run`.
    """
    refresh = pipeline.refresh
    run = _Run(in_slices=True, stop=stop, on_progress=on_progress, shared=shared)
    with closing(run), rarely_collected():
        if pipeline.has_pending_data:
            _load(partial(load_pending, pipeline), pipeline, shared)
        try:
            while not run.over:
                with _as_slices_of(run):
                    _load(partial(pipeline.run, source, table_format=table_format), pipeline, shared)
                pipeline.refresh = None  # a second time it would drop what the first slice loaded
                if not run.begun:
                    return run.report  # no resource of the source is selected
                run.tell()
        finally:
            pipeline.refresh = refresh
        run.check()
        return run.report


def _load(load: Callable[[], Any], pipeline: dlt.Pipeline, shared: bool) -> None:
    """Loads; where another load made a table or column that this one was about to make, what is pending once more."""
    collided = retry_schema_update()
    for attempts_left in reversed(range(_SCHEMA_ATTEMPTS if shared else 1)):
        try:
            load()
            return
        except Exception as error:
            if not (attempts_left and collided(error)):
                raise
        time.sleep(uniform(0, _SCHEMA_MAX_WAIT))  # noqa: S311  so that they do not meet again
        load = partial(load_pending, pipeline)
