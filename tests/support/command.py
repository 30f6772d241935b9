"""The real command, away from this machine's configuration: in a process of its own, or in this one."""

import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dlt.common import logger
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

from further_source.command.arguments.parser import load_parser
from further_source.command.main import main
from further_source.jsontext import dumps
from further_source.sandbox import Sandbox, cell, completed, step

LOAD = Path(__file__).resolve().parents[2] / "pipelines" / "load.py"
INSTALLED = Path(sys.executable).with_name("further-source")
HANG = 120  # seconds after which something hangs, however slow the machine
WORKFLOW = "wf"
SOURCE = "SOURCES__FURTHER_SOURCE__"
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")


class Command:
    """Runs `pipelines/load.py`, or what is `installed`, in a directory of its own, against a sandbox, in a hurry.

    `settings` are keys of the source; `environment` is whatever else. What is None is not set.
    """

    def __init__(self, directory: Path, sandbox: Sandbox | None = None, **settings: Any) -> None:
        self.directory = directory / "cwd"
        self.data_dir = directory / "dlt"
        self.home = directory / "home"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.home.mkdir(exist_ok=True)
        self.database = self.directory / "further.duckdb"
        self.pipeline = self.data_dir / "pipelines" / "further"
        hurry: dict[str, Any] = {
            "initial_interval": 0.05,
            "max_interval": 0.2,
            "max_requests_per_second": 500,
            "outage_patience": 0,
        }
        if sandbox is not None:
            hurry.update(
                base_url=sandbox.base_url, client_id=sandbox.client_id, client_secret=sandbox.client_secret, max_wait=60
            )
        self.settings = {**hurry, **settings}
        self.environment: dict[str, str | None] = {}

    def env(self, **settings: Any) -> dict[str, str]:
        env: dict[str, Any] = {name: os.environ.get(name) for name in _KEPT}
        env |= {"HOME": str(self.home), "USERPROFILE": str(self.home), "DLT_DATA_DIR": str(self.data_dir)}
        env |= {SOURCE + key.upper(): value for key, value in {**self.settings, **settings}.items()}
        env |= self.environment
        return {name: str(value) for name, value in env.items() if value is not None}

    def start(self, *arguments: str, installed: bool = False, **popen: Any) -> "subprocess.Popen[str]":
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        settings = popen.pop("settings", {})
        return subprocess.Popen(
            [*([str(INSTALLED)] if installed else [sys.executable, str(LOAD)]), *arguments],
            cwd=self.directory,
            env=self.env(**settings),
            encoding="utf-8",
            **{**pipes, **popen},
        )

    def run(
        self, *arguments: str, stdin: str | None = None, installed: bool = False, **settings: Any
    ) -> "subprocess.CompletedProcess[str]":
        stdin_pipe = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        with self.start(*arguments, installed=installed, settings=settings, stdin=stdin_pipe) as process:
            return finish(process, stdin)

    def run_here(self, *arguments: str, stdin: str = "", **settings: Any) -> "subprocess.CompletedProcess[str]":
        """As `run`, but in this process, which has imported dlt already: that takes longer than most loads.

        Not for what depends on a process: signals, streams of another kind or encoding, and how the command ends.
        """
        out, err = Captured(), Captured()
        with _another_process(self.directory, self.env(**settings)) as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            Container()[PluggableRunContext].reload(str(self.directory))  # with a log on this standard error
            try:
                code = main(arguments, parser=load_parser(LOAD.name))
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
        return subprocess.CompletedProcess([LOAD.name, *arguments], code, out.text, err.text)

    def query(self, sql: str, database: Path | None = None, *, schema: str = "further_data") -> list[tuple[Any, ...]]:
        with duckdb.connect(str(database or self.database), read_only=True) as connection:
            connection.execute(f"USE {schema}")
            return connection.execute(sql).fetchall()

    def outcomes(self) -> dict[str, str]:
        rows = self.query("SELECT workflow_execution_id, poll_outcome FROM executions")
        assert len(rows) == len(dict(rows)), "an execution has two rows"
        return dict(rows)


