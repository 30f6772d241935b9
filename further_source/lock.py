"""One load of a pipeline at a time on one machine, and one server of reviews of a dataset.

Both by a lock of the operating system's, which a crash releases.
"""

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlt.common import logger
from filelock import FileLock, Timeout

from further_source.exceptions import AlreadyRunningError

__all__ = ["Lock", "held_lock", "only_load", "only_server"]

_ATTEMPTS = 10
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _LockFile(FileLock):
    @property
    def inode(self) -> tuple[int, int] | None:
        """Device and number of the file that is locked, whatever stands at its path now."""
        descriptor = self._context.lock_file_fd
        if descriptor is None:
            return None
        found = os.fstat(descriptor)
        return found.st_dev, found.st_ino


class Lock:
    """The lock of a pipeline on this machine while it is held: `<pipelines_dir>/<pipeline_name>.lock`.

    The operating system locks the file, and not its path. If somebody removes the file, the next process makes another
    one and locks that.
    """

    def __init__(self, pipeline_name: str, pipelines_dir: str) -> None:
        self._pipeline_name = pipeline_name
        self._path = _path(pipeline_name, pipelines_dir)
        other = f"another load of pipeline {pipeline_name} is running; it is left alone, and this one asked nothing"
        self._files = [self._take(otherwise=other)]

    @property
    def identity(self) -> str:
        """The same for all who hold this lock, one after the other, until this machine starts anew.

        Whoever holds the lock knows that another holder of the same identity holds it no longer.
        """
        inode = _inode(self._files[-1])
        return f"{_machine()} {inode[0]} {inode[1]}" if inode else ""

    def check(self) -> None:
        """Takes the lock anew if its file was removed or replaced.

        Raises:
            AlreadyRunningError: Another load has locked the new file.
        """
        if _is_at(self._path, self._files[-1]):
            return
        name = self._pipeline_name
        other = f"the lock file of pipeline {name} was removed, and another load has begun since; this one stops"
        self._files.append(self._take(otherwise=other))
        logger.warning(f"{self._path} was removed while the load is running; it is made and locked again")

    def release(self) -> None:
        for file in self._files:
            file.release()

    def _take(self, otherwise: str) -> _LockFile:
        for _ in range(_ATTEMPTS):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = _LockFile(self._path, thread_local=False)
            try:
                file.acquire(blocking=False)
            except Timeout:
                break
            if _is_at(self._path, file):
                return file
            file.release()  # it was removed before it was locked, so that it keeps nobody out
        raise AlreadyRunningError(otherwise)


_held: dict[Path, Lock] = {}


@contextmanager
def only_load(pipeline_name: str, pipelines_dir: str) -> Iterator[None]:
    """Holds the lock of a pipeline, `<pipelines_dir>/<pipeline_name>.lock`.

    Raises:
        AlreadyRunningError: Another process holds it; nothing was touched.
    """
    lock = Lock(pipeline_name, pipelines_dir)
    path = _path(pipeline_name, pipelines_dir)
    _held[path] = lock
    try:
        yield
    finally:
        del _held[path]
        lock.release()


@contextmanager
def only_server(pipelines_dir: str, location: str, dataset: str) -> Iterator[None]:
    """Holds the lock of whoever serves the reviews of a dataset on this machine.

    Raises:
        AlreadyRunningError: Another process does.
    """
    named = hashlib.sha256(f"{location} {dataset}".encode()).hexdigest()[:16]
    path = _path(f"review_{named}", pipelines_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise AlreadyRunningError(
            f"another server of reviews of dataset {dataset} is running on this machine: people share its page, for "
            "two would hand out the same cells"
        ) from None
    try:
        yield
    finally:
        lock.release()


def held_lock(pipeline_name: str, pipelines_dir: str) -> Lock | None:
    """The lock of a pipeline, if this process holds it."""
    return _held.get(_path(pipeline_name, pipelines_dir))


def _path(pipeline_name: str, pipelines_dir: str) -> Path:
    return Path(pipelines_dir).absolute() / f"{pipeline_name}.lock"


def _is_at(path: Path, file: FileLock) -> bool:
    inode = _inode(file)
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return inode in (None, (found.st_dev, found.st_ino))


def _inode(file: FileLock) -> tuple[int, int] | None:
    """None where the file system has no locks, so that the library locks by making the file."""
    return file.inode if isinstance(file, _LockFile) else None


def _machine() -> str:
    """This machine since it started, where the operating system tells that; else its name."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return socket.gethostname()
