"""The pipeline of a load: its name, its destination, and what a load wants of dlt where nobody configured it."""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration import resolve_configuration
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination import Destination
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.pipeline.configuration import PipelineConfiguration

from further_source.destination.working_state import mend_working_state
from further_source.exceptions import ConfigurationError, FurtherError
from further_source.settings import DATASET_NAME, PIPELINE_NAME
from further_source.telemetry import stop_telemetry_unless_configured
from further_source.text import one_line, printable

__all__ = ["PipelineSettings", "further_pipeline", "pipeline_settings", "set_defaults"]

Shard = tuple[int, int]
"""Part K of N, as `(K, N)`."""

_DUCKDB = "duckdb:///"
_DEFAULTS = {
    "runtime.intercept_signals": False,  # signals stop polling, and let a load that has begun end
    "data_writer.disable_compression": True,  # gzip takes longer than all else in large loads
}


def further_pipeline(
    pipeline_name: str = PIPELINE_NAME,
    *,
    destination: Any = None,
    dataset_name: str | None = None,
    shard: Shard | None = None,
) -> dlt.Pipeline:
    """The pipeline that the command would load with, after `set_defaults`.

    Args:
        pipeline_name: With `shard` its part is added, as in `further_shard_1_of_4`.
        destination: As of `dlt.pipeline`; as configured unless given, else `duckdb`.
        dataset_name: As configured unless given, else `further_data`.
        shard: `(K, N)` for part K of N loads side by side into one dataset: such a pipeline has a staging dataset of
            its own. Run it with `run_in_slices(..., shared=True)` on `manifest.shard(executions, K, N)`.

    Raises:
        ConfigurationError: It cannot work; the message names the key or the argument.
    """
    set_defaults()
    settings = pipeline_settings(
        pipeline_name, destination=destination, dataset_name=dataset_name, shard=shard, configured=True
    )
    return settings.make()


def set_defaults() -> None:
    """Sets what a load wants of dlt, and of arrow, where nobody configured it.

    No telemetry; signals are left to the caller; files of loads are not compressed.

    Raises:
        ConfigurationError: `runtime.log_level` is none of Python's.
    """
    try:
        for key, value in _DEFAULTS.items():
            _set_default(key, value)
    except ConfigurationException:
        raise
    except ValueError as error:  # dlt made its logger
        raise ConfigurationError(f"runtime.log_level: {error}") from None
    if sys.platform == "linux":
        # Arrow's own allocator takes longer for tables that live a moment, and keeps more.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    stop_telemetry_unless_configured()


def _set_default(key: str, value: Any) -> None:
    if dlt.config.get(key) is None:
        dlt.config[key] = value


@dataclass(frozen=True)
class PipelineSettings:
    """What `dlt.pipeline` is called with, and where that leads.

    Attributes:
        location: Where the data goes, to show; without secrets.
        dataset: What the dataset is called there.
        table_format: `delta` or `iceberg`, where the destination's configuration has one.
    """

    pipeline_name: str
    pipelines_dir: str
    destination: Any
    dataset_name: str
    location: str
    dataset: str
    table_format: str | None

    @property
    def destination_name(self) -> str:
        return self.destination if isinstance(self.destination, str) else str(self.destination.destination_name)

    @property
    def duckdb_file(self) -> Path | None:
        """The file of a DuckDB destination."""
        return Path(self.location.removeprefix(_DUCKDB)) if self.location.startswith(_DUCKDB) else None

    def require_file(self) -> None:
        """For what only reads.

        Raises:
            FurtherError: The destination is a DuckDB file that is not there, and would be made.
        """
        if (file := self.duckdb_file) is not None and not file.exists():
            raise FurtherError(f"nothing is loaded: there is no {file}")

    def make(self) -> dlt.Pipeline:
        """The pipeline; its working directory is made now, or mended."""
        mend_working_state(self.pipeline_name, self.pipelines_dir)
        return dlt.pipeline(
            self.pipeline_name,
            pipelines_dir=self.pipelines_dir,
            destination=self.destination,
            dataset_name=self.dataset_name,
        )


