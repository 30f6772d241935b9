"""The arguments of `report`, `review` and `threshold`, for people who look at what is loaded."""

import argparse

from further_source.command.arguments import types
from further_source.command.arguments.shared import add_destination, add_json

__all__ = ["REPORT", "REVIEW", "THRESHOLD", "add_report", "add_review", "add_threshold"]

REPORT = "Writes one HTML file: what is loaded, how confident its cells are, and what has changed."
REVIEW = "Gives people the cells to look at, and takes their verdicts."
_EXPORT = "Writes the cells that nobody has reviewed to a file, to be filled in: those below a confidence, or a sample."
_IMPORT = "Adds the verdicts of a file to the table reviews: all of them, or none where a row is wrong."
_SERVE = "Serves a page on this machine that shows the cells one at a time, and saves each verdict at once."
THRESHOLD = "Computes, from reviewed samples, above which confidence the error is at most a target."


def add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FILE.html", default="report.html", help="the file (default: report.html)")
    parser.add_argument(
        "--since",
        metavar="DATE",
        type=types.moment,
        help="count only what was loaded from this day on (UTC), and compare it with what was loaded before",
    )
    parser.add_argument("--values", action="store_true", help="show the values of the least confident cells, too")
    add_destination(parser)
    add_json(parser, "where the report is")


def add_review(parser: argparse.ArgumentParser, called: str) -> None:
    actions = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)

    def add(name: str, description: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(
            name, help=description, description=description, called=called
        )
        return added

    export = add("export", _EXPORT)
    _add_queue(export)
    export.add_argument("--out", metavar="FILE", required=True, help=".csv, .xlsx, or .json for Label Studio")
    add_destination(export)
    add_json(export, "how many there are")
    imported = add("import", _IMPORT)
    imported.add_argument("file", metavar="FILE", help="what `review export` wrote, filled in")
    imported.add_argument("--reviewer", metavar="NAME", help="who reviewed, where the file does not say (default: you)")
    add_destination(imported)
    add_json(imported, "how many were added")
    served = add("serve", _SERVE)
    _add_queue(served)
    served.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    served.add_argument("--port", type=int, default=8020, help="the port; 0 for any (default: 8020)")
    served.add_argument(
        "--allow-host", metavar="NAME", action="append", default=[], help="a name by which browsers may reach it"
    )
    add_destination(served)


def _add_queue(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--below",
        metavar="CONFIDENCE",
        type=types.share,
        help="cells of lower confidence, or none (default: below the thresholds)",
    )
    which.add_argument("--sample", metavar="N", type=types.count, help="about N cells over all confidences, by lot")
    parser.add_argument("--limit", metavar="N", type=types.count, help="at most N cells, the least sure first")


def add_threshold(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target-error", metavar="E", type=types.inner_share, required=True, help="the share of wrong values, as 0.01"
    )
    parser.add_argument(
        "--confidence",
        metavar="C",
        type=types.inner_share,
        default=0.95,
        help="how sure the promise is (default: 0.95)",
    )
    parser.add_argument(
        "--by", choices=("field", "step"), default="field", help="for each step and field, or for each step"
    )
    add_destination(parser)
    add_json(parser, "the thresholds")
