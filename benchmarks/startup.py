"""Starting the command, against importing dlt; and a whole process that loads nothing or next to nothing."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import timed
from further_source.sandbox import Sandbox, completed

_LOAD = str(Path(__file__).resolve().parent.parent / "pipelines" / "load.py")
_INSTALLED = str(Path(sys.executable).with_name("further-source"))
_VARIANTS = {
    "import_dlt": (["-c", "import dlt"], 0),
    # DuckDB imports pandas, where it is installed, at the first statement with a parameter, and dlt sends some.
    "dlt_and_duckdb": (["-c", "import dlt, duckdb; duckdb.execute('SELECT ?', [1])"], 0),
    "installed_help": ([_INSTALLED, "--help"], 0),
    "help": ([_LOAD, "--help"], 0),
    "wrong_usage": ([_LOAD, "--no-such-option"], 2),
    "nothing_to_do": ([_LOAD, "--executions", "empty.txt"], 0),
    "imports": (["-c", "import dlt, further_source.command.load, dlt.destinations.impl.duckdb.duck"], 0),
    "nothing_new": ([_LOAD, "--executions", "loaded.txt"], 0),
}
"""Arguments for Python, and the exit code that is right."""


def commands(times: int) -> dict[str, Any]:
    """Median seconds of each, and CPU seconds as `cpu_` and its name, run in turns so many times."""
    Path("empty.txt").touch()
    Path("loaded.txt").write_text("w/e\n")
    with Sandbox() as sandbox:
        sandbox.add("w", "e", completed("w", "e", []))
        environment = {
            **os.environ,
            "SOURCES__FURTHER_SOURCE__BASE_URL": sandbox.base_url,
            "SOURCES__FURTHER_SOURCE__ACCESS_TOKEN": sandbox.issue_token(),
        }
        seconds: dict[str, list[float]] = {name: [] for variant in _VARIANTS for name in (variant, f"cpu_{variant}")}
        for _ in range(times + 1):
            for name, (arguments, exit_code) in _VARIANTS.items():
                one: dict[str, float] = {}
                before = _children_cpu()
                with timed(one):
                    run = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
                if run.returncode != exit_code:
                    raise RuntimeError(f"{name}: exit code {run.returncode}\n{run.stderr}")
                seconds[name].append(one["seconds"])
                seconds[f"cpu_{name}"].append(_children_cpu() - before)
    # The first round fills caches, makes the tables and loads what there is.
    return {name: median(values[1:]) for name, values in seconds.items()}


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
