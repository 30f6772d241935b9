"""Garbage collection while answers or long lists are handled.

They are many small objects without a cycle: reference counting frees them. The collector, by default, looks through
all objects of the process again and again as they are made, and finds nothing.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["rarely_collected"]

_THRESHOLD = 100_000  # containers made and not yet freed; Python's own is 700

_lock = threading.Lock()
_users = 0
_before = gc.get_threshold()


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Collects more rarely within; as before once all that are within have left."""
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
