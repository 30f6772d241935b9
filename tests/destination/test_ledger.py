"""What the destination holds of a list."""

import dlt
import pytest

from further_source.destination.ledger import read_ledger
from further_source.executions import ExecutionId
from further_source.sandbox import Sandbox
from tests.support.loading import WORKFLOW, cells_of, query, serve_rows, source_of


@pytest.mark.slow
def test_all_that_the_destination_holds_is_read_however_much_it_is(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    serve_rows(sandbox, "ex", cells_of(x=1))
    pipeline.run(source_of(sandbox, ["ex"]))
    count = 120_000
    query(
        pipeline,
        "INSERT INTO executions SELECT executions.* REPLACE ('ex' || number AS workflow_execution_id) "
        f"FROM executions, range({count}) AS numbers(number)",
    )

    listed = [ExecutionId(WORKFLOW, f"ex{number}") for number in range(count)]
    ledger = read_ledger(pipeline, [*listed, ExecutionId(WORKFLOW, "new")])

    assert ledger.missing([*listed, ExecutionId(WORKFLOW, "new")]) == [ExecutionId(WORKFLOW, "new")]
