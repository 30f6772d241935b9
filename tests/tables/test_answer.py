"""One answer in, records out: the samples hold an answer, and the records of `steps` and `cells` it comes to."""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from further_source import jsontext
from further_source.executions import ExecutionId
from further_source.polling.poll import Ended
from further_source.tables.answer import (
    Answer,
    normalize_steps,
    unpack_cell,
)
from further_source.tables.cells import CELLS_SCHEMA, RowGroups, cells_table
from further_source.tables.columns import CELLS
from further_source.tables.steps import step_rows

SAMPLES = sorted((Path(__file__).parent / "samples").glob("*.json"))
EXECUTION = ExecutionId("wf", "ex")
NOW = datetime(2024, 1, 1, tzinfo=timezone.utc)


def answer_of(payload: dict[str, Any] | None, *, replaces: bool = False) -> Answer:
    ended = Ended(EXECUTION, "completed", "completed", payload, None, 2, NOW, NOW, 0)
    return Answer(ended, normalize_steps(payload), replaces)


def cell_record(cell_json: str) -> dict[str, Any]:
    """What becomes of a cell, from its JSON text: value, type, number, confidence and extra."""
    body = f'{{"steps": [{{"step_name": "S", "data": {{"data": [{{"f": {cell_json}}}]}}}}]}}'
    (record,) = cells_table([answer_of(jsontext.loads(body.encode()))], "load").to_pylist()
    return {name: record[name] for name in ("value", "value_type", "value_number", "confidence", "extra")}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_come_to_their_records(path: Path) -> None:
    sample = json.loads(path.read_bytes())
    answer = answer_of(jsontext.loads(json.dumps(sample["answer"]).encode()))
    ids = EXECUTION._asdict()

    names = ["step_index", "step_name", "row_count", "schema", "metadata"]
    assert list(step_rows(answer)) == [{**ids, **dict(zip(names, row, strict=True))} for row in sample["steps"]]
    names = [name for name in CELLS_SCHEMA.names if name not in ids and not name.startswith("_d")]
    rest = {"_dlt_load_id": "load", "_deleted": None}
    assert cells_table([answer], "load").to_pylist() == [
        {**ids, **dict(zip(names, row, strict=True)), **rest} for row in sample["cells"]
    ]


@pytest.mark.parametrize(
    ("value", "text", "kind", "number"),
    [
        ('"02139"', "02139", "string", None),
        ('""', "", "string", None),
        ("5", "5", "number", 5.0),
        ("-0", "-0", "number", -0.0),
        ("[-0, -0.0]", "[-0,-0.0]", "array", None),
        (
            "123456789012345678901234567890",
            "123456789012345678901234567890",
            "number",
            123456789012345678901234567890.0,
        ),
        ("9" * 400, "9" * 400, "number", None),
        ("9007199254740993", "9007199254740993", "number", 9007199254740992.0),
        ("1.50", "1.5", "number", 1.5),
        ("1e2", "100.0", "number", 100.0),
        ("0.1000000000000000055511151231257827", "0.1", "number", 0.1),
        ("1e400", "1E+400", "number", None),
        ("-0.0", "-0.0", "number", -0.0),
        ("1e-400", "0.0", "number", 0.0),
        ("true", "true", "boolean", None),
        ("false", "false", "boolean", None),
        ("null", None, "null", None),
        ('[1, "x", null]', '[1,"x",null]', "array", None),
        ('{"b": 1.0, "a": [true]}', '{"b":1.0,"a":[true]}', "object", None),
        ("[123456789012345678901234567890]", "[123456789012345678901234567890]", "array", None),
        ('"\\u0000\\ud800"', "\ufffd\ufffd", "string", None),
    ],
)
def test_values_keep_all_that_json_says(value: str, text: str | None, kind: str, number: float | None) -> None:
    for cell_json, confidence in (
        (f'{{"value": {value}, "confidence_score": 0.9}}', 0.9),
        (f'{{"value": {value}}}', None),
    ):
        record = cell_record(cell_json)
        assert record == {
            "value": text, "value_type": kind, "value_number": number, "confidence": confidence, "extra": None
        }  # fmt: skip
        assert str(record["value_number"]) == str(number)


