"""The lock of a pipeline on one machine, when its file goes away."""

from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from further_source.exceptions import AlreadyRunningError
from further_source.lock import held_lock, only_load


def test_a_removed_lock_file_is_locked_again_before_the_next_load(tmp_path: Path, log: list[str]) -> None:
    with only_load("further", str(tmp_path)):
        lock = held_lock("further", str(tmp_path))
        assert lock is not None
        (tmp_path / "further.lock").unlink()
        lock.check()
        assert "was removed while the load is running" in log[0]
        with pytest.raises(Timeout), another(tmp_path):
            pass
    assert held_lock("further", str(tmp_path)) is None
    with another(tmp_path):
        pass


def test_who_finds_another_load_behind_a_removed_lock_file_stops(tmp_path: Path) -> None:
    with only_load("further", str(tmp_path)):
        lock = held_lock("further", str(tmp_path))
        assert lock is not None
        (tmp_path / "further.lock").unlink()
        with another(tmp_path), pytest.raises(AlreadyRunningError, match="was removed, and another load has begun"):
            lock.check()


def another(pipelines_dir: Path) -> FileLock:
    """What another process does; a second lock in this one is refused by the operating system just as well."""
    return FileLock(pipelines_dir / "further.lock", blocking=False)
