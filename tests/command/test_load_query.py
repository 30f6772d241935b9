"""`--executions-query`: a list that is a query, on a database of one's own or on the destination."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import duckdb
import pytest

from further_source import shard
from further_source.command.main import main
from further_source.executions import ExecutionId
from further_source.sandbox import Sandbox
from tests.support.command import Command, asked, loaded, serve, told
from tests.support.deliveries import inline, store

QUERY = "SELECT workflow_id, execution_id FROM submitted ORDER BY execution_id"
OF_DESTINATION = "SELECT workflow_id, execution_id FROM own.submitted"


@pytest.fixture(name="command")
def _command(command_here: Command) -> Command:
    return command_here


@pytest.fixture
def database(command: Command) -> str:
    """An SQLite file that lists three executions."""
    file = command.directory.parent / "own.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE submitted (workflow_id, execution_id)")
        connection.executemany("INSERT INTO submitted VALUES ('wf', ?)", [("a",), ("b",), ("c",)])
    return f"sqlite:///{file}"


def test_a_query_is_a_list_beside_others(command: Command, sandbox: Sandbox, database: str) -> None:
    for name in "abcd":
        serve(sandbox, name)

    done = loaded(command.run_here("wf/d", "wf/b", "--executions-query", QUERY, executions_database=database))
    assert "4 executions listed" in done.stdout
    assert command.outcomes() == dict.fromkeys("abcd", "completed")
    done = loaded(command.run_here("--json", executions_query=QUERY, executions_database=database))
    assert json.loads(done.stdout)["earlier"] == {"completed": 3}
    assert asked(sandbox) == dict.fromkeys("abcd", 1)


@pytest.mark.slow
@pytest.mark.postgres
def test_each_part_takes_its_share_of_what_the_query_gives(
    command: Command, sandbox: Sandbox, database: str, postgres_url: str
) -> None:
    command.environment["DESTINATION__POSTGRES__CREDENTIALS"] = postgres_url
    for name in "abc":
        serve(sandbox, name)
    listed = [ExecutionId("wf", name) for name in "abc"]
    arguments = ["--executions-query", QUERY, "--destination", "postgres", "--dataset", "parts_of_query", "--json"]

    for part in (1, 2):
        done = loaded(command.run_here(*arguments, "--shard", f"{part}/2", executions_database=database))
        assert json.loads(done.stdout)["listed"] == len(list(shard(listed, part, 2)))
    of_destination = "SELECT workflow_id, workflow_execution_id FROM parts_of_query.executions"
    done = loaded(command.run_here("--executions-query", of_destination, *arguments[2:], "--shard", "1/2"))
    assert json.loads(done.stdout)["earlier"] == {"completed": len(list(shard(listed, 1, 2)))}
    assert asked(sandbox) == dict.fromkeys("abc", 1)


def test_without_a_database_the_destination_is_asked(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(sandbox, "a")
    with duckdb.connect(str(command.database)) as connection:
        connection.execute("CREATE SCHEMA own")
        connection.execute("CREATE TABLE own.submitted AS SELECT 'wf' AS workflow_id, 'a' AS execution_id")

    assert main(["check", "--executions-query", OF_DESTINATION, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["list"] == {"ok": True, "found": "1 executions"}
    assert "wf/a is completed" in found["api"]["found"]
    done = loaded(command.run_here("--executions-query", OF_DESTINATION))
    assert "1 executions listed" in done.stdout or "1 execution listed" in done.stdout
    assert command.outcomes() == {"a": "completed"}


def test_check_tries_the_query(command: Command, database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--executions-query", OF_DESTINATION]) == 2
    assert "further.duckdb is not there" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCES__FURTHER_SOURCE__EXECUTIONS_DATABASE", database)
        assert main(["check", "--executions-query", "SELECT * FROM nowhere"]) == 2
        assert "no such table: nowhere" in capsys.readouterr().err
        main(["check", "--executions-query", QUERY, "--json"])
        assert json.loads(capsys.readouterr().out)["list"] == {"ok": True, "found": "3 executions"}
    assert list(command.directory.iterdir()) == []


@pytest.mark.parametrize("where", ["of its own", "the destination"])
def test_a_query_is_a_list_beside_an_inbox(command: Command, sandbox: Sandbox, database: str, where: str) -> None:
    serve(sandbox, "b")
    serve(sandbox, "c")
    store(command.directory / "inbox", "a.json", inline("a"))
    given = {"executions_query": QUERY, "executions_database": database}
    if where == "the destination":
        with duckdb.connect(str(command.database)) as connection:
            connection.execute("CREATE SCHEMA own")
            connection.execute(
                "CREATE TABLE own.submitted AS SELECT 'wf' AS workflow_id, x AS execution_id FROM "
                "(VALUES ('a'), ('b'), ('c')) names(x)"
            )
        given = {"executions_query": OF_DESTINATION}

    done = loaded(command.run_here("--inbox", "inbox", "--strict", push_grace=0, **given))
    assert "3 executions listed" in done.stdout
    assert command.outcomes() == dict.fromkeys("abc", "completed")
    assert asked(sandbox) == {"b": 1, "c": 1}


def test_verify_reads_no_list(
    command: Command, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It compares what is loaded with what the answers had, whatever is listed now, and wherever."""
    serve(sandbox, "a")
    loaded(command.run_here("wf/a"))
    with duckdb.connect(str(command.database)) as connection:
        connection.execute("DELETE FROM further_data.cells")
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__EXECUTIONS_QUERY", QUERY)
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__EXECUTIONS_DATABASE", "sqlite:////nowhere/none.db")

    assert main(["verify"]) == 3
    assert main(["verify", "--repair"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "complete"
    assert asked(sandbox) == {"a": 2}


def test_the_destination_may_be_named_as_the_database(command: Command, sandbox: Sandbox) -> None:
    """A DuckDB file is read before the load opens it to write."""
    serve(sandbox, "a")
    with duckdb.connect(str(command.database)) as connection:
        connection.execute("CREATE SCHEMA own")
        connection.execute("CREATE TABLE own.submitted AS SELECT 'wf' AS workflow_id, 'a' AS execution_id")
    given = {"executions_query": OF_DESTINATION, "executions_database": f"duckdb:///{command.database}"}

    loaded(command.run_here("--strict", **given))
    assert command.outcomes() == {"a": "completed"}


@pytest.mark.slow
def test_a_demo_reads_no_list(command: Command) -> None:
    nowhere = {"executions_query": QUERY, "executions_database": "sqlite:////nowhere/none.db"}

    loaded(command.run_here("--demo", "--quiet", **nowhere))
    assert "--executions-query" in told(command.run_here("--demo", "--executions-query", QUERY), 2)


@pytest.mark.parametrize(
    ("arguments", "settings", "named"),
    [
        (["--executions-query", ""], {}, ["--executions-query is empty"]),
        (["--executions-query", QUERY], {}, ["executions_query", "submitted"]),
        (["--executions-query", "DROP TABLE submitted"], {}, ["executions_query", "it writes"]),
        ([], {"executions_query": QUERY, "executions_database": "sqlite:////nowhere/none.db"}, ["unable to open"]),
        (
            [],
            {"executions_query": QUERY, "executions_database": "postgresql+psycopg2://u:s3cret@127.0.0.1:9/x"},
            ["refused"],
        ),
        (["--executions-query", QUERY], {"executions_databse": "x"}, ["EXECUTIONS_DATABASE"]),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    command: Command, sandbox: Sandbox, arguments: list[str], settings: dict[str, Any], named: list[str]
) -> None:
    line = told(command.run_here(*arguments, **settings), 2)

    assert all(name in line for name in named), line
    assert "s3cret" not in line
    assert not sandbox.requests
    assert not command.database.exists()
