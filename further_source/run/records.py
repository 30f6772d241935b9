"""Answers in, records for the tables of one destination out, with what is known of these tables meanwhile."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import dlt
import pyarrow as pa
from dlt.extract import DltSource

from further_source.destination.adapted import adapt
from further_source.destination.catalog import knows_sql
from further_source.destination.dataset import Dataset, Decisions
from further_source.destination.strategy import Loading, loading_of
from further_source.exceptions import ConfigurationError
from further_source.tables.answer import Answer
from further_source.tables.cells import RowGroups, cells_table
from further_source.tables.columns import CELLS, EXECUTIONS, FIELDS, ROWS, STEPS
from further_source.tables.executions import execution_row
from further_source.tables.fields import ROWS_PREFIX
from further_source.tables.rows import fields_table, wide_tables
from further_source.tables.steps import step_rows

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
        dataset: The tables as they are in the destination.
        row_groups: Set where all pages reach the tables.
    """

    def __init__(
        self,
        selected: frozenset[str],
        loading: Loading,
        dataset: Dataset,
        *,
        row_groups: RowGroups | None = None,
    ) -> None:
        self.selected = selected
        self.loading = loading
        self._dataset = dataset
        self._row_groups = row_groups

    def look(self) -> None:
        """Asks the destination what its tables are like, while nothing is lost if it does not answer."""
        if self.selected & {EXECUTIONS.name, ROWS.name}:
            self._dataset.read()

    @property
    def tables_with_executions(self) -> list[str]:
        """The tables of the destination that these records are for, without `executions`; as of `look`."""
        wide = ROWS.name in self.selected
        return [
            name
            for name in self._dataset.tables_of_executions
            if name in self.selected - {EXECUTIONS.name} or (wide and name.startswith(ROWS_PREFIX))
        ]

    def page(self, answers: list[Answer], load_id: str, counts: Counter[str]) -> Page:
        """The records of some answers; the last of the cells may come with a later page, or with `rest`.

        Args:
            counts: Told of the records by table, tombstones not counted.
        """
        page = Page()
        whole = [answer for answer in answers if not answer.is_part]
        counts.update(dict.fromkeys(self.selected & {EXECUTIONS.name, STEPS.name, CELLS.name}, 0))
        if answers and self.selected & {EXECUTIONS.name, ROWS.name}:
            self._add_decided(page, answers, load_id)
            counts[EXECUTIONS.name] += len(page.executions)
            for name, table, _ in page.rows:
                if name != FIELDS.name:
                    counts[name] += table.column("_deleted").null_count
        if STEPS.name in self.selected:
            page.steps.extend(self.loading.keyed_row(STEPS, row) for answer in whole for row in step_rows(answer))
            counts[STEPS.name] += sum(len(answer.steps) for answer in whole)
        if CELLS.name in self.selected:
            cells = cells_table(answers, load_id, unique=self.loading.strategy == "upsert")
            counts[CELLS.name] += cells.column("_deleted").null_count
            groups = [cells] if self._row_groups is None else self._row_groups.add(cells)
            page.cells.extend(self.loading.keyed(CELLS, group) for group in groups)
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

    def _add_decided(self, page: Page, answers: list[Answer], load_id: str) -> None:
        """Adds the records whose columns follow from what the destination has."""

        def build(decisions: Decisions) -> tuple[list[dict[str, Any]], list[tuple[str, pa.Table]]]:
            executions: list[dict[str, Any]] = []
            rows: list[tuple[str, pa.Table]] = []
            if EXECUTIONS.name in self.selected:
                executions = [execution_row(answer, decisions.answers) for answer in answers if not answer.is_part]
            if ROWS.name in self.selected:
                rows = list(wide_tables(answers, decisions.fields, load_id))
            return executions, rows

        (executions, rows), recorded = self._dataset.settle(build, load_id)
        page.executions.extend(executions)
        hints = self.loading.hints(ROWS)
        page.rows.extend(WideRecords(name, self.loading.keyed(ROWS, table), hints) for name, table in rows)
        if recorded:
            page.rows.append(WideRecords(FIELDS.name, fields_table(recorded, load_id), self.loading.hints(FIELDS)))


def records_of(pipeline: dlt.Pipeline, source: DltSource, *, shared: bool) -> Records:
    """For the destination of a pipeline that is extracting a source; hints the source's tables for it."""
    if shared and not knows_sql(pipeline):
        raise ConfigurationError("loads side by side (--shard) need a destination that knows SQL: run one load")
    adapt(pipeline.destination)
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
    names = frozenset(pipe.name for pipe in pipes)
    return Records(
        names,
        loading,
        Dataset(pipeline, loading, schema, wide=ROWS.name in names, shared=shared),
        # A limit or a filter that somebody put on `polled` could drop a page with cells of executions before it.
        row_groups=RowGroups() if all(len(pipe.steps) == 1 for pipe in pipes if pipe.name == "polled") else None,
    )
