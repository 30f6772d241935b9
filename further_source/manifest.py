"""Reads the list of executions from Python values, from files and from standard input.

An item is read when it is asked for; the first one that cannot be an execution raises `ManifestError`.
"""

import csv
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from functools import lru_cache
from io import TextIOWrapper
from itertools import chain, islice
from typing import Any, TextIO

import fsspec
from fsspec.utils import infer_compression

from further_source.exceptions import ManifestError
from further_source.executions import ExecutionId
from further_source.garbage import rarely_collected
from further_source.settings import ID_PATTERN
from further_source.text import shown, shown_url

STANDARD_INPUT = "-"
WORKFLOW_KEY = "workflow_id"
EXECUTION_KEYS = ("workflow_execution_id", "execution_id")

_is_id = re.compile(ID_PATTERN).fullmatch
_match_line = re.compile(rf"\s*({ID_PATTERN})/({ID_PATTERN})\s*").fullmatch

# The decoder passes a byte that is no UTF-8 on as a surrogate, so that an error can name its line.
_TEXT: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}

_ID_RULE = "is not an id (letters, digits, - and _, 1 to 128 characters)"


class _Problem(Exception):
    """What is wrong with an item or a line. A caller that knows its place makes a `ManifestError` of it."""


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


def read_executions_file(path_or_url: str | os.PathLike[str]) -> Iterator[ExecutionId]:
    """Reads executions from a file, a URL that fsspec can open, or standard input (`-`).

    The text is UTF-8, with or without a byte order mark. How it is read is decided by the end of the name, before a
    suffix of compression (`.gz`, `.bz2`, `.xz`, `.zip`) if there is one; for standard input by its first line.

    - `.csv`: a header with the columns `workflow_id` and `execution_id` or `workflow_execution_id`; others
      are ignored. Fields may be quoted. Records without any text are skipped.
    - `.jsonl`, `.ndjson`: one JSON value per line, of the same shapes as in `read_executions`. Blank lines are
      skipped.
    - anything else: one `WORKFLOW_ID/EXECUTION_ID` per line. Blank lines and lines that start with `#` are skipped.

    Raises:
        ManifestError: The file cannot be read, or holds something that cannot be an execution. The message names
            the file (a URL without credentials and query) and the line, counted from 1.
    """
    path = os.fspath(path_or_url)
    name = "standard input" if path == STANDARD_INPUT else shown_url(path)
    with _open_text(path, name) as text:
        lines = _checked_lines(text, name)
        read_as = _format_of_name(path)
        if path == STANDARD_INPUT:
            first, lines = _split_blank_start(lines)
            read_as = _format_of_line(first[-1] if first else "")
            lines = chain(first, lines)
        yield from _READERS[read_as](lines, name)


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


def _read_lines(lines: Iterable[str], name: str) -> Iterator[ExecutionId]:
    for number, line in enumerate(lines, start=1):
        if match := _match_line(line):
            workflow_id, execution_id = match.groups()
            yield ExecutionId(_shared(workflow_id), execution_id)
        elif (line := line.strip()) and not line.startswith("#"):
            try:
                yield _execution(line)
            except _Problem as problem:
                raise ManifestError(f"{name}, line {number}: {problem}") from None


def _read_jsonl(lines: Iterable[str], name: str) -> Iterator[ExecutionId]:
    for number, line in enumerate(lines, start=1):
        if not (line := line.strip()):
            continue
        try:
            yield _execution(_json(line))
        except _Problem as problem:
            raise ManifestError(f"{name}, line {number}: {problem}") from None


def _read_csv(lines: Iterable[str], name: str) -> Iterator[ExecutionId]:
    # Without `strict`, an unclosed quote would silently swallow the executions after it.
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
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


