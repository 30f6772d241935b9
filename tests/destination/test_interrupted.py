"""Loads that are killed at each of their steps, or stand still there while another one loads."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pytest

from further_source import run_in_slices
from further_source.sandbox import Sandbox
from tests.support.loading import WORKFLOW, cells_of, serve_rows, source_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks, and signals of POSIX")
PROJECT = Path(__file__).parents[2]
LAKES = {"delta", "iceberg"}
APPENDED = {"steps", "cells", "rows_extract"}
PIECES = 16
"""In which all steps of a load are killed, for each takes some minutes."""


@pytest.fixture
def base_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Of a PostgreSQL server with an empty database `base`; the format of tables in a lake; None for DuckDB."""
    if request.param != "postgres":
        yield None if request.param == "duckdb" else request.param
        return
    url: str = request.getfixturevalue("postgres_url")
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE base")
            yield url
            cursor.execute("DROP DATABASE IF EXISTS copy WITH (FORCE)")
            cursor.execute("DROP DATABASE base WITH (FORCE)")


def base_pipeline(directory: Path, url: str | None) -> dlt.Pipeline:
    return dlt.pipeline(
        "further",
        pipelines_dir=str(directory / "pipelines"),
        destination=dlt.destinations.duckdb(str(directory / "further.duckdb"))
        if url is None
        else dlt.destinations.filesystem(str(directory / "copy" / "lake"))
        if url in LAKES
        else dlt.destinations.postgres(url.replace("/postgres?", "/base?")),
        dataset_name="further_data",
    )


def prepare(what: str, directory: Path, url: str | None, sandbox: Sandbox) -> None:
    """Makes the state that each load begins with."""
    serve_rows(sandbox, "a", cells_of(x="1"), cells_of(x="2", y=3))
    serve_rows(sandbox, "b", cells_of(x="4"))
    table_format: Any = url if url in LAKES else None
    pipeline = base_pipeline(directory, url)
    if what == "first package":
        others = dlt.resource([{"n": 1}, {"n": 2}], name="others")
        pipeline.extract([source_of(sandbox, ["a", "b"]), others], table_format=table_format)
        pipeline.normalize()
        if url is None:
            with pipeline.sql_client() as client:
                client.execute_sql("SELECT 1")  # makes the file
        return
    run_in_slices(pipeline, source_of(sandbox, ["a", "b"]), table_format=table_format)
    serve_rows(sandbox, "a", cells_of(x="5"))
    serve_rows(sandbox, "c", cells_of(x="6", z=True), cells_of(x="7"))
    if what == "package that replaces":
        pipeline = base_pipeline(directory, url)
        pipeline.extract(source_of(sandbox, ["a", "c"], reload=True), table_format=table_format)
        pipeline.normalize()


def campaign(
    directory: Path,
    url: str | None,
    sandbox: Sandbox,
    *,
    every: int = 1,
    first: int = 0,
    inserts_into: str | None = None,
    following: int = 0,
    elsewhere: bool = False,
) -> dict[str, Any]:
    """Kills a load at one of `every` so many steps; or at the first that inserts into a table, and some that follow.

    Args:
        first: How many steps come before the first at which it is killed.
    """
    options = {
        "directory": str(directory),
        "url": None if url in LAKES else url,
        "lake": url if url in LAKES else None,
        "every": every,
        "first": first,
        "inserts_into": inserts_into,
        "following": following,
        "elsewhere": elsewhere,
        "source": arguments(sandbox, "abc"),
    }
    if url in LAKES:
        (directory / "copy" / "lake").mkdir(parents=True, exist_ok=True)
        shutil.copytree(directory / "copy" / "lake", directory / "lake")
    return run("campaign", options)


def arguments(sandbox: Sandbox, names: str) -> dict[str, Any]:
    """Those of `further_source`."""
    return {
        "executions": [f"{WORKFLOW}/{name}" for name in names],
        "base_url": sandbox.base_url,
        "access_token": sandbox.issue_token(),
        "initial_interval": 0.01,
        "max_requests_per_second": 1000,
        "max_wait": 0,
    }


