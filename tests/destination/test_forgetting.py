"""Forgetting on destinations other than DuckDB and PostgreSQL: exact, or refused before anything is touched."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy

from further_source.sandbox import Sandbox
from tests.support.command import Command, asked, serve
from tests.support.deliveries import inline, store


def forgets(command: Command, sandbox: Sandbox, url: str, dataset: str) -> None:
    """Loads two executions, forgets one with `forget` in a process of its own, and loads both again."""
    command.environment["DESTINATION__SQLALCHEMY__CREDENTIALS"] = url
    options = ["--destination", "sqlalchemy", "--dataset", dataset, "--quiet"]
    for name in ("gone", "stays"):
        serve(sandbox, name, {"x": f"value of {name}" * 2_000}, {"x": None})
    assert command.run_here("wf/gone", "wf/stays", *options).returncode == 0
    before = rows(url, dataset, "stays")

    done = command.run("forget", "--external-id", "X-gone", *options[:-1], "--json", installed=True)

    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["rows"] == {"executions": 1, "steps": 1, "cells": 2, "rows_extract": 2}
    assert told["executions"] == [{"workflow_id": "wf", "workflow_execution_id": "gone"}]
    assert rows(url, dataset) == before
    assert "anew without them" in told["rest"]
    assert command.run_here("wf/gone", "wf/stays", *options, "--reload").returncode == 0
    assert asked(sandbox) == {"gone": 1, "stays": 2}
    assert {name: len(found) for name, found in rows(url, dataset).items()} == {
        name: len(found) for name, found in before.items()
    }


def rows(url: str, dataset: str, execution_id: str = "") -> dict[str, list[str]]:
    """What our tables hold, of one execution if one is given."""
    engine = sqlalchemy.create_engine(url)
    condition = f" WHERE workflow_execution_id = '{execution_id}'" if execution_id else ""
    with engine.connect() as connection:
        if url.startswith("sqlite"):
            file = url.removeprefix("sqlite:///").replace("lite.db", f"lite__{dataset}.db")
            connection.exec_driver_sql(f"ATTACH '{file}' AS {dataset}")
        found = {
            name: sorted(map(repr, connection.exec_driver_sql(f"SELECT * FROM {dataset}.{name}{condition}")))
            for name in ("executions", "steps", "cells", "rows_extract")
        }
    engine.dispose()
    return found


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as started:
        yield started


@pytest.mark.slow
@pytest.mark.sqlite
def test_sqlite(tmp_path: Path, sandbox: Sandbox) -> None:
    forgets(Command(tmp_path, sandbox), sandbox, f"sqlite:///{tmp_path}/lite.db", "forgets")
    assert not holding(tmp_path)
    with closing(sqlite3.connect(tmp_path / "lite__forgets.db")) as connection:
        assert connection.execute("PRAGMA freelist_count").fetchall() == [(0,)]


@pytest.mark.slow
@pytest.mark.mariadb
def test_mariadb(mariadb_url: str, tmp_path: Path, sandbox: Sandbox) -> None:
    forgets(Command(tmp_path, sandbox), sandbox, mariadb_url, "forgets")
    engine = sqlalchemy.create_engine(mariadb_url)
    with engine.connect() as connection:
        directory = connection.exec_driver_sql("SELECT @@datadir").scalar_one()
    engine.dispose()
    assert list(Path(directory).glob("forgets/*.ibd"))
    assert not holding(Path(directory) / "forgets", Path(directory) / "forgets_staging", tmp_path)


@pytest.mark.slow
@pytest.mark.lake
@pytest.mark.parametrize("table_format", ["delta", "iceberg", ""])
def test_a_lake_refuses_in_a_line_and_nothing_is_touched(table_format: str, tmp_path: Path, sandbox: Sandbox) -> None:
    command = Command(tmp_path, sandbox)
    command.environment = {
        "DESTINATION__FILESYSTEM__BUCKET_URL": str(tmp_path / "lake"),
        "DESTINATION__FILESYSTEM__TABLE_FORMAT": table_format or None,
    }
    serve(sandbox, "gone", {"x": 1})
    assert command.run_here("wf/gone", "--destination", "filesystem", "--quiet").returncode == 0
    inbox = store(tmp_path / "inbox", "gone.json", inline("gone")).parent

    def files() -> dict[Path, bytes]:
        places = (tmp_path / "lake", inbox, command.pipeline / "load")
        return {path: path.read_bytes() for place in places for path in place.rglob("*") if path.is_file()}

    before = files()

    done = command.run("forget", "wf/gone", "--destination", "filesystem", "--inbox", str(inbox), installed=True)

    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("further-source: forget: the destination knows no SQL, and files of a lake keep")
    assert files() == before


def holding(*directories: Path) -> list[str]:
    """Files below directories that have something of what is to be gone."""
    files = [path for directory in directories for path in directory.rglob("*") if path.is_file()]
    return [path.name for path in files if b"value of gone" in path.read_bytes()]
