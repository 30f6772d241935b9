"""Loads into a data lake: Delta, Iceberg and plain parquet, in a directory and in an S3 of the tests' own."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import dlt
import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from dlt.common.libs.pyiceberg import get_iceberg_tables
from dlt.pipeline.exceptions import PipelineStepFailed

from further_source import ConfigurationError, run_in_slices
from further_source.command.failures import as_further_error
from further_source.run.report import Report
from further_source.sandbox import Sandbox, cell, completed, failed, running, step
from tests.conftest import MakePipeline
from tests.destination.conftest import AWS
from tests.support.command import Command, told
from tests.support.documents import PROJECT, Document
from tests.support.loading import WORKFLOW, asked, cells_of, serve_rows, source_of
from tests.support.slow import few_of

FORMATS = ["delta", "iceberg", "plain"]


class Lake:
    """A dataset of one table format, and the pipeline into it."""

    def __init__(self, url: str, table_format: str, pipelines_dir: Path, **storage: Any) -> None:
        self.url = url
        self.table_format = None if table_format == "plain" else table_format
        self.pipelines_dir = pipelines_dir
        self.storage = storage

    @property
    def pipeline(self) -> dlt.Pipeline:
        """Made anew, so that it meets what it loaded before."""
        return dlt.pipeline(
            "further",
            pipelines_dir=str(self.pipelines_dir),
            destination=dlt.destinations.filesystem(self.url, **self.storage),
            dataset_name="further_data",
        )

    def load(self, sandbox: Sandbox, executions: Any, **arguments: Any) -> Report:
        return run_in_slices(self.pipeline, source_of(sandbox, executions, **arguments), table_format=self.table_format)

    def forget(self) -> None:
        """Loses the pipeline's working directory."""
        shutil.rmtree(self.pipelines_dir)

    def rows(self, table: str, *columns: str) -> list[dict[str, Any]]:
        """The rows of a table as its format's own reader reads them, without nulls, in any order."""
        rows = self.read(table).to_pylist()
        kept = [{key: value for key, value in row.items() if value is not None} for row in rows]
        return [{key: row.get(key) for key in columns} for row in kept] if columns else kept

    def read(self, table: str) -> pa.Table:
        if self.table_format == "delta":
            return DeltaTable(f"{self.url}/further_data/{table}").to_pyarrow_table()
        if self.table_format == "iceberg":
            pipeline = self.pipeline
            pipeline.sync_destination()
            return get_iceberg_tables(pipeline, table)[table].scan().to_arrow()
        files = sorted(Path(self.url, "further_data", table).iterdir())
        assert {file.suffix for file in files} == {".parquet"}
        return pa.concat_tables([pq.read_table(file) for file in files], promote_options="default")


@pytest.fixture(params=["delta", pytest.param("iceberg", marks=pytest.mark.slow), "plain"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), request.param, tmp_path / "pipelines")


def test_a_field_that_comes_twice_in_a_row_can_be_loaded(sandbox: Sandbox, lake: Lake) -> None:
    """Iceberg refuses rows of the same key, and the load would fail in every run."""
    row = '{"Amount": {"value": 1}, "Name": {"value": "a"}, "Amount": {"value": "2"}}'
    body = json.dumps(completed(WORKFLOW, "ex", [step("Extract", [])])).replace('"data": []', f'"data": [{row}]')
    sandbox.serve(WORKFLOW, "ex", body.encode())
    lake.load(sandbox, ["ex"])

    cells = sorted(tuple(row.values()) for row in lake.rows("cells", "field", "value", "extra"))
    other = '{"other_cells":[{"value":"2","confidence_score":null,"duplicate":2}]}'
    if lake.table_format is None:
        assert cells == [("Amount", "1", None), ("Amount", "2", '{"duplicate":2}'), ("Name", "a", None)]
    else:
        assert cells == [("Amount", "1", other), ("Name", "a", None)]
    assert lake.rows("rows_extract", "amount", "name") == [{"amount": 1.0, "name": "a"}]


