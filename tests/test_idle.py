"""A run that finds all its list loaded makes no load, and leaves out nothing else that a run does."""

import dlt
import pytest

from further_source import run_in_slices
from further_source.destination.forgotten import bury
from further_source.executions import ExecutionId
from further_source.sandbox import Sandbox
from tests.support.loading import WORKFLOW, asked, cells_of, query, serve_rows, source_of

LOADS = "SELECT count(*) FROM _dlt_loads"


@pytest.fixture
def loaded(pipeline: dlt.Pipeline, sandbox: Sandbox) -> dlt.Pipeline:
    serve_rows(sandbox, "ex", cells_of(a=1))
    run_in_slices(pipeline, source_of(sandbox, ["ex"]))
    return pipeline


def test_it_makes_no_load_and_tells_what_is_loaded(loaded: dlt.Pipeline, sandbox: Sandbox) -> None:
    loads = query(loaded, LOADS)
    told: list[int] = []
    report = run_in_slices(
        loaded, source_of(sandbox, ["ex"]), on_progress=lambda report: told.append(report.earlier.total())
    )
    assert (report.listed, report.earlier, report.remaining, report.loaded) == (1, {"completed": 1}, 0, 0)
    assert report.rows == {"executions": 0, "steps": 0, "cells": 0}
    assert report.all_completed
    assert told[-1] == 1
    assert query(loaded, LOADS) == loads
    assert asked(sandbox) == {"ex": 1}


@pytest.mark.parametrize("listed", [["ex"], ["ex", "new"]])
@pytest.mark.parametrize("gone", ["DROP TABLE steps", "ALTER TABLE cells DROP COLUMN extra"])
def test_what_somebody_dropped_is_made_again(
    gone: str, listed: list[str], loaded: dlt.Pipeline, sandbox: Sandbox
) -> None:
    serve_rows(sandbox, "new", cells_of(a=2))
    loads = query(loaded, LOADS)
    query(loaded, gone)
    run_in_slices(loaded, source_of(sandbox, listed))
    assert query(loaded, LOADS) != loads
    assert query(loaded, "SELECT count(*), count(extra) FROM cells") == [(len(listed), 0)]
    assert query(loaded, "SELECT count(*) >= 0 FROM steps") == [(True,)]


def test_rows_of_a_forgotten_execution_that_came_back_are_deleted(loaded: dlt.Pipeline, sandbox: Sandbox) -> None:
    with loaded.destination_client() as client:
        bury(loaded, client, [ExecutionId(WORKFLOW, "ex")])
    report = run_in_slices(loaded, source_of(sandbox, ["ex"]))
    assert report.forgotten == 1
    assert query(loaded, "SELECT (SELECT count(*) FROM executions) + (SELECT count(*) FROM cells)") == [(0,)]


def test_what_is_selected_beside_its_tables_is_loaded(loaded: dlt.Pipeline, sandbox: Sandbox) -> None:
    source = source_of(sandbox, ["ex"])
    source.resources.add(dlt.resource([{"name": "a"}], name="customers"))
    run_in_slices(loaded, source)
    assert query(loaded, "SELECT name FROM customers") == [("a",)]


def test_the_ledger_that_was_read_serves_the_load(loaded: dlt.Pipeline, sandbox: Sandbox) -> None:
    serve_rows(sandbox, "new", cells_of(a=2))
    report = run_in_slices(loaded, source_of(sandbox, ["ex", "new"]))
    assert (report.earlier.total(), report.ended.total()) == (1, 1)
    assert asked(sandbox) == {"ex": 1, "new": 1}
    assert query(loaded, "SELECT count(*) FROM cells") == [(2,)]
