"""The documentation says what is so: names, defaults, options, codes, links, and examples that run."""

import ast
import csv
import importlib.util
import inspect
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest
import tomlkit

import further_source as package
from further_source import further_source, manifest
from further_source.command.display import _OUTCOMES
from further_source.lock import only_load
from further_source.run import SLICE_BYTES
from further_source.sandbox import Sandbox, cell, completed, step
from further_source.settings import PIPELINE_NAME, POLLING_PRESETS, SOURCE_NAME
from further_source.tables.answer import FINAL_OUTCOMES
from tests.support.documents import DOCUMENTS, PROJECT, Block, Document, names

README = Document(PROJECT / "README.md")
DEMO_COMMAND = "pip install uv && uv run python pipelines/load.py --demo"
TEST_COMMAND = "pip install uv && uv run pytest"
SECRETS = {"access_token", "client_id", "client_secret"}
NO_DEFAULT = {"none", "none, secret", "the preset's"}


@pytest.fixture(scope="module")
def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_load", PROJECT / "pipelines" / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def help_text(load: ModuleType, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        load.parse_arguments(["--help"])
    return capsys.readouterr().out


# The commands


def test_the_readme_has_the_two_commands() -> None:
    commands = [block.code.strip() for block in README.blocks("sh")]

    assert DEMO_COMMAND in commands
    assert TEST_COMMAND in commands


def test_the_script_of_ci_runs_the_test_command_of_the_readme() -> None:
    assert TEST_COMMAND in (PROJECT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_usage_is_that_of_the_command(help_text: str) -> None:
    [block] = [block for block in README.blocks("text") if "[--executions FILE|-]" in block.code]
    usage = help_text.partition("\n\n")[0]

    arguments = set(re.findall(r"\[[^\]]+\]", " ".join(usage.split())))
    assert set(re.findall(r"\[[^\]]+\]", block.code)) == arguments - {"[-h]"}


def test_the_options_are_those_of_the_command(help_text: str) -> None:
    [[header, *rows]] = README.tables("The command")

    assert header == ["option", "meaning"]
    assert {name for option, _ in rows for name in names(option)} == set(re.findall(r"--[a-z][a-z-]*", help_text))


def test_the_exit_codes_are_those_of_the_command(load: ModuleType) -> None:
    [[header, *rows]] = README.tables("Exit codes")
    codes = [int(code) for code, _ in rows]

    assert header == ["exit code", "when"]
    constants = {value for name, value in vars(load).items() if name.startswith("EXIT_")}
    assert codes == sorted({0, *constants, 128 + signal.SIGINT, 128 + signal.SIGTERM})
    assert load.__doc__ is not None
    told = load.__doc__.partition("Exit codes:")[2]
    assert codes == [int(code) for code in re.findall(r"\b\d+\b", told)]


# The configuration


def source_defaults() -> dict[str, Any]:
    parameters = inspect.signature(further_source).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def documented_defaults() -> dict[str, Any]:
    header, *rows = README.tables("Configuration")[0]
    assert header == ["key", "default", "meaning"]
    return {
        key: None if default in NO_DEFAULT else json.loads(default.strip("`"))
        for keys, default, _ in rows
        for key in names(keys)
    }


def as_configured(key: str, default: Any) -> Any:
    """A default of the source as a file of configuration has it."""
    if key == "executions" and default is None:
        return []
    return list(default) if isinstance(default, tuple) else default


def test_the_keys_and_defaults_are_those_of_the_source() -> None:
    expected = {key: as_configured(key, default) for key, default in source_defaults().items()}

    assert documented_defaults() == expected
    assert sorted(documented_defaults()) == sorted(expected)


def test_config_toml_has_every_key_with_its_default() -> None:
    text = (PROJECT / ".dlt" / "config.toml").read_text(encoding="utf-8")
    expected = {key: as_configured(key, default) for key, default in source_defaults().items() if key not in SECRETS}

    assert tomlkit.parse(text).unwrap()["sources"][SOURCE_NAME] == {
        key: default for key, default in expected.items() if default is not None
    }
    commented = dict(re.findall(r"^# (\w+) = (.*)$", text, re.MULTILINE))
    assert commented.keys() == {key for key, default in expected.items() if default is None}
    preset = vars(POLLING_PRESETS["default"])
    assert {key: float(commented[key].partition("#")[0]) for key in preset} == preset


def test_the_example_of_secrets_has_the_secret_keys() -> None:
    text = (PROJECT / ".dlt" / "example.secrets.toml").read_text(encoding="utf-8")

    assert set(re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE)) == SECRETS
    assert tomlkit.parse(text).unwrap()["sources"].keys() == {SOURCE_NAME}


