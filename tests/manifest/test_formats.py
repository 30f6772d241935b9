"""Lists as files: formats, packing, encodings, pipes, and what cannot be read told by file and line."""

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import re
import sys
import tarfile
import threading
import time
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from further_source.exceptions import ManifestError
from further_source.manifest import read_executions_file
from further_source.settings import ID_PATTERN, MAX_LIST_BYTES, MAX_LIST_JSON, MAX_LIST_LINE, MAX_LIST_LINES
from tests.support.lists import RULE, A, B, error_of

WriteFile = Callable[[str, str | bytes], str]
GiveInput = Callable[[str | bytes], None]


def zipped(members: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def tarred(name: str, content: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content.encode()))
    return file.getvalue()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteFile:
    """Writes a file into the working directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: str | bytes) -> str:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return write


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> GiveInput:
    def give(content: str | bytes) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        # Any encoding but UTF-8, as a locale may ask for.
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="cp1252"))

    return give


LINES = "wf/ex-1\nwf/ex_2\n"
CSV = "workflow_id,execution_id\nwf,ex-1\nwf,ex_2\n"
JSONL = '{"workflow_id": "wf", "execution_id": "ex-1"}\n["wf", "ex_2"]\n'

READABLE = {
    "lines": ("list.txt", LINES),
    "lines without a suffix": ("list", LINES),
    "lines with comments, blanks and CRLF": ("a.txt", "\ufeff# mine, all\r\n\r\n  wf/ex-1\t\r\n \r\nwf/ex_2"),
    "lines with CR alone": ("list.txt", LINES.replace("\n", "\r")),
    "csv": ("list.csv", CSV),
    "csv in upper case": ("LIST.CSV", CSV),
    "csv with a BOM, quotes and CRLF": (
        "list.csv",
        '\ufeff" workflow_id ", workflow_execution_id\r\n"wf","ex-1"\r\nwf , "ex_2"\r\n',
    ),
    "csv with other columns": (
        "list.csv",
        'note,execution_id,workflow_id\n"a ""b"",\nc",ex-1,wf\n,ex_2,wf,more,fields\n',
    ),
    "csv with both names of the id": (
        "list.csv",
        "workflow_id,execution_id,workflow_execution_id\nwf,ex-1,ex-1\nwf,ex_2,ex_2\n",
    ),
    "csv with empty records": ("list.csv", "\n" + CSV.replace("wf,ex_2", "\n,,\nwf,ex_2\n\n , ")),
    "jsonl": ("list.jsonl", JSONL),
    "ndjson with strings, blanks and CRLF": ("list.ndjson", '\ufeff"wf/ex-1"\r\n\r\n' + JSONL.split("\n")[1]),
    "jsonl with other keys": (
        "list.jsonl",
        '{"workflow_id":"wf","workflow_execution_id":"ex-1","x":[NaN]}\n"wf/ex_2"',
    ),
    "jsonl with keys in another spelling": (
        "list.jsonl",
        '{"workflowId": "wf", "executionId": "ex-1"}\n{"Workflow ID": "wf", "workflow-execution-id": "ex_2"}',
    ),
    "json": ("list.json", '[\n {"workflow_id": "wf", "execution_id": "ex-1"},\n ["wf", "ex_2"]\n]\n'),
    "json in one line": ("list.json", '\ufeff["wf/ex-1", {"workflowId": "wf", "workflowExecutionId": "ex_2"}]'),
    "json of a line each": ("list.json", JSONL),
    "json over several lines, one after the other": (
        "list.json",
        '{\n"workflow_id": "wf",\n"execution_id": "ex-1"}\n{\n"workflow_id": "wf", "execution_id": "ex_2"}',
    ),
    "json in a file named for lines of it": ("list.jsonl", '[\n"wf/ex-1",\n"wf/ex_2"]'),
    "csv with headers as people write them": ("list.csv", "Workflow ID,Note,Execution Id\nwf,,ex-1\nwf,,ex_2\n"),
    "csv with headers of another convention": ("list.csv", "workflowId,workflowExecutionId\nwf,ex-1\nwf,ex_2\n"),
    "csv with a like header beside the right one": (
        "list.csv",
        "Workflow ID,workflow_id,execution_id\nx y,wf,ex-1\nx y,wf,ex_2\n",
    ),
    "csv with semicolons": ("list.csv", 'workflow_id;"execution_id"\nwf;ex-1\nwf;"ex_2"\n'),
    "csv with semicolons and Excel's first line": ("list.csv", "sep=;\nworkflow_id;execution_id\nwf;ex-1\nwf;ex_2\n"),
    "csv with tabs": ("list.csv", CSV.replace(",", "\t")),
    "csv with bars": ("list.csv", CSV.replace(",", "|")),
    "tsv": ("list.tsv", CSV.replace(",", "\t")),
    "csv without a suffix": ("list", CSV),
    "csv with semicolons under another suffix": ("list.txt", "\n" + CSV.replace(",", ";")),
    "json without a suffix": ("list", '["wf/ex-1",\n"wf/ex_2"]'),
    "UTF-16": ("list.txt", LINES.encode("utf-16")),
    "UTF-16, big end first": ("list.csv", b"\xfe\xff" + CSV.encode("utf-16-be")),
    "UTF-16 as Excel saves it": ("list.txt", CSV.replace(",", "\t").replace("\n", "\r\n").encode("utf-16")),
    "UTF-32": ("list.jsonl", JSONL.encode("utf-32")),
}


@pytest.mark.parametrize(("name", "content"), READABLE.values(), ids=READABLE)
def test_a_file_is_read_by_its_name(file: WriteFile, name: str, content: str | bytes) -> None:
    assert list(read_executions_file(file(name, content))) == [A, B]


def test_a_path_object_is_read(file: WriteFile, tmp_path: Path) -> None:
    file("list.csv", CSV)
    assert list(read_executions_file(tmp_path / "list.csv")) == [A, B]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv.gz", gzip.compress(CSV.encode())),
        ("list.jsonl.bz2", bz2.compress(JSONL.encode())),
        ("list.gz", gzip.compress(LINES.encode())),
        ("list.csv", gzip.compress(CSV.encode())),
        ("list", bz2.compress(JSONL.encode())),
        ("list.txt", lzma.compress(CSV.encode())),
        ("list.csv.zip", zipped({"anything": CSV})),
        ("a.zip", zipped({"folder/": "", "folder/list.csv": CSV, "__MACOSX/folder/._list.csv": b"\0\5\x16\7"})),
        ("list", zipped({"list.json": '["wf/ex-1", "wf/ex_2"]', ".DS_Store": b"\0\0"})),
    ],
    # The same in each process: gzip writes the time.
    ids=[
        "csv.gz",
        "jsonl.bz2",
        "gz",
        "gz by content",
        "bz2 by content",
        "xz by content",
        "csv.zip",
        "zip",
        "zip by content",
    ],
)
def test_compressed_files_are_read_by_the_name_within(file: WriteFile, name: str, content: str | bytes) -> None:
    assert list(read_executions_file(file(name, content))) == [A, B]


def test_the_list_among_others_in_an_archive_can_be_named(file: WriteFile) -> None:
    name = file("lists.zip", zipped({"monday.csv": "not this one", "tuesday.csv": CSV}))
    assert list(read_executions_file(f"zip://tuesday.csv::{name}")) == [A, B]


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz"])
def test_a_url_is_read_whatever_its_query(name: str) -> None:
    data = CSV.encode()
    path = f"memory://{uuid.uuid4()}/{name}?signature=secret"
    with fsspec.open(path, "wb") as target:
        target.write(gzip.compress(data) if name.endswith(".gz") else data)
    assert list(read_executions_file(path)) == [A, B]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", ""),
        ("list.txt", "# nothing today\n\n"),
        ("list.csv", ""),
        ("list.csv", "workflow_id,execution_id\n"),
        ("list.csv", "\ufeff"),
        ("list.jsonl", "\n"),
    ],
)
def test_a_file_without_executions_is_no_error(file: WriteFile, name: str, content: str | bytes) -> None:
    assert list(read_executions_file(file(name, content))) == []


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        "\ufeff\r\n# a, b\r\nwf/ex-1\r\nwf/ex_2",
        CSV,
        '\n"workflow_id","execution_id"\n"wf","ex-1"\n"wf","ex_2"\n',
        'in/out,"workflow_execution_id",workflow_id\n,ex-1,wf\n,ex_2,wf\n',
        JSONL,
        '["wf", "ex-1"]\n"wf/ex_2"',
        '\n "wf/ex-1"\n"wf/ex_2"',
        '["wf/ex-1",\n"wf/ex_2"]',
        '[["wf", "ex-1"], ["wf", "ex_2"]]',
        '[\n{"workflowId": "wf", "executionId": "ex-1"},\n{"workflowId": "wf", "executionId": "ex_2"}]',
        "Workflow ID;Execution ID\nwf;ex-1\nwf;ex_2\n",
        gzip.compress(LINES.encode(), mtime=0),
        CSV.encode("utf-16"),
    ],
)
def test_standard_input_is_read_by_its_first_line(standard_input: GiveInput, content: str | bytes) -> None:
    standard_input(content)
    assert list(read_executions_file("-")) == [A, B]
    assert not sys.stdin.closed


@pytest.mark.parametrize("content", ["", "\n \n", "workflow_id,execution_id\n"])
def test_standard_input_without_executions_is_no_error(standard_input: GiveInput, content: str | bytes) -> None:
    standard_input(content)
    assert list(read_executions_file("-")) == []


def test_standard_input_is_utf8_whatever_the_locale(standard_input: GiveInput) -> None:
    standard_input("wf/ex-1\nwf/ö")
    assert error_of(read_executions_file, "-") == f"standard input, line 2: execution_id 'ö' {RULE}"
    standard_input("a,b\nwf,ex")
    assert error_of(read_executions_file, "-") == (
        "standard input, line 1: no column workflow_id and"
        " no column execution_id or workflow_execution_id; the header is 'a,b'"
    )
    standard_input(b"wf/ex\xf6")
    assert error_of(read_executions_file, "-") == ("standard input, line 1: not text in UTF-8: save the list as UTF-8")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes with a path")
@pytest.mark.parametrize(
    ("name", "chunks"),
    [
        ("pipe", [b"\n", b"workflow_id,exec", b"ution_id\nwf,ex-1\n", b"wf,ex_2"]),
        ("pipe", [b"# mine\n", b"wf/ex-1\nwf/", b"ex_2\n"]),
        ("pipe", [b'["wf/ex-1",', b'"wf/ex_2"]']),
        ("pipe.csv", [CSV.encode()]),
        ("pipe", [gzip.compress(CSV.encode())]),
        ("/dev/fd", [CSV.encode()[:5], CSV.encode()[5:]]),
    ],
    ids=["csv that comes slowly", "lines", "array", "named csv", "compressed", "a number"],
)
def test_a_pipe_is_read_by_its_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, chunks: list[bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "/dev/fd":  # as of `<(command)`
        reads, writes = os.pipe()
        name = f"/dev/fd/{reads}"
    else:
        os.mkfifo(name)
        reads = writes = -1

    def write() -> None:
        with open(name if writes < 0 else writes, "wb", buffering=0) as pipe:
            for chunk in chunks:
                pipe.write(chunk)
                time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    assert list(read_executions_file(name)) == [A, B]
    writer.join()
    if reads >= 0:
        os.close(reads)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device")
def test_what_has_no_end_is_not_read_to_its_end(file: WriteFile) -> None:
    assert error_of(read_executions_file, "/dev/zero") == "/dev/zero, line 1: not text in UTF-8: save the list as UTF-8"
    bomb = gzip.compress(b"a" * 50_000_000)
    assert error_of(read_executions_file, file("list.txt.gz", bomb)) == (
        f"list.txt.gz, line 1: longer than {MAX_LIST_LINE:,} characters"
    )
    assert error_of(read_executions_file, file("list.csv.gz", bomb)).endswith("characters")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "line", "count", "message"),
    [
        ("list.gz", b"\n", MAX_LIST_LINES, f": more than {MAX_LIST_LINES:,} lines: split"),
        ("list.gz", b"#" * 99_999 + b"\n", MAX_LIST_BYTES // 100_000, f": more than {MAX_LIST_BYTES:,} bytes: split"),
        ("list.json.gz", b"[" + b" " * 99_999, MAX_LIST_JSON // 100_000, f": more than {MAX_LIST_JSON:,} characters"),
    ],
    ids=["lines", "bytes", "JSON"],
)
def test_what_is_too_long_says_so(file: WriteFile, name: str, line: bytes, count: int, message: str) -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as inflated:
        for _ in range(0, count, 100):
            inflated.write(line * 100)
        inflated.write(line)
    said = error_of(read_executions_file, file(name, packed.getvalue()))
    assert said.startswith(name + message), said


def test_a_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert error_of(read_executions_file, "-") == "standard input: not open"


UNREADABLE = {
    "no slash": ("list.txt", "wf/ex\n\nwf,ex", "list.txt, line 3: 'wf,ex' is not WORKFLOW_ID/EXECUTION_ID"),
    "two slashes": ("list.txt", "a/b/c", "list.txt, line 1: 'a/b/c' is not WORKFLOW_ID/EXECUTION_ID"),
    "bad id in a line": ("list.txt", "wf/a b", f"list.txt, line 1: execution_id 'a b' {RULE}"),
    "control characters": (
        "list.txt",
        "wf/\x1b]0;\x07",
        rf"list.txt, line 1: execution_id '\x1b]0;\x07' {RULE}",
    ),
    "line separators that are none": (
        "list.txt",
        "wf/ex\u2028wf/ex",
        r"list.txt, line 1: 'wf/ex\u2028wf/ex' is not WORKFLOW_ID/EXECUTION_ID",
    ),
    "Latin-1": ("list.txt", b"wf/ex\n# caf\xe9\n", "list.txt, line 2: not text in UTF-8"),
    "Latin-1 in an ignored column": (
        "list.csv",
        b"workflow_id,execution_id,note\nwf,ex,a\nwf,ex,caf\xe9\n",
        "list.csv, line 3: not text in UTF-8",
    ),
    "UTF-16 that does not say so": (
        "list.txt",
        LINES.encode("utf-16-le"),
        "list.txt, line 1: not text in UTF-8: save the list as UTF-8",
    ),
    "UTF-16 cut off": ("list.txt", LINES.encode("utf-16")[:-1], "list.txt, line 2: not text in UTF-16: save the list"),
    "null byte": ("list.csv", CSV + "wf,\0\n", "list.csv, line 4: not text in UTF-8"),
    "bad id in csv": (
        "list.csv",
        "workflow_id,execution_id\nwf,ex\nwf,a b\n",
        f"list.csv, line 3: execution_id 'a b' {RULE}",
    ),
    "empty id in csv": (
        "list.csv",
        "workflow_id,workflow_execution_id\nwf,\n",
        f"list.csv, line 2: workflow_execution_id '' {RULE}",
    ),
    "record over several lines": (
        "list.csv",
        'note,workflow_id,execution_id\n"a\nb",wf,ex\n"a\nb",wf,"e\nx"\n',
        rf"list.csv, line 6: execution_id 'e\nx' {RULE}",
    ),
    "short record": (
        "list.csv",
        "workflow_id,note,execution_id\nwf,x\n",
        "list.csv, line 2: the record ends before its execution_id",
    ),
    "no workflow column": (
        "list.csv",
        "Workflow,execution_id\n",
        "list.csv, line 1: no column workflow_id; the header is 'Workflow,execution_id'",
    ),
    "other separator": (
        "list.csv",
        "workflow_id:execution_id\n",
        "list.csv, line 1: no column workflow_id and no column execution_id or workflow_execution_id",
    ),
    "no header": (
        "list.txt",
        "wf;ex\n",
        "list.txt, line 1: no column workflow_id and no column execution_id or workflow_execution_id",
    ),
    "like columns twice": (
        "list.csv",
        "Workflow ID,workflow-id,execution_id\n",
        "list.csv, line 1: the column workflow_id comes twice",
    ),
    "column twice": (
        "list.csv",
        "workflow_id,execution_id,workflow_id\n",
        "list.csv, line 1: the column workflow_id comes twice",
    ),
    "one of both columns is empty": (
        "list.csv",
        "workflow_id,execution_id,workflow_execution_id\nwf,ex,ex\nwf,ex,\n",
        f"list.csv, line 3: workflow_execution_id '' {RULE}",
    ),
    "unclosed quote": (
        "list.csv",
        'workflow_id,execution_id,note\nwf,ex,"open\nwf,ex_2,\nwf,ex_3,\n',
        "list.csv, line 2: not CSV (unexpected end of data)",
    ),
    "bad JSON": (
        "list.jsonl",
        '"wf/ex"\n{"workflow_id": "wf"',
        "list.jsonl, line 2: not JSON (Expecting ',' delimiter, column 21)",
    ),
    "deep JSON": (
        "list.jsonl",
        "[" * 100_000,
        "list.jsonl, line 1: not JSON that can be read (nested too deeply, or a number too long)",
    ),
    "number as id": (
        "list.jsonl",
        '{"workflow_id": "wf", "execution_id": 17}',
        "list.jsonl, line 1: execution_id is a number; ids are text, so put it in quotes",
    ),
    "lone surrogate": ("list.jsonl", r'"wf/\ud800"', rf"list.jsonl, line 1: execution_id '\ud800' {RULE}"),
    "object without keys": (
        "list.jsonl",
        '{"workflow_id": "wf"}',
        "list.jsonl, line 1: no key execution_id or",
    ),
    "JSON of no known shape": ("list.jsonl", "17", "list.jsonl, line 1: a number, not an execution (text "),
    "bad item of an array": (
        "list.json",
        '["wf/ex",\n\n "wf"]',
        "list.json, line 3: item 2: 'wf' is not WORKFLOW_ID/EXECUTION_ID",
    ),
    "array that is not closed": (
        "list.json",
        '["wf/ex",\n "wf/ex_2"\n',
        "list.json, line 3: not JSON (Expecting ',' delimiter, column 1)",
    ),
    "text after an array": ("list.json", '[\n"wf/ex"] x', "list.json, line 2: not JSON (Extra data, column 10)"),
    "deep array": ("list.json", "[" * 100_000, "list.json, line 1: not JSON that can be read (nested too deeply"),
    "array that is not text": ("list.json", b'["wf/ex",\n"\xe9/ex"]', "list.json, line 2: not text in UTF-8"),
    "object around an array": ("list.json", '{"executions": [\n]}', "list.json, line 1: item 1: no key workflow_id"),
    "Excel workbook": (
        "list.xlsx",
        zipped({"[Content_Types].xml": "", "xl/workbook.xml": ""}),
        "list.xlsx: an Excel workbook: save its sheet as CSV",
    ),
    "old Excel workbook": ("list.csv", b"\xd0\xcf\x11\xe0\xa1\xb1", "list.csv: an Excel workbook: save its sheet"),
    "OpenDocument file": (
        "list.ods",
        zipped({"mimetype": "", "content.xml": ""}),
        "list.ods: an OpenDocument file: save its sheet as CSV",
    ),
    "Parquet file": ("list", b"PAR1\x15\0\x15", "list: a Parquet file: write the two ids as CSV"),
    "SQLite database": ("list.db", b"SQLite format 3\0", "list.db: an SQLite database: write the two ids as CSV"),
    "tar archive": ("list.tar.gz", gzip.compress(tarred("list.csv", CSV), mtime=0), "list.tar.gz: a tar archive: unp"),
    "zip of two lists": (
        "lists.zip",
        zipped({"monday.csv": CSV, "tuesday.csv": CSV}),
        "lists.zip: a zip archive of 2 files (monday.csv, tuesday.csv): name the one that is the list, as in"
        " zip://monday.csv::lists.zip",
    ),
    "zip of nothing": ("list.csv.zip", zipped({"folder/": ""}), "list.csv.zip: a zip archive without a file"),
    "not compressed": ("list.csv.gz", CSV, "list.csv.gz: cannot be read (BadGzipFile)"),
    "not a zip": ("list.csv.zip", CSV, "list.csv.zip: cannot be read (BadZipFile)"),
    "name with a line break": ("a\nb.txt", "x", r"'a\nb.txt', line 1: 'x' is not WORKFLOW_ID/EXECUTION_ID"),
}


@pytest.mark.parametrize(("name", "content", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_named_by_file_and_line(
    file: WriteFile, name: str, content: str | bytes, message: str
) -> None:
    assert error_of(read_executions_file, file(name, content)).startswith(message)


def test_columns_that_differ_are_an_error(file: WriteFile) -> None:
    name = file("list.csv", "workflow_id,execution_id,workflow_execution_id\nwf,ex,ex\nwf,ex,ex_2\n")
    assert error_of(read_executions_file, name) == (
        "list.csv, line 3: execution_id and workflow_execution_id are both there and differ"
    )


def test_what_stands_before_a_bad_line_is_still_yielded(file: WriteFile) -> None:
    executions = read_executions_file(file("list.txt", "wf/ex-1\nwf/ex_2\nwf\n"))
    assert [next(executions), next(executions)] == [A, B]
    with pytest.raises(ManifestError):
        next(executions)


def test_a_file_that_ends_early_tells_how_far_it_was_read(file: WriteFile) -> None:
    content = gzip.compress("".join(f"wf/{uuid.uuid4()}\n" for _ in range(10_000)).encode())
    message = error_of(read_executions_file, file("list.gz", content[:-100]))
    assert re.fullmatch(r"list\.gz: cannot be read \(EOFError\), after line \d+", message)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.csv", "missing.csv: no such file"),
        ("a/missing.csv", "a/missing.csv: no such file"),
        (".", ".: a directory, not a file"),
        ("", "'': a directory, not a file"),
        ("memory://nowhere/list.csv", "memory://nowhere/list.csv: no such file"),
        ("nope://bucket/list.csv", "nope://bucket/list.csv: not a path or a kind of URL that fsspec knows"),
        ("a\nb\x1b.csv", r"'a\nb\x1b.csv': no such file"),
        ("a\0b", r"'a\x00b': cannot be read (ValueError)"),
        ("x" * 5000, f"'{'x' * 77}…': cannot be read ({os.strerror(errno.ENAMETOOLONG)})"),
    ],
)
def test_a_file_that_cannot_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_of(read_executions_file, path) == message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(file: WriteFile, tmp_path: Path) -> None:
    name = file("list.csv", CSV)
    (tmp_path / name).chmod(0)
    assert error_of(read_executions_file, name) == "list.csv: permission denied"


class Failing(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A filesystem as its users meet it: every error is told with the signed URL."""

    protocol = "failing"
    error: Exception

    def _open(self, path: str, **kwargs: Any) -> NoReturn:
        raise self.error


