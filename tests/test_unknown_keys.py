"""Misspelt keys and sections of the configuration are told, and what dlt reads is left alone."""

import os
from pathlib import Path
from typing import Any, ClassVar

import dlt
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers import ConfigTomlProvider, CustomLoaderDocProvider, EnvironProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

from further_source import ConfigurationError, further_source, run_in_slices
from further_source.sandbox import Sandbox
from further_source.source import check_configured_keys
from tests.conftest import MakePipeline
from tests.support.command import serve

ENV = "SOURCES__FURTHER_SOURCE__"


def configure(directory: Path, text: str, file: str = "config.toml") -> None:
    (directory / ".dlt").mkdir(exist_ok=True)
    (directory / ".dlt" / file).write_text(text)
    Container()[PluggableRunContext].reload(str(directory))


def told() -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_configured_keys()
    assert str(caught.value).isprintable()
    return str(caught.value)


FILES = [
    (
        "[sources.further_source]\nmax_wiat = 5\n",
        "max_wiat in [sources.further_source] of {}: no such key; did you mean max_wait?",
    ),
    (
        "[sources.further_source]\nMax_Wait = 5\n",
        "Max_Wait in [sources.further_source] of {}: no such key; did you mean max_wait?",
    ),
    (
        "[sources.further_source]\nmax.wait = 5\n",
        "max.wait in [sources.further_source] of {}: no such key; did you mean max_wait?",
    ),
    (
        "[sources.further_source.further_source]\nclient_idd = 'x'\n",
        "client_idd in [sources.further_source.further_source] of {}: no such key; did you mean client_id?",
    ),
    (
        "[claims.sources.further_source]\nreloud = true\n",
        "reloud in [claims.sources.further_source] of {}: no such key; did you mean reload?",
    ),
    (
        "[source.further_source]\nmax_wait = 5\n",
        "[source.further_source] of {}: no such section; did you mean [sources.further_source]?",
    ),
    ("[Sources.further_source]\nmax_wait = 5\n", "[Sources.further_source] of {}: no such section; did you mean"),
    (
        "[sources.further]\nmax_wait = 5\n",
        "[sources.further] of {}: no such section; did you mean [sources.further_source]?",
    ),
    ("[sources.further-source]\nmax_wait = 5\n", "[sources.further-source] of {}: no such section; did you mean"),
    ("[sources.futher_source]\nanything = 5\n", "[sources.futher_source] of {}: no such section; did you mean"),
    ("[further_source]\nmax_wait = 5\n", "[further_source] of {}: no such section; did you mean"),
    (
        "[sources.claims.further_source]\nmax_wait = 5\n",
        "[sources.claims.further_source] of {}: no such section; did you",
    ),
]


@pytest.mark.parametrize("file", ["config.toml", "secrets.toml"])
@pytest.mark.parametrize(("text", "message"), FILES)
def test_a_misspelt_key_or_section_of_a_file_is_told(tmp_path: Path, file: str, text: str, message: str) -> None:
    configure(tmp_path, text, file)
    assert told().startswith(message.format(os.path.join(".dlt", file)))


def test_a_key_like_no_other_is_told_with_those_there_are(tmp_path: Path) -> None:
    configure(tmp_path, "[sources.further_source]\nzzz = 5\n")
    message = told()
    assert "zzz in [sources.further_source]" in message
    assert "executions, executions_file, executions_query" in message


def test_several_are_told_in_one_line(tmp_path: Path) -> None:
    configure(tmp_path, "[sources.further_source]\n" + "".join(f"max_wai{letter} = 1\n" for letter in "abcde"))
    message = told()
    assert message.count("did you mean max_wait?") == 3
    assert message.endswith("; and 2 more")


def test_the_users_own_file_is_named_by_its_path(tmp_path: Path) -> None:
    configure(tmp_path, "[sources.further_source]\nmax_wait = 1\n")
    users = tmp_path / "home"
    users.mkdir()
    (users / "config.toml").write_text("[sources.further_source]\nmax_wiat = 5\n")
    providers = Container()[PluggableRunContext].providers
    providers["config.toml"] = ConfigTomlProvider(str(tmp_path / ".dlt"), str(users))
    assert f"of {os.path.join('home', 'config.toml')}:" in told()


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (f"{ENV}MAX_WIAT", f"{ENV}MAX_WIAT in the environment: no such key; did you mean {ENV}MAX_WAIT?"),
        (f"{ENV}MAX__WAIT", f"{ENV}MAX__WAIT in the environment: no such key; did you mean {ENV}MAX_WAIT?"),
        (f"{ENV}FURTHER_SOURCE__RELOUD", f"{ENV}FURTHER_SOURCE__RELOUD in the environment: no such key; did you"),
        (f"CLAIMS__{ENV}RELOUD", f"CLAIMS__{ENV}RELOUD in the environment: no such key; did you mean {ENV}RELOAD?"),
        ("SOURCE__FURTHER_SOURCE__MAX_WAIT", f"did you mean {ENV}MAX_WAIT?"),
        ("SOURCES__FURTHER__MAX_WAIT", f"did you mean {ENV}MAX_WAIT?"),
        ("SOURCES_FURTHER_SOURCE_MAX_WAIT", f"did you mean {ENV}MAX_WAIT?"),
        ("SOURCES__FURTHER_SOURCE_MAX_WAIT", f"did you mean {ENV}MAX_WAIT?"),
        ("FURTHER_SOURCE__MAX_WAIT", f"did you mean {ENV}MAX_WAIT?"),
        pytest.param(
            "sources__further_source__max_wait",
            "sources__further_source__max_wait in the environment: not read, names of variables are upper case",
            marks=pytest.mark.skipif(os.name == "nt", reason="upper and lower case are the same there"),
        ),
    ],
)
def test_a_misspelt_variable_is_told(monkeypatch: pytest.MonkeyPatch, variable: str, message: str) -> None:
    monkeypatch.setenv(variable, "hunter2")
    said = told()
    assert message in said
    assert said.startswith(f"{variable} in the environment: ")
    assert "hunter2" not in said


