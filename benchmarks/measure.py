"""Runs one case in a fresh process, so that its time and its peak memory are its own.

`python -m benchmarks.measure MODULE:FUNCTION JSON_ARGUMENTS` runs it, and prints what it returned as JSON.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent


def measure(case: str, **arguments: Any) -> dict[str, Any]:
    """What `MODULE:FUNCTION` in this package returned, and `peak_mb`, the most memory its process held."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SOURCES__", "DESTINATION__"))},
            "PYTHONPATH": str(_ROOT),
            "HOME": directory,
            "DLT_DATA_DIR": directory,
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "RUNTIME__LOG_LEVEL": "ERROR",
            # As load.py sets it; here, because it is looked at when arrow is imported.
            "ARROW_DEFAULT_MEMORY_POOL": "system",
        }
        command = [sys.executable, "-m", "benchmarks.measure", case, json.dumps(arguments)]
        run = subprocess.run(command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return dict(json.loads(run.stdout.splitlines()[-1]))


@contextmanager
def timed(into: dict[str, Any], name: str = "seconds") -> Iterator[None]:
    """Writes down the seconds that passed as `name`, and those that this process computed as `cpu_` and `name`."""
    start, start_cpu = time.perf_counter(), time.process_time()
    yield
    into[name], into[f"cpu_{name}"] = time.perf_counter() - start, time.process_time() - start_cpu


def _peak_mb() -> float:
    """Of this process alone: the figure of `getrusage` begins with what the process had that started it."""
    with suppress(FileNotFoundError):  # of Linux
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    module, _, function = sys.argv[1].partition(":")
    result = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**json.loads(sys.argv[2]))
    result["peak_mb"] = _peak_mb()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
