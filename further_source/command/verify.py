"""`further-source verify`: whether all is there that the answers had."""

import argparse
import json

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity

from further_source.command import exit_codes
from further_source.command.locked import locked_pipeline
from further_source.command.signals import Stop
from further_source.console import show
from further_source.destination.catalog import knows_sql
from further_source.destination.field_records import first_wide_tables
from further_source.destination.lease import leased
from further_source.destination.stored import Incomplete, incomplete_executions, missing_wide_rows
from further_source.exceptions import ConfigurationError, FurtherError
from further_source.pipeline import PipelineSettings
from further_source.rebuilding import rebuild
from further_source.run import run_in_slices
from further_source.source import further_source

__all__ = ["run"]


def run(options: argparse.Namespace, stop: Stop) -> int:
    """Names what is incomplete, or asks the API for it again; exit code 3 where something is left."""
    with locked_pipeline(options) as (pipeline, settings):
        if not knows_sql(pipeline):
            raise ConfigurationError(f"verify: destination {settings.destination_name} knows no SQL")
        incomplete, missing = _look(pipeline)
        if options.repair and (incomplete or missing):
            stop.anything_to_load = True
            with leased(pipeline):
                _repair(pipeline, settings, incomplete, stop)
            incomplete, missing = _look(pipeline)
    _show(incomplete, missing, as_json=options.json)
    return exit_codes.NOT_COMPLETED if incomplete or missing else exit_codes.OK


def _look(pipeline: dlt.Pipeline) -> tuple[list[Incomplete], int]:
    """The executions that are incomplete, and how many rows too few all wide tables have (too many: below 0)."""
    first = first_wide_tables(pipeline)
    with pipeline.sql_client() as client:
        try:
            return incomplete_executions(client), missing_wide_rows(client, first) if first else 0
        except DestinationUndefinedEntity:
            raise FurtherError("nothing is loaded into this dataset yet") from None


def _repair(pipeline: dlt.Pipeline, settings: PipelineSettings, incomplete: list[Incomplete], stop: Stop) -> None:
    if incomplete:
        listed = [one.execution for one in incomplete]
        source = further_source(executions=listed, executions_file="", executions_query="", inbox="", reload=True)
        run_in_slices(pipeline, source, stop=stop, table_format=settings.table_format)
    first = first_wide_tables(pipeline)
    with pipeline.sql_client() as client:
        missing = missing_wide_rows(client, first) if first else 0
    if missing and not stop():
        rebuild(pipeline)


def _show(incomplete: list[Incomplete], missing: int, *, as_json: bool) -> None:
    if as_json:
        executions = [{**one.execution._asdict(), **_counts(one)} for one in incomplete]
        show(json.dumps({"incomplete": executions, "missing_wide_rows": missing}, indent=2))
        return
    lines = [str(one) for one in incomplete]
    if missing:
        lines.append(
            f"wide tables: {abs(missing)} rows too {'few' if missing > 0 else 'many'}: run `further-source rebuild`"
        )
    show("\n".join(lines) or "complete")


def _counts(one: Incomplete) -> dict[str, int]:
    counts = {"step_count": one.step_count, "steps": one.steps, "cell_count": one.cell_count, "cells": one.cells}
    return {**counts, "rows": one.rows}
