"""Lists that are a query on a real database: on one beside the destination, and on the destination itself."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pandas
import pyarrow
import pytest
import sqlalchemy
from dlt.pipeline.exceptions import PipelineStepFailed

from further_source import further_executions, run_in_slices
from further_source.destination.listing import read_executions_of_destination
from further_source.exceptions import ConfigurationError, ManifestError
from further_source.executions import ExecutionId
from further_source.manifest import read_executions_query
from further_source.sandbox import Sandbox, cell
from tests.conftest import MakePipeline
from tests.support.loading import WORKFLOW, asked, records, serve_rows, source_of, tables
from tests.support.loading import query as query_of
from tests.support.slow import few_of

# A database beside the destination. Each gives a million rows in a process that does not grow by them.

PEAK = r"""
import re, sys
from further_source.manifest import read_executions_query

def peak():  # not the resource usage, which begins with that of the process this one was forked from
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read())[1]) // 1024

query, url = sys.argv[1:]
list(read_executions_query(query.replace("LIMIT 1000000", "LIMIT 1"), url))
before = peak()
print(sum(1 for _ in read_executions_query(query, url)), peak() - before)
"""
FLAT = 25  # MB: a million rows in memory at once are 50 and more
MILLION = {
    "postgresql": "SELECT 'wf' AS workflow_id, 'e-' || n AS execution_id "
    "FROM generate_series(1, 1000000) r(n) LIMIT 1000000",
    "mysql": "SELECT 'wf' AS workflow_id, concat('e-', seq) AS execution_id FROM seq_1_to_1000000 LIMIT 1000000",
    "duckdb": "SELECT 'wf' AS workflow_id, 'e-' || n AS execution_id FROM range(1000000) r(n) LIMIT 1000000",
}


def read(query: str, url: str) -> list[str]:
    return [str(execution) for execution in read_executions_query(query, url)]


def problem(query: str, url: str) -> str:
    with pytest.raises(ManifestError, match="^executions_query: ") as raised:
        read(query, url)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def plays(url: str, tables: str) -> None:
    """Executions are read from a table there, ids of the type UUID too, and nothing can be written."""
    first = uuid.uuid4()
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(tables)
        connection.exec_driver_sql(f"INSERT INTO own_list VALUES ('wf', '{first}', 1), ('wf', '{uuid.uuid4()}', 2)")
    engine.dispose()

    assert [*read_executions_query("SELECT * FROM own_list WHERE n = 1", url)] == [ExecutionId("wf", str(first))]
    assert "own_lists" in problem("SELECT * FROM own_lists", url)
    assert len(read("SELECT * FROM own_list WHERE workflow_id LIKE 'w%' AND ':n' <> '%(n)s'", url)) == 2


def grows_by(url: str, directory: Path) -> int:
    """MB that a million rows take, in a process of their own."""
    script = directory / "peak.py"  # DuckDB takes a process without a script for a terminal
    script.write_text(PEAK)
    query = MILLION[sqlalchemy.make_url(url).get_backend_name()]
    done = subprocess.run([sys.executable, str(script), query, url], capture_output=True, text=True, check=True)
    count, megabytes = map(int, done.stdout.split())
    assert count == 1_000_000
    return megabytes


def test_of_duckdb(tmp_path: Path) -> None:
    url = f"duckdb:///{tmp_path}/own.duckdb"
    plays(url, "CREATE TABLE own_list (workflow_id TEXT, execution_id UUID, n INTEGER)")

    with duckdb.connect(f"{tmp_path}/own.duckdb") as connection:  # nobody holds it
        assert connection.execute("SELECT count(*) FROM own_list").fetchall() == [(2,)]


@pytest.mark.slow
def test_a_million_rows_of_duckdb(tmp_path: Path) -> None:
    duckdb.connect(f"{tmp_path}/own.duckdb").close()

    assert grows_by(f"duckdb:///{tmp_path}/own.duckdb", tmp_path) < FLAT


@pytest.mark.slow
@pytest.mark.postgres
def test_of_postgresql(postgres_url: str, tmp_path: Path) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+psycopg2://")
    plays(url, "CREATE TABLE own_list (workflow_id TEXT, execution_id UUID, n INTEGER)")

    writes = "SELECT 'wf' AS workflow_id, lo_create(0)::text AS execution_id"
    assert "read-only transaction" in problem(writes, url)
    assert grows_by(url, tmp_path) < FLAT


@pytest.mark.slow
@pytest.mark.mariadb
def test_of_mariadb(mariadb_url: str, tmp_path: Path) -> None:
    url = mariadb_url.replace("/mysql", "/test_list")
    engine = sqlalchemy.create_engine(mariadb_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE DATABASE test_list")
        connection.exec_driver_sql("CREATE SEQUENCE test_list.numbers")
    engine.dispose()
    plays(url, "CREATE TABLE own_list (workflow_id VARCHAR(99), execution_id UUID, n INTEGER)")

    writes = "SELECT 'wf' AS workflow_id, CAST(nextval(numbers) AS CHAR) AS execution_id"
    assert "READ ONLY transaction" in problem(writes, url)
    assert grows_by(url, tmp_path) < FLAT


# The destination itself


def own_list(pipeline: dlt.Pipeline, count: int, schema: str = "own") -> None:
    """A table that others keep in the destination."""
    with pipeline.sql_client() as client:
        client.execute_sql(f"CREATE SCHEMA {schema}")
        client.execute_sql(f"CREATE TABLE {schema}.submitted (workflow_id VARCHAR(99), execution_id VARCHAR(99))")
        rows = ", ".join(f"('{WORKFLOW}', 'e{number}')" for number in range(count))
        client.execute_sql(f"INSERT INTO {schema}.submitted VALUES {rows}")


def test_the_destination_is_asked_as_the_run_begins(pipeline: dlt.Pipeline, sandbox: Sandbox) -> None:
    own_list(pipeline, 3)
    for number in range(4):
        serve_rows(sandbox, f"e{number}", {"n": cell(number, 1)})
    query = "SELECT * FROM own.submitted WHERE ':n' <> '%s' ORDER BY execution_id DESC"

    report = run_in_slices(pipeline, source_of(sandbox, ["e3", "e1"], executions_query=query, max_workers=1))
    assert report.listed == 4
    assert [record.workflow_execution_id for record in sandbox.requests if record.workflow_execution_id] == [
        "e3",
        "e1",
        "e2",
        "e0",
    ]
    pipeline.run(source_of(sandbox, (), executions_query=query))
    assert max(asked(sandbox).values()) == 1


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("SELECT * FROM nowhere", "nowhere"),
        ("INSERT INTO own.submitted VALUES ('wf', 'x')", "it writes"),
        ("SELECT 'wf' AS workflow_id, nextval('own.numbers') AS execution_id", "read-only"),
        ("SELECT execution_id FROM own.submitted", "no column workflow_id"),
    ],
)
def test_what_the_destination_gives_no_list_for_is_told_and_changes_nothing(
    pipeline: dlt.Pipeline, sandbox: Sandbox, query: str, named: str
) -> None:
    own_list(pipeline, 1)
    with pipeline.sql_client() as client:
        client.execute_sql("CREATE SEQUENCE own.numbers")

    with pytest.raises(PipelineStepFailed) as raised:
        run_in_slices(pipeline, source_of(sandbox, (), executions_query=query))

    assert isinstance(raised.value.exception.__cause__, ManifestError)
    assert named in str(raised.value.exception.__cause__)
    assert not sandbox.requests
    assert query_of(pipeline, "SELECT count(*) FROM own.submitted") == [(1,)]


@pytest.mark.slow
@pytest.mark.postgres
def test_postgresql_itself(postgres_url: str, make_pipeline: MakePipeline, sandbox: Sandbox) -> None:
    pipeline = make_pipeline(destination=dlt.destinations.postgres(postgres_url), dataset_name="own_list")
    own_list(pipeline, 1, "own_of_postgres")
    serve_rows(sandbox, "e0", {"n": cell(1, 1)})
    query = "SELECT workflow_id, execution_id AS id, execution_id FROM own_of_postgres.submitted;"
    assert run_in_slices(pipeline, source_of(sandbox, (), executions_query=query)).ended == {"completed": 1}

    writes = "SELECT 'wf' AS workflow_id, lo_create(0)::text AS execution_id"
    with pytest.raises(ManifestError, match="read-only transaction"):
        list(read_executions_of_destination(pipeline, writes))
    many = "SELECT 'wf' AS workflow_id, 'e' || n AS execution_id FROM generate_series(1, 25000) r(n)"
    assert len({*read_executions_of_destination(pipeline, many)}) == 25_000


@pytest.mark.slow
@pytest.mark.mariadb
def test_mariadb_itself(mariadb_url: str, make_pipeline: MakePipeline, sandbox: Sandbox) -> None:
    pipeline = make_pipeline(destination=dlt.destinations.sqlalchemy(mariadb_url), dataset_name="own_list")
    own_list(pipeline, 1, "own_of_mariadb")
    serve_rows(sandbox, "e0", {"n": cell(1, 1)})
    query = "SELECT * FROM own_of_mariadb.submitted WHERE workflow_id LIKE 'w%' AND ':n' <> '12:30:00'"
    assert run_in_slices(pipeline, source_of(sandbox, (), executions_query=query)).ended == {"completed": 1}

    with pipeline.sql_client() as client:
        client.execute_sql("CREATE SEQUENCE own_of_mariadb.numbers")
    writes = "SELECT 'wf' AS workflow_id, CAST(nextval(own_of_mariadb.numbers) AS CHAR) AS execution_id"
    with pytest.raises(ManifestError, match="READ ONLY transaction"):
        list(read_executions_of_destination(pipeline, writes))
    many = "SELECT 'wf' AS workflow_id, concat('e', seq) AS execution_id FROM mysql.seq_1_to_25000"
    assert len({*read_executions_of_destination(pipeline, many)}) == 25_000


def test_a_destination_without_sql_is_wrong_configuration(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline = make_pipeline(destination=dlt.destinations.filesystem(str(tmp_path / "lake")))

    with pytest.raises(ConfigurationError, match="filesystem knows no SQL; configure executions_database"):
        list(read_executions_of_destination(pipeline, "SELECT 1"))


# A resource of dlt's


@dlt.resource
def submitted() -> Iterator[Any]:
    """What the resources of dlt's yield: records, pages of them, and tables."""
    yield {"workflow_id": WORKFLOW, "execution_id": "e0", "by": "somebody"}
    yield [{"workflow_id": WORKFLOW, "execution_id": name} for name in ("e1", "e2")]
    yield pyarrow.table({"workflow_id": [WORKFLOW], "execution_id": ["e3"]})
    yield pandas.DataFrame({"workflow_id": [WORKFLOW], "execution_id": ["e4"]})