_READERS = {"lines": _read_lines, "jsonl": _read_jsonl, "csv": _read_csv}


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
    executions = {key: item[key] for key in EXECUTION_KEYS if key in item}
    _check_keys(WORKFLOW_KEY in item, bool(executions), "key")
    return _same_id(item[WORKFLOW_KEY], executions)


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
    names = [name.strip() for name in header]
    wanted = (WORKFLOW_KEY, *EXECUTION_KEYS)
    columns = {name: names.index(name) for name in wanted if name in names}
    try:
        _check_keys(WORKFLOW_KEY in columns, any(key in columns for key in EXECUTION_KEYS), "column")
    except _Problem as problem:
        raise _Problem(f"{problem}; the header is {shown(','.join(names))}") from None
    for column in columns:
        if names.count(column) > 1:
            raise _Problem(f"the column {column} comes twice")
    return columns


def _check_keys(has_workflow: bool, has_execution: bool, noun: str) -> None:
    missing = []
    if not has_workflow:
        missing.append(f"no {noun} workflow_id")
    if not has_execution:
        missing.append(f"no {noun} execution_id or workflow_execution_id")
    if missing:
        raise _Problem(" and ".join(missing))


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
        raise _Problem("not JSON that can be read (nested too deeply, or a number too long)") from None


@contextmanager
def _open_text(path: str, name: str) -> Iterator[TextIO]:
    if path == STANDARD_INPUT:
        buffer = getattr(sys.stdin, "buffer", None)
        if buffer is None:
            raise ManifestError(f"{name}: not open")
        text = TextIOWrapper(buffer, **_TEXT)
        try:
            yield text
        finally:
            text.detach()  # else standard input would be closed with it
        return
    file = None
    try:
        file = fsspec.open(path, "rt", compression=infer_compression(_file_name(path)), **_TEXT)
        text = file.open()
    except Exception as error:  # the package of a filesystem may raise anything
        if file is not None:
            file.close()
        raise ManifestError(f"{name}: {_reason(error)}") from None
    try:
        yield text
    finally:
        file.close()


def _checked_lines(text: TextIO, name: str) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(text, start=1):
            if "\0" in line or not (line.isascii() or _is_unicode(line)):
                raise ManifestError(f"{name}, line {number}: not text in UTF-8")
            yield line
    except ManifestError:
        raise
    except Exception as error:  # so may a decompressor
        place = f", after line {number}" if number else ""
        raise ManifestError(f"{name}: {_reason(error)}{place}") from None


def _is_unicode(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


def _split_blank_start(lines: Iterator[str]) -> tuple[list[str], Iterator[str]]:
    """The lines up to and including the first that is not blank, and the lines after it."""
    start = []
    for line in lines:
        start.append(line)
        if line.strip():
            break
    return start, lines


def _format_of_line(line: str) -> str:
    line = line.strip()
    columns = {name.strip(' "') for name in line.split(",")}
    if not line.startswith(("{", "[", "#")) and (
        not columns.isdisjoint((WORKFLOW_KEY, *EXECUTION_KEYS)) or ("," in line and "/" not in line)
    ):
        return "csv"
    return "jsonl" if line.startswith(("{", "[", '"')) else "lines"


def _format_of_name(path: str) -> str:
    name = _file_name(path).lower()
    if infer_compression(name):
        name = name.rpartition(".")[0]
    suffix = name.rpartition(".")[2]
    return {"csv": "csv", "jsonl": "jsonl", "ndjson": "jsonl"}.get(suffix, "lines")


def _file_name(path: str) -> str:
    """The path, without its query if it is a URL. Of chained URLs (`zip://a.csv::s3://b/c.zip`) the first."""
    if "://" not in path:
        return path
    return next(part for part in path.split("::") if "://" in part).partition("?")[0]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return "a number" if _is_number(value) else f"of type {type(value).__name__}"


def _reason(error: Exception) -> str:
    """Why a file cannot be read. The text of the error is left out where it may hold a signed URL."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "a directory, not a file"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, ImportError):
        return f"a package is missing ({' '.join(str(error).split())})"
    if isinstance(error, ValueError) and str(error).startswith("Protocol not known"):
        return "not a path or a kind of URL that fsspec knows"
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read ({os.strerror(error.errno)})"
    status = getattr(error, "status", None)
    answered = f", HTTP {status}" if isinstance(status, int) else ""
    return f"cannot be read ({type(error).__name__}{answered})"
