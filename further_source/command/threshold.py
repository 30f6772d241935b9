"""`further-source threshold`: from which confidence on values need nobody to look at them."""

import argparse
import json
from typing import Any

from further_source.command import exit_codes
from further_source.command.failures import as_further_error, hide_tracebacks
from further_source.command.review import open_store
from further_source.command.signals import Stop
from further_source.console import show
from further_source.pipeline import set_defaults
from further_source.review.threshold import compute_thresholds

__all__ = ["run"]


def run(options: argparse.Namespace, stop: Stop) -> int:
    """Computes the thresholds, stores them in `thresholds`, and shows them."""
    set_defaults()
    hide_tracebacks()
    store = open_store(options)
    try:
        found = compute_thresholds(store, options.target_error, options.confidence, by_step=options.by == "step")
    except Exception as error:
        raise as_further_error(error) from error
    if options.json:
        show(
            json.dumps(
                {"thresholds": [{**one, "computed_at": one["computed_at"].isoformat()} for one in found]}, indent=2
            )
        )
    else:
        show("\n".join(map(_line, found)) or "no cell has a confidence")
    return exit_codes.OK


def _line(one: dict[str, Any]) -> str:
    name = " / ".join(str(part) for part in (one["step_name"], one["field"]) if part is not None)
    seen = f"{one['errors']} wrong of {one['reviewed']} reviewed"
    if one["threshold"] is None:
        return f"{name}: no promise yet, {seen}: review {one['reviews_needed']} more, at the least"
    share = one["cells_through"] / one["cells"]
    bound = f"at most {one['error_upper']:.2%} wrong"
    return f"{name}: from {one['threshold']:g} on, {share:.1%} go straight through ({seen}, {bound})"
