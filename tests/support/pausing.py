"""A load in a process of its own that stands still before one of its statements, as on a machine that is paused.

Run as a module it is that process. The statements are those of psycopg2, sqlite3 and duckdb.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import dlt

from further_source import AlreadyRunningError, further_source, run_in_slices

__all__ = ["PausedLoad"]

PROJECT = Path(__file__).parents[2]
DRIVERS = ("psycopg2", "sqlite3", "duckdb", "_duckdb", "pybind11")
STATEMENTS = {"execute", "executemany", "copy_expert"}


class PausedLoad:
    """A load on a machine of its own, which stands still before the first statement that has a text in it.

    Args:
        destination: URL of a PostgreSQL or SQLite database, or the path of a DuckDB file.
        before: The text, of SQL without quotes of names, or the number of a statement. Of several, it stands still
            before the first one's statement, and once it goes on, before the next one's.
        source: Arguments of `further_source`.
    """

    def __init__(
        self,
        destination: str,
        directory: Path,
        before: Sequence[str | int],
        source: dict[str, Any],
        *,
        dataset: str,
        lease: float,
    ) -> None:
        directory.mkdir(exist_ok=True)
        options: dict[str, Any] = {"destination": destination, "directory": str(directory), "dataset": dataset}
        options |= {"before": before, "source": source}
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SOURCES__")},
            "DLT_DATA_DIR": str(directory / "dlt"),
            "LOAD__WORKERS": "1",
            "SOURCES__FURTHER_SOURCE__LEASE_DURATION": str(lease),
        }
        command = [sys.executable, "-m", "tests.support.pausing", json.dumps(options)]
        self._process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, encoding="utf-8"
        )

    def wait(self) -> bool:
        """Waits until it stands still; False where it ended before."""
        options = os.WSTOPPED | os.WEXITED | os.WNOWAIT
        state = os.waitid(os.P_PID, self._process.pid, options)
        return state is not None and state.si_code == os.CLD_STOPPED

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> tuple[int, str]:
        """Lets it go on to its end; exit code and what it said."""
        self.go_on()
        _, said = self._process.communicate()
        return self._process.returncode, said

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


class _Pause:
    def __init__(self, before: list[str | int]) -> None:
        self._before = before
        self._made = 0
        self._lock = threading.Lock()

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call" or function.__name__ not in STATEMENTS:
            return
        if not type(getattr(function, "__self__", None)).__module__.startswith(DRIVERS):
            return
        text = str(frame.f_locals.get("statement") or frame.f_locals.get("query")).replace('"', "")
        with self._lock:
            self._made += 1
            if self._before and self._is_here(self._before[0], text):
                del self._before[0]
                os.kill(os.getpid(), signal.SIGSTOP)

    def _is_here(self, before: str | int, text: str) -> bool:
        return before in text if isinstance(before, str) else before == self._made


def destination_of(url: str) -> Any:
    if url.startswith("sqlite"):
        return dlt.destinations.sqlalchemy(url)
    return dlt.destinations.postgres(url) if url.startswith("postgres") else dlt.destinations.duckdb(url)


def main() -> int:
    options = json.loads(sys.argv[1])
    pipeline = dlt.pipeline(
        "further",
        pipelines_dir=f"{options['directory']}/pipelines",
        destination=destination_of(options["destination"]),
        dataset_name=options["dataset"],
    )
    source = further_source(**options["source"])
    pause = _Pause(options["before"])
    threading.setprofile(pause)
    sys.setprofile(pause)
    try:
        run_in_slices(pipeline, source)
    except AlreadyRunningError as error:
        print(error, file=sys.stderr)
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main())
