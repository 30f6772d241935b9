"""The arguments of `load`, `demo` and `check`."""

import argparse

from further_source.command.arguments import types
from further_source.command.arguments.shared import add_destination, add_inbox, add_json, add_list
from further_source.settings import POLLING_PRESETS

__all__ = ["CHECK", "DEMO", "EXIT_CODES", "LOAD", "add_check", "add_demo", "add_load"]

LOAD = "Polls the listed Further AI executions to completion and loads what they extracted."
DEMO = "Loads invented executions from a local stand-in of the API, which runs meanwhile."
CHECK = "Tries the credentials, the API, the list and the destination; loads nothing."
EXIT_CODES = (
    "Exit codes: 0 all asked and loaded, 1 could not run or finish, 2 wrong usage or configuration, 3 with --strict: "
    "not all completed, 75 another load of this pipeline is running, 130 and 143 stopped by SIGINT and SIGTERM."
)


def add_load(parser: argparse.ArgumentParser) -> None:
    add_list(parser)
    add_inbox(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        default=None,
        help="ask the API for whatever was delivered, and load that",
    )
    parser.add_argument("--demo", action="store_true", help="load invented executions from a local stand-in of the API")
    add_destination(parser)
    _add_polling(parser)
    parser.add_argument(
        "--shard", metavar="K/N", type=types.shard, help="only part K of N of the list, for N loads side by side"
    )
    _add_outcome(parser)


def add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(
        subcommand="load",
        demo=True,
        ids=[],
        executions=None,
        executions_query=None,
        inbox=None,
        verify=None,
        destination=None,
        dataset=None,
        shard=None,
    )
    _add_polling(parser)
    _add_outcome(parser)


def add_check(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(demo=False, shard=None)
    add_list(parser)
    add_inbox(parser)
    add_destination(parser)
    add_json(parser, "what was found")


def _add_polling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--polling", metavar="PRESET", type=types.preset, help=f"one of {', '.join(POLLING_PRESETS)}")
    parser.add_argument(
        "--max-wait", metavar="SECONDS", type=float, help="how long each execution is waited for; 0 asks each once"
    )
    parser.add_argument(
        "--reload", action="store_true", default=None, help="ask again for what is loaded, and replace it"
    )


def _add_outcome(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="exit 3 unless every listed execution completed")
    parser.add_argument("--quiet", action="store_true", help="show only warnings and errors")
    add_json(parser, "the summary")
