"""Which column each field of the wide tables has: decided once, for ever, and recorded in the table `fields`.

Two different keys of the API never share a column: not in a row, nor across documents, loads or machines. What is
decided here follows from the records of `fields` and from the columns that the destination has, and from nothing else.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, count
from typing import NamedTuple

from dlt.common.normalizers.naming import NamingConvention

from further_source.tables import names
from further_source.tables.columns import ROWS, TABLES
from further_source.tables.values import Types

__all__ = ["KINDS", "NO_VALUE", "ROWS_PREFIX", "Field", "FieldColumns", "StepKey", "has_executions"]

ROWS_PREFIX = "rows_"
NO_VALUE = "no value has come yet"
"""The reason of a field that has been null so far."""
NO_FIELD = "no field has come yet"
"""The reason of a step whose rows are all empty: its record keeps the table for it."""
KINDS = ("text", "double", "bool")
"""The dlt data types of values in wide tables."""

_CONFIDENCE = "__confidence"
_OF_EXECUTIONS = frozenset(table.name for table in TABLES.values() if table.merge_key)
_VARIANTS = tuple(f"__v_{kind}" for kind in KINDS)
_SLOTS = {"text": "text_column", "double": "number_column", "bool": "boolean_column"}
_KEY_COLUMNS = frozenset(column.name for column in ROWS.columns)


def has_executions(table: str) -> bool:
    """Whether a table has rows of executions, which loads replace."""
    return table in _OF_EXECUTIONS or table.startswith(ROWS_PREFIX)


class StepKey(NamedTuple):
    """What a wide table is for: all steps of a name, or the steps at an index that have no usable one."""

    name: str | None
    step_index: int | None = None


@dataclass(frozen=True)
class Field:
    """A record of `fields`: where the values of a field stand, or why nowhere.

    `field` is None in the record that only keeps a table for a step.
    """

    rows_table: str
    step_name: str | None
    field: str | None
    text_column: str | None = None
    number_column: str | None = None
    boolean_column: str | None = None
    confidence_column: str | None = None
    reason: str | None = None

    def column(self, kind: str) -> str | None:
        """The column of its values of a dlt data type."""
        value: str | None = getattr(self, _SLOTS[kind])
        return value

    @cached_property
    def columns(self) -> dict[str, str]:
        """dlt data types by column: that of the first value, its confidence, those of other types."""
        of_values = sorted(((column, kind) for kind in KINDS if (column := self.column(kind))), key=_length)
        of_confidence = [(self.confidence_column, "double")] if self.confidence_column else []
        return dict([*of_values[:1], *of_confidence, *of_values[1:]])


def _length(column: tuple[str, str]) -> int:
    return len(column[0])


_Key = tuple[StepKey, str | None]


class FieldColumns:
    """All wide tables of a dataset, and what is decided of their columns.

    Args:
        recorded: The records of `fields`, the oldest first.
        stored: Column types of the tables that the destination has, by table.
        naming: dlt's naming convention for the destination.
        max_fields: How many fields have columns in one table; the others go on in a further one.

    Attributes:
        changed: Records that are new or other than `recorded`.
        removed: Those of `recorded` that `changed` has others for, or that are no longer true.
        wanted: Columns that are relied on and are not `stored`, by table; a table without any is wanted too.
    """

    def __init__(
        self,
        recorded: Iterable[Field],
        stored: Mapping[str, Mapping[str, str]],
        naming: NamingConvention,
        max_fields: int,
    ) -> None:
        self._naming = naming
        self._max_fields = max_fields
        self._stored = {table: dict(types) for table, types in stored.items()}
        self._fields: dict[_Key, Field] = {}
        self._tables: dict[StepKey, list[str]] = {}
        self._steps: dict[str, StepKey] = {}
        self._owners: dict[str, dict[str, _Key]] = {}
        self._counts: Counter[str] = Counter()
        self.changed: dict[_Key, Field] = {}
        self.wanted: dict[str, Types] = {}
        self.removed: list[Field] = []
        for field in sorted(recorded, key=lambda field: (len(field.rows_table), field.rows_table)):
            self._take_in(field)

    def settled(self) -> None:
        """What was wanted is stored now, and what was changed recorded."""
        for table, types in self.wanted.items():
            self._stored.setdefault(table, {}).update(types)
        self.wanted, self.changed, self.removed = {}, {}, []

    @property
    def tables(self) -> list[str]:
        """The wide tables that are recorded or stored, in no particular order."""
        return list(dict.fromkeys(chain(self._steps, filter(self._is_wide, self._stored))))

    @property
    def recorded(self) -> list[Field]:
        """All records, as they are now."""
        return list(self._fields.values())

    @property
    def first_tables(self) -> list[str]:
        """The first wide table of each step, which has all of its rows."""
        return [tables[0] for tables in self._tables.values()]

    def tables_of(self, step_name: str) -> list[str]:
        """All wide tables of the steps of a name."""
        return [table for step, tables in self._tables.items() if step.name == step_name for table in tables]

    def table_of(self, step: StepKey) -> str:
        """The (first) wide table of a step."""
        if step not in self._tables:
            base = names.table_name(ROWS_PREFIX, step.name, f"step_{step.step_index}", self._naming)
            self._add_table(step, names.free_name(base, self._taken_tables()))
            self._change((step, None), Field(self._tables[step][0], step.name, None, reason=NO_FIELD))
        table = self._tables[step][0]
        self._want(table, {})
        return table

    def field(self, step: StepKey, name: str, kinds: Iterable[str]) -> Field:
        """The record of a field, with a column for each of the `kinds` of values; with none it has none yet."""
        key = (step, name)
        field = self._fields.get(key)
        if field is None:
            field = Field(self.table_of(step), step.name, name, reason=NO_VALUE)
            self._change(key, field)
            self._forget((step, None))
        for kind in kinds:
            column = field.column(kind)
            if column is None or not self._holds(field.rows_table, column, kind):
                field = self._with_column(key, field, kind)
        if field.confidence_column:
            self._want(field.rows_table, field.columns)
        return field

    # Records

    def _take_in(self, field: Field) -> None:
        step = self._step_of(field)
        if field.rows_table not in self._steps:
            self._add_table(step, field.rows_table)
        key = (step, field.field)
        known = self._fields.get(key)
        self._fields[key] = field
        if field.confidence_column and field.field is not None:
            base = self._base_of(field)
            owners = self._owners.setdefault(field.rows_table, {})
            for column in chain(self._names(base), field.columns):
                owners.setdefault(column, key)
            if known is None or not known.confidence_column:
                self._counts[field.rows_table] += 1

    def step_key(self, name: str | None, index: int) -> StepKey:
        """The key of a step; only where its name is not usable does it matter which one it is."""
        return StepKey(name) if name is not None and names.is_usable(name) else StepKey(name, index)

    def _step_of(self, field: Field) -> StepKey:
        index = field.rows_table.removeprefix(f"{ROWS_PREFIX}step_").partition("_")[0]
        return self.step_key(field.step_name, int(index) if index.isdecimal() else 0)

    def _change(self, key: _Key, field: Field) -> None:
        self._forget(key)
        self._fields[key] = self.changed[key] = field

    def _forget(self, key: _Key) -> None:
        before = self._fields.pop(key, None)
        if before is not None and self.changed.pop(key, None) is None:
            self.removed.append(before)

    def _want(self, table: str, types: Mapping[str, str]) -> None:
        stored = self._stored.get(table)
        missing = {column: kind for column, kind in types.items() if stored is None or column not in stored}
        if stored is None or missing:
            self.wanted.setdefault(table, {}).update(missing)

    # Tables

    def _add_table(self, step: StepKey, table: str) -> None:
        self._tables.setdefault(step, []).append(table)
        self._steps[table] = step

    def _taken_tables(self) -> set[str]:
        """A wide table that nothing is recorded for is free, but none of its columns is."""
        return {*self._steps, *(table for table in self._stored if not self._is_wide(table))}

    def _is_wide(self, table: str) -> bool:
        return table.startswith(ROWS_PREFIX) and "row_index" in self._stored[table]

    def _table_with_room(self, step: StepKey) -> str:
        for table in self._tables[step]:
            if self._counts[table] < self._max_fields:
                return table
        taken, first = self._taken_tables(), self._tables[step][0]
        # As dlt writes `rows_x__2`: a part of a name that begins with a digit gets an underscore before it.
        numbered = (self._naming.normalize_tables_path(f"{first}__{number}") for number in count(2))
        table = next(table for table in numbered if table not in taken)
        self._add_table(step, table)
        return table

    # Columns

    def _holds(self, table: str, column: str, kind: str) -> bool:
        """Whether a recorded column, if it is there, is of the type; somebody may have made it anew."""
        stored = self._stored.get(table, {}).get(column, kind)
        return stored == kind or stored not in KINDS

    def _with_column(self, key: _Key, field: Field, kind: str) -> Field:
        step, name = key
        if field.confidence_column is None:
            table = self._table_with_room(step)
            base = self._free_base(table, name or "")
            owners = self._owners.setdefault(table, {})
            owners.update(dict.fromkeys(self._names(base), key))
            self._counts[table] += 1
            field = replace(field, rows_table=table, confidence_column=self._column(base, _CONFIDENCE), reason=None)
            column = base
        else:
            column = self._free_variant(field, key, kind)
            self._owners[field.rows_table][column] = key
        field = replace(field, **{_SLOTS[kind]: column})
        self._change(key, field)
        return field

    def _free_base(self, table: str, name: str) -> str:
        taken = {*self._owners.get(table, ()), *self._stored.get(table, ()), *_KEY_COLUMNS}
        base = names.column_name(name, self._naming)
        while not taken.isdisjoint(self._names(column := names.free_name(base, taken))):
            taken.add(column)
        return column

    def _free_variant(self, field: Field, key: _Key, kind: str) -> str:
        owners, stored = self._owners[field.rows_table], self._stored.get(field.rows_table, {})
        variant = self._column(self._base_of(field), f"__v_{kind}")

        def is_free(candidate: str) -> bool:
            owned = owners.get(candidate, key) == key and candidate not in field.columns
            return owned and (stored.get(candidate, kind) == kind if candidate in owners else candidate not in stored)

        return next(filter(is_free, (variant if number == 1 else f"{variant}_{number}" for number in count(1))))

    def _base_of(self, field: Field) -> str:
        """The name that the names of its columns begin with."""
        for column in (field.text_column, field.number_column, field.boolean_column):
            if column and self._column(column, _CONFIDENCE) == field.confidence_column:
                return column
        return (field.confidence_column or "").removesuffix(_CONFIDENCE)

    def _names(self, base: str) -> list[str]:
        """All columns that a field may come to have."""
        return [base, *(self._column(base, suffix) for suffix in (_CONFIDENCE, *_VARIANTS))]

    def _column(self, base: str, suffix: str) -> str:
        return self._naming.normalize_path(base + suffix)
