"""The command in this process."""

from pathlib import Path

import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

from further_source.sandbox import Sandbox
from tests.support.command import Command


@pytest.fixture
def command_here(tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Its directory is the working directory and its settings are set, so that `main()` can be called."""
    command = Command(tmp_path, sandbox)
    for name, value in command.env().items():
        if name.startswith(("SOURCES__", "DLT_")):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(command.directory)
    Container()[PluggableRunContext].reload(str(command.directory))
    return command
