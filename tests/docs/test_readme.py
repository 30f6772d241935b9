"""The README is short, has the two commands, and shows what really happens."""

import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from further_source.lock import only_load
from further_source.sandbox import Sandbox
from further_source.settings import PIPELINE_NAME
from tests.docs.conftest import Submit
from tests.support.documents import PROJECT, Document

README = Document(PROJECT / "README.md")
DEMO_COMMAND = "pip install uv && uv run --no-dev python pipelines/load.py --demo"
TEST_COMMAND = "pip install uv && uv run pytest"


def test_it_can_be_read_in_one_sitting() -> None:
    assert 150 <= len(README.text.splitlines()) <= 200


def test_it_has_the_two_commands() -> None:
    commands = [block.code.strip() for block in README.blocks("sh")]

    assert DEMO_COMMAND in commands
    assert TEST_COMMAND in commands


def test_the_script_of_ci_runs_the_test_command_of_the_readme() -> None:
    assert TEST_COMMAND in (PROJECT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_its_queries_are_those_of_the_page_of_queries() -> None:
    queries = [block.code for block in README.blocks("sql")]

    assert len(queries) == 3
    assert set(queries) <= {block.code for block in Document(PROJECT / "docs" / "queries.md").blocks("sql")}


def test_it_leads_to_every_page() -> None:
    linked = {link.partition("#")[0] for link in README.links()}

    assert {f"docs/{page.name}" for page in (PROJECT / "docs").glob("*.md")} <= linked


# The schedule

posix = pytest.mark.skipif(sys.platform == "win32", reason="cron is a matter of Unix")
CRON_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "loader"}


@pytest.fixture
def installed(sandbox: Sandbox, submit: Submit, tmp_path: Path) -> Path:
    """A directory like the one that cron's line changes to, with spaces in its name."""
    directory = tmp_path / "installed here"
    directory.mkdir()
    submit(directory)
    (directory / ".venv").symlink_to(sys.prefix)
    (directory / "pipelines").symlink_to(PROJECT / "pipelines")
    for name in (".dlt/config.toml", "examples/cron.sh"):
        (directory / name).parent.mkdir()
        shutil.copy(PROJECT / name, directory / name)
    [settings] = [block.code for block in README.blocks("sh") if "DLT_DATA_DIR=" in block.code]
    for name in ("CLIENT_ID", "CLIENT_SECRET"):
        settings = settings.replace(f"{name}='...'", f"{name}='{getattr(sandbox, name.lower())}'")
    settings = settings.replace("DLT_DATA_DIR=/opt/further_source/data", f"DLT_DATA_DIR='{directory}/data'")
    settings += f"SOURCES__FURTHER_SOURCE__BASE_URL={sandbox.base_url}\n"
    (directory / "further.env").write_text(settings)
    return directory


def run_as_cron(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command],
        env={**CRON_ENVIRONMENT, "HOME": str(directory.parent)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )


def assert_loaded(directory: Path) -> None:
    file = directory / "further.duckdb"
    with duckdb.connect(str(file), read_only=True) as connection:
        rows = connection.sql("SELECT workflow_execution_id, poll_outcome FROM further_data.executions ORDER BY 1")
        assert rows.fetchall() == [("first", "completed"), ("second", "completed")]
    assert file.stat().st_mode & 0o077 == 0
    assert (directory / "load.log").read_text() == ""
    assert (directory / "data" / "pipelines" / PIPELINE_NAME).is_dir()


@posix
def test_the_line_for_cron_works_from_its_bare_environment(installed: Path) -> None:
    [block] = README.blocks("cron")
    fields = block.code.strip().split(maxsplit=5)
    command = fields[5]
    assert "%" not in command

    ended = run_as_cron(command.replace("/opt/further_source", f"'{installed}'"), installed)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert_loaded(installed)


@pytest.mark.slow
@posix
def test_the_script_for_cron_works_from_its_bare_environment(installed: Path) -> None:
    ended = run_as_cron(f"'{installed}/examples/cron.sh'", installed)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert_loaded(installed)


@posix
def test_the_script_for_cron_takes_another_load_for_no_failure(installed: Path) -> None:
    with only_load(PIPELINE_NAME, str(installed / "data" / "pipelines")):
        ended = run_as_cron(f"'{installed}/examples/cron.sh'", installed)

    assert ended.returncode == 0
    assert "another load of pipeline further is running" in (installed / "load.log").read_text()
    assert not (installed / "further.duckdb").exists()


@posix
def test_following_it_leaves_nothing_that_git_would_add(installed: Path) -> None:
    """Secrets and data would be one `git add .` away."""

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@localhost", *arguments]
        return subprocess.run(command, cwd=installed, capture_output=True, text=True, check=True).stdout

    git("init", "--quiet")
    shutil.copy(PROJECT / ".gitignore", installed)
    git("add", ".gitignore", ".dlt/config.toml", "examples", "pipelines")
    git("commit", "--quiet", "-m", "As it is cloned")
    (installed / ".dlt" / "secrets.toml").write_text("")
    [block] = README.blocks("cron")
    command = block.code.strip().split(maxsplit=5)[5].replace("/opt/further_source", f"'{installed}'")
    assert run_as_cron(command, installed).returncode == 0
    assert_loaded(installed)
    assert {"further.env", "submitted.csv", "load.log", "data"} <= {path.name for path in installed.iterdir()}

    assert git("add", "--all", "--dry-run") == ""
