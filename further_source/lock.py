"""One load of a pipeline at a time on one machine: a lock of the operating system's, which a crash releases."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from further_source.exceptions import AlreadyRunningError

__all__ = ["only_load"]


@contextmanager
def only_load(pipeline_name: str, pipelines_dir: str) -> Iterator[None]:
    """Holds the lock of a pipeline, `<pipelines_dir>/<pipeline_name>.lock`.

    Raises:
        AlreadyRunningError: Another process holds it; nothing was touched.
    """
    directory = Path(pipelines_dir)
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / f"{pipeline_name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise AlreadyRunningError(
            f"another load of pipeline {pipeline_name} is running; it is left alone, and this one asked nothing"
        ) from None
    try:
        yield
    finally:
        lock.release()
