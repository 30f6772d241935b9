"""Loads what has arrived while the rest is still polled: one polling, cut into many loads."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from random import uniform
from typing import Any

import dlt
from dlt.extract import DltSource
from dlt.pipeline.helpers import retry_schema_update

from further_source.destination.pending import load_pending
from further_source.garbage import rarely_collected
from further_source.session import Report, Session

__all__ = ["Slice", "current_slice", "run_in_slices"]

_SCHEMA_ATTEMPTS = 8
_SCHEMA_MAX_WAIT = 2.0  # seconds


def _never() -> bool:
    return False


def _ignore(report: Report) -> None:
    pass


@dataclass
class Slice:
    """The run that the source finds itself in; the source makes its session known here."""

    stop: Callable[[], bool] = _never
    on_progress: Callable[[Report], None] = _ignore
    session: Session | None = None
    shared: bool = False


_current: ContextVar[Slice | None] = ContextVar("further_source_slice", default=None)


def current_slice() -> Slice | None:
    """The run being extracted, None where a source is run on its own."""
    return _current.get()


@contextmanager
def _as_current(run: Slice) -> Iterator[None]:
    token = _current.set(run)
    try:
        yield
    finally:
        _current.reset(token)


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
        table_format: As of `pipeline.run`, for data lakes.
        on_progress: Called about once a second while polling, and after each load.
        shared: Whether other loads write to the same dataset at the same time. Each needs a pipeline name and a
            staging dataset of its own, and executions that no other one is given (`manifest.shard`).

    Returns:
        How the run went.

    Raises:
        CredentialsError: The API refused the credentials; what had arrived is loaded.
        dlt.pipeline.exceptions.PipelineStepFailed: As of `pipeline.run`.
    """
    with rarely_collected():
        return _run_in_slices(pipeline, source, Slice(stop, on_progress, shared=shared), table_format)


def _run_in_slices(pipeline: dlt.Pipeline, source: DltSource, run: Slice, table_format: Any) -> Report:
    refresh = pipeline.refresh
    if pipeline.has_pending_data:
        _load(partial(load_pending, pipeline), pipeline, run.shared)
    try:
        while run.session is None or not run.session.exhausted:
            with _as_current(run):
                _load(partial(pipeline.run, source, table_format=table_format), pipeline, run.shared)
            pipeline.refresh = None  # a second time it would drop what the first slice loaded
            if run.session is None:
                return Report()  # no resource of the source is selected
            run.on_progress(run.session.report)
        if run.session.error is not None:
            raise run.session.error
        return run.session.report
    finally:
        pipeline.refresh = refresh
        if run.session is not None:
            run.session.close()


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
