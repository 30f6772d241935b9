"""Where the command begins: parses, runs a subcommand, and exits as it should.

What a subcommand does is imported once it is known which, and the usage is right: dlt takes a second to import.
"""

import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from further_source.command import exit_codes
from further_source.command.arguments.parser import command_parser, load_parser, parse
from further_source.command.signals import Stop
from further_source.console import open_closed_streams, tell
from further_source.usage import OneLineParser

__all__ = ["further_source_command", "load_script", "main"]


def main(arguments: Sequence[str] | None = None, *, parser: OneLineParser | None = None) -> int:
    """Runs `further-source`, or what `parser` is for, with the arguments; returns the exit code."""
    open_closed_streams()
    stop = Stop()
    stop.install()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: not every console has every character
    parser = parser or command_parser()
    options = parse(parser, arguments)
    try:
        Path.cwd()
    except OSError:
        tell(parser.called, "the working directory is gone: change into one that is there")
        return exit_codes.USAGE
    if options.subcommand == "sandbox":
        return int(import_module("further_source.sandbox.__main__").serve(options))
    try:
        subcommand = import_module(f"further_source.command.{options.subcommand}")
        return int(subcommand.run(options, stop))
    except Exception as error:
        message, code = import_module("further_source.command.failures").told(error)
        tell(parser.called, message)
        return int(code)


def further_source_command() -> NoReturn:
    """The console script `further-source`."""
    _exit(_code(None))


def load_script() -> NoReturn:
    """`pipelines/load.py`."""
    _exit(_code(load_parser("load.py")))


def _code(parser: OneLineParser | None) -> int:
    try:
        return main(parser=parser)
    except SystemExit as end:  # of the parser
        return end.code if isinstance(end.code, int) else exit_codes.OK


def _exit(code: int) -> NoReturn:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or never open
            stream.flush()
    # Not through the interpreter's own end: it has crashed there, all done, in a library's thread.
    os._exit(code)
