"""Loads what has arrived while the rest is still polled: one polling, cut into many loads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import dlt
from dlt.extract import DltSource

from further_source.session import Report, Session

__all__ = ["Slice", "current_slice", "run_in_slices"]


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

    Returns:
        How the run went.

    Raises:
        CredentialsError: The API refused the credentials; what had arrived is loaded.
        dlt.pipeline.exceptions.PipelineStepFailed: As of `pipeline.run`.
    """
    run = Slice(stop, on_progress)
    refresh = pipeline.refresh
    if pipeline.has_pending_data:
        pipeline.run()
    try:
        while run.session is None or not run.session.exhausted:
            with _as_current(run):
                pipeline.run(source, table_format=table_format)
            pipeline.refresh = None  # a second time it would drop what the first slice loaded
            if run.session is None:
                return Report()  # no resource of the source is selected
            on_progress(run.session.report)
        if run.session.error is not None:
            raise run.session.error
        return run.session.report
    finally:
        pipeline.refresh = refresh
        if run.session is not None:
            run.session.close()
