"""What is loaded, read back from the destination: for wide tables made anew, and to see whether all is there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from dlt.destinations.sql_client import SqlClientBase

from further_source import jsontext
from further_source.executions import ExecutionId
from further_source.tables.answer import FINAL_OUTCOMES, Block, Step
from further_source.tables.columns import CELLS, EXECUTIONS, STEPS

__all__ = ["Incomplete", "Tables", "incomplete_executions", "missing_wide_rows", "stored_answers"]

_ROWS_AT_ONCE = 200_000
_FETCH_SIZE = 50_000
_ORDER_OF_INSERTION = {"duckdb": "rowid", "sqlite": "rowid", "postgres": "ctid"}
"""By dialect, what rows of equal keys came in."""


class StoredAnswer(NamedTuple):
    """The steps of an execution, as `wide_tables` takes them."""

    execution: ExecutionId
    steps: list[Step]
    replaces: bool = False


@dataclass(frozen=True)
class Incomplete:
    """An execution with more or fewer steps or cells than its answer had, or with several rows of its own."""

    execution: ExecutionId
    step_count: int
    steps: int
    cell_count: int
    cells: int
    rows: int = 1

    def __str__(self) -> str:
        rows = f"{self.rows} rows in {EXECUTIONS.name}, " if self.rows > 1 else ""
        counted = f"{self.steps} of {self.step_count} steps and {self.cells} of {self.cell_count} cells"
        return f"{self.execution}: {rows}{counted}"


class Tables:
    """The names of tables and columns in the destination's SQL."""

    def __init__(self, client: SqlClientBase[Any]) -> None:
        self._client = client

    def table(self, name: str) -> str:
        return str(self._client.make_qualified_table_name(name))

    def columns(self, *names: str, of: str = "") -> str:
        prefix = f"{of}." if of else ""
        return ", ".join(prefix + self._client.escape_column_name(name) for name in names)

    @property
    def order_of_insertion(self) -> list[str]:
        """What to order by at last; nothing, where the destination does not know."""
        order = _ORDER_OF_INSERTION.get(str(self._client.capabilities.sqlglot_dialect))
        return [order] if order else []

    def rows(self, query: str, *values: Any) -> Iterator[Any]:
        with self._client.execute_query(query, *values) as cursor:
            for some in cursor.iter_fetch(_FETCH_SIZE):
                yield from some


def stored_answers(client: SqlClientBase[Any], step_name: str | None = None) -> Iterator[list[StoredAnswer]]:
    """All that is loaded, load by load and in the order in which it came, in parts of bounded size.

    Args:
        step_name: Only the steps of that name.
    """
    tables = Tables(client)
    for load_ids in _parts(tables):
        cells = _cells(tables, load_ids)
        answers: list[StoredAnswer] = []
        for execution, steps in groupby(_steps(tables, load_ids, step_name), key=lambda row: ExecutionId(*row[:2])):
            answers.append(
                StoredAnswer(
                    execution,
                    [
                        Step(index, name, blocks=_blocks(cells.get((*execution, index), ()), row_count))
                        for _, _, index, name, row_count in steps
                    ],
                )
            )
        yield answers


def _parts(tables: Tables) -> Iterator[list[str]]:
    """Load ids, in their order, of loads with about so many cells together."""
    load_id = tables.columns("_dlt_load_id")
    of_cells = f"SELECT {load_id}, count(*) FROM {tables.table(CELLS.name)} GROUP BY {load_id}"  # noqa: S608
    of_steps = f"SELECT DISTINCT {load_id}, 0 FROM {tables.table(STEPS.name)}"  # noqa: S608
    counts: dict[str, int] = dict(tables.rows(of_steps)) | dict(tables.rows(of_cells))
    part: list[str] = []
    size = 0
    for one in sorted(counts):
        if part and size + counts[one] > _ROWS_AT_ONCE:
            yield part
            part, size = [], 0
        part.append(one)
        size += counts[one]
    if part:
        yield part


def _steps(tables: Tables, load_ids: Sequence[str], step_name: str | None) -> Iterator[Any]:
    keys = ("workflow_id", "workflow_execution_id")
    same = " AND ".join(f"{tables.columns(key, of='e')} = {tables.columns(key, of='s')}" for key in keys)
    named = f" AND {tables.columns('step_name', of='s')} = %s" if step_name is not None else ""
    order = (
        tables.columns("_dlt_load_id", of="s"),
        tables.columns("poll_last_at", of="e"),
        tables.columns(*keys, "step_index", of="s"),
    )
    query = (
        f"SELECT {tables.columns(*keys, 'step_index', 'step_name', 'row_count', of='s')} "  # noqa: S608
        f"FROM {tables.table(STEPS.name)} s LEFT JOIN {tables.table(EXECUTIONS.name)} e ON {same} "
        f"WHERE {tables.columns('_dlt_load_id', of='s')} IN ({_places(load_ids)}) "
        f"AND {tables.columns('_deleted', of='s')} IS NULL{named} ORDER BY {', '.join(order)}"
    )
    return tables.rows(query, *load_ids, *(() if step_name is None else (step_name,)))


