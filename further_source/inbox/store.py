"""The files of an inbox: a directory, or a place in any file system that fsspec knows. Knows nothing of their content.

What is in `archive/`, in `quarantine/`, or has a name that begins with a dot is not in the inbox. A file is complete
when it is there: whoever writes one writes it under a name with a dot first, and renames it.
"""

import gzip
import os
import posixpath
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, get_args

from dlt.common import logger
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from further_source.exceptions import ConfigurationError
from further_source.inbox.leftovers import sweep
from further_source.inbox.names import ARCHIVE, QUARANTINE, REASON, is_directory_apart, is_hidden
from further_source.text import shown, shown_url

__all__ = ["LOADED", "Document", "Inbox", "Loaded", "reason_of"]

Loaded = Literal["archive", "delete", "leave"]
LOADED: tuple[str, ...] = get_args(Loaded)

_OF_LINES = (".jsonl", ".ndjson")
_EVERYWHERE = ("", f"{ARCHIVE}/", f"{QUARANTINE}/")
_REWRITTEN = ".rewritten"  # ends the hidden name of a file that is not whole yet
_MAGIC_GZIP = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 16
_MOST_UNPACKED = 1 << 30  # bytes; what is larger has its ids before
_MANY = 10_000  # names that one file can be kept beside


class Document(NamedTuple):
    """What should be one delivery: a file, or a line of one; `problem` tells why it cannot be read."""

    file: str
    line: int | None
    body: bytes
    problem: str | None = None


