"""`further-source report`: what is loaded, how sure it is and what changed, in one HTML file."""

import argparse
import json
import os
import tempfile
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import dlt

from further_source.command import exit_codes
from further_source.command.failures import as_further_error, hide_tracebacks
from further_source.command.outfile import out_file
from further_source.command.signals import Stop
from further_source.console import show
from further_source.lock import only_load
from further_source.pipeline import PipelineSettings, pipeline_settings, set_defaults
from further_source.report.figures import read_figures
from further_source.report.page import page
from further_source.settings import PIPELINE_NAME

__all__ = ["run", "write_report"]


def run(options: argparse.Namespace, stop: Stop) -> int:
    """Writes the file and shows where it is."""
    set_defaults()
    hide_tracebacks()
    settings = pipeline_settings(PIPELINE_NAME, destination=options.destination, dataset_name=options.dataset)
    out = out_file(options.out)
    settings.require_file()
    # A DuckDB file is one process's at a time; elsewhere a load may go on meanwhile.
    alone = only_load(settings.pipeline_name, settings.pipelines_dir) if settings.duckdb_file else nullcontext()
    with alone, tempfile.TemporaryDirectory() as directory:  # nothing is to be left in the pipeline's own
        pipeline = replace(settings, pipelines_dir=directory).make()
        try:
            write_report(pipeline, settings, out, since=options.since, values=options.values)
        except Exception as error:
            raise as_further_error(error, pipeline) from error
    show(json.dumps({"report": str(out.absolute())}, indent=2) if options.json else str(out.absolute()))
    return exit_codes.OK


def write_report(
    pipeline: dlt.Pipeline,
    settings: PipelineSettings,
    out: Path,
    *,
    since: datetime | None = None,
    values: bool = False,
) -> None:
    """Writes the whole file or none. What holds values can be read by its owner alone."""
    figures = read_figures(pipeline, since, values=values)
    made_at = datetime.now(timezone.utc)
    text = page(figures, dataset=f"{settings.dataset} in {settings.destination_name}", made_at=made_at)
    part = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with open(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if values else 0o666), "w", encoding="utf-8"
        ) as file:
            file.write(text)
        part.replace(out)
    finally:
        with suppress(OSError):
            part.unlink()
