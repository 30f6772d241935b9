"""The identity of an execution."""

from typing import NamedTuple

__all__ = ["ExecutionId"]


class ExecutionId(NamedTuple):
    """An execution as it was listed. Execution ids are scoped to a workflow."""

    workflow_id: str
    workflow_execution_id: str

    def __str__(self) -> str:
        return f"{self.workflow_id}/{self.workflow_execution_id}"
