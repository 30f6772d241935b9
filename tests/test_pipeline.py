"""What the command does beyond the source, from Python."""

from pathlib import Path
from typing import Any

import dlt
import pytest

import further_source as package
from further_source import ConfigurationError, further_pipeline, only_load, run_in_slices, shard
from further_source.executions import ExecutionId
from further_source.sandbox import Sandbox
from tests.support.loading import WORKFLOW, cells_of, query, serve_rows, source_of


def test_every_public_name_can_be_imported() -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = package.nothing_of_that_name


def test_names_are_ours_unless_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = further_pipeline()
    assert (pipeline.pipeline_name, pipeline.dataset_name) == ("further", "further_data")
    assert pipeline.destination.destination_name == "duckdb"

    monkeypatch.setenv("PIPELINES__CLAIMS__DATASET_NAME", "claims_data")
    assert further_pipeline("claims").dataset_name == "claims_data"
    assert further_pipeline("claims", dataset_name="other").dataset_name == "other"


def test_it_sets_what_nobody_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME__DLTHUB_TELEMETRY")
    monkeypatch.setenv("DATA_WRITER__DISABLE_COMPRESSION", "false")
    further_pipeline()
    assert dlt.config.get("runtime.dlthub_telemetry", bool) is False
    assert dlt.config.get("data_writer.disable_compression", bool) is False


def test_what_cannot_work_is_named() -> None:
    with pytest.raises(ConfigurationError, match="DuckDB cannot tell it from its file"):
        further_pipeline(dataset_name="further")
    with pytest.raises(ConfigurationError, match="--shard"):
        further_pipeline(shard=(1, 2))


def test_parts_of_a_list_are_loaded_side_by_side(sandbox: Sandbox, postgres_url: str) -> None:
    listed = [ExecutionId(WORKFLOW, f"ex{number}") for number in range(6)]
    for execution in listed:
        serve_rows(sandbox, execution.workflow_execution_id, cells_of(x=execution.workflow_execution_id))
    destination: Any = dlt.destinations.postgres(postgres_url)
    for part in (1, 2):
        pipeline = further_pipeline(destination=destination, dataset_name="in_parts", shard=(part, 2))
        assert pipeline.pipeline_name == f"further_shard_{part}_of_2"
        with only_load(pipeline.pipeline_name, pipeline.pipelines_dir):
            run_in_slices(pipeline, source_of(sandbox, list(shard(listed, part, 2))), shared=True)
        staging = f"in_parts_staging_shard_{part}_of_2"
        assert query(pipeline, f"SELECT count(*) > 0 FROM pg_tables WHERE schemaname = '{staging}'") == [(True,)]

    assert query(pipeline, "SELECT workflow_execution_id FROM cells ORDER BY 1") == [
        (execution.workflow_execution_id,) for execution in listed
    ]