class Captured(io.TextIOWrapper):
    """A standard stream that is no terminal; `text` is what was written."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        super().__init__(self._bytes, encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        return self._bytes.getvalue().decode()


@contextmanager
def _another_process(directory: Path, environment: dict[str, str]) -> Iterator[pytest.MonkeyPatch]:
    """What is a process's own is that of another one within: environment, directory, signals, and dlt's log."""
    before = Path.cwd()
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.chdir(directory)
        for name in ("handlers", "filters"):
            patch.setattr(logger.LOGGER, name, [])
        try:
            yield patch
        finally:
            for number, handler in signals.items():
                signal.signal(number, handler)
    Container()[PluggableRunContext].reload(str(before))


def finish(process: "subprocess.Popen[str]", stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Waits for the end of a command, and ends one that hangs."""
    try:
        out, err = process.communicate(stdin, timeout=HANG)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        out, err = process.communicate()
        raise AssertionError(f"the command hangs\n{out}\n{err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def loaded(done: "subprocess.CompletedProcess[str]", code: int = 0) -> "subprocess.CompletedProcess[str]":
    """The same, once it is sure that it ended as it should."""
    assert done.returncode == code, f"exit code {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def told(done: "subprocess.CompletedProcess[str]", code: int) -> str:
    """The one line on standard error that a command without further log lines failed with."""
    loaded(done, code)
    (line,) = done.stderr.splitlines()
    assert line.startswith("load.py: "), line
    assert "usage:" not in line
    return line.removeprefix("load.py: ")


def until(condition: Callable[[], Any], process: "subprocess.Popen[str] | None" = None, *, every: float = 0.01) -> None:
    """Waits until the condition holds; fails if the process ends before or nothing happens for long."""
    deadline = time.monotonic() + HANG
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            out, err = process.communicate()
            raise AssertionError(f"ended too soon, with {process.returncode}\n{out}\n{err}")
        assert time.monotonic() < deadline, "it never comes"
        time.sleep(every)


def ids(names: Iterable[str]) -> list[str]:
    return [f"{WORKFLOW}/{name}" for name in names]


def serve(sandbox: Sandbox, name: str, *rows: dict[str, Any], after: float | None = 0.0) -> dict[str, Any]:
    """Serves an execution that completes with such rows of plain values; returns its answer."""
    cells = [{field: cell(value, 0.9) for field, value in row.items()} for row in rows or ({"name": name},)]
    payload = completed(WORKFLOW, name, [step("Extract", cells)], metadata={"external_id": f"X-{name}"})
    sandbox.serve(WORKFLOW, name, payload, after)
    return payload


def asked(sandbox: Sandbox) -> Counter[str]:
    """How often each execution has been asked so far."""
    return Counter(record.workflow_execution_id for record in sandbox.requests if record.workflow_execution_id)


Cell = tuple[str, str, int, str, int, str, str | None, str, float | None]


def cells_of(payloads: Iterable[dict[str, Any]]) -> list[Cell]:
    """Every cell of documented answers, read as the design says and not by the package's own code."""
    cells: list[Cell] = []
    for payload in payloads:
        for step_index, one in enumerate(payload.get("steps", [])):
            for row_index, row in enumerate(one["data"]["data"]):
                for field, content in row.items():
                    cells.append(
                        (
                            payload["workflow_id"],
                            payload["workflow_execution_id"],
                            step_index,
                            one["step_name"],
                            row_index,
                            field,
                            *_text_and_type(content["value"]),
                            content["confidence_score"],
                        )
                    )
    return sorted(cells, key=repr)


def stored_cells(command: Command, database: Path | None = None) -> list[Cell]:
    rows = command.query(
        "SELECT workflow_id, workflow_execution_id, step_index, step_name, row_index, field, value, value_type, "
        "confidence FROM cells WHERE _deleted IS NULL",
        database,
    )
    return sorted(rows, key=repr)


def _text_and_type(value: Any) -> tuple[str | None, str]:
    match value:
        case None:
            return None, "null"
        case bool():
            return str(value).lower(), "boolean"
        case int() | float():
            return repr(value), "number"
        case str():
            return value, "string"
        case _:
            return dumps(value), "array" if isinstance(value, list) else "object"


@contextmanager
def held(database: Path) -> Iterator[None]:
    """Another process has the DuckDB file open for writing, and nobody else can; a load may have it for a moment."""
    script = """
import duckdb, sys, time
end = time.monotonic() + 30
while True:
    try:
        connection = duckdb.connect(sys.argv[1])
        break
    except duckdb.IOException:
        if time.monotonic() > end:
            raise
        time.sleep(0.01)
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"held"
        try:
            yield
        finally:
            holder.communicate()  # closes its standard input, which ends it
