"""`further-source forget`: what it takes, what it tells, and that it can be repeated."""

import json
import os
import signal
from pathlib import Path

import pytest

from further_source.command.main import main
from further_source.sandbox import Sandbox
from tests.support.command import Command, asked, finish, serve, until
from tests.support.deliveries import files, inline, store


@pytest.fixture(name="command")
def _command(command_here: Command) -> Command:
    return command_here


@pytest.mark.slow
def test_what_went_is_told_and_the_load_counts_it(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        serve(sandbox, name, {"x": 1}, {"x": 2})
    assert main(["load", "wf/a", "wf/b", "--quiet"]) == 0

    assert main(["forget", "--external-id", "X-a", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["executions"] == [{"workflow_id": "wf", "workflow_execution_id": "a"}]
    assert told["rows"] == {"executions": 1, "steps": 1, "cells": 2, "rows_extract": 2}
    assert told["copies"]
    assert told["inboxes"] == []
    assert told["rest"] == "DuckDB's file is written anew without them"

    assert main(["forget", "wf/a"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == ["1 executions forgotten: no later load brings them back", "  wf/a", "no row was loaded"]
    assert "no inbox is given or configured, so none was looked at" in shown
    assert main(["load", "wf/a", "wf/b", "--reload", "--strict"]) == 0
    assert "        1 forgotten: never asked again" in capsys.readouterr().out.splitlines()
    assert main(["load", "wf/a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forgotten"] == 1
    assert asked(sandbox) == {"a": 1, "b": 2}
    assert main(["rebuild", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"rows_extract": 2}
    assert main(["verify"]) == 0
    assert command.query("SELECT * EXCLUDE (forgotten_at, erased_at, _dlt_load_id) FROM forgotten") == [("wf", "a")]
    assert command.query("SELECT count(erased_at) FROM forgotten") == [(1,)]


@pytest.mark.slow
def test_inboxes_that_are_configured_and_given_are_looked_at(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured, given, received = Path("configured"), Path("given"), Path("received")
    received.mkdir()
    for inbox in (configured, given):
        inbox.mkdir()
        store(inbox, "gone.json", {**inline("a"), "workflow_id": "wf", "metadata": {"external_id": "X-a"}})
        store(inbox, "quarantine/odd.json", b"odd")
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__INBOX", str(configured))
    monkeypatch.setenv("FURTHER_RECEIVER_INBOX", str(received))

    assert main(["forget", "--external-id", "X-a", "--inbox", str(given)]) == 0

    unclear = "  whose it is cannot be told, so it was left: look at it yourself: quarantine/odd.json"
    shown = capsys.readouterr().out.splitlines()
    assert shown[-6:-1] == [
        "1 deliveries deleted in given",
        unclear,
        "1 deliveries deleted in configured",
        unclear,
        "0 deliveries deleted in received",
    ]
    assert files(Path()) == ["configured/quarantine/odd.json", "further.duckdb", "given/quarantine/odd.json"]
    assert main(["forget", "wf/a", "--inbox", "nowhere"]) == 2
    assert capsys.readouterr().err.splitlines() == ["further-source: inbox nowhere: no such directory"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forget"], "either WORKFLOW_ID/EXECUTION_ID arguments or --external-id"),
        (["forget", "wf/a", "--external-id", "X"], "either WORKFLOW_ID/EXECUTION_ID arguments or --external-id"),
        (["forget", "--external-id", ""], "--external-id is empty"),
        (["forget", "oops"], "'oops'"),
    ],
)
def test_wrong_usage_is_one_line(
    command: Command, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not command.database.exists()


def test_an_external_id_that_nothing_has_is_told(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["forget", "--external-id", "X-a"]) == 1
    assert not command.database.exists()
    serve(sandbox, "a")
    assert main(["load", "wf/a", "--quiet"]) == 0
    assert main(["forget", "--external-id", "X-b"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "further-source: nothing is loaded into this dataset yet",
        "further-source: no execution is loaded with external id 'X-b'",
    ]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_one_that_is_killed_while_it_writes_the_file_anew_can_be_repeated(tmp_path: Path, sandbox: Sandbox) -> None:
    command = Command(tmp_path, sandbox)
    for name in ("a", "b"):
        serve(sandbox, name, {"x": f"value of {name}"})
    assert command.run("wf/a", "wf/b", "--quiet").returncode == 0
    forget = ("forget", "--external-id", "X-a")

    process = command.start(*forget, installed=True)
    until((command.directory / "further.forget1.duckdb").exists, process)
    process.send_signal(signal.SIGKILL)
    assert finish(process).returncode == -signal.SIGKILL
    assert command.query("SELECT workflow_execution_id FROM executions") == [("b",)]
    assert command.query("SELECT count(*) - count(erased_at) FROM forgotten") == [(1,)]

    done = command.run(*forget, installed=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  wf/a" in done.stdout.splitlines()
    assert command.query("SELECT count(*) - count(erased_at) FROM forgotten") == [(0,)]
    assert [path.name for path in command.directory.glob("*.duckdb*")] == ["further.duckdb"]
    assert b"value of a" not in command.database.read_bytes()
    assert command.query("SELECT value FROM cells") == [("value of b",)]
