"""Wrong usage of a command, told in one line.

The parsers are argparse's: importing a library that is more comfortable takes longer than all of `--help`. Completion
for shells is made from the parser by shtab.
"""

import argparse
from typing import Any, NoReturn

from further_source.console import show, tell

__all__ = ["EXIT_USAGE", "OneLineParser", "port"]

EXIT_USAGE = 2


class OneLineParser(argparse.ArgumentParser):
    """Tells wrong usage in one line, without the usage block, and exits with 2.

    Args:
        called: What its messages begin with; the first word of `prog` unless given.
    """

    def __init__(self, *, called: str | None = None, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)
        self.called = called or self.prog.split()[0]

    def print_help(self, file: Any = None) -> None:
        if file is None:
            show(self.format_help().removesuffix("\n"))
        else:
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        tell(self.called, message)
        raise SystemExit(EXIT_USAGE)


def port(text: str) -> int:
    """The port that an argument names; 0 for any.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)
