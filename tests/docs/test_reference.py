"""The reference in docs/ says what is so: names, defaults, options, codes, messages, and examples that run."""

import inspect
import json
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import tomlkit

import further_source as package
from further_source import Report, further_source, manifest, settings
from further_source.command import exit_codes
from further_source.command.arguments.parser import command_parser, parse
from further_source.command.display import _OUTCOMES, summary_document
from further_source.destination.lease import configured_seconds
from further_source.pipeline import PipelineSettings
from further_source.review.files import VERDICT_COLUMNS
from further_source.review.importing import VERDICTS
from further_source.run.slices import SLICE_BYTES
from further_source.sandbox import Sandbox
from further_source.settings import DATASET_NAME, POLLING_PRESETS, SOURCE_NAME
from further_source.tables.answer import FINAL_OUTCOMES
from tests.docs.conftest import Submit
from tests.support.documents import DOCUMENTS, PROJECT, Block, Document, names

SECRETS = {"access_token", "client_id", "client_secret", "executions_database"}
NO_DEFAULT = {"none", "none, secret", "the preset's"}


def page(name: str) -> Document:
    return Document(PROJECT / "docs" / f"{name}.md")


# The command

SUBCOMMANDS = [
    *(set(re.findall(r"^    (\w+) ", command_parser().format_help(), re.MULTILINE)) - {"review"}),
    "review export",
    "review import",
    "review serve",
]
SUBCOMMANDS.sort()


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit):
        parse(command_parser(), [*" ".join(arguments).split(), "--help"])
    return capsys.readouterr().out


def test_the_actions_of_review_are_among_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    actions = re.findall(r"^    (\w+) ", help_of(capsys, "review"), re.MULTILINE)

    assert [f"review {action}" for action in actions] == [name for name in SUBCOMMANDS if name.startswith("review ")]


def test_the_subcommands_are_those_of_the_command() -> None:
    [[header, *rows]] = page("command").tables("The command")

    assert header == ["subcommand", "what it does"]
    assert sorted(name for subcommand, _ in rows for name in names(subcommand)) == sorted(SUBCOMMANDS)


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_the_usage_is_that_of_the_command(capsys: pytest.CaptureFixture[str], subcommand: str) -> None:
    blocks = [block.code for block in page("command").blocks("text")]
    [code] = [code for code in blocks if code.startswith(f"further-source {subcommand} ")]
    usage = help_of(capsys, subcommand).partition("\n\n")[0]

    arguments = set(re.findall(r"\[[^\]]+\]", " ".join(usage.split())))
    assert set(re.findall(r"\[[^\]]+\]", code)) == arguments - {"[-h]"}


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_the_options_are_those_of_the_command(capsys: pytest.CaptureFixture[str], subcommand: str) -> None:
    [[header, *rows]] = page("command").tables(subcommand)

    assert header == ["option", "meaning"]
    options = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", help_of(capsys, subcommand), re.MULTILINE))
    assert {name for option, _ in rows for name in names(option)} == options - {"--help"}


def test_the_options_of_no_subcommand_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    told = help_of(capsys)
    introduction = page("command").section("The command")

    for option in re.findall(r"^  (?:-h, )?(--[a-z-]+)", told, re.MULTILINE):
        assert f"`further-source {option}" in introduction
    [shells] = re.findall(r"completion for (\w+(?:, \w+)* or \w+)", told)
    for shell in re.split(", | or ", shells):
        assert f"`{shell}`" in introduction


def test_the_exit_codes_are_those_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    [[header, *rows]] = page("command").tables("Exit codes")
    codes = [int(code) for code, _ in rows]

    assert header == ["exit code", "when"]
    constants = {value for value in vars(exit_codes).values() if isinstance(value, int)}
    assert codes == sorted({*constants, *map(exit_codes.of_signal, (signal.SIGINT, signal.SIGTERM))})
    told = help_of(capsys, "load").partition("Exit codes:")[2]
    assert codes == [int(code) for code in re.findall(r"\b\d+\b", told)]


def test_the_keys_of_the_summary_are_those_of_the_command() -> None:
    [[header, *rows]] = page("command").tables("The summary as JSON")

    assert header == ["key", "meaning"]
    settings = PipelineSettings("further", "", "duckdb", DATASET_NAME, "", DATASET_NAME, None)
    document = summary_document(Report(), settings, error=None, exit_code=0)
    assert [name for key, _ in rows for name in names(key)] == [*document]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_the_commands_that_are_shown_are_right(document: Path) -> None:
    for block in Document(document).blocks("sh") + Document(document).blocks("cron"):
        for line in block.code.replace("\\\n", " ").splitlines():
            for name, prefix in (("further-source ", []), ("pipelines/load.py ", ["load"])):
                _, found, arguments = line.partition(name)
                if found:
                    parse(command_parser(), [*prefix, *shlex.split(arguments.partition(" >>")[0], comments=True)])


