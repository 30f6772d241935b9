"""Large answers, read part by part, come to the same records as those that are read at once."""

import json
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pytest
from dlt.common.normalizers.naming.snake_case import NamingConvention
from hypothesis import given, settings
from hypothesis import strategies as st

from further_source import jsontext
from further_source.executions import ExecutionId
from further_source.jsontext import MANY_BYTES, Unread
from further_source.polling.poll import Ended
from further_source.sandbox import Sandbox, cell, completed, failed, step
from further_source.tables.answer import Answer, normalize_steps
from further_source.tables.cells import cells_table
from further_source.tables.executions import AnswerColumns, declared_types, execution_row
from further_source.tables.fields import FieldColumns
from further_source.tables.parts import in_parts
from further_source.tables.rows import wide_tables
from further_source.tables.steps import step_rows
from tests.support.loading import WORKFLOW, query, records, serve_steps, source_of, wide
from tests.tables.test_answer import SAMPLES
from tests.tables.test_fuzz import EXTRAS, OVERRIDES

PART = 60_000_000  # bytes that the records of a part take, and the text of it as objects


def answer_of(body: bytes, *, replaces: bool = False) -> Answer:
    payload = jsontext.loads(body, unread="steps")
    ended = Ended(ExecutionId(WORKFLOW, "ex"), "completed", "completed", payload, None, 1, None, None, 0)
    return Answer(ended, normalize_steps(payload), replaces)


def long(body: bytes) -> bytes:
    return body + b" " * MANY_BYTES


def cells_of(parts: Iterator[list[Answer]]) -> list[dict[str, Any]]:
    return [row for part in parts for row in cells_table(part, "load").to_pylist()]


@settings(deadline=None, max_examples=60)
@given(OVERRIDES, EXTRAS, st.sampled_from([1, 100, 10**6]), st.sampled_from([1, 60, 10**6]), st.booleans())
def test_parts_come_to_the_same_records(
    override: dict[str, Any], extra: dict[str, Any], part_bytes: int, batch_bytes: int, doubles: bool
) -> None:
    text = json.dumps({**extra, **override})
    if doubles:  # keys that come twice
        text = text.replace('"a"', '"b"').replace('"A"', '"b"')
    body = text.encode()
    at_once, in_several = answer_of(body), answer_of(long(body))

    assert list(step_rows(in_several)) == list(step_rows(at_once))
    (whole,) = in_parts([at_once], part_bytes, batch_bytes)
    assert whole == [at_once]
    parts = list(in_parts([in_several], part_bytes, batch_bytes))
    assert str(cells_of(iter(parts))) == str(cells_of(iter([whole])))
    assert [answer.is_part for part in parts for answer in part] == [*[True] * (sum(map(len, parts)) - 1), False]
    assert parts[-1][-1].cell_count == at_once.cell_count


def rows_of(parts: Iterator[list[Answer]]) -> dict[str, Any]:
    """All records of all tables, without nulls, by table."""
    naming = NamingConvention()
    columns, fields = AnswerColumns(naming, declared_types()), FieldColumns([], {}, naming, 400)
    rows: dict[str, Any] = defaultdict(list)
    for part in parts:
        whole = [answer for answer in part if not answer.is_part]
        rows["executions"] += [execution_row(answer, columns) for answer in whole]
        rows["steps"] += [row for answer in whole for row in step_rows(answer)]
        for name, table in [("cells", cells_table(part, "load")), *wide_tables(part, fields, "load")]:
            rows[name] += [{key: value for key, value in row.items() if value is not None} for row in table.to_pylist()]
    return {**rows, "fields": fields.recorded}


ROW = '{"a": {"value": "x", "confidence_score": 0.5}, "b": {"value": 12.50}}'
GOOD = f'{{"step_name": "Good", "data": {{"schema": {{"a": -0}}, "data": [{ROW}, {ROW}], "metadata": null}}}}'
STEPS = {
    "no step": "null",
    "a text": '"step"',
    "an empty step": "{}",
    "without data": '{"step_name": "S", "data": null}',
    "without rows": '{"step_name": "S", "data": {"schema": {}}}',
    "rows that are null": '{"step_name": "S", "data": {"data": null}}',
    "one row": f'{{"step_name": "S", "data": {{"data": {ROW}}}}}',
    "data that is the rows": f'{{"step_name": "S", "data": [{ROW}]}}',
    "a name that is none": f'{{"step_name": {{"a": 1, "a": 2}}, "data": {{"data": [{ROW}]}}}}',
    "two names": f'{{"step_name": "S", "step_name": "T", "data": {{"data": [{ROW}]}}}}',
    "data twice": f'{{"step_name": "S", "data": null, "data": {{"data": [], "data": [{ROW}]}}}}',
    "odd rows": f'{{"data": {{"data": [1, null, [], "x", {{}}, {ROW}, {{"a": 1, "a": {{"value": 2, "value": 3}}}}]}}}}',
    "odd numbers": '{"data": {"data": [{"n": [-0, -0.0, 1e400, 1e9999999999999999999999, 0.1]}]}}',
    "a constant": '{"data": {"data": [{"n": {"value": NaN, "confidence_score": -Infinity}}]}}',
    "odd texts": '{"data": {"data": [{"\\u0000": "\\u0000", "a\\": \\"b": "c\\": "}]}}',
    "a lone surrogate": '{"data": {"data": [{"\\ud800": "\\ud800"}]}}',
    "deep": f'{{"data": {{"data": [{{"n": {"[" * 850}{"]" * 850}}}]}}}}',
}


