"""Loads over real HTTP into a real DuckDB: what the tables hold after one run, and after the next."""

import json
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dlt
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.pipeline.exceptions import PipelineStepFailed

from further_source import ConfigurationError, CredentialsError, Report, further_source, run_in_slices
from further_source.command.failures import as_further_error
from further_source.run import slices
from further_source.sandbox import AnyReply, Reply, Sandbox, cell, completed, error, failed, running, step
from further_source.tables.cells import RowGroups
from tests.conftest import MakePipeline
from tests.support.loading import (
    NAMED_COLUMNS,
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
from tests.support.slow import few_of

Run = Callable[[dlt.Pipeline, Any], Any]


@pytest.fixture(params=few_of(["run_in_slices", "run"]))
def load(request: pytest.FixtureRequest) -> Run:
    """Both ways to run a source; loads with these are one slice."""
    if request.param == "run":
        return lambda pipeline, source: pipeline.run(source)
    return run_in_slices


def wipe(pipeline: dlt.Pipeline) -> None:
    shutil.rmtree(pipeline.pipelines_dir)


def ids(pipeline: dlt.Pipeline, table: str) -> list[str]:
    return [row["workflow_execution_id"] for row in records(pipeline, table)]


def outcomes(pipeline: dlt.Pipeline) -> dict[str, str]:
    return {row["workflow_execution_id"]: row["poll_outcome"] for row in records(pipeline, "executions")}


# What is in the tables


def test_each_table_holds_what_the_api_answered(sandbox: Sandbox, pipeline: dlt.Pipeline, load: Run) -> None:
    serve_steps(
        sandbox,
        "a",
        step(
            "Extract Policy Details",
            [
                {"policy_number": cell("POL-1", 0.97), "premium": cell(1200.5, 0.9)},
                {"policy_number": cell("POL-2", 0.5), "premium": {"value": None, "confidence_score": None}},
            ],
            schema={"fields": ["policy_number"]},
            metadata={"pages": 2},
        ),
        step("Summary", []),
        metadata={"external_id": "INV-1"},
    )
    sandbox.serve(WORKFLOW, "b", failed(WORKFLOW, "b", metadata={"external_id": "INV-2"}, error={"code": 7}))
    sandbox.serve(WORKFLOW, "c", running(WORKFLOW, "c", metadata={"external_id": "INV-3"}))
    sandbox.add(WORKFLOW, "d", error(404, "no such execution"))

    load(pipeline, source_of(sandbox, ["a", "b", "c", "d"]))

    times = {"poll_first_at", "poll_last_at"}
    nothing = {"metadata__external_id": None, "poll_error": None, "error__code": None}
    nothing |= {"step_count": None, "cell_count": None}
    found = records(pipeline, "executions")
    assert all(row["poll_first_at"] == row["poll_last_at"] is not None for row in found)
    assert all(row["poll_first_at"].tzinfo is not None for row in found)
    assert [{key: value for key, value in row.items() if key not in times} for row in found] == [
        {"workflow_id": WORKFLOW, "poll_count": 1, **nothing, **row}
        for row in (
            {
                "workflow_execution_id": "a",
                "status": "completed",
                "poll_outcome": "completed",
                "metadata__external_id": "INV-1",
                "step_count": 2,
                "cell_count": 4,
            },
            {
                "workflow_execution_id": "b",
                "status": "failed",
                "poll_outcome": "failed",
                "metadata__external_id": "INV-2",
                "error__code": 7,
                "step_count": 0,
                "cell_count": 0,
            },
            {
                "workflow_execution_id": "c",
                "status": "running",
                "poll_outcome": "running",
                "metadata__external_id": "INV-3",
            },
            {
                "workflow_execution_id": "d",
                "status": None,
                "poll_outcome": "not_found",
                "poll_error": "404: no such execution",
            },
        )
    ]
    keys = {"workflow_id": WORKFLOW, "workflow_execution_id": "a"}
    first, second = "Extract Policy Details", "Summary"
    assert records(pipeline, "steps") == [
        {
            **keys,
            "step_index": 0,
            "step_name": first,
            "row_count": 2,
            "schema": '{"fields":["policy_number"]}',
            "metadata": '{"pages":2}',
        },
        {**keys, "step_index": 1, "step_name": second, "row_count": 0, "schema": "{}", "metadata": "{}"},
    ]
    cells = sorted(records(pipeline, "cells"), key=lambda row: (row["row_index"], row["field"]))
    assert cells == [
        {**keys, "step_index": 0, "step_name": first, "extra": None, **row}
        for row in (
            {
                "row_index": 0,
                "field": "policy_number",
                "value": "POL-1",
                "value_type": "string",
                "value_number": None,
                "confidence": 0.97,
            },
            {
                "row_index": 0,
                "field": "premium",
                "value": "1200.5",
                "value_type": "number",
                "value_number": 1200.5,
                "confidence": 0.9,
            },
            {
                "row_index": 1,
                "field": "policy_number",
                "value": "POL-2",
                "value_type": "string",
                "value_number": None,
                "confidence": 0.5,
            },
            {
                "row_index": 1,
                "field": "premium",
                "value": None,
                "value_type": "null",
                "value_number": None,
                "confidence": None,
            },
        )
    ]
    assert list(columns(pipeline, "rows_extract_policy_details").items()) == [
        ("workflow_id", "VARCHAR"),
        ("workflow_execution_id", "VARCHAR"),
        ("step_index", "BIGINT"),
        ("row_index", "BIGINT"),
        ("_dlt_load_id", "VARCHAR"),
        ("_deleted", "BOOLEAN"),
        ("policy_number", "VARCHAR"),
        ("policy_number__confidence", "DOUBLE"),
        ("premium", "DOUBLE"),
        ("premium__confidence", "DOUBLE"),
    ]
    assert records(pipeline, "rows_extract_policy_details") == [
        {
            **keys,
            "step_index": 0,
            "row_index": 0,
            "policy_number": "POL-1",
            "policy_number__confidence": 0.97,
            "premium": 1200.5,
            "premium__confidence": 0.9,
        },
        {
            **keys,
            "step_index": 0,
            "row_index": 1,
            "policy_number": "POL-2",
            "policy_number__confidence": 0.5,
            "premium": None,
            "premium__confidence": None,
        },
    ]
    assert records(pipeline, "rows_summary") == []


@pytest.mark.parametrize("executions", [[], ["r1", "r2"]])
def test_the_tables_exist_with_all_named_columns_when_no_row_came(
    sandbox: Sandbox, pipeline: dlt.Pipeline, load: Run, executions: list[str]
) -> None:
    for execution in executions:
        sandbox.serve(WORKFLOW, execution, running(WORKFLOW, execution))

    load(pipeline, source_of(sandbox, executions))

    assert {table: columns(pipeline, table) for table in tables(pipeline)} == NAMED_COLUMNS
    assert (len(records(pipeline, "executions")), records(pipeline, "cells")) == (len(executions), [])


def test_the_keys_are_never_null_and_every_row_is_joinable_with_its_load(
    sandbox: Sandbox, pipeline: dlt.Pipeline
) -> None:
    serve_rows(sandbox, "a", cells_of(x=1))

    pipeline.run(source_of(sandbox, ["a"]))

    for table in ("executions", "steps", "cells", "rows_extract"):
        joined = query(
            pipeline, f"SELECT t.workflow_execution_id FROM {table} t JOIN _dlt_loads l ON t._dlt_load_id = l.load_id"
        )
        assert joined == [("a",)], table
        nullable = query(
            pipeline,
            f"SELECT DISTINCT is_nullable FROM information_schema.columns WHERE table_schema = 'further_data' "
            f"AND table_name = '{table}' AND column_name IN ('workflow_id', 'workflow_execution_id', '_dlt_load_id')",
        )
        assert nullable == [("NO",)], table


def test_a_normal_load_warns_of_nothing(
    sandbox: Sandbox, make_pipeline: MakePipeline, load: Run, log: list[str], recwarn: pytest.WarningsRecorder
) -> None:
    warnings.simplefilter("always")
    for number, (workflow, execution) in enumerate(sandbox.serve_demo()):
        if number % 2:
            sandbox.serve(workflow, execution, running(workflow, execution))
    listed = sandbox.serve_demo()
    for workflow, execution in listed:
        sandbox.serve(workflow, execution, running(workflow, execution))
    serve_rows(sandbox, "a", cells_of(x=1, y="text", z=None))
    serve_rows(sandbox, "b", cells_of(x="text", y=1, z=True), {})
    everything = [*listed, "a", "b"]

    for reload in (False, False, True):
        load(make_pipeline(), source_of(sandbox, everything, reload=reload))

    assert log == []
    assert [str(warning.message) for warning in recwarn] == []


def test_an_execution_that_is_listed_twice_is_asked_and_loaded_once(
    sandbox: Sandbox, pipeline: dlt.Pipeline, load: Run
) -> None:
    serve_rows(sandbox, "a", cells_of(x=1))

    load(pipeline, source_of(sandbox, ["a", f"{WORKFLOW}/a", {"workflow_id": WORKFLOW, "execution_id": "a"}]))

    assert asked(sandbox) == {"a": 1}
    assert (ids(pipeline, "executions"), ids(pipeline, "cells"), ids(pipeline, "rows_extract")) == (["a"],) * 3


@pytest.mark.slow
def test_ids_of_two_workflows_do_not_meet(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    for workflow in ("w1", "w2"):
        sandbox.serve(workflow, "ex", completed(workflow, "ex", [step("S", [cells_of(w=workflow)])]))

    pipeline.run(source_of(sandbox, ["w1/ex"]))
    pipeline.run(source_of(sandbox, ["w1/ex", "w2/ex"]))

    assert [(row["workflow_id"], row["w"]) for row in records(pipeline, "rows_s")] == [("w1", "w1"), ("w2", "w2")]
    assert asked(sandbox) == {"ex": 2}


@pytest.mark.parametrize(
    "executions",
    few_of(
        [
            pytest.param([(WORKFLOW, "a"), (WORKFLOW, "b")], id="pairs"),
            pytest.param(
                [
                    {"workflow_id": WORKFLOW, "workflow_execution_id": "a", "status": "running"},
                    {"workflow_id": WORKFLOW, "execution_id": "b"},
                ],
                id="mappings",
            ),
            pytest.param((f"{WORKFLOW}/{name}" for name in "ab"), id="generator"),
            pytest.param(pd.Series([f"{WORKFLOW}/a", f"{WORKFLOW}/b"]), id="pandas series"),
            pytest.param(pd.DataFrame([[WORKFLOW, "a"], [WORKFLOW, "b"]]).itertuples(index=False), id="pandas tuples"),
            pytest.param(np.array([f"{WORKFLOW}/a", f"{WORKFLOW}/b"]), id="numpy texts"),
            pytest.param(np.array([[WORKFLOW, "a"], [WORKFLOW, "b"]]), id="numpy pairs"),
            pytest.param(pl.Series([f"{WORKFLOW}/a", f"{WORKFLOW}/b"]), id="polars series"),
            pytest.param(dict.fromkeys([f"{WORKFLOW}/a", f"{WORKFLOW}/b"]).keys(), id="keys"),
        ]
    ),
)
def test_the_list_may_be_any_iterable(sandbox: Sandbox, pipeline: dlt.Pipeline, executions: Any) -> None:
    for name in "ab":
        serve_rows(sandbox, name, cells_of(x=1))

    pipeline.run(source_of(sandbox, executions))

    assert ids(pipeline, "executions") == ["a", "b"]


# What is asked again


@pytest.mark.parametrize("wiped", few_of([False, True]))
def test_the_next_run_asks_only_what_has_not_ended(
    sandbox: Sandbox, make_pipeline: MakePipeline, load: Run, wiped: bool
) -> None:
    serve_rows(sandbox, "done", cells_of(x=1))
    sandbox.serve(WORKFLOW, "failed", failed(WORKFLOW, "failed"))
    sandbox.add(
        WORKFLOW, "slow", running(WORKFLOW, "slow"), completed(WORKFLOW, "slow", [step("Extract", [cells_of(x=2)])])
    )
    sandbox.add(WORKFLOW, "hidden", error(404), completed(WORKFLOW, "hidden", []))
    listed = ["done", "failed", "slow", "hidden"]

    load(make_pipeline(), source_of(sandbox, listed))
    assert outcomes(make_pipeline()) == {
        "done": "completed",
        "failed": "failed",
        "slow": "running",
        "hidden": "not_found",
    }
    if wiped:
        wipe(make_pipeline())
    load(make_pipeline(), source_of(sandbox, listed))

    assert asked(sandbox) == {"done": 1, "failed": 1, "slow": 2, "hidden": 2}
    load(make_pipeline(), source_of(sandbox, listed))
    assert asked(sandbox) == {"done": 1, "failed": 1, "slow": 2, "hidden": 2}
    assert wide(make_pipeline(), "rows_extract") == [
        {"workflow_execution_id": "done", "x": 1.0},
        {"workflow_execution_id": "slow", "x": 2.0},
    ]
    assert set(outcomes(make_pipeline()).values()) == {"completed", "failed"}
    assert len(records(make_pipeline(), "executions")) == 4


def test_a_source_can_be_run_twice(sandbox: Sandbox, pipeline: dlt.Pipeline, load: Run) -> None:
    serve_rows(sandbox, "a", cells_of(x=1))
    sandbox.add(WORKFLOW, "b", running(WORKFLOW, "b"), completed(WORKFLOW, "b", []))
    source = source_of(sandbox, ["a", "b"])

    load(pipeline, source)
    load(pipeline, source)

    assert asked(sandbox) == {"a": 1, "b": 2}
    assert outcomes(pipeline) == {"a": "completed", "b": "completed"}


@pytest.mark.slow
def test_a_load_that_was_never_finished_is_asked_again_and_replaced(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    serve_rows(sandbox, "a", cells_of(x=1), cells_of(x=2))
    serve_rows(sandbox, "b", cells_of(x=3))
    pipeline.run(source_of(sandbox, ["a"]))
    query(pipeline, "DELETE FROM _dlt_loads")
    query(pipeline, "DELETE FROM rows_extract WHERE row_index = 0")
    pipeline.run(source_of(sandbox, ["b"]))
    serve_steps(sandbox, "a", step("Extract", []))

    pipeline.run(source_of(sandbox, ["a", "b"]))

    assert asked(sandbox) == {"a": 2, "b": 1}
    assert (ids(pipeline, "executions"), ids(pipeline, "steps")) == (["a", "b"], ["a", "b"])
    assert (ids(pipeline, "cells"), ids(pipeline, "rows_extract")) == (["b"], ["b"])


# Reload

BEFORE = [step("Extract", [cells_of(x=1), cells_of(x=2)]), step("Other", [cells_of(y="a")])]


# By execution: what it answers the second time, and what its wide tables are to hold then.
AFTER: dict[str, tuple[list[Any], dict[str, list[Any]]]] = {
    "fewer": ([step("Extract", [cells_of(x=3)]), step("Other", [])], {"rows_extract": [3.0]}),
    "less": ([step("Extract", [cells_of(x=3)])], {"rows_extract": [3.0]}),
    "nothing": ([], {}),
    "renamed": ([step("Renamed", [cells_of(x=4)])], {"rows_renamed": [4.0]}),
    "more": (
        [step("Extract", [cells_of(x=n) for n in range(5)]), step("Other", [cells_of(y="b")])],
        {"rows_extract": [0.0, 1.0, 2.0, 3.0, 4.0], "rows_other": ["b"]},
    ),
    "empty_row": ([step("Extract", [{}])], {"rows_extract": [None]}),
    "same": (BEFORE, {"rows_extract": [1.0, 2.0], "rows_other": ["a"]}),
}


@pytest.mark.parametrize("together", few_of([True, False]))
def test_reload_leaves_no_stale_row(sandbox: Sandbox, make_pipeline: MakePipeline, load: Run, together: bool) -> None:
    cases = list(AFTER) if together else ["nothing", "renamed"]
    for name in [*cases, "untouched"]:
        serve_steps(sandbox, name, *BEFORE)
    load(make_pipeline(), source_of(sandbox, [*cases, "untouched"]))
    for name in cases:
        serve_steps(sandbox, name, *AFTER[name][0])

    for listed in [cases] if together else [[name] for name in cases]:
        load(make_pipeline(), source_of(sandbox, listed, reload=True))

    pipeline = make_pipeline()
    found = {table: records(pipeline, table) for table in tables(pipeline)}
    for name in [*cases, "untouched"]:
        steps, expected = AFTER["same" if name == "untouched" else name]
        own = {table: [row for row in rows if row["workflow_execution_id"] == name] for table, rows in found.items()}
        wide_rows = {
            table: [row.get("x", row.get("y")) for row in rows]
            for table, rows in own.items()
            if table.startswith("rows_") and rows
        }
        assert wide_rows == expected, name
        assert len(own["executions"]) == 1, name
        assert [row["step_name"] for row in own["steps"]] == [data["step_name"] for data in steps], name
        assert len(own["cells"]) == sum(len(row) for data in steps for row in data["data"]["data"]), name
    for table in found:
        assert query(pipeline, f"SELECT count(*) FROM {table} WHERE _deleted") == [(0,)]


@pytest.mark.slow
def test_reload_without_an_ending_leaves_what_was_loaded_and_says_so(
    sandbox: Sandbox, make_pipeline: MakePipeline, log: list[str]
) -> None:
    answers: dict[str, AnyReply] = {
        "not_found": error(404),
        "forbidden": error(403),
        "unreachable": error(500),
        "running": running(WORKFLOW, "running"),
        "invalid": b"[]",
    }
    for name in answers:
        serve_steps(sandbox, name, *BEFORE)
    run_in_slices(make_pipeline(), source_of(sandbox, list(answers)))
    before = {table: records(make_pipeline(), table) for table in tables(make_pipeline())}
    for name, answer in answers.items():
        sandbox.add(WORKFLOW, name, answer)

    report = run_in_slices(make_pipeline(), source_of(sandbox, list(answers), reload=True))

    assert {table: records(make_pipeline(), table) for table in tables(make_pipeline())} == before
    assert (report.kept, report.ended, report.all_completed) == ({"completed": 5}, {}, True)
    assert sorted(log) == [
        f"{WORKFLOW}/{name}: asked again, and it is {name}: what was loaded of it stays as it was"
        for name in sorted(answers)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("refresh", few_of(["drop_sources", "drop_data", "drop_resources"]))
@pytest.mark.parametrize("slices", [False, True])
def test_refresh_loads_anew_in_place_of_emptying(
    sandbox: Sandbox, make_pipeline: MakePipeline, refresh: Any, slices: bool
) -> None:
    for name in "abc":
        serve_steps(sandbox, name, *BEFORE)
    listed = ["a", "b", "c"]
    make_pipeline().run(source_of(sandbox, listed))
    for number, name in enumerate(listed):
        payload = completed(WORKFLOW, name, [step("Extract", [cells_of(x=9)])])
        sandbox.serve(WORKFLOW, name, payload, after=number * 1.2)

    if slices:
        pipeline = make_pipeline(refresh=refresh)
        run_in_slices(pipeline, source_of(sandbox, listed, max_wait=5, commit_interval=0.1))
        assert query(pipeline, "SELECT count(DISTINCT _dlt_load_id) > 1 FROM executions") == [(True,)]
        assert pipeline.refresh == refresh
    else:
        pipeline = make_pipeline()
        pipeline.run(source_of(sandbox, listed, max_wait=5), refresh=refresh)

    assert ids(pipeline, "executions") == listed
    assert [row["x"] for row in records(pipeline, "rows_extract")] == [9.0, 9.0, 9.0]
    assert [(row["field"], row["value"]) for row in records(pipeline, "cells")] == [("x", "9")] * 3
    if "rows_other" in tables(pipeline):
        assert records(pipeline, "rows_other") == []


# Slices


def test_slices_load_each_execution_once_and_in_several_loads(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    listed = [f"ex{number}" for number in range(8)]
    for number, name in enumerate(listed):
        payload = completed(WORKFLOW, name, [step("Extract", [cells_of(x=number)])])
        sandbox.serve(WORKFLOW, name, payload, after=0.5 * number)
    seen: list[int] = []

    def on_progress(report: Report) -> None:
        seen.append(report.remaining)

    report = run_in_slices(
        pipeline, source_of(sandbox, listed, max_wait=10, commit_interval=0.2), on_progress=on_progress
    )

    assert ids(pipeline, "executions") == ids(pipeline, "cells") == ids(pipeline, "rows_extract") == listed
    assert [row["x"] for row in records(pipeline, "rows_extract")] == [float(n) for n in range(8)]
    assert query(pipeline, "SELECT count(*) > 1 FROM _dlt_loads WHERE status = 0") == [(True,)]
    assert query(pipeline, "SELECT count(DISTINCT _dlt_load_id) > 1 FROM executions") == [(True,)]
    assert (report.ended, report.listed, report.remaining) == ({"completed": 8}, 8, 0)
    assert report.rows == {"executions": 8, "steps": 8, "cells": 8, "rows_extract": 8}
    assert seen == sorted(seen, reverse=True)


def test_no_load_is_cut_before_anything_has_come(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    sandbox.serve(WORKFLOW, "late", completed(WORKFLOW, "late", [step("Extract", [cells_of(x=1)])]), after=1.5)
    run_in_slices(pipeline, source_of(sandbox, ["late"], max_wait=10, commit_interval=0.1))

    assert query(pipeline, "SELECT count(*) FROM _dlt_loads") == [(1,)]
    assert ids(pipeline, "cells") == ["late"]


@pytest.mark.parametrize(("steps", "workers"), few_of([(3, 1), (20, 20)]))
def test_few_tables_are_loaded_one_after_the_other_and_many_together(
    sandbox: Sandbox, pipeline: dlt.Pipeline, load: Run, steps: int, workers: int
) -> None:
    serve_steps(sandbox, "a", *[step(f"Step {number}", [cells_of(x=number)]) for number in range(steps)])
    load(pipeline, source_of(sandbox, ["a"]))

    assert dlt.config.get("load.workers", int) == workers
    assert len(tables(pipeline)) == 3 + steps


def test_what_somebody_configured_is_left_alone(
    sandbox: Sandbox, pipeline: dlt.Pipeline, load: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOAD__WORKERS", "7")
    serve_rows(sandbox, "a", cells_of(x=1))
    load(pipeline, source_of(sandbox, ["a"]))

    assert dlt.config.get("load.workers", int) == 7


@pytest.mark.slow
def test_a_load_is_cut_where_much_has_come(
    sandbox: Sandbox, pipeline: dlt.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_BYTES", 1)
    for name, seconds in {"a": 0, "late": 1.5}.items():
        sandbox.serve(WORKFLOW, name, completed(WORKFLOW, name, [step("Extract", [cells_of(x=1)])]), after=seconds)
    run_in_slices(pipeline, source_of(sandbox, ["a", "late"], max_wait=10, commit_interval=3600))

    assert ids(pipeline, "cells") == ["a", "late"]
    assert query(pipeline, "SELECT count(DISTINCT _dlt_load_id) FROM cells") == [(2,)]


@pytest.mark.slow
def test_a_run_in_one_piece_is_not_cut_however_much_comes(
    sandbox: Sandbox, pipeline: dlt.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_BYTES", 1)
    for name, seconds in {"a": 0, "late": 1.5}.items():
        sandbox.serve(WORKFLOW, name, completed(WORKFLOW, name, [step("Extract", [cells_of(x=1)])]), after=seconds)
    pipeline.run(source_of(sandbox, ["a", "late"], max_wait=10, commit_interval=0))

    assert ids(pipeline, "cells") == ["a", "late"]
    assert query(pipeline, "SELECT count(DISTINCT _dlt_load_id) FROM cells") == [(1,)]


@pytest.mark.slow
def test_cells_come_in_full_row_groups_in_every_slice(
    sandbox: Sandbox, pipeline: dlt.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowGroups, "ROWS", 6_000)  # more than dlt gathers
    rows = {"first": 1_500, "second": 800, "third": 900, "late": 1_600}
    for name, count in rows.items():
        fields = [cells_of(**{f"f{field}": f"{name}/{row}.{field}" for field in range(5)}) for row in range(count)]
        payload = completed(WORKFLOW, name, [step("Extract", fields)])
        sandbox.serve(WORKFLOW, name, payload, after=1.0 if name == "late" else 0)
    report = run_in_slices(pipeline, source_of(sandbox, list(rows), max_wait=10, commit_interval=0.2))

    assert report.rows["cells"] == 5 * sum(rows.values())
    stored = query(pipeline, "SELECT workflow_execution_id, row_index, field, value FROM cells ORDER BY ALL")
    assert stored == sorted(
        (name, row, f"f{field}", f"{name}/{row}.{field}")
        for name, count in rows.items()
        for row in range(count)
        for field in range(5)
    )
    files = Path(pipeline.working_dir).glob("load/loaded/*/completed_jobs/cells.*.parquet")
    groups = [pq.ParquetFile(file).metadata for file in files]
    assert len(groups) > 1
    assert sum(metadata.num_rows for metadata in groups) == report.rows["cells"]
    for metadata in groups:
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        assert [size for size in sizes if size not in (0, 6_000)] == sizes[-1:]


def test_a_limit_on_polled_loses_no_cell(sandbox: Sandbox, pipeline: dlt.Pipeline, load: Run) -> None:
    listed = ["a", "b", "c"]
    for name in listed:
        serve_rows(sandbox, name, cells_of(x=name))
    limited = source_of(sandbox, listed)
    limited.resources["polled"].add_limit(2)
    pipeline.run(limited)
    assert ids(pipeline, "cells") == ids(pipeline, "executions") != []
    load(pipeline, source_of(sandbox, listed))
    assert ids(pipeline, "cells") == ids(pipeline, "executions") == listed


def test_a_transformer_of_ones_own_gets_the_rows_of_a_table_that_is_not_selected(
    sandbox: Sandbox, pipeline: dlt.Pipeline
) -> None:
    serve_rows(sandbox, "a", cells_of(x=1))
    source = source_of(sandbox, ["a"])

    @dlt.transformer(name="outcomes")
    def outcomes(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        yield from ({"name": row["workflow_execution_id"], "outcome": row["poll_outcome"]} for row in rows)

    source.resources.add(source.resources["executions"] | outcomes)
    pipeline.run(source.with_resources("outcomes", "cells"))
    assert query(pipeline, "SELECT name, outcome FROM outcomes") == [("a", "completed")]
    assert ids(pipeline, "cells") == ["a"]
    assert "executions" not in tables(pipeline)


def test_nothing_is_asked_any_more_after_an_error(sandbox: Sandbox, pipeline: dlt.Pipeline, load: Run) -> None:
    serve_rows(sandbox, "a", cells_of(x=1))
    sandbox.add(WORKFLOW, "b", running(WORKFLOW, "b"))
    source = source_of(sandbox, ["a", "b"], max_wait=1000)

    def fail(page: Any) -> Any:
        raise RuntimeError("of the user's own")

    source.resources["polled"].add_map(fail)
    with pytest.raises(PipelineStepFailed):
        load(pipeline, source)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("further-")] == []


def test_refused_credentials_load_what_arrived_and_then_raise(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    serve_rows(sandbox, "a", cells_of(x=1))
    sandbox.add(WORKFLOW, "b", running(WORKFLOW, "b"), error(401))

    with pytest.raises(CredentialsError):
        run_in_slices(pipeline, source_of(sandbox, ["a", "b"], max_wait=30))

    assert outcomes(pipeline) == {"a": "completed"}
    assert [row["x"] for row in records(pipeline, "rows_extract")] == [1.0]
    assert query(pipeline, "SELECT count(*) FROM _dlt_loads WHERE status <> 0") == [(0,)]


def test_refused_credentials_fail_a_run_in_one_piece(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    sandbox.add(WORKFLOW, "a", error(401))

    with pytest.raises(PipelineStepFailed) as failure:
        pipeline.run(source_of(sandbox, ["a"]))

    assert isinstance(as_further_error(failure.value), CredentialsError)


def test_stop_loads_what_has_ended_and_no_row_for_the_rest(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    serve_rows(sandbox, "a", cells_of(x=1))
    sandbox.serve(WORKFLOW, "b", running(WORKFLOW, "b"))

    report = run_in_slices(pipeline, source_of(sandbox, ["a", "b"], max_wait=30), stop=lambda: asked(sandbox)["b"] > 5)

    assert outcomes(pipeline) == {"a": "completed"}
    assert (report.ended, report.remaining) == ({"completed": 1}, 1)


# Selecting


def test_two_tables_alone_are_kept_incrementally(sandbox: Sandbox, make_pipeline: MakePipeline, load: Run) -> None:
    serve_steps(sandbox, "a", *BEFORE)

    for _ in range(2):
        load(make_pipeline(), source_of(sandbox, ["a"]).with_resources("executions", "cells"))

    assert tables(make_pipeline()) == {"executions", "cells"}
    assert asked(sandbox) == {"a": 1}
    assert ids(make_pipeline(), "cells") == ["a"] * 3


def test_without_executions_everything_is_asked_and_replaced(
    sandbox: Sandbox, make_pipeline: MakePipeline, load: Run
) -> None:
    found = []
    for steps in (BEFORE, [step("Extract", [cells_of(x=7)])], []):
        serve_steps(sandbox, "a", *steps)
        load(make_pipeline(), source_of(sandbox, ["a"]).with_resources("cells"))
        found.append([row["value"] for row in records(make_pipeline(), "cells")])

    assert [sorted(values) for values in found] == [["1", "2", "a"], ["7"], []]
    assert asked(sandbox) == {"a": 3}
    assert tables(make_pipeline()) == {"cells"}


def test_the_wide_tables_can_be_left_out(sandbox: Sandbox, pipeline: dlt.Pipeline, load: Run) -> None:
    serve_steps(sandbox, "a", *BEFORE)

    load(pipeline, source_of(sandbox, ["a"], row_tables=False))

    assert tables(pipeline) == {"executions", "steps", "cells"}


# Tables that grow


def test_new_keys_fields_and_types_become_columns_and_old_data_stays(
    sandbox: Sandbox, make_pipeline: MakePipeline, log: list[str]
) -> None:
    serve_steps(sandbox, "a", step("Extract", [cells_of(amount=5)]), metadata={"external_id": "1"})
    later = {"value": "02139", "confidence_score": 0.5, "page": 3}
    payload_b: dict[str, Any] = {"metadata": {"external_id": 2, "team": {"name": "x"}}, "priority": 1}
    serve_steps(sandbox, "b", step("Extract", [{"amount": later, "zip": cell("0", 0.5)}]), **payload_b)

    make_pipeline().run(source_of(sandbox, ["a"]))
    make_pipeline().run(source_of(sandbox, ["a", "b"]))

    pipeline = make_pipeline()
    assert wide(pipeline, "rows_extract") == [
        {"workflow_execution_id": "a", "amount": 5.0},
        {"workflow_execution_id": "b", "amount__v_text": "02139", "zip": "0"},
    ]
    assert [(row["value"], row["extra"]) for row in records(pipeline, "cells")] == [
        ("5", None),
        ("02139", '{"page":3}'),
        ("0", None),
    ]
    assert [
        (row["metadata__external_id"], row["metadata__team__name"], row["priority"])
        for row in records(pipeline, "executions")
    ] == [("1", None, None), ("2", "x", 1)]
    assert log == []


# Configuration


def test_configuration_comes_from_the_section_of_the_source(
    sandbox: Sandbox, pipeline: dlt.Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        serve_rows(sandbox, name, cells_of(x=1))
    (tmp_path / "list.csv").write_text(f"workflow_id,execution_id\n{WORKFLOW},c\n")
    configured = {
        "BASE_URL": sandbox.base_url,
        "CLIENT_ID": sandbox.client_id,
        "CLIENT_SECRET": sandbox.client_secret,
        "EXECUTIONS": json.dumps([f"{WORKFLOW}/a", f"{WORKFLOW}/b"]),
        "EXECUTIONS_FILE": "list.csv",
        "MAX_REQUESTS_PER_SECOND": "1000",
        "ROW_TABLES": "false",
    }
    for key, value in configured.items():
        monkeypatch.setenv(f"SOURCES__FURTHER_SOURCE__{key}", value)

    pipeline.run(further_source())

    assert ids(pipeline, "executions") == ["a", "b", "c"]
    assert tables(pipeline) == {"executions", "steps", "cells"}


def test_configuration_comes_from_toml_files(sandbox: Sandbox, make_pipeline: MakePipeline, tmp_path: Path) -> None:
    serve_rows(sandbox, "a", cells_of(x=1))
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text(
        f'[sources.further_source]\nbase_url = "{sandbox.base_url}"\nexecutions = ["{WORKFLOW}/a"]\n'
        'terminal_statuses = ["completed"]\n'
    )
    (tmp_path / ".dlt" / "secrets.toml").write_text(
        f'[sources.further_source]\nclient_id = "{sandbox.client_id}"\nclient_secret = "{sandbox.client_secret}"\n'
    )
    Container()[PluggableRunContext].reload(str(tmp_path))

    make_pipeline().run(further_source())

    assert ids(make_pipeline(), "executions") == ["a"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"max_workers": 0}, "max_workers"),
        ({"max_requests_per_second": 0}, "max_requests_per_second"),
        ({"backoff_factor": 0.5}, "backoff_factor"),
        ({"initial_interval": 5, "max_interval": 1}, "initial_interval"),
        ({"base_url": "ftp://example.com"}, "base_url"),
        ({"base_url": "http://example.com"}, "base_url"),
        ({"polling": "hasty"}, "polling"),
        ({"max_wait": -1}, "max_wait"),
        ({"request_timeout": 0}, "request_timeout"),
        ({"commit_interval": -1}, "commit_interval"),
        ({"access_token": None}, "credentials"),
        ({"access_token": None, "client_id": "id"}, "client_secret"),
        ({"client_id": "id", "client_secret": "s"}, "access_token"),
        ({"terminal_statuses": []}, "terminal_statuses"),
        ({"terminal_statuses": "completed,failed"}, "terminal_statuses"),
        ({"terminal_statuses": [" Running"]}, "terminal_statuses"),
        ({"executions": "[1"}, "executions"),
        ({"executions": ["no slash"]}, "executions[0]"),
        ({"executions": 5}, "executions"),
        ({"executions_file": "missing.csv"}, "missing.csv"),
    ],
)
def test_wrong_configuration_is_told_in_a_line_before_anything_is_asked(
    sandbox: Sandbox, wrong: dict[str, Any], named: str
) -> None:
    arguments: dict[str, Any] = {"executions": [f"{WORKFLOW}/a"], **wrong}

    with pytest.raises(ConfigurationError) as failure:
        source_of(sandbox, **arguments)

    assert named in str(failure.value)
    assert "\n" not in str(failure.value)
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("MAX_WORKERS", "many"), ("MAX_WAIT", "-5"), ("ROW_TABLES", "maybe"), ("MAX_WORKERS", "1.5")],
)
def test_wrong_values_in_the_environment_name_their_key(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, key: str, value: str
) -> None:
    monkeypatch.setenv(f"SOURCES__FURTHER_SOURCE__{key}", value)

    with pytest.raises(Exception) as failure:
        further_source([f"{WORKFLOW}/a"], base_url=sandbox.base_url, access_token="t")

    told = as_further_error(failure.value)
    assert isinstance(told, ConfigurationError)
    assert key.lower() in str(told).lower()
    assert "\n" not in str(told)
    assert sandbox.requests == []


# Oddities on the wire


def test_bytes_that_are_no_json_end_as_a_row(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    serve_rows(sandbox, "good", cells_of(x=1))
    sandbox.add(WORKFLOW, "bad", Reply(200, b"\xff\x00<html>"))

    pipeline.run(source_of(sandbox, ["bad", "good"]))

    assert outcomes(pipeline) == {"bad": "invalid", "good": "completed"}