def test_the_labeling_configuration_gives_what_the_import_reads() -> None:
    [block] = page("review").blocks("xml")

    assert re.findall(r'<Choice value="(\w+)"', block.code) == list(VERDICTS)
    assert re.findall(r'<(?:Choices|TextArea) name="(\w+)"', block.code) == ["verdict", "corrected_value", "reason"]
    assert {"verdict", "corrected_value", "reason"} <= set(VERDICT_COLUMNS)


# The configuration


def source_defaults() -> dict[str, Any]:
    parameters = [
        parameter
        for reads_keys in (further_source, configured_seconds)
        for parameter in inspect.signature(reads_keys).parameters.values()
    ]
    return {parameter.name: parameter.default for parameter in parameters}


def documented_defaults() -> dict[str, Any]:
    [[header, *rows]] = page("configuration").tables("Keys")
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


def test_the_presets_are_those_of_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    [[header, *rows]] = page("configuration").tables("Polling presets")

    assert [name for cell in header[1:4] for name in names(cell)] == [*vars(POLLING_PRESETS["default"])]
    documented = {names(preset)[0]: [float(number) for number in numbers] for preset, *numbers, _ in rows}
    assert documented == {name: list(vars(preset).values()) for name, preset in POLLING_PRESETS.items()}
    assert set(documented) <= set(re.findall(r"\w+", help_of(capsys, "load")))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_variables_of_the_environment_are_keys_of_the_source(document: Path) -> None:
    keys = re.findall(rf"SOURCES__{SOURCE_NAME.upper()}__([A-Z_]+)", Document(document).text)

    assert {key.lower() for key in keys} <= source_defaults().keys()


def test_the_extras_are_those_of_the_project() -> None:
    [sentence] = re.findall(r"the extras (.*?), as in", page("destinations").text, re.DOTALL)

    project = tomlkit.parse((PROJECT / "pyproject.toml").read_text(encoding="utf-8")).unwrap()["project"]
    assert [*names(sentence), "sql", "receiver", "look"] == [*project["optional-dependencies"]]
    assert "uv sync --no-dev --extra receiver" in page("webhooks").text
    assert "uv sync --no-dev --extra sql" in page("command").text


# The tables and messages (their columns are checked in test_queries.py)


def test_the_outcomes_are_those_of_the_source() -> None:
    [[header, *rows]] = page("tables").tables("Outcomes")
    asked_again = {names(outcome)[0]: answer for outcome, _, answer in rows}

    assert header[0] == "`poll_outcome`"
    assert {outcome for outcome, answer in asked_again.items() if answer == "no"} == FINAL_OUTCOMES
    assert asked_again.keys() == _OUTCOMES.keys()


def test_errors_that_are_named_can_be_imported() -> None:
    named = set(re.findall(r"`(\w+Error)`", page("python").section("Errors")))

    assert named
    assert named <= set(package.__all__)


def test_the_messages_in_troubleshooting_are_those_of_the_code() -> None:
    files = [*(PROJECT / "further_source").rglob("*.py"), PROJECT / "pipelines" / "load.py"]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    [[_, *rows]] = page("troubleshooting").tables("Troubleshooting")

    messages = {message for symptom, _, _ in rows for message in re.findall(r'"([^"]+)"', symptom)}
    assert len(messages) >= 4
    for message in messages - {"Could not set lock on file"}:  # which is DuckDB's
        # What the code fills in stands in braces there.
        words = [rf"(?:{re.escape(word)}|\{{[^{{}}]*\}})" for word in message.split()]
        assert re.search(" ".join(words), code), message


# The examples


def test_examples_of_lists_can_be_read(tmp_path: Path) -> None:
    lists = {suffix: page("command").blocks(suffix) for suffix in ("csv", "jsonl", "json", "lines")}

    for suffix, [block] in lists.items():
        file = tmp_path / f"submitted.{suffix}"
        file.write_text(block.code, encoding="utf-8")
        assert len([*manifest.read_executions_file(file)]) >= 1, suffix


def test_the_page_says_how_long_a_list_can_be() -> None:
    limits = (settings.MAX_LIST_LINES, settings.MAX_LIST_LINE, settings.MAX_LIST_BYTES, settings.MAX_LIST_JSON)
    said = page("command").section("The list of executions")

    assert all(f"{limit:,} " in " ".join(said.split()) for limit in limits)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_examples_of_toml_are_toml(document: Path) -> None:
    for block in Document(document).blocks("toml"):
        keys = tomlkit.parse(block.code).unwrap()["sources"][SOURCE_NAME]
        assert keys.keys() <= source_defaults().keys(), block


PYTHON = [
    pytest.param(path, block, id=f"{path.name}-{block}")
    for path in DOCUMENTS
    for block in Document(path).blocks("python")
]


@pytest.mark.parametrize(("document", "block"), PYTHON)
def test_an_example_in_python_runs(
    document: Path, block: Block, sandbox: Sandbox, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_the_pages_say_how_much_a_load_holds() -> None:
    size = f"{SLICE_BYTES // 1_000_000} MB of "

    assert all(size in page(name).text for name in ("incremental", "scaling"))
