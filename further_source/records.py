"""Answers in, records for the tables of one destination out, with what is known of these tables meanwhile."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import dlt
import pyarrow as pa
from dlt.common import logger
from dlt.common.normalizers.naming import NamingConvention
from dlt.extract import DltSource

from further_source.destination.column_types import SharedTables, Tables
from further_source.destination.strategy import Loading, loading_of
from further_source.exceptions import ConfigurationError
from further_source.tables.answer import Answer, poll_columns, step_rows, step_tombstone
from further_source.tables.cells import RowGroups, cells_table
from further_source.tables.columns import EXECUTIONS_COLUMNS, OWN_COLUMNS
from further_source.tables.rows import AnswerColumns, RowTables, Types

__all__ = ["Page", "Records", "records_of"]

_NOT_AS_THEY_COME = ("workflow_id", "workflow_execution_id", "status", "steps")


@dataclass(frozen=True)
class Page:
    """Records of executions that ended, on their way to the tables that are selected."""

    executions: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    cells: list[pa.Table] = field(default_factory=list)
    rows: list[tuple[str, pa.Table]] = field(default_factory=list)
    """The wide tables by name."""


@dataclass(frozen=True)
class Records:
    """Makes the records of one polling, of the tables that are `selected`.

    `shared` is set where other loads add to the same tables; `row_groups` where all pages reach the tables.
    """

    selected: frozenset[str]
    loading: Loading
    naming: NamingConvention
    row_tables: RowTables
    answer_columns: AnswerColumns
    shared: SharedTables | None = None
    row_groups: RowGroups | None = None

    def page(self, answers: list[Answer], load_id: str, counts: Counter[str]) -> Page:
        """The records of some answers; the last of the cells may come with a later page, or with `rest`.

        Args:
            counts: Told of the records by table, tombstones not counted.
        """
        page = Page()
        if "executions" in self.selected:
            page.executions.extend(self._executions(answers))
            counts["executions"] += len(page.executions)
        if "steps" in self.selected:
            page.steps.extend(row for answer in answers for row in step_rows(answer))
            counts["steps"] += len(page.steps)
            page.steps.extend(step_tombstone(answer) for answer in answers if answer.replaces and not answer.steps)
        if "cells" in self.selected:
            cells = cells_table(answers, load_id)
            counts["cells"] += cells.column("_deleted").null_count
            groups = [cells] if self.row_groups is None else self.row_groups.add(cells)
            page.cells.extend(self.loading.keyed("cells", group) for group in groups)
        if "rows" in self.selected:
            for name, table in self._rows(answers, load_id):
                counts[name] += table.column("_deleted").null_count
                page.rows.append((name, self.loading.keyed("rows", table)))
        return page

    def rest(self) -> Page:
        """What `page` has kept; to be taken before a load ends."""
        if self.row_groups is None or "cells" not in self.selected:
            return Page()
        return Page(cells=[self.loading.keyed("cells", self.row_groups.rest())])

    @staticmethod
    def free_memory() -> None:
        """Gives back what answers and records took, before the destination wants its share."""
        pa.default_memory_pool().release_unused()

    def _executions(self, answers: list[Answer]) -> list[dict[str, Any]]:
        if self.shared is None or not answers:
            return [_execution_row(answer, self.answer_columns) for answer in answers]

        def build(tables: Tables) -> tuple[list[dict[str, Any]], Tables]:
            columns = _answer_columns(self.naming, tables.get("executions"), self.loading)
            rows = [_execution_row(answer, columns) for answer in answers]
            return rows, {"executions": columns.types}

        return self.shared.settle(build)

    def _rows(self, answers: list[Answer], load_id: str) -> list[tuple[str, pa.Table]]:
        if self.shared is None:
            return list(self.row_tables.arrow_tables(answers, load_id))

        def build(tables: Tables) -> tuple[list[tuple[str, pa.Table]], Tables]:
            row_tables = RowTables(self.naming, tables, _warn_once, self.loading.max_fields)
            built = list(row_tables.arrow_tables(answers, load_id))
            return built, {name: row_tables.types_of(table) for name, table in built}

        return self.shared.settle(build)


def records_of(pipeline: dlt.Pipeline, source: DltSource, *, shared: bool) -> Records:
    """For the destination of a pipeline that is extracting a source; hints the source's tables for it."""
    if shared and not SharedTables.can_be(pipeline):
        raise ConfigurationError("loads side by side (--shard) need a destination that knows SQL: run one load")
    schema = source.schema
    # A text stays a text: the same key is a time in one answer and none in the next, and some times dlt cannot take.
    schema.remove_type_detection("iso_timestamp")
    # dlt sets it on what is selected alone; what is loaded already stays what it is.
    formats: list[Any] = [resource.table_format for resource in source.resources.selected.values()]
    formats += [schema.tables[name].get("table_format") for name in schema.data_table_names()]
    loading = loading_of(pipeline, next(filter(None, formats), None))
    for name in ("executions", "steps", "cells"):
        source.resources[name].apply_hints(**loading.hints(name))
    types = {name: _types(schema.tables[name]["columns"]) for name in schema.data_table_names()}
    return Records(
        selected=_needed(source),
        loading=loading,
        naming=schema.naming,
        row_tables=RowTables(schema.naming, types, logger.warning, loading.max_fields),
        answer_columns=_answer_columns(schema.naming, types.get("executions"), loading),
        shared=SharedTables(pipeline, loading.stored_columns) if shared else None,
        # A limit or a filter that somebody put on `polled` could drop a page with cells of executions before it.
        row_groups=RowGroups() if len(source.resources["polled"]._pipe.steps) == 1 else None,
    )


def _needed(source: DltSource) -> frozenset[str]:
    """The selected resources, and those that feed them."""
    names = set()
    for resource in source.resources.selected.values():
        pipe = resource._pipe
        while pipe is not None:
            names.add(pipe.name)
            pipe = pipe.parent
    return frozenset(names)


def _answer_columns(naming: NamingConvention, types: Mapping[str, str] | None, loading: Loading) -> AnswerColumns:
    return AnswerColumns(OWN_COLUMNS, naming, dict(types or _types(EXECUTIONS_COLUMNS)), loading.max_fields)


def _types(columns: Any) -> Types:
    return {name: column["data_type"] for name, column in columns.items() if "data_type" in column}


def _execution_row(answer: Answer, columns: AnswerColumns) -> dict[str, Any]:
    return {**columns.row(answer.ended.payload, _NOT_AS_THEY_COME), **poll_columns(answer.ended)}


@lru_cache(maxsize=1024)
def _warn_once(message: str) -> None:
    logger.warning(message)
