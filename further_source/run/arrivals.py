"""What ends in one run that has an inbox: first what was delivered, then what the API is asked for."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from further_source.destination.ledger import WAITED_FOR
from further_source.executions import ExecutionId
from further_source.inbox.deliveries import Deliveries
from further_source.inbox.store import Inbox
from further_source.polling.poll import Ended
from further_source.run.session import Portion, Session
from further_source.tables.answer import FINAL_OUTCOMES

__all__ = ["ONE_LOAD", "Arrivals", "Push"]

ONE_LOAD = "an inbox is read by one load, which puts its files away: load it beside no others"

_NO_CREDENTIALS = "and there are no credentials to ask the API with"


@dataclass(frozen=True)
class Push:
    """How deliveries are read.

    Attributes:
        hosts: Those from which signed URLs may be fetched.
        grace: Seconds that a listed execution may go without a delivery before the API is asked.
        verify: Whether the API is asked for whatever was delivered, and its answer loaded.
        request_timeout: Seconds for one whole request for a signed URL.
        max_bytes: How large a delivery, or a file behind a URL, may be, inflated.
    """

    inbox: Inbox
    hosts: tuple[str, ...]
    grace: float
    verify: bool
    request_timeout: float
    max_bytes: int


class Arrivals:
    """Hands out in pages what was delivered, and then what the API answered, which is asked for what is open.

    Args:
        deliveries: What was delivered.
        listed: The listed executions that the destination does not hold as ended.
        seen: When these were first loaded, as `Ledger.seen`; None where nothing tells, and then all are asked.
        grace: As of `Push`.
        ask: Begins to ask the API; None where there are no credentials.
        counts: Told how many executions were `awaited` (their delivery may still come), `never_delivered` and
            `reconciled` (ended by the API's answer).
        stop: As of `Session`.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        listed: Sequence[ExecutionId],
        *,
        seen: Mapping[tuple[str, str], float] | None,
        grace: float,
        ask: Callable[[list[ExecutionId]], Session] | None,
        counts: Counter[str],
        stop: Callable[[], bool],
    ) -> None:
        self._deliveries = deliveries
        self._delivered = deliveries.pages()
        self._listed = listed
        self._seen = seen
        self._grace = grace
        self._ask = ask
        self._counts = counts
        self._stop = stop
        self._session: Session | None = None
        self._all_delivered = False
        self._over = False

    @property
    def exhausted(self) -> bool:
        """Whether everything has been handed out."""
        return self._over or (self._session is not None and self._session.exhausted)

    @property
    def error(self) -> Exception | None:
        """What ended polling before its time, if anything did."""
        return self._session.error if self._session is not None else None

    def pages(self, portion: Portion) -> Iterator[list[Ended]]:
        """What ended, in pages, until the portion is full; a finite one ends with what was delivered, too."""
        came = False
        if not self._all_delivered:
            for page, is_full in _measured(self._delivered, portion):
                came = came or bool(page)
                self._counts.update(self._deliveries.counts - self._counts)
                yield page
                if is_full:
                    return
            self._all_delivered = True
            self._counts.update(self._deliveries.counts - self._counts)
            yield self._go_on()
        if self._session is None or (came and not math.isinf(portion.seconds)):
            return
        for page in self._session.pages(portion):
            self._counts += Counter({"reconciled": sum(ended.poll_outcome in FINAL_OUTCOMES for ended in page)})
            yield page

    def loaded(self, executions: Iterable[ExecutionId]) -> None:
        """The destination holds these as ended."""
        self._deliveries.settle(executions)

    def close(self) -> None:
        self._deliveries.close()
        if self._session is not None:
            self._session.close()

    def _go_on(self) -> list[Ended]:
        """Begins to ask the API for what is open; returns what has ended, or is waited for, without that."""
        if self._stop():
            self._over = True
            return []
        overdue, page = self._overdue()
        open_ones = {**self._deliveries.unsettled, **dict.fromkeys(overdue, "no delivery came")}
        self._counts += Counter({"never_delivered": len(overdue)})
        if self._ask is None:
            page += [_unasked(ex, "unreachable", f"{reason}, {_NO_CREDENTIALS}") for ex, reason in open_ones.items()]
        elif open_ones:
            self._session = self._ask(list(open_ones))
        self._over = self._session is None
        return page

    def _overdue(self) -> tuple[list[ExecutionId], list[Ended]]:
        """The listed executions that no delivery came for in time, and rows for those that are seen the first time."""
        overdue, first = [], []
        now = time.time()
        for execution in self._listed:
            if execution in self._deliveries.taken or execution in self._deliveries.unsettled:
                continue
            seen_at = self._seen.get(execution, now) if self._seen is not None else 0.0
            if now - seen_at >= self._grace:
                overdue.append(execution)
                continue
            self._counts["awaited"] += 1
            if self._seen is not None and execution not in self._seen:
                first.append(_unasked(execution, WAITED_FOR, None))
        return overdue, first


def _measured(pages: Iterator[list[Ended]], portion: Portion) -> Iterator[tuple[list[Ended], bool]]:
    """The pages, and of each whether the portion is full with it."""
    full_at = time.monotonic() + portion.seconds
    size = 0.0
    for page in pages:
        size += sum(ended.weight for ended in page)
        yield page, bool(size) and (size >= portion.max_bytes or time.monotonic() >= full_at)


def _unasked(execution: ExecutionId, poll_outcome: str, error: str | None) -> Ended:
    return Ended(execution, poll_outcome, None, None, error, 0, None, None, 0)
