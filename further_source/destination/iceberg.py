"""Replaces rows of an Iceberg table in one commit, which fails if the table is not as it was looked at any more.

pyiceberg would look for rows to take away in every file, twice, and would make a commit that failed once more by
itself, on a table in which nobody has looked. So it is looked here, with arrow, and a commit is made once.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from dlt.common.libs.pyiceberg import ensure_iceberg_compatible_arrow_data, is_ephemeral_catalog
from fsspec.core import strip_protocol
from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError
from pyiceberg.expressions import And, BooleanExpression, EqualTo, In, Or

from further_source.destination.by_execution import grouped
from further_source.tables.columns import MERGE_KEY

__all__ = ["Conflict", "committing", "data_files", "disown_rows", "replace_rows"]

Conflict = (CommitFailedException, TableAlreadyExistsError)
"""What a commit raises if somebody else has committed meanwhile."""

_LOAD_ID = "_dlt_load_id"
_LOOKED_AT = (*MERGE_KEY, _LOAD_ID)


def replace_rows(client: Any, name: str, rows: Any, load_id: str, executions: Mapping[str, set[str]]) -> None:
    """Takes away the rows of executions, and of a load, and adds others.

    Args:
        client: dlt's client of a filesystem.
        name: A table that exists; it gets the columns that it lacks.
        rows: The dataset of arrow to add.
        executions: Ids by workflow.

    Raises:
        Conflict: Somebody else has committed meanwhile.
    """
    with committing(client, name) as table:
        added = ensure_iceberg_compatible_arrow_data(rows.to_table())
        if set(added.schema.names) - set(table.schema().column_names):
            with table.update_schema() as update:
                update.union_by_name(added.schema)
        held = _held(client, table, load_id, executions)
        if held is None:
            if added.num_rows:
                table.append(added)
        elif added.num_rows:
            table.overwrite(added, _condition(load_id, held))
        else:
            table.delete(_condition(load_id, held))


def disown_rows(client: Any, name: str, executions: Mapping[str, set[str]], load_id: str) -> None:
    """Says that rows of executions are of a load.

    Raises:
        Conflict: Somebody else has committed meanwhile.
    """
    with committing(client, name) as table:
        condition = _of(executions)
        rows = table.scan(row_filter=condition).to_arrow()
        if any(one != load_id for one in rows.column(_LOAD_ID).to_pylist()):
            position = rows.schema.get_field_index(_LOAD_ID)
            field = rows.schema.field(position)
            disowned = pa.array([load_id] * rows.num_rows, field.type)
            table.overwrite(rows.set_column(position, field, disowned), condition)


@contextmanager
def committing(client: Any, name: str) -> Iterator[Any]:
    """The table as it is now, for commits that are not made once more by themselves."""
    catalog = client.get_open_table_catalog("iceberg")
    try:
        table = client.load_open_table("iceberg", name)
        once = {**table.metadata.properties, "commit.retry.num-retries": "0"}
        table.metadata = table.metadata.model_copy(update={"properties": once})
        yield table
    except Conflict:
        if is_ephemeral_catalog(catalog):
            catalog.drop_table(f"{client.dataset_name}.{name}")  # it would go on from what it knows
        raise


def data_files(client: Any, table: Any) -> Any:
    """A dataset of the columns that tell whose rows they are, of all files that the table has now."""
    paths = [strip_protocol(task.file.file_path) for task in table.scan().plan_files()]
    files = None if client.config.is_local_filesystem else client.fs_client
    schema = pa.schema([(name, pa.string()) for name in _LOOKED_AT])
    return ds.dataset(paths, schema, format="parquet", filesystem=files) if paths else ds.dataset([], schema)


def _held(client: Any, table: Any, load_id: str, executions: Mapping[str, set[str]]) -> Mapping[str, set[str]] | None:
    """Which of the executions have rows; None where neither they have any, nor the load."""
    wanted = pa.array(sorted(set().union(*executions.values())), pa.string())
    condition = (ds.field(_LOAD_ID) == load_id) | ds.field(MERGE_KEY[1]).isin(wanted)
    batches = [batch for batch in data_files(client, table).to_batches(filter=condition) if batch.num_rows]
    found = {workflow: ids & executions.get(workflow, set()) for workflow, ids in grouped(batches).items()}
    found = {workflow: ids for workflow, ids in found.items() if ids}
    is_begun = any(load_id in batch.column(_LOAD_ID).unique().to_pylist() for batch in batches)
    return found if found or is_begun else None


def _condition(load_id: str, executions: Mapping[str, set[str]]) -> BooleanExpression:
    of_load = EqualTo(_LOAD_ID, load_id)  # type: ignore[call-arg,arg-type]
    return Or(of_load, _of(executions)) if executions else of_load


def _of(executions: Mapping[str, set[str]]) -> BooleanExpression:
    conditions: list[BooleanExpression] = [
        And(EqualTo(MERGE_KEY[0], workflow), In(MERGE_KEY[1], ids))  # type: ignore[call-arg,arg-type]
        for workflow, ids in executions.items()
    ]
    return conditions[0] if len(conditions) == 1 else Or(*conditions)
