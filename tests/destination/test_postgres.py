"""Loads into a real PostgreSQL, which the tests start from a wheel and stop again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pytest

from further_source import load_pending, run_in_slices
from further_source.sandbox import Sandbox, cell, completed, error, failed, running, step
from tests.support.loading import (
    WORKFLOW,
    asked,
    cells_of,
    columns,
    query,
    records,
    serve_rows,
    serve_steps,
    source_of,
    tables,
    wide,
)

LOAD = Path(__file__).parents[2] / "pipelines" / "load.py"
SECONDS = 60.0


@pytest.fixture
def dataset(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[str]:
    """A dataset that no other test has; dropped when its test is over."""
    name = f"further_{abs(hash(request.node.nodeid)):x}"
    yield name
    connection = psycopg2.connect(postgres_url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '30s'; DROP SCHEMA IF EXISTS {name}, {name}_staging CASCADE")
    finally:
        connection.close()


class Postgres:
    """One dataset there, and the pipeline into it."""

    def __init__(self, url: str, dataset: str, directory: Path) -> None:
        self.url = url
        self.dataset = dataset
        self.pipelines_dir = directory / "pipelines"

    @property
    def pipeline(self) -> dlt.Pipeline:
        """Made anew, so that it meets what it loaded before."""
        return dlt.pipeline(
            "further",
            pipelines_dir=str(self.pipelines_dir),
            destination=dlt.destinations.postgres(self.url),
            dataset_name=self.dataset,
        )

    def load(self, sandbox: Sandbox, executions: Any, **arguments: Any) -> Any:
        return run_in_slices(self.pipeline, source_of(sandbox, executions, **arguments))

    def forget(self) -> None:
        """Loses the pipeline's working directory."""
        shutil.rmtree(self.pipelines_dir)


@pytest.fixture
def postgres(postgres_url: str, dataset: str, tmp_path: Path) -> Postgres:
    return Postgres(postgres_url, dataset, tmp_path)


def indexes(pipeline: dlt.Pipeline) -> list[tuple[Any, ...]]:
    """The tables of the dataset with an index on both ids of executions, a line for each index."""
    sql = "SELECT tablename FROM pg_indexes WHERE schemaname = %s AND indexdef LIKE '%%(workflow_id, %%execution_id)'"
    with pipeline.sql_client() as client, client.execute_query(sql, pipeline.dataset_name) as cursor:
        return sorted(cursor.fetchall())


def test_loads_replace_by_an_index_of_which_the_planner_knows_that_it_is_worth_it(
    sandbox: Sandbox, postgres: Postgres
) -> None:
    serve_rows(sandbox, "a", cells_of(x="1"))
    serve_rows(sandbox, "b", cells_of(x="2"), step_name="Review")
    postgres.load(sandbox, ["a"])
    first = [("cells",), ("executions",), ("rows_extract",), ("steps",)]
    assert indexes(postgres.pipeline) == first
    postgres.load(sandbox, ["a", "b"])
    both = sorted([*first, ("rows_review",)])
    assert indexes(postgres.pipeline) == both

    with postgres.pipeline.sql_client() as client:  # as an earlier version left it, but for one that somebody made
        for table in ("steps", "rows_extract", "executions"):
            client.execute_sql(f"DROP INDEX {postgres.dataset}.{table}_workflow_id_workflow_execution_id_idx")
        client.execute_sql("CREATE INDEX executions_by_id ON executions (workflow_id, workflow_execution_id)")
    postgres.load(sandbox, ["a", "b"], reload=True)
    assert indexes(postgres.pipeline) == both
    staging = f"schemaname = '{postgres.dataset}_staging' AND attname = 'workflow_id'"
    counted = query(postgres.pipeline, f"SELECT tablename FROM pg_stats WHERE {staging}")
    assert sorted(counted) == both


