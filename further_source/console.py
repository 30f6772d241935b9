"""What the command writes for people: results to standard output, and what went wrong to standard error.

Either may be closed or full, or its reader may have left; that must neither stop a load nor make it fail.
"""

import os
import sys
from contextlib import suppress

from further_source.text import one_line

__all__ = ["open_closed_streams", "show", "tell"]


def open_closed_streams() -> None:
    """Opens what is closed of standard input, output and error on nothing; to be called before anything is opened.

    A file that is opened while one of them is closed would get its number, and a database would then take in what
    some library writes to standard error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    # Standard input stays None where it was closed: a list that is to come from there is missing.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  as long as the process


def show(text: str) -> None:
    """Writes a result to standard output; says so on standard error where it cannot be written."""
    try:
        print(text, flush=True)
    except (OSError, ValueError, AttributeError) as error:
        with suppress(OSError, ValueError, AttributeError):  # so that nothing fails when it is flushed
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # as where `head` has seen enough
            tell("standard output", getattr(error, "strerror", None) or str(error))


def tell(called: str, message: str) -> None:
    """Writes one line to standard error, which begins with what the command was called."""
    with suppress(OSError, ValueError, AttributeError):
        print(f"{called}: {one_line(message)}", file=sys.stderr, flush=True)
