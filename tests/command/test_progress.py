"""What a load shows while it runs, on a real terminal and in a file."""

import contextlib
import os
import re
import select
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from further_source.sandbox import Reply, Sandbox, error, running
from tests.support.command import HANG, Command, finish, serve
from tests.support.slow import few_of

pty = pytest.importorskip("pty")  # Windows has none
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")


@pytest.fixture
def command(tmp_path: Path, sandbox: Sandbox) -> Command:
    return Command(tmp_path, sandbox)


STOPPING = "stopping: loading what has arrived; again to end now"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
IN_STEPS = {"initial_interval": 1, "max_interval": 30, "outage_patience": 600, "commit_interval": 1, "max_wait": 600}


class Terminal:
    """A pseudo-terminal, and all that a command has written to it."""

    def __init__(self, master: int, columns: int) -> None:
        self._master = master
        self.columns = columns
        self._raw = ""

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in re.split(r"[\r\n]+", _CONTROL.sub("\r", self._raw))]

    @property
    def text(self) -> str:
        """Without regard to where lines are broken."""
        return " ".join(" ".join(self.lines).split())

    @property
    def cursor_is_shown(self) -> bool:
        return self._raw.rfind("\x1b[?25h") >= self._raw.rfind("\x1b[?25l")

    def wait_for(self, *patterns: str) -> None:
        until = time.monotonic() + HANG
        while not all(re.search(pattern, self.text) for pattern in patterns):
            assert time.monotonic() < until, f"not seen: {patterns}\n{self.text[-3000:]}"
            self.read()

    def read(self, seconds: float = 0.1) -> bool:
        """Whether anything came."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            came = os.read(self._master, 65536)
        except OSError:  # on Linux, once nobody has it open
            return False
        self._raw += came.decode(errors="replace")
        return bool(came)


@contextmanager
def on_terminal(
    command: Command, *arguments: str, columns: int, **settings: Any
) -> Iterator[tuple[Terminal, "subprocess.Popen[str]"]]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command.environment["TERM"] = "xterm"

    with command.start(*arguments, stderr=slave, stdin=slave, settings=settings) as process:
        os.close(slave)
        try:
            yield Terminal(master, columns), process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            os.close(master)


def end(terminal: Terminal, process: "subprocess.Popen[str]") -> str:
    """Reads on until the command has ended; what it wrote to standard output."""
    until = time.monotonic() + HANG
    while process.poll() is None:
        terminal.read()
        assert time.monotonic() < until, terminal.text[-3000:]
    while terminal.read():
        pass
    assert process.stdout is not None
    return process.stdout.read()


def ids(*names: str) -> list[str]:
    return [f"wf/{name}" for name in names]


@pytest.mark.parametrize("columns", few_of([40, 120]))
def test_a_terminal_shows_how_it_stands_and_ctrl_c_is_answered(
    command: Command, sandbox: Sandbox, columns: int
) -> None:
    serve(sandbox, "a")
    sandbox.add("wf", "b", running("wf", "b", status="odd"))
    sandbox.add("wf", "c", error(503))
    with on_terminal(command, *ids("a", "b", "c"), columns=columns, **IN_STEPS) as (terminal, process):
        terminal.wait_for(
            r"0:00:0\d looking at the destination",
            "1 of 3 ended: 1 completed",
            "1 running, 1 retried",
            r"\d+ (a minute|a second|an hour), about \d+ (s|min|h) left",
            r"1 loaded, the last at \d\d:\d\d:\d\d",
            "retried: 503",
            "unknown status 'odd'",
        )
        process.send_signal(signal.SIGINT)
        terminal.wait_for(STOPPING)
        out = end(terminal, process)
    assert process.returncode == 130
    assert "2 not ended yet" in out
    assert "\x1b" not in out
    assert command.outcomes() == {"a": "completed"}
    own = [line for line in terminal.lines if "WARNING" not in line]  # of the log, which the terminal itself breaks
    assert max(map(len, own)) <= columns
    assert "Traceback" not in terminal.text


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, pytest.param(120, marks=pytest.mark.slow)])
def test_an_outage_and_a_pause_are_told_with_their_reason(command: Command, sandbox: Sandbox, columns: int) -> None:
    for name in "abc":
        sandbox.add("wf", name, error(503))
    with on_terminal(command, *ids("a", "b", "c"), columns=columns, **IN_STEPS) as (terminal, process):
        terminal.wait_for(r"the API cannot be reached, tried until \d\d:\d\d:\d\d: 503")
        for name in "abc":
            sandbox.add("wf", name, Reply(429, headers={"Retry-After": "60"}))
        terminal.wait_for(r"paused until \d\d:\d\d:\d\d: 429")
        process.send_signal(signal.SIGINT)
        end(terminal, process)
    assert process.returncode == 130
    assert max(map(len, terminal.lines)) <= columns


@pytest.mark.slow
def test_the_second_ctrl_c_ends_it_at_once_and_leaves_the_cursor(command: Command, sandbox: Sandbox) -> None:
    names = [f"a{number}" for number in range(50)]
    for name in names:
        serve(sandbox, name)
    sandbox.add("wf", "b", running("wf", "b"))
    arguments = ids(*names, "b")
    with on_terminal(command, *arguments, columns=80, commit_interval=600) as (terminal, process):
        terminal.wait_for("50 of 51 ended: 50 completed", "1 running")
        process.send_signal(signal.SIGINT)
        terminal.wait_for(STOPPING)
        process.send_signal(signal.SIGINT)
        out = end(terminal, process)
    assert process.returncode == 130
    assert out == ""
    assert terminal.cursor_is_shown


def test_a_file_gets_plain_lines(command: Command, sandbox: Sandbox) -> None:
    serve(sandbox, "a")
    sandbox.add("wf", "b", running("wf", "b"))
    sandbox.add("wf", "c", error(503))
    log = command.directory / "load.log"

    def wait_for(pattern: str) -> None:
        wait_until(lambda: re.search(pattern, log.read_text()) is not None)

    with log.open("w") as stderr:
        process = command.start(*ids("a", "b", "c"), stderr=stderr, settings=IN_STEPS)
    wait_for(r"^\d\d:\d\d:\d\d \d of 3 ended.*\n")
    wait_for("1 running, 1 retried")
    process.send_signal(signal.SIGINT)
    wait_for(STOPPING)
    assert finish(process).returncode == 130
    lines = log.read_text().splitlines()
    assert "1 loaded, the last at" in lines[-1]
    assert all(re.match(r"\d\d:\d\d:\d\d \d of 3 ended", line) for line in lines)
    assert "\x1b" not in log.read_text()


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + HANG
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)
