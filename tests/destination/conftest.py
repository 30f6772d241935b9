"""Servers of destinations, each started by the first test that wants it, and skipped where it is not installed."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SECONDS = 60.0


@contextmanager
def served(command: list[str], is_up: Callable[[], bool], log: Path, **environment: str) -> Iterator[None]:
    """Runs a server until its tests are over; fails with what it wrote if it does not come up."""
    env = {**os.environ, **environment}
    with log.open("wb") as written, subprocess.Popen(command, stdout=written, stderr=written, env=env) as server:
        try:
            deadline = time.monotonic() + SECONDS
            while not is_up():
                assert server.poll() is None, log.read_text(errors="replace")[-2_000:]
                assert time.monotonic() < deadline, f"{command[0]} does not come up"
                time.sleep(0.05)
            yield
        finally:
            server.kill()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def answers(port: int) -> Callable[[], bool]:
    def is_up() -> bool:
        with socket.socket() as client:
            client.settimeout(1)
            return client.connect_ex(("127.0.0.1", port)) == 0

    return is_up


def installed(program: str, how: str) -> str:
    """The path of a program; the test is skipped where it is missing."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed ({how})")
    return found


@pytest.fixture(scope="session")
def mariadb_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, where anybody is root."""
    server = installed("mariadbd", "apt install mariadb-server")
    install = installed("mariadb-install-db", "apt install mariadb-server")
    directory, port = tmp_path_factory.mktemp("mariadb"), free_port()
    data = [f"--datadir={directory}/data", *(["--user=root"] if os.geteuid() == 0 else [])]
    made = [install, "--no-defaults", *data, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(made, check=True, capture_output=True)
    options = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={directory}/socket"]
    with served([server, "--no-defaults", *data, *options], answers(port), directory / "log"):
        yield f"mysql+pymysql://root@127.0.0.1:{port}/mysql"
