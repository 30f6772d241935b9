"""The manifest of a package of dlt's: what its files were like when it was complete.

Nothing that dlt writes to its working directory is synced, and a power cut may leave any file short, zeroed or missing.
dlt would load what is left of it, and rows would be missing for good. So a package gets a manifest before it counts as
pending, and is compared with that before it is loaded by another process than the one that made it.

A normalized package is synced with its manifest. An extracted one is not: it is normalized a moment later, and where a
power cut comes in between, the manifest tells whether it is whole.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dlt
from dlt.common.storages import FileStorage, LoadStorage, ParsedLoadJobFileName
from dlt.common.storages.load_package import (
    JOB_EXCEPTION_EXTENSION,
    WORKING_FOLDERS,
    PackageStorage,
    commit_load_package_state,
)

from further_source.dlt_internals import when_packages_are_committed

__all__ = ["FOLLOW_UPS", "MANIFEST", "copies", "fault", "job_files", "keep_manifest"]

MANIFEST = "manifest.json"
FOLLOW_UPS = frozenset({"sql", "reference"})
"""Formats of files that dlt makes while it loads; they are in no manifest."""

_HAS_MANIFEST = "further_source_manifest"
_STATE = PackageStorage.LOAD_PACKAGE_STATE_FILE_NAME
_COPIED = (_STATE, PackageStorage.SCHEMA_UPDATES_FILE_NAME)  # dlt changes or deletes these while it loads
_BLOCK = 1 << 20
_THREADS = 16


def keep_manifest() -> None:
    """Has the package that is being extracted, and so the one that is made of it, get a manifest."""
    when_packages_are_committed(_commit)
    state: Any = dlt.current.load_package_state()["state"]
    state[_HAS_MANIFEST] = True
    commit_load_package_state()


def _commit(directory: Path, rows: Mapping[str, int], make_it_count: Callable[[], None]) -> None:
    if not _is_ours(directory):
        make_it_count()
        return
    is_normalized = directory.parent.name == LoadStorage.NEW_PACKAGES_FOLDER
    _write_manifest(directory, rows)
    if is_normalized:
        _sync(path for path in directory.rglob("*") if path.is_file())
        _sync((directory, *(path for path in directory.iterdir() if path.is_dir())))
    make_it_count()
    if is_normalized:
        _sync((directory.parent, directory.parent.with_name(LoadStorage.NORMALIZED_FOLDER)))


def _is_ours(directory: Path) -> bool:
    return bool(json.loads((directory / _STATE).read_text(encoding="utf-8")).get(_HAS_MANIFEST))


def _write_manifest(directory: Path, rows: Mapping[str, int]) -> None:
    files = [directory / PackageStorage.SCHEMA_FILE_NAME, *(path for _, path in job_files(directory))]
    content = {
        "version": 1,
        "files": [
            {
                "file": path.relative_to(directory).as_posix(),
                "size": path.stat().st_size,
                "rows": rows.get(path.name),
                "crc32": _checksum(path),
            }
            for path in files
        ],
        "copies": {
            name: (directory / name).read_text(encoding="utf-8") for name in _COPIED if (directory / name).exists()
        },
    }
    document = {**content, "crc32": zlib.crc32(json.dumps(content).encode())}
    (directory / MANIFEST).write_text(json.dumps(document), encoding="utf-8")


def _read_manifest(directory: Path) -> dict[str, Any]:
    """Raises `ValueError` where it is not as it was written, `OSError` where there is none."""
    document: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    crc32 = document.pop("crc32", None)
    if crc32 != zlib.crc32(json.dumps(document).encode()):
        raise ValueError("the checksum is another")
    return document


def copies(directory: Path) -> Mapping[str, str]:
    """Texts by name of files of a package that dlt changes while it loads, as they were; none without a manifest."""
    try:
        found: Mapping[str, str] = _read_manifest(directory)["copies"]
    except (OSError, ValueError, KeyError):
        return {}
    return found


def fault(directory: Path) -> str | None:
    """What is not as it was when a package was complete; None where it is whole.

    A package without a manifest, of another source or an older version, is whole if all of it can be read. A text file
    that is cut off at the end of a row cannot be told from one that is whole there.
    """
    if (directory / MANIFEST).exists() or _should_have_manifest(directory):
        return _difference(directory)
    return next(filter(None, map(_unreadable, _all_files(directory))), None)


def _should_have_manifest(directory: Path) -> bool:
    try:
        return _is_ours(directory)
    except (OSError, ValueError, AttributeError):
        return False


def _difference(directory: Path) -> str | None:
    try:
        manifest = _read_manifest(directory)
    except OSError:
        return f"{MANIFEST} is missing"
    except (ValueError, AttributeError):
        return f"{MANIFEST} cannot be read"
    jobs = {job.job_id(): path for job, path in job_files(directory)}
    for expected in manifest["files"]:
        name = expected["file"]
        path = directory / name if "/" not in name else jobs.get(ParsedLoadJobFileName.parse(name).job_id())
        if path is None or not path.exists():
            return f"{name} is missing{_rows(expected)}"
        if (size := path.stat().st_size) != expected["size"]:
            return f"{name} has {size} bytes in place of {expected['size']}{_rows(expected)}"
        if _checksum(path) != expected["crc32"]:
            return f"{name} has other bytes than it had{_rows(expected)}"
    return None


def _rows(expected: Mapping[str, Any]) -> str:
    return "" if expected["rows"] is None else f" ({expected['rows']} rows)"


def job_files(directory: Path) -> Iterator[tuple[ParsedLoadJobFileName, Path]]:
    """The files of a package that hold data, in whatever state their loading is."""
    for folder in sorted(WORKING_FOLDERS):
        for path in sorted((directory / folder).glob("*")):
            if path.name.endswith(JOB_EXCEPTION_EXTENSION):
                continue
            job = ParsedLoadJobFileName.parse(path.name)
            if job.file_format not in FOLLOW_UPS:
                yield job, path


def _checksum(path: Path) -> int:
    crc32 = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc32 = zlib.crc32(block, crc32)
    return crc32


# Without a manifest


def _all_files(directory: Path) -> Iterator[Path]:
    yield directory / _STATE
    yield directory / PackageStorage.SCHEMA_FILE_NAME
    yield from (path for _, path in job_files(directory))


def _unreadable(path: Path) -> str | None:
    try:
        _read(path)
    except Exception as error:  # of whatever reads the format
        return f"{path.name} cannot be read ({error})"
    return None


def _read(path: Path) -> None:
    """Reads a file to its end; raises whatever its format does if that cannot be."""
    if path.suffix == ".json":
        if not isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
            raise ValueError("it is no object")
    elif path.suffix == ".parquet":
        import pyarrow.parquet  # noqa: PLC0415  takes long, and few need it

        with pyarrow.parquet.ParquetFile(path) as file:
            for _ in file.iter_batches():
                pass
    else:
        _read_text(path)


def _read_text(path: Path) -> None:
    with FileStorage.open_zipsafe_ro(str(path), "rt", encoding="utf-8") as file:
        last = ""
        while block := file.read(_BLOCK):
            if "\0" in block:
                raise ValueError("zeroes")
            last = block
    if not last.endswith(("\n", ";")):
        raise ValueError("it is cut off" if last else "it is empty")


# On disk


def _sync(paths: Iterable[Path]) -> None:
    """Waits until files or directories are on disk. At once: the disk takes as long for many as for one."""
    if os.name == "nt":  # directories cannot be synced there
        paths = [path for path in paths if path.is_file()]
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(_sync_one, paths):
            pass


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
