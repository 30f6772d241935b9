"""Threads: the workers that fetch, and one that polls ahead while loading goes on.

All of them are daemons: a request that hangs never keeps the process from ending.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from further_source.polling.outcomes import Failure, Outcome, TokenOutcome
from further_source.polling.poll import Arrival, Ended, Request

__all__ = ["Poller", "Threads"]

_Call = Callable[[], Outcome | TokenOutcome]


class Threads:
    """Worker threads; the `Workers` of `poll_executions`. Started as they are needed, `max_workers` at most."""

    def __init__(self, max_workers: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_workers = max_workers
        self._clock = clock
        self._calls: queue.SimpleQueue[tuple[Request, _Call] | None] = queue.SimpleQueue()
        self._arrivals: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._under_way = 0

    def submit(self, request: Request, call: _Call) -> None:
        self._under_way += 1
        if len(self._threads) < min(self._under_way, self._max_workers):
            thread = threading.Thread(target=self._work, name=f"further-{len(self._threads) + 1}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._calls.put((request, call))

    def wait(self, seconds: float) -> list[Arrival]:
        """What ended within `seconds`, as soon as anything did; nothing where `wake` was called."""
        try:
            first = self._arrivals.get(timeout=min(seconds, threading.TIMEOUT_MAX))
        except queue.Empty:
            return []
        arrivals = [] if first is None else [first]
        while not self._arrivals.empty():
            more = self._arrivals.get()
            if more is not None:
                arrivals.append(more)
        self._under_way -= len(arrivals)
        return arrivals

    def wake(self) -> None:
        """Ends a `wait` at once; may be called from any thread."""
        self._arrivals.put(None)

    def close(self) -> None:
        """Lets idle threads end; busy ones end with their request."""
        for _ in self._threads:
            self._calls.put(None)

    def join(self, seconds: float) -> None:
        """Waits until all have ended, but no longer than `seconds`."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        # Without a variable for what came: an idle thread would keep its last answer, which may be large.
        while (item := self._calls.get()) is not None:
            self._arrivals.put(self._arrival(*item))

    def _arrival(self, request: Request, call: _Call) -> Arrival:
        try:
            outcome = call()
        except Exception as error:  # a defect in the call must not leave the schedule waiting for ever
            outcome = Failure(f"{type(error).__name__} in the client")
        return request, outcome, self._clock()


class Poller:
    """Runs a polling generator in a thread, into a buffer of bounded size.

    Args:
        poll: Makes the generator of ends.
        max_bytes: How many bytes of answers may wait to be loaded before no more is asked.
    """

    def __init__(self, poll: Callable[[], Iterator[Ended]], *, max_bytes: int = 4_000_000) -> None:
        self._poll = poll
        self._max_bytes = max_bytes
        self._buffer: deque[Ended] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._over = False
        self._stopped = False
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="further-poller", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Waits until the thread has ended, but no longer than `seconds`."""
        self._thread.join(seconds)

    def stop(self) -> None:
        """Takes what the generator still has, however much: it is expected to end soon. Not for signal handlers."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @property
    def exhausted(self) -> bool:
        """Whether polling is over and everything has been handed out."""
        with self._changed:
            return self._over and not self._buffer

    def page(self, seconds: float, *, max_bytes: int = 2_000_000) -> list[Ended]:
        """What comes within `seconds`, in the order it came, cut at about `max_bytes` of answers."""
        page: list[Ended] = []
        size = 0
        until = time.monotonic() + seconds
        with self._changed:
            while size < max_bytes:
                while self._buffer and size < max_bytes:
                    ended = self._buffer.popleft()
                    page.append(ended)
                    size += ended.weight
                    self._bytes -= ended.weight
                self._changed.notify_all()
                seconds = until - time.monotonic()
                if self._over or seconds <= 0:
                    break
                self._changed.wait(seconds)
        return page

    def _run(self) -> None:
        try:
            for ended in self._poll():
                with self._changed:
                    self._buffer.append(ended)
                    self._bytes += ended.weight
                    del ended  # or it would be kept until the next one comes
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._bytes <= self._max_bytes or self._stopped)
        except Exception as error:
            self.error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
