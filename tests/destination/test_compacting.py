"""Tables of Delta and Iceberg are compacted, and nobody who reads or loads meanwhile is harmed."""

import os
import time
from pathlib import Path
from typing import Any

import dlt
import pytest
from deltalake import DeltaTable

from further_source import ConfigurationError, run_in_slices
from further_source.destination.compacting import Compacted, compact
from further_source.sandbox import Sandbox
from tests.support.campaign import contents_of_lake
from tests.support.loading import asked, cells_of, serve_rows, source_of

LOADS = 4
TABLES = {"executions", "steps", "cells", "rows_extract"}
AGE = {"delta": "delta.deletedFileRetentionDuration", "iceberg": "history.expire.max-snapshot-age-ms"}
DAY = 24 * 3600


class Lake:
    def __init__(self, directory: Path, table_format: str) -> None:
        self.directory = directory
        self.table_format = table_format

    @property
    def pipeline(self) -> dlt.Pipeline:
        return dlt.pipeline(
            "further",
            pipelines_dir=str(self.directory / "pipelines"),
            destination=dlt.destinations.filesystem(str(self.directory / "lake")),
            dataset_name="further_data",
        )

    def load(self, sandbox: Sandbox, *names: str, **arguments: Any) -> None:
        run_in_slices(self.pipeline, source_of(sandbox, list(names), **arguments), table_format=self.table_format)

    def load_several(self, sandbox: Sandbox, **arguments: Any) -> None:
        for number in range(LOADS):
            serve_rows(sandbox, f"ex{number}", cells_of(x=number), cells_of(x=number, y="y"))
            self.load(sandbox, f"ex{number}", **arguments)

    def contents(self) -> dict[str, list[Any]]:
        return contents_of_lake(self.pipeline, self.table_format)

    def compact(self) -> dict[str, Compacted]:
        return {one.table: one for one in compact(self.pipeline)}

    def opened(self, table: str) -> Any:
        client: Any = self.pipeline.destination_client()
        return client.load_open_table(self.table_format, table)

    def files(self) -> set[Path]:
        return {path for path in (self.directory / "lake").rglob("*.parquet") if "_delta_log" not in path.parts}


@pytest.fixture(params=["delta", pytest.param("iceberg", marks=pytest.mark.slow)])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(tmp_path, request.param)


def test_small_files_become_one_and_what_a_reader_may_need_stays(sandbox: Sandbox, lake: Lake) -> None:
    lake.load_several(sandbox)
    contents, files = lake.contents(), lake.files()
    reader = lake.opened("cells")
    done = lake.compact()
    assert {table for table, one in done.items() if (one.before, one.after) == (LOADS, 1)} == TABLES
    assert [one.deleted for one in done.values()] == [0] * len(done)
    assert lake.files() > files
    assert lake.contents() == contents
    rows = reader.to_pyarrow_table() if lake.table_format == "delta" else reader.scan().to_arrow()
    assert rows.num_rows == len(contents["cells"])
    again = lake.compact()
    assert all(one.before == one.after for one in again.values())
    lake.load(sandbox, "ex0", reload=True)
    assert lake.contents() == contents


@pytest.mark.slow
def test_what_is_old_enough_is_deleted_and_what_is_used_stays(sandbox: Sandbox, lake: Lake) -> None:
    lake.load_several(sandbox)
    contents = lake.contents()
    for table in TABLES:
        found = lake.opened(table)
        if lake.table_format == "delta":
            found.alter.set_table_properties({AGE["delta"]: "interval 0 hours"})
        else:
            with found.transaction() as transaction:
                transaction.set_properties({AGE["iceberg"]: "0"})
    lake.compact()
    old = time.time() - 2 * DAY
    for path in (lake.directory / "lake").rglob("*"):
        os.utime(path, (old, old))
    stray = lake.directory / "lake" / "further_data" / "cells" / "data" / "written-now.parquet"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"of a load that has not committed yet")
    lake.compact()
    assert lake.contents() == contents
    if lake.table_format == "iceberg":
        assert stray.exists()
        stray.unlink()
        assert len(lake.opened("cells").metadata.snapshots) <= 2
        assert len(lake.files()) < 2 * len(TABLES) + 2
    else:
        assert len(lake.files()) == len(lake.opened("fields").file_uris()) + len(TABLES)
    lake.load(sandbox, *[f"ex{number}" for number in range(LOADS)], reload=True)
    assert lake.contents() == contents


def test_loads_compact_as_they_are_configured(sandbox: Sandbox, tmp_path: Path) -> None:
    lake = Lake(tmp_path, "delta")
    lake.load_several(sandbox, compact_every=3)
    cells = DeltaTable(str(tmp_path / "lake" / "further_data" / "cells"))
    assert len(cells.file_uris()) == 2
    assert asked(sandbox) == {f"ex{number}": 1 for number in range(LOADS)}


@pytest.mark.parametrize("destination", ["duckdb", "plain files"])
def test_what_has_no_such_tables_is_told_in_a_line(tmp_path: Path, destination: str) -> None:
    pipeline = dlt.pipeline(
        "further",
        pipelines_dir=str(tmp_path / "pipelines"),
        destination=dlt.destinations.filesystem(str(tmp_path / "lake")) if destination == "plain files" else "duckdb",
        dataset_name="further_data",
    )
    with pytest.raises(ConfigurationError, match=r"^compact: [^\n]*Delta and Iceberg|of Delta or Iceberg") as told:
        compact(pipeline)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "lake").exists()
