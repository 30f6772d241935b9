"""What a failure of a load says to the user: one line with the culprit, the reason and what to do."""

import errno
import logging
import os
from collections.abc import Iterator

import dlt
from dlt.common import logger
from dlt.common.configuration.exceptions import (
    ConfigFieldMissingException,
    ConfigurationException,
    FieldLookupTraces,
    LookupTraces,
)
from dlt.common.destination.exceptions import DestinationException, UnknownDestinationModule
from dlt.common.exceptions import MissingDependencyException
from dlt.destinations.exceptions import DestinationConnectionError
from dlt.load.exceptions import LoadClientJobException, LoadClientJobFailed, LoadClientJobTerminalRetry
from dlt.pipeline.exceptions import PipelineStepFailed

from further_source.command import exit_codes
from further_source.destination.lease import lost_lease
from further_source.destination.pending import has_pending
from further_source.exceptions import AlreadyRunningError, ConfigurationError, FurtherError, LoadError
from further_source.text import one_line, printable

__all__ = ["as_further_error", "exit_code_of", "hide_tracebacks", "told"]

_FULL = (errno.ENOSPC, errno.EDQUOT)


def told(error: Exception) -> tuple[str, int]:
    """The line to tell, and the exit code. The log has the details, at its level INFO."""
    known = as_further_error(error)
    logger.info("in detail:", exc_info=error)
    return str(known), exit_code_of(known)


def exit_code_of(error: FurtherError) -> int:
    if isinstance(error, ConfigurationError):
        return exit_codes.USAGE
    return exit_codes.ALREADY_RUNNING if isinstance(error, AlreadyRunningError) else exit_codes.FAILED


def hide_tracebacks() -> None:
    """Keeps tracebacks, and what only follows from a lost lease, out of dlt's log unless its level is INFO or lower."""
    if not logger.LOGGER.isEnabledFor(logging.INFO):
        logger.LOGGER.addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    """A filter of loggers: takes out control characters, and tracebacks, which dlt logs in the message too."""
    if record.funcName == "_state_to_props":
        return False  # it tells that the destination is not the one of the last run, which somebody wanted
    message = record.getMessage().partition("Traceback (most recent call last)")[0].rstrip()
    record.msg, record.args = "\n".join(map(printable, message.splitlines())), None
    record.exc_info = record.exc_text = None
    return not lost_lease()  # the line at the end says so


def as_further_error(error: Exception, pipeline: dlt.Pipeline | None = None) -> FurtherError:
    """The error of ours that tells in one line what a run, or its configuration, failed of."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, FurtherError):
            return cause
    for cause in causes:
        if isinstance(cause, ConfigFieldMissingException):
            keys = _missing_keys(cause.traces) or cause.fields
            in_environment = keys[0].replace(".", "__").upper()
            return ConfigurationError(one_line(f"not configured: {', '.join(keys)} (or {in_environment}, …)"))
        if isinstance(cause, ConfigurationException):
            return ConfigurationError(one_line(str(cause)))
        if isinstance(cause, UnknownDestinationModule):
            return ConfigurationError(one_line(f"destination {cause.ref!r} is neither one of dlt's nor configured"))
        if isinstance(cause, MissingDependencyException):
            return ConfigurationError(one_line(f"{cause.caller} needs a package: {' '.join(cause.dependencies)}"))
    step = error.step if isinstance(error, PipelineStepFailed) else None
    if reason := _full_disk(error, pipeline):
        return LoadError(one_line(f"{step} failed: {reason}" if step else reason))
    of_destination = any(isinstance(cause, DestinationException) for cause in causes)
    if step in {"load", "sync"} or of_destination:
        return LoadError(one_line(_load_failure(causes, pipeline)))
    if step == "normalize" and pipeline is not None and has_pending(pipeline):
        return LoadError(one_line(f"normalize failed: {_reason(causes)}. {_never_loads(pipeline)}"))
    return FurtherError(one_line(f"{step} failed: {_reason(causes)}" if step else _reason(causes)))


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what it came of, outermost first."""
    causes: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in causes:
        causes.append(current)
        current = current.__cause__ or (current.exception if isinstance(current, PipelineStepFailed) else None)
    return causes


def _full_disk(error: BaseException, pipeline: dlt.Pipeline | None) -> str | None:
    """What to say where files of this process had no room; None where it is not that.

    dlt goes on to look for the file that it could not write: the error that comes of it is not the cause.
    """
    for one in _all_behind(error):
        if isinstance(one, OSError) and one.errno in _FULL:
            reason = os.strerror(one.errno).lower()
            if where := one.filename or (pipeline.working_dir if pipeline else None):
                reason = f"{where}: {reason}"
            return f"{reason}. Make room and run again: what is not loaded is loaded then, or asked again"
    return None


def _all_behind(error: BaseException) -> Iterator[BaseException]:
    """The error, what it came of, and during the handling of what it came."""
    seen: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and one not in seen:
            seen.append(one)
            left += [one.__context__, one.exception if isinstance(one, PipelineStepFailed) else None, one.__cause__]
            yield one


def _missing_keys(traces: FieldLookupTraces) -> list[str]:
    """The keys that were looked for in vain; where one of several sets would do, those of the first."""
    keys: list[str] = []
    for name, lookups in traces.items():
        for lookup in lookups[:1]:
            if isinstance(lookup, LookupTraces):
                keys += _missing_keys(lookup.traces)
            else:
                keys.append(".".join((*lookup.sections, name)))
    return keys


def _load_failure(causes: list[BaseException], pipeline: dlt.Pipeline | None) -> str:
    name = f" {pipeline.destination.destination_name}" if pipeline and pipeline.destination else ""
    reason = f"destination{name} failed: {_reason(causes)}"
    if pipeline is None or not has_pending(pipeline):
        return reason
    if any(isinstance(cause, LoadClientJobFailed | LoadClientJobTerminalRetry) for cause in causes):
        return f"{reason}. {_never_loads(pipeline)}"
    return f"{reason}. What had arrived waits in the pending package, and the next run loads it first"


def _never_loads(pipeline: dlt.Pipeline) -> str:
    return (
        "This can never load as it is. What had arrived waits in the pending package: mend the destination and run "
        f"again, or discard the package with `dlt --yes pipeline {pipeline.pipeline_name} abort-packages`; the next "
        "run then asks for its executions again"
    )


def _reason(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, LoadClientJobException):
            table = cause.job_id.partition(".")[0]
            return f"table {table}: {cause.client_exception}"
        if isinstance(cause, DestinationConnectionError):
            return str(cause.inner_exc)
    last = causes[-1]
    if isinstance(last, OSError) and last.strerror:
        return f"{last.filename}: {last.strerror.lower()}" if last.filename else last.strerror.lower()
    if isinstance(last, DestinationException):
        return str(last)
    return f"{type(last).__name__}: {last}"
