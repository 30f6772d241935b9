"""Answers in, records for the tables of one destination out, with what is known of these tables meanwhile."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import dlt
import pyarrow as pa
from dlt.common import logger
from dlt.common.normalizers.naming import NamingConvention
from dlt.extract import DltSource

from further_source.destination.column_types import SharedTables, Tables
from further_source.destination.postgres import keep_empty_texts
from further_source.destination.strategy import Loading, loading_of
from further_source.exceptions import ConfigurationError
from further_source.tables.answer import Answer
from further_source.tables.cells import RowGroups, cells_table
from further_source.tables.columns import CELLS, EXECUTIONS, ROWS, STEPS
from further_source.tables.executions import AnswerColumns, declared_types, execution_row
from further_source.tables.rows import RowTables
from further_source.tables.steps import step_rows
from further_source.tables.values import Types

__all__ = ["Page", "Records", "WideRecords", "records_of"]


class WideRecords(NamedTuple):
    """Records of one wide table; `hints` are arguments for dlt's `make_hints`."""

    table_name: str
    records: pa.Table
    hints: Mapping[str, Any]


@dataclass
class Page:
    """Records of executions that ended, on their way to the tables that are selected."""

    executions: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    cells: list[pa.Table] = field(default_factory=list)
    rows: list[WideRecords] = field(default_factory=list)


class Records:
    """Makes the records of one polling.

    Args:
        selected: The tables to make records for.
        loading: How they are loaded.
        naming: dlt's naming convention for the destination.
        types: Column types of the tables that exist, by table.
        shared: Set where other loads add to the same tables.
        row_groups: Set where all pages reach the tables.
    """

    def __init__(
        self,
        selected: frozenset[str],
        loading: Loading,
        naming: NamingConvention,
        types: Mapping[str, Types],
        *,
        shared: SharedTables | None = None,
        row_groups: RowGroups | None = None,
    ) -> None:
        self.selected = selected
        self.loading = loading
        self._naming = naming
        self._answer_columns = self._answer_columns_of(types)
        self._row_tables = RowTables(naming, types, logger.warning, loading.max_fields)
        self._shared = shared
        self._row_groups = row_groups

    def page(self, answers: list[Answer], load_id: str, counts: Counter[str]) -> Page:
        """The records of some answers; the last of the cells may come with a later page, or with `rest`.

        Args:
            counts: Told of the records by table, tombstones not counted.
        """
        page = Page()
        whole = [answer for answer in answers if not answer.is_part]
        if EXECUTIONS.name in self.selected:
            page.executions.extend(self._executions(whole))
            counts[EXECUTIONS.name] += len(page.executions)
        if STEPS.name in self.selected:
            page.steps.extend(row for answer in whole for row in step_rows(answer))
            counts[STEPS.name] += sum(len(answer.steps) for answer in whole)
        if CELLS.name in self.selected:
            cells = cells_table(answers, load_id, unique=self.loading.strategy == "upsert")
            counts[CELLS.name] += cells.column("_deleted").null_count
            groups = [cells] if self._row_groups is None else self._row_groups.add(cells)
            page.cells.extend(self.loading.keyed(CELLS, group) for group in groups)
        if ROWS.name in self.selected:
            hints = self.loading.hints(ROWS)
            for name, table in self._rows(answers, load_id):
                counts[name] += table.column("_deleted").null_count
                page.rows.append(WideRecords(name, self.loading.keyed(ROWS, table), hints))
        return page

    def rest(self) -> Page:
        """What `page` has kept; to be taken before a load ends."""
        if self._row_groups is None or CELLS.name not in self.selected:
            return Page()
        return Page(cells=[self.loading.keyed(CELLS, self._row_groups.rest())])

    @staticmethod
    def free_memory() -> None:
        """Gives back what answers and records took, before the destination wants its share."""
        pa.default_memory_pool().release_unused()

    def _executions(self, answers: list[Answer]) -> list[dict[str, Any]]:
        if self._shared is None or not answers:
            return [execution_row(answer, self._answer_columns) for answer in answers]

        def build(tables: Tables) -> tuple[list[dict[str, Any]], Tables]:
            columns = self._answer_columns_of(tables)
            rows = [execution_row(answer, columns) for answer in answers]
            return rows, {EXECUTIONS.name: columns.types}

        return self._shared.settle(build)

    def _rows(self, answers: list[Answer], load_id: str) -> list[tuple[str, pa.Table]]:
        if self._shared is None:
            return list(self._row_tables.arrow_tables(answers, load_id))

        def build(tables: Tables) -> tuple[list[tuple[str, pa.Table]], Tables]:
            row_tables = RowTables(self._naming, tables, _warn_once, self.loading.max_fields)
            built = list(row_tables.arrow_tables(answers, load_id))
            return built, {name: row_tables.types_of(table) for name, table in built}

        return self._shared.settle(build)

    def _answer_columns_of(self, types: Tables) -> AnswerColumns:
        of_executions = types.get(EXECUTIONS.name) or declared_types()
        return AnswerColumns(self._naming, of_executions, self.loading.max_fields)


def records_of(pipeline: dlt.Pipeline, source: DltSource, *, shared: bool) -> Records:
    """For the destination of a pipeline that is extracting a source; hints the source's tables for it."""
    if shared and not SharedTables.can_be(pipeline):
        raise ConfigurationError("loads side by side (--shard) need a destination that knows SQL: run one load")
    keep_empty_texts(pipeline.destination)
    schema = source.schema
    # A text stays a text: the same key is a time in one answer and none in the next, and some times dlt cannot take.
    schema.remove_type_detection("iso_timestamp")
    # dlt sets it on what is selected alone; what is loaded already stays what it is.
    formats: list[Any] = [resource.table_format for resource in source.resources.selected.values()]
    formats += [schema.tables[name].get("table_format") for name in schema.data_table_names()]
    loading = loading_of(pipeline, next(filter(None, formats), None))
    for table in (EXECUTIONS, STEPS, CELLS):
        source.resources[table.name].apply_hints(**loading.hints(table))
    pipes = source.resources.extracted_pipes  # of what is selected, and of what feeds it
    return Records(
        frozenset(pipe.name for pipe in pipes),
        loading,
        schema.naming,
        {name: _types(schema.tables[name]["columns"]) for name in schema.data_table_names()},
        shared=SharedTables(pipeline, loading.stored_columns) if shared else None,
        # A limit or a filter that somebody put on `polled` could drop a page with cells of executions before it.
        row_groups=RowGroups() if all(len(pipe.steps) == 1 for pipe in pipes if pipe.name == "polled") else None,
    )


def _types(columns: Any) -> Types:
    return {name: column["data_type"] for name, column in columns.items() if "data_type" in column}


@lru_cache(maxsize=1024)
def _warn_once(message: str) -> None:
    logger.warning(message)
