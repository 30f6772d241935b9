"""Opens the file of a list as text: from wherever it is, unpacked, decoded, and no more of it than a list can have."""

import io
import os
import re
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TextIO, cast

import fsspec
from fsspec.compression import compr
from fsspec.utils import infer_compression

from further_source.settings import MAX_LIST_BYTES, MAX_LIST_LINE, MAX_LIST_LINES
from further_source.text import shortened, shown_url

__all__ = ["STANDARD_INPUT", "ListFile", "Unreadable", "list_file"]

STANDARD_INPUT = "-"

_BEGINNING = 65_536  # bytes that are looked at for what a file is

_PACKED = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "bz2": re.compile(rb"BZh[1-9]1AY&SY"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "zip": re.compile(rb"PK\x03\x04"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
}
_SAVE_AS_CSV = "an Excel workbook: save its sheet as CSV"
_NO_TEXT = [
    (re.compile(rb"\xd0\xcf\x11\xe0"), _SAVE_AS_CSV),
    (re.compile(rb"PAR1.*\0", re.DOTALL), "a Parquet file: write the two ids as CSV"),
    (re.compile(rb"SQLite format 3\0"), "an SQLite database: write the two ids as CSV"),
    (re.compile(rb".{257}ustar", re.DOTALL), "a tar archive: unpack it, and give the list in it"),
]
_BYTE_ORDER_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


class Unreadable(Exception):
    """Why a file is no list that can be read, and what to do; at which line (from 1), where that is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True)
class ListFile:
    """An open list.

    Attributes:
        path: Its path, or within an archive that of its member: how it ends tells how it is read.
        is_named: Whether the path says anything; a pipe's does not.
        beginning: Its text up to the end of the first line that is not blank, or a part of that line if it is long.
        text: All of it.
    """

    path: str
    is_named: bool
    beginning: str
    text: TextIO

    def lines(self) -> Iterator[str]:
        """Its lines, each with its line break.

        Raises:
            Unreadable: It is no text, or has more, or longer lines than a list can have.
        """
        number = 0
        try:
            while line := self.text.readline(MAX_LIST_LINE + 1):
                number += 1
                if not _is_text(line):
                    raise _not_text(self.text.encoding, number)
                if len(line) > MAX_LIST_LINE:
                    raise Unreadable(f"longer than {MAX_LIST_LINE:,} characters", number)
                if number > MAX_LIST_LINES:
                    raise Unreadable(f"more than {MAX_LIST_LINES:,} lines: split it")
                yield line
        except Unreadable:
            raise
        except UnicodeError:
            raise _not_text(self.text.encoding, number + 1) from None
        except Exception as error:  # a decompressor may raise anything
            raise Unreadable(_reason(error) + (f", after line {number}" if number else "")) from None

    def whole(self, max_length: int) -> str:
        """All its text.

        Raises:
            Unreadable: It is no text, or has more than `max_length` characters.
        """
        try:
            text = self.text.read(max_length + 1)
        except Unreadable:
            raise
        except UnicodeError:
            raise _not_text(self.text.encoding, None) from None
        except Exception as error:
            raise Unreadable(_reason(error)) from None
        if len(text) > max_length:
            raise Unreadable(f"more than {max_length:,} characters of JSON: write an execution per line (.jsonl)")
        if not _is_text(text):
            lines = enumerate(io.StringIO(text, newline=""), start=1)
            raise _not_text(self.text.encoding, next(number for number, line in lines if not _is_text(line)))
        return text


@contextmanager
def list_file(path: str) -> Iterator[ListFile]:
    """Opens a path, a URL that fsspec can open, or standard input (`-`).

    What is packed (gzip, bzip2, xz, zip of one file, and what else fsspec knows by the end of a name) is unpacked as it
    is read. The text is UTF-8, or as its byte order mark says.

    Raises:
        Unreadable: It cannot be opened, or is nothing that a list can be.
    """
    with ExitStack() as stack:
        try:
            file, is_named = _opened(path, stack)
            inner, file, beginning = _unpacked(path, file, stack)
        except Unreadable:
            raise
        except Exception as error:  # the package of a filesystem may raise anything
            raise Unreadable(_reason(error)) from None
        for magic, what in _NO_TEXT:
            if magic.match(beginning):
                raise Unreadable(what)
        encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if beginning.startswith(mark)), "utf-8-sig")
        # A byte that is no UTF-8 is passed on as a surrogate, so that an error can name its line.
        errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
        rest = io.BufferedReader(_Bounded(beginning, file), _BEGINNING)
        text = io.TextIOWrapper(cast(BinaryIO, rest), encoding=encoding, errors=errors, newline="")
        yield ListFile(inner, is_named, beginning.decode(encoding, "replace"), text)


def _opened(path: str, stack: ExitStack) -> tuple[BinaryIO, bool]:
    """The file, and whether its name says what is in it."""
    if path == STANDARD_INPUT:
        buffer = getattr(sys.stdin, "buffer", None)
        if buffer is None:
            raise Unreadable("not open")
        return buffer, False  # not to be closed
    if _is_stream(path):  # fsspec would ask a pipe for its size
        return stack.enter_context(open(path, "rb")), False
    opener = stack.enter_context(fsspec.open(path, "rb", compression=None))
    return cast(BinaryIO, opener), True


def _is_stream(path: str) -> bool:
    """Whether it is a pipe, a terminal or another device on this machine, as `/dev/stdin` and `<(command)` are."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _unpacked(path: str, file: BinaryIO, stack: ExitStack) -> tuple[str, BinaryIO, bytes]:
    """The path of what is within, itself, and its beginning, which is read already."""
    beginning = _begin(file)
    by_name = infer_compression(file_name(path))
    packing = by_name or next((name for name, magic in _PACKED.items() if magic.match(beginning)), None)
    if packing is None:
        return file_name(path), file, beginning
    if packing == "zip":
        member, file = _member(path, file, stack)
        return member, file, _begin(file)
    if packing not in compr:
        raise Unreadable(f"packed by {packing}, for which a package is missing: unpack it")
    unpack: Callable[..., Any] = compr[packing]
    packed = io.BufferedReader(_Joined(beginning, file))
    file = stack.enter_context(unpack(packed, mode="rb"))
    inner = file_name(path)
    return inner.rpartition(".")[0] if by_name else inner, file, _begin(file)


def _member(path: str, file: BinaryIO, stack: ExitStack) -> tuple[str, BinaryIO]:
    """The only file in a zip archive: its name, or the archive's where that says more, and itself."""
    if not file.seekable():
        raise Unreadable("a zip archive in a pipe: unpack it, or give its path")
    file.seek(0)
    archive = stack.enter_context(zipfile.ZipFile(file))
    members = [member for member in archive.infolist() if not member.is_dir() and not _is_hidden(member.filename)]
    names = [member.filename for member in members]
    if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
        raise Unreadable(_SAVE_AS_CSV)
    if "content.xml" in names and "mimetype" in names:
        raise Unreadable("an OpenDocument file: save its sheet as CSV")
    if not members:
        raise Unreadable("a zip archive without a file")
    if len(members) > 1:
        raise Unreadable(
            f"a zip archive of {len(members)} files ({shortened(', '.join(names), 60)}): name the one that is the list,"
            f" as in zip://{shortened(names[0], 60)}::{shown_url(path)}"
        )
    if members[0].flag_bits & 1:
        raise Unreadable("an encrypted zip archive: unpack it")
    outer = file_name(path).removesuffix(".zip")
    name = names[0] if "." in os.path.basename(names[0]) else outer
    return name, cast(BinaryIO, stack.enter_context(archive.open(members[0])))


def _is_hidden(name: str) -> bool:
    """Whether it is what systems leave in archives, as `__MACOSX/._list.csv`."""
    return name.startswith("__MACOSX/") or os.path.basename(name).startswith(".")


def file_name(path: str) -> str:
    """The path, without its query if it is a URL. Of chained URLs (`zip://a.csv::s3://b/c.zip`) the first."""
    if "://" not in path:
        return path
    return next(part for part in path.split("::") if "://" in part).partition("?")[0]


def _begin(file: BinaryIO) -> bytes:
    """The bytes up to the end of the first line that is not blank; a slow pipe is waited for."""
    read = getattr(file, "read1", file.read)
    beginning = b""
    while len(beginning) < _BEGINNING and not re.search(rb"[^\s\0][^\r\n]*[\r\n]", beginning):
        if not (more := read(_BEGINNING - len(beginning))):
            break
        beginning += more
    return beginning


class _Joined(io.RawIOBase):
    """A binary file, the beginning of which is read already."""

    def __init__(self, beginning: bytes, file: BinaryIO) -> None:
        self._beginning = beginning
        self._read = getattr(file, "read1", file.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._beginning:
            data, self._beginning = self._beginning[: len(buffer)], self._beginning[len(buffer) :]
        else:
            data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Bounded(_Joined):
    """The same, of at most as many bytes as a list can have."""

    _size = 0

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        self._size += count
        if self._size > MAX_LIST_BYTES:
            raise Unreadable(f"more than {MAX_LIST_BYTES:,} bytes: split it")
        return count


def _is_text(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _not_text(encoding: str, line: int | None) -> Unreadable:
    return Unreadable(f"not text in {encoding.removesuffix('-sig').upper()}: save the list as UTF-8", line)


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