def run(module: str, options: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.support.{module}", json.dumps(options)],
        cwd=PROJECT,
        env={**os.environ, "LOAD__WORKERS": "1", "DATA_WRITER__DISABLE_COMPRESSION": "true"},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["failures"] == [], f"{result}\n{done.stderr[-20000:]}"
    return result


@pytest.mark.parametrize(
    ("every", "first"),
    [
        (23, 0),
        *(pytest.param(PIECES, first, marks=pytest.mark.campaign) for first in range(PIECES)),
    ],
)
@pytest.mark.slow
@pytest.mark.timeout(3600)  # seconds
@pytest.mark.parametrize("base_url", ["duckdb", "postgres", "delta", "iceberg"], indirect=True)
@pytest.mark.parametrize("what", ["first package", "package that replaces", "nothing pending"])
def test_a_kill_at_any_step_leaves_every_row_once(
    what: str, base_url: str | None, every: int, first: int, tmp_path: Path, sandbox: Sandbox
) -> None:
    prepare(what, tmp_path, base_url, sandbox)
    serve_rows(sandbox, "c", cells_of(x="6", z=True), cells_of(x="7"))
    if every != PIECES and base_url in LAKES:
        every *= 4  # loads into a lake take several times as long
    result = campaign(tmp_path, base_url, sandbox, every=every, first=first)
    assert result["steps"] > 100 / every
    # Threads that poll take a step more or less.
    assert result["killed"] >= result["steps"] * (0.9 if what == "nothing pending" else 1)
    assert set(result["appends_to"]) >= APPENDED or what != "nothing pending" or base_url in LAKES


@pytest.mark.slow
@pytest.mark.timeout(3600)  # seconds
@pytest.mark.parametrize("base_url", ["duckdb", "postgres"], indirect=True)
def test_another_machine_that_loads_after_a_kill_and_then_the_one_that_was_killed(
    base_url: str | None, tmp_path: Path, sandbox: Sandbox
) -> None:
    """What was appended is found in the destination alone, and what waits where it was killed comes late."""
    prepare("nothing pending", tmp_path, base_url, sandbox)
    result = campaign(tmp_path, base_url, sandbox, elsewhere=True)
    assert set(result["appends_to"]) >= APPENDED
    assert result["killed"] >= result["steps"] * 0.9 > 8


@pytest.mark.slow
@pytest.mark.parametrize("base_url", ["postgres"], indirect=True)
@pytest.mark.parametrize("table", ["_dlt_pipeline_state", pytest.param("others", marks=pytest.mark.slow)])
def test_a_kill_between_what_is_appended_and_the_note_of_it(
    table: str, base_url: str | None, tmp_path: Path, sandbox: Sandbox
) -> None:
    prepare("first package", tmp_path, base_url, sandbox)
    serve_rows(sandbox, "c", cells_of(x="6", z=True), cells_of(x="7"))
    result = campaign(tmp_path, base_url, sandbox, inserts_into=table, following=2)
    assert result["killed"] == result["steps"] == 3


@pytest.mark.parametrize(
    ("touching", "every", "first"),
    [
        ("further_data_staging", 5, 0),
        *(pytest.param("", PIECES, first, marks=pytest.mark.campaign) for first in range(PIECES)),
    ],
)
@pytest.mark.slow
@pytest.mark.timeout(3600)  # seconds
@pytest.mark.parametrize("base_url", ["duckdb", "postgres"], indirect=True)
@pytest.mark.parametrize("what", ["package that replaces", "nothing pending"])
def test_a_load_that_stands_still_at_any_step_meets_no_other_in_the_staging_tables(
    what: str,
    base_url: str | None,
    touching: str,
    every: int,
    first: int,
    tmp_path: Path,
    sandbox: Sandbox,
) -> None:
    """All loads share the staging dataset, and while one has rows there another one goes on."""
    prepare(what, tmp_path, base_url, sandbox)
    serve_rows(sandbox, "d", cells_of(x="8"))
    loads = {"first_load": arguments(sandbox, "abc"), "second_load": arguments(sandbox, "abcd")}
    options = {"directory": str(tmp_path), "url": base_url, "touching": touching, "every": every, "first": first}
    result = run("standing_still", options | loads)
    assert sum(result["ends"].values()) >= result["steps"] * 0.9 > 0
