"""What must work on any DuckDB that the package allows; CI runs it on more than the locked one."""

import dlt
import duckdb
import pytest

from further_source import run_in_slices
from further_source.sandbox import Sandbox, failed, running, step
from tests.support.loading import WORKFLOW, asked, cells_of, query, serve_rows, serve_steps, source_of, wide

MAJOR = int(duckdb.__version__.partition(".")[0])


@pytest.fixture
def loaded(sandbox: Sandbox, pipeline: dlt.Pipeline) -> dlt.Pipeline:
    serve_rows(sandbox, "a", cells_of(amount=1, zip="02139"), cells_of(amount="two"))
    sandbox.add(WORKFLOW, "b", running(WORKFLOW, "b"), failed(WORKFLOW, "b"))
    run_in_slices(pipeline, source_of(sandbox, ["a", "b"]))
    return pipeline


@pytest.mark.slow
def test_loads_are_incremental_and_replace(sandbox: Sandbox, loaded: dlt.Pipeline) -> None:
    run_in_slices(loaded, source_of(sandbox, ["a", "b"]))
    assert asked(sandbox) == {"a": 1, "b": 2}
    assert wide(loaded, "rows_extract") == [
        {"workflow_execution_id": "a", "amount": 1.0, "zip": "02139"},
        {"workflow_execution_id": "a", "amount__v_text": "two"},
    ]

    serve_rows(sandbox, "a", cells_of(amount=5, new=True))
    run_in_slices(loaded, source_of(sandbox, ["a"], reload=True))
    assert wide(loaded, "rows_extract") == [{"workflow_execution_id": "a", "amount": 5.0, "new": True}]

    serve_steps(sandbox, "a", step("Extract", []))
    run_in_slices(loaded, source_of(sandbox, ["a"], reload=True))
    assert wide(loaded, "rows_extract") == []
    assert query(loaded, "SELECT count(*) FROM cells") == [(0,)]
    assert query(loaded, "SELECT workflow_execution_id, poll_outcome FROM executions ORDER BY 1") == [
        ("a", "completed"),
        ("b", "failed"),
    ]


@pytest.mark.slow
def test_what_is_loaded_can_be_read_as_frames_and_rows(loaded: dlt.Pipeline) -> None:
    dataset = loaded.dataset()

    frame = dataset.cells.df()
    assert sorted(frame["value"]) == ["02139", "1", "two"]
    rows = dataset.cells.select("field", "value").fetchall()
    assert sorted(rows) == [("amount", "1"), ("amount", "two"), ("zip", "02139")]
    assert sum(len(chunk) for chunk in dataset.cells.iter_df(chunk_size=2)) == 3
    assert dataset.row_counts().fetchall() != []


def test_what_is_loaded_can_be_queried(loaded: dlt.Pipeline) -> None:
    found = loaded.dataset()("SELECT field, count(*) AS cells FROM cells GROUP BY field ORDER BY field")
    assert found.fetchall() == [("amount", 2), ("zip", 1)]


@pytest.mark.slow
@pytest.mark.filterwarnings(r"ignore:fetch_(arrow_table|record_batch)\(\) is deprecated:DeprecationWarning")
@pytest.mark.skipif(MAJOR >= 2, reason="dlt 1.31 calls fetch_arrow_table, which DuckDB 2 does not have")
def test_what_is_loaded_can_be_read_as_arrow(loaded: dlt.Pipeline) -> None:
    table = loaded.dataset().cells.arrow()
    assert sorted(table.column("value").to_pylist()) == ["02139", "1", "two"]
    assert sum(batch.num_rows for batch in loaded.dataset().cells.iter_arrow(chunk_size=2)) == 3