class HttpError(Exception):
    status = 403


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError("secret"), "permission denied"),
        (HttpError("403, url='https://host/?secret'"), "cannot be read (HttpError, HTTP 403)"),
        (RuntimeError("secret\nmore"), "cannot be read (RuntimeError)"),
        (OSError("secret"), "cannot be read (OSError)"),
        (ImportError("Install s3fs\nto access S3"), "a package is missing (Install s3fs to access S3)"),
    ],
)
def test_errors_of_a_filesystem_are_told_without_secrets(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    fsspec.register_implementation("failing", Failing, clobber=True)
    monkeypatch.setattr(Failing, "error", error, raising=False)
    message = error_of(read_executions_file, "failing://user:secret@host/list.csv?token=secret")
    assert message == f"failing://***@host/list.csv?***: {reason}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nope://user@host/a.csv", "nope://***@host/a.csv"),
        ("nope://key:se/cret@bucket/a.csv", "nope://***@bucket/a.csv"),
        ("nope://key:se?cr@et@bucket/a.csv?x=1&y=2", "nope://***@bucket/a.csv?***"),
        ("simplecache::nope://key:secret@bucket/a.csv?x=a::b", "simplecache::nope://***@bucket/a.csv?***"),
        ("nope://host:8080/by@mail/a.csv", "nope://host:8080/by@mail/a.csv"),
        ("nope://bucket/by@mail/a.csv", "nope://bucket/by@mail/a.csv"),
    ],
)
def test_credentials_and_queries_of_urls_are_not_shown(url: str, shown: str) -> None:
    assert error_of(read_executions_file, url).startswith(f"{shown}: ")