def test_who_may_not_make_indexes_loads_without(sandbox: Sandbox, postgres: Postgres, log: list[str]) -> None:
    serve_rows(sandbox, "a", cells_of(x="1"))
    serve_rows(sandbox, "b", cells_of(x="2"))
    postgres.load(sandbox, ["a"])
    other = f"loader_{postgres.dataset}"
    with postgres.pipeline.sql_client() as client:
        client.execute_sql(f"DROP INDEX {postgres.dataset}.cells_workflow_id_workflow_execution_id_idx")
        client.execute_sql(f"CREATE ROLE {other} LOGIN")
        for schema in (postgres.dataset, f"{postgres.dataset}_staging"):
            client.execute_sql(f"GRANT ALL ON SCHEMA {schema} TO {other}")
            client.execute_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {other}")
    postgres.url = postgres.url.replace("//postgres:", f"//{other}:")
    postgres.load(sandbox, ["a", "b"])
    assert [
        value for _, value in sorted(query(postgres.pipeline, "SELECT workflow_execution_id, value FROM cells"))
    ] == ["1", "2"]
    assert ("cells",) not in indexes(postgres.pipeline)
    assert log == []


def test_every_column_of_every_table(sandbox: Sandbox, postgres: Postgres, log: list[str]) -> None:
    rows: list[Any] = [
        {"policy_number": cell("02139", 0.97), "premium": cell(1250.5, 1), "active": cell(True, None)},
        {"policy_number": cell(None, 0.1), "tags": {"value": ["a", 1], "page": 3}, "n": cell(12345678901234567890, 0)},
        {},
        "loose",
    ]
    answer = completed(WORKFLOW, "ex", [step("Extract Policy Details", rows, schema={"a": 1}, metadata={})])
    sandbox.serve(WORKFLOW, "ex", {**answer, "metadata": {"external_id": "INV-1", "pages": 3, "seen": [1, None]}})
    sandbox.serve(WORKFLOW, "gone", error(404))
    sandbox.serve(WORKFLOW, "bad", failed(WORKFLOW, "bad"))
    report = postgres.load(sandbox, ["ex", "gone", "bad"])

    assert log == []
    assert report.ended == {"completed": 1, "failed": 1, "not_found": 1}
    pipeline = postgres.pipeline
    assert tables(pipeline) == {"executions", "steps", "cells", "rows_extract_policy_details"}
    assert columns(pipeline, "executions") == {
        "workflow_id": "character varying",
        "workflow_execution_id": "character varying",
        "status": "character varying",
        "metadata__external_id": "character varying",
        "poll_outcome": "character varying",
        "poll_error": "character varying",
        "step_count": "bigint",
        "cell_count": "bigint",
        "poll_count": "bigint",
        "poll_first_at": "timestamp with time zone",
        "poll_last_at": "timestamp with time zone",
        "_deleted": "boolean",
        "metadata__pages": "bigint",
        "metadata__seen": "character varying",
        "_dlt_load_id": "character varying",
        "_dlt_id": "character varying",
    }
    executions = records(pipeline, "executions", "workflow_id", "poll_first_at", "poll_last_at")
    assert executions == [
        {
            "workflow_execution_id": name,
            "status": status,
            "metadata__external_id": external_id,
            "poll_outcome": outcome,
            "poll_error": poll_error,
            "step_count": step_count,
            "cell_count": cell_count,
            "poll_count": 1,
            "metadata__pages": pages,
            "metadata__seen": seen,
        }
        for name, status, external_id, outcome, poll_error, step_count, cell_count, pages, seen in [
            ("bad", "failed", None, "failed", None, 0, 0, None, None),
            ("ex", "completed", "INV-1", "completed", None, 1, 7, 3, "[1,null]"),
            ("gone", None, None, "not_found", "404: Not Found", None, None, None, None),
        ]
    ]
    keys = {"workflow_id": WORKFLOW, "workflow_execution_id": "ex", "step_index": 0}
    assert records(pipeline, "steps") == [
        {**keys, "step_name": "Extract Policy Details", "row_count": 4, "schema": '{"a":1}', "metadata": "{}"}
    ]
    cells = sorted(
        query(
            pipeline,
            "SELECT row_index, field, value, value_type, value_number, confidence, extra FROM cells "
            "WHERE step_index = 0 AND step_name = 'Extract Policy Details'",
        )
    )
    assert cells == [
        (0, "active", "true", "boolean", None, None, None),
        (0, "policy_number", "02139", "string", None, 0.97, None),
        (0, "premium", "1250.5", "number", 1250.5, 1.0, None),
        (1, "n", "12345678901234567890", "number", 12345678901234567890.0, 0.0, None),
        (1, "policy_number", None, "null", None, 0.1, None),
        (1, "tags", '["a",1]', "array", None, None, '{"page":3}'),
        (3, "_row", "loose", "string", None, None, None),
    ]
    assert wide(pipeline, "rows_extract_policy_details") == [
        {"workflow_execution_id": "ex", "policy_number": "02139", "premium": 1250.5, "active": True},
        {"workflow_execution_id": "ex", "tags": '["a",1]', "n": 12345678901234567890.0},
        {"workflow_execution_id": "ex"},
        {"workflow_execution_id": "ex", "_row": "loose"},
    ]


