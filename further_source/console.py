"""What the command writes for people: results to standard output, and what went wrong to standard error.

Either may be closed, or its reader may have left; that must neither stop a load nor make it fail.
"""

import os
import sys
from contextlib import suppress

from further_source.text import one_line

__all__ = ["show", "tell"]


def show(text: str) -> None:
    """Writes a result to standard output."""
    if sys.stdout is None:
        return
    try:
        print(text, flush=True)
    except BrokenPipeError:  # as where `head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing fails when it is flushed


def tell(called: str, message: str) -> None:
    """Writes one line to standard error, which begins with what the command was called."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"{called}: {one_line(message)}", file=sys.stderr, flush=True)
