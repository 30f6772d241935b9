"""One polling of a list, across all the loads that take from it."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from dlt.common import logger

from further_source.api.client import Client
from further_source.destination.ledger import Ledger
from further_source.executions import ExecutionId
from further_source.polling.poll import Ended, poll_executions
from further_source.polling.workers import Poller, Threads
from further_source.settings import PollingSettings
from further_source.tables.answer import Answer, normalize_steps

__all__ = ["Report", "Session"]

_TICK_SECONDS = 0.1
_JOIN_SECONDS = 1.0
_PAGE_SECONDS = 1.0
_PAGE_BYTES = 2_000_000
_LOAD_BYTES = 32_000_000  # of answers: a bound on what a destination has to take at once


@dataclass
class Report:
    """How a run went: executions by `poll_outcome`, and records by table.

    `ended` are those loaded in this run, `earlier` those not asked because they were loaded before, `kept` those
    asked again by `reload` that gave no new ending, with the outcome they keep. `unreachable_error` is the error
    of the last one that was unreachable.
    """

    listed: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    earlier: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    unreachable: int = 0
    unreachable_error: str | None = None
    rows: Counter[str] = field(default_factory=Counter)

    @property
    def asked(self) -> int:
        """How many were asked and have ended, in whatever way."""
        return self.ended.total() + self.kept.total()

    @property
    def remaining(self) -> int:
        return self.listed - self.earlier.total() - self.asked

    @property
    def all_completed(self) -> bool:
        """Whether every listed execution's `poll_outcome`, loaded now or earlier, is `completed`."""
        found = self.ended + self.earlier + self.kept
        return found["completed"] == self.listed

    @property
    def nothing_reached(self) -> bool:
        """Whether executions were asked, and every one of them was unreachable."""
        return 0 < self.asked == self.unreachable


class Session:
    """Polls what is listed and not held, in the background, and hands it out in pages.

    Args:
        listed: The executions in list order, each once.
        make_client: Makes the client of one polling.
        reload: Whether to ask also for what is held.
        commit_interval: Seconds after which a load takes what has arrived.
    """

    def __init__(
        self,
        listed: Sequence[ExecutionId],
        make_client: Callable[[], Client],
        settings: PollingSettings,
        *,
        reload: bool,
        commit_interval: float,
    ) -> None:
        self.listed = listed
        self.reload = reload
        self.commit_interval = commit_interval
        self.report = Report(listed=len(listed))
        self._make_client = make_client
        self._client: Client | None = None
        self._settings = settings
        self._stop: Callable[[], bool] = lambda: False
        self._closed = threading.Event()
        self._threads: Threads | None = None
        self._poller: Poller | None = None
        self._ledger = Ledger()
        self._can_replace = self._always_replaces = False

    @property
    def begun(self) -> bool:
        return self._poller is not None

    @property
    def exhausted(self) -> bool:
        return self._poller is not None and self._poller.exhausted

    @property
    def error(self) -> Exception | None:
        """What ended polling before its time, if anything did."""
        return self._poller.error if self._poller else None

    def begin(self, ledger: Ledger | None, *, can_replace: bool, stop: Callable[[], bool] = lambda: False) -> None:
        """Starts to ask.

        Args:
            can_replace: Whether the destination can take away rows of an execution that is loaded again.
            stop: Looked at before each request, and several times a second: whether to ask nothing more. What
                has arrived can still be taken.
            ledger: What the destination holds of the list; None where that is not known, so that everything is
                asked and takes the place of whatever may be there.
        """
        self._can_replace = can_replace
        self._always_replaces = ledger is None
        self._ledger = ledger or Ledger()
        self.report = Report(listed=len(self.listed))
        if self.reload:
            to_ask = list(self.listed)
        else:
            to_ask = self._ledger.missing(self.listed)
            self.report.earlier = self._ledger.counts()
        self._stop = stop
        closed = self._closed = threading.Event()
        self._client = self._make_client()
        threads = self._threads = Threads(self._settings.max_workers)
        poll = partial(
            poll_executions,
            to_ask,
            self._client,
            self._settings,
            workers=threads,
            clock=time.monotonic,
            stopped=lambda: closed.is_set() or stop(),
            on_unknown_status=_warn_of_status,
        )
        self._poller = Poller(poll)
        self._poller.start()

    def close(self) -> None:
        """Stops, and forgets what was polled: the next `begin` starts anew."""
        self._end_polling()
        if self._threads is not None and self._poller is not None:
            # Threads that are still at work when the interpreter ends can crash it.
            self._poller.join(_JOIN_SECONDS)
            self._threads.join(_JOIN_SECONDS)
        self._threads = self._poller = self._client = None

    def _end_polling(self) -> None:
        if self._closed.is_set() or self._threads is None or self._poller is None or self._client is None:
            return
        self._closed.set()
        self._poller.stop()
        self._threads.wake()
        self._threads.close()
        self._client.close()

    def pages(self, until: float = math.inf) -> Iterator[list[Answer]]:
        """What ended, in pages, until `time.monotonic()` passes `until`, much has come, or polling is over.

        A page that nothing came for is empty. `until` is passed where nothing has come by then.
        """
        if self._poller is None:
            raise RuntimeError("pages() before begin()")
        taken, size = False, 0
        while not self.exhausted and not (taken and (time.monotonic() >= until or size >= _LOAD_BYTES)):
            page = self._page(self._poller, until if taken else math.inf)
            taken = taken or bool(page)
            size += sum(ended.weight for ended in page)
            answers = [answer for answer in map(self._answer, page) if answer is not None]
            del page  # with the answers as they were parsed, which take the most memory
            yield answers

    def _page(self, poller: Poller, until: float) -> list[Ended]:
        page: list[Ended] = []
        page_until = min(until, time.monotonic() + _PAGE_SECONDS)
        while not page or (time.monotonic() < page_until and sum(ended.weight for ended in page) < _PAGE_BYTES):
            if self._stop():
                self._end_polling()
            page += poller.page(_TICK_SECONDS)
            if poller.exhausted or (not page and time.monotonic() >= page_until):
                break
        return page

    def _answer(self, ended: Ended) -> Answer | None:
        answer = Answer(ended)
        if ended.poll_outcome == "unreachable":
            self.report.unreachable += 1
            self.report.unreachable_error = ended.poll_error
        held = self._ledger.outcome(ended.execution) or self._ledger.partial.get(ended.execution)
        if held is not None and not answer.is_final:
            self.report.kept[held] += 1
            logger.warning(
                f"{ended.execution}: asked again, and it is {ended.poll_outcome}: what was loaded of it stays as it was"
            )
            return None
        self.report.ended[ended.poll_outcome] += 1
        if not answer.is_final:
            return answer
        replaces = self._always_replaces or held is not None
        steps = normalize_steps(ended.payload)
        rest = {key: value for key, value in (ended.payload or {}).items() if key != "steps"}
        return Answer(replace(ended, payload=rest), steps, replaces and self._can_replace)


def _warn_of_status(execution: ExecutionId, status: str) -> None:
    logger.warning(f"{execution}: unknown status {ascii(status)[:80]}: it is polled on like running")
