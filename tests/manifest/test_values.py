"""Lists as Python values."""

from collections import UserDict
from collections.abc import Iterable
from typing import Any

import pytest

from further_source.manifest import read_executions
from tests.support.lists import RULE, A, B, error_of


class Text(str):
    pass


@pytest.mark.parametrize(
    "source",
    [
        ["wf/ex-1", "wf/ex_2"],
        iter([" wf/ex-1\n", Text("wf/ex_2")]),
        [("wf", "ex-1"), ["wf", Text("ex_2")]],
        [A, B],
        [
            {"workflow_id": "wf", "execution_id": "ex-1", "n": 1},
            {"workflow_id": "wf", "execution_id": "ex_2"},
        ],
        [
            UserDict(workflow_id="wf", workflow_execution_id="ex-1"),
            {"workflow_id": "wf", "workflow_execution_id": "ex_2", "execution_id": "ex_2"},
        ],
    ],
    ids=["strings", "iterator", "pairs", "execution ids", "mappings", "mappings with the API's own name"],
)
def test_python_values_of_every_shape_are_read(source: Iterable[Any]) -> None:
    executions = list(read_executions(source))
    assert executions == [A, B]
    assert {type(part) for execution in executions for part in execution} == {str}


@pytest.mark.parametrize("single", ["wf/ex-1", A, {"workflow_id": "wf", "execution_id": "ex-1"}])
def test_a_single_execution_need_not_be_in_a_list(single: Any) -> None:
    assert list(read_executions(single)) == [A]


def test_an_empty_list_is_no_error() -> None:
    assert list(read_executions([])) == []


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ("wf", "'wf' is not WORKFLOW_ID/EXECUTION_ID"),
        ("wf/ex/3", "'wf/ex/3' is not WORKFLOW_ID/EXECUTION_ID"),
        ("", "'' is not WORKFLOW_ID/EXECUTION_ID"),
        ("/ex", f"workflow_id '' {RULE}"),
        ("wf/", f"execution_id '' {RULE}"),
        ("wf / ex", f"workflow_id 'wf ' {RULE}"),
        ("wf/é", f"execution_id 'é' {RULE}"),
        ("wf/٣", f"execution_id '٣' {RULE}"),
        ("wf/a\nb\x1b[0m", rf"execution_id 'a\nb\x1b[0m' {RULE}"),
        ("wf/" + "x" * 129, f"execution_id '{'x' * 77}…' {RULE}"),
        (("wf", "ex\n"), rf"execution_id 'ex\n' {RULE}"),
        (("wf", 7), "execution_id is a number; ids are text, so put it in quotes"),
        ((7.5, "ex"), "workflow_id is a number; ids are text, so put it in quotes"),
        (("wf", None), f"execution_id is null, which {RULE}"),
        (("wf", True), f"execution_id is of type bool, which {RULE}"),
        ({"workflow_id": "wf", "workflow_execution_id": "a b"}, f"workflow_execution_id 'a b' {RULE}"),
        ({"execution_id": "ex"}, "no key workflow_id"),
        ({"workflow_id": "wf", "id": "ex"}, "no key execution_id or workflow_execution_id"),
        ({}, "no key workflow_id and no key execution_id or workflow_execution_id"),
        (
            {"workflow_id": "wf", "execution_id": "ex", "workflow_execution_id": "other"},
            "execution_id and workflow_execution_id are both there and differ",
        ),
    ],
)
def test_an_item_that_cannot_be_an_execution_is_named_by_its_position(item: Any, problem: str) -> None:
    assert error_of(read_executions, ["wf/ex", item]) == f"executions[1]: {problem}"


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (7, "a number"),
        (None, "null"),
        (b"wf/ex", "of type bytes"),
        (("wf", "ex", "3"), "of type tuple"),
        (b"wf", "of type bytes"),
    ],
)
def test_an_item_of_no_known_shape_is_told_what_is_expected(item: Any, kind: str) -> None:
    assert error_of(read_executions, [item], origin="arguments") == (
        f"arguments[0]: {kind}, not an execution (text WORKFLOW_ID/EXECUTION_ID, a pair of ids,"
        " or an object with workflow_id and execution_id)"
    )


def test_a_value_that_is_no_list_is_an_error() -> None:
    number: Any = 7
    assert error_of(read_executions, number) == "executions: a number, not a list of executions"
