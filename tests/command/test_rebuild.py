"""`further-source rebuild` and `verify`: wide tables made anew, and what is not complete."""

import json
from typing import Any

import duckdb
import pytest

from further_source.command.main import main
from further_source.sandbox import Sandbox, cell, completed, step
from tests.support.command import Command, asked, serve
from tests.support.slow import few_of

WIDE = (
    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'further_data' AND table_name LIKE 'rows%'"
)


@pytest.fixture(name="command")
def _command(command_here: Command) -> Command:
    return command_here


def execute(command: Command, *statements: str) -> None:
    with duckdb.connect(str(command.database)) as connection:
        connection.execute("USE further_data")
        for statement in statements:
            connection.execute(statement)


def wide(command: Command) -> dict[str, set[Any]]:
    """All wide tables and `fields`, rows without the id of their load, columns by their names."""
    found = {}
    for (name,) in [*command.query(WIDE), ("fields",)]:
        columns = sorted(row[0] for row in command.query(f"DESCRIBE {name}") if row[0] != "_dlt_load_id")
        listed = ", ".join(f'"{column}"' for column in columns)
        found[name] = {tuple(columns), *command.query(f"SELECT {listed} FROM {name}")}
    return found


def serve_odd(sandbox: Sandbox) -> None:
    """Executions of all that wide tables have to do with."""
    rows: list[Any] = [
        {
            "Claim #": cell("C-1", 0.9),
            "claim_number": cell("x", 0.5),
            "Paid ($)": cell(1.5, None),
            "none": cell(None, 0.1),
        },
        {},
        {
            "Paid ($)": cell("n/a", 0.2),
            "ok": cell(True, 1.0),
            "list": cell([1, {"a": None}], 0.5),
            "big": cell(10**400, 0.3),
        },
        "no object",
        {"Paid ($)": cell(-0.0, 0.2), "zip": cell("02139", 0.4), "": cell("label", 0.9)},
    ]
    sandbox.serve("wf", "a", completed("wf", "a", [step("Extract", rows), step("Empty", []), step("", rows[:1])]))
    later = [{"Paid (%)": cell(7, 0.5), "zip": cell(2139, 0.5)}] * 3
    sandbox.serve(
        "wf", "b", completed("wf", "b", [step("extract", later), step("Extract", [{"none": cell("now", 0.3)}])])
    )


def load_both() -> None:
    """One after the other, so that it is known whose names are decided first."""
    for listed in (["wf/a"], ["wf/a", "wf/b"]):
        assert main(["load", *listed, "--quiet"]) == 0


def test_a_rebuild_gives_the_tables_of_the_load(command: Command, sandbox: Sandbox) -> None:
    serve_odd(sandbox)
    load_both()
    loaded = wide(command)
    requests = len(sandbox.requests)

    assert main(["rebuild"]) == 0
    assert wide(command) == loaded
    assert len(sandbox.requests) == requests
    assert main(["verify"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    few_of(
        [
            ["DROP TABLE rows_extract", "DROP TABLE fields", "DROP TABLE rows_extract_2"],
            ["DROP TABLE rows_extract"],
            ["ALTER TABLE rows_extract DROP COLUMN claim_number"],
            ["ALTER TABLE rows_extract ALTER paid_dollar TYPE VARCHAR"],
            ["DELETE FROM rows_extract WHERE row_index = 1"],
            ["DROP TABLE fields"],
        ]
    ),
    ids=" ".join,
)
def test_damaged_wide_tables_are_mended(command: Command, sandbox: Sandbox, damage: list[str]) -> None:
    serve_odd(sandbox)
    load_both()
    before = wide(command)
    execute(command, *damage)

    assert main(["rebuild"]) == 0
    assert wide(command) == before
    serve(sandbox, "c", {"Claim #": "C-2"})
    assert main(["load", "wf/c", "--quiet"]) == 0
    assert command.query("SELECT count(*) FROM rows_extract WHERE claim_number = 'C-2'") == [(1,)]


@pytest.mark.slow
def test_one_step_alone_can_be_rebuilt(command: Command, sandbox: Sandbox) -> None:
    serve_odd(sandbox)
    load_both()
    before = wide(command)
    execute(command, "DROP TABLE rows_extract", "DELETE FROM rows_extract_2")

    assert main(["rebuild", "--step", "Extract"]) == 0
    after = wide(command)
    assert after["rows_extract"] == before["rows_extract"]
    assert after["fields"] == before["fields"]
    assert len(after["rows_extract_2"]) == 1
    assert main(["rebuild", "--step", "Extrakt"]) == 2


@pytest.mark.slow
def test_wide_tables_that_were_left_out_are_told_of_and_can_be_had_later(
    command: Command, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    serve_odd(sandbox)
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__ROW_TABLES", "false")
    assert main(["load", "wf/a", "--quiet"]) == 0
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__ROW_TABLES", "true")
    assert main(["load", "wf/a", "wf/b", "--quiet"]) == 0
    assert [message for message in log if "further-source rebuild" in message] == [
        "6 rows that were extracted are in cells, and not in the wide tables: `further-source rebuild` makes these anew"
    ]

    assert main(["rebuild"]) == 0
    assert command.query("SELECT count(*) FROM rows_extract") == [(6,)]
    serve(sandbox, "c", {"x": 1})
    log.clear()
    assert main(["load", "wf/c", "--quiet"]) == 0
    assert log == []


@pytest.mark.slow
def test_what_is_incomplete_is_named_and_repaired(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        serve(sandbox, name, {"x": 1, "y": 2}, {"x": 3})
    assert main(["load", "wf/a", "wf/b", "wf/c", "--quiet"]) == 0
    assert main(["verify"]) == 0
    assert capsys.readouterr().out == "complete\n"
    execute(
        command,
        "DELETE FROM cells WHERE workflow_execution_id = 'a' AND field = 'y'",
        "INSERT INTO steps SELECT * FROM steps WHERE workflow_execution_id = 'b'",
    )

    assert main(["verify", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)["incomplete"]
    assert {one["workflow_execution_id"]: (one["steps"], one["cells"]) for one in found} == {"a": (1, 2), "b": (2, 3)}
    assert main(["verify"]) == 3
    assert "wf/a: 1 of 1 steps and 2 of 3 cells" in capsys.readouterr().out.splitlines()
    assert main(["verify", "--repair"]) == 0
    assert asked(sandbox) == {"a": 2, "b": 2, "c": 1}
    assert command.query("SELECT count(*), count(DISTINCT workflow_execution_id) FROM cells") == [(9, 3)]


@pytest.mark.parametrize("subcommand", ["verify", "rebuild"])
def test_nothing_loaded_is_told_and_nothing_made(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, subcommand: str
) -> None:
    assert main([subcommand]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"further-source: nothing is loaded: there is no {command.database}"
    ]
    assert not command.database.exists()

    monkeypatch.setenv("DESTINATION__SQLALCHEMY__CREDENTIALS", f"sqlite:///{command.directory}/lite.db")
    assert main([subcommand, "--destination", "sqlalchemy"]) == 1
    assert capsys.readouterr().err.splitlines() == ["further-source: nothing is loaded into this dataset yet"]
