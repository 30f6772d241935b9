"""Reads the list of executions from Python values, from files, from standard input and from databases.

An item is read when it is asked for; the first one that cannot be an execution raises `ManifestError`.
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache
from itertools import chain, islice
from typing import Any
from uuid import UUID

from further_source.exceptions import ManifestError
from further_source.executions import ExecutionId
from further_source.garbage import rarely_collected
from further_source.listfile import STANDARD_INPUT, ListFile, Unreadable, list_file
from further_source.listquery import Unanswered, queried
from further_source.settings import ID_PATTERN, MAX_LIST_JSON, MAX_LIST_LINES
from further_source.text import shown, shown_url

WORKFLOW_KEY = "workflow_id"
EXECUTION_KEYS = ("workflow_execution_id", "execution_id")

_is_id = re.compile(ID_PATTERN).fullmatch
_match_line = re.compile(rf"\s*({ID_PATTERN})/({ID_PATTERN})\s*").fullmatch

_SEPARATORS = (",", ";", "\t", "|")
_match_separator = re.compile(r'"?sep=([,;\t|])"?').fullmatch

_QUERY = "executions_query"
_TOO_MUCH_JSON = "not JSON that can be read (nested too deeply, or a number too long)"
_ID_RULE = "is not an id (letters, digits, - and _, 1 to 128 characters)"


class _Problem(Exception):
    """What is wrong with an item or a line. A caller that knows its place makes a `ManifestError` of it."""


class _Unnamed(_Problem):
    """A column or a key of an id is missing."""


def read_executions(source: Iterable[Any], *, origin: str = "executions") -> Iterator[ExecutionId]:
    """Reads executions from Python values.

    Args:
        source: Any iterable of `"WORKFLOW_ID/EXECUTION_ID"`, of pairs of ids, or of mappings with the keys
            `workflow_id` and `execution_id` or `workflow_execution_id` (others are ignored). A single string,
            mapping or `ExecutionId` is one execution.
        origin: The name of the source in errors, as in `executions[3]`.

    Raises:
        ManifestError: An item cannot be an execution. The message names its position, counted from 0.
    """
    if isinstance(source, (str, Mapping, ExecutionId)):
        source = [source]
    elif not isinstance(source, Iterable):
        raise ManifestError(f"{origin}: {_kind(source)}, not a list of executions")
    for position, item in enumerate(source):
        try:
            yield _execution(item)
        except _Problem as problem:
            raise ManifestError(f"{origin}[{position}]: {problem}") from None


def items_of(resource: Iterable[Any]) -> Iterator[Any]:
    """The items that a resource of dlt's yields: those of tables (arrow, pandas) are their rows."""
    for item in resource:
        if hasattr(item, "to_pylist"):
            yield from item.to_pylist()
        elif hasattr(item, "to_dict") and hasattr(item, "columns"):
            yield from item.to_dict("records")
        else:
            yield item


def read_executions_file(path_or_url: str | os.PathLike[str]) -> Iterator[ExecutionId]:
    """Reads executions from a file, a URL that fsspec can open, a pipe, or standard input (`-`).

    The text is UTF-8, or UTF-16 with a byte order mark. What is packed (`.gz`, `.bz2`, `.xz`, a `.zip` of one file) is
    unpacked. How it is read is decided by the end of the name, before a suffix of packing if there is one; where that
    says nothing, and for what has no name, by the first line.

    - `.csv`, `.tsv`: a header with the columns `workflow_id` and `execution_id` or `workflow_execution_id`, or named
      like them, as `Workflow ID`; others are ignored. Separated by commas, semicolons, tabs or bars. Fields may be
      quoted. Records without any text are skipped.
    - `.jsonl`, `.ndjson`: one JSON value per line, of the same shapes as in `read_executions`. Blank lines are
      skipped.
    - `.json`: an array of them.
    - anything else: one `WORKFLOW_ID/EXECUTION_ID` per line. Blank lines and lines that start with `#` are skipped.

    Raises:
        ManifestError: The file cannot be read, is larger than a list can be (`MAX_LIST_BYTES` and the like in
            `settings`), or holds something that cannot be an execution. The message names the file (a URL without
            credentials and query) and the line, counted from 1.
    """
    path = os.fspath(path_or_url)
    name = "standard input" if path == STANDARD_INPUT else shown_url(path)
    try:
        with list_file(path) as file:
            yield from _READERS[_format(file)](file, name)
    except Unreadable as problem:
        line = f", line {problem.line}" if problem.line else ""
        raise ManifestError(f"{name}{line}: {problem}") from None


