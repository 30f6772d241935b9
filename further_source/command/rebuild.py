"""`further-source rebuild`."""

import argparse
import json

from further_source.command import exit_codes
from further_source.command.locked import locked_pipeline
from further_source.command.signals import Stop
from further_source.console import show
from further_source.rebuilding import rebuild

__all__ = ["run"]


def run(options: argparse.Namespace, stop: Stop) -> int:
    """Makes the wide tables anew, and shows how many rows they have."""
    with locked_pipeline(options) as (pipeline, _):
        stop.anything_to_load = True
        counts = rebuild(pipeline, options.step)
    if options.json:
        show(json.dumps({"rows": dict(counts)}, indent=2))
    else:
        show("\n".join(f"{counts[name]:>9} {name}" for name in sorted(counts)) or "nothing is loaded")
    return exit_codes.OK