class Inbox:
    """The files of an inbox, by their names in it.

    Args:
        location: A directory, or an fsspec URL.
        loaded: What becomes of a file once all that is in it is loaded: moved to `archive/<day>/`, deleted, or left.
        workers: How many files are moved at once where each takes a request.

    Raises:
        ConfigurationError: The location cannot be one; or it is a directory that is not there.

    Attributes:
        shown: The location, without what is secret in a URL.
        leaves_files: Whether nothing becomes of a file that is loaded.
    """

    def __init__(self, location: str, loaded: str = "archive", *, workers: int = 8) -> None:
        if loaded not in LOADED:
            raise ConfigurationError(f"inbox_loaded is {shown(loaded)}: it must be one of {', '.join(LOADED)}")
        try:
            self._fs, root = url_to_fs(location)
        except Exception as error:  # the package of a file system may raise anything
            raise ConfigurationError(f"inbox {shown_url(location)}: {reason_of(error)}") from None
        self.shown = shown_url(location)
        self._root = root.rstrip("/")
        self.is_local = isinstance(self._fs, LocalFileSystem)
        if self.is_local and not os.path.isdir(self._root):
            raise ConfigurationError(f"inbox {shown_url(location)}: no such directory")
        self._loaded = loaded
        self.leaves_files = loaded == "leave"
        self._workers = 1 if self.is_local else workers

    # What is there

    @property
    def is_empty(self) -> bool:
        return next(self._files(), None) is None

    def names(self) -> list[str]:
        """The names of all files, in order."""
        return sorted(self._files())

    def names_everywhere(self) -> list[str]:
        """The names of all files, and of those that were put away or are in quarantine, without what is beside these.

        In the order in which a file moves, so that one which another load puts away meanwhile is there in any case.
        """
        return [name for top in _EVERYWHERE for name in sorted(self._files(top)) if not (top and name.endswith(REASON))]

    def _files(self, top: str = "", *, hidden: bool = False) -> Iterator[str]:
        directories = [top]
        for directory in directories:
            for name, is_directory in self._entries(directory):
                if (is_hidden(name) and not hidden) or (not directory and is_directory_apart(name)):
                    continue
                if is_directory:
                    directories.append(f"{directory}{name}/")
                else:
                    yield directory + name

    def _entries(self, directory: str) -> Iterator[tuple[str, bool]]:
        """What stands in a directory, and whether it is one itself."""
        path = self._path(directory).rstrip("/")
        if self.is_local:  # fsspec looks at each file, which takes many times as long
            with suppress(FileNotFoundError), os.scandir(path) as entries:
                for entry in entries:
                    is_directory = _is_directory(entry)
                    if is_directory or _may_be_file(entry):
                        yield entry.name, is_directory
            return
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError):  # a bucket has no directory before it has a file in it
            for entry in self._fs.ls(path, detail=True):
                name = entry["name"].rstrip("/").rpartition("/")[2]
                if entry["name"].rstrip("/") != path:  # some list the directory itself
                    yield name, entry["type"] == "directory"

    # What is in it

    @staticmethod
    def is_of_lines(name: str) -> bool:
        """Whether each line of a file is a delivery."""
        return name.lower().removesuffix(".gz").endswith(_OF_LINES)

    def documents(self, name: str, most: int) -> Iterator[Document]:
        """What is in a file, a document for each line where its name says so; nothing where the file is gone.

        Args:
            most: How many bytes a document may have, unpacked.

        Raises:
            Exception: The file cannot be read just now, whatever it holds.
        """
        line = 1 if self.is_of_lines(name) else None
        try:
            with self._open(name) as file:
                if line is None:
                    body = file.read(most + 1)
                    yield Document(name, None, body[:most], _too_large(most) if len(body) > most else None)
                    return
                while text := file.readline(most + 1):
                    is_whole = len(text) <= most or text.endswith(b"\n")
                    if not is_whole:
                        _skip_line(file)
                    if text.strip() or not is_whole:
                        yield Document(name, line, text[:most], None if is_whole else _too_large(most))
                    line += 1
        except FileNotFoundError:
            return  # another load was faster
        except (gzip.BadGzipFile, EOFError, zlib.error):
            yield Document(name, None, b"", "not gzip, or cut short")

    @contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        with self._fs.open(self._path(name), "rb") as file:
            if name.lower().endswith(".gz"):
                with gzip.open(file, "rb") as unpacked:
                    yield unpacked
            else:
                yield file

    def texts(self, name: str) -> Iterator[bytes]:
        """What is in a file, inflated, in parts that are one document each; the same whether these can be read or not.

        Raises:
            FileNotFoundError: It is not there.
            EOFError, zlib.error: It is of lines, and is not gzip or cut short.
        """
        if self.is_of_lines(name):
            with self._open(name) as file:
                try:
                    yield from file
                except gzip.BadGzipFile as error:
                    raise EOFError(str(error)) from error
            return
        with self._fs.open(self._path(name), "rb") as file:
            yield _inflated(file.read())

    # Where it goes

    def remove(self, name: str) -> None:
        """Deletes a file, and the reason beside it where it is in quarantine."""
        self._fs.rm_file(self._path(name))
        if name.startswith(f"{QUARANTINE}/"):
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name) + REASON)

    def rewrite(self, name: str, lines: Iterable[bytes]) -> None:
        """Puts a file of these lines in the place of a file, which is whole at any moment."""
        directory, base = posixpath.split(name)
        part = self._path(posixpath.join(directory, f".{base}{_REWRITTEN}"))
        with self._fs.open(part, "wb") as file:
            if name.lower().endswith(".gz"):
                with gzip.open(file, "wb") as packed:
                    packed.writelines(lines)
            else:
                file.writelines(lines)
            if self.is_local:
                file.flush()
                os.fsync(file.fileno())
        if self.is_local:
            os.replace(part, self._path(name))
        else:
            self._fs.mv(part, self._path(name))

    def sweep(self) -> None:
        """Deletes what receivers that died, and `rewrite` that was interrupted, have left."""
        for top in _EVERYWHERE:
            for name in self._files(top, hidden=True):
                if name.endswith(_REWRITTEN):
                    self._fs.rm_file(self._path(name))
        if self.is_local:
            sweep(Path(self._root))

    def put_away(self, names: Iterable[str]) -> None:
        """Does with loaded files what is to be done with them. One that cannot be moved is told of, and stays."""
        if self.leaves_files:
            return
        day = datetime.now(timezone.utc).date().isoformat()
        failed: list[tuple[str, Exception]] = []

        def put_away(name: str) -> None:
            try:
                if self._loaded == "delete":
                    self._fs.rm_file(self._path(name))
                else:
                    self._move(name, f"{ARCHIVE}/{day}/{name}")
            except FileNotFoundError:
                pass  # another load was faster
            except Exception as error:  # the package of a file system may raise anything
                failed.append((name, error))

        if self.is_local:
            for name in names:
                put_away(name)
        else:
            with ThreadPoolExecutor(self._workers) as threads:
                list(threads.map(put_away, names))
        if failed:
            (name, error), more = failed[0], len(failed) - 1
            others = f" and {more} more" if more else ""
            logger.warning(f"inbox: {shown(name)}{others} cannot be put away and stays: {reason_of(error)}")

    def quarantine(self, document: Document, reason: str) -> None:
        """Moves a file, or copies a line of one, to `quarantine/`, with the reason beside it. Never raises."""
        name = document.file if document.line is None else f"{document.file}.line-{document.line}.json"
        place = document.file if document.line is None else f"{document.file}, line {document.line}"
        logger.warning(f"inbox: {shown(place)} is no delivery that can be read, and goes to {QUARANTINE}/: {reason}")
        try:
            if document.line is None:
                kept = self._move(document.file, f"{QUARANTINE}/{name}")
            else:
                kept = f"{QUARANTINE}/{name}"
                self._write(kept, document.body)
            self._write(kept + REASON, f"{reason}\n".encode())
        except FileNotFoundError:
            pass  # another load was faster
        except Exception as error:  # the package of a file system may raise anything
            logger.warning(f"inbox: {shown(place)} cannot be moved to {QUARANTINE}/ and stays: {reason_of(error)}")

    def _move(self, name: str, target: str) -> str:
        """Moves a file, never onto another one; returns where it is now."""
        stem, suffixes = _split_suffixes(target)
        for number in range(1, _MANY):
            free = target if number == 1 else f"{stem}-{number}{suffixes}"
            path = self._path(free)
            if self._fs.exists(path):
                continue
            self._make_directory(path)
            if self.is_local:
                os.rename(self._path(name), path)
            else:
                self._fs.mv(self._path(name), path)
            return free
        raise FileExistsError(f"{target} exists")

    def _write(self, name: str, body: bytes) -> None:
        path = self._path(name)
        self._make_directory(path)
        self._fs.pipe_file(path, body)

    def _make_directory(self, path: str) -> None:
        if self.is_local:
            os.makedirs(os.path.dirname(path), exist_ok=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _is_directory(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: whoever opens it is told
        return False


def _may_be_file(entry: "os.DirEntry[str]") -> bool:
    """Whether it is no pipe, socket or device: whoever opens a pipe waits until somebody writes to it."""
    try:
        return entry.is_file() or not os.path.exists(entry.path)
    except OSError:
        return True


def _split_suffixes(name: str) -> tuple[str, str]:
    directory, base = posixpath.split(name)
    stem, dot, suffixes = base.partition(".")
    return posixpath.join(directory, stem), dot + suffixes


def _inflated(content: bytes) -> bytes:
    """What gzip has packed, as far as it can be unpacked; what is not packed, as it is."""
    if not content.startswith(_MAGIC_GZIP):
        return content
    unpacker = zlib.decompressobj(wbits=31)
    texts: list[bytes] = []
    room = _MOST_UNPACKED
    with suppress(zlib.error):
        for start in range(0, len(content), _CHUNK_BYTES):
            texts.append(unpacker.decompress(content[start : start + _CHUNK_BYTES], room))
            room -= len(texts[-1])
            if room <= 0:
                break
    return b"".join(texts)


def _too_large(most: int) -> str:
    return f"larger than max_answer_bytes ({most})"


def _skip_line(file: BinaryIO) -> None:
    while (text := file.readline(1 << 20)) and not text.endswith(b"\n"):
        pass


def reason_of(error: BaseException) -> str:
    """In our own words: the text of an error may hold a URL with a signature."""
    if isinstance(error, ImportError):
        return f"a package is missing ({' '.join(str(error).split())})"
    if isinstance(error, ValueError) and str(error).startswith("Protocol not known"):
        return "not a path or a kind of URL that fsspec knows"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return type(error).__name__
