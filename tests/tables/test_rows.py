"""Names and types of the columns of wide tables."""

import shutil
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
from further_source.tables.rows import RowTables
from further_source.tables.values import column_name
from tests.conftest import MakePipeline
from tests.support.loading import WORKFLOW, cells_of, columns, records, serve_rows, serve_steps, source_of, tables, wide

NAMING = NamingConvention()
SHORT_NAMES = NamingConvention(63)
_KEYS = {"workflow_id", "workflow_execution_id", "step_index", "row_index", "_dlt_load_id", "_deleted"}


def answer_of(*rows: Any, step_name: Any = "S") -> Answer:
    payload = completed(WORKFLOW, "ex", [step(step_name, rows)])
    ended = Ended(ExecutionId(WORKFLOW, "ex"), "completed", "completed", payload, None, 1, None, None, 0)
    return Answer(ended, normalize_steps(payload))


class Wide:
    """The wide tables without a load: pages of rows in, columns out, and the warnings there were."""

    def __init__(self, types: dict[str, dict[str, str]] | None = None, naming: NamingConvention = NAMING) -> None:
        self.warnings: list[str] = []
        self.tables = RowTables(naming, types or {}, self.warnings.append)

    def page(self, *rows: Any) -> dict[str, list[Any]]:
        ((_, table),) = self.tables.arrow_tables([answer_of(*rows)], "load")
        return {name: values for name, values in table.to_pydict().items() if name not in _KEYS}

    def values(self, *rows: Any) -> dict[str, list[Any]]:
        return {name: values for name, values in self.page(*rows).items() if not name.endswith("__confidence")}


# Times


@pytest.mark.parametrize(
    "text",
    ["2024-01-01T10:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2024-01-01T10:00:00-25:00"],
)
def test_times_in_metadata_are_text(make_pipeline: MakePipeline, sandbox: Sandbox, text: str) -> None:
    sandbox.add(WORKFLOW, "ex", completed(WORKFLOW, "ex", [], metadata={"at": text}))
    pipeline = make_pipeline()

    pipeline.run(source_of(sandbox, ["ex"]))
    assert [row["metadata__at"] for row in records(pipeline, "executions")] == [text]


# Names


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("Größe", "grosse"),
        ("保険番号", "bao_xian_fan_hao"),
        ("🚗", "_red_carx"),
        ("Policy Number", "policy_number"),
        ("policyNumber", "policy_number"),
        ("1st loss", "_1st_loss"),
        ("select", "select"),
        ('say "x"', "say_x"),
        ("a\nb\tc", "a_b_c"),
        ("a.b", "a_b"),
        ("amount__confidence", "amount__confidence"),
        ("x" * 300, "x" * 300),
        ("", None),
        ("__", None),
        ("  ", None),
        ("\u200b", None),
    ],
)
def test_names_become_columns(name: str, column: str | None) -> None:
    found = column_name(name, NAMING)

    assert found is None if column is None else found is not None and found.rstrip("x") == column.rstrip("x")


def test_different_scripts_stay_apart() -> None:
    names = ["Größe", "保険番号", "保険", "🚗", "🚗🚗", "🚙", "цена", "τιμή"]

    assert len({column_name(name, NAMING) for name in names}) == len(names)


@pytest.mark.parametrize("naming", [NAMING, SHORT_NAMES])
@pytest.mark.parametrize("name", ["x" * 300, "Größe " * 30, "a_b", "a__b___c", "_a_", "1", "保険番号" * 20])
def test_a_column_is_what_dlt_makes_of_its_own_name(name: str, naming: NamingConvention) -> None:
    column = column_name(name, naming)

    assert column is not None
    assert naming.normalize_path(column) == column
    assert column.isascii()


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
    wide_tables = Wide()

    found = wide_tables.values(cells_of(workflow_id="w", step_index=7, _deleted=True, _dlt_id="d", row_index="r"))

    assert found == {
        "field__workflow_id": ["w"],
        "field__step_index": [7.0],
        "field___deleted": [True],
        "field___dlt_id": ["d"],
        "field__row_index": ["r"],
    }
    assert wide_tables.warnings == []


def test_of_two_fields_that_become_one_column_the_first_wins_and_one_warning_is_given() -> None:
    wide_tables = Wide()

    for _ in range(2):
        assert wide_tables.values(*[{"Amount": cell(1, 0.5), "amount": cell(2, 0.5)}] * 3) == {"amount": [1.0] * 3}

    assert wide_tables.warnings == [
        "rows_s: field 'amount' stays in cells alone: another field of its row is column amount already"
    ]


