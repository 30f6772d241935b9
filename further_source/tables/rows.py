"""The wide tables `rows_<step name>` as arrow: one record per extracted row, with columns for each field."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from dlt.common.normalizers.naming import NamingConvention

from further_source.settings import MAX_FIELDS_PER_TABLE
from further_source.tables.answer import Answer, Block, Step
from further_source.tables.arrow import ARROW_TYPES, arrow_schema
from further_source.tables.columns import ROWS
from further_source.tables.values import OF_DLT, Types, column_name, routed
from further_source.text import shown

__all__ = ["ROWS_PREFIX", "RowTables"]

ROWS_PREFIX = "rows_"
_CONFIDENCE = "__confidence"
_MAX_TABLE_NAME = 150
_MAX_PLANS = 1_000
_KEY_COLUMNS = {field.name: field for field in arrow_schema(ROWS)}
_VARIANTS: tuple[str, ...] = ("text", "double", "bool")

Warn = Callable[[str], None]


class _Target(NamedTuple):
    """Where one field of a row goes."""

    position: int
    column: str
    confidence_column: str


class _Owner(NamedTuple):
    """What a column is for: the value or the confidence of a field, or its values of another type."""

    field_column: str
    role: str


class _RowTable:
    """What is known of one `rows_…` table: the columns' types, and where each field goes."""

    def __init__(self, name: str, types: Types, naming: NamingConvention, warn: Warn, max_fields: int) -> None:
        self.name = name
        self._max_fields = max_fields
        self.types = types
        self._naming = naming
        self._warn = warn
        self._warned: set[str] = set()
        self._owners = self._stored_owners()
        self._fields = {owner.field_column for owner in self._owners.values()}
        self._plans: dict[tuple[str, ...], list[_Target]] = {}

    def _stored_owners(self) -> dict[str, _Owner]:
        owners: dict[str, _Owner] = {}
        for column in sorted(self.types, key=len):
            confidence_column = self._confidence_column(column)
            if column not in owners and confidence_column in self.types:
                owners[column] = _Owner(column, "value")
                owners[confidence_column] = _Owner(column, "confidence")
        for column in list(owners):
            for kind in _VARIANTS:
                variant = self._variant(column, kind)
                if variant in self.types:
                    owners.setdefault(variant, _Owner(column, kind))
        for column in self.types:
            if column.endswith(_CONFIDENCE):  # of a field that has been null so far
                owners.setdefault(column, _Owner(column.removesuffix(_CONFIDENCE), "confidence"))
        return owners

    def plan(self, fields: tuple[str, ...]) -> list[_Target]:
        """Where the fields of a row go; those missing here stay in `cells` alone."""
        plan = self._plans.get(fields)
        if plan is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plan = self._plans[fields] = list(self._plan(fields))
        return plan

    def _plan(self, fields: tuple[str, ...]) -> Iterator[_Target]:
        used: set[str] = set()
        for position, field in enumerate(fields):
            column = column_name(field, self._naming)
            if column in _KEY_COLUMNS or (column or "").startswith(OF_DLT):
                column = self._naming.normalize_path(f"field__{column}")
            if column is None:
                self.leave_out(field, "its name normalizes to nothing")
                continue
            if column in used:
                self.leave_out(field, f"another field of its row is column {column} already")
                continue
            if column not in self._fields and len(self._fields) >= self._max_fields:
                self.leave_out(field, f"the table has {self._max_fields} fields already")
                continue
            confidence_column = self._confidence_column(column)
            claims = {column: _Owner(column, "value"), confidence_column: _Owner(column, "confidence")}
            taken = [name for name, owner in claims.items() if self._owners.get(name, owner) != owner]
            if taken:
                self.leave_out(field, f"column {taken[0]} is another field's")
                continue
            self._owners.update(claims)
            self._fields.add(column)
            used.add(column)
            yield _Target(position, column, confidence_column)

    def _confidence_column(self, column: str) -> str:
        return self._naming.normalize_path(column + _CONFIDENCE)

    def _variant(self, column: str, kind: str) -> str:
        return self._naming.normalize_path(f"{column}__v_{kind}")

    def column_for(self, column: str, kind: str) -> str | None:
        """Where values of `kind` go of the field that has `column`; None where another field is in the way."""
        if self.types.setdefault(column, kind) == kind:
            return column
        variant, owner = self._variant(column, kind), _Owner(column, kind)
        if self._owners.setdefault(variant, owner) != owner or self.types.setdefault(variant, kind) != kind:
            return None
        return variant

    def leave_out(self, field: str, reason: str) -> None:
        if field not in self._warned:
            self._warned.add(field)
            self._warn(f"{self.name}: field {shown(field)} stays in cells alone: {reason}")