def test_every_table_can_be_read(sandbox: Sandbox, lake: Lake, log: list[str]) -> None:
    rows = [{"policy_number": cell("02139", 0.97), "premium": cell(1250.5, 1.0)}, {"tags": cell(["a"], None)}]
    answer = completed(WORKFLOW, "ex", [step("Extract Policy Details", rows, schema={"a": 1}, metadata={})])
    sandbox.serve(WORKFLOW, "ex", {**answer, "metadata": {"external_id": "INV-1", "pages": 3}})
    sandbox.serve(WORKFLOW, "bad", failed(WORKFLOW, "bad"))
    report = lake.load(sandbox, ["ex", "bad"])

    assert log == []
    assert report.ended == {"completed": 1, "failed": 1}
    executions = lake.rows(
        "executions", "workflow_id", "workflow_execution_id", "poll_outcome", "metadata__external_id", "metadata__pages"
    )
    assert sorted(tuple(row.values()) for row in executions) == [
        (WORKFLOW, "bad", "failed", None, None),
        (WORKFLOW, "ex", "completed", "INV-1", 3),
    ]
    keys = {"workflow_id": WORKFLOW, "workflow_execution_id": "ex", "step_index": 0}
    assert [{k: v for k, v in row.items() if not k.startswith("_dlt")} for row in lake.rows("steps")] == [
        {**keys, "step_name": "Extract Policy Details", "row_count": 2, "schema": '{"a":1}', "metadata": "{}"}
    ]
    cells = lake.rows("cells", "row_index", "field", "value", "value_type", "value_number", "confidence")
    assert sorted(map(tuple, map(dict.values, cells))) == [
        (0, "policy_number", "02139", "string", None, 0.97),
        (0, "premium", "1250.5", "number", 1250.5, 1.0),
        (1, "tags", '["a"]', "array", None, None),
    ]
    wide = lake.rows("rows_extract_policy_details", "row_index", "policy_number", "premium", "tags")
    assert sorted(map(tuple, map(dict.values, wide))) == [(0, "02139", 1250.5, None), (1, None, None, '["a"]')]


def test_what_ended_is_not_asked_again_even_after_the_working_directory_is_lost(sandbox: Sandbox, lake: Lake) -> None:
    serve_rows(sandbox, "a", cells_of(amount=1))
    sandbox.serve(WORKFLOW, "b", failed(WORKFLOW, "b"))
    lake.load(sandbox, ["a", "b"])
    lake.load(sandbox, ["a", "b"])
    lake.forget()
    serve_rows(sandbox, "c", cells_of(amount=3))
    report = lake.load(sandbox, ["a", "b", "c"])

    assert asked(sandbox) == {"a": 1, "b": 1, "c": 1}
    assert report.earlier == {"completed": 1, "failed": 1}
    assert sorted(row["workflow_execution_id"] for row in lake.rows("executions")) == ["a", "b", "c"]
    assert sorted(row["amount"] for row in lake.rows("rows_extract")) == [1.0, 3.0]


@pytest.mark.slow
def test_one_that_was_still_running_is_asked_again(sandbox: Sandbox, lake: Lake) -> None:
    serve_rows(sandbox, "a", cells_of(amount=1))
    ended = completed(WORKFLOW, "b", [step("Extract", [cells_of(amount=2)])])
    sandbox.add(WORKFLOW, "b", running(WORKFLOW, "b"), running(WORKFLOW, "b"), ended)
    for _ in range(4):
        lake.load(sandbox, ["a", "b"])

    assert asked(sandbox) == {"a": 1, "b": 3}
    outcomes = [row["poll_outcome"] for row in lake.rows("executions") if row["workflow_execution_id"] == "b"]
    assert sorted(outcomes) == (["completed"] if lake.table_format else ["completed", "running", "running"])
    assert sorted(row["amount"] for row in lake.rows("rows_extract")) == [1.0, 2.0]
    assert len(lake.rows("cells")) == 2


