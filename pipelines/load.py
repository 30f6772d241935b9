"""Polls the listed Further AI executions to completion and loads what they extracted.

    python pipelines/load.py [WORKFLOW_ID/EXECUTION_ID ...] [--executions FILE|-] [--demo]

Exit codes: 0 all asked and loaded, 1 could not run or finish, 2 wrong usage or configuration, 3 with --strict: not
all completed, 75 another load of this pipeline is running, 130 and 143 stopped by SIGINT and SIGTERM.
"""

import argparse
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

DUCKDB = "duckdb:///"
EXIT_FAILED, EXIT_USAGE, EXIT_NOT_COMPLETED, EXIT_ALREADY_RUNNING = 1, 2, 3, 75


class Stop:
    """Set by the first SIGINT or SIGTERM; a second one, or one before there is anything to load, ends it at once."""

    signal_number = 0
    anything_to_load = False

    def __call__(self) -> bool:
        return self.signal_number != 0

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        if self.signal_number or not self.anything_to_load:
            os._exit(128 + number)
        self.signal_number = number


class OneLineParser(argparse.ArgumentParser):
    """Tells wrong usage in one line."""

    def error(self, message: str) -> NoReturn:
        fail(message)
        raise SystemExit(EXIT_USAGE)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="load.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("ids", nargs="*", metavar="WORKFLOW_ID/EXECUTION_ID", help="executions to load")
    add(
        "--executions",
        metavar="FILE|-",
        help="a list of them: .csv, .jsonl or lines; path, fsspec URL or - for stdin",
    )
    add("--demo", action="store_true", help="load invented executions from a local stand-in of the API")
    add("--destination", metavar="NAME", help="dlt destination (default: as configured, else duckdb)")
    add("--dataset", metavar="NAME", help="dataset (default: as configured, else further_data)")
    add("--polling", metavar="PRESET", help="default, simple, standard, complex, bulk or steady")
    add(
        "--max-wait",
        metavar="SECONDS",
        type=float,
        help="how long each execution is waited for; 0 asks each once",
    )
    add("--shard", metavar="K/N", type=shard_of, help="only part K of N of the list, for N loads side by side")
    add("--reload", action="store_true", default=None, help="ask again for what is loaded, and replace it")
    add("--strict", action="store_true", help="exit 3 unless every listed execution completed")
    add("--quiet", action="store_true", help="show only warnings and errors")
    options = parser.parse_args(arguments)
    if options.demo and (options.ids or options.executions):
        parser.error("--demo loads executions of its own: leave out the ids and --executions")
    if options.demo and options.shard:
        parser.error("--demo loads executions of its own: leave out --shard")
    for name in ("executions", "destination", "dataset"):
        if getattr(options, name) == "":
            parser.error(f"--{name} is empty")
    return options


