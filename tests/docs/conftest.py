"""The two executions that the examples load."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from further_source.sandbox import Sandbox, cell, completed, step

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
