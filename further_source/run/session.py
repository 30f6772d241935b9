"""One polling in the background, from its first request until it is closed, and how what ended is cut into pages."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from dlt.common import logger

from further_source.api.client import Client
from further_source.executions import ExecutionId
from further_source.polling.poll import Ended, PollState, poll_executions
from further_source.polling.workers import Poller, Threads
from further_source.settings import PollingSettings
from further_source.text import shown

__all__ = ["Portion", "Session"]

_TICK_SECONDS = 0.1
_JOIN_SECONDS = 1.0
_PAGE_SECONDS = 1.0
_PAGE_BYTES = 2_000_000


@dataclass(frozen=True)
class Portion:
    """How much one load takes: what comes within `seconds`, up to about `max_bytes` of answers."""

    seconds: float = math.inf
    max_bytes: float = math.inf


class Session:
    """Polls executions in the background, and hands out in pages what ended.

    Args:
        executions: What to ask, in list order, each once.
        client: Asks the API; closed with the session.
        stop: Looked at before each request, and several times a second: whether to ask nothing more. What has arrived
            can still be taken.
        on_change: As of `poll_executions`.
    """

    def __init__(
        self,
        executions: Sequence[ExecutionId],
        client: Client,
        settings: PollingSettings,
        *,
        stop: Callable[[], bool] = lambda: False,
        on_change: Callable[[PollState], None] | None = None,
    ) -> None:
        self._client = client
        self._stop = stop
        self._ended = False
        self._threads = Threads(settings.max_workers)
        self._poller = Poller(
            partial(
                poll_executions,
                executions,
                client,
                settings,
                workers=self._threads,
                clock=time.monotonic,
                stopped=lambda: self._ended or stop(),
                on_unknown_status=_warn_of_status,
                on_change=on_change,
            )
        )
        self._poller.start()

    @property
    def exhausted(self) -> bool:
        """Whether polling is over and everything has been handed out."""
        return self._poller.exhausted

    @property
    def error(self) -> Exception | None:
        """What ended polling before its time, if anything did."""
        return self._poller.error

    def pages(self, portion: Portion) -> Iterator[list[Ended]]:
        """What ended, in pages, until the portion is full or polling is over.

        A page that nothing came for is empty. A portion is full only once something has come.
        """
        full_at = time.monotonic() + portion.seconds
        size = 0
        while not self.exhausted and (not size or (time.monotonic() < full_at and size < portion.max_bytes)):
            page: list[Ended] = []
            page_size = 0
            page_until = time.monotonic() + _PAGE_SECONDS
            while page_size < _PAGE_BYTES and not self.exhausted:
                if self._stop():
                    self._end()
                came = self._poller.page(_TICK_SECONDS)
                page += came
                page_size += sum(ended.weight for ended in came)
                came.clear()  # answers are large, and whoever gets the page frees them
                if time.monotonic() >= (min(page_until, full_at) if size or page else page_until):
                    break
            size += page_size
            yield page

    def close(self) -> None:
        """Asks nothing more, and waits a moment for what is under way."""
        self._end()
        # Threads that are still at work when the interpreter ends can crash it.
        self._poller.join(_JOIN_SECONDS)
        self._threads.join(_JOIN_SECONDS)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._poller.stop()
        self._threads.wake()
        self._threads.close()
        self._client.close()


def _warn_of_status(execution: ExecutionId, status: str) -> None:
    logger.warning(f"{execution}: unknown status {shown(status)}: it is polled on like running")