def test_an_error_does_not_bring_the_filesystem_error_along() -> None:
    with pytest.raises(ManifestError) as caught:
        list(read_executions_file("nope://user:secret@host/list.csv"))
    assert caught.value.__suppress_context__


def test_executions_of_one_workflow_share_its_id(file: WriteFile) -> None:
    content = "".join(json.dumps({"workflow_id": "wf-1", "execution_id": str(n)}) + "\n" for n in range(100))
    executions = list(read_executions_file(file("list.jsonl", content)))
    assert len({id(execution.workflow_id) for execution in executions}) == 1


PIECES = [
    "wf",
    "/",
    "ex",
    "\n",
    "\r\n",
    "#",
    ",",
    '"',
    " ",
    "workflow_id,execution_id\n",
    '{"workflow_id":',
    "[",
    "]",
]


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl", "gz"])
@given(
    content=st.text().map(str.encode) | st.binary() | st.lists(st.sampled_from(PIECES)).map("".join).map(str.encode),
)
@example(content=b"wf/ex")
@example(content=b"workflow_id,execution_id\nwf,ex\n")
def test_whatever_a_file_holds_it_is_ids_or_a_one_line_error(suffix: str, content: bytes) -> None:
    path = f"memory://hypothesis/list.{suffix}"
    with fsspec.open(path, "wb") as target:
        target.write(content)
    try:
        executions = list(read_executions_file(path))
    except ManifestError as error:
        assert str(error).isprintable()
    else:
        assert all(re.fullmatch(ID_PATTERN, part) for execution in executions for part in execution)
