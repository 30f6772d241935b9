"""`further-source rebuild`."""

import argparse
import json

from further_source.command import exit_codes
from further_source.command.failures import as_further_error, hide_tracebacks
from further_source.command.signals import Stop
from further_source.console import show
from further_source.lock import only_load
from further_source.pipeline import pipeline_settings, set_defaults
from further_source.rebuilding import rebuild
from further_source.settings import PIPELINE_NAME
from further_source.source import check_configured_keys

__all__ = ["run"]


def run(options: argparse.Namespace, stop: Stop) -> int:
    """Makes the wide tables anew, and shows how many rows they have."""
    set_defaults()
    hide_tracebacks()
    check_configured_keys()
    settings = pipeline_settings(PIPELINE_NAME, destination=options.destination, dataset_name=options.dataset)
    settings.require_file()
    with only_load(settings.pipeline_name, settings.pipelines_dir):
        pipeline = settings.make()
        stop.anything_to_load = True
        try:
            counts = rebuild(pipeline, options.step)
        except Exception as error:
            raise as_further_error(error, pipeline) from error
    if options.json:
        show(json.dumps({"rows": dict(counts)}, indent=2))
    else:
        show("\n".join(f"{counts[name]:>9} {name}" for name in sorted(counts)) or "nothing is loaded")
    return exit_codes.OK
