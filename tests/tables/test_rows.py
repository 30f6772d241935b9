"""Names and types of the columns of wide tables."""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import dlt
import pyarrow as pa
import pytest
from dlt.common.normalizers.naming.snake_case import NamingConvention

from further_source.executions import ExecutionId
from further_source.polling.poll import Ended
from further_source.sandbox import Sandbox, cell, completed, step
from further_source.tables.answer import Answer, normalize_steps
from further_source.tables.fields import NO_VALUE, Field, FieldColumns
from further_source.tables.rows import wide_tables as rows_of
from tests.conftest import MakePipeline
from tests.support.loading import WORKFLOW, cells_of, columns, records, serve_rows, serve_steps, source_of, tables, wide
from tests.support.slow import few_of

NAMING = NamingConvention()
SHORT_NAMES = NamingConvention(63)
_KEYS = {"workflow_id", "workflow_execution_id", "step_index", "row_index", "_dlt_load_id", "_deleted"}


def answer_of(*rows: Any, step_name: Any = "S") -> Answer:
    payload = completed(WORKFLOW, "ex", [step(step_name, rows)])
    ended = Ended(ExecutionId(WORKFLOW, "ex"), "completed", "completed", payload, None, 1, None, None, 0)
    return Answer(ended, normalize_steps(payload))


class Wide:
    """The wide tables without a load: pages of rows in, columns out."""

    def __init__(
        self,
        recorded: Iterable[Field] = (),
        stored: Mapping[str, Mapping[str, str]] | None = None,
        *,
        naming: NamingConvention = NAMING,
        max_fields: int = 400,
    ) -> None:
        self.naming, self.max_fields = naming, max_fields
        self.fields = FieldColumns(recorded, stored or {}, naming, max_fields)
        self._recorded = list(recorded)
        self._stored = {table: dict(types) for table, types in (stored or {}).items()}

    def pages(self, *answers: Answer) -> dict[str, dict[str, list[Any]]]:
        found = {}
        for name, table in rows_of(answers, self.fields, "load"):
            found[name] = {column: values for column, values in table.to_pydict().items() if column not in _KEYS}
        self._take_over()
        return found

    def page(self, *rows: Any) -> dict[str, list[Any]]:
        (found,) = self.pages(answer_of(*rows)).values()
        return found

    def values(self, *rows: Any) -> dict[str, list[Any]]:
        return {name: values for name, values in self.page(*rows).items() if not name.endswith("__confidence")}

    def again(self) -> "Wide":
        """Another run, which knows what is recorded and stored, and nothing else."""
        return Wide(self._recorded, self._stored, naming=self.naming, max_fields=self.max_fields)

    def _take_over(self) -> None:
        for table, types in self.fields.wanted.items():
            self._stored.setdefault(table, dict.fromkeys(_KEYS, "text")).update(types)
        self._recorded = [field for field in self._recorded if field not in self.fields.removed]
        self._recorded += self.fields.changed.values()
        self.fields.settled()

    def recorded(self) -> dict[str | None, Field]:
        return {field.field: field for field in self._recorded}


# Times


@pytest.mark.parametrize(
    "text",
    few_of(
        ["2024-01-01T10:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2024-01-01T10:00:00-25:00"]
    ),
)
def test_times_in_metadata_are_text(make_pipeline: MakePipeline, sandbox: Sandbox, text: str) -> None:
    sandbox.add(WORKFLOW, "ex", completed(WORKFLOW, "ex", [], metadata={"at": text}))
    pipeline = make_pipeline()

    pipeline.run(source_of(sandbox, ["ex"]))
    assert [row["metadata__at"] for row in records(pipeline, "executions")] == [text]


# Names