def test_one_warning_for_each_table_and_field(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    wide_tables = Wide()
    rows = [{"A": cell(1, 0.5), "a": cell(2, 0.5), "": cell(3, 0.5)}] * 2

    list(wide_tables.tables.arrow_tables([answer_of(*rows), answer_of(*rows, step_name="T")], "load"))

    assert [warning.partition(" stays")[0] for warning in wide_tables.warnings] == [
        "rows_s: field 'a'",
        "rows_s: field ''",
        "rows_t: field 'a'",
        "rows_t: field ''",
    ]


def test_a_field_named_like_anothers_confidence_stays_in_cells() -> None:
    wide_tables = Wide()

    found = wide_tables.page({"amount": cell(1, 0.5), "amount__confidence": cell("high", 0.25)})

    assert found == {"amount": [1.0], "amount__confidence": [0.5]}
    assert len(wide_tables.warnings) == 1


@pytest.mark.parametrize("pages", [1, 2, 3])
def test_a_column_serves_one_field_even_when_the_other_comes_in_another_row(pages: int) -> None:
    wide_tables = Wide()
    rows = [{"amount__confidence": cell("high", 0.25)}, {"amount": cell(1, 0.5)}]

    if pages == 1:
        found = wide_tables.page(*rows)
        assert found == {
            "amount__confidence": ["high", None],
            "amount__confidence__confidence": [0.25, None],
        }
    else:
        wide_tables.page(rows[0])
        if pages == 3:  # another run: the types come from the stored schema
            wide_tables = Wide({"rows_s": {"amount__confidence": "text", "amount__confidence__confidence": "double"}})
        assert wide_tables.page(rows[1]) == {}
    assert len(wide_tables.warnings) == 1


def test_a_variant_column_is_not_shared_with_a_field_of_its_name() -> None:
    wide_tables = Wide()

    found = wide_tables.values(cells_of(a=1), cells_of(a="x"), cells_of(a__v_text="own"), cells_of(a__v_text=True))

    assert found == {"a": [1.0, None, None, None], "a__v_text": [None, "x", None, None]}
    assert len(wide_tables.warnings) == 1


@pytest.mark.parametrize("naming", [NAMING, SHORT_NAMES])
def test_fields_beyond_the_first_400_stay_in_cells_in_this_run_and_the_next(naming: NamingConvention) -> None:
    fields = {f"{'long ' * 20}{number}": cell(number, 0.5) for number in range(402)}
    wide_tables = Wide(naming=naming)

    first = wide_tables.page(fields)
    assert (len(first), len(wide_tables.warnings)) == (800, 2)

    again = Wide({"rows_s": dict.fromkeys(first, "double")}, naming)
    assert list(again.page(fields)) == list(first)
    assert len(again.warnings) == 2
    assert again.page({"new": cell(1, 0.5)}) == {}


def test_401_fields_load(sandbox: Sandbox, make_pipeline: MakePipeline) -> None:
    for name in "ab":
        serve_rows(sandbox, name, {f"f{number}": cell(number, 0.5) for number in range(401)})

    make_pipeline().run(source_of(sandbox, ["a"]))
    make_pipeline().run(source_of(sandbox, ["a", "b"]))

    found = columns(make_pipeline(), "rows_extract")
    assert ("f399" in found, "f400" in found, len(found)) == (True, False, 806)
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

    assert wide_tables.values(*rows) == expected
    assert Wide({"rows_s": {"a": own, "a__confidence": "double"}}).values(*rows) == expected


def test_numbers_that_a_double_cannot_hold_stay_in_cells() -> None:
    assert Wide().page(cells_of(a=Decimal("1e400"), b=Decimal(2**70))) == {
        "a__confidence": [0.5],
        "b": [float(2**70)],
        "b__confidence": [0.5],
    }


def test_a_row_that_is_no_object_is_one_field() -> None:
    assert Wide().values("text", None, 5, [1]) == {
        "_row": ["text", None, None, "[1]"],
        "_row__v_double": [None, None, 5.0, None],
    }


@pytest.mark.parametrize("wiped", [False, True])
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
    ((_, table),) = Wide().tables.arrow_tables([answer_of(cells_of(t="x", n=1, b=True))], "load")

    assert {field.name: field.type for field in table.schema if field.name in "tnb"} == {
        "t": pa.string(),
        "n": pa.float64(),
        "b": pa.bool_(),
    }
