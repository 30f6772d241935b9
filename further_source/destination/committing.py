"""Commits to tables that others may commit to at the same time."""

import time
from collections.abc import Callable
from random import uniform

__all__ = ["until_it_passes"]

_ATTEMPTS = 20
_MAX_WAIT = 1.0  # seconds


def until_it_passes(commit: Callable[[], object], conflict: type[Exception] | tuple[type[Exception], ...]) -> None:
    """Commits, and once more where somebody else has committed meanwhile.

    Args:
        commit: Looks at the table as it is now.
        conflict: What it raises then, and what is raised at last.
    """
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            commit()
            return
        except conflict:
            if not attempts_left:
                raise
        time.sleep(uniform(0, _MAX_WAIT))  # noqa: S311  so that they do not meet again
