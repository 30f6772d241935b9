"""Less garbage collection while answers or long lists are handled.

They are many small objects without cycles, so reference counting frees them. The collector would look through all
objects of the process again and again while they are made, and find nothing.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["rarely_collected"]

_THRESHOLD = 100_000  # containers made and not yet freed; Python's default is 700

_lock = threading.Lock()
_users = 0
_before = gc.get_threshold()


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Lets the collector run more rarely until the last thread that is within has left."""
    global _users, _before
    with _lock:
        if _users == 0:
            _before = gc.get_threshold()
            if 0 < _before[0] < _THRESHOLD:  # 0: it is off
                gc.set_threshold(_THRESHOLD, *_before[1:])
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                gc.set_threshold(*_before)