@pytest.mark.parametrize(
    ("keys", "confidence", "extra"),
    [
        ("", None, None),
        (', "confidence_score": null', None, None),
        (', "confidence_score": 1', 1.0, None),
        (', "confidence_score": 0.123456789', 0.123456789, None),
        (', "confidence_score": 7.5', 7.5, None),
        (', "confidence_score": "high"', None, '{"confidence_score":"high"}'),
        (', "confidence_score": true', None, '{"confidence_score":true}'),
        (', "confidence_score": [0.5]', None, '{"confidence_score":[0.5]}'),
        (', "confidence_score": 12345678901234567890123', 12345678901234567890123.0, None),
        (', "confidence_score": 1e400', None, '{"confidence_score":1E+400}'),
        (', "confidence_score": 0.5, "page": 3', 0.5, '{"page":3}'),
        (', "page": null', None, '{"page":null}'),
        (', "page": 3, "confidence_score": "low"', None, '{"page":3,"confidence_score":"low"}'),
    ],
)
def test_confidence_is_a_double_and_the_rest_is_kept(keys: str, confidence: float | None, extra: str | None) -> None:
    record = cell_record(f'{{"value": "v"{keys}}}')

    assert record == {
        "value": "v", "value_type": "string", "value_number": None, "confidence": confidence, "extra": extra
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "value", "kind", "confidence", "extra"),
    [
        ('{"value": %s, "confidence_score": 0.9}', None, "null", 0.9, '{"value":"%s"}'),
        ('{"value": %s}', None, "null", None, '{"value":"%s"}'),
        ("%s", None, "null", None, '{"value":"%s"}'),
        ('{"value": "v", "confidence_score": %s}', "v", "string", None, '{"confidence_score":"%s"}'),
        ('{"value": "v", "confidence_score": [%s]}', "v", "string", None, '{"confidence_score":["%s"]}'),
        ('{"value": "v", "page": %s, "box": [1, %s]}', "v", "string", None, '{"page":"%s","box":[1,"%s"]}'),
        ('{"value": %s, "page": 3}', None, "null", None, '{"page":3,"value":"%s"}'),
        ('{"value": [1, [%s]]}', "[1,[null]]", "array", None, '{"value":[1,["%s"]]}'),
        ('{"value": {"a": {"b": %s}}}', '{"a":{"b":null}}', "object", None, '{"value":{"a":{"b":"%s"}}}'),
        ("[%s, 1]", "[null,1]", "array", None, '{"value":["%s",1]}'),
        ('{"page": %s}', '{"page":null}', "object", None, '{"value":{"page":"%s"}}'),
    ],
)
@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_null_and_their_text_is_kept(
    constant: str, cell: str, value: str | None, kind: str, confidence: float | None, extra: str
) -> None:
    assert cell_record(cell.replace("%s", constant)) == {
        "value": value,
        "value_type": kind,
        "value_number": None,
        "confidence": confidence,
        "extra": extra.replace("%s", constant),
    }


def test_a_number_that_is_none_harms_no_neighbour() -> None:
    rows = ", ".join(f'{{"a": {{"value": {number}, "confidence_score": 0.5}}}}' for number in range(500))
    odd = '{"a": {"value": NaN, "confidence_score": 0.5}}, NaN, [{"b": Infinity}]'
    answer = answer_of(jsontext.loads(f'{{"steps": [{{"data": {{"data": [{rows}, {odd}]}}}}]}}'.encode()))

    records = cells_table([answer], "load").to_pylist()

    assert [record["value_number"] for record in records] == [*map(float, range(500)), None, None, None]
    assert [(record["field"], record["value"], record["extra"]) for record in records[500:]] == [
        ("a", None, '{"value":"NaN"}'),
        ("_row", None, '{"value":"NaN"}'),
        ("_row", '[{"b":null}]', '{"value":[{"b":"Infinity"}]}'),
    ]


