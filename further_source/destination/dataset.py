"""The tables of a dataset as the destination has them, which alone is the truth about them.

dlt compares tables with its local schema, and columns by their names. The local schema may be behind the destination (a
lost working directory, another pipeline, a package that was aborted) or ahead of it (a table that somebody dropped).
dlt would then make text fit into a column of numbers, or fail at every load. So fields get their columns, and values
their types, by what the destination has. Before any value is routed to a new column, the column is added to the
destination and its field is recorded there. If another load beside this one was faster, values are routed again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import dlt
from dlt.common import logger
from dlt.common.destination.client import WithStagingDataset
from dlt.common.destination.exceptions import DestinationException, DestinationUndefinedEntity
from dlt.common.schema import Schema

from further_source.destination.catalog import knows_sql, make_tables, stored_types
from further_source.destination.field_records import (
    fields_table_name,
    key_of_record,
    replace_records,
    stored_records,
    stored_records_in_files,
)
from further_source.destination.lease_table import WITHOUT_UPDATES
from further_source.destination.stored import missing_wide_rows
from further_source.destination.strategy import Loading
from further_source.destination.turn import in_turn
from further_source.tables.columns import EXECUTIONS, FIELDS, MERGE_KEY, STEPS, TABLES
from further_source.tables.executions import AnswerColumns, declared_types
from further_source.tables.fields import NO_FIELD, NO_VALUE, ROWS_PREFIX, Field, FieldColumns

__all__ = ["Dataset", "Decisions", "add_columns", "has_tables"]

Tables = Mapping[str, Mapping[str, str]]
"""dlt data types by table and column."""

_ATTEMPTS = 10
_WITHOUT_TURNS = {"postgres", "duckdb", *WITHOUT_UPDATES}  # the first two have transactions for tables
_QUIET = {None, NO_VALUE, NO_FIELD}

_T = TypeVar("_T")


class Decisions(NamedTuple):
    """The columns of fields and of keys of answers, and which of these the destination does not have yet."""

    fields: FieldColumns
    answers: AnswerColumns

    def changed(self) -> list[Field]:
        return [*self.fields.changed.values(), *self.answers.changed.values()]

    def wanted(self) -> dict[str, dict[str, str]]:
        of_answers = {EXECUTIONS.name: self.answers.wanted} if self.answers.wanted else {}
        return {**self.fields.wanted, **of_answers}


class Dataset:
    """The tables of a pipeline's dataset, and the columns that fields have in them.

    Args:
        pipeline: The pipeline that loads.
        loading: How it loads.
        schema: The schema of the source that is extracted; brought up to date with the destination.
        wide: Whether wide tables are loaded; then rows that they lack of what is loaded already are told of.
        shared: Whether other loads write to the dataset at the same time.
    """

    def __init__(
        self,
        pipeline: dlt.Pipeline,
        loading: Loading,
        schema: Schema,
        *,
        wide: bool = False,
        shared: bool = False,
    ) -> None:
        self._wide = wide
        self._shared = shared
        self._outdated: list[Field] = []
        self._is_read = False
        self._pipeline = pipeline
        self._loading = loading
        self._naming = schema.naming
        self._schema = schema
        self._stored: dict[str, dict[str, str]] = {}
        self._recorded: list[Field] = []
        self._decisions: Decisions | None = None

    @cached_property
    def _knows_sql(self) -> bool:
        return knows_sql(self._pipeline)

    def settle(self, build: Callable[[Decisions], _T], load_id: str) -> tuple[_T, list[Field]]:
        """What `build` makes of the decisions. By then the destination has all columns and records it relies on.

        `build` is called again if another load was faster. If the destination knows no SQL, or is away just now, the
        records for the table `fields` are returned besides, to be loaded like others; else there are none.

        Raises:
            DestinationException: It is away, and other loads may decide otherwise meanwhile.
        """
        if not self._is_read:
            self.read()
        while True:
            decisions = self._decisions = self._decisions or self._decide()
            built = build(decisions)
            changed, wanted = decisions.changed(), decisions.wanted()
            if not (changed or wanted):
                return built, []
            removed = [*self._outdated, *decisions.fields.removed]
            is_written = False
            if self._knows_sql:
                try:
                    is_written = self._write([*changed, *self._kept(changed, removed)], removed, wanted, load_id)
                except DestinationException:
                    if self._shared:
                        raise
                else:
                    if not is_written:
                        continue  # another load was faster
            self._take_over(changed, removed, wanted)
            if is_written:
                self._outdated = []
            _warn(changed)
            return built, [] if is_written else changed

    def _kept(self, changed: Sequence[Field], removed: Sequence[Field]) -> list[Field]:
        """Records that stay as they are, and have the key of one that is removed: both would go."""
        keys = set(map(key_of_record, self._outdated)) - set(map(key_of_record, changed))
        return [field for field in self._recorded if key_of_record(field) in keys and field not in removed]

    def read(self) -> None:
        """Asks the destination what its tables are like, and brings dlt's schema up to date."""
        self._read()
        self._bring_schema_up_to_date()
        self._make_what_was_dropped()
        self._is_read = True

    @property
    def tables_of_executions(self) -> list[str]:
        """The tables of the destination that have both ids of executions; by SQL, and as of `read`."""
        return [name for name, types in self._stored.items() if types.keys() >= {*MERGE_KEY}]

    def begin_anew(self, step_name: str | None) -> tuple[FieldColumns, list[str]]:
        """To decide of wide tables as if there were none: of all, or of those of a step. And the tables to drop."""
        self._read()
        decided = self._decide().fields
        dropped = decided.tables if step_name is None else decided.tables_of(step_name)
        kept = [field for field in self._recorded if field.rows_table not in (*dropped, EXECUTIONS.name)]
        stored = {name: types for name, types in self._stored.items() if name not in dropped}
        return FieldColumns(kept, stored, self._naming, self._loading.max_fields), dropped

    def recorded_of_answers(self) -> list[Field]:
        """The records of `fields` that are of `executions`."""
        return [field for field in self._recorded if field.rows_table == EXECUTIONS.name]

    def _decide(self) -> Decisions:
        of_answers = [field for field in self._recorded if field.rows_table == EXECUTIONS.name]
        of_rows = [field for field in self._recorded if field.rows_table != EXECUTIONS.name]
        types = self._stored.get(EXECUTIONS.name) or declared_types()
        maximum = self._loading.max_fields
        return Decisions(
            FieldColumns(of_rows, self._stored, self._naming, maximum),
            AnswerColumns(self._naming, types, of_answers, maximum),
        )

    def _take_over(self, changed: Iterable[Field], removed: Sequence[Field], wanted: Tables) -> None:
        """Takes note of what the destination has now, as if it had been read again."""
        for table, types in wanted.items():
            self._stored.setdefault(table, {}).update(types)
        gone = set(removed)
        self._recorded = [field for field in self._recorded if field not in gone] + list(changed)
        if self._decisions is not None:
            self._decisions.fields.settled()
            self._decisions.answers.settled()

    # What the destination has

    def _read(self) -> None:
        if self._knows_sql:
            with self._pipeline.destination_client() as client:
                self._stored = stored_types(client)
                self._recorded, self._outdated = stored_records(client)
            if self._wide and "row_count" in self._stored.get(STEPS.name, {}):  # somebody may have dropped it
                self._tell_of_missing_rows()
        else:
            self._stored = {name: dict(types) for name, types in _local_types(self._schema).items()}
            self._recorded = list(stored_records_in_files(self._pipeline, self._loading.table_format))
            for field in self._recorded:
                if field.rows_table != EXECUTIONS.name:
                    self._stored.setdefault(field.rows_table, {"row_index": "bigint"}).update(field.columns)

    def _tell_of_missing_rows(self) -> None:
        first = [table for table in self._decide().fields.first_tables if table in self._stored]
        with self._pipeline.sql_client() as client:
            missing = missing_wide_rows(client, first)
        if missing > 0:
            logger.warning(
                f"{missing} rows that were extracted are in cells, and not in the wide tables: "
                "`further-source rebuild` makes these anew"
            )

    def _bring_schema_up_to_date(self) -> None:
        """Removes from dlt's schema what the destination has otherwise; dlt adds it again as the records have it."""
        if not self._knows_sql or not self._stored:
            return
        for name in list(self._schema.tables):
            if name.startswith(ROWS_PREFIX) and name not in self._stored:
                del self._schema.tables[name]
            elif name.startswith(ROWS_PREFIX) or name == EXECUTIONS.name:
                stored = self._stored.get(name, {})
                columns = self._schema.tables[name]["columns"]
                for column, hints in list(columns.items()):
                    if column in stored and hints.get("data_type") not in (None, stored[column]):
                        del columns[column]
        self._drop_stale_staging()

    def _make_what_was_dropped(self) -> None:
        """Makes again what is there from the start and somebody dropped: dlt takes it for made."""
        if not self._knows_sql or not self._stored:
            return
        dropped = [
            name for name in TABLES if name in self._schema.tables and not _is_whole(name, self._stored.get(name, {}))
        ]
        if dropped:
            with self._pipeline.destination_client() as client:
                add_columns(client, self._loading, {name: {} for name in dropped})
                self._stored = stored_types(client)

    def _drop_stale_staging(self) -> None:
        """Drops staging tables with a column of another type than in the table itself: dlt would make values fit."""
        with self._pipeline.destination_client() as client:
            if not isinstance(client, WithStagingDataset):
                return
            with client.with_staging_dataset() as staging_client:
                staging: Any = staging_client
                stale = [
                    name
                    for name, types in stored_types(staging).items()
                    if any(self._stored.get(name, {}).get(column, kind) != kind for column, kind in types.items())
                ]
                if stale:
                    staging.drop_tables(*stale)

    # What it does not have yet

    def _write(self, changed: Sequence[Field], removed: Sequence[Field], wanted: Tables, load_id: str) -> bool:
        """Adds columns and records to the destination; False if it is no longer as the decisions took it to be."""
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                self._make_fields_table()
                with self._turn(), self._pipeline.destination_client() as client, _alone(client):
                    stored = stored_types(client)
                    recorded, outdated = stored_records(client)
                    if not self._is_as_decided_by(stored, recorded):
                        self._stored, self._recorded, self._outdated = stored, recorded, outdated
                        self._decisions = None
                        return False
                    add_columns(client, self._loading, wanted)
                    replace_records(client, changed, removed, load_id)
                    return True
            except DestinationException:  # another load may have made a table or a column first
                if not attempts_left:
                    raise
        return False

    def _turn(self) -> AbstractContextManager[None]:
        dialect = self._pipeline.destination.capabilities().sqlglot_dialect
        takes_turns = self._shared and dialect not in _WITHOUT_TURNS
        return in_turn(self._pipeline) if takes_turns else nullcontext()

    def _is_as_decided_by(self, stored: Tables, recorded: Sequence[Field]) -> bool:
        return set(recorded) == set(self._recorded) and all(
            stored.get(name, {}) == self._stored.get(name, {})
            for name in {*stored, *self._stored}
            if name.startswith(ROWS_PREFIX) or name == EXECUTIONS.name
        )

    def _make_fields_table(self) -> None:
        if FIELDS.name not in self._stored:
            # Closed before a transaction begins: SQLAlchemy begins one by itself to see whether there is a dataset.
            with self._pipeline.destination_client() as client:
                client.initialize_storage()
                add_columns(client, self._loading, {FIELDS.name: {}})
            self._stored[FIELDS.name] = {column.name: column.data_type for column in FIELDS.columns}


