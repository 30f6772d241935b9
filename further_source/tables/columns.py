"""The columns of the tables, and the key by which they are merged."""

from typing import Any, cast

from dlt.common.schema.typing import TColumnSchema, TTableSchemaColumns

__all__ = [
    "CELLS_COLUMNS",
    "EXECUTIONS_COLUMNS",
    "MERGE_KEY",
    "OWN_COLUMNS",
    "ROWS_COLUMNS",
    "STEPS_COLUMNS",
]

MERGE_KEY = ["workflow_id", "workflow_execution_id"]


def _columns(**data_types: str) -> TTableSchemaColumns:
    columns: dict[str, Any] = {
        "workflow_id": {"data_type": "text", "nullable": False},
        "workflow_execution_id": {"data_type": "text", "nullable": False},
    }
    columns.update({name: {"data_type": data_type, "nullable": True} for name, data_type in data_types.items()})
    columns["_deleted"] = {"data_type": "bool", "nullable": True, "hard_delete": True}
    return {name: cast(TColumnSchema, {"name": name, **column}) for name, column in columns.items()}


EXECUTIONS_COLUMNS = _columns(
    status="text",
    metadata__external_id="text",
    poll_outcome="text",
    poll_error="text",
    poll_count="bigint",
    poll_first_at="timestamp",
    poll_last_at="timestamp",
)
OWN_COLUMNS = frozenset(EXECUTIONS_COLUMNS) - {"metadata__external_id"}
"""The columns of `executions` that no key of an answer may take."""

STEPS_COLUMNS = _columns(step_index="bigint", step_name="text", row_count="bigint", schema="text", metadata="text")
CELLS_COLUMNS = _columns(
    step_index="bigint",
    step_name="text",
    row_index="bigint",
    field="text",
    value="text",
    value_type="text",
    value_number="double",
    confidence="double",
    extra="text",
)
ROWS_COLUMNS = _columns(step_index="bigint", row_index="bigint")
