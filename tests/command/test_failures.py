"""What a load says when it cannot go on."""

from pathlib import Path

import pytest

from further_source.sandbox import Sandbox
from tests.support.command import WORKFLOW, Command, loaded
from tests.support.disks import small_disk_at
from tests.support.loading import cells_of, serve_rows


@pytest.mark.slow
def test_a_full_disk_is_named_whatever_file_is_missing_for_it(tmp_path: Path, sandbox: Sandbox) -> None:
    serve_rows(sandbox, "a", *(cells_of(x=f"{number:>0100}") for number in range(3_000)))
    command = Command(tmp_path, sandbox)
    said = []
    for size in (20, 80, 140, 160, 180):
        with small_disk_at(tmp_path / f"{size}k", f"{size}k") as disk:
            command.data_dir = disk / "dlt"
            done = command.run("--quiet", f"{WORKFLOW}/a")
            if done.returncode == 0:
                break
            said.append(done.stderr.splitlines()[-1])
            assert done.returncode == 1
            assert "no space left on device. Make room and run again" in said[-1]
            assert str(disk) in said[-1]
    assert any("normalize failed" in line for line in said), said
    command.data_dir = tmp_path / "dlt"
    loaded(command.run(f"{WORKFLOW}/a"))
    assert command.query("SELECT count(*), count(DISTINCT row_index) FROM cells") == [(3_000, 3_000)]
