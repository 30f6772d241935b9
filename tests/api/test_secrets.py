"""No secret gets out: not shown, not logged at any level, not in any file that a run leaves behind."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import duckdb
import pytest

from further_source import further_source
from further_source.api.client import Client, ClientCredentials, StaticToken
from further_source.sandbox import Reply, Sandbox, error, running
from tests.support.command import LOAD, WORKFLOW, Command, ids, loaded, serve
from tests.support.slow import few_of

CLIENT_ID = "client-4711"
CLIENT_SECRET = 's3cr3t/with "quotes" & +umlauts-äöü'  # what nobody should choose, and somebody will
NAMES = ["good", "echo", "redirect", "gone", "down"]


def spellings(secret: str) -> set[bytes]:
    """The secret as it may stand in a file: plain, escaped in several ways, and in base64 at any offset."""
    texts = {
        secret,
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
    }
    found = {text.encode() for text in texts} | {secret.encode("utf-16-le")}
    for padding in range(3):
        encoded = base64.b64encode(b"\0" * padding + secret.encode()).rstrip(b"=")
        inner = encoded[4 if padding else 0 : -1]
        found |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def assert_nowhere(secrets: Iterable[str], *texts: str | bytes) -> None:
    wanted = {spelling for secret in secrets for spelling in spellings(secret)}
    assert all(len(spelling) >= 8 for spelling in wanted)
    for text in texts:
        content = text.encode() if isinstance(text, str) else text
        for spelling in wanted:
            at = content.find(spelling)
            assert at < 0, f"a secret is in …{content[max(at - 200, 0) : at]!r}"


def files_of(command: Command, *without: Path) -> list[Path]:
    directories = [command.directory, command.data_dir, command.home]
    files = [path for directory in directories for path in directory.rglob("*") if path.is_file()]
    return [path for path in files if path not in without]


@pytest.fixture
def elsewhere() -> Any:
    with Sandbox() as started:
        yield started


@pytest.mark.parametrize(
    ("kind", "place"),
    few_of(
        [
            ("pair", "secrets.toml"),
            ("token", "environment"),
            pytest.param("pair", "environment", marks=pytest.mark.slow),
            pytest.param("token", "secrets.toml", marks=pytest.mark.slow),
        ]
    ),
)
@pytest.mark.parametrize("run", few_of(["is refused later", "ends", "is refused", "fails to load"]))
def test_no_secret_is_shown_or_kept(tmp_path: Path, elsewhere: Sandbox, kind: str, place: str, run: str) -> None:
    with Sandbox(client_id=CLIENT_ID, client_secret=CLIENT_SECRET) as sandbox:
        token = sandbox.issue_token()
        pair = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
        secrets = pair if kind == "pair" else {"access_token": token}
        command = Command(tmp_path, sandbox, **{"client_id": None, "client_secret": None}, max_wait=0)
        kept: list[Path] = []
        if place == "environment":
            command.settings |= secrets
        else:
            toml = command.directory / ".dlt" / "secrets.toml"
            toml.parent.mkdir()
            lines = [f"{key} = {json.dumps(value)}" for key, value in secrets.items()]
            toml.write_text("\n".join(["[sources.further_source]", *lines]), encoding="utf-8")
            kept.append(toml)
        command.environment["RUNTIME__LOG_LEVEL"] = "DEBUG"
        sandbox.script_token({"access_token": token, "token_type": "bearer", "expires_in": 3600})
        # What the API can echo is what it was sent.
        known = f"{CLIENT_SECRET}, Bearer {token}" if kind == "pair" else f"Bearer {token}"
        told_back = f"you sent {known}"
        serve(sandbox, "good")
        sandbox.add(WORKFLOW, "echo", error(422, told_back))
        location = f"{elsewhere.base_url}/{quote(known, safe='')}/login?token={token}"
        sandbox.add(WORKFLOW, "redirect", Reply(302, told_back.encode(), {"Location": location}))
        sandbox.add(WORKFLOW, "gone", error(404, token))
        sandbox.add(WORKFLOW, "down", running(WORKFLOW, "down"))
        expected = 0
        if run == "is refused":
            expected = 1
            sandbox.script_token(error(401, f"no client has the secret {CLIENT_SECRET}"))
            sandbox.revoke_tokens()
        if run == "is refused later":
            expected = 1
            sandbox.add(WORKFLOW, "down", Reply(401, {"detail": told_back}, delay=1))
        if run == "fails to load":
            expected = 1
            serve(sandbox, "first")
            assert command.run("wf/first").returncode == 0
            with duckdb.connect(str(command.database)) as connection:
                connection.execute("ALTER TABLE further_data.cells ALTER field TYPE INTEGER USING NULL")

        done = command.run(*ids(NAMES))

        assert done.returncode == expected, done.stderr
        assert "[DEBUG]" in done.stderr or "[INFO]" in done.stderr  # the level was really on
        secret = {CLIENT_ID, CLIENT_SECRET, token, token.rpartition(".")[2]}
        assert_nowhere(secret, done.stdout, done.stderr)
        files = files_of(command, *kept)
        assert any(path.name == "trace.pickle" for path in files)
        assert any(path.suffix == ".duckdb" for path in files) is (run != "is refused")  # then none is made
        assert_nowhere(secret, *(path.read_bytes() for path in files))
        assert elsewhere.requests == []
        if run == "ends":
            (echoed,) = command.query("SELECT poll_error FROM executions WHERE workflow_execution_id = 'echo'")
            assert "***" in echoed[0]
            assert_nowhere(secret, *(str(row) for row in command.query("SELECT * FROM executions")))


def test_a_password_of_the_destination_is_not_shown(tmp_path: Path, sandbox: Sandbox) -> None:
    command = Command(tmp_path, sandbox)
    password = "hunter2-hunter2"
    command.environment["DESTINATION__POSTGRES__CREDENTIALS"] = f"postgresql://loader:{password}@127.0.0.1:9/claims"
    command.environment["RUNTIME__LOG_LEVEL"] = "DEBUG"
    pytest.importorskip("psycopg2")
    done = command.run("wf/a", "--destination", "postgres")
    assert done.returncode == 1
    assert "load.py: destination postgres failed" in done.stderr
    assert_nowhere([password], done.stdout, done.stderr, *(path.read_bytes() for path in files_of(command)))


def test_a_base_url_with_a_password_is_refused_without_showing_it(tmp_path: Path, sandbox: Sandbox) -> None:
    command = Command(tmp_path, sandbox, base_url="https://user:hunter2-hunter2@api.further.ai")
    done = loaded(command.run("wf/a"), 2)
    assert_nowhere(["hunter2-hunter2"], done.stdout, done.stderr)


def test_no_repr_shows_a_secret(sandbox: Sandbox) -> None:
    token = sandbox.issue_token()
    pair = ClientCredentials(CLIENT_ID, CLIENT_SECRET)
    clients = [Client(sandbox.base_url, pair), Client(sandbox.base_url, StaticToken(token))]
    shown: list[Any] = [pair, StaticToken(token), *clients, *(client.__dict__ for client in clients)]
    both_ways: list[dict[str, Any]]
    both_ways = [{"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}, {"access_token": token}]
    for credentials in both_ways:
        source = further_source(["wf/a"], base_url=sandbox.base_url, **credentials)
        shown += [source, source.resources, source.resources["executions"], source.schema.to_pretty_yaml()]
    for one in shown:
        assert_nowhere([CLIENT_SECRET, token], repr(one), str(one))
    for client in clients:
        client.close()


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_git_ignores_the_secrets_and_nothing_of_the_example() -> None:
    root = LOAD.parent.parent
    if subprocess.run(["git", "rev-parse"], cwd=root, capture_output=True).returncode != 0:
        pytest.skip("not a git checkout")

    def ignored(path: str) -> bool:
        return subprocess.run(["git", "check-ignore", "--quiet", "--no-index", path], cwd=root).returncode == 0

    assert ignored(".dlt/secrets.toml")
    assert ignored(".dlt/dev.secrets.toml")
    assert ignored(".env")
    assert ignored("further.duckdb")
    assert not ignored(".dlt/example.secrets.toml")
    assert not ignored(".dlt/config.toml")
