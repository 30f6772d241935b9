"""The list as a file: lines, CSV, JSON Lines or JSON, whichever its name or its first line says."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import chain, islice

from further_source.exceptions import ManifestError
from further_source.executions import ExecutionId
from further_source.manifest.ids import (
    WORKFLOW_KEY,
    Problem,
    Unnamed,
    clean_ids,
    execution_of,
    known_columns,
    positions_of,
    same_id,
    shared,
)
from further_source.manifest.listfile import STANDARD_INPUT, ListFile, Unreadable, list_file
from further_source.settings import ID_PATTERN, MAX_LIST_JSON
from further_source.text import shown, shown_url

__all__ = ["read_executions_file"]

_match_line = re.compile(rf"\s*({ID_PATTERN})/({ID_PATTERN})\s*").fullmatch

_SEPARATORS = (",", ";", "\t", "|")
_match_separator = re.compile(r'"?sep=([,;\t|])"?').fullmatch

_TOO_MUCH_JSON = "not JSON that can be read (nested too deeply, or a number too long)"


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


def _read_lines(file: ListFile, name: str) -> Iterator[ExecutionId]:
    for number, line in enumerate(file.lines(), start=1):
        if match := _match_line(line):
            workflow_id, execution_id = match.groups()
            yield ExecutionId(shared(workflow_id), execution_id)
        elif (line := line.strip()) and not line.startswith("#"):
            try:
                yield execution_of(line)
            except Problem as problem:
                raise ManifestError(f"{name}, line {number}: {problem}") from None


def _read_jsonl(file: ListFile, name: str) -> Iterator[ExecutionId]:
    for number, line in enumerate(file.lines(), start=1):
        if not (line := line.strip()):
            continue
        try:
            yield execution_of(_json(line))
        except Problem as problem:
            raise ManifestError(f"{name}, line {number}: {problem}") from None


def _read_json(file: ListFile, name: str) -> Iterator[ExecutionId]:
    """Reads an array item by item, so that not all of it has to be in memory as objects."""
    text = file.whole(MAX_LIST_JSON)
    start, items = 0, 0
    try:
        for position, value in _json_items(text):
            start, items = position, items + 1
            yield execution_of(value)
    except Problem as problem:
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
            if simple is not None and (ids := clean_ids(record, *simple)):
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
    except Problem as problem:
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
    return chain(start, lines), max(_SEPARATORS, key=lambda separator: known_columns(header.split(separator)))


_READERS: dict[str, Callable[[ListFile, str], Iterator[ExecutionId]]] = {
    "lines": _read_lines,
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": _read_csv,
}


def _json(line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise Problem(f"not JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError):
        raise Problem(_TOO_MUCH_JSON) from None


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
    if _match_separator(line) or any(known_columns(line.replace('"', "").split(mark)) for mark in _SEPARATORS):
        return "csv"
    is_csv = "/" not in line and not line.startswith("#") and any(mark in line for mark in _SEPARATORS)
    return "csv" if is_csv else "lines"


def _json_format(line: str) -> str:
    """Whether each line is an execution, or all of them are one array: what the first line is if it stands alone."""
    try:
        value = _json(line)
    except Problem:
        return "json" if line.lstrip().startswith(("{", "[")) else "jsonl"
    return "json" if isinstance(value, list) and not _is_pair(value) else "jsonl"


def _from_record(record: list[str], columns: dict[str, int]) -> ExecutionId:
    if len(record) <= max(columns.values()):
        missing = next(column for column, index in columns.items() if index >= len(record))
        raise Problem(f"the record ends before its {missing}")
    values = {column: record[index].strip() for column, index in columns.items()}
    workflow_id = values.pop(WORKFLOW_KEY)
    return same_id(workflow_id, values)


def _id_columns(header: list[str]) -> dict[str, int]:
    try:
        return positions_of(header)
    except Unnamed as problem:
        raise Problem(f"{problem}; the header is {shown(','.join(name.strip() for name in header))}") from None


def _is_pair(value: list[object]) -> bool:
    return len(value) == 2 and all(isinstance(item, str) and "/" not in item for item in value)
