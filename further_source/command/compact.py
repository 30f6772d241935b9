"""`further-source compact`."""

import argparse
import json
from dataclasses import asdict

from further_source.command import exit_codes
from further_source.command.locked import locked_pipeline
from further_source.command.signals import Stop
from further_source.console import show
from further_source.destination.compacting import compact

__all__ = ["run"]


def run(options: argparse.Namespace, stop: Stop) -> int:
    """Compacts all tables, and shows how many files they had and have; a signal ends it at once, and harms nothing."""
    with locked_pipeline(options) as (pipeline, _):
        done = compact(pipeline)
    if options.json:
        show(json.dumps({"tables": [asdict(one) for one in done]}, indent=2))
    else:
        lines = (f"{one.table}: {one.before} files are {one.after} now, {one.deleted} old ones deleted" for one in done)
        show("\n".join(lines))
    return exit_codes.OK