def test_the_presets_are_those_of_the_source(help_text: str) -> None:
    header, *rows = README.tables("Configuration")[1]

    assert [name for cell in header[1:4] for name in names(cell)] == [*vars(POLLING_PRESETS["default"])]
    documented = {names(preset)[0]: [float(number) for number in numbers] for preset, *numbers, _ in rows}
    assert documented == {name: list(vars(preset).values()) for name, preset in POLLING_PRESETS.items()}
    assert set(documented) <= set(re.findall(r"\w+", help_text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_variables_of_the_environment_are_keys_of_the_source(document: Path) -> None:
    keys = re.findall(rf"SOURCES__{SOURCE_NAME.upper()}__([A-Z_]+)", Document(document).text)

    assert {key.lower() for key in keys} <= source_defaults().keys()


def test_the_extras_are_those_of_the_project() -> None:
    [sentence] = re.findall(r"the extras (.*?), as in", README.text, re.DOTALL)

    project = tomlkit.parse((PROJECT / "pyproject.toml").read_text(encoding="utf-8")).unwrap()["project"]
    assert names(sentence) == [*project["optional-dependencies"]]


# The tables and messages (their columns are checked in test_queries.py)


def test_the_outcomes_are_those_of_the_source() -> None:
    header, *rows = README.tables("executions")[1]
    asked_again = {names(outcome)[0]: answer for outcome, _, answer in rows}

    assert header[0] == "`poll_outcome`"
    assert {outcome for outcome, answer in asked_again.items() if answer == "no"} == FINAL_OUTCOMES
    assert asked_again.keys() == _OUTCOMES.keys()


def test_errors_that_are_named_can_be_imported() -> None:
    named = set(re.findall(r"`(\w+Error)`", README.section("In your own pipeline")))

    assert named
    assert named <= set(package.__all__)


def test_the_messages_in_troubleshooting_are_those_of_the_code() -> None:
    files = [*(PROJECT / "further_source").rglob("*.py"), PROJECT / "pipelines" / "load.py"]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    [[_, *rows]] = README.tables("Troubleshooting")

    messages = {message for symptom, _, _ in rows for message in re.findall(r'"([^"]+)"', symptom)}
    assert len(messages) >= 4
    for message in messages - {"Could not set lock on file"}:  # which is DuckDB's
        # What the code fills in stands in braces there.
        words = [rf"(?:{re.escape(word)}|\{{[^{{}}]*\}})" for word in message.split()]
        assert re.search(" ".join(words), code), message


# The examples


def test_examples_of_lists_can_be_read(tmp_path: Path) -> None:
    lists = {suffix: README.blocks(suffix) for suffix in ("csv", "jsonl", "lines")}

    for suffix, [block] in lists.items():
        file = tmp_path / f"submitted.{suffix}"
        file.write_text(block.code, encoding="utf-8")
        assert len([*manifest.read_executions_file(file)]) >= 1, suffix


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_examples_of_toml_are_toml(document: Path) -> None:
    for block in Document(document).blocks("toml"):
        keys = tomlkit.parse(block.code).unwrap()["sources"][SOURCE_NAME]
        assert keys.keys() <= source_defaults().keys(), block


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox with the two executions of `submit`."""
    with Sandbox() as started:
        for execution_id in ("first", "second"):
            rows = [{"policy_number": cell(f"POL-{execution_id}", 0.97)}]
            started.serve("auto", execution_id, completed("auto", execution_id, [step("Extract", rows)]))
        yield started


def submit(directory: Path) -> None:
    with (directory / "submitted.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["workflow_id", "workflow_execution_id"], ["auto", "first"], ["auto", "second"]])


PYTHON = [
    pytest.param(path, block, id=f"{path.name}-{block}")
    for path in DOCUMENTS
    for block in Document(path).blocks("python")
]


@pytest.mark.parametrize(("document", "block"), PYTHON)
def test_an_example_in_python_runs(
    document: Path, block: Block, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("DLT_DATA_DIR", "DLT_LOCAL_DIR", "DLT_PROJECT_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__BASE_URL", sandbox.base_url)
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__CLIENT_ID", sandbox.client_id)
    monkeypatch.setenv("SOURCES__FURTHER_SOURCE__CLIENT_SECRET", sandbox.client_secret)

    exec(compile(block.code, f"{document.name}, line {block.line}", "exec"), {"__name__": "example"})  # noqa: S102

    [file] = tmp_path.glob("*.duckdb")
    with duckdb.connect(str(file), read_only=True) as connection:
        [(count,)] = connection.sql(f"SELECT count(*) FROM {file.stem}_data.executions").fetchall()
    assert count >= 1


# The schedule

posix = pytest.mark.skipif(sys.platform == "win32", reason="cron is a matter of Unix")
CRON_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "loader"}


@pytest.fixture
def installed(sandbox: Sandbox, tmp_path: Path) -> Path:
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


# Links and names


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in Document(document).links():
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in Document(target).anchors(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_files_that_are_named_exist(document: Path) -> None:
    text = Document(document).text
    named = re.findall(r"(?<![\w/.])(?:\.dlt|\.ci|docs|examples|pipelines|tests)/[\w.-]+", text)

    for name in set(named) - {".dlt/secrets.toml"}:
        assert (PROJECT / name.rstrip(".")).exists(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_tests_that_are_named_exist(document: Path) -> None:
    for file, test in set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", Document(document).text)):
        tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
        tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert test in tests, f"{file}::{test}"


@pytest.mark.parametrize("heading", ["Polling", "Loading", "Data", "Command", "Secrets"])
def test_every_promise_names_a_test(heading: str) -> None:
    [[header, *rows]] = Document(PROJECT / "docs" / "reliability.md").tables(heading)

    assert header == ["promise", "shown by"]
    for promise, shown_by in rows:
        assert names(shown_by), promise
        assert all(re.fullmatch(r"tests/[\w/]+\.py::test_\w+", name) for name in names(shown_by)), shown_by


def test_the_documents_say_how_much_a_load_holds() -> None:
    size = f"{SLICE_BYTES // 1_000_000} MB of "
    assert all(size in (PROJECT / path).read_text() for path in ("README.md", "docs/scaling.md"))