def read_executions_query(query: str, database: str) -> Iterator[ExecutionId]:
    """Reads executions from what a query gives, as it comes.

    Args:
        query: SQL that gives the columns `workflow_id` and `execution_id` or `workflow_execution_id`, or named like
            them; others are ignored. It should give them in the order of submission, the oldest first.
        database: The SQLAlchemy URL of the database. Nothing is written there.

    Raises:
        ManifestError: The database gives no such rows, or one of them cannot be an execution. The message names the
            row, counted from 1, and never holds a password.
    """
    try:
        with queried(query, database) as (columns, rows):
            yield from read_executions_rows(columns, rows)
    except Unanswered as problem:
        raise ManifestError(f"{_QUERY}: {problem}") from None


def read_executions_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[ExecutionId]:
    """Reads executions from the rows of a query, as `read_executions_query`. Ids are texts, or UUIDs of a driver's.

    Raises:
        ManifestError: As of `read_executions_query`.
    """
    try:
        positions = _positions(columns)
    except _Problem as problem:
        raise ManifestError(f"{_QUERY}: {problem}; its columns are {shown(', '.join(columns))}") from None
    workflow, execution = [*positions.values()][:2]
    for number, row in enumerate(rows, start=1):
        if number > MAX_LIST_LINES:
            raise ManifestError(f"{_QUERY}: more than {MAX_LIST_LINES:,} rows")
        if len(positions) == 2 and (ids := _clean_texts(row[workflow], row[execution])):
            yield ids
            continue
        try:
            values = {key: _text(key, row[position]) for key, position in positions.items()}
            yield _same_id(values.pop(WORKFLOW_KEY), values)
        except _Problem as problem:
            raise ManifestError(f"{_QUERY}, row {number}: {problem}") from None


def merge_executions(*sources: Iterable[ExecutionId]) -> list[ExecutionId]:
    """All executions of all sources, in their order. An execution that comes twice is kept where it came first."""
    with rarely_collected():
        return list(dict.fromkeys(chain.from_iterable(sources)))


def shard(executions: Iterable[ExecutionId], index: int, count: int) -> Iterator[ExecutionId]:
    """The executions of part `index` (from 1) of `count` parts, in their order.

    Each execution is in exactly one part. Its ids and `count` alone decide which: it is the same part on every machine,
    today and later, whatever else is listed.

    Raises:
        ValueError: `index` is not one of 1 to `count`.
    """
    if not 1 <= index <= count:
        raise ValueError(f"shard {index}/{count}: it must be one of 1/{count} to {count}/{count}")
    return (execution for execution in executions if _hash(execution) % count == index - 1)


