"""Queues as files that people fill in: CSV, xlsx and Label Studio's JSON; and read back from them."""

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from further_source.exceptions import ConfigurationError
from further_source.review.cells import CELL_COLUMNS, ReviewedCell, Token
from further_source.review.spreadsheet import defused, restored

__all__ = ["COLUMNS", "FORMATS", "VERDICT_COLUMNS", "FilledRow", "read_queue", "write_queue"]

FORMATS = (".csv", ".xlsx", ".json")
VERDICT_COLUMNS = ("verdict", "corrected_value", "reason", "reviewer")
COLUMNS = ("cell", *CELL_COLUMNS, *VERDICT_COLUMNS)

_XLSX_MAX_ROWS = 1_048_575
_XLSX_MAX_BYTES = 1_000_000_000
"""Unpacked: a queue of as many cells as fit, of 250 characters each, takes about as much."""
_XLSX_MAX_RATIO = 100
"""How many times its size a file may have unpacked. Excel's are far from it; Apache POI has the same bound."""
_XLSX_SMALL = 10_000_000  # bytes, unpacked, that are read whatever the ratio
_XLSX_MAX_TEXT = 32_767
_CONTROLS = {code: "\ufffd" for code in range(32) if chr(code) not in "\t\n\r"}


@dataclass(frozen=True)
class FilledRow:
    """What one row of a file says, as texts; a text that is empty is "".

    Attributes:
        place: Where it stands, as in `row 7`.
        texts: By column.
        reviewed_at: When, if the file says so.
        problems: What cannot be read, by column.
    """

    place: str
    texts: dict[str, str]
    reviewed_at: datetime | None = None
    problems: dict[str, str] = field(default_factory=dict)


# Written


def write_queue(path: Path, cells: Sequence[ReviewedCell], queue: str, *, sampled: bool) -> None:
    """Writes a queue, in the format that the name ends with; the file is whole or not there.

    Raises:
        ConfigurationError: The name ends with something else, or the format cannot hold so many.
        OSError: It cannot be written.
    """
    tokens = [str(Token(queue, cell.fingerprint, sampled)) for cell in cells]
    content = _written(path, cells, tokens)
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(content)
    partial.replace(path)


def _written(path: Path, cells: Sequence[ReviewedCell], tokens: Sequence[str]) -> bytes:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _csv(cells, tokens)
    if suffix == ".json":
        return json.dumps(list(_tasks(cells, tokens)), indent=1).encode()
    if suffix == ".xlsx":
        return _xlsx(path, cells, tokens)
    raise ConfigurationError(f"--out: {path.name} ends with none of {', '.join(FORMATS)}")


def _texts(cell: ReviewedCell) -> list[str]:
    values = (getattr(cell, name) for name in CELL_COLUMNS)
    return ["" if value is None else value if isinstance(value, str) else repr(value) for value in values]


def _csv(cells: Sequence[ReviewedCell], tokens: Sequence[str]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    empty = [""] * len(VERDICT_COLUMNS)
    for cell, token in zip(cells, tokens, strict=True):
        writer.writerow([token, *map(defused, _texts(cell)), *empty])
    return file.getvalue().encode("utf-8-sig")  # without the mark Excel takes it for another encoding


def _xlsx(path: Path, cells: Sequence[ReviewedCell], tokens: Sequence[str]) -> bytes:
    import openpyxl  # noqa: PLC0415  of the extra
    from openpyxl.cell import WriteOnlyCell  # noqa: PLC0415
    from openpyxl.styles import Protection  # noqa: PLC0415
    from openpyxl.worksheet.datavalidation import DataValidation  # noqa: PLC0415

    if len(cells) > _XLSX_MAX_ROWS:
        raise ConfigurationError(f"--out: {path.name} cannot hold {len(cells)} cells; write a .csv, or --limit them")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("review")
    sheet.freeze_panes = "A2"
    choices = DataValidation(type="list", formula1='"correct,corrected,unreadable"', allow_blank=True)
    sheet.data_validations.append(choices)
    verdict = COLUMNS.index("verdict")
    choices.add(f"{chr(ord('A') + verdict)}2:{chr(ord('A') + verdict)}{len(cells) + 1}")

    def text_cell(text: str) -> Any:
        made = WriteOnlyCell(sheet)
        if text:
            made.value = text.translate(_CONTROLS)[:_XLSX_MAX_TEXT]
            made.data_type = "s"  # a text that begins with = would be a formula
        made.number_format = "@"
        made.quotePrefix = True  # so that it stays one when somebody edits it
        made.protection = Protection(locked=False)
        return made

    sheet.append(list(COLUMNS))
    for cell, token in zip(cells, tokens, strict=True):
        sheet.append([text_cell(text) for text in (token, *_texts(cell), *[""] * len(VERDICT_COLUMNS))])
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def _tasks(cells: Iterable[ReviewedCell], tokens: Iterable[str]) -> Iterator[dict[str, Any]]:
    for cell, token in zip(cells, tokens, strict=True):
        data = dict(zip(("cell", *CELL_COLUMNS), (token, *_texts(cell)), strict=True))
        yield {"data": data, "meta": {"confidence": cell.confidence}}


# Read


def read_queue(path: Path) -> list[FilledRow]:
    """The rows of a file, in its order.

    Raises:
        ConfigurationError: It is no such file.
    """
    suffix = path.suffix.lower()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if suffix == ".csv":
        return list(_csv_rows(path, content))
    if suffix == ".xlsx":
        return list(_xlsx_rows(path, content))
    if suffix == ".json":
        return list(_task_rows(path, content))
    raise ConfigurationError(f"{path}: ends with none of {', '.join(FORMATS)}")


def _csv_rows(path: Path, content: bytes) -> Iterator[FilledRow]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8; save it as `CSV UTF-8`") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)  # in some countries Excel writes semicolons
    csv.field_size_limit(2**31 - 1)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ConfigurationError(f"{path}: is no CSV: {error}") from None
    header = _header(path, rows[0] if rows else [])
    for number, row in enumerate(rows[1:], 2):
        if not any(row):
            continue
        texts = {name: restored(text) for name, text in zip(header, row, strict=False)}
        problems = {} if len(row) == len(header) else {"cell": f"has {len(row)} columns, and the header {len(header)}"}
        yield FilledRow(f"row {number}", texts, problems=problems)


def _header(path: Path, header: Sequence[str]) -> list[str]:
    named = [name.strip().lower() for name in header]
    for name in ("cell", "verdict", "corrected_value"):
        if named.count(name) != 1:
            raise ConfigurationError(f"{path}: has {'no' if name not in named else 'more than one'} column {name}")
    return named


def _xlsx_rows(path: Path, content: bytes) -> Iterator[FilledRow]:
    import openpyxl  # noqa: PLC0415  of the extra

    _check_size(path, content)
    try:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True)
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # those that a file says it has may make each row as wide as a sheet can be
        rows = sheet.iter_rows()
        first = next(rows, ())
    except Exception as error:
        raise ConfigurationError(f"{path}: is no xlsx: {error}") from None
    header = _header(path, [str(cell.value or "") for cell in first])
    for number, row in _numbered(path, rows):
        texts, problems = {}, {}
        for name, cell in zip(header, row, strict=False):
            texts[name], problem = _text_of(cell)
            if problem and name in VERDICT_COLUMNS:
                problems[name] = problem
        if any(texts.values()):
            yield FilledRow(f"row {number}", texts, problems=problems)


