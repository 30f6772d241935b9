"""The list as Python values, or as what a resource of dlt's yields."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from further_source.exceptions import ManifestError
from further_source.executions import ExecutionId
from further_source.manifest.ids import Problem, execution_of, kind_of

__all__ = ["items_of", "read_executions"]


def read_executions(source: Iterable[Any], *, origin: str = "executions") -> Iterator[ExecutionId]:
    """Reads executions from Python values.

    Args:
        source: Any iterable of `"WORKFLOW_ID/EXECUTION_ID"`, of pairs of ids, or of mappings with the keys
            `workflow_id` and `execution_id` or `workflow_execution_id` (others are ignored). A single string,
            mapping or `ExecutionId` is one execution.
        origin: The name of the source in errors, as in `executions[3]`.

    Raises:
        ManifestError: An item cannot be an execution. The message names its position, counted from 0.
    """
    if isinstance(source, (str, Mapping, ExecutionId)):
        source = [source]
    elif not isinstance(source, Iterable):
        raise ManifestError(f"{origin}: {kind_of(source)}, not a list of executions")
    for position, item in enumerate(source):
        try:
            yield execution_of(item)
        except Problem as problem:
            raise ManifestError(f"{origin}[{position}]: {problem}") from None


def items_of(resource: Iterable[Any]) -> Iterator[Any]:
    """The items that a resource of dlt's yields: those of tables (arrow, pandas) are their rows."""
    for item in resource:
        if hasattr(item, "to_pylist"):
            yield from item.to_pylist()
        elif hasattr(item, "to_dict") and hasattr(item, "columns"):
            yield from item.to_dict("records")
        else:
            yield item