@pytest.mark.slow
def test_the_newest_row_of_each_execution_is_found_in_plain_files(sandbox: Sandbox, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "claims-lake"), "plain", tmp_path / "pipelines")
    serve_rows(sandbox, "a", cells_of(amount=1))
    sandbox.add(WORKFLOW, "b", running(WORKFLOW, "b"), running(WORKFLOW, "b"), failed(WORKFLOW, "b"))
    for _ in range(3):
        lake.load(sandbox, ["a", "b"])
    (query,) = Document(PROJECT / "docs" / "destinations.md").blocks("sql")

    found = duckdb.sql(query.code).select("workflow_execution_id", "poll_outcome").fetchall()
    assert sorted(found) == [("a", "completed"), ("b", "failed")]


@pytest.mark.slow
def test_new_fields_and_other_types_become_new_columns(sandbox: Sandbox, lake: Lake) -> None:
    serve_rows(sandbox, "a", cells_of(zip=2139))
    serve_rows(sandbox, "b", cells_of(zip="02139", city="Cambridge"))
    answer = completed(WORKFLOW, "c", [step("Extract", [cells_of(zip=True)]), step("Other", [cells_of(x=1)])])
    sandbox.serve(WORKFLOW, "c", {**answer, "metadata": {"pages": 3}})
    for name in ("a", "b", "c"):
        lake.load(sandbox, [name])
        lake.forget()

    wide = lake.rows("rows_extract", "workflow_execution_id", "zip", "zip__v_text", "zip__v_bool", "city")
    assert sorted(map(tuple, map(dict.values, wide))) == [
        ("a", 2139.0, None, None, None),
        ("b", None, "02139", None, "Cambridge"),
        ("c", None, None, True, None),
    ]
    assert [row["x"] for row in lake.rows("rows_other")] == [1.0]
    assert {row["workflow_execution_id"]: row.get("metadata__pages") for row in lake.rows("executions")} == {
        "a": None,
        "b": None,
        "c": 3,
    }


def test_reload_of_plain_files_is_refused_in_a_line_before_anything_is_asked(sandbox: Sandbox, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), "plain", tmp_path / "pipelines")
    serve_rows(sandbox, "ex", cells_of(a=1))
    lake.load(sandbox, ["ex"])
    with pytest.raises(PipelineStepFailed) as raised:
        lake.load(sandbox, ["ex"], reload=True)

    told = as_further_error(raised.value, lake.pipeline)
    assert isinstance(told, ConfigurationError)
    assert str(told) == "reload: this destination cannot take away what was loaded before; load into a new dataset"
    assert asked(sandbox) == {"ex": 1}
    assert not lake.pipeline.has_pending_data
    lake.load(sandbox, ["ex"])
    assert len(lake.rows("cells")) == 1


@pytest.fixture(params=["delta", pytest.param("iceberg", marks=pytest.mark.slow)])
def table_lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"), request.param, tmp_path / "pipelines")


def values_of(lake: Lake) -> list[tuple[str, int, str]]:
    """Execution, row and value of each cell."""
    rows = lake.rows("cells", "workflow_execution_id", "row_index", "value")
    return sorted(tuple(row.values()) for row in rows)


def test_a_reload_leaves_no_stale_row_step_or_cell_in_a_lake(sandbox: Sandbox, table_lake: Lake) -> None:
    """Also where an execution has fewer steps, rows or cells now, another field, or none at all."""
    lake = table_lake
    for name in ("fewer", "none", "other"):
        steps = [
            step("Extract", [cells_of(x=f"{name}{row}", y=row) for row in range(3)]),
            step("Second", [cells_of(z=1)]),
        ]
        sandbox.serve(WORKFLOW, name, completed(WORKFLOW, name, steps))
    lake.load(sandbox, ["fewer", "none", "other"])
    sandbox.serve(WORKFLOW, "fewer", completed(WORKFLOW, "fewer", [step("Extract", [cells_of(x="new", w=True)])]))
    sandbox.serve(WORKFLOW, "none", completed(WORKFLOW, "none", []))
    serve_rows(sandbox, "first", cells_of(x="f"))
    for _ in range(2):
        lake.load(sandbox, ["fewer", "none", "first"], reload=True)
        others = [("other", 0, "0"), ("other", 0, "1"), ("other", 0, "other0"), ("other", 1, "1")]
        others += [("other", 1, "other1"), ("other", 2, "2"), ("other", 2, "other2")]
        assert values_of(lake) == [("fewer", 0, "new"), ("fewer", 0, "true"), ("first", 0, "f"), *others]
        assert sorted(tuple(r.values()) for r in lake.rows("rows_extract", "workflow_execution_id", "x", "y", "w")) == [
            ("fewer", "new", None, True),
            ("first", "f", None, None),
            *[("other", f"other{row}", float(row), None) for row in range(3)],
        ]
        assert lake.rows("rows_second", "workflow_execution_id") == [{"workflow_execution_id": "other"}]
        indices = sorted(tuple(row.values()) for row in lake.rows("steps", "workflow_execution_id", "step_index"))
        assert indices == [("fewer", 0), ("first", 0), ("other", 0), ("other", 1)]
        executions = sorted(
            tuple(row.values()) for row in lake.rows("executions", "workflow_execution_id", "cell_count")
        )
        assert executions == [("fewer", 2), ("first", 1), ("none", 0), ("other", 7)]