@pytest.mark.parametrize("run", few_of([run_in_slices, lambda pipeline, source: pipeline.run(source)]))
def test_a_resource_is_read_once_as_the_run_begins_and_polled_as_one_list(
    pipeline: dlt.Pipeline, sandbox: Sandbox, run: Callable[[dlt.Pipeline, Any], object]
) -> None:
    for number in range(5):
        serve_rows(sandbox, f"e{number}", {"n": cell(number, 1)})
    hurry: dict[str, Any] = {"base_url": sandbox.base_url, "access_token": sandbox.issue_token(), "max_wait": 0}

    run(pipeline, submitted() | further_executions(max_requests_per_second=1000, **hurry))

    assert asked(sandbox) == {f"e{number}": 1 for number in range(5)}
    assert tables(pipeline) == {"executions", "steps", "cells", "rows_extract"}
    assert len(records(pipeline, "cells")) == 5
    run(pipeline, source_of(sandbox, submitted()))
    assert max(asked(sandbox).values()) == 1
    run(pipeline, [[WORKFLOW, "e0"], f"{WORKFLOW}/e1"] | further_executions(reload=True, **hurry))
    assert asked(sandbox) == {"e0": 2, "e1": 2, "e2": 1, "e3": 1, "e4": 1}


def test_an_item_that_is_no_execution_is_told_by_its_position(pipeline: dlt.Pipeline, sandbox: Sandbox) -> None:
    bad = dlt.resource([{"workflow_id": WORKFLOW, "execution_id": "a"}, {"workflow_id": WORKFLOW}], name="bad")
    hurry: dict[str, Any] = {"base_url": sandbox.base_url, "access_token": sandbox.issue_token()}

    with pytest.raises(PipelineStepFailed, match=r"executions\[1\]: no key execution_id"):
        run_in_slices(pipeline, bad | further_executions(**hurry))

    assert not sandbox.requests