def test_numbers_that_are_none_are_null_in_schema_and_metadata() -> None:
    body = b'{"steps": [{"data": {"schema": NaN, "metadata": {"a": [Infinity, {"b": 1, "b": 2}]}, "data": []}}]}'

    (record,) = step_rows(answer_of(jsontext.loads(body)))

    assert (record["schema"], record["metadata"]) == (None, '{"a":[null,{"b":1,"b":2}]}')


# Keys that come twice


def cells_of_rows(rows: str) -> list[tuple[Any, ...]]:
    body = f'{{"steps": [{{"data": {{"data": [{rows}]}}}}]}}'
    records = cells_table([answer_of(jsontext.loads(body.encode()))], "load").to_pylist()
    names = ("row_index", "field", "value", "confidence", "extra")
    return [tuple(record[name] for name in names) for record in records]


def test_a_field_that_comes_twice_in_a_row_stays_two_cells_in_order() -> None:
    first, second = '{"value": 1, "confidence_score": 0.5}', '{"value": 2, "page": 7}'
    row = f'{{"Amount": {first}, "Name": "a", "Amount": {second}, "Amount": 3}}'

    assert cells_of_rows(f'{row}, {{"Amount": 4, "Name": "b"}}, {row}') == [
        (0, "Amount", "1", 0.5, None),
        (0, "Name", "a", None, None),
        (0, "Amount", "2", None, '{"page":7,"duplicate":2}'),
        (0, "Amount", "3", None, '{"duplicate":3}'),
        (1, "Amount", "4", None, None),
        (1, "Name", "b", None, None),
        (2, "Amount", "1", 0.5, None),
        (2, "Name", "a", None, None),
        (2, "Amount", "2", None, '{"page":7,"duplicate":2}'),
        (2, "Amount", "3", None, '{"duplicate":3}'),
    ]


def test_a_field_that_comes_twice_can_be_one_cell_with_the_others_in_it() -> None:
    row = '{"A": {"value": 1, "page": 7}, "B": "b", "A": {"value": NaN, "confidence_score": 0.5}, "A": [3]}'
    body = f'{{"steps": [{{"data": {{"data": [{row}, {{"B": 4}}, {row}]}}}}]}}'
    answer = answer_of(jsontext.loads(body.encode()))

    records = cells_table([answer], "load", unique=True).to_pylist()

    others = (
        '[{"value":"NaN","confidence_score":0.5,"duplicate":2},{"value":[3],"confidence_score":null,"duplicate":3}]'
    )
    assert [(record["row_index"], record["field"], record["value"], record["extra"]) for record in records] == [
        (0, "A", "1", f'{{"page":7,"other_cells":{others}}}'),
        (0, "B", "b", None),
        (1, "B", "4", None),
        (2, "A", "1", f'{{"page":7,"other_cells":{others}}}'),
        (2, "B", "b", None),
    ]
    assert cells_table([answer], "load").num_rows == 9  # the blocks are as they were


def test_fields_that_differ_only_in_what_cannot_be_stored_stay_two_cells() -> None:
    assert cells_of_rows(r'{"a\u0000": 1, "a\ud800": 2, "a\ufffd": 3, "a": 4}') == [
        (0, "a\ufffd", "1", None, None),
        (0, "a\ufffd", "2", None, '{"duplicate":2}'),
        (0, "a\ufffd", "3", None, '{"duplicate":3}'),
        (0, "a", "4", None, None),
    ]


