"""What receivers that died had not finished to write into an inbox. None of it was acknowledged.

A receiver writes under names that begin with a token of its own, beside a lock that the operating system releases where
it dies: so the leftovers of a crash are told from what another receiver is writing.
"""

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["LOCK", "PART", "sweep"]

LOCK = ".lock"
PART = ".part"


def sweep(directory: Path, own_token: str = "") -> None:
    """Deletes what is not finished, and by no receiver that runs: neither by the one with this token."""
    for lock in directory.glob(f".*{LOCK}"):
        token = lock.name.removesuffix(LOCK)
        if token == own_token:
            continue
        with suppress(Timeout, OSError), FileLock(lock, timeout=0):
            for part in directory.glob(f"{token}-*{PART}"):
                part.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