def _hash(execution: ExecutionId) -> int:
    digest = hashlib.blake2b(f"{execution.workflow_id}/{execution.workflow_execution_id}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def _read_lines(file: ListFile, name: str) -> Iterator[ExecutionId]:
    for number, line in enumerate(file.lines(), start=1):
        if match := _match_line(line):
            workflow_id, execution_id = match.groups()
            yield ExecutionId(_shared(workflow_id), execution_id)
        elif (line := line.strip()) and not line.startswith("#"):
            try:
                yield _execution(line)
            except _Problem as problem:
                raise ManifestError(f"{name}, line {number}: {problem}") from None


def _read_jsonl(file: ListFile, name: str) -> Iterator[ExecutionId]:
    for number, line in enumerate(file.lines(), start=1):
        if not (line := line.strip()):
            continue
        try:
            yield _execution(_json(line))
        except _Problem as problem:
            raise ManifestError(f"{name}, line {number}: {problem}") from None


def _read_json(file: ListFile, name: str) -> Iterator[ExecutionId]:
    """Reads an array item by item, so that not all of it has to be in memory as objects."""
    text = file.whole(MAX_LIST_JSON)
    start, items = 0, 0
    try:
        for position, value in _json_items(text):
            start, items = position, items + 1
            yield _execution(value)
    except _Problem as problem:
        place = f"item {items}: " if items else ""
        raise ManifestError(f"{name}, line {_line_at(text, start)}: {place}{problem}") from None
    except json.JSONDecodeError as error:
        raise ManifestError(f"{name}, line {error.lineno}: not JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError):
        raise ManifestError(f"{name}, line {_line_at(text, start)}: {_TOO_MUCH_JSON}") from None


def _json_items(text: str) -> Iterator[tuple[int, object]]:
    """The items of an array, or the values of a text that is none, each with where it begins.

    Raises:
        ValueError: It is no JSON.
    """
    position = _skip_space(text, 0)
    if text[position : position + 1] != "[":
        while position < len(text):
            value, end = _decode_json(text, position)
            yield position, value
            position = _skip_space(text, end)
        return
    items = _json_array(text, position)
    first = list(islice(items, 3))
    if _is_pair([value for _, value in first]):
        yield position, [value for _, value in first]
    else:
        yield from first
        yield from items


def _json_array(text: str, position: int) -> Iterator[tuple[int, object]]:
    separator = "["
    while separator != "]":
        position = _skip_space(text, position + 1)
        if separator == "[" and text[position : position + 1] == "]":
            break
        value, end = _decode_json(text, position)
        yield position, value
        position = _skip_space(text, end)
        separator = text[position : position + 1]
        if separator not in (",", "]") or not separator:
            raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
    if (position := _skip_space(text, position + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, position)


def _line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _read_csv(file: ListFile, name: str) -> Iterator[ExecutionId]:
    lines, separator = _separated(file.lines())
    # Without `strict`, an unclosed quote would silently swallow the executions after it.
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
    columns: dict[str, int] = {}
    simple: tuple[int, ...] | None = None
    start = 1
    try:
        for record in reader:
            start = reader.line_num + 1
            if simple is not None and (ids := _clean_ids(record, *simple)):
                yield ids
            elif not any(map(str.strip, record)):
                continue
            elif columns:
                yield _from_record(record, columns)
            else:
                columns = _id_columns(record)
                simple = tuple(columns.values()) if len(columns) == 2 else None
    except csv.Error as error:
        raise ManifestError(f"{name}, line {start}: not CSV ({error})") from None
    except _Problem as problem:
        raise ManifestError(f"{name}, line {reader.line_num}: {problem}") from None


def _separated(lines: Iterator[str]) -> tuple[Iterator[str], str]:
    """All the lines, and what separates their fields: of `,`, `;`, tab and `|` what the header has."""
    start, header = [], ""
    for line in lines:
        start.append(line)
        if header := line.strip():
            break
    if match := _match_separator(header):  # Excel's own first line
        start[-1] = "\n"
        return chain(start, lines), match[1]
    return chain(start, lines), max(_SEPARATORS, key=lambda separator: _known_columns(header.split(separator)))


def _known_columns(header: list[str]) -> int:
    """How many of the columns that a list needs are in this header."""
    names = {_plain(name) for name in header}
    return (_plain(WORKFLOW_KEY) in names) + (not names.isdisjoint(map(_plain, EXECUTION_KEYS)))


_READERS: dict[str, Callable[[ListFile, str], Iterator[ExecutionId]]] = {
    "lines": _read_lines,
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": _read_csv,
}


def _execution(item: object) -> ExecutionId:
    if isinstance(item, str):
        workflow_id, slash, execution_id = item.strip().partition("/")
        if not slash or "/" in execution_id:
            raise _Problem(f"{shown(item)} is not WORKFLOW_ID/EXECUTION_ID")
        return _checked(workflow_id, execution_id)
    if isinstance(item, (dict, Mapping)):
        return _from_mapping(item)
    if isinstance(item, Iterable) and not isinstance(item, (bytes, bytearray, Set)):
        pair = tuple(islice(item, 3))
        if len(pair) == 2:
            return _checked(*pair)
    raise _Problem(
        f"{_kind(item)}, not an execution (text WORKFLOW_ID/EXECUTION_ID, a pair of ids,"
        " or an object with workflow_id and execution_id)"
    )


def _from_mapping(item: Mapping[Any, Any]) -> ExecutionId:
    keys = {key: key for key in (WORKFLOW_KEY, *EXECUTION_KEYS) if key in item}
    if len(keys) < 2 or WORKFLOW_KEY not in keys:
        keys = _known_names([key for key in item if isinstance(key, str)], "key")
        _check_keys(keys, "key")
    return _same_id(item[keys.pop(WORKFLOW_KEY)], {key: item[name] for key, name in keys.items()})


def _known_names(names: list[str], noun: str) -> dict[str, str]:
    """Which of the names stands for which key: itself where it is there, else the one that is like it."""
    found = {}
    for key in (WORKFLOW_KEY, *EXECUTION_KEYS):
        like = [key] * names.count(key) or [name for name in names if _plain(name) == _plain(key)]
        if len(like) > 1:
            raise _Problem(f"the {noun} {key} comes twice")
        if like:
            found[key] = like[0]
    return found


@lru_cache(maxsize=1024)
def _plain(name: str) -> str:
    """Letters and digits in lower case: `Workflow ID`, `workflow-id` and `workflowId` are `workflow_id`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _clean_texts(workflow_id: object, execution_id: object) -> ExecutionId | None:
    """The ids, or None if they are no texts, need trimming or are wrong."""
    if isinstance(workflow_id, str) and isinstance(execution_id, str):
        return _clean_ids([workflow_id, execution_id], 0, 1)
    return None


def _text(key: str, value: object) -> str:
    if isinstance(value, str | UUID):
        return str(value).strip()
    raise _Problem(f"{key} is {_kind(value)}" + ("" if value is None else ": the query has to CAST it to text"))


def _clean_ids(record: list[str], workflow: int, execution: int) -> ExecutionId | None:
    """The ids at these positions, or None if they need trimming or are wrong. Quick, because most records are clean."""
    try:
        workflow_id, execution_id = _clean_workflow_id(record[workflow]), record[execution]
    except IndexError:
        return None
    return ExecutionId(workflow_id, execution_id) if workflow_id and _is_id(execution_id) else None


@lru_cache(maxsize=1024)
def _clean_workflow_id(text: str) -> str | None:
    return _shared(text) if _is_id(text) else None


def _from_record(record: list[str], columns: dict[str, int]) -> ExecutionId:
    if len(record) <= max(columns.values()):
        missing = next(column for column, index in columns.items() if index >= len(record))
        raise _Problem(f"the record ends before its {missing}")
    values = {column: record[index].strip() for column, index in columns.items()}
    workflow_id = values.pop(WORKFLOW_KEY)
    return _same_id(workflow_id, values)


def _id_columns(header: list[str]) -> dict[str, int]:
    try:
        return _positions(header)
    except _Unnamed as problem:
        raise _Problem(f"{problem}; the header is {shown(','.join(name.strip() for name in header))}") from None


def _positions(columns: Sequence[str]) -> dict[str, int]:
    """Where the columns of the ids are."""
    names = [name.strip() for name in columns]
    found = _known_names(names, "column")
    _check_keys(found, "column")
    return {key: names.index(name) for key, name in found.items()}


def _check_keys(found: Mapping[str, str], noun: str) -> None:
    missing = []
    if WORKFLOW_KEY not in found:
        missing.append(f"no {noun} workflow_id")
    if found.keys().isdisjoint(EXECUTION_KEYS):
        missing.append(f"no {noun} execution_id or workflow_execution_id")
    if missing:
        raise _Unnamed(" and ".join(missing))


def _same_id(workflow_id: object, executions: Mapping[str, object]) -> ExecutionId:
    """The checked ids. `executions` has the execution's id under one or both of the names it may have."""
    first, *others = [_checked(workflow_id, value, key) for key, value in executions.items()]
    if any(other != first for other in others):
        raise _Problem("execution_id and workflow_execution_id are both there and differ")
    return first


def _checked(workflow_id: object, execution_id: object, execution_key: str = "execution_id") -> ExecutionId:
    return ExecutionId(_shared(_id(WORKFLOW_KEY, workflow_id)), _id(execution_key, execution_id))


def _id(key: str, value: object) -> str:
    if not isinstance(value, str):
        hint = "; ids are text, so put it in quotes" if _is_number(value) else f", which {_ID_RULE}"
        raise _Problem(f"{key} is {_kind(value)}{hint}")
    if not (match := _is_id(value)):
        raise _Problem(f"{key} {shown(value)} {_ID_RULE}")
    return match[0]  # not `value`, which may be an instance of a subclass


@lru_cache(maxsize=1024)
def _shared(workflow_id: str) -> str:
    """The same object for equal ids. Long lists name few workflows, so this saves a third of their memory."""
    return workflow_id


def _json(line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise _Problem(f"not JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError):
        raise _Problem(_TOO_MUCH_JSON) from None


_decode_json = json.JSONDecoder().raw_decode
_match_space = re.compile(r"[ \t\r\n]*").match


def _skip_space(text: str, position: int) -> int:
    match = _match_space(text, position)
    return match.end() if match else position


def _format(file: ListFile) -> str:
    """How it is read: as its name says, else as its first line looks."""
    first = next((line for line in re.split(r"[\r\n]+", file.beginning.lstrip("\ufeff")) if line.strip()), "")
    suffix = os.path.splitext(file.path)[1].lower() if file.is_named else ""
    if suffix in (".json", ".jsonl", ".ndjson"):
        return _json_format(first)
    return "csv" if suffix in (".csv", ".tsv") else _format_of_line(first)


def _format_of_line(line: str) -> str:
    line = line.strip()
    if line.startswith(("{", "[", '"{', '"[')) or (line.startswith('"') and "/" in line and "," not in line):
        return _json_format(line)
    if _match_separator(line) or any(_known_columns(line.replace('"', "").split(mark)) for mark in _SEPARATORS):
        return "csv"
    is_csv = "/" not in line and not line.startswith("#") and any(mark in line for mark in _SEPARATORS)
    return "csv" if is_csv else "lines"


def _json_format(line: str) -> str:
    """Whether each line is an execution, or all of them are one array: what the first line is if it stands alone."""
    try:
        value = _json(line)
    except _Problem:
        return "json" if line.lstrip().startswith(("{", "[")) else "jsonl"
    return "json" if isinstance(value, list) and not _is_pair(value) else "jsonl"


def _is_pair(value: list[object]) -> bool:
    return len(value) == 2 and all(isinstance(item, str) and "/" not in item for item in value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return "a number" if _is_number(value) else f"of type {type(value).__name__}"
