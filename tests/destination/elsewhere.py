"""Tests that want other packages than this project's lock file has: each runs once more, where these are, too."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.destination.conftest import installed

PROJECT = Path(__file__).parents[2]
NOTHING: Mapping[str, str] = MappingProxyType({})


def run_elsewhere(file: str, marker: str, packages: Sequence[str], environment: Mapping[str, str] = NOTHING) -> None:
    """Runs the test of a file that has the marker where these packages are, too.

    It is skipped where these cannot be had.

    Args:
        environment: What is set in its environment besides.

    Raises:
        AssertionError: It failed; with the end of what it printed.
    """
    uv = installed("uv", "pip install uv")
    run = [uv, "run", "--isolated", *(part for package in packages for part in ("--with", package))]
    made = subprocess.run([*run, "python", "-c", ""], cwd=PROJECT, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no environment with {', '.join(packages)}: {made.stderr.strip()[-300:]}")
    command, env = [*run, "pytest", "-n", "0", "-rs", "-m", marker, file], {**os.environ, **environment}
    ran = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True)
    printed = ran.stdout.decode()[-4_000:]
    if " 1 skipped" in printed:
        pytest.skip(printed.splitlines()[-2])
    assert ran.returncode == 0, printed
