"""The parser of `further-source`, and of `pipelines/load.py`, which is its subcommand `load`."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from further_source import sandbox_arguments as sandbox
from further_source.command.arguments import load, receive, review, upkeep
from further_source.console import show
from further_source.usage import OneLineParser

__all__ = ["command_parser", "load_parser", "parse"]


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

    load.add_load(add("load", load.LOAD, load.EXIT_CODES))
    load.add_demo(add("demo", load.DEMO))
    load.add_check(add("check", load.CHECK))
    sandbox.add_arguments(add("sandbox", sandbox.DESCRIPTION))
    receive.add_receive(
        add("receive", receive.RECEIVE, f"Options without a default can be set as {receive.VARIABLE}<OPTION>.")
    )
    upkeep.add_rebuild(add("rebuild", upkeep.REBUILD))
    upkeep.add_verify(add("verify", upkeep.VERIFY))
    upkeep.add_compact(add("compact", upkeep.COMPACT))
    upkeep.add_forget(add("forget", upkeep.FORGET))
    review.add_report(add("report", review.REPORT))
    review.add_review(add("review", review.REVIEW), parser.prog)
    review.add_threshold(add("threshold", review.THRESHOLD))
    return parser


def load_parser(prog: str) -> OneLineParser:
    """The parser of `further-source load`, under another name."""
    parser = OneLineParser(prog=prog, description=load.LOAD, epilog=load.EXIT_CODES)
    parser.set_defaults(subcommand="load")
    load.add_load(parser)
    return parser


def parse(parser: OneLineParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parsed arguments that go together; else exits with 2, all told in one line."""
    options = parser.parse_args(arguments)
    given = vars(options)
    if options.subcommand == "forget" and bool(options.ids) == (options.external_id is not None):
        parser.error("forget takes either WORKFLOW_ID/EXECUTION_ID arguments or --external-id")
    for name in ("executions", "executions_query", "inbox", "destination", "dataset", "out"):
        if given.get(name) == "":
            parser.error(f"--{name.replace('_', '-')} is empty")
    if given.get("sample") and given.get("limit"):
        parser.error("--limit: a sample that is cut is none; give --sample the number")
    if given.get("demo"):
        if options.ids or options.executions or options.executions_query:
            parser.error("--demo loads executions of its own: leave out the ids, --executions and --executions-query")
        if options.inbox:
            parser.error("--demo loads executions of its own: leave out --inbox")
        if options.shard:
            parser.error("--demo loads executions of its own: leave out --shard")
    return options


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
