"""`further-source load` and `further-source demo`."""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import dlt
import duckdb
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.extract import DltSource

from further_source.command import exit_codes
from further_source.command.display import review_query, summary, summary_document, text_table
from further_source.command.failures import as_further_error, exit_code_of, hide_tracebacks
from further_source.command.listing import listed_executions
from further_source.command.progress import show_progress
from further_source.command.signals import Stop
from further_source.console import show
from further_source.destination.lease_table import LEASES
from further_source.destination.pending import has_pending
from further_source.exceptions import ConfigurationError, CredentialsError, FurtherError
from further_source.inbox.store import Inbox
from further_source.lock import only_load
from further_source.pipeline import PipelineSettings, pipeline_settings, set_defaults
from further_source.run import run_in_slices
from further_source.run.arrivals import ONE_LOAD
from further_source.run.report import Report
from further_source.sandbox import Sandbox
from further_source.settings import DATASET_NAME, DEMO_PIPELINE_NAME, PIPELINE_NAME, SOURCE_NAME
from further_source.source import check_configured_keys, further_source
from further_source.tables.columns import CELLS, EXECUTIONS, STEPS

__all__ = ["run"]


def run(options: argparse.Namespace, stop: Stop) -> int:
    """Loads, shows how that goes and how it went, and returns the exit code.

    Raises:
        FurtherError: What it failed of. What had arrived is loaded, or waits for the next run.
    """
    set_defaults()
    hide_tracebacks()
    check_configured_keys()
    with _source(options) as (source, anything_listed):
        settings = _pipeline_settings(options)
        with only_load(settings.pipeline_name, settings.pipelines_dir):
            pipeline = settings.make()
            stop.anything_to_load = True
            load = partial(
                run_in_slices,
                pipeline,
                source,
                stop=stop,
                table_format=settings.table_format,
                shared=bool(options.shard),
            )
            with _no_empty_database(settings.duckdb_file):
                report, error = _load(pipeline, load, stop, quiet=options.quiet, anything_listed=anything_listed)
            if error is None and report.nothing_reached and not stop():
                error = FurtherError(
                    f"every execution asked was unreachable, the last with: {report.unreachable_error}"
                )
            code = _exit_code(report, error, stop, strict=options.strict)
            if options.json:
                show(json.dumps(summary_document(report, settings, error=error, exit_code=code), indent=2))
            elif not options.quiet and not _is_doubtful(report, error):
                show(summary(report, settings))
                if options.demo and error is None:
                    show(_review(pipeline, settings.dataset))
                    show(f"report: {_write_report(pipeline, settings)} (open it in a browser)")
    if error is not None:
        raise error
    return code


def _load(
    pipeline: dlt.Pipeline, load: Callable[..., Report], stop: Stop, *, quiet: bool, anything_listed: bool
) -> tuple[Report, FurtherError | None]:
    """How the run went, as far as it came, and what it failed of."""
    report = Report()
    with show_progress(quiet=quiet, stop=stop) as show_report:

        def on_progress(latest: Report) -> None:
            nonlocal report
            report = latest
            show_report(latest)

        try:
            if anything_listed or has_pending(pipeline) or not _has_tables(pipeline):
                load(on_progress=on_progress)
        except Exception as raised:
            error = as_further_error(raised, pipeline)
            if error is not raised:
                error.__cause__ = raised
            return report, error
    return report, None


@contextmanager
def _no_empty_database(file: Path | None) -> Iterator[None]:
    """Takes away a DuckDB file that was made within, by looking at it, and has no table but that of leases."""
    was_there = file is None or file.exists()
    yield
    if file is None or was_there or not file.exists():
        return
    with suppress(duckdb.Error, OSError):
        with duckdb.connect(str(file)) as connection:
            is_empty = not connection.execute(
                "SELECT 1 FROM duckdb_tables() WHERE table_name <> ? "
                "UNION ALL SELECT 1 FROM duckdb_views() WHERE NOT internal",
                [LEASES],
            ).fetchone()
            if is_empty and os.name != "nt":
                file.unlink()  # while it is locked, so that no other process has begun to write to it
        if is_empty and os.name == "nt":
            file.unlink()  # Windows deletes nothing that is open


