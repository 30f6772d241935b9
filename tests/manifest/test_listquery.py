"""Lists that are a query: on whatever SQLAlchemy reaches, which is only read, and told in a line where it fails."""

import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from further_source.exceptions import ManifestError
from further_source.manifest import read_executions_query


@pytest.fixture
def database(tmp_path: Path) -> str:
    """An SQLite file with a table of executions that were submitted."""
    with closing(sqlite3.connect(tmp_path / "own.db")) as connection, connection:
        connection.execute("CREATE TABLE submitted (number INTEGER, workflow_id TEXT, execution_id TEXT)")
        connection.executemany("INSERT INTO submitted VALUES (?, 'wf', ?)", [(2, "b"), (1, "a"), (3, " c ")])
        connection.execute("CREATE TABLE odd (workflow_id, execution_id)")
        connection.executemany("INSERT INTO odd VALUES (?, ?)", [("wf", "a"), (None, "b"), ("wf", 7), ("wf", "d e")])
    return f"sqlite:///{tmp_path}/own.db"


def read(query: str, database: str) -> list[str]:
    return [str(execution) for execution in read_executions_query(query, database)]


def problem(query: str, database: str) -> str:
    with pytest.raises(ManifestError) as raised:
        read(query, database)
    line = str(raised.value)
    assert "\n" not in line
    assert line.startswith("executions_query")
    return line


def test_rows_are_executions_in_the_order_of_the_query(database: str) -> None:
    assert read("SELECT * FROM submitted ORDER BY number", database) == ["wf/a", "wf/b", "wf/c"]
    query = (
        "SELECT execution_id AS \"Workflow Execution Id\", 'x%' AS more, workflow_id FROM submitted WHERE number = 2;"
    )
    assert read(query, database) == ["wf/b"]
    assert read("SELECT * FROM submitted WHERE number > 3 -- none", database) == []


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("SELECT number FROM submitted", ["no column workflow_id and no column execution_id", "'number'"]),
        ("SELECT workflow_id, number FROM submitted", ["no column execution_id", "'workflow_id, number'"]),
        ("SELECT *, workflow_id FROM submitted", ["the column workflow_id comes twice"]),
        ("SELECT * FROM odd WHERE workflow_id IS NULL", ["row 1", "workflow_id is null"]),
        ("SELECT * FROM odd WHERE execution_id <> 'b' LIMIT 2", ["row 2", "execution_id is a number", "CAST"]),
        ("SELECT * FROM odd WHERE execution_id = 'd e'", ["row 1", "execution_id 'd e' is not an id"]),
        ("SELECT *, 'other' AS workflow_execution_id FROM submitted", ["row 1", "both there and differ"]),
        ("SELECT * FROM nowhere", ["no such table: nowhere"]),
        ("SELECT FROM WHERE", ["syntax error"]),
        ("DELETE FROM submitted", ["it writes: it has to be a SELECT"]),
        ("WITH gone AS (DELETE FROM submitted RETURNING *) SELECT * FROM gone", ["it writes"]),
        ("SELECT * FROM submitted; DROP TABLE submitted", ["2 statements"]),
        ("", ["0 statements"]),
        ("REPLACE INTO submitted VALUES (1, 'wf', 'x')", ["it writes: it has to be a SELECT"]),
        ("SELECT * FROM submitted INTO OUTFILE 'x'", ["it writes: it has to be a SELECT"]),
        ("PRAGMA user_version = 7", ["it begins with 'PRAGMA': it has to be a SELECT"]),
        ("/* no */ CALL submitted()", ["it begins with 'CALL': it has to be a SELECT"]),
    ],
)
def test_what_is_no_list_is_told_in_a_line(database: str, query: str, named: list[str]) -> None:
    line = problem(query, database)

    assert all(name in line for name in named), line


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("not a URL", "no URL of SQLAlchemy's"),
        ("postgresql://loader:hunter2@127.0.0.1:hunter2/own", "no URL of SQLAlchemy's"),
        ("postgresql://loader:hun@ter2@127.0.0.1/own", "%40"),
        ("postgresql://lo/ader:hunter2@127.0.0.1/own", "%40"),
        ("postgresql+psycopg2://loader:hunter2@127.0.0.1:9/own", "refused"),
        ("postgresql+pg8000://loader:hunter2@127.0.0.1:9/own", "the driver pg8000 is missing"),
        ("mysql+pymysql://loader:hunter2@127.0.0.1:9/own", "refused"),
        ("mysql+pymysql://loader:hunter2@127.0.0.1:9/own?bogus=1", "unexpected keyword argument 'bogus'"),
        ("oracle://loader:hunter2@127.0.0.1/own", "driver"),
        ("hunter://loader:hunter2@127.0.0.1/own", "SQLAlchemy knows no database 'hunter'"),
        ("sqlite:////nowhere/hunter.db?password=hunter2", "unable to open database file"),
        ("duckdb:////nowhere/hunter.duckdb", "does not exist"),
    ],
)
def test_a_database_that_cannot_be_reached_is_told_without_its_password(url: str, named: str) -> None:
    line = problem("SELECT 1", url)

    assert named in line
    assert "hunter2" not in line
    assert "ter2" not in line


@pytest.mark.parametrize(("kind", "query"), [("sqlite", "VACUUM INTO '{}'"), ("duckdb", "EXPORT DATABASE '{}'")])
def test_no_file_is_written_though_a_database_that_only_reads_would(kind: str, query: str, tmp_path: Path) -> None:
    file = tmp_path / "own.db"
    if kind == "sqlite":
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("CREATE TABLE submitted (workflow_id TEXT)")
    else:
        duckdb.connect(str(file)).close()

    assert "it has to be a SELECT" in problem(query.format(tmp_path / "written"), f"{kind}:///{file}")
    assert not (tmp_path / "written").exists()


def test_a_password_is_not_shown_however_the_url_spells_it(database: str) -> None:
    url = f"{database}?credentials_base64=hun%2fter%21"
    assert problem('SELECT * FROM "hun%2fter!"', url).endswith("no such table: ***")
    assert problem('SELECT * FROM "hun/ter!"', url).endswith("no such table: ***")


@pytest.mark.slow
def test_a_server_that_says_nothing_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("further_source.manifest.listquery._CONNECT_SECONDS", 2)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        line = problem("SELECT 1", f"postgresql+psycopg2://loader:hunter2@127.0.0.1:{port}/own")
    assert "timeout expired" in line


def test_what_the_database_says_shows_no_password(database: str) -> None:
    """Not every driver keeps it out of its errors."""
    assert problem("SELECT * FROM hunter2", f"{database}?password=hunter2").endswith("no such table: ***")


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/none.db", f"duckdb:///{tmp_path}/none.duckdb"):
        problem("SELECT 1", url)

    assert not list(tmp_path.glob("none.*"))


def test_without_sqlalchemy_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["sqlalchemy"] = None
from further_source.manifest import read_executions_query
next(read_executions_query("SELECT 1", "sqlite://"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stderr.splitlines()[-1].endswith("executions_database needs a package: install further_source[sql]")