@pytest.mark.parametrize(
    ("cell", "value", "confidence", "extra"),
    [
        ('{"value": "x", "value": "y", "confidence_score": 0.5}', "y", 0.5, '{"duplicates":{"value":["x"]}}'),
        (
            '{"value": 1, "value": NaN, "value": 3, "confidence_score": 0.5, "confidence_score": "low"}',
            "3",
            None,
            '{"confidence_score":"low","duplicates":{"value":[1,"NaN"],"confidence_score":[0.5]}}',
        ),
        ('{"value": 1, "page": 1, "page": 2}', "1", None, '{"page":2,"duplicates":{"page":[1]}}'),
        (
            '{"value": 1, "page": 1, "page": 2, "duplicates": 5}',
            "1",
            None,
            '{"page":2,"duplicates":5,"_duplicates":{"page":[1]}}',
        ),
        ('{"page": 1, "page": 2}', '{"page":1,"page":2}', None, None),
        ('{"value": {"a": 1, "a": [2]}}', '{"a":1,"a":[2]}', None, None),
        ('{"value": 1, "box": {"a": 1, "a": 2}}', "1", None, '{"box":{"a":1,"a":2}}'),
    ],
)
def test_of_a_key_that_comes_twice_in_a_cell_nothing_is_lost(
    cell: str, value: str, confidence: float | None, extra: str | None
) -> None:
    assert cells_of_rows(f'{{"f": {cell}}}') == [(0, "f", value, confidence, extra)]


def test_of_a_key_that_comes_twice_around_the_rows_the_last_stands() -> None:
    body = b"""{"steps": [], "steps": [{"step_name": "a", "step_name": "b",
                "data": {"data": [{"f": 0}], "data": [{"f": 1}, {"f": 2, "f": 3}]}}]}"""

    (step,) = normalize_steps(jsontext.loads(body))

    assert step.name == "b"
    assert [(block.fields, block.values) for block in step.blocks] == [(("f",), [1]), (("f", "f"), [2, 3])]


def test_an_execution_that_replaces_and_has_no_cell_leaves_a_tombstone() -> None:
    payload = {"steps": [{"step_name": "S", "data": {"data": [{"a": 1}]}}]}
    answers = [answer_of(None, replaces=True), answer_of(payload, replaces=True), answer_of({"steps": []})]

    records = cells_table(answers, "load").to_pylist()

    assert [(record["field"], record["_deleted"]) for record in records] == [(None, True), ("a", None)]
    assert all(record["workflow_execution_id"] == "ex" and record["_dlt_load_id"] == "load" for record in records)


def test_no_answer_makes_an_empty_table_of_the_same_schema() -> None:
    assert cells_table([], "load").schema == CELLS_SCHEMA
    assert cells_table([], "load").num_rows == 0
    assert set(CELLS_SCHEMA.names) == {column.name for column in CELLS.columns}


def test_a_cell_is_value_confidence_and_rest() -> None:
    assert unpack_cell({"value": 1, "confidence_score": 0.5}) == (1, 0.5, None)
    assert unpack_cell({"confidence_score": 0.5}) == ({"confidence_score": 0.5}, None, None)
    assert [jsontext.number_of(score) for score in (1, 0.5, True, "1", None)] == [1.0, 0.5, None, None, None]


@pytest.mark.parametrize("sizes", [[], [0], [2], [3], [1, 1, 1], [2, 2], [7], [2, 8, 0, 1], [0, 3, 3]], ids=str)
def test_row_groups_are_full_and_lose_no_cell(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowGroups, "ROWS", 3)
    number, row_groups, groups, tables = 0, RowGroups(), [], []
    for size in sizes:
        rows = [{"f": {"value": number + index, "confidence_score": None}} for index in range(size)]
        tables.append(cells_table([answer_of({"steps": [{"step_name": "S", "data": {"data": rows}}]})], "load"))
        groups += row_groups.add(tables[-1])
        number += size
    assert [group.num_rows for group in groups] == [3] * (sum(sizes) // 3)
    rest = row_groups.rest()
    assert rest.num_rows == sum(sizes) % 3
    assert [row for table in [*groups, rest] for row in table.to_pylist()] == [
        row for table in tables for row in table.to_pylist()
    ]
    assert row_groups.rest().equals(CELLS_SCHEMA.empty_table())


def test_row_groups_keep_no_empty_tables() -> None:
    """While nothing ends, an empty page comes every second."""
    row_groups, empty = RowGroups(), cells_table([], "load")
    chunks = [row_groups.rest().column("value").num_chunks]
    for _ in range(100):
        assert row_groups.add(empty) == []
    chunks.append(row_groups.rest().column("value").num_chunks)
    assert chunks[0] == chunks[1]