def test_what_ended_is_not_asked_again_even_after_the_working_directory_is_lost(
    sandbox: Sandbox, postgres: Postgres
) -> None:
    serve_rows(sandbox, "a", cells_of(amount=1))
    sandbox.add(WORKFLOW, "b", running(WORKFLOW, "b"), failed(WORKFLOW, "b"))
    postgres.load(sandbox, ["a", "b"])
    postgres.load(sandbox, ["a", "b"])
    postgres.forget()
    serve_rows(sandbox, "c", cells_of(amount=3))
    report = postgres.load(sandbox, ["a", "b", "c"])

    assert asked(sandbox) == {"a": 1, "b": 2, "c": 1}
    assert report.earlier == {"completed": 1, "failed": 1}
    outcomes = query(postgres.pipeline, "SELECT workflow_execution_id, poll_outcome FROM executions ORDER BY 1")
    assert outcomes == [("a", "completed"), ("b", "failed"), ("c", "completed")]
    assert [row["amount"] for row in wide(postgres.pipeline, "rows_extract")] == [1.0, 3.0]


@pytest.mark.slow
def test_a_list_too_long_to_be_asked_for_by_id(sandbox: Sandbox, postgres: Postgres) -> None:
    serve_rows(sandbox, "a", cells_of(amount=1))
    postgres.load(sandbox, ["a"])
    report = postgres.load(sandbox, ["a", *(f"none-{number}" for number in range(1_001))])

    assert report.earlier == {"completed": 1}
    assert report.ended == {"not_found": 1_001}
    assert asked(sandbox)["a"] == 1


def test_a_reload_takes_away_rows_cells_and_steps_that_are_no_longer_there(
    sandbox: Sandbox, postgres: Postgres
) -> None:
    serve_rows(sandbox, "other", cells_of(a=0))
    serve_steps(sandbox, "ex", step("One", [cells_of(a=1), cells_of(a=2)]), step("Two", [cells_of(b=3)]))
    postgres.load(sandbox, ["ex", "other"])
    serve_steps(sandbox, "ex", step("One", [cells_of(a=5)]))
    postgres.load(sandbox, ["ex", "other"], reload=True)

    assert wide(postgres.pipeline, "rows_one") == [{"workflow_execution_id": "ex", "a": 5.0}]
    assert wide(postgres.pipeline, "rows_two") == []
    assert counts(postgres.pipeline) == {"ex": (1, 1, 1), "other": (1, 1, 1)}

    serve_steps(sandbox, "ex")
    postgres.load(sandbox, ["ex"], reload=True)

    assert wide(postgres.pipeline, "rows_one") == []
    assert counts(postgres.pipeline) == {"ex": (1, 0, 0), "other": (1, 1, 1)}


