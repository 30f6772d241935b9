"""What dlt leaves on this machine of an execution: found in files of any format, and deleted with the package."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from further_source.destination.copies import delete_copies, pending_copies
from further_source.executions import ExecutionId

GONE, STAYS = ExecutionId("wf", "gone"), ExecutionId("wf", "gone-not")


def write(path: Path, content: str) -> None:
    """A file of an execution; or, for `torn`, one that nobody can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content == "torn":
        path.write_bytes(b"\x1f\x8b torn" if path.suffix == ".gz" else b"PAR1 torn")
    elif path.suffix == ".parquet":
        ids = {"workflow_id": ["wf"], "workflow_execution_id": [content]}
        pq.write_table(pa.table(ids), path)
    else:
        text = f"('wf','{content}')".encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [(".parquet", "gone"), (".csv", "gone"), (".gz", "gone"), (".parquet", "torn"), (".gz", "torn")],
)
@pytest.mark.parametrize("folder", ["further/load/loaded", "further/load/new", "other.set_aside"])
def test_a_package_goes_that_has_something_of_it_or_cannot_be_read(
    tmp_path: Path, folder: str, suffix: str, content: str
) -> None:
    kept, deleted = tmp_path / folder / "1", tmp_path / folder / "2"
    write(kept / f"jobs/cells{suffix}", STAYS.workflow_execution_id)
    write(deleted / f"jobs/cells{suffix}", content)

    assert delete_copies(tmp_path, [GONE]) == [deleted]
    assert (kept.exists(), deleted.exists()) == (True, False)


@pytest.mark.parametrize("folder", ["further/load/normalized", "further/normalize/extracted"])
def test_what_waits_to_be_loaded_is_named_and_stays(tmp_path: Path, folder: str) -> None:
    for number, content in (("1", STAYS.workflow_execution_id), ("2", "gone"), ("3", "torn")):
        write(tmp_path / folder / number / "jobs/cells.parquet", content)

    assert pending_copies(tmp_path, [GONE]) == [tmp_path / folder / "2", tmp_path / folder / "3"]
    assert delete_copies(tmp_path, [GONE]) == []


def test_traces_go_whatever_is_in_them(tmp_path: Path) -> None:
    write(tmp_path / "further/trace.pickle", "other")

    assert delete_copies(tmp_path, [GONE]) == [tmp_path / "further/trace.pickle"]
