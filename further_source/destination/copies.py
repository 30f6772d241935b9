"""What is left on this machine of loads: dlt keeps the files of loaded packages, and its trace of the last run.

They are copies of what the destination has, or had. Whole packages are deleted that have something of an execution, or
in which something cannot be read.
"""

import gzip
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from dlt.common.storages import LoadStorage, NormalizeStorage

from further_source.executions import ExecutionId
from further_source.tables.columns import MERGE_KEY

__all__ = ["delete_copies", "pending_copies"]

_PENDING = (("normalize", NormalizeStorage.EXTRACTED_FOLDER), ("load", LoadStorage.NORMALIZED_FOLDER))
_ID = rb"[A-Za-z0-9_-]"
_TRACE = "trace.pickle"


def delete_copies(pipelines_dir: Path, executions: Collection[ExecutionId]) -> list[Path]:
    """Deletes what is left of executions in the working directories of all pipelines, and returns what it was.

    dlt's traces go too: they may quote a value that could not be loaded. What is pending stays, see `pending_copies`.
    """
    deleted = []
    for path in _copies(pipelines_dir):
        if path.name == _TRACE or _has_any(path, executions):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            deleted.append(path)
    return deleted


def pending_copies(pipelines_dir: Path, executions: Collection[ExecutionId]) -> list[Path]:
    """The packages that wait to be loaded, of whatever pipeline, and have something of executions."""
    return [path for path in _pending(pipelines_dir) if _has_any(path, executions)]


def _pending(pipelines_dir: Path) -> Iterator[Path]:
    for folders in _PENDING:
        yield from sorted(pipelines_dir.glob("/".join(("*", *folders, "*"))))


def _copies(pipelines_dir: Path) -> Iterator[Path]:
    """Packages that are loaded, set aside, or were never made whole; and traces."""
    pending = {path.parent for path in _pending(pipelines_dir)} | {
        directory.joinpath(*folders) for directory in pipelines_dir.glob("*") for folders in _PENDING
    }
    for pattern in ("*.set_aside/*", f"*/{_TRACE}"):
        yield from sorted(pipelines_dir.glob(pattern))
    for folder in sorted([*pipelines_dir.glob("*/load/*"), *pipelines_dir.glob("*/normalize/*")]):
        if folder.is_dir() and folder not in pending:
            yield from sorted(path for path in folder.glob("*") if path.is_dir())


def _has_any(path: Path, executions: Collection[ExecutionId]) -> bool:
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    return any(_file_has_any(file, executions) for file in files)


def _file_has_any(file: Path, executions: Collection[ExecutionId]) -> bool:
    """Whether a file of any format has an id, or cannot be read: better a copy too few than one too many."""
    try:
        if file.suffix == ".parquet":
            return _parquet_has_any(file, executions)
        content = file.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except Exception:  # whatever is wrong with it
        return True
    found = set(re.findall(_ID + rb"+", content))
    return any(one.workflow_execution_id.encode() in found for one in executions)


def _parquet_has_any(file: Path, executions: Collection[ExecutionId]) -> bool:
    """Imports pyarrow only here, because that takes long."""
    import pyarrow.compute  # noqa: PLC0415
    import pyarrow.parquet  # noqa: PLC0415

    if not {*MERGE_KEY} <= {*pyarrow.parquet.read_schema(file).names}:
        return False
    ids = pyarrow.parquet.read_table(file, columns=[MERGE_KEY[1]]).column(0)
    found = set(pyarrow.compute.unique(ids).to_pylist())
    return any(one.workflow_execution_id in found for one in executions)