def counts(pipeline: dlt.Pipeline) -> dict[str, tuple[int, ...]]:
    """How many executions, steps and cells there are of each execution."""
    selected = ", ".join(
        f"(SELECT count(*) FROM {table} t WHERE t.workflow_execution_id = e.workflow_execution_id)"
        for table in ("executions", "steps", "cells")
    )
    rows = query(pipeline, f"SELECT workflow_execution_id, {selected} FROM executions e")
    return {name: tuple(numbers) for name, *numbers in rows}


@pytest.mark.slow
def test_new_fields_and_other_types_become_new_columns(sandbox: Sandbox, postgres: Postgres) -> None:
    serve_rows(sandbox, "a", cells_of(zip=2139))
    serve_rows(sandbox, "b", cells_of(zip="02139", city="Cambridge"))
    serve_rows(sandbox, "c", cells_of(zip=True, city={"name": "Boston"}))
    for name in ("a", "b", "c"):
        postgres.load(sandbox, [name])
        postgres.forget()

    assert wide(postgres.pipeline, "rows_extract") == [
        {"workflow_execution_id": "a", "zip": 2139.0},
        {"workflow_execution_id": "b", "zip__v_text": "02139", "city": "Cambridge"},
        {"workflow_execution_id": "c", "zip__v_bool": True, "city": '{"name":"Boston"}'},
    ]


def test_text_that_postgres_cannot_hold(sandbox: Sandbox, postgres: Postgres) -> None:
    answer = completed(WORKFLOW, "ex", [step("S\x00tep", [{"f\x00": cell("a\x00b", 1.0), "g": cell("\ud800!", 1.0)}])])
    sandbox.serve(WORKFLOW, "ex", {**answer, "metadata": {"external_id": "\x00", "k\udfff": '"\\,\n\t\r'}})
    postgres.load(sandbox, ["ex"])

    cells = query(postgres.pipeline, "SELECT step_name, field, value FROM cells ORDER BY field")
    assert cells == [("S�tep", "f�", "a�b"), ("S�tep", "g", "�!")]
    assert query(postgres.pipeline, "SELECT metadata__external_id, metadata__k FROM executions") == [
        ("�", '"\\,\n\t\r')
    ]


ODD_TEXTS = [
    "", " ", "  x  ", "\\N", "NULL", "null", "\\.", '"', '""', "a,b", "a\nb", "a\r\nb", "\r", "\t", "\\", "'", "''",
    "\n", ",", "\v\f", "🚗", "保険", "-", "x" * 100_000,
]  # fmt: skip


def test_odd_texts_are_exact_in_every_table(sandbox: Sandbox, postgres: Postgres, log: list[str]) -> None:
    rows = [
        {text: cell(text, 0.5), "text": cell(text, 0.5), "json": cell([text, None], 0.5), "none": cell(None, 0.5)}
        for text in ODD_TEXTS
    ]
    for number, text in enumerate(ODD_TEXTS):
        answer = completed(WORKFLOW, f"ex{number:02}", [step(text, rows[number : number + 1], schema=[text])])
        sandbox.serve(
            WORKFLOW, f"ex{number:02}", {**answer, "metadata": {"external_id": text, "note": text, "no": None}}
        )
    serve_rows(sandbox, "rows", *rows)
    names = [f"ex{number:02}" for number in range(len(ODD_TEXTS))]
    postgres.load(sandbox, [*names, "rows"])

    one = "WHERE workflow_execution_id = 'rows'"
    of_text = f"SELECT value, field, extra, step_name FROM cells {one} AND field = 'text' ORDER BY row_index"
    assert query(postgres.pipeline, of_text) == [(text, "text", None, "Extract") for text in ODD_TEXTS]
    of_others = f"SELECT field, value FROM cells {one} AND field NOT IN ('text', 'json', 'none') ORDER BY row_index"
    assert query(postgres.pipeline, of_others) == [(text, text) for text in ODD_TEXTS]
    wide_rows = query(postgres.pipeline, f'SELECT text, "json" FROM rows_extract {one} ORDER BY row_index')
    assert [(text, json.loads(of_list)) for text, of_list in wide_rows] == [(text, [text, None]) for text in ODD_TEXTS]
    assert query(postgres.pipeline, "SELECT count(*), count(value) FROM cells WHERE field = 'none'") == [
        (2 * len(ODD_TEXTS), 0)
    ]
    executions = (
        "SELECT metadata__external_id, metadata__note FROM executions WHERE workflow_execution_id < 'f' ORDER BY"
    )
    assert query(postgres.pipeline, f"{executions} workflow_execution_id") == [(text, text) for text in ODD_TEXTS]
    steps = "SELECT step_name, schema FROM steps WHERE workflow_execution_id < 'f' ORDER BY workflow_execution_id"
    assert [(name, json.loads(schema)) for name, schema in query(postgres.pipeline, steps)] == [
        (text, [text]) for text in ODD_TEXTS
    ]
    assert query(postgres.pipeline, "SELECT count(*) FROM cells WHERE extra IS NOT NULL OR _deleted IS NOT NULL") == [
        (0,)
    ]
    assert [line for line in log if "stays in cells" not in line] == []