def _cells(tables: Tables, load_ids: Sequence[str]) -> Mapping[Any, list[Any]]:
    """Cells by workflow, execution and step, in the order of their rows, and of a row as they came if that is known."""
    keys = ("workflow_id", "workflow_execution_id", "step_index")
    found = ("row_index", "field", "value", "value_type", "value_number", "confidence", "extra")
    query = (
        f"SELECT {tables.columns(*keys, *found)} FROM {tables.table(CELLS.name)} "  # noqa: S608
        f"WHERE {tables.columns('_dlt_load_id')} IN ({_places(load_ids)}) AND {tables.columns('_deleted')} IS NULL "
        f"ORDER BY {', '.join([tables.columns(*keys, 'row_index'), *tables.order_of_insertion])}"
    )
    cells: dict[Any, list[Any]] = {}
    for row in tables.rows(query, *load_ids):
        cells.setdefault(row[:3], []).append(row[3:])
    return cells


def _places(values: Sequence[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def _blocks(cells: Iterable[Any], row_count: int) -> list[Block]:
    """Rows of cells as blocks; rows without a cell too."""
    rows: list[tuple[tuple[str, ...], list[Any]]] = [((), [])] * row_count
    fields: tuple[str, ...] = ()
    before: Mapping[str, Any] = {}
    for index, of_row in groupby(cells, key=itemgetter(0)):
        kept = _first_of_each(of_row)
        if kept.keys() != before.keys():  # else the fields stay in the order of the row before
            fields, before = tuple(kept), kept
        rows[index] = fields, [kept[field] for field in fields]
    blocks = []
    for fields, alike in groupby(rows, key=lambda row: row[0]):
        of_rows = [cells for _, cells in alike]
        flat = [cell for cells in of_rows for cell in cells]
        blocks.append(Block(fields, len(of_rows), [_value(cell) for cell in flat], [cell[5] for cell in flat], None))
    return blocks


def _first_of_each(cells: Iterable[Any]) -> dict[str, Any]:
    """The cells of a row by field; of a key that came twice in it, the first."""
    kept: dict[str, Any] = {}
    for cell in cells:
        other = kept.get(cell[1])
        if other is None or _number(cell) < _number(other):
            kept[cell[1]] = cell
    return kept


def _number(cell: Any) -> int:
    """1, or which cell of its key in its row it is."""
    extra = jsontext.loads(cell[6].encode()) if cell[6] is not None else {}
    number = extra.get("duplicate", 1)
    return number if isinstance(number, int) else 1


def _value(cell: Any) -> Any:
    """What goes to the wide table: of objects and arrays that is their text, of numbers a double."""
    value, value_type, number = cell[2], cell[3], cell[4]
    if value_type == "number":
        return number if number is not None else Decimal(value)
    return value == "true" if value_type == "boolean" else value


def incomplete_executions(client: SqlClientBase[Any]) -> list[Incomplete]:
    """Executions that ended, and have not as many steps and cells as their answer had, or several rows of their own.

    They come in no particular order.
    """
    tables = Tables(client)
    keys = tables.columns("workflow_id", "workflow_execution_id")
    step_count, cell_count = tables.columns("step_count"), tables.columns("cell_count")
    outcomes = ", ".join(f"'{outcome}'" for outcome in sorted(FINAL_OUTCOMES))

    def counted(name: str) -> str:
        return (
            f"SELECT {keys}, count(*) AS n FROM {tables.table(name)} "  # noqa: S608
            f"WHERE {tables.columns('_deleted')} IS NULL GROUP BY {keys}"
        )

    def joined(alias: str) -> str:
        names = ("workflow_id", "workflow_execution_id")
        return " AND ".join(f"{tables.columns(name, of=alias)} = {tables.columns(name, of='e')}" for name in names)

    ended = (
        f"SELECT {keys}, max({step_count}) AS step_count, max({cell_count}) AS cell_count, count(*) AS n "  # noqa: S608
        f"FROM {tables.table(EXECUTIONS.name)} WHERE {tables.columns('poll_outcome')} IN ({outcomes}) GROUP BY {keys}"
    )
    query = (
        f"SELECT {tables.columns('workflow_id', 'workflow_execution_id', of='e')}, e.step_count, coalesce(s.n, 0), "  # noqa: S608
        f"e.cell_count, coalesce(c.n, 0), e.n FROM ({ended}) e "
        f"LEFT JOIN ({counted(STEPS.name)}) s ON {joined('s')} LEFT JOIN ({counted(CELLS.name)}) c ON {joined('c')} "
        "WHERE e.n > 1 OR coalesce(s.n, 0) <> e.step_count OR coalesce(c.n, 0) <> e.cell_count"
    )
    return [
        Incomplete(ExecutionId(workflow_id, execution_id), *(int(count or 0) for count in counts))
        for workflow_id, execution_id, *counts in tables.rows(query)
    ]


def missing_wide_rows(client: SqlClientBase[Any], first_tables: Iterable[str]) -> int:
    """How many extracted rows have no row in the first wide table of their step; below 0 where there are too many."""
    tables = Tables(client)
    counts = [f"(SELECT count(*) FROM {tables.table(name)})" for name in first_tables]  # noqa: S608
    total = f"(SELECT coalesce(sum({tables.columns('row_count')}), 0) FROM {tables.table(STEPS.name)})"  # noqa: S608
    ((missing,),) = tables.rows(f"SELECT {' - '.join([total, *counts])}")
    return int(missing)