def add_columns(client: Any, loading: Loading, wanted: Tables) -> None:
    """Makes tables as they are declared, or adds columns to them, by their dlt data types."""
    added: dict[str, list[Any]] = {
        name: [{"name": column, "data_type": kind} for column, kind in types.items()] for name, types in wanted.items()
    }
    make_tables(client, {name: [*loading.stored_columns(name).values(), *more] for name, more in added.items()})


def has_tables(client: Any, names: Iterable[str]) -> bool:
    """Whether the dataset has these tables, with all columns that they have from the start.

    Args:
        client: Of a destination that knows SQL; it is open.
    """
    try:
        return all(_is_whole(name, columns) for name, columns in client.get_storage_tables(list(names)))
    except DestinationUndefinedEntity:
        return False


def _is_whole(name: str, columns: Iterable[str]) -> bool:
    """Whether these are all columns that a table of ours has from the start."""
    return {column.name for column in TABLES[name].columns} <= {column.lower() for column in columns}


@contextmanager
def _alone(client: Any) -> Iterator[None]:
    """One transaction, if the destination has transactions for tables; on PostgreSQL one load at a time is in here."""
    with client.maybe_ddl_transaction():
        if client.capabilities.sqlglot_dialect == "postgres":
            client.sql_client.execute_sql(f"LOCK TABLE {fields_table_name(client)} IN EXCLUSIVE MODE")
        yield


def _local_types(schema: Schema) -> Tables:
    return {
        name: {column: str(hints["data_type"]) for column, hints in table["columns"].items() if "data_type" in hints}
        for name, table in schema.tables.items()
        if name in TABLES
    }


def _warn(changed: Iterable[Field]) -> None:
    """Warns in one line per table and reason. The next run does not warn again, because the fields are recorded."""
    told = [field for field in changed if field.reason not in _QUIET]
    for (table, reason), alike in groupby(sorted(told, key=_by_reason), key=_by_reason):
        names = [str(field.field) for field in alike]
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        logger.warning(f"{table}: {len(names)} without a column ({shown}): {reason}. The table fields has them all")


def _by_reason(field: Field) -> tuple[str, str]:
    return field.rows_table, field.reason or ""