@pytest.mark.slow
def test_cells_alone_are_replaced_by_each_load(sandbox: Sandbox, table_lake: Lake) -> None:
    """Without the table `executions` there is no ledger, and all is asked again."""
    serve_rows(sandbox, "a", cells_of(x=1), cells_of(x=2))
    for count in (2, 1, 0):
        serve_rows(sandbox, "a", *[cells_of(x=1)] * count)
        source = source_of(sandbox, ["a"]).with_resources("cells")
        run_in_slices(table_lake.pipeline, source, table_format=table_lake.table_format)
        assert len(table_lake.rows("cells")) == count


def test_a_load_that_was_never_finished_is_replaced_in_a_lake(sandbox: Sandbox, table_lake: Lake) -> None:
    """Its working directory was lost, or somebody deleted from `executions`."""
    serve_rows(sandbox, "a", cells_of(x=1), cells_of(x=2))
    serve_rows(sandbox, "b", cells_of(x=1))
    table_lake.load(sandbox, ["a", "b"])
    for file in Path(table_lake.url, "further_data", "_dlt_loads").iterdir():
        file.unlink()
    table_lake.forget()
    serve_rows(sandbox, "a", cells_of(x=3))
    report = table_lake.load(sandbox, ["a", "b"])
    assert report.earlier == {}
    assert values_of(table_lake) == [("a", 0, "3"), ("b", 0, "1")]
    assert len(table_lake.rows("executions")) == 2


