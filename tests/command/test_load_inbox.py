"""`further-source load --inbox`: beside and instead of a list."""

import json
from typing import Any

import pytest

from further_source.sandbox import Sandbox
from tests.support.command import Command, asked, loaded, told
from tests.support.deliveries import files, inline, store

NO_CREDENTIALS: dict[str, Any] = {"client_id": None, "client_secret": None}


def test_an_inbox_is_loaded_without_a_list_and_without_credentials(command_here: Command) -> None:
    inbox = command_here.directory / "inbox"
    store(inbox, "a.json", inline("a"))
    store(inbox, "bad.json", b"{")

    done = loaded(command_here.run_here("--inbox", "inbox", "--json", **NO_CREDENTIALS))

    assert json.loads(done.stdout)["deliveries"] == {"delivered": 1, "quarantined": 1}
    assert command_here.outcomes() == {"a": "completed"}
    assert sorted(file.split("/")[0] for file in files(inbox)) == ["archive", "quarantine", "quarantine"]


def test_a_configured_inbox_is_loaded_beside_a_list(command_here: Command, sandbox: Sandbox) -> None:
    store(command_here.directory / "inbox", "a.json", inline("a"))
    sandbox.serve("wf", "b", inline("b"))

    done = loaded(command_here.run_here("wf/a", "wf/b", "--strict", inbox="inbox", push_grace=0))

    assert command_here.outcomes() == {"a": "completed", "b": "completed"}
    assert asked(sandbox) == {"b": 1}
    assert "2 executions listed" in done.stdout
    assert "1 never delivered" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "settings", "named"),
    [
        (["--inbox", "nowhere"], {}, ["inbox nowhere", "no such directory"]),
        (["--inbox", "odd://place"], {}, ["inbox odd://place"]),
        (["--inbox", ""], {}, ["--inbox"]),
        (["--inbox", ".", "--shard", "1/2"], {}, ["--shard", "inbox"]),
        (["--inbox", ".", "--demo"], {}, ["--demo", "--inbox"]),
        (["--inbox", ".", "--verify"], NO_CREDENTIALS, ["no credentials"]),
        (["--inbox", "."], {"inbox_loaded": "burn"}, ["inbox_loaded", "'burn'", "archive"]),
        (["--inbox", "."], {"push_grace": -1}, ["push_grace", "-1"]),
        (["--inbox", "."], {"delivery_hosts": '["https://x"]'}, ["delivery_hosts", "https://x"]),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    command_here: Command, arguments: list[str], settings: dict[str, Any], named: list[str]
) -> None:
    line = told(command_here.run_here(*arguments, **settings), 2)

    assert all(name in line for name in named), line
    assert not command_here.database.exists()
