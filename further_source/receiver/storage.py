"""Writes deliveries into an inbox, so that one that was acknowledged survives a crash and a power cut.

A body is written under a name with a dot, synced, and renamed; then the directory is synced. Names hold the time of
arrival and a hash of the content, and nothing that a sender chose.
"""

import hashlib
import itertools
import os
import secrets
import time
import zlib
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, NamedTuple

from filelock import FileLock

from further_source.inbox.delivery import NoDelivery, read_delivery
from further_source.inbox.leftovers import LOCK, PART, sweep
from further_source.inbox.names import QUARANTINE, REASON, is_directory_apart, is_hidden

__all__ = ["Backlog", "Incoming", "Storage", "reason_of"]

_TIME = "%Y%m%dT%H%M%S.%fZ"
_HASH_DIGITS = 32
_BUFFER_BYTES = 64_000


class Backlog(NamedTuple):
    """How many files wait in an inbox, and for how many seconds the oldest has."""

    files: int
    oldest_seconds: float


class Storage:
    """An inbox that this process writes to.

    What it has not finished is under names that begin with a token of its own, beside a lock; see `leftovers`.

    Args:
        directory: The inbox; it is there.
        max_bytes: How large a delivery may be, unpacked; a larger one goes to quarantine.

    Raises:
        OSError: It cannot be written to.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._token = f".{secrets.token_hex(8)}"
        self._numbers = itertools.count()
        (directory / QUARANTINE).mkdir(exist_ok=True)
        _sync(directory)
        self._lock = FileLock(directory / f"{self._token}{LOCK}")
        self._lock.acquire(timeout=0)
        self.sweep()

    def close(self) -> None:
        self._lock.release()
        with suppress(OSError):
            os.unlink(self._lock.lock_file)

    def sweep(self) -> None:
        """Deletes what receivers that died had not finished. None of it was acknowledged."""
        sweep(self.directory, self._token)

    def incoming(self, encoding: str) -> "Incoming":
        """A delivery that begins to arrive, with its `Content-Encoding`."""
        return Incoming(self, self.part(), encoding=encoding, max_bytes=self._max_bytes)

    def part(self) -> Path:
        """A name for what is not whole."""
        return self.directory / f"{self._token}-{next(self._numbers)}{PART}"

    def probe(self) -> None:
        """Raises `OSError` where nothing can be written."""
        part = self.part()
        try:
            part.write_bytes(b"-")
        finally:
            part.unlink(missing_ok=True)

    def backlog(self) -> Backlog:
        """What waits to be loaded."""
        now = time.time()
        count, oldest = 0, now
        for directory, below, files in os.walk(self.directory):
            at_top = directory == str(self.directory)
            below[:] = [name for name in below if not (is_hidden(name) or (at_top and is_directory_apart(name)))]
            for name in files:
                if not is_hidden(name):
                    count += 1
                    oldest = min(oldest, _arrived_at(directory, name, now))
        return Backlog(count, max(0.0, now - oldest))


class Incoming:
    """One body, as it arrives. `add` is cheap; what is `due` is written by `flush`, which may block, as `keep` may."""

    def __init__(self, storage: Storage, part: Path, *, encoding: str, max_bytes: int) -> None:
        self._storage = storage
        self._part = part
        self._encoding = encoding
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self._file: BinaryIO | None = None
        self.size = 0

    def add(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._buffer += chunk
        self.size += len(chunk)

    @property
    def due(self) -> bool:
        """Whether so much has come that it should be written."""
        return len(self._buffer) >= _BUFFER_BYTES

    def flush(self) -> None:
        if self._file is None:
            self._file = open(self._part, "xb", buffering=0)  # noqa: SIM115  closed by keep or discard
        rest = memoryview(bytes(self._buffer))
        while rest:
            rest = rest[self._file.write(rest) :]
        self._buffer.clear()

    def discard(self) -> None:
        """Forgets it. After `keep` it does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with suppress(OSError):
                os.unlink(self._part)

    def keep(self) -> str | None:
        """Makes it durable; returns why it is in quarantine, None where it is in the inbox.

        Raises:
            OSError: It could not be stored. Nothing of it is left.
        """
        try:
            self.flush()
            assert self._file is not None  # noqa: S101  flush opens it
            os.fsync(self._file.fileno())
            problem = self._problem()
            suffix = ".json.gz" if self._encoding == "gzip" and problem is None else ".json"
            arrived = datetime.now(timezone.utc).strftime(_TIME)
            name = f"{arrived}-{self._hash.hexdigest()[:_HASH_DIGITS]}{suffix}"
            self._put(name, problem)
            self._file.close()
            self._file = None
            return problem
        finally:
            self.discard()

    def _put(self, name: str, problem: str | None) -> None:
        inbox = self._storage.directory
        target = inbox / name if problem is None else inbox / QUARANTINE / name
        if problem is not None:
            target.parent.mkdir(exist_ok=True)
            (target.parent / f"{name}{REASON}").write_text(f"{problem}\n", encoding="utf-8")
        os.replace(self._part, target)
        _sync(target.parent)

    def _problem(self) -> str | None:
        """Why it is no delivery that can be loaded."""
        if self.size > self._max_bytes:
            return f"it is larger than --max-bytes ({self._max_bytes})"
        body = self._part.read_bytes()
        if self._encoding == "gzip":
            unpacker = zlib.decompressobj(wbits=31)
            try:
                body = unpacker.decompress(body, self._max_bytes + 1)
            except zlib.error:
                return "it is not gzip, though its Content-Encoding says so"
            if len(body) > self._max_bytes:
                return f"it is larger than --max-bytes ({self._max_bytes}) unpacked"
            if not unpacker.eof:
                return "its gzip is cut short"
        elif self._encoding not in ("", "identity"):
            return "it has a Content-Encoding that is not read here"
        try:
            read_delivery(body)
        except NoDelivery as no_delivery:
            return str(no_delivery)
        return None


def reason_of(error: OSError) -> str:
    """Why, in the words of the operating system and without a path."""
    return (error.strerror or type(error).__name__).lower()


def _arrived_at(directory: str, name: str, now: float) -> float:
    with suppress(ValueError):
        arrived = datetime.strptime(name.partition("-")[0], _TIME)
        return arrived.replace(tzinfo=timezone.utc).timestamp()
    with suppress(OSError):  # put away meanwhile
        return os.stat(os.path.join(directory, name)).st_mtime
    return now


def _sync(directory: Path) -> None:
    """Makes names in a directory durable, where the operating system can be told to."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
