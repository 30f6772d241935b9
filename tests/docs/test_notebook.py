"""The notebook in examples/, run by the real marimo in an environment of its own, on what was really loaded."""

import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
import requests

from tests.support.command import HANG, Command, loaded
from tests.support.documents import PROJECT, Document

UV = shutil.which("uv")
SECONDS = 300  # the environment may have to be made
pytestmark = pytest.mark.skipif(UV is None, reason="needs uv")


def start(
    demo: Command, verb: str, *options: str, of: str = "--file further_demo.duckdb", **settings: str
) -> "subprocess.Popen[str]":
    """The command of the documentation, with another verb of marimo's, and to open something else."""
    [shown] = [
        block.code.strip() for block in Document(PROJECT / "docs" / "report.md").blocks("sh") if "marimo" in block.code
    ]
    command = shown.replace("--file further_demo.duckdb", of).split()
    at, notebook = command.index("run", command.index("marimo")), "examples/marimo/further.py"
    command[at : at + 1] = [verb, *options]
    command[command.index(notebook)] = str(PROJECT / notebook)
    # The environment is as it is: these tests run in it.
    command[:2] = [str(UV), "run", "--no-sync", "--project", str(PROJECT)]
    env = {**os.environ, "DLT_DATA_DIR": str(demo.data_dir), **settings}  # uv's own settings too
    return subprocess.Popen(
        command, cwd=demo.directory, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )


def exported(demo: Command, **opened: str) -> tuple[int, str, str]:
    """The notebook run from top to bottom: exit code, what it said, and the page."""
    out = demo.directory / "notebook.html"
    with start(demo, "export", "html", "--no-include-code", "-o", str(out), **opened) as process:
        said, _ = process.communicate(timeout=SECONDS)
    return process.returncode, said, out.read_text(encoding="utf-8") if out.exists() else ""


def asked(demo: Command, query: str) -> Any:
    with duckdb.connect(str(demo.directory / "further_demo.duckdb"), read_only=True) as connection:
        return connection.sql(query).fetchall()


def through(demo: Command, threshold: float) -> str:
    [(through, cells)] = asked(
        demo, f"SELECT count(*) FILTER (WHERE confidence >= {threshold}), count(*) FROM further_data.cells"
    )
    return f"{through:,} of {cells:,}"


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_sql_says(demo: Command) -> None:
    before = (demo.directory / "further_demo.duckdb").read_bytes()

    code, said, page = exported(demo)

    assert code == 0, said
    assert through(demo, 0.8) in page
    [(worst,)] = asked(demo, "SELECT min(confidence) FROM further_data.cells")
    assert f"{worst}" in page
    assert "The review queue: cells of low confidence, the worst first." in page  # of docs/queries.md
    assert (demo.directory / "further_demo.duckdb").read_bytes() == before


@pytest.mark.slow
def test_the_notebook_opens_another_destination(demo: Command, postgres_url: str) -> None:
    credentials = {"DESTINATION__POSTGRES__CREDENTIALS": postgres_url}
    dataset = f"notebook_{os.getpid()}"
    demo.environment.update(credentials)
    loaded(demo.run("--demo", "--quiet", "--destination", "postgres", "--dataset", dataset, "--max-wait", "0"))
    try:
        code, said, page = exported(demo, of=f"--destination postgres --dataset {dataset}", **credentials)
    finally:
        with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP SCHEMA {dataset} CASCADE")

    assert code == 0, said
    assert "of cells go straight through" in page


@pytest.mark.slow
def test_the_notebook_makes_no_file_where_there_is_none(demo: Command) -> None:
    code, said, page = exported(demo, of="--file none.duckdb")

    assert "There is no file" in page, (code, said)
    assert not (demo.directory / "none.duckdb").exists()


@pytest.fixture
def served(demo: Command) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start(demo, "run", "--headless", "--no-token", "--host", "127.0.0.1", "--port", str(port))
    try:
        ends = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < ends:
            try:
                requests.get(f"http://127.0.0.1:{port}/", timeout=HANG)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.communicate(timeout=HANG)


@pytest.mark.browser
@pytest.mark.skipif(sys.platform == "win32", reason="Chromium is where Debian has it")
@pytest.mark.filterwarnings("default")
def test_whoever_moves_the_threshold_sees_what_goes_through(demo: Command, served: str, tmp_path: Path) -> None:
    with importlib.import_module("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1800})
        page.set_default_timeout(HANG * 1000)
        page.goto(served)
        page.get_by_text(through(demo, 0.8), exact=True).wait_for()
        number = page.locator("marimo-slider input").first
        number.fill("0.95")
        number.press("Enter")
        page.get_by_text(through(demo, 0.95), exact=True).wait_for()
        assert page.locator("marimo-callout-output").count() == 0
        browser.close()
