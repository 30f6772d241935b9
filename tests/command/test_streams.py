"""The command where standard input, output or error is closed, full, or nothing: as a service runs it, or `nohup`."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from further_source.sandbox import Sandbox
from tests.support.command import HANG, INSTALLED, Command, ids, serve, until
from tests.support.slow import few_of

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")

STREAMS = [
    "</dev/null",
    "<&-",
    ">&-",
    "2>&-",
    ">&- 2>&-",
    "<&- >&- 2>&-",
    ">/dev/full",
    "2>/dev/full",
    ">/dev/full 2>&1",
    ">/dev/full 2>&-",
]
SHOWN = {"</dev/null", "<&-", "2>&-", "2>/dev/full"}  # those that leave standard output as it is
CODES = {
    "--help": 0,
    "--version": 0,
    "load --frobnicate": 2,
    "load --help": 0,
    "load wf/a wf/b": 0,
    "load wf/a wf/b --json": 0,
    "load --executions list.txt": 0,
    "check wf/a": 0,
    "verify": 0,
    "rebuild": 0,
    "demo --max-wait 0": 0,
}
QUICK = {"--help", "--version", "load --frobnicate", "load --help"}  # import no dlt
ALWAYS = {("load wf/a wf/b", "<&- >&- 2>&-"), ("load wf/a wf/b", ">/dev/full"), ("load wf/a wf/b", "2>/dev/full")}


def cases() -> list[object]:
    return [
        pytest.param(
            arguments,
            streams,
            code,
            id=f"{arguments} {streams}",
            marks=() if arguments in QUICK or (arguments, streams) in ALWAYS else pytest.mark.campaign,
        )
        for arguments, code in CODES.items()
        for streams in STREAMS
    ]


def run(command: Command, arguments: str, streams: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", f"'{INSTALLED}' {arguments} {streams}"],
        cwd=command.directory,
        env=command.env(),
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


@pytest.mark.parametrize(("arguments", "streams", "code"), few_of(cases(), every=6))
def test_it_does_its_work_and_says_how_it_went(
    tmp_path: Path, sandbox: Sandbox, arguments: str, streams: str, code: int
) -> None:
    command = Command(tmp_path, sandbox)
    for name in "ab":
        serve(sandbox, name)
    (command.directory / "list.txt").write_text("\n".join(ids("ab")))
    if arguments in {"verify", "rebuild"}:
        assert command.run_here(*ids("ab"), "--quiet").returncode == 0

    done = run(command, arguments, streams)

    assert (done.returncode, "Traceback" in done.stderr, "Exception" in done.stderr) == (code, False, False), done
    if arguments.startswith("load wf") or "list.txt" in arguments:
        assert command.outcomes() == {"a": "completed", "b": "completed"}
    if code == 0 and streams in SHOWN:
        assert done.stdout
    if streams == ">/dev/full" and code == 0:
        assert done.stderr.splitlines()[-1] == "standard output: No space left on device"
    if "2>" not in streams and code:
        assert "--frobnicate" in done.stderr


def is_served(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_the_sandbox_serves_without_them(tmp_path: Path, streams: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = Command(tmp_path)
    process = subprocess.Popen(
        ["bash", "-c", f"exec '{INSTALLED}' sandbox --port {port} {streams}"], cwd=command.directory, env=command.env()
    )
    try:
        until(lambda: is_served(port))
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG) == 0
    finally:
        process.kill()


def test_a_list_from_a_closed_standard_input_is_wrong_usage(tmp_path: Path, sandbox: Sandbox) -> None:
    done = run(Command(tmp_path, sandbox), "load --executions -", "<&-")
    assert (done.returncode, done.stderr) == (2, "further-source: standard input: not open\n")


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path, sandbox: Sandbox) -> None:
    """Else what a library writes to standard error would end in the database."""
    command = Command(tmp_path, sandbox)
    serve(sandbox, "a", after=None)
    process = subprocess.Popen(
        ["bash", "-c", f"exec '{INSTALLED}' load wf/a <&- >&- 2>&-"], cwd=command.directory, env=command.env()
    )
    try:
        until(lambda: sandbox.requests)
        assert [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)] == [os.devnull] * 3
    finally:
        process.kill()
        process.wait()
