"""What is loaded, read back from the destination."""

import dlt

from further_source.destination.stored import stored_answers
from further_source.sandbox import Sandbox, cell, completed, step
from tests.support.loading import WORKFLOW, query, source_of


def test_rows_of_the_same_fields_are_one_block_in_whatever_order_their_cells_stand(
    pipeline: dlt.Pipeline, sandbox: Sandbox
) -> None:
    rows = [{field: cell(f"{field}{row}", 0.5) for field in "abcde"} for row in range(40)]
    sandbox.serve(WORKFLOW, "ex", completed(WORKFLOW, "ex", [step("Extract", rows)]))
    pipeline.run(source_of(sandbox, ["ex"]))
    with pipeline.sql_client() as client:
        client.execute_sql("CREATE TABLE mixed AS SELECT * FROM cells ORDER BY hash(field || row_index)")
        client.execute_sql("DELETE FROM cells")
        client.execute_sql("INSERT INTO cells SELECT * FROM mixed")
    (first, *_) = query(pipeline, "SELECT field FROM cells WHERE row_index = 0 ORDER BY rowid")

    with pipeline.sql_client() as client:
        ((answer,),) = stored_answers(client)
    ((block,),) = [one.blocks for one in answer.steps]
    assert sorted(block.fields) == list("abcde")
    assert block.fields[:1] == first
    assert block.values == [f"{field}{row}" for row in range(40) for field in block.fields]
