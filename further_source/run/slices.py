"""One run: a list is polled once, and what ended is loaded at the end, or in slices while the rest is still polled."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from random import uniform
from typing import TYPE_CHECKING, Any

import dlt
from dlt.common import logger
from dlt.common.configuration.container import Container
from dlt.common.storages.load_package import LoadPackageStateInjectableContext
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.helpers import retry_schema_update

from further_source.destination.appending import append_this_load
from further_source.destination.compacting import compact_where_due
from further_source.destination.forgotten import erase_what_came_back
from further_source.destination.lake import disown_first
from further_source.destination.lease import leased, refuse_beside_a_lease
from further_source.destination.ledger import WAITED_FOR
from further_source.destination.open_file import OpenFile
from further_source.destination.package_manifest import keep_manifest
from further_source.destination.pending import load_pending
from further_source.destination.strategy import Loading
from further_source.executions import ExecutionId
from further_source.garbage import rarely_collected
from further_source.polling.poll import Ended, PollState
from further_source.run.arrivals import Arrivals
from further_source.run.opening import Found, Opened, Plan, look_first, open_run
from further_source.run.report import NotCompleted, Report
from further_source.run.session import Portion, Session
from further_source.tables.answer import Answer, normalize_steps
from further_source.tables.columns import CELLS, EXECUTIONS, STEPS
from further_source.tables.fields import ROWS_PREFIX
from further_source.tables.parts import in_parts

if TYPE_CHECKING:
    from further_source.run.records import Page

__all__ = ["pages_of_load", "run_in_slices"]

SLICE_BYTES = 32_000_000
"""Of answers: a bound on what a destination has to take at once."""

_NAMED = 5  # executions of each outcome
_SCHEMA_ATTEMPTS = 8
_SCHEMA_MAX_WAIT = 2.0  # seconds


def _never() -> bool:
    return False


def _ignore(report: Report) -> None:
    pass


class _NothingCame(Exception):
    """Ends an extraction that has nothing to load."""


class _Run:
    """One run of a plan. Each of its loads takes its pages from here; polling goes on between them.

    Args:
        in_slices: Whether a load ends when a slice is full; else it ends with the polling.
        alone: As of `open_run`.
        stop: As of `run_in_slices`; so are `on_progress` and `shared`.
    """

    def __init__(
        self,
        *,
        in_slices: bool,
        alone: bool = False,
        stop: Callable[[], bool] = _never,
        on_progress: Callable[[Report], None] = _ignore,
        shared: bool = False,
        file: OpenFile | None = None,
    ) -> None:
        self.report = Report()
        self.compact_every = 0
        self.abandoned: LoadPackageStateInjectableContext | None = None
        self._in_slices = in_slices
        self._alone = alone
        self._replaces = False  # whether the load that is extracted may replace rows
        self._replaced: list[ExecutionId] = []  # held as ended until that load
        self._stop = stop
        self._on_progress = on_progress
        self._shared = shared
        self._found: Found | None = None
        self._opened: Opened | None = None
        self._loaded_next: list[ExecutionId] = []  # are loaded as ended once that load is
        self._file = file

    @property
    def begun(self) -> bool:
        return self._opened is not None

    @property
    def over(self) -> bool:
        """Whether polling is over and everything has been handed out."""
        return self._opened is not None and self._opened.session.exhausted

    def close(self) -> None:
        if self._opened is not None:
            self._opened.session.close()

    def check(self) -> None:
        """Raises what ended polling before its time, if anything did."""
        if self._opened is not None and self._opened.session.error is not None:
            raise self._opened.session.error

    def tell(self) -> None:
        self._on_progress(self.report)

    def loaded(self) -> None:
        """Takes note that all that was handed out is in the destination."""
        if self._opened is not None and isinstance(self._opened.session, Arrivals):
            self._opened.session.loaded(self._loaded_next)
        self._loaded_next.clear()
        self.report.loaded, self.report.loaded_at = self.report.ended.total(), time.time()
        self.tell()

    def is_idle(self, pipeline: dlt.Pipeline, source: DltSource) -> bool:
        """Whether there is nothing to load; as `look_first`, it may not be known before something is extracted."""
        plan = _plan_of(source)
        if plan is not None:
            self._found = look_first(plan, self.report, pipeline, source, shared=self._shared)
        return self._found is not None and self._found.is_idle

    def _note(self, state: PollState) -> None:
        self.report.polling = state

    def pages(self, plan: Plan) -> Iterator["Page"]:
        """The pages of one load, from inside its extraction; the first is empty, and makes the tables."""
        self.compact_every = plan.compact_every
        if self._opened is None:
            found, self._found = self._found, None
            self._opened = open_run(
                plan,
                self.report,
                found=found,
                alone=self._alone,
                shared=self._shared,
                stop=self._stop,
                on_change=self._note,
            )
            self.tell()
        session, records = self._opened.session, self._opened.records
        load_id = dlt.current.load_package_state()["load_id"]
        keep_manifest()
        self._replaces = self._opened.leftovers is None
        self._replaced.clear()
        interval = records.loading.commit_interval if plan.commit_interval is None else plan.commit_interval
        portion = Portion(interval, SLICE_BYTES) if self._in_slices else Portion()
        if self._file is not None:
            self._file.close()
        pages = session.pages(portion)
        if self._in_slices:
            pages = self._once_something_came(pages, session)
        yield records.page([], load_id, self.report.rows)
        for page in pages:
            answers = [answer for answer in map(partial(self._answer, self._opened), page) if answer is not None]
            page.clear()  # with the answers as they were parsed, which take the most memory
            for part in in_parts(answers):
                yield records.page(part, load_id, self.report.rows)
                part.clear()  # an error that dlt keeps may keep this frame, with the last of a large answer
            answers.clear()
            self.tell()
        yield records.rest()
        records.free_memory()
        if not self._replaces:
            append_this_load(self._tables_with_executions())
        elif records.loading.is_lake and self._replaced:
            disown_first(self._replaced)
        _choose_workers(records.loading, len(self.report.rows))
        if self._file is not None:
            self._file.open()
        if not self._in_slices:
            self.check()

    def _tables_with_executions(self) -> set[str]:
        """Those that are loaded now, and those that were loaded before; without `executions`."""
        known = {name for name in dlt.current.source_schema().tables if name.startswith(ROWS_PREFIX)}
        return {STEPS.name, CELLS.name, *known, *self.report.rows} - {EXECUTIONS.name}

    def _once_something_came(self, pages: Iterator[list[Ended]], session: Session | Arrivals) -> Iterator[list[Ended]]:
        """The same pages, once one has something or polling has come to its end.

        Raises:
            _NothingCame: Polling was stopped, or refused, before that: no table is to be made for it.
        """
        for page in pages:
            if page:
                return chain([page], pages)
            self.tell()
        if session.error is not None or self._stop():
            self.abandoned = Container()[LoadPackageStateInjectableContext]
            raise _NothingCame
        return iter(())

    def _answer(self, opened: Opened, ended: Ended) -> Answer | None:
        """What is to be loaded of an execution; None where what was loaded of it stays."""
        is_waited_for = ended.poll_outcome == WAITED_FOR and not ended.poll_count
        if ended.execution in opened.unlisted:
            self.report.listed += 1
        if ended.poll_outcome == "unreachable" and opened.can_ask:
            self.report.unreachable += 1
            self.report.unreachable_error = ended.poll_error
        held = opened.held(ended.execution)
        answer = Answer(ended)
        if held is not None and not answer.is_final:
            self.report.kept[held] += 1
            logger.warning(
                f"{ended.execution}: asked again, and it is {ended.poll_outcome}: what was loaded of it stays as it was"
            )
            return None
        if is_waited_for:
            return answer
        self._count(ended)
        if not answer.is_final:
            return answer
        self._loaded_next.append(ended.execution)
        self._replaces = self._replaces or not opened.is_new(ended.execution)
        if held is not None:
            self._replaced.append(ended.execution)
        steps = normalize_steps(ended.payload)
        rest = {key: value for key, value in (ended.payload or {}).items() if key != "steps"}
        return Answer(replace(ended, payload=rest), steps, opened.replaces(ended.execution))

    def _count(self, ended: Ended) -> None:
        self.report.ended[ended.poll_outcome] += 1
        is_named = ended.poll_outcome not in ("completed", "running")
        if is_named and self.report.ended[ended.poll_outcome] <= _NAMED:
            self.report.not_completed.append(NotCompleted(ended.execution, ended.poll_outcome, ended.poll_error))


_chosen_workers: int | None = None


def _choose_workers(loading: Loading, tables: int) -> None:
    """Tells dlt how many jobs to load at once, where nobody configured it; it reads that when a load begins."""
    global _chosen_workers
    if dlt.config.get("load.workers", int) in (None, _chosen_workers) and (workers := loading.workers(tables)):
        dlt.config["load.workers"] = _chosen_workers = workers


_sliced_run: ContextVar[_Run | None] = ContextVar("further_source_run", default=None)
"""The run of `run_in_slices` whose load is being extracted."""
_plans: ContextVar[list[Plan] | None] = ContextVar("further_source_plans", default=None)
"""Where the plan goes when it is only asked for."""


def _plan_of(source: DltSource) -> Plan | None:
    """What a source polls; None where it is none of ours. Nothing begins, though its resource is iterated."""
    if "polled" not in source.resources:
        return None
    plans: list[Plan] = []
    token = _plans.set(plans)
    try:
        for _ in source.resources["polled"]:
            pass
    finally:
        _plans.reset(token)
    return next(iter(plans), None)


def pages_of_load(plan: Plan) -> Iterator["Page"]:
    """What one load takes, from inside its extraction: the next slice of `run_in_slices`, or all to the end."""
    if (plans := _plans.get()) is not None:
        plans.append(plan)
        return
    run = _sliced_run.get()
    if run is not None:
        yield from run.pages(plan)
        return
    refuse_beside_a_lease(dlt.current.pipeline())
    with closing(_Run(in_slices=False)) as run, rarely_collected():
        yield from run.pages(plan)


@contextmanager
def _as_slices_of(run: _Run) -> Iterator[None]:
    token = _sliced_run.set(run)
    try:
        yield
    finally:
        _sliced_run.reset(token)


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
    loaded. Packages that an earlier run left pending are loaded first. While it runs, no other one loads into the same
    dataset, from whatever machine, if the destination can hold a lease.

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
        AlreadyRunningError: Another load into the dataset is running, and nothing was asked. Or one has begun because
            this one stood still for longer than its lease; what had arrived waits in the pending package.
        CredentialsError: The API refused the credentials; what had arrived is loaded.
        DestinationException: The destination failed before anything was asked.
        ManifestError: A list cannot be read.
        dlt.pipeline.exceptions.PipelineStepFailed: As of `pipeline.run`.
    """
    with leased(pipeline, shared=shared) as lease, nullcontext() if shared else OpenFile(pipeline) as file:
        run = _Run(
            in_slices=True,
            alone=lease is not None,
            stop=lambda: stop() or (lease is not None and lease.lost is not None),
            on_progress=on_progress,
            shared=shared,
            file=file,
        )
        return _run_to_its_end(run, pipeline, source, table_format, shared)


def _run_to_its_end(run: _Run, pipeline: dlt.Pipeline, source: DltSource, table_format: Any, shared: bool) -> Report:
    refresh = pipeline.refresh
    with closing(run), rarely_collected():
        _load(partial(load_pending, pipeline), pipeline, shared)
        if run.is_idle(pipeline, source):
            run.loaded()
            return run.report
        try:
            while not run.over:
                try:
                    with _as_slices_of(run):
                        _load(partial(pipeline.run, source, table_format=table_format), pipeline, shared)
                except PipelineStepFailed:
                    if run.abandoned is None:
                        raise
                    _delete_package(run.abandoned)
                    break
                erase_what_came_back(pipeline)
                pipeline.refresh = None  # a second time it would drop what the first slice loaded
                if not run.begun:
                    return run.report  # no resource of the source is selected
                run.loaded()
            compact_where_due(pipeline, run.compact_every)
        finally:
            pipeline.refresh = refresh
        run.check()
        return run.report


def _delete_package(package: LoadPackageStateInjectableContext) -> None:
    """Deletes what dlt leaves of an extraction that failed, which nothing ever reads."""
    package.storage.delete_package(package.load_id)
    with suppress(OSError):
        Path(package.storage.storage.storage_path).rmdir()


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