def pipeline_settings(
    pipeline_name: str,
    *,
    destination: Any = None,
    dataset_name: str | None = None,
    shard: Shard | None = None,
    configured: bool = True,
) -> PipelineSettings:
    """Checked settings: what is given, else what dlt finds configured, else ours. Nothing is made or asked yet.

    Args:
        configured: Whether destination and dataset may come from the configuration.

    Raises:
        ConfigurationError: They cannot work.
    """
    found = resolve_configuration(
        PipelineConfiguration(pipeline_name=pipeline_name), sections=("pipelines", pipeline_name)
    )
    if configured:
        destination = destination or found.destination_name or found.destination_type
        dataset_name = dataset_name or found.dataset_name
    destination = destination or "duckdb"
    if shard:
        part = "shard_{}_of_{}".format(*shard)
        pipeline_name, destination = f"{pipeline_name}_{part}", _with_staging_of_its_own(destination, part)
    dataset_name = dataset_name or DATASET_NAME
    location, dataset_name, dataset = _location(pipeline_name, destination, dataset_name)
    return PipelineSettings(
        pipeline_name,
        found.pipelines_dir or get_dlt_pipelines_dir(),
        destination,
        dataset_name,
        location,
        dataset,
        _table_format(destination),
    )


def _with_staging_of_its_own(destination: Any, part: str) -> Any:
    layout = "staging_dataset_name_layout"
    name = destination if isinstance(destination, str) else destination.destination_name
    configured: Any = dlt.config.get(f"destination.{name}.{layout}") or dlt.config.get(f"destination.{layout}")
    own = {layout: f"{configured or '%s_staging'}_{part}"}
    if isinstance(destination, Destination):
        made: Any = type(destination)(**{**destination.config_params, **own})
    else:
        made = Destination.from_reference(destination, **own)
    if made.destination_type.endswith("duckdb"):
        raise ConfigurationError("--shard: only one process can write to a DuckDB file; choose another --destination")
    return made


def _location(pipeline_name: str, destination: Any, dataset_name: str) -> tuple[str, str, str]:
    """Where the data goes, what to call the dataset so that dlt need not warn of what it makes of the name, and what it
    is called there; finds what is not configured."""
    if printable(dataset_name) != dataset_name:
        raise ConfigurationError(f"dataset {dataset_name!r} has characters that no name can have")
    with tempfile.TemporaryDirectory() as directory:
        pipeline = dlt.pipeline(pipeline_name, pipelines_dir=directory, destination=destination)
        client: Any = pipeline.destination_client()
        config = client.config
        naming = client.schema.naming
        normalizes = getattr(config, "enable_dataset_name_normalization", False)
        name = naming.normalize_table_identifier(dataset_name) if normalizes else dataset_name
        config.dataset_name = name
        if config.destination_type.endswith("duckdb"):
            file = Path(str(config.credentials.database))
            if file.stem.lower() == naming.normalize_table_identifier(dataset_name).lower():
                raise ConfigurationError(
                    f"dataset {dataset_name}: DuckDB cannot tell it from its file {file.name}; choose another --dataset"
                )
            location = f"{_DUCKDB}{file.absolute()}"  # dlt shows it the same way, but imports all of sqlalchemy for it
        else:
            location = str(config)
        return one_line(location), name, config.normalize_dataset_name(client.schema)


def _table_format(destination: Any) -> str | None:
    name = destination if isinstance(destination, str) else destination.destination_name
    key = f"destination.{name}.table_format"
    configured: Any = dlt.config.get(key)
    if configured not in (None, "", "delta", "iceberg"):
        raise ConfigurationError(f"{key}: {configured!r} is neither delta nor iceberg")
    return configured or None