def _exit_code(report: Report, error: FurtherError | None, stop: Stop, *, strict: bool) -> int:
    if error is not None:
        return exit_code_of(error)
    if stop():
        return exit_codes.of_signal(stop.signal_number)
    return exit_codes.NOT_COMPLETED if strict and not report.all_completed else exit_codes.OK


def _is_doubtful(report: Report, error: FurtherError | None) -> bool:
    """Whether what the report counts may not be there: where the destination failed, or nothing had begun."""
    if error is None or report.nothing_reached:
        return False
    return not (isinstance(error, CredentialsError) and report.listed)


@contextmanager
def _source(options: argparse.Namespace) -> Iterator[tuple[DltSource, bool]]:
    """The source of what is listed, and whether anything is; with --demo that of a sandbox, which runs meanwhile."""
    given = {
        "polling": options.polling,
        "max_wait": options.max_wait,
        "reload": options.reload,
        "inbox": options.inbox,
        "verify_deliveries": options.verify,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if options.demo:
        with Sandbox() as sandbox:
            yield _demo_source(sandbox, given), True
    else:
        listed = listed_executions(options)
        if options.shard and _inbox(options):
            raise ConfigurationError(f"--shard: {ONE_LOAD}")
        source = further_source(executions=listed.given(), executions_file="", executions_query="", **given)
        anything = listed.executions or listed.queries
        yield source, bool(anything) or bool((inbox := _inbox(options)) and not Inbox(inbox).is_empty)


def _inbox(options: argparse.Namespace) -> Any:
    return options.inbox or dlt.config.get(f"sources.{SOURCE_NAME}.inbox")


def _demo_source(sandbox: Sandbox, given: dict[str, Any]) -> DltSource:
    hurry: dict[str, Any] = {"initial_interval": 1, "max_interval": 1, "max_requests_per_second": 20}
    return further_source(
        executions=sandbox.serve_demo(),
        executions_file="",
        executions_query="",
        inbox="",
        base_url=sandbox.base_url,
        access_token="",
        client_id=sandbox.client_id,
        client_secret=sandbox.client_secret,
        **{"max_wait": 10, **({} if "polling" in given else hurry), **given},
    )


def _pipeline_settings(options: argparse.Namespace) -> PipelineSettings:
    """Those of the options. Invented data never goes where real data may be: the demo's are its own."""
    if not options.demo:
        return pipeline_settings(
            PIPELINE_NAME, destination=options.destination, dataset_name=options.dataset, shard=options.shard
        )
    destination = options.destination or dlt.destinations.duckdb(f"{DEMO_PIPELINE_NAME}.duckdb")
    dataset = options.dataset or (f"{DEMO_PIPELINE_NAME}_data" if options.destination else DATASET_NAME)
    return pipeline_settings(DEMO_PIPELINE_NAME, destination=destination, dataset_name=dataset)


def _has_tables(pipeline: dlt.Pipeline) -> bool:
    """Whether the dataset has the tables that exist after any load."""
    client: Any = pipeline.destination_client()
    try:
        with client:
            return all(columns for _, columns in client.get_storage_tables([EXECUTIONS.name, STEPS.name, CELLS.name]))
    except DestinationUndefinedEntity:
        return False


def _write_report(pipeline: dlt.Pipeline, settings: PipelineSettings) -> Path:
    path = Path(f"{DEMO_PIPELINE_NAME}.html").absolute()
    import_module("further_source.command.report").write_report(pipeline, settings, path)  # loads go without
    return path


def _review(pipeline: dlt.Pipeline, dataset: str) -> str:
    with pipeline.sql_client() as client, client.execute_query(review_query(dataset)) as cursor:
        return text_table([column[0] for column in cursor.description], cursor.fetchall())
