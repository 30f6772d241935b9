"""The command as it is installed: what it is called, its subcommands, and how fast it tells what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from further_source.command.main import main
from further_source.sandbox import Sandbox, demo_executions
from tests.support.command import HANG, INSTALLED, SOURCE, Command, asked, loaded, serve


@pytest.fixture
def command(tmp_path: Path, sandbox: Sandbox) -> Command:
    return Command(tmp_path, sandbox)


@pytest.mark.slow
def test_load_is_what_the_script_runs(command: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    serve(sandbox, "a", {"x": 1})
    other = Command(tmp_path / "other", sandbox)
    installed, script = loaded(command.run("load", "wf/a", installed=True)), loaded(other.run("wf/a"))

    assert installed.stdout == script.stdout.replace(str(other.directory), str(command.directory))
    assert command.outcomes() == other.outcomes() == {"a": "completed"}


def test_the_options_are_those_of_the_script(command: Command) -> None:
    installed, script = loaded(command.run("load", "--help", installed=True)), loaded(command.run("--help"))
    assert installed.stdout.split()[3:] == script.stdout.split()[2:]


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("further-source 0.")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_is_printed_for_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--print-completion", shell])
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert "further" in printed
    assert "max-wait" in printed


def test_bash_takes_the_completion(command: Command) -> None:
    script = 'eval "$(further-source --print-completion bash)"; complete -p further-source'
    done = subprocess.run(
        ["bash", "-c", script],
        env={**command.env(), "PATH": f"{INSTALLED.parent}:{command.env()['PATH']}"},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=True,
    )
    assert done.stdout.startswith("complete ")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["lode"], "'lode'"),
        (["load", "--frobnicate"], "--frobnicate"),
        (["demo", "wf/a"], "wf/a"),
        (["check", "--strict"], "--strict"),
        (["sandbox", "--port", "http"], "'http'"),
        (["--print-completion", "dos"], "'dos'"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("further-source: ")
    assert named in line


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["load", "--help"], ["load", "--frobnicate"], ["load", "--polling", "fast"], ["sandbox", "--list"]],
    ids=" ".join,
)
def test_help_wrong_usage_and_the_sandbox_import_no_dlt(arguments: list[str], command: Command) -> None:
    """Importing it takes a second, which is too long for a line."""
    script = (
        "import sys\nfrom further_source.command.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit: pass\n"
        "print([name for name in ('dlt', 'pyarrow', 'duckdb') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=command.env(), capture_output=True, text=True, timeout=HANG, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_sandbox_lists_what_the_demo_loads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "--list"]) == 0
    listed = capsys.readouterr().out.split()
    assert listed == [f"{execution.workflow_id}/{execution.execution_id}" for execution in demo_executions()]


def test_whoever_reads_no_more_sees_no_traceback(command: Command) -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{INSTALLED}' --print-completion bash | head -1"],
        env=command.env(),
        capture_output=True,
        text=True,
        timeout=HANG,
        check=True,
    )
    assert done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="a working directory cannot be removed there")
def test_a_working_directory_that_is_gone_is_told(command: Command) -> None:
    done = subprocess.run(
        ["sh", "-c", f"mkdir gone && cd gone && rmdir ../gone && exec '{INSTALLED}' verify"],
        cwd=command.directory,
        env=command.env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "further-source: the working directory is gone: change into one that is there\n"


@pytest.mark.slow
def test_another_destination_than_the_last_time_is_no_reason_to_warn(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a")
    lite = {"DESTINATION__SQLALCHEMY__CREDENTIALS": f"sqlite:///{command.directory}/lite.db"}
    command.environment |= lite
    for options in ([], ["--destination", "sqlalchemy"], []):
        done = command.run_here("wf/a", "--quiet", *options)
        assert (done.returncode, done.stderr) == (0, "")
    assert asked(sandbox) == {"a": 2}


def test_without_the_package_the_script_says_what_to_run(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "pipelines" / "load.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script)],
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "uv run python pipelines/load.py" in line


@pytest.mark.parametrize("subcommand", ["load", "demo", "check", "rebuild", "verify", "compact"])
def test_each_subcommand_tells_a_misspelt_key_in_a_line(
    command_here: Command, subcommand: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"{SOURCE}EXECUTIONS_FIEL", "list.csv")
    assert main([subcommand]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    wrong, right = f"{SOURCE}EXECUTIONS_FIEL", f"{SOURCE}EXECUTIONS_FILE"
    assert line == f"further-source: {wrong} in the environment: no such key; did you mean {right}?"
    assert not [*command_here.directory.iterdir()]
