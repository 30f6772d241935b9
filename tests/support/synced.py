"""What a process has had synced to disk, and renamed, in order."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

__all__ = ["Step", "steps_to_disk"]


class Step(NamedTuple):
    """`sync` of a file or directory, or `rename` to a path."""

    kind: str
    path: Path


@contextmanager
def steps_to_disk() -> Iterator[list[Step]]:
    """Takes note of each `os.fsync`, `os.rename` and `os.replace` within; skips the test where /proc names no files."""
    if not sys.platform.startswith("linux"):
        pytest.skip("/proc tells which file a descriptor is of")
    steps: list[Step] = []
    fsync = os.fsync

    def noted_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)
        steps.append(Step("sync", path))

    def noted(rename: Any) -> Any:
        def noted_rename(source: Any, target: Any, **arguments: Any) -> None:
            rename(source, target, **arguments)
            steps.append(Step("rename", Path(target)))

        return noted_rename

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", noted_fsync)
        patch.setattr(os, "rename", noted(os.rename))
        patch.setattr(os, "replace", noted(os.replace))
        yield steps
