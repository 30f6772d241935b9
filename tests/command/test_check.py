"""`further-source check`: what is not as it should be is found, and nothing is loaded or left behind."""

import json
from typing import Any

import pytest

from further_source.command.main import main
from further_source.sandbox import Sandbox, error
from tests.support.command import Command, serve
from tests.support.deliveries import files, inline, store

A = "wf/a"


@pytest.fixture(name="command")
def _command(command_here: Command) -> Command:
    return command_here


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["check", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_all_that_is_well_is_told(command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    serve(sandbox, "a")
    assert main(["check", A]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["list", "ok"], ["api", "ok"], ["destination", "ok"]]
    assert "credentials are accepted" in lines[1]
    assert "wf/a is completed" in lines[1]
    assert str(command.database) in lines[2]


def test_nothing_is_loaded_made_or_left(command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    serve(sandbox, "a")
    assert check(capsys, A)[0] == 0
    assert list(command.directory.iterdir()) == []
    assert not (command.data_dir / "pipelines").exists()
    assert sandbox.asked("wf", "a") == 1


def test_what_is_loaded_already_is_counted(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(sandbox, "a")
    assert main(["load", A, "--quiet"]) == 0
    before = command.query("SELECT count(*) FROM _dlt_loads")
    code, found = check(capsys, A, "wf/b")
    assert code == 0
    assert "1 of 2 are loaded" in found["destination"]["found"]
    assert command.query("SELECT count(*) FROM _dlt_loads") == before


@pytest.mark.parametrize(
    ("settings", "part", "named"),
    [
        ({"client_secret": "wrong"}, "api", "Invalid client credentials"),
        ({"base_url": "http://127.0.0.1:9"}, "api", "connection refused"),
    ],
)
def test_what_is_not_well_is_told_and_the_rest_is_tried(
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    part: str,
    named: str,
) -> None:
    for key, value in settings.items():
        monkeypatch.setenv(f"SOURCES__FURTHER_SOURCE__{key.upper()}", value)
    code, found = check(capsys, A)
    assert code == 1
    assert [name for name, result in found.items() if not result["ok"]] == [part]
    assert named in found[part]["found"]


def test_an_execution_that_is_not_found_is_told(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = check(capsys, A)
    assert code == 0
    assert "wf/a is not found" in found["api"]["found"]


def test_one_that_is_forbidden_is_not_well(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.add("wf", "a", error(403, "not yours"))
    code, found = check(capsys, A)
    assert code == 1
    assert "not yours" in found["api"]["found"]


def test_a_destination_that_cannot_be_reached_is_told(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(sandbox, "a")
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(command.directory / "nowhere" / "x.duckdb"))
    code, found = check(capsys, A)
    assert code == 1
    assert "nowhere: no such directory" in found["destination"]["found"]
    assert found["api"]["ok"]


def test_an_inbox_needs_no_credentials(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(command.directory / "inbox", "a.json", inline("a"))
    for key in ("client_id", "client_secret"):
        monkeypatch.delenv(f"SOURCES__FURTHER_SOURCE__{key.upper()}")
    code, found = check(capsys, "--inbox", "inbox")
    assert code == 0
    assert [*found] == ["list", "inbox", "api", "destination"]
    assert "1 files wait" in found["inbox"]["found"]
    assert "no credentials" in found["api"]["found"]
    assert files(command.directory / "inbox") == ["a.json"]


def test_credentials_beside_an_inbox_are_tried(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(command.directory / "inbox", "a.json", inline("a"))
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__INBOX", "inbox")
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__CLIENT_SECRET", "wrong")
    code, found = check(capsys)
    assert code == 1
    assert [name for name, result in found.items() if not result["ok"]] == ["api"]


def test_wrong_configuration_is_one_line_and_nothing_is_tried(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__MAX_WORKERS", "0")
    assert main(["check", A]) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert "max_workers" in line
    assert shown.out == ""
    assert sandbox.requests == []