@pytest.mark.slow
def test_tables_stay_of_the_format_that_they_were_made_in(sandbox: Sandbox, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"), "delta", tmp_path / "pipelines")
    serve_rows(sandbox, "a", cells_of(amount=1))
    sandbox.add(WORKFLOW, "b", running(WORKFLOW, "b"), failed(WORKFLOW, "b"))
    lake.load(sandbox, ["a", "b"])
    lake.forget()
    run_in_slices(lake.pipeline, source_of(sandbox, ["a", "b"]))  # nobody said delta

    assert asked(sandbox) == {"a": 1, "b": 2}
    assert sorted(lake.rows("executions", "workflow_execution_id", "poll_outcome"), key=str) == [
        {"workflow_execution_id": "a", "poll_outcome": "completed"},
        {"workflow_execution_id": "b", "poll_outcome": "failed"},
    ]


@pytest.fixture(params=few_of(FORMATS))
def s3_lake(request: pytest.FixtureRequest, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Configured as a user would, by the environment alone."""
    for key, value in {**AWS, "endpoint_url": s3}.items():
        monkeypatch.setenv(f"DESTINATION__FILESYSTEM__CREDENTIALS__{key.upper()}", value)
    bucket = f"lake-{request.param}"
    filesystem = fsspec.filesystem("s3", **fsspec_options(s3))
    filesystem.mkdir(bucket)
    return Lake(f"s3://{bucket}", request.param, tmp_path / "pipelines")


def fsspec_options(endpoint: str) -> dict[str, Any]:
    return {
        "key": "key",
        "secret": "secret",
        "client_kwargs": {"endpoint_url": endpoint, "region_name": "eu-central-1"},
    }


@pytest.mark.slow
def test_a_lake_on_s3(sandbox: Sandbox, s3: str, s3_lake: Lake, log: list[str]) -> None:
    serve_rows(sandbox, "a", cells_of(amount=1))
    ended = completed(WORKFLOW, "b", [step("Extract", [cells_of(amount="2")])])
    sandbox.add(WORKFLOW, "b", running(WORKFLOW, "b"), ended)
    s3_lake.load(sandbox, ["a", "b"])
    s3_lake.forget()
    report = s3_lake.load(sandbox, ["a", "b"])

    assert log == []
    assert asked(sandbox) == {"a": 1, "b": 2}
    assert report.earlier == {"completed": 1}
    table_format, url = s3_lake.table_format, f"{s3_lake.url}/further_data"
    options = {**AWS, "endpoint_url": s3, "allow_http": "true"}
    for table, count in [("executions", 2 if table_format else 3), ("steps", 2), ("cells", 2), ("rows_extract", 2)]:
        if table_format == "delta":
            assert DeltaTable(f"{url}/{table}", storage_options=options).to_pyarrow_table().num_rows == count
        elif table_format == "iceberg":
            assert len(s3_lake.rows(table)) == count
        else:
            filesystem = fsspec.filesystem("s3", **fsspec_options(s3))
            files = filesystem.glob(f"{url}/{table}/*")
            assert sum(pq.read_table(file, filesystem=filesystem).num_rows for file in files) == count


@pytest.mark.slow
def test_a_list_on_s3(sandbox: Sandbox, s3: str, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem = fsspec.filesystem("s3", **fsspec_options(s3))
    filesystem.mkdir("lists")
    filesystem.pipe("lists/executions.csv.gz", gzip.compress(b"workflow_id,execution_id\nwf,a\nwf,b\n"))
    for key, value in {**AWS, "endpoint_url": s3}.items():
        monkeypatch.setenv(
            {"region_name": "AWS_DEFAULT_REGION", "endpoint_url": "AWS_ENDPOINT_URL"}.get(key, key.upper()), value
        )
    for name in ("a", "b"):
        serve_rows(sandbox, name, cells_of(amount=1))
    report = run_in_slices(make_pipeline(), source_of(sandbox, None, executions_file="s3://lists/executions.csv.gz"))

    assert report.ended == {"completed": 2}
    assert asked(sandbox) == {"a": 1, "b": 1}


@pytest.fixture
def command(sandbox: Sandbox, tmp_path: Path) -> Command:
    command = Command(tmp_path, sandbox)
    command.environment["DESTINATION__FILESYSTEM__BUCKET_URL"] = str(tmp_path / "lake")
    return command


@pytest.mark.slow
@pytest.mark.parametrize("table_format", ["delta", "iceberg"])
def test_the_command_takes_the_table_format_from_the_configuration(
    table_format: str, sandbox: Sandbox, command: Command, tmp_path: Path
) -> None:
    serve_rows(sandbox, "a", cells_of(amount=1))
    command.environment["DESTINATION__FILESYSTEM__TABLE_FORMAT"] = table_format
    ran = command.run(f"{WORKFLOW}/a", "--destination", "filesystem", "--quiet")
    again = command.run_here(f"{WORKFLOW}/a", "--destination", "filesystem", "--quiet")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert (again.returncode, again.stderr) == (0, "")
    assert asked(sandbox) == {"a": 1}
    lake = Lake(str(tmp_path / "lake"), table_format, command.data_dir / "pipelines")
    assert [row["amount"] for row in lake.rows("rows_extract")] == [1.0]


def test_another_table_format_is_wrong_configuration(sandbox: Sandbox, command: Command, tmp_path: Path) -> None:
    command.environment["DESTINATION__FILESYSTEM__TABLE_FORMAT"] = "hudi"
    line = told(command.run_here(f"{WORKFLOW}/a", "--destination", "filesystem"), 2)

    assert line == "destination.filesystem.table_format: 'hudi' is neither delta nor iceberg"
    assert not asked(sandbox)
    assert not (tmp_path / "lake").exists()
