"""Starting the command, against importing dlt."""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import timed
from further_source.sandbox import Sandbox

_LOAD = Path(__file__).resolve().parent.parent / "pipelines" / "load.py"


def commands(times: int) -> dict[str, Any]:
    """Median seconds of each, run in turns so many times."""
    Path("empty.txt").touch()
    with Sandbox() as sandbox:
        environment = {
            **os.environ,
            "SOURCES__FURTHER_SOURCE__BASE_URL": sandbox.base_url,
            "SOURCES__FURTHER_SOURCE__ACCESS_TOKEN": sandbox.issue_token(),
        }
        nothing = [str(_LOAD), "--executions", "empty.txt"]
        variants = {"import_dlt": ["-c", "import dlt"], "help": [str(_LOAD), "--help"], "nothing_to_do": nothing}
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(times + 1):
            for name, arguments in variants.items():
                one: dict[str, float] = {}
                with timed(one):
                    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
                seconds[name].append(one["seconds"])
    # The first round fills caches and makes the tables.
    return {name: median(values[1:]) for name, values in seconds.items()}
