"""`further-source compact`, as it is typed."""

import json
from pathlib import Path

import pytest

from further_source.command.main import main
from further_source.lock import only_load
from further_source.sandbox import Sandbox
from tests.support.command import Command, serve

INTO = ["--destination", "filesystem"]


@pytest.fixture
def lake(command_here: Command, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Tables of Delta that two loads have written to."""
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", str(tmp_path / "lake"))
    monkeypatch.setenv("DESTINATION__FILESYSTEM__TABLE_FORMAT", "delta")
    for name in "ab":
        serve(sandbox, name, {"Claim": "C"})
        assert main(["load", f"wf/{name}", "--quiet", *INTO]) == 0
    return command_here


def test_it_tells_how_many_files_there_were_and_are(lake: Command, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["compact", *INTO]) == 0
    assert "cells: 2 files are 1 now, 0 old ones deleted" in capsys.readouterr().out.splitlines()
    assert main(["compact", "--json", *INTO]) == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert {"table": "cells", "before": 1, "after": 1, "deleted": 0} in tables


def test_beside_a_load_of_this_machine_it_does_nothing(lake: Command, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    with only_load("further", str(lake.data_dir / "pipelines")):
        assert main(["compact", *INTO]) == 75
    assert capsys.readouterr().err.count("\n") == 1


def test_where_there_is_nothing_to_compact_it_is_wrong_usage(
    command_here: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(sandbox, "a", {"Claim": "C"})
    assert main(["load", "wf/a", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["compact"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "duckdb" in line
