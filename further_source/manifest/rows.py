"""The list as the rows of a query."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from further_source.exceptions import ManifestError
from further_source.executions import ExecutionId
from further_source.manifest.ids import WORKFLOW_KEY, Problem, clean_ids, kind_of, positions_of, same_id
from further_source.manifest.listquery import Unanswered, queried
from further_source.settings import MAX_LIST_LINES
from further_source.text import shown

__all__ = ["read_executions_query", "read_executions_rows"]

_QUERY = "executions_query"


def read_executions_query(query: str, database: str) -> Iterator[ExecutionId]:
    """Reads executions from what a query gives, as it comes.

    Args:
        query: SQL that gives the columns `workflow_id` and `execution_id` or `workflow_execution_id`, or named like
            them; others are ignored. It should give them in the order of submission, the oldest first.
        database: The SQLAlchemy URL of the database. Nothing is written there.

    Raises:
        ManifestError: The database gives no such rows, or one of them cannot be an execution. The message names the
            row, counted from 1, and never holds a password.
    """
    try:
        with queried(query, database) as (columns, rows):
            yield from read_executions_rows(columns, rows)
    except Unanswered as problem:
        raise ManifestError(f"{_QUERY}: {problem}") from None


def read_executions_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[ExecutionId]:
    """Reads executions from the rows of a query, as `read_executions_query`. Ids are texts, or UUIDs of a driver's.

    Raises:
        ManifestError: As of `read_executions_query`.
    """
    try:
        positions = positions_of(columns)
    except Problem as problem:
        raise ManifestError(f"{_QUERY}: {problem}; its columns are {shown(', '.join(columns))}") from None
    workflow, execution = [*positions.values()][:2]
    for number, row in enumerate(rows, start=1):
        if number > MAX_LIST_LINES:
            raise ManifestError(f"{_QUERY}: more than {MAX_LIST_LINES:,} rows")
        if len(positions) == 2 and (ids := _clean_texts(row[workflow], row[execution])):
            yield ids
            continue
        try:
            values = {key: _text(key, row[position]) for key, position in positions.items()}
            yield same_id(values.pop(WORKFLOW_KEY), values)
        except Problem as problem:
            raise ManifestError(f"{_QUERY}, row {number}: {problem}") from None


def _clean_texts(workflow_id: object, execution_id: object) -> ExecutionId | None:
    """The ids, or None if they are no texts, need trimming or are wrong."""
    if isinstance(workflow_id, str) and isinstance(execution_id, str):
        return clean_ids([workflow_id, execution_id], 0, 1)
    return None


def _text(key: str, value: object) -> str:
    if isinstance(value, str | UUID):
        return str(value).strip()
    raise Problem(f"{key} is {kind_of(value)}" + ("" if value is None else ": the query has to CAST it to text"))
