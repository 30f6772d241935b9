"""The arguments of `further-source`, and of `pipelines/load.py`, which is its subcommand `load`.

Nothing here imports dlt, so that help and wrong usage are told at once.
"""

import argparse
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from further_source.console import show
from further_source.sandbox import arguments as sandbox
from further_source.settings import POLLING_PRESETS
from further_source.usage import OneLineParser

__all__ = ["command_parser", "load_parser", "parse"]

_LOAD = "Polls the listed Further AI executions to completion and loads what they extracted."
_DEMO = "Loads invented executions from a local stand-in of the API, which runs meanwhile."
_CHECK = "Tries the credentials, the API, the list and the destination; loads nothing."
_REBUILD = "Makes the wide tables anew from cells and steps, asking the API nothing."
_VERIFY = "Names the executions that have more or fewer steps or cells than their answers had; exits with 3 if any has."
_EXIT_CODES = (
    "Exit codes: 0 all asked and loaded, 1 could not run or finish, 2 wrong usage or configuration, 3 with --strict: "
    "not all completed, 75 another load of this pipeline is running, 130 and 143 stopped by SIGINT and SIGTERM."
)


def command_parser() -> OneLineParser:
    """The parser of `further-source`."""
    parser = OneLineParser(
        prog="further-source", description="Loads what Further AI extracted from documents into a database."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        metavar="SHELL",
        help="print the completion for bash, fish, tcsh or zsh",
    )
    subcommands = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)

    def add(name: str, description: str, epilog: str | None = None) -> OneLineParser:
        added: OneLineParser = subcommands.add_parser(
            name, help=description, description=description, epilog=epilog, called=parser.prog
        )
        return added

    _add_load(add("load", _LOAD, _EXIT_CODES))
    _add_demo(add("demo", _DEMO))
    _add_check(add("check", _CHECK))
    sandbox.add_arguments(add("sandbox", sandbox.DESCRIPTION))
    _add_rebuild(add("rebuild", _REBUILD))
    _add_verify(add("verify", _VERIFY))
    return parser


def load_parser(prog: str) -> OneLineParser:
    """The parser of `further-source load`, under another name."""
    parser = OneLineParser(prog=prog, description=_LOAD, epilog=_EXIT_CODES)
    parser.set_defaults(subcommand="load")
    _add_load(parser)
    return parser


def parse(parser: OneLineParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parsed arguments that go together; else exits with 2, all told in one line."""
    options = parser.parse_args(arguments)
    given = vars(options)
    for name in ("executions", "destination", "dataset"):
        if given.get(name) == "":
            parser.error(f"--{name} is empty")
    if given.get("demo"):
        if options.ids or options.executions:
            parser.error("--demo loads executions of its own: leave out the ids and --executions")
        if options.shard:
            parser.error("--demo loads executions of its own: leave out --shard")
    return options


def _add_load(parser: argparse.ArgumentParser) -> None:
    _add_list(parser)
    parser.add_argument("--demo", action="store_true", help="load invented executions from a local stand-in of the API")
    _add_destination(parser)
    _add_polling(parser)
    parser.add_argument(
        "--shard", metavar="K/N", type=_shard, help="only part K of N of the list, for N loads side by side"
    )
    _add_outcome(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(
        subcommand="load", demo=True, ids=[], executions=None, destination=None, dataset=None, shard=None
    )
    _add_polling(parser)
    _add_outcome(parser)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(demo=False, shard=None)
    _add_list(parser)
    _add_destination(parser)
    parser.add_argument("--json", action="store_true", help="print what was found as one JSON document")


def _add_rebuild(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--step", metavar="NAME", help="only the wide tables of the steps of this name")
    _add_destination(parser)
    parser.add_argument("--json", action="store_true", help="print how many rows there are as one JSON document")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repair", action="store_true", help="ask the API again for these, and rebuild wide tables that lack rows"
    )
    _add_destination(parser)
    parser.add_argument("--json", action="store_true", help="print what was found as one JSON document")


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="WORKFLOW_ID/EXECUTION_ID", help="executions to load")
    parser.add_argument(
        "--executions",
        metavar="FILE|-",
        help="a list of them: .csv, .jsonl or lines; path, fsspec URL or - for stdin",
    )


def _add_destination(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--destination", metavar="NAME", help="dlt destination (default: as configured, else duckdb)")
    parser.add_argument("--dataset", metavar="NAME", help="dataset (default: as configured, else further_data)")


def _add_polling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--polling", metavar="PRESET", type=_preset, help=f"one of {', '.join(POLLING_PRESETS)}")
    parser.add_argument(
        "--max-wait", metavar="SECONDS", type=float, help="how long each execution is waited for; 0 asks each once"
    )
    parser.add_argument(
        "--reload", action="store_true", default=None, help="ask again for what is loaded, and replace it"
    )


def _add_outcome(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="exit 3 unless every listed execution completed")
    parser.add_argument("--quiet", action="store_true", help="show only warnings and errors")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON document")


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no K/N with K from 1 to N")
    return int(match[1]), int(match[2])


def _preset(text: str) -> str:
    if text not in POLLING_PRESETS:
        raise argparse.ArgumentTypeError(f"{text!r} is no preset; it must be one of {', '.join(POLLING_PRESETS)}")
    return text


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Prints the version; reading it takes long to import, and nothing else needs it."""
        version = import_module("importlib.metadata").version("further_source")
        show(f"further-source {version}")
        parser.exit()


class _Completion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: object, values: Any, *_: Any) -> None:
        """Prints the completion; shtab is imported by this alone, for nothing else needs it."""
        shtab = import_module("shtab")
        if values not in shtab.SUPPORTED_SHELLS:
            parser.error(f"--print-completion: {values!r} is none of {', '.join(shtab.SUPPORTED_SHELLS)}")
        show(shtab.complete(parser, shell=values))
        parser.exit()
