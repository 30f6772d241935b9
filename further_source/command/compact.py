"""`further-source compact`."""

import argparse
import json
from dataclasses import asdict

from further_source.command import exit_codes
from further_source.command.failures import as_further_error, hide_tracebacks
from further_source.command.signals import Stop
from further_source.console import show
from further_source.destination.compacting import compact
from further_source.lock import only_load
from further_source.pipeline import pipeline_settings, set_defaults
from further_source.settings import PIPELINE_NAME
from further_source.source import check_configured_keys

__all__ = ["run"]


def run(options: argparse.Namespace, stop: Stop) -> int:
    """Compacts all tables, and shows how many files they had and have; a signal ends it at once, and harms nothing."""
    set_defaults()
    hide_tracebacks()
    check_configured_keys()
    settings = pipeline_settings(PIPELINE_NAME, destination=options.destination, dataset_name=options.dataset)
    settings.require_file()
    with only_load(settings.pipeline_name, settings.pipelines_dir):
        pipeline = settings.make()
        try:
            done = compact(pipeline)
        except Exception as error:
            raise as_further_error(error, pipeline) from error
    if options.json:
        show(json.dumps({"tables": [asdict(one) for one in done]}, indent=2))
    else:
        lines = (f"{one.table}: {one.before} files are {one.after} now, {one.deleted} old ones deleted" for one in done)
        show("\n".join(lines))
    return exit_codes.OK