@pytest.mark.slow
def test_awkward_names_load_and_can_be_queried(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    names = ["Größe", "保険番号", "🚗", "x" * 300, "1st", "select", 'a"b', "c\x00\x1f d", "e;--", "__f", "g__h"]
    steps = [step(name, [{field: cell(field, 0.5) for field in names}]) for name in [*names, "", "__"]]
    serve_steps(sandbox, "a", *steps)

    pipeline.run(source_of(sandbox, ["a"]))

    found = tables(pipeline) - {"executions", "steps", "cells"}
    assert len(found) == len(names) + 2
    assert {"rows_grosse", "rows_bao_xian_fan_hao", "rows_1st", "rows_select"} <= found
    assert {f"rows_step_{len(names)}", f"rows_step_{len(names) + 1}"} <= found
    assert max(map(len, found)) <= 150
    for table in found:
        (row,) = wide(pipeline, table)
        assert sorted(map(str, row.values())) == sorted(["a", *(name.replace("\x00", "\ufffd") for name in names)])


def test_a_field_named_like_a_key_column_is_set_apart() -> None:
    found = Wide().values(cells_of(workflow_id="w", step_index=7, _deleted=True, _dlt_id="d", row_index="r"))

    assert found == {
        "workflow_id_2": ["w"],
        "step_index_2": [7.0],
        "_deleted_2": [True],
        "dlt_id": ["d"],
        "row_index_2": ["r"],
    }


def test_two_fields_never_share_a_column() -> None:
    wide_tables = Wide()
    both = {"Amount": cell(1, 0.5), "amount": cell(2, 0.5)}

    assert wide_tables.values(both) == {"amount": [1.0], "amount_2": [2.0]}
    assert wide_tables.again().values({"amount": cell(2, 0.5)}) == {"amount_2": [2.0]}
    assert wide_tables.again().values({"AMOUNT": cell(3, 0.5)}) == {"amount_3": [3.0]}


@pytest.mark.parametrize("column", ["amount", "amount__confidence", "amount__v_text"])
def test_a_column_that_nobody_is_recorded_for_is_not_taken(column: str) -> None:
    """Somebody added it, or a load was killed before it was recorded."""
    wide_tables = Wide(stored={"rows_s": {**dict.fromkeys(_KEYS, "text"), column: "double"}})

    assert wide_tables.values(cells_of(amount=1)) == {"amount_2": [1.0]}


def test_fields_named_like_columns_of_ours_have_columns_of_their_own() -> None:
    rows = [cells_of(a=1), cells_of(a="x"), cells_of(a__v_text="own"), cells_of(a__confidence="high"), cells_of(a_2=0)]

    assert Wide().values(*rows) == {
        "a": [1.0, None, None, None, None],
        "a__v_text": [None, "x", None, None, None],
        "a_v_text": [None, None, "own", None, None],
        "a_confidence": [None, None, None, "high", None],
        "a_2": [None, None, None, None, 0.0],
    }


def test_steps_that_become_one_name_have_tables_of_their_own() -> None:
    wide_tables = Wide()
    row = cells_of(a=1)

    found = wide_tables.pages(*(answer_of(row, step_name=name) for name in ("S", "s", None, "", "--", "step 0")))
    assert list(found) == ["rows_s", "rows_s_2", "rows_step_0", "rows_step_0_2", "rows_step_0_3", "rows_step_0_4"]
    again = wide_tables.again().pages(*(answer_of(row, step_name=name) for name in ("step 0", "--", "", None, "s")))
    assert list(again) == ["rows_step_0_4", "rows_step_0_3", "rows_step_0_2", "rows_step_0", "rows_s_2"]


def test_a_table_without_a_field_is_kept_for_its_step() -> None:
    wide_tables = Wide()

    assert wide_tables.pages(answer_of({}, {}, step_name="S")) == {"rows_s": {}}
    assert [(field.rows_table, field.step_name, field.field) for field in wide_tables.recorded().values()] == [
        ("rows_s", "S", None)
    ]
    again = wide_tables.again()
    assert list(again.pages(answer_of(cells_of(a=1), step_name="s"))) == ["rows_s_2"]
    assert list(again.pages(answer_of(cells_of(a=1), step_name="S"))) == ["rows_s"]
    assert set(again.recorded()) == {"a"}


def test_a_field_that_has_been_null_so_far_takes_no_column() -> None:
    wide_tables = Wide()

    assert wide_tables.page(cells_of(a=None, b=1), cells_of(a=None)) == {"b": [1.0, None], "b__confidence": [0.5, None]}
    assert wide_tables.recorded()["a"] == Field("rows_s", "S", "a", reason=NO_VALUE)
    assert wide_tables.again().page(cells_of(a=None), cells_of(a="x")) == {
        "a": [None, "x"],
        "a__confidence": [0.5, 0.5],
    }


@pytest.mark.parametrize("naming", [NAMING, SHORT_NAMES])
def test_what_one_table_cannot_hold_goes_on_in_further_ones(naming: NamingConvention) -> None:
    fields = {f"{'long ' * 20}{number}": cell(number, 0.5) for number in range(7)}
    wide_tables = Wide(naming=naming, max_fields=3)

    found = wide_tables.pages(answer_of({"none": cell(None, 0.5), **fields}, {}))
    assert {name: len(table) for name, table in found.items()} == {"rows_s": 6, "rows_s___2": 6, "rows_s___3": 2}
    assert [len(next(iter(table.values()))) for table in found.values()] == [2, 1, 1]
    again = wide_tables.again().pages(answer_of({"new": cell("x", 0.5), **fields}))
    assert again["rows_s___3"] == {"new": ["x"], "new__confidence": [0.5], **found["rows_s___3"]}
    assert wide_tables.again().pages(answer_of(*[cells_of(new="x", old=1, more=2)] * 2)).keys() == {
        "rows_s",
        "rows_s___3",
        "rows_s___4",
    }


def test_an_execution_that_replaces_loses_its_rows_in_all_tables() -> None:
    wide_tables = Wide(max_fields=1)
    wide_tables.pages(answer_of(cells_of(a=1, b=2)), answer_of(cells_of(c=1), step_name="T"))
    again = wide_tables.again()
    answer = replace(answer_of(cells_of(a=1)), replaces=True)

    found = {name: table.to_pydict()["_deleted"] for name, table in rows_of([answer], again.fields, "load")}
    assert found == {"rows_s": [None], "rows_s___2": [True], "rows_t": [True]}


@pytest.mark.slow
def test_401_fields_load(sandbox: Sandbox, make_pipeline: MakePipeline) -> None:
    for name in "ab":
        serve_rows(sandbox, name, {f"f{number}": cell(number, 0.5) for number in range(401)})

    make_pipeline().run(source_of(sandbox, ["a"]))
    make_pipeline().run(source_of(sandbox, ["a", "b"]))

    found = columns(make_pipeline(), "rows_extract")
    assert ("f399" in found, "f400" in found, len(found)) == (True, False, 806)
    assert [row["f400"] for row in records(make_pipeline(), "rows_extract___2")] == [400.0, 400.0]
    assert len(records(make_pipeline(), "cells")) == 802


# Types


def test_a_column_has_the_type_of_its_first_value_and_others_go_to_variants() -> None:
    wide_tables = Wide()

    found = wide_tables.page(*[{"a": cell(v, 0.5)} for v in (None, 5, "02139", True, [1, "x"], {"k": None}, -1.5)])

    assert found == {
        "a": [None, 5.0, None, None, None, None, -1.5],
        "a__confidence": [0.5] * 7,
        "a__v_text": [None, None, "02139", None, '[1,"x"]', '{"k":null}', None],
        "a__v_bool": [None, None, None, True, None, None, None],
    }
    assert list(found)[:2] == ["a", "a__confidence"]


@pytest.mark.parametrize(
    ("first", "own"), [("text", "text"), (1, "double"), (1.5, "double"), (False, "bool"), ([], "text"), ({}, "text")]
)
def test_types_hold_across_pages_and_runs(first: Any, own: str) -> None:
    wide_tables = Wide()
    wide_tables.page(cells_of(a=first))
    rows = [cells_of(a="02139"), cells_of(a=2), cells_of(a=True)]
    kinds = {"text": "02139", "double": 2.0, "bool": True}
    expected = {
        "a" if kind == own else f"a__v_{kind}": [value if kind == other else None for other in kinds]
        for kind, value in kinds.items()
    }

    assert wide_tables.again().values(*rows) == expected
    assert wide_tables.values(*rows) == expected
    assert wide_tables.again().values(*rows) == expected


def test_numbers_that_a_double_cannot_hold_stay_in_cells() -> None:
    assert Wide().page(cells_of(a=Decimal("1e400"), b=Decimal(2**70))) == {
        "b": [float(2**70)],
        "b__confidence": [0.5],
    }


def test_of_a_field_that_comes_twice_in_a_row_the_first_value_stands(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    twice = '{"Amount": {"value": 1}, "Name": {"value": "a"}, "Amount": {"value": "2"}}'
    rows = f'{twice}, {{"Amount": {{"value": 3}}, "Name": {{"value": NaN}}}}, {twice}'
    body = json.dumps(completed(WORKFLOW, "ex", [step("Extract", [])])).replace('"data": []', f'"data": [{rows}]')
    sandbox.add(WORKFLOW, "ex", body.encode())

    pipeline.run(source_of(sandbox, ["ex"]))

    assert wide(pipeline, "rows_extract") == [
        {"workflow_execution_id": "ex", "amount": 1.0, "name": "a"},
        {"workflow_execution_id": "ex", "amount": 3.0},
        {"workflow_execution_id": "ex", "amount": 1.0, "name": "a"},
    ]
    assert [row["value"] for row in records(pipeline, "cells")].count("2") == 2


def test_a_row_that_is_no_object_is_one_field() -> None:
    assert Wide().values("text", None, 5, [1]) == {
        "_row": ["text", None, None, "[1]"],
        "_row__v_double": [None, None, 5.0, None],
    }


@pytest.mark.parametrize("wiped", few_of([False, True]))
def test_types_are_known_to_the_next_run(sandbox: Sandbox, make_pipeline: MakePipeline, wiped: bool) -> None:
    serve_rows(sandbox, "a", cells_of(amount=5, zip="02139", ok=True))
    serve_rows(sandbox, "b", cells_of(amount="02139", zip=2139, ok="yes"), cells_of(amount=7, zip="1", ok=1))

    make_pipeline().run(source_of(sandbox, ["a"]))
    if wiped:
        shutil.rmtree(make_pipeline().pipelines_dir)
    make_pipeline().run(source_of(sandbox, ["a", "b"]))

    assert wide(make_pipeline(), "rows_extract") == [
        {"workflow_execution_id": "a", "amount": 5.0, "zip": "02139", "ok": True},
        {"workflow_execution_id": "b", "amount__v_text": "02139", "zip__v_double": 2139.0, "ok__v_text": "yes"},
        {"workflow_execution_id": "b", "amount": 7.0, "zip": "1", "ok__v_double": 1.0},
    ]


def test_texts_that_look_like_dates_and_numbers_stay_text(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    texts = ["2024-01-01", "2024-01-01T00:00:00Z", "tomorrow", "02139", "1e3", "true"]
    serve_rows(sandbox, "a", *[cells_of(x=text) for text in texts])

    pipeline.run(source_of(sandbox, ["a"]))

    assert [row["x"] for row in records(pipeline, "rows_extract")] == texts


def test_arrow_types_are_those_of_the_schema() -> None:
    ((_, table),) = rows_of([answer_of(cells_of(t="x", n=1, b=True))], Wide().fields, "load")

    assert {field.name: field.type for field in table.schema if field.name in "tnb"} == {
        "t": pa.string(),
        "n": pa.float64(),
        "b": pa.bool_(),
    }
