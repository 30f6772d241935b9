"""The package as others get it: installed by uv from a git repository, into a project that has nothing else."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import PROJECT

UV = shutil.which("uv")
GIT = shutil.which("git")
SECONDS = 300

pytestmark = pytest.mark.skipif(UV is None or GIT is None, reason="needs uv and git")

SCRIPT = """
import dlt
from further_source import further_source, run_in_slices
from further_source.sandbox import Sandbox, cell, completed, step

with Sandbox() as sandbox:
    sandbox.serve("wf", "ex", completed("wf", "ex", [step("Extract", [{"a": cell("b", 0.5)}])]))
    source = further_source(["wf/ex"], base_url=sandbox.base_url, access_token=sandbox.issue_token())
    pipeline = dlt.pipeline("claims", destination="duckdb", dataset_name="claims_data")
    report = run_in_slices(pipeline, source)
assert report.all_completed
with pipeline.sql_client() as client:
    print(client.execute_sql("SELECT field, value FROM cells"))
"""


def run(*command: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    git = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_TERMINAL_PROMPT": "0"}
    identity = {
        f"GIT_{role}_{what}": "test@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**kept, **git, **identity, "HOME": kept.get("HOME", str(cwd))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
    )


def checked(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The project as it is here, committed or not, as a repository of its own."""
    assert GIT is not None
    copy = tmp_path / "repository"
    listed = checked(run(GIT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=PROJECT))
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, copy / name)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "all"]):
        checked(run(GIT, *command, cwd=copy))
    return copy


@pytest.mark.slow
def test_it_can_be_added_from_git_and_loads(repository: Path, tmp_path: Path) -> None:
    assert UV is not None
    project = tmp_path / "project"
    project.mkdir()
    (project / "try_it.py").write_text(SCRIPT)
    checked(run(UV, "init", "--bare", "--name", "claims", "--python", sys.executable, cwd=project))

    add = [UV, "add", "--quiet", "--python", sys.executable, f"further_source @ git+{repository.as_uri()}"]
    if run(*add, "--offline", cwd=project).returncode != 0:  # what is cached is enough, where there is no network
        checked(run(*add, cwd=project))
    said = checked(run(UV, "run", "--offline", "--quiet", "python", "try_it.py", cwd=project))

    assert said.splitlines()[-1] == "[('a', 'b')]"
    lock = (project / "uv.lock").read_text()
    [entry] = re.findall(r'name = "further-source"\nversion = "(.*)"\nsource = \{ git = "file://', lock)
    assert entry


@pytest.mark.slow
def test_the_command_of_a_wheel_loads_the_demo_from_an_empty_directory(repository: Path, tmp_path: Path) -> None:
    assert UV is not None
    empty, tools = tmp_path / "empty", tmp_path / "tools"
    empty.mkdir()
    checked(run(UV, "build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", cwd=repository))
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    made = run(UV, "venv", "--quiet", "--python", sys.executable, tools, cwd=tmp_path)
    checked(made)
    python = tools / ("Scripts" if os.name == "nt" else "bin") / "python"
    checked(run(UV, "pip", "install", "--quiet", "--python", python, wheel, cwd=tmp_path))
    checked(run(python.with_name("further-source"), "demo", "--quiet", cwd=empty))

    assert (empty / "further_demo.duckdb").is_file()