@pytest.mark.parametrize("steps", [f"[{step}, {GOOD}]" for step in STEPS.values()] + list(STEPS.values()))
def test_odd_steps_come_to_the_same_tables(steps: str) -> None:
    assert_same_tables(f'{{"status": "completed", "metadata": {{"n": 1, "n": 2}}, "steps": {steps}}}'.encode())


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_come_to_the_same_tables(path: Path) -> None:
    assert_same_tables(json.dumps(json.loads(path.read_bytes())["answer"]).encode())


def assert_same_tables(body: bytes) -> None:
    at_once = rows_of(in_parts([answer_of(body)]))

    assert rows_of(in_parts([answer_of(long(body))], part_bytes=1, batch_bytes=1)) == at_once


@pytest.mark.parametrize("name", ["no step", "without data", "rows that are null", "data that is the rows", "deep"])
def test_a_step_of_another_shape_leaves_the_others_unread(name: str) -> None:
    answer = answer_of(long(f'{{"steps": [{GOOD}, {STEPS[name]}, {GOOD}]}}'.encode()))

    assert [len(step.unread) for step in answer.steps][::2] == [2, 2]


@pytest.mark.slow
def test_a_large_answer_takes_four_times_its_size_and_what_a_part_takes_at_most() -> None:
    row = (
        b'{"name": {"value": "Jane Smith", "confidence_score": 0.95}, "paid": {"value": 12.5, "confidence_score": 0.9}}'
    )
    rows = b",".join([row] * 80_000)
    body = b'{"status": "completed", "steps": [{"step_name": "S", "data": {"data": [%s]}}]}' % rows
    cells = 0
    tracemalloc.start()
    try:
        for part in in_parts([answer_of(body)]):
            cells += cells_table(part, "load").num_rows
            peak = tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory() + len(body)
            part.clear()
    finally:
        tracemalloc.stop()

    assert cells == 160_000
    assert peak <= 4 * len(body) + PART, peak / len(body)


def test_rows_of_a_large_answer_stay_unread_until_their_part() -> None:
    rows = [{"n": cell(number, 0.5)} for number in range(100)]
    answer = answer_of(long(json.dumps(completed(WORKFLOW, "ex", [step("S", rows), step("T", rows)])).encode()))

    assert isinstance(answer.ended.payload, dict)
    assert type(answer.ended.payload["steps"]) is Unread
    assert [(each.row_count, each.blocks) for each in answer.steps] == [(100, []), (100, [])]
    parts = list(in_parts([answer, answer], part_bytes=2_000, batch_bytes=500))
    assert len(parts) > 8
    assert max(sum(each.cell_count for each in part if each.is_part) for part in parts) < 60
    whole = [each for part in parts for each in part if not each.is_part]
    assert [each.cell_count for each in whole] == [200, 200]
    assert [[one.row_count for one in each.steps] for each in whole] == [[100, 100]] * 2


def test_small_answers_stay_together() -> None:
    body = json.dumps(completed(WORKFLOW, "ex", [step("S", [{"n": cell(1, 0.5)}])])).encode()
    answers = [answer_of(body) for _ in range(10)]

    assert list(in_parts(answers)) == [answers]
    assert list(in_parts([])) == []


def test_a_row_that_is_nested_very_deeply_is_read_wherever_the_stack_stands() -> None:
    depth = 850
    nested = "[" * depth + "]" * depth
    body = f'{{"steps": [{{"data": {{"data": [{{"deep": {nested}}}], "schema": {nested}}}}}]}}'
    payload = jsontext.loads(long(body.encode()), unread="steps")

    def read(levels: int) -> tuple[list[str], list[str]]:
        if levels:
            return read(levels - 1)
        answer = replace(answer_of(b"{}"), steps=normalize_steps(payload))
        cells = cells_of(in_parts([answer]))
        return [cell["value"] for cell in cells], [row["schema"] for row in step_rows(answer)]

    assert type(payload["steps"]) is Unread
    for levels in (0, 300):
        assert read(levels) == ([nested], [nested])


@pytest.mark.slow
def test_a_large_answer_is_loaded_whole_and_replaced(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    text = "x" * 1_000
    rows = [
        {"number": cell(number, 0.5), "text": cell(text, 0.5), "Number": cell("n", None)} for number in range(9_000)
    ]
    serve_steps(sandbox, "large", step("Extract", rows), step("Other", rows[:2]), metadata={"external_id": "L"})
    sandbox.serve(WORKFLOW, "small", failed(WORKFLOW, "small"))
    pipeline.run(source_of(sandbox, ["large", "small"]))

    executions = query(pipeline, "SELECT workflow_execution_id, poll_outcome FROM executions ORDER BY 1")
    assert executions == [("large", "completed"), ("small", "failed")]
    steps = query(pipeline, "SELECT step_index, step_name, row_count FROM steps ORDER BY 1")
    assert steps == [(0, "Extract", 9_000), (1, "Other", 2)]
    counted = (
        "SELECT count(*), count(DISTINCT row_index), min(row_index), max(row_index) FROM cells WHERE step_index = 0"
    )
    assert query(pipeline, counted) == [(27_000, 9_000, 0, 8_999)]
    assert query(
        pipeline, "SELECT count(*) FROM rows_extract WHERE number <> row_index OR text <> repeat('x', 1000)"
    ) == [(0,)]
    assert len(wide(pipeline, "rows_other")) == 2

    serve_steps(sandbox, "large", step("Extract", rows[:5_000]))
    pipeline.run(source_of(sandbox, ["large", "small"], reload=True))

    assert len(records(pipeline, "executions")) == 2
    assert query(pipeline, "SELECT step_index, row_count FROM steps") == [(0, 5_000)]
    assert query(pipeline, counted) == [(15_000, 5_000, 0, 4_999)]
    assert len(wide(pipeline, "rows_extract")) == 5_000
    assert wide(pipeline, "rows_other") == []