def test_odd_numbers_are_exact(sandbox: Sandbox, postgres: Postgres) -> None:
    numbers = ["-0", "-0.0", "0", "5e-324", "1.7976931348623157e308", "0.1", "NaN", "-Infinity"]
    rows = ", ".join(f'{{"n": {{"value": {number}}}}}' for number in numbers)
    body = json.dumps(completed(WORKFLOW, "ex", [step("Extract", [])])).replace('"data": []', f'"data": [{rows}]')
    sandbox.serve(WORKFLOW, "ex", body.encode())
    postgres.load(sandbox, ["ex"])

    texts = ["-0", "-0.0", "0", "5e-324", "1.7976931348623157e+308", "0.1", None, None]
    stored = query(postgres.pipeline, "SELECT value, value_number, extra FROM cells ORDER BY row_index")
    extras = [*[None] * 6, '{"value":"NaN"}', '{"value":"-Infinity"}']
    expected = [None if text is None else float(text) for text in texts]
    assert str(stored) == str(list(zip(texts, expected, extras, strict=True)))  # 0.0 == -0.0
    assert str(query(postgres.pipeline, "SELECT n FROM rows_extract ORDER BY row_index")) == str(
        [(number,) for number in expected]
    )


@pytest.mark.parametrize("way", ["pipeline", "argument", "name", "pending"])
def test_empty_texts_stay_in_a_script_of_ones_own(
    way: str, sandbox: Sandbox, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline may be told its destination when it is made or when it runs, by an object or by its name."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres.url)
    serve_rows(sandbox, "ex", cells_of(text=""), cells_of(text=None), cells_of(text="x"))
    source = source_of(sandbox, ["ex"])
    if way in ("pipeline", "pending"):
        pipeline = postgres.pipeline
        if way == "pipeline":
            pipeline.run(source)
        else:
            pipeline.extract(source)
            pipeline.normalize()
            load_pending(postgres.pipeline)
    else:
        pipeline = dlt.pipeline("further", pipelines_dir=str(postgres.pipelines_dir), dataset_name=postgres.dataset)
        pipeline.run(source, destination=dlt.destinations.postgres(postgres.url) if way == "argument" else "postgres")

    cells = query(postgres.pipeline, "SELECT value, value_type FROM cells ORDER BY row_index")
    assert cells == [("", "string"), (None, "null"), ("x", "string")]
    assert query(postgres.pipeline, "SELECT text FROM rows_extract ORDER BY row_index") == [("",), (None,), ("x",)]


def test_tables_of_others_are_loaded_as_ever(sandbox: Sandbox, postgres: Postgres) -> None:
    """dlt writes null as "" where it makes CSV of plain rows."""
    pipeline = postgres.pipeline
    pipeline.run(source_of(sandbox, []))
    rows = [{"a": "x", "b": None}, {"a": None, "b": "y"}, {"a": "", "b": ""}]
    pipeline.run(rows, table_name="others", loader_file_format="csv")

    others = f"SELECT a, b FROM {postgres.dataset}.others"
    assert sorted(query(pipeline, others), key=str) == [("x", None), (None, "y"), (None, None)]


def test_the_pipeline_keeps_its_destination(sandbox: Sandbox, postgres: Postgres) -> None:
    before = postgres.pipeline
    expected = (before.destination.destination_type, before.destination.destination_name, repr(before.destination))
    before.run(source_of(sandbox, []))

    for pipeline in (before, postgres.pipeline):
        destination = pipeline.destination
        assert (destination.destination_type, destination.destination_name, repr(destination)) == expected
        assert isinstance(destination, dlt.destinations.postgres)


@pytest.mark.slow
def test_long_names_that_differ_only_at_the_end_stay_apart(sandbox: Sandbox, postgres: Postgres) -> None:
    long = "x" * 80
    fields = [long + "a", long + "b", "y" * 63, "y" * 64]
    for name in ("ex", "ey"):
        row = {field: cell(field, 0.5) for field in fields}
        row[long + "a"] = cell(name == "ex" or "text", 0.25)
        serve_steps(sandbox, name, step(long + "1", [row]), step(long + "2", [row]))
    postgres.load(sandbox, ["ex"])
    of_both_runs = []
    for name in ("ex", "ey"):
        postgres.load(sandbox, [name])
        postgres.forget()
        pipeline = postgres.pipeline
        names = tables(pipeline) - {"executions", "steps", "cells"}
        of_both_runs.append({table: set(columns(pipeline, table)) for table in names})

    before, after = of_both_runs
    assert before.keys() == after.keys()
    assert len(before) == 2
    for table, names in after.items():
        assert max(map(len, [table, *names])) <= 63
        assert len(before[table]) == 6 + 2 * len(fields)
        assert len(names - before[table]) == 1  # the variant of what was a boolean before
        (variant,) = names - before[table]
        rows = query(pipeline, f'SELECT * FROM "{table}" ORDER BY workflow_execution_id')
        assert sorted(value for value in rows[0] if isinstance(value, str) and value[0] in "xy") == sorted(fields[1:])
        assert sorted(value for value in rows[1] if isinstance(value, str) and value[0] in "xy") == sorted(fields[1:])
        assert query(pipeline, f'SELECT "{variant}" FROM "{table}" ORDER BY 1') == [("text",), (None,)]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["short", "a text of 23 characters", "long " * 1_000])
