"""One execution of a list: its two ids, checked, and the keys or columns that hold them."""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from itertools import islice
from typing import Any

from further_source.executions import ExecutionId
from further_source.settings import ID_PATTERN
from further_source.text import shown

__all__ = [
    "WORKFLOW_KEY",
    "Problem",
    "Unnamed",
    "clean_ids",
    "execution_of",
    "kind_of",
    "known_columns",
    "positions_of",
    "same_id",
    "shared",
]

WORKFLOW_KEY = "workflow_id"
_EXECUTION_KEYS = ("workflow_execution_id", "execution_id")

_is_id = re.compile(ID_PATTERN).fullmatch
_ID_RULE = "is not an id (letters, digits, - and _, 1 to 128 characters)"


class Problem(Exception):
    """What is wrong with an item or a line. A caller that knows its place makes a `ManifestError` of it."""


class Unnamed(Problem):
    """A column or a key of an id is missing."""


def execution_of(item: object) -> ExecutionId:
    """The execution that one value of a list is; its shapes are those of `read_executions`.

    Raises:
        Problem: It is none.
    """
    if isinstance(item, str):
        workflow_id, slash, execution_id = item.strip().partition("/")
        if not slash or "/" in execution_id:
            raise Problem(f"{shown(item)} is not WORKFLOW_ID/EXECUTION_ID")
        return _checked(workflow_id, execution_id)
    if isinstance(item, (dict, Mapping)):
        return _from_mapping(item)
    if isinstance(item, Iterable) and not isinstance(item, (bytes, bytearray, Set)):
        pair = tuple(islice(item, 3))
        if len(pair) == 2:
            return _checked(*pair)
    raise Problem(
        f"{kind_of(item)}, not an execution (text WORKFLOW_ID/EXECUTION_ID, a pair of ids,"
        " or an object with workflow_id and execution_id)"
    )


def _from_mapping(item: Mapping[Any, Any]) -> ExecutionId:
    keys = {key: key for key in (WORKFLOW_KEY, *_EXECUTION_KEYS) if key in item}
    if len(keys) < 2 or WORKFLOW_KEY not in keys:
        keys = _known_names([key for key in item if isinstance(key, str)], "key")
        _check_keys(keys, "key")
    return same_id(item[keys.pop(WORKFLOW_KEY)], {key: item[name] for key, name in keys.items()})


def positions_of(columns: Sequence[str]) -> dict[str, int]:
    """Where the columns of the ids are, by key: that of the workflow first.

    Raises:
        Unnamed: One is missing.
        Problem: One is there twice.
    """
    names = [name.strip() for name in columns]
    found = _known_names(names, "column")
    _check_keys(found, "column")
    return {key: names.index(name) for key, name in found.items()}


def known_columns(header: list[str]) -> int:
    """How many of the two columns that a list needs are in this header."""
    names = {_plain(name) for name in header}
    return (_plain(WORKFLOW_KEY) in names) + (not names.isdisjoint(map(_plain, _EXECUTION_KEYS)))


def clean_ids(record: list[str], workflow: int, execution: int) -> ExecutionId | None:
    """The ids at these positions, or None if they need trimming or are wrong. Quick, because most records are clean."""
    try:
        workflow_id, execution_id = _clean_workflow_id(record[workflow]), record[execution]
    except IndexError:
        return None
    return ExecutionId(workflow_id, execution_id) if workflow_id and _is_id(execution_id) else None


@lru_cache(maxsize=1024)
def _clean_workflow_id(text: str) -> str | None:
    return shared(text) if _is_id(text) else None


def same_id(workflow_id: object, executions: Mapping[str, object]) -> ExecutionId:
    """The checked ids. `executions` has the execution's id under one or both of the names it may have.

    Raises:
        Problem: One is no id, or the two names hold different ones.
    """
    first, *others = [_checked(workflow_id, value, key) for key, value in executions.items()]
    if any(other != first for other in others):
        raise Problem("execution_id and workflow_execution_id are both there and differ")
    return first


@lru_cache(maxsize=1024)
def shared(workflow_id: str) -> str:
    """The same object for equal ids. Long lists name few workflows, so this saves a third of their memory."""
    return workflow_id


def _known_names(names: list[str], noun: str) -> dict[str, str]:
    """Which of the names stands for which key: itself where it is there, else the one that is like it."""
    found = {}
    for key in (WORKFLOW_KEY, *_EXECUTION_KEYS):
        like = [key] * names.count(key) or [name for name in names if _plain(name) == _plain(key)]
        if len(like) > 1:
            raise Problem(f"the {noun} {key} comes twice")
        if like:
            found[key] = like[0]
    return found


def _check_keys(found: Mapping[str, str], noun: str) -> None:
    missing = []
    if WORKFLOW_KEY not in found:
        missing.append(f"no {noun} workflow_id")
    if found.keys().isdisjoint(_EXECUTION_KEYS):
        missing.append(f"no {noun} execution_id or workflow_execution_id")
    if missing:
        raise Unnamed(" and ".join(missing))


@lru_cache(maxsize=1024)
def _plain(name: str) -> str:
    """Letters and digits in lower case: `Workflow ID`, `workflow-id` and `workflowId` are `workflow_id`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _checked(workflow_id: object, execution_id: object, execution_key: str = "execution_id") -> ExecutionId:
    return ExecutionId(shared(_id(WORKFLOW_KEY, workflow_id)), _id(execution_key, execution_id))


def _id(key: str, value: object) -> str:
    if not isinstance(value, str):
        hint = "; ids are text, so put it in quotes" if _is_number(value) else f", which {_ID_RULE}"
        raise Problem(f"{key} is {kind_of(value)}{hint}")
    if not (match := _is_id(value)):
        raise Problem(f"{key} {shown(value)} {_ID_RULE}")
    return match[0]  # not `value`, which may be an instance of a subclass


def kind_of(value: object) -> str:
    """What kind of value it is, as messages say it."""
    if value is None:
        return "null"
    return "a number" if _is_number(value) else f"of type {type(value).__name__}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