class RowTables:
    """The wide tables `rows_<step name>`, with what is known of their columns for the length of a run.

    Args:
        naming: dlt's naming convention for the destination.
        tables: Column types by table, of the `rows_…` tables that exist.
        warn: Told once per table and field of what cannot have a column.
        max_fields: How many fields of a table have columns.
    """

    def __init__(
        self,
        naming: NamingConvention,
        tables: Mapping[str, Mapping[str, str]],
        warn: Warn,
        max_fields: int = MAX_FIELDS_PER_TABLE,
    ) -> None:
        self._naming = naming
        self._warn = warn
        self._max_fields = max_fields
        self._tables = {
            name: _RowTable(name, dict(types), naming, warn, max_fields)
            for name, types in tables.items()
            if name.startswith(ROWS_PREFIX)
        }

    def arrow_tables(self, answers: Iterable[Answer], load_id: str) -> Iterator[tuple[str, pa.Table]]:
        """Names and records of the wide tables: one record per extracted row.

        An execution that replaces gets a tombstone in each table where it has no row now.
        """
        builders: dict[str, _Builder] = {}
        for answer in answers:
            filled = set()
            for step in answer.steps:
                name = self._table_name(step)
                builder = builders.get(name) or builders.setdefault(name, self._builder(name))
                if step.blocks:
                    builder.add_step(answer, step)
                    filled.add(name)
            if answer.replaces:
                for name in self._tables.keys() - filled:
                    builder = builders.get(name) or builders.setdefault(name, self._builder(name))
                    builder.add_tombstone(answer)
        for name, builder in builders.items():
            yield name, builder.finish(load_id)

    @staticmethod
    def types_of(table: pa.Table) -> Types:
        """The dlt data types of a wide table's columns that come from fields."""
        kinds = {arrow_type: kind for kind, arrow_type in ARROW_TYPES.items()}
        return {field.name: kinds[field.type] for field in table.schema if field.name not in _KEY_COLUMNS}

    def _builder(self, name: str) -> "_Builder":
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = _RowTable(name, {}, self._naming, self._warn, self._max_fields)
        return _Builder(table)

    def _table_name(self, step: Step) -> str:
        suffix = column_name(step.name, self._naming) if step.name else None
        name = self._naming.normalize_table_identifier(ROWS_PREFIX + (suffix or f"step_{step.index}"))
        # dlt names files after tables, and file systems take no more than 255 bytes.
        return self._naming.shorten_identifier(name, name, _MAX_TABLE_NAME)


class _Builder:
    """Collects the records of one wide table, column by column."""

    def __init__(self, table: _RowTable) -> None:
        self._table = table
        self._columns: dict[str, list[Any]] = {name: [] for name in _KEY_COLUMNS if name != "_dlt_load_id"}
        self._types: dict[str, str | None] = {}
        self._count = 0

    def add_step(self, answer: Answer, step: Step) -> None:
        self._append_keys(answer, step.index, range(step.first_row, step.first_row + step.row_count), None)
        for block in step.blocks:
            for target in self._table.plan(block.fields):
                self._append_field(block, target)
            self._count += block.row_count

    def add_tombstone(self, answer: Answer) -> None:
        self._append_keys(answer, None, [None], True)
        self._count += 1

    def _append_keys(
        self, answer: Answer, step_index: int | None, row_indexes: Sequence[int | None], deleted: bool | None
    ) -> None:
        count = len(row_indexes)
        self._columns["workflow_id"] += [answer.execution.workflow_id] * count
        self._columns["workflow_execution_id"] += [answer.execution.workflow_execution_id] * count
        self._columns["step_index"] += [step_index] * count
        self._columns["row_index"] += row_indexes
        self._columns["_deleted"] += [deleted] * count

    def _append_field(self, block: Block, target: _Target) -> None:
        of_field = block.of_field(target.position)
        values, confidences = block.values[of_field], block.confidences[of_field]
        self._types.setdefault(target.column, None)  # a field stands before its confidence, values or not
        self._table.types.setdefault(target.confidence_column, "double")
        self._extend(target.confidence_column, "double", confidences)
        kinds = set(map(type, values))
        if kinds <= {str, type(None)} or kinds <= {float, type(None)}:
            if kinds != {type(None)}:
                self._append_values(block, target, "text" if str in kinds else "double", values)
            return
        of_kinds = [routed(value) for value in values]
        for kind in dict.fromkeys(kind for kind, _ in of_kinds if kind is not None):
            self._append_values(block, target, kind, [value if kind == own else None for own, value in of_kinds])

    def _append_values(self, block: Block, target: _Target, kind: str, values: list[Any]) -> None:
        column = self._table.column_for(target.column, kind)
        if column is None:
            self._table.leave_out(
                block.fields[target.position], f"it is of type {kind} here, and the column for that is another field's"
            )
            return
        self._extend(column, kind, values)

    def _extend(self, column: str, kind: str, values: list[Any]) -> None:
        self._types[column] = kind
        stored = self._columns.setdefault(column, [])
        if len(stored) < self._count:
            stored += [None] * (self._count - len(stored))
        stored += values

    def finish(self, load_id: str) -> pa.Table:
        """The records so far, with only the columns that have a value."""
        self._columns["_dlt_load_id"] = [load_id] * self._count
        fields = list(_KEY_COLUMNS.values())
        arrays = [pa.array(self._columns[field.name], field.type) for field in fields]
        for column, kind in self._types.items():
            if kind is None:
                continue
            values = self._columns[column]
            values += [None] * (self._count - len(values))
            fields.append(pa.field(column, ARROW_TYPES[kind]))
            arrays.append(pa.array(values, ARROW_TYPES[kind]))
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