def test_as_many_fields_as_a_row_of_postgres_holds(
    text: str, sandbox: Sandbox, postgres: Postgres, log: list[str]
) -> None:
    row = {f"field_{number:03}": cell(text, 0.5) for number in range(241)}
    answer = completed(WORKFLOW, "ex", [step("Extract", [row])])
    answer["metadata"] = {f"key_{number:03}": text for number in range(241)}
    sandbox.serve(WORKFLOW, "ex", answer)
    postgres.load(sandbox, ["ex"])

    (first, second) = sorted(tables(postgres.pipeline) - {"executions", "steps", "cells"})
    assert [len(columns(postgres.pipeline, table)) for table in (first, second)] == [6 + 2 * 240, 6 + 2]
    (row_of_first,), (row_of_second,) = wide(postgres.pipeline, first), wide(postgres.pipeline, second)
    assert {**row_of_first, **row_of_second} == {"workflow_execution_id": "ex", **dict.fromkeys(row, text)}
    assert [line.partition(" (")[0] for line in log] == ["executions: 13 without a column"]
    assert query(postgres.pipeline, f"SELECT count(*), count(*) FILTER (WHERE value = '{text}') FROM cells") == [
        (241, 241)
    ]
    executions = records(postgres.pipeline, "executions")[0]
    kept = {
        **executions,
        **{f"metadata__{k}": v for k, v in json.loads(executions["answer__other"])["metadata"].items()},
    }
    assert sum(value == text for value in kept.values()) == 241


