"""What `executions` takes from answers, and what it says of polling."""

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from dlt.common.normalizers.naming.snake_case import NamingConvention

from further_source import jsontext
from further_source.executions import ExecutionId
from further_source.polling.poll import Ended
from further_source.sandbox import Sandbox
from further_source.tables.answer import Answer
from further_source.tables.executions import AnswerColumns, _path, _pointer, declared_types, execution_row
from tests.conftest import MakePipeline
from tests.support.loading import records, serve_steps, source_of, tables
from tests.support.slow import few_of

NAMING = NamingConvention()
NOW = datetime(2024, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def load_answers(sandbox: Sandbox, make_pipeline: MakePipeline) -> Any:
    """Loads answers with such keys, each in a load of its own or in one; gives what came of the keys."""

    def load(*extras: dict[str, Any], apart: bool = False) -> list[dict[str, Any]]:
        for number, extra in enumerate(extras):
            serve_steps(sandbox, f"ex{number:03}", **extra)
        listed = [f"ex{number:03}" for number in range(len(extras))]
        for part in [[name] for name in listed] if apart else [listed]:
            make_pipeline().run(source_of(sandbox, part, max_workers=1))  # answers in their order
        own = ("workflow_id", "workflow_execution_id", "status", "step_count", "cell_count")
        return [
            {
                key: value
                for key, value in row.items()
                if value is not None and key not in own and not key.startswith("poll_")
            }
            for row in records(make_pipeline(), "executions")
        ]

    return load


def test_objects_are_flattened_and_lists_are_json_text(load_answers: Any, make_pipeline: MakePipeline) -> None:
    found = load_answers(
        {
            "metadata": {"external_id": "x", "team": {"name": "a", "size": 3}, "tags": ["u", {"v": 1}]},
            "score": 0.5,
            "urgent": True,
            "at": "2024-01-01T10:00:00Z",
            "none": None,
        }
    )

    assert found == [
        {
            "metadata__external_id": "x",
            "metadata__team__name": "a",
            "metadata__team__size": 3,
            "metadata__tags": '["u",{"v":1}]',
            "score": 0.5,
            "urgent": True,
            "at": "2024-01-01T10:00:00Z",
        }
    ]
    assert tables(make_pipeline()) == {"executions", "steps", "cells"}


def test_metadata_that_is_no_object_is_one_column(load_answers: Any) -> None:
    found = load_answers({"metadata": "text"}, {"metadata": [1]}, {"metadata": None}, {"metadata": {"a": 1}})

    assert found == [{"metadata": "text"}, {"metadata": "[1]"}, {}, {"metadata__a": 1}]


def test_keys_that_collide_with_ours_are_set_apart(load_answers: Any) -> None:
    assert load_answers({"poll_outcome": "theirs", "Status": "odd", "_deleted": True, "_dlt_id": 7}) == [
        {"answer__poll_outcome": "theirs", "answer__status": "odd", "answer___deleted": True, "dlt_id": 7}
    ]


@pytest.mark.parametrize("apart", few_of([False, True]))
def test_values_of_another_type_are_never_made_to_fit(load_answers: Any, apart: bool) -> None:
    found = load_answers(
        {"n": 1, "d": 1.5, "b": True, "t": "text", "metadata": {"external_id": 2**70}},
        {"n": "02139", "d": "1.50", "b": 1, "t": 2139, "metadata": {"external_id": True}},
        {"n": 2.5, "d": 7, "b": "true", "t": [1], "metadata": {"external_id": 1.5}},
        {"n": 2**70, "d": True, "b": None, "t": True, "metadata": {"external_id": "2024-01-01T00:00:00Z"}},
        {"n": 3.0, "d": 1e300, "b": False, "t": 0.1},
        {"n": 1e300},
        apart=apart,
    )

    assert found == [
        {"n": 1, "d": 1.5, "b": True, "t": "text", "metadata__external_id": str(2**70)},
        {"n__v_text": "02139", "d__v_text": "1.50", "b__v_bigint": 1, "t": "2139", "metadata__external_id": "true"},
        {"n__v_double": 2.5, "d": 7.0, "b__v_text": "true", "t": "[1]", "metadata__external_id": "1.5"},
        {"n__v_text": str(2**70), "d__v_bool": True, "t": "true", "metadata__external_id": "2024-01-01T00:00:00Z"},
        {"n": 3, "d": 1e300, "b": False, "t": "0.1"},
        {"n__v_double": 1e300},
    ]


def test_deep_objects_hundreds_of_keys_and_names_of_any_kind_load(load_answers: Any) -> None:
    deep: Any = "bottom"
    for _ in range(100):
        deep = {"d": deep}
    many = {f"key {number}": number for number in range(500)}

    found = load_answers({"deep": deep}, {"Größe": 1, "保険番号": 2, "": 3, "a": 4, "A": 5}, many, many)

    (deep_value,) = found[0].values()
    assert deep_value.startswith('{"d":')
    assert deep_value.count('{"d":') + next(iter(found[0])).count("__d") == 100
    assert found[1] == {"grosse": 1, "bao_xian_fan_hao": 2, "unnamed": 3, "a": 4, "a_2": 5}
    for row in found[2:]:
        assert row["key_0"] == 0
        assert '"key 499":499' in row["answer__other"]
        assert len(row) < 401


def test_a_column_belongs_to_one_key_for_ever() -> None:
    first = AnswerColumns(NAMING, declared_types())
    assert first.row({"metadata": {"Claim #": "a", "external_id": "X"}, "Größe": 1}, ()) == {
        "metadata__claim_number": "a",
        "metadata__external_id": "X",
        "grosse": 1,
    }
    assert [(field.field, field.text_column, field.number_column) for field in first.changed.values()] == [
        ("/metadata/Claim #", "metadata__claim_number", None),
        ("/Größe", None, "grosse"),
    ]

    again = AnswerColumns(NAMING, {**declared_types(), **first.wanted}, first.changed.values())
    assert again.row({"metadata": {"claim_number": "b", "Claim #": "c", "externalId": "Y"}, "grosse": 2}, ()) == {
        "metadata__claim_number_2": "b",
        "metadata__claim_number": "c",
        "metadata__external_id_2": "Y",
        "grosse_2": 2,
    }


def test_a_key_named_like_its_column_needs_no_record() -> None:
    columns = AnswerColumns(NAMING, declared_types())
    columns.row({"metadata": {"external_id": "X", "team": {"size": 3}}, "score": 0.5, "none": None}, ())

    assert columns.changed == {}
    assert columns.wanted == {"metadata__team__size": "bigint", "score": "double"}


def test_keys_beyond_the_last_column_are_told_once() -> None:
    columns = AnswerColumns(NAMING, {"a": "text"}, max_columns=2)

    assert columns.row({"a": "1", "b": "2", "c": "3"}, ()) == {"a": "1", "b": "2", "answer__other": '{"c":"3"}'}
    (field,) = columns.changed.values()
    assert (field.field, field.reason) == ("/c", "executions has 2 columns; such keys are in answer__other")
    again = AnswerColumns(NAMING, {"a": "text", **columns.wanted}, columns.changed.values(), max_columns=2)
    assert again.row({"a": "1", "b": "2", "c": "3"}, ()) == {"a": "1", "b": "2", "answer__other": '{"c":"3"}'}
    assert again.changed == {}


@pytest.mark.parametrize("path", [("a",), ("a.b", "c/d", "e~f"), ("",), ("", "x"), ("~1", "/0")])
def test_a_key_is_recorded_by_its_json_pointer(path: tuple[str, ...]) -> None:
    assert _path(_pointer(path)) == path


def test_keys_without_a_column_are_kept_as_they_are_nested() -> None:
    """Their paths joined by dots may be equal."""
    answers = AnswerColumns(NAMING, {"x": "text"}, max_columns=1)
    row = answers.row({"A.B": 1, "A": {"B": 2, "-": 3}, "A.-": 4, "x": "own"}, ())

    assert row.pop("x") == "own"
    assert json.loads(row.pop("answer__other")) == {"A.B": 1, "A": {"B": 2, "-": 3}, "A.-": 4}
    assert row == {}


def test_poll_columns_are_how_polling_went() -> None:
    ended = Ended(ExecutionId("wf", "ex"), "unreachable", None, None, "timed out", 10, NOW, NOW, 0)

    assert execution_row(Answer(ended), AnswerColumns(NAMING, declared_types())) == {
        "workflow_id": "wf",
        "workflow_execution_id": "ex",
        "status": None,
        "poll_outcome": "unreachable",
        "poll_error": "timed out",
        "step_count": None,
        "cell_count": None,
        "poll_count": 10,
        "poll_first_at": NOW,
        "poll_last_at": NOW,
    }


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ('{"a": NaN, "b": [1, Infinity], "c": {"d": -Infinity}}', {"metadata__b": "[1,null]"}),
        ('{"a": -0, "b": 9223372036854775807}', {"metadata__a": 0, "metadata__b": 2**63 - 1}),
        ('{"a": 9223372036854775808}', {"metadata__a": "9223372036854775808"}),
        ('{"a": 1, "b": {"c": 1, "c": 2}, "a": 2}', {"metadata__a": 2, "metadata__b__c": 2}),
        ('{"a": [{"c": 1, "c": 2}]}', {"metadata__a": '[{"c":1,"c":2}]'}),
        ("NaN", {}),
    ],
)
def test_what_json_has_and_columns_have_not(metadata: str, expected: dict[str, Any]) -> None:
    """A constant is null; of a key that comes twice the last stands, but in JSON text both stay."""
    payload = jsontext.loads(f'{{"metadata": {metadata}}}'.encode())

    assert AnswerColumns(NAMING, {}).row(payload, ()) == expected
