"""What a failure of dlt's says to the user: one line with the culprit, the reason and what to do."""

import dlt
from dlt.common.configuration.exceptions import ConfigFieldMissingException, ConfigurationException
from dlt.common.destination.exceptions import DestinationException, UnknownDestinationModule
from dlt.common.storages import ParsedLoadJobFileName
from dlt.destinations.exceptions import DestinationConnectionError
from dlt.load.exceptions import LoadClientJobException, LoadClientJobFailed, LoadClientJobTerminalRetry
from dlt.pipeline.exceptions import PipelineStepFailed

from further_source.exceptions import ConfigurationError, FurtherError, LoadError

__all__ = ["as_further_error", "one_line"]

_MAX_LENGTH = 600


def one_line(text: str) -> str:
    """`text` in one line without control characters, shortened."""
    line = " ".join(text.split())
    line = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)
    return line if len(line) <= _MAX_LENGTH else line[: _MAX_LENGTH - 3] + "..."


def as_further_error(error: Exception, pipeline: dlt.Pipeline | None = None) -> FurtherError | None:
    """The error of ours that tells what a dlt run or a dlt configuration failed of; None where it is a defect."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, FurtherError):
            return cause
    for cause in causes:
        if isinstance(cause, ConfigFieldMissingException):
            return ConfigurationError(one_line(f"{cause.spec_name} lacks {', '.join(cause.fields)}: configure it"))
        if isinstance(cause, ConfigurationException):
            return ConfigurationError(one_line(str(cause)))
        if isinstance(cause, UnknownDestinationModule):
            return ConfigurationError(one_line(f"destination {cause.ref!r} is neither one of dlt's nor configured"))
    if isinstance(error, PipelineStepFailed) and pipeline is not None:
        return LoadError(one_line(_load_failure(error, causes, pipeline)))
    if isinstance(causes[-1], DestinationException | OSError):
        return LoadError(one_line(f"destination failed: {causes[-1]}"))
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what it came of, outermost first."""
    causes: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in causes:
        causes.append(current)
        current = current.__cause__ or (current.exception if isinstance(current, PipelineStepFailed) else None)
    return causes


def _load_failure(error: PipelineStepFailed, causes: list[BaseException], pipeline: dlt.Pipeline) -> str:
    destination = pipeline.destination.destination_name if pipeline.destination else "none"
    reason = f"destination {destination} failed: {_reason(causes)}"
    if not pipeline.has_pending_data:
        return reason
    if any(isinstance(cause, LoadClientJobFailed | LoadClientJobTerminalRetry) for cause in causes):
        return (
            f"{reason}. This can never load as it is. What had arrived waits in the pending package: mend the "
            f"destination and run again, or discard the package with `dlt pipeline {pipeline.pipeline_name} "
            "abort-packages`; the next run then asks for its executions again"
        )
    return f"{reason}. What had arrived waits in the pending package, and the next run loads it first"


def _reason(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, LoadClientJobException):
            table = ParsedLoadJobFileName.parse(cause.job_id).table_name
            return f"table {table}: {getattr(cause, 'failed_message', cause)}"
        if isinstance(cause, DestinationConnectionError):
            return str(cause.inner_exc)
    return str(causes[-1]) or type(causes[-1]).__name__
