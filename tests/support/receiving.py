"""The real receiver, as a process on loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from tests.support.command import HANG

KEY = {"X-Key": "correct horse"}
BY_KEY = ("--api-key-header", "X-Key", "--api-key", "correct horse")
COMMAND = (
    sys.executable,
    "-c",
    "from further_source.command.main import further_source_command; further_source_command()",
    "receive",
)


class Receiver:
    """`further-source receive` with an inbox of its own."""

    def __init__(self, inbox: Path, *options: str, preexec: Callable[[], None] | None = None) -> None:
        self.inbox = inbox
        self.process = subprocess.Popen(
            [*COMMAND, "--inbox", str(inbox), "--port", "0", *(options or BY_KEY)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={name: value for name, value in os.environ.items() if not name.startswith("FURTHER_")},
            preexec_fn=preexec,
        )
        assert self.process.stdout is not None
        welcome = self.process.stdout.readline()
        assert welcome, self.process.communicate()[1]
        self.url = welcome.split(" on ")[1].split()[0]
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def post(self, body: Any = b"", headers: dict[str, str] | None = None, path: str = "") -> requests.Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return requests.post(self.url + path, data=data, headers=KEY if headers is None else headers, timeout=HANG)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=HANG)

    def metric(self, name: str) -> float:
        [value] = [line.rpartition(" ")[2] for line in self.get("metrics").text.splitlines() if line.startswith(name)]
        return float(value)

    def stop(self) -> tuple[int, str]:
        """Asks it to stop; the exit code and what it told."""
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=HANG)
        return self.process.returncode, err


def waits(inbox: Path) -> list[Path]:
    """The files that wait to be loaded."""
    return sorted(file for file in inbox.iterdir() if file.is_file() and not file.name.startswith("."))


def quarantined(inbox: Path) -> dict[bytes, str]:
    """What is in quarantine, with its reason."""
    names = [file for file in (inbox / "quarantine").iterdir() if not file.name.endswith(".reason.txt")]
    return {file.read_bytes(): Path(f"{file}.reason.txt").read_text(encoding="utf-8").strip() for file in names}


def leftovers(inbox: Path) -> list[str]:
    """What is not whole."""
    return [file.name for file in inbox.iterdir() if file.name.endswith(".part")]


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline, "it never comes"
        time.sleep(0.02)