def test_a_document_of_any_provider_is_looked_through(tmp_path: Path) -> None:
    configure(tmp_path, "")
    document = {"sources": {"further_source": {"max_wiat": 5}}}
    dlt.config.register_provider(CustomLoaderDocProvider("vault", lambda: document))
    assert told().startswith("max_wiat in [sources.further_source] of vault: ")


ALLOWED = [
    "[sources.further_source]\nmax_wait = 5\nschema_contract = 'evolve'\nmax_table_nesting = 0\n",
    "[sources.further_source.schema]\nnaming = 'snake_case'\n",
    "[sources.further_source.data_writer]\nbuffer_max_items = 100\n",
    "[sources.further_source.extract]\nworkers = 1\n",
    "[sources.further_source.credentials]\nuser = 'x'\n",
    "[sources.further_source.executions.data_writer]\nbuffer_max_items = 100\n",
    "[sources.further_source.rows]\nanything = 1\n",
    "[claims.sources.further_source]\nmax_wait = 5\n",
    "[sources.further.data_writer]\nbuffer_max_items = 100\n",  # dlt's, for a pipeline of this name
    "[sources]\nmax_wait = 5\nmax_wiat = 5\n",  # for all sources
    "[sources.further_claims]\nmax_wait = 5\n",  # somebody's own
    "[sources.shopify]\nmax_wiat = 5\n",
    "[pipelines.further]\ndataset_name = 'x'\n",
    "[destination.further]\ndestination_type = 'duckdb'\n",
    "[further_source]\nlevel = 5\n",
    "[runtime]\nlog_level = 'WARNING'\n",
]


@pytest.mark.parametrize("text", ALLOWED)
def test_what_is_known_to_the_source_or_to_dlt_or_is_somebody_elses_is_fine(tmp_path: Path, text: str) -> None:
    configure(tmp_path, text)
    check_configured_keys()


@pytest.mark.parametrize(
    "variable",
    [
        f"{ENV}MAX_WAIT",
        f"{ENV}FURTHER_SOURCE__MAX_WAIT",
        f"{ENV}DATA_WRITER__BUFFER_MAX_ITEMS",
        f"{ENV}EXECUTIONS__DATA_WRITER__BUFFER_MAX_ITEMS",
        "FURTHER_SOURCE_DIRECTORY",
        "SOURCES__SHOPIFY__MAX_WIAT",
    ],
)
def test_variables_that_are_known_or_somebody_elses_are_fine(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    check_configured_keys()


def test_all_that_dlt_reads_in_our_section_is_allowed(
    sandbox: Sandbox, make_pipeline: MakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(EnvironProvider):
        """Is asked for whatever is looked for."""

        keys: ClassVar[set[str]] = set()

        @property
        def name(self) -> str:
            return "asked"

        def get_value(self, key: str, hint: type[Any], pipeline_name: str | None, *sections: str) -> tuple[Any, str]:
            name = self.get_key_name(key, pipeline_name or "", *sections)
            self.keys.add(name)
            return None, name

    serve(sandbox, "a")
    dlt.config.register_provider(Asked())
    source = further_source(
        executions=["wf/a"],
        base_url=sandbox.base_url,
        client_id=sandbox.client_id,
        client_secret=sandbox.client_secret,
    )
    run_in_slices(make_pipeline(), source)
    ours = {key for key in Asked.keys if ENV in key}
    assert len(ours) > 60
    for key in ours:
        monkeypatch.setenv(key, "1")
    check_configured_keys()


# Where it is told


def test_it_is_told_in_scripts_of_ones_own(tmp_path: Path) -> None:
    configure(tmp_path, "[sources.further_source]\nclient_idd = 'x'\n")
    with pytest.raises(ConfigurationError, match="did you mean client_id"):
        further_source(executions=["wf/a"])
