"""Loads in any order, from any working directory, under any name: each value is in the column that `fields` names."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt
import pytest

from further_source import run_in_slices
from further_source.sandbox import Sandbox, cell, completed, step
from tests.support.loading import WORKFLOW, query, source_of
from tests.support.slow import few_of

# Of a step, by execution: keys that become one name, each with values of all types.
ROWS: dict[str, list[dict[str, Any]]] = {
    "numbers": [{"Deductible (%)": 5, "zip": 2139, "ok": 1, "x": 1.5}],
    "texts": [{"Deductible ($)": "25000", "zip": "02139", "ok": "yes", "x": "1.50"}],
    "booleans": [{"Deductible (%)": True, "Deductible ($)": False, "zip": True, "ok": True, "x": None}],
    "mixed": [{"deductible_percent": 7, "Zip": "1", "ok": None}, {"deductible dollar": "8", "ZIP": 2, "x": [1, "a"]}],
}
STEPS = {"numbers": "Extract", "texts": "Extract", "booleans": "extract", "mixed": "Extract"}


def serve(sandbox: Sandbox) -> None:
    for name, rows in ROWS.items():
        cells = [{field: cell(value, 0.5) for field, value in row.items()} for row in rows]
        sandbox.serve(WORKFLOW, name, completed(WORKFLOW, name, [step(STEPS[name], cells)]))


class World:
    """Working directories and pipeline names that know nothing of each other, and one dataset."""

    def __init__(self, directory: Path, destination: Callable[..., Any], dataset: str, sandbox: Sandbox) -> None:
        self.directory, self.destination, self.dataset, self.sandbox = directory, destination, dataset, sandbox

    def pipeline(self, where: str, name: str, **settings: Any) -> dlt.Pipeline:
        return dlt.pipeline(
            name,
            pipelines_dir=str(self.directory / where),
            destination=self.destination(**settings),
            dataset_name=self.dataset,
        )

    def load(self, execution: str, *, where: str, name: str, how: str) -> None:
        pipeline = self.pipeline(where, name)
        if how == "aborted":
            # As where a run was killed and somebody dropped its package; the columns it made may be there.
            pipeline.extract(source_of(self.sandbox, [execution]))
            pipeline.normalize()
            pipeline.abort_packages()
        elif how == "shard":
            shard = self.pipeline(where, f"{name}_shard", staging_dataset_name_layout="%s_staging_shard")
            run_in_slices(shard, source_of(self.sandbox, [execution]), shared=True)
        elif how == "run":
            pipeline.run(source_of(self.sandbox, [execution]))
        run_in_slices(pipeline, source_of(self.sandbox, [execution]))

    def check(self) -> None:
        """Each cell stands where `fields` says, as its own type, and nowhere else in its row."""
        pipeline = self.pipeline("reader", "reader")
        keys = "rows_table, step_name, field, text_column, number_column, boolean_column"
        fields = {(row[1], row[2]): row for row in query(pipeline, f"SELECT {keys} FROM fields") if row[2] is not None}
        columns = [column for row in fields.values() for column in row[3:] if column is not None]
        by_table = [(row[0], column) for row in fields.values() for column in row[3:] if column is not None]
        assert len(columns) >= 4
        assert len(set(by_table)) == len(by_table), "two fields share a column"
        for execution, rows in ROWS.items():
            for index, row in enumerate(rows):
                for field, value in row.items():
                    self.check_value(pipeline, fields[STEPS[execution], field], execution, index, value)

    def check_value(self, pipeline: dlt.Pipeline, field: Any, execution: str, index: int, value: Any) -> None:
        table, of_kinds = field[0], field[3:]
        found = []
        for column in of_kinds:
            if column is not None:
                where = f"workflow_execution_id = '{execution}' AND row_index = {index}"
                ((stored,),) = query(pipeline, f'SELECT "{column}" FROM {table} WHERE {where}')
                found.append(stored)
            else:
                found.append(None)
        text = '[1,"a"]' if isinstance(value, list) else value if isinstance(value, str) else None
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        assert found == [text, number, value if isinstance(value, bool) else None], (field, execution)


def in_some_order(world: World, seed: int) -> None:
    chosen = random.Random(seed)  # noqa: S311
    executions = chosen.sample(list(ROWS), k=len(ROWS))
    for execution in executions:
        how = chosen.choice(["slices", "run", "aborted", "shard"])
        world.load(execution, where=chosen.choice("abc"), name=chosen.choice(["further", "claims"]), how=how)
    world.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=() if seed % 5 == 0 else pytest.mark.campaign) for seed in range(16)]
)
def test_on_duckdb(seed: int, sandbox: Sandbox, tmp_path: Path) -> None:
    serve(sandbox)
    database = str(tmp_path / "world.duckdb")
    in_some_order(
        World(tmp_path, lambda **settings: dlt.destinations.duckdb(database, **settings), "world_data", sandbox), seed
    )


@pytest.mark.parametrize("seed", few_of(range(8)))
def test_on_postgres(seed: int, sandbox: Sandbox, tmp_path: Path, postgres_url: str) -> None:
    serve(sandbox)
    in_some_order(
        World(
            tmp_path,
            lambda **settings: dlt.destinations.postgres(postgres_url, **settings),
            f"world_{seed}",
            sandbox,
        ),
        seed,
    )


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["DROP TABLE rows_extract", "ALTER TABLE rows_extract DROP COLUMN zip"])
@pytest.mark.parametrize("kind", few_of(["duckdb", "postgres"]))
def test_what_somebody_dropped_does_not_stop_loads(
    kind: str, damage: str, sandbox: Sandbox, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    serve(sandbox)
    if kind == "duckdb":
        made: Callable[..., Any] = lambda **_: dlt.destinations.duckdb(str(tmp_path / "world.duckdb"))  # noqa: E731
    else:
        url = request.getfixturevalue("postgres_url")
        made = lambda **_: dlt.destinations.postgres(url)  # noqa: E731
    world = World(tmp_path, made, f"dropped_{len(damage)}", sandbox)
    world.load("numbers", where="a", name="further", how="slices")
    with world.pipeline("a", "further").sql_client() as client:
        client.execute_sql(damage)
    for execution in ("texts", "booleans", "mixed"):
        world.load(execution, where="a", name="further", how="slices")
    pipeline = world.pipeline("a", "further")
    run_in_slices(pipeline, source_of(sandbox, list(ROWS), reload=True))
    world.check()
