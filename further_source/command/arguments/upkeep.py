"""The arguments of `rebuild`, `verify`, `compact` and `forget`, which change or check what is loaded."""

import argparse

from further_source.command.arguments.shared import add_destination, add_json

__all__ = ["COMPACT", "FORGET", "REBUILD", "VERIFY", "add_compact", "add_forget", "add_rebuild", "add_verify"]

REBUILD = "Makes the wide tables anew from cells and steps, asking the API nothing."
VERIFY = "Names the executions that have more or fewer steps or cells than their answers had; exits with 3 if any has."
COMPACT = "Makes large files of the small ones of Delta and Iceberg tables, and deletes old ones."
FORGET = (
    "Removes executions from the destination, from inboxes and from this machine for good: no later load brings them "
    "back. "
    "Repeat it if it was interrupted."
)


def add_rebuild(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--step", metavar="NAME", help="only the wide tables of the steps of this name")
    add_destination(parser)
    add_json(parser, "how many rows there are")


def add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repair", action="store_true", help="ask the API again for these, and rebuild wide tables that lack rows"
    )
    add_destination(parser)
    add_json(parser, "what was found")


def add_compact(parser: argparse.ArgumentParser) -> None:
    add_destination(parser)
    add_json(parser, "how many files there were and are")


def add_forget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="WORKFLOW_ID/EXECUTION_ID", help="executions to forget")
    parser.add_argument(
        "--external-id", metavar="X", help="all executions that are loaded, or delivered, with this external id"
    )
    parser.add_argument(
        "--inbox",
        metavar="DIR|URL",
        action="append",
        help="stored webhook deliveries to delete theirs from, beside the configured ones; may be repeated",
    )
    add_destination(parser)
    add_json(parser, "what went")