def shard_of(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no K/N with K from 1 to N")
    return int(match[1]), int(match[2])


def fail(message: str) -> None:
    from further_source.command.failures import one_line

    print(f"load.py: {one_line(message)}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    stop = Stop()
    stop.install()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: not every console has every character
    options = parse_arguments(arguments)
    try:
        code = run(options, stop)
    except Exception as error:
        code = tell(error)
        if code == EXIT_USAGE:
            return code
    return 128 + stop.signal_number if stop() and code != EXIT_FAILED else code


def tell(error: Exception) -> int:
    """Tells in one line what it failed of; returns the exit code."""
    from dlt.common import logger

    from further_source import AlreadyRunningError, ConfigurationError
    from further_source.command.failures import as_further_error

    told = as_further_error(error)
    fail(str(told))
    logger.info("in detail:", exc_info=error)
    if isinstance(told, ConfigurationError):
        return EXIT_USAGE
    return EXIT_ALREADY_RUNNING if isinstance(told, AlreadyRunningError) else EXIT_FAILED


def run(options: argparse.Namespace, stop: Stop) -> int:
    import dlt

    from further_source import CredentialsError, run_in_slices
    from further_source.command.display import show_progress, summary
    from further_source.command.failures import as_further_error
    from further_source.command.lock import only_load
    from further_source.session import Report

    set_defaults(dlt.config)
    with executions_to_load(options) as (source, anything_listed):
        settings = pipeline_settings(options)
        location, dataset = check_destination(settings)
        if location.startswith(DUCKDB):
            set_default(dlt.config, "load.workers", 1)  # each job uses all cores: two at once only take more memory
        table_format = configured_table_format(settings["destination"])
        with only_load(settings["pipeline_name"], settings["pipelines_dir"]):
            pipeline = dlt.pipeline(**settings)
            report, error = Report(), None
            with show_progress(quiet=options.quiet) as show:

                def on_progress(latest: Report) -> None:
                    nonlocal report
                    report = latest
                    show(latest)

                stop.anything_to_load = True
                try:
                    if anything_listed or not has_tables(pipeline, location):
                        run_in_slices(
                            pipeline,
                            source,
                            stop=stop,
                            on_progress=on_progress,
                            table_format=table_format,
                            shared=bool(options.shard),
                        )
                except Exception as raised:
                    error = as_further_error(raised, pipeline)
                    if error is not raised:
                        error.__cause__ = raised
            # Where the destination failed, what the report counts may not be there yet.
            if not options.quiet and (error is None or (isinstance(error, CredentialsError) and report.listed)):
                destination = pipeline.destination.destination_name
                show_result(summary(report, destination=destination, dataset=dataset, location=location))
                if options.demo and error is None:
                    show_result(review(pipeline, dataset))
    if error is not None:
        raise error
    if report.nothing_reached and not stop():
        fail(f"every execution asked was unreachable, the last with: {report.unreachable_error}")
        return EXIT_FAILED
    return EXIT_NOT_COMPLETED if options.strict and not report.all_completed else 0


def show_result(text: str) -> None:
    """Prints to standard output; to whoever stopped reading it, as `head` does, nothing."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def set_default(config: Any, key: str, value: Any) -> None:
    if config.get(key) is None:
        config[key] = value


def set_defaults(config: Any) -> None:
    """What a load wants of dlt, and of arrow, where nobody configured it."""
    from dlt.common import logger
    from dlt.common.configuration.exceptions import ConfigurationException
    from dlt.common.runtime.telemetry import stop_telemetry

    from further_source import ConfigurationError
    from further_source.command.failures import without_traceback

    defaults = {
        "runtime.dlthub_telemetry": False,  # insurers' machines do not call home
        "runtime.intercept_signals": False,  # signals stop polling, and let a load that has begun end
        "data_writer.disable_compression": True,  # gzip takes longer than all else in large loads
    }
    try:
        for key, value in defaults.items():
            set_default(config, key, value)
    except ConfigurationException:
        raise
    except ValueError as error:  # dlt made its logger
        raise ConfigurationError(f"runtime.log_level: {error}") from None
    if sys.platform == "linux":
        # Arrow's own allocator takes longer for tables that live a moment, and keeps more.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if not config.get("runtime.dlthub_telemetry", bool):
        stop_telemetry()  # dlt began it before anything could be configured
    if not logger.LOGGER.isEnabledFor(logging.INFO):
        logger.LOGGER.addFilter(without_traceback)


@contextmanager
def executions_to_load(options: argparse.Namespace) -> Iterator[Any]:
    """The source of what is listed, and whether anything is; with --demo that of a sandbox, which runs meanwhile."""
    from further_source import ConfigurationError, further_source, manifest
    from further_source.configuration import parse_list
    from further_source.settings import SOURCE_NAME

    given = {"polling": options.polling, "max_wait": options.max_wait, "reload": options.reload}
    given = {key: value for key, value in given.items() if value is not None}
    if options.demo:
        with demo_source(given) as source:
            yield source, True
        return

    import dlt

    section = f"sources.{SOURCE_NAME}"
    configured = parse_list("executions", dlt.config.get(f"{section}.executions")) or ()
    configured_file: Any = dlt.config.get(f"{section}.executions_file")
    if not (options.ids or options.executions or configured or configured_file):
        raise ConfigurationError(
            "no list of executions: give WORKFLOW_ID/EXECUTION_ID arguments or --executions FILE, or configure "
            f"executions or executions_file in [{section}]"
        )
    listed = manifest.merge_executions(
        manifest.read_executions(options.ids, origin="arguments"),
        manifest.read_executions_file(options.executions) if options.executions else (),
        manifest.read_executions(configured),
        manifest.read_executions_file(configured_file) if configured_file else (),
    )
    if options.shard:
        listed = list(manifest.shard(listed, *options.shard))
    yield further_source(executions=listed, executions_file="", **given), bool(listed)


@contextmanager
def demo_source(given: dict[str, Any]) -> Iterator[Any]:
    from further_source import further_source
    from further_source.sandbox import Sandbox

    demo: dict[str, Any] = {
        "initial_interval": 1,
        "max_interval": 1,
        "max_wait": 10,
        "max_requests_per_second": 20,
    }
    if "polling" in given:
        demo = {"max_wait": 10}
    with Sandbox() as sandbox:
        yield further_source(
            executions=sandbox.serve_demo(),
            executions_file="",
            base_url=sandbox.base_url,
            access_token="",
            client_id=sandbox.client_id,
            client_secret=sandbox.client_secret,
            **{**demo, **given},
        )


def pipeline_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Names, directory and destination of the pipeline: the command's, else dlt's configuration, else ours.

    Of the demo only the directory is as configured: invented data never goes where real data may be.
    """
    import dlt
    from dlt.common.configuration import resolve_configuration
    from dlt.common.pipeline import get_dlt_pipelines_dir
    from dlt.pipeline.configuration import PipelineConfiguration

    from further_source.settings import DATASET_NAME, DEMO_PIPELINE_NAME, PIPELINE_NAME

    name = DEMO_PIPELINE_NAME if options.demo else PIPELINE_NAME
    configured = resolve_configuration(PipelineConfiguration(pipeline_name=name), sections=("pipelines", name))
    if options.demo:
        destination: Any = dlt.destinations.duckdb(f"{name}.duckdb")
        dataset = f"{name}_data" if options.destination else DATASET_NAME
    else:
        destination = configured.destination_name or configured.destination_type or "duckdb"
        dataset = configured.dataset_name or DATASET_NAME
    settings = {
        "pipeline_name": name,
        "pipelines_dir": configured.pipelines_dir or get_dlt_pipelines_dir(),
        "destination": options.destination or destination,
        "dataset_name": options.dataset or dataset,
    }
    return shard_settings(settings, *options.shard) if options.shard else settings


def shard_settings(settings: dict[str, Any], index: int, count: int) -> dict[str, Any]:
    """Those of one of several loads side by side: the same dataset by way of a staging dataset of its own."""
    import dlt
    from dlt.common.destination import Destination

    from further_source import ConfigurationError

    name, shard = settings["destination"], f"shard_{index}_of_{count}"
    layout = "staging_dataset_name_layout"
    configured: Any = dlt.config.get(f"destination.{name}.{layout}") or dlt.config.get(f"destination.{layout}")
    destination: Any = Destination.from_reference(name, **{layout: f"{configured or '%s_staging'}_{shard}"})
    if destination.destination_type.endswith("duckdb"):
        raise ConfigurationError("--shard: only one process can write to a DuckDB file; choose another --destination")
    return {**settings, "pipeline_name": f"{settings['pipeline_name']}_{shard}", "destination": destination}


def check_destination(settings: dict[str, Any]) -> tuple[str, str]:
    """Where the data goes and what the dataset is called there, to show.

    Finds what is not configured before anything is asked or kept.
    """
    import tempfile
    from pathlib import Path

    import dlt

    from further_source import ConfigurationError
    from further_source.command.failures import one_line, printable

    dataset = settings["dataset_name"]
    if printable(dataset) != dataset:
        raise ConfigurationError(f"dataset {dataset!r} has characters that no name can have")
    with tempfile.TemporaryDirectory() as directory:
        pipeline = dlt.pipeline(**{**settings, "pipelines_dir": directory, "dataset_name": None})
        client: Any = pipeline.destination_client()
        config = client.config
        config.dataset_name = dataset
        if config.destination_type.endswith("duckdb"):
            file = Path(str(config.credentials.database))
            if file.stem.lower() == client.schema.naming.normalize_table_identifier(dataset).lower():
                raise ConfigurationError(
                    f"dataset {dataset}: DuckDB cannot tell it from its file {file.name}; choose another --dataset"
                )
            location = f"{DUCKDB}{file.absolute()}"  # as dlt shows it too, by way of all of sqlalchemy
        else:
            location = str(config)
        return one_line(location), config.normalize_dataset_name(client.schema)


def configured_table_format(destination: Any) -> str | None:
    """`table_format` of the destination's configuration: whether a data lake has Delta or Iceberg tables."""
    import dlt

    from further_source import ConfigurationError

    name = destination if isinstance(destination, str) else destination.destination_name
    key = f"destination.{name}.table_format"
    configured: Any = dlt.config.get(key)
    if configured not in (None, "", "delta", "iceberg"):
        raise ConfigurationError(f"{key}: {configured!r} is neither delta nor iceberg")
    return configured or None


def has_tables(pipeline: Any, location: str) -> bool:
    """Whether a load has made the tables, and left nothing to load: then an empty list is nothing to do.

    Only of a DuckDB file can that be told without a connection.
    """
    if not location.startswith(DUCKDB) or not os.path.exists(location.removeprefix(DUCKDB)):
        return False
    tables = pipeline.default_schema.tables if pipeline.default_schema_name else {}
    return {"executions", "steps", "cells"} <= tables.keys() and not pipeline.has_pending_data


def review(pipeline: Any, dataset: str) -> str:
    from further_source.command.display import review_query, text_table

    with pipeline.sql_client() as client, client.execute_query(review_query(dataset)) as cursor:
        return text_table([column[0] for column in cursor.description], cursor.fetchall())


if __name__ == "__main__":
    exit_code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not by way of the interpreter's own end: it has crashed there, all done, in a library's thread.
    os._exit(exit_code)
