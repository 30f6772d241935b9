"""Commits to Iceberg tables for which no catalog is configured, by several processes at once."""

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException

from further_source.destination.claims import claiming

SCHEMA = pa.schema([("x", pa.int64())])


class Process:
    """What one process knows of the table: a catalog of its own, in memory."""

    def __init__(self, location: Path) -> None:
        self.catalog: Any = claiming(SqlCatalog("default", uri="sqlite:///:memory:"), fsspec.filesystem("file"))
        self.catalog.create_namespace("data")
        self.location = location

    def make(self) -> None:
        self.catalog.create_table("data.cells", schema=SCHEMA, location=f"file://{self.location}")

    def look(self) -> Any:
        """The table as it is now."""
        latest = max(self.location.glob("metadata/*.json"))
        table = self.catalog.register_table("data.cells", f"file://{latest}")
        table.metadata.properties["commit.retry.num-retries"] = "0"
        return table


@pytest.fixture
def location(tmp_path: Path) -> Path:
    Process(tmp_path / "cells").make()
    return tmp_path / "cells"


def rows(*values: int) -> pa.Table:
    return pa.table({"x": values}, SCHEMA)


def stored(location: Path) -> list[int]:
    return sorted(Process(location).look().scan().to_arrow().column("x").to_pylist())


def test_of_two_commits_on_the_same_version_one_fails_and_undoes_nothing(location: Path) -> None:
    one, other = Process(location).look(), Process(location).look()
    one.append(rows(1))
    with pytest.raises(CommitFailedException):
        other.append(rows(2))
    assert stored(location) == [1]
    Process(location).look().append(rows(2))
    assert stored(location) == [1, 2]
    assert not list(location.rglob("*.claim"))


def test_of_two_that_make_the_table_one_fails(location: Path) -> None:
    with pytest.raises(CommitFailedException):
        Process(location).make()
    assert len(list(location.glob("metadata/*.json"))) == 1


@pytest.mark.skipif(os.name == "nt", reason="there nobody can ask whether a process is gone without ending it")
def test_a_claim_of_a_process_that_is_gone_is_taken_over(location: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    claim = {"host": socket.gethostname(), "process_id": gone.pid}
    (location / "metadata" / "00001.1.claim").write_text(json.dumps(claim))
    Process(location).look().append(rows(1))
    assert stored(location) == [1]
    assert not list(location.rglob("*.claim"))
