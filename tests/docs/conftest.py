"""What the documentation loads: two executions, or the demo."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from further_source.sandbox import Sandbox, cell, completed, step
from tests.support.command import Command, loaded

Submit = Callable[[Path], None]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox with the two executions of `submit`."""
    with Sandbox() as started:
        for execution_id in ("first", "second"):
            rows = [{"policy_number": cell(f"POL-{execution_id}", 0.97)}]
            started.serve("auto", execution_id, completed("auto", execution_id, [step("Extract", rows)]))
        yield started


@pytest.fixture
def submit() -> Submit:
    """Writes the list `submitted.csv` into a directory."""

    def write(directory: Path) -> None:
        with (directory / "submitted.csv").open("w", newline="") as file:
            rows = [["workflow_id", "workflow_execution_id"], ["auto", "first"], ["auto", "second"]]
            csv.writer(file).writerows(rows)

    return write


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A directory into which the demo is loaded."""
    command = Command(tmp_path_factory.mktemp("demo"))
    command.settings = {}
    loaded(command.run("--demo", "--quiet"))
    return command