def _check_size(path: Path, content: bytes) -> None:
    """Finds a file that would take far more memory than it has bytes; no more is unpacked than it says itself."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            size = sum(part.file_size for part in parts.infolist())
    except Exception as error:
        raise ConfigurationError(f"{path}: is no xlsx: {error}") from None
    if size > min(_XLSX_MAX_BYTES, max(_XLSX_SMALL, len(content) * _XLSX_MAX_RATIO)):
        raise ConfigurationError(
            f"{path}: has {size:,} bytes unpacked, and {len(content):,} packed, as no queue has; save it as `CSV UTF-8`"
        )


def _numbered(path: Path, rows: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    """The rows below the first, with their numbers."""
    try:
        yield from enumerate(rows, 2)
    except Exception as error:
        raise ConfigurationError(f"{path}: is no xlsx: {error}") from None


def _text_of(cell: Any) -> tuple[str, str | None]:
    value = cell.value
    if value is None:
        return "", None
    if cell.data_type == "f":
        return "", "is a formula; write a text"
    if isinstance(value, str):
        return value, None
    if isinstance(value, bool):
        return ("true" if value else "false"), None
    if isinstance(value, int | float):
        return (repr(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(value)), None
    return str(value), "is a date or time to the spreadsheet; make it a text, as the document has it"


def _task_rows(path: Path, content: bytes) -> Iterator[FilledRow]:
    """The annotations of an export of Label Studio's (JSON, not JSON-MIN); a task without one is left open."""
    try:
        tasks = json.loads(content)
    except ValueError as error:
        raise ConfigurationError(f"{path}: is no JSON: {error}") from None
    if not isinstance(tasks, list):
        raise ConfigurationError(f"{path}: is no list of tasks")
    for number, task in enumerate(tasks, 1):
        place = f"task {number}"
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict):
            yield FilledRow(place, {}, problems={"cell": "the task has no data"})
            continue
        known = {name: str(value) for name, value in data.items() if name in COLUMNS and value is not None}
        for annotation in task.get("annotations") or ():
            if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
                yield _annotated(place, known, annotation)


def _annotated(place: str, known: dict[str, str], annotation: dict[str, Any]) -> FilledRow:
    texts = {name: text for name, text in known.items() if name not in VERDICT_COLUMNS}
    for result in annotation.get("result") or ():
        value = result.get("value") if isinstance(result, dict) else None
        if isinstance(value, dict):
            said = value.get("choices") or value.get("text") or ""
            texts[str(result.get("from_name"))] = "\n".join(map(str, said)) if isinstance(said, list) else str(said)
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    if by is not None:
        texts["reviewer"] = str(by)
    at = annotation.get("updated_at") or annotation.get("created_at")
    return FilledRow(place, texts, *_time(at))


def _time(text: object) -> tuple[datetime | None, dict[str, str]]:
    if text is None:
        return None, {}
    try:
        at = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None, {"updated_at": f"{text!r} is no time"}
    return (at if at.tzinfo else at.replace(tzinfo=timezone.utc)), {}