@pytest.mark.slow
@pytest.mark.parametrize(
    ("held_up_at", "forgets"),
    [
        pytest.param("further_data_staging.executions", False, id="before-anything", marks=pytest.mark.slow),
        pytest.param("further_data.cells", False, id="while-appending", marks=pytest.mark.slow),
        pytest.param("further_data.executions", False, id="while-merging", marks=pytest.mark.slow),
        pytest.param("further_data.executions", True, id="appended-and-not-merged-and-the-working-directory-lost"),
        pytest.param("further_data._dlt_loads", True, id="merged-but-not-finished-and-the-working-directory-lost"),
    ],
)
def test_a_load_that_is_killed_is_made_up_for_by_the_next(
    held_up_at: str, forgets: bool, sandbox: Sandbox, postgres: Postgres, tmp_path: Path
) -> None:
    held_up_at = held_up_at.replace("further_data", postgres.dataset)
    executions = [f"ex-{number}" for number in range(20)]
    for name in executions:
        serve_rows(sandbox, name, *(cells_of(name=name, number=number) for number in range(10)))
    postgres.load(sandbox, executions[:10])
    sandbox.serve(WORKFLOW, "ex-3", running(WORKFLOW, "ex-3"))  # would show if it were asked again
    command = [sys.executable, str(LOAD), "--destination", "postgres", "--dataset", postgres.dataset, "--quiet"]
    command += [f"{WORKFLOW}/{name}" for name in executions]
    environment = {
        **os.environ,
        "DESTINATION__POSTGRES__CREDENTIALS": postgres.url,
        "DLT_DATA_DIR": str(tmp_path / "killed"),
        "SOURCES__FURTHER_SOURCE__BASE_URL": sandbox.base_url,
        "SOURCES__FURTHER_SOURCE__ACCESS_TOKEN": sandbox.issue_token(),
        "SOURCES__FURTHER_SOURCE__MAX_REQUESTS_PER_SECOND": "1000",
        "SOURCES__FURTHER_SOURCE__MAX_WAIT": "0",
        "SOURCES__FURTHER_SOURCE__LEASE_DURATION": "3",
    }
    lock = psycopg2.connect(postgres.url)
    with lock.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {held_up_at} IN SHARE MODE")  # can be read, not written
        load = subprocess.Popen(command, env=environment, cwd=tmp_path)
        try:
            wait_until_blocked(postgres.url, load)
        finally:
            load.send_signal(signal.SIGKILL)
            load.wait()
    lock.rollback()
    lock.close()
    if forgets:
        shutil.rmtree(tmp_path / "killed")

    again = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    while forgets and again.returncode == 75:  # its lock is lost too, so nothing but time tells that the first is dead
        again = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, "")
    assert asked(sandbox)["ex-3"] == 1
    expected = sorted((name, number, field) for name in executions for number in range(10) for field in _FIELDS)
    pipeline = postgres.pipeline
    assert sorted(query(pipeline, "SELECT workflow_execution_id, row_index, field FROM cells")) == expected
    wide_rows = sorted(query(pipeline, "SELECT workflow_execution_id, name, number FROM rows_extract"))
    assert wide_rows == sorted((name, name, float(number)) for name in executions for number in range(10))
    assert counts(pipeline) == dict.fromkeys(executions, (1, 1, 20))


_FIELDS = ("name", "number")


def wait_until_blocked(url: str, load: subprocess.Popen[bytes]) -> None:
    watch = psycopg2.connect(url)
    watch.autocommit = True
    give_up = time.monotonic() + SECONDS
    try:
        with watch.cursor() as cursor:
            while True:
                cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if cursor.fetchone() != (0,):
                    return
                assert load.poll() is None, "the load ended without meeting the lock"
                assert time.monotonic() < give_up, "the load never met the lock"
                time.sleep(0.05)
    finally:
        watch.close()
