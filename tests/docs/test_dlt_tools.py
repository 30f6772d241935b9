"""dlt's own command line, as docs/dlt-tools.md shows it, on a demo that was really loaded."""

import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.command import HANG, Command, loaded, until
from tests.support.documents import PROJECT, Document
from tests.support.slow import few_of

TOOLS = Document(PROJECT / "docs" / "dlt-tools.md")
UV = r"uv run (?:--with \S+ )*dlt "
COMMANDS = [re.sub(UV, "", block.code.strip()) for block in TOOLS.blocks("sh")]


def shown() -> dict[str, str]:
    """The output by command."""
    blocks = sorted(TOOLS.blocks("sh") + TOOLS.blocks("output"), key=lambda block: block.line)
    following = pairwise(blocks)
    return {re.sub(UV, "", one.code.strip()): two.code for one, two in following if two.language == "output"}


def run(demo: Command, arguments: str) -> "subprocess.CompletedProcess[str]":
    dlt = Path(sys.executable).with_name("dlt.exe" if os.name == "nt" else "dlt")
    return subprocess.run(
        [dlt, *shlex.split(arguments)],
        cwd=demo.directory,
        env={**demo.env(), "RUNTIME__DLTHUB_TELEMETRY": "false", "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=HANG,
    )


def test_the_page_shows_what_this_tests() -> None:
    verbs = {command.split()[-1] for command in COMMANDS}
    assert verbs == {
        "--list-pipelines", "info", "trace", "load-package", "failed-jobs", "abort-packages", "schema", "show"
    }  # fmt: skip
    assert {command.split()[-1] for command in shown()} == verbs - {"--list-pipelines"}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", few_of(COMMANDS, every=3), ids=lambda arguments: arguments.split()[-1])
def test_a_command_says_what_is_shown(demo: Command, arguments: str) -> None:
    if arguments.endswith(" show") and importlib.util.find_spec("marimo"):
        pytest.skip("the dashboard is installed, and would open a browser")

    done = run(demo, arguments)

    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    for line in shown().get(arguments, "further_demo").splitlines():
        assert line.strip() in said, line


@pytest.mark.slow
def test_a_trace_masks_what_is_secret(demo: Command) -> None:
    demo.settings = {
        "client_id": "an-id-to-hide",
        "client_secret": "a-secret-to-hide",
        "base_url": "http://127.0.0.1:9",
    }
    loaded(demo.run("--executions", "-", "--quiet", stdin=""))

    done = run(demo, "-v pipeline further trace")

    assert done.returncode == 0, done.stderr
    assert "client_secret" in done.stdout
    assert "to-hide" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt" or shutil.which("uv") is None, reason="uv and signals of POSIX")
def test_the_dashboard_opens_with_the_packages_that_are_shown(demo: Command, tmp_path: Path) -> None:
    """The page's command as it stands, started, looked at and stopped; `BROWSER` is a program that opens nothing."""
    [shown_command] = [block.code.strip() for block in TOOLS.blocks("sh") if block.code.strip().endswith(" show")]
    uv, run_it, *arguments = shlex.split(shown_command)
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True).stdout.strip()
    packages = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_"))}
    output = tmp_path / "output"
    with (
        output.open("wb") as written,
        subprocess.Popen(
            [uv, run_it, "--isolated", "--project", str(PROJECT), *arguments],
            cwd=demo.directory,
            env={**demo.env(), **packages, "UV_CACHE_DIR": cache, "BROWSER": "true"},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            text=True,
            start_new_session=True,
        ) as dashboard,
    ):
        try:
            until(lambda: b"URL: " in output.read_bytes(), dashboard)
            [url] = re.findall(r"URL: (http://\S+)", output.read_text(encoding="utf-8"))
            until(lambda: _page(url), dashboard)
            assert b"<marimo-filename" in _page(url)
        finally:
            os.killpg(dashboard.pid, signal.SIGTERM)
        dashboard.wait(HANG)
    assert "Traceback" not in output.read_text(encoding="utf-8")


def _page(url: str) -> bytes:
    """The page behind a URL if it answers with 200; nothing while nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=HANG) as answer:  # noqa: S310  of this machine
            return bytes(answer.read()) if answer.status == 200 else b""
    except urllib.error.URLError as error:
        assert isinstance(error.reason, ConnectionRefusedError)
        return b""
