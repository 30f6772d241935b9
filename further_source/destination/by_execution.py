"""Rows in arrow, and in Delta, by the executions that they are of."""

from collections.abc import Iterable, Mapping
from typing import Any

from further_source.tables.columns import MERGE_KEY

__all__ = ["grouped", "of_executions", "rows_of"]

_LOAD_ID = "_dlt_load_id"


def grouped(batches: Iterable[Any]) -> dict[str, set[str]]:
    """The execution ids in arrow batches, by workflow."""
    executions: dict[str, set[str]] = {}
    for batch in batches:
        workflows, ids = (batch.column(name) for name in MERGE_KEY)
        for workflow in workflows.unique().to_pylist():
            of_workflow = ids if batch.num_rows == 1 else ids.filter(_equal(workflows, workflow))
            executions.setdefault(workflow, set()).update(of_workflow.unique().to_pylist())
    return executions


def rows_of(load_id: str, executions: Mapping[str, set[str]]) -> str:
    """Delta's condition for rows of a load, or of executions, given by workflow."""
    of_load = f"{_LOAD_ID} = '{load_id}'"
    return f"{of_load} OR {of_executions(executions)}" if executions else of_load


def of_executions(executions: Mapping[str, set[str]]) -> str:
    """Delta's condition for rows of executions, given by workflow."""
    # Ids need no escaping: the manifest lets only letters, digits, - and _ pass.
    conditions = (
        f"({MERGE_KEY[0]} = '{workflow}' AND {MERGE_KEY[1]} IN ({', '.join(map(repr, sorted(ids)))}))"
        for workflow, ids in sorted(executions.items())
    )
    return " OR ".join(conditions)


def _equal(values: Any, value: str) -> Any:
    import pyarrow.compute as pc  # noqa: PLC0415

    return pc.equal(values, value)
