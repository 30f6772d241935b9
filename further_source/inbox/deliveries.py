"""What an inbox holds, as ends of executions: the same that polling gives.

A file is put away once the destination holds all executions that are in it as ended. So a run that is killed at any
moment loses nothing: what it had not put away is in the inbox, and the ledger tells whether it is loaded.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from dlt.common import logger

from further_source.executions import ExecutionId
from further_source.inbox.delivery import Delivery, NoDelivery, has_steps, read_delivery, read_payload, urls_of
from further_source.inbox.erasing import erase_in_file
from further_source.inbox.signed_urls import SignedUrls, UrlError
from further_source.inbox.store import Document, Inbox, reason_of
from further_source.polling.poll import Ended
from further_source.text import shown

__all__ = ["Deliveries"]

_BATCH = 1_000  # deliveries whose executions are looked up at once
_BATCH_BYTES = 8_000_000
_PAGE_BYTES = 2_000_000
_TICK_SECONDS = 0.1

_T = TypeVar("_T")
_R = TypeVar("_R")


class Deliveries:
    """Reads the deliveries of an inbox once, in the order of their names.

    Args:
        inbox: Where they are stored.
        urls: Fetches what is behind the URLs of deliveries in the format `url`.
        held: Tells which of some executions need not be loaded: the destination holds them as ended, or they were
            forgotten.
        forgotten: Tells which of some executions, for which `held` was asked before, were forgotten. Their deliveries
            are deleted where others are put away.
        terminal_statuses: In lower case.
        max_bytes: How large a delivery may be, unpacked.
        max_workers: How many files are read, and URLs fetched, at once.
        verify: Whether no body is believed, and the API is to be asked for each execution.
        stop: Looked at all the time: whether to read no more.

    Attributes:
        counts: How many deliveries were `delivered`, how many of these `doubled` (of executions that are loaded, or
            delivered before), and how many documents were `quarantined`.
        taken: The executions that ended by a delivery.
        unsettled: Why a delivery did not settle its execution, so that the API has to be asked.
    """

    def __init__(
        self,
        inbox: Inbox,
        urls: SignedUrls,
        *,
        held: Callable[[Sequence[ExecutionId]], Collection[ExecutionId]],
        forgotten: Callable[[Sequence[ExecutionId]], Collection[ExecutionId]],
        terminal_statuses: frozenset[str],
        max_bytes: int,
        max_workers: int,
        verify: bool,
        stop: Callable[[], bool],
    ) -> None:
        self._inbox = inbox
        self._urls = urls
        self._held = held
        self._forgotten = forgotten
        self._terminal_statuses = terminal_statuses
        self._max_bytes = max_bytes
        self._max_workers = max_workers
        self._verify = verify
        self._stop = stop
        self._threads = ThreadPoolExecutor(max_workers, thread_name_prefix="further-inbox")
        self._files = _Files(inbox)
        self._settled: set[ExecutionId] = set()
        self.counts: Counter[str] = Counter()
        self.taken: set[ExecutionId] = set()
        self.unsettled: dict[ExecutionId, str] = {}

    def pages(self) -> Iterator[list[Ended]]:
        """The executions that ended by a delivery, each once, in pages of bounded size; some are empty."""
        for batch in self._batches():
            yield from self._ends(self._wanted(batch))

    def settle(self, executions: Iterable[ExecutionId]) -> None:
        """The destination holds these executions as ended: files with no other one in them can be put away."""
        executions = list(executions)
        self._settled.update(executions)
        self._files.settle(executions)

    def close(self) -> None:
        """Fetches no more."""
        self._urls.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # Reading

    def _batches(self) -> Iterator[list[tuple[Document, Delivery]]]:
        batch: list[tuple[Document, Delivery]] = []
        size = 0
        for name, documents in self._side_by_side(self._inbox.names(), self._read, self._in_thread):
            self._files.begin(name)
            try:
                for document in documents:
                    if (delivery := self._delivery(document)) is None:
                        continue
                    self._files.add(name, delivery.execution)
                    batch.append((document, delivery))
                    size += len(delivery.body)
                    if len(batch) >= _BATCH or size >= _BATCH_BYTES:
                        yield batch
                        batch, size = [], 0
                        if self._stop():
                            return
            except Exception as error:  # the package of a file system may raise anything
                logger.warning(f"inbox: {shown(name)} cannot be read now, and stays: {reason_of(error)}")
            else:
                self._files.end(name)
        if batch:
            yield batch

    def _in_thread(self, name: str) -> bool:
        return not self._inbox.is_local

    def _read(self, name: str) -> Iterable[Document]:
        documents = self._inbox.documents(name, self._max_bytes)
        return documents if self._inbox.is_of_lines(name) else _taken_now(documents)

    def _delivery(self, document: Document) -> Delivery | None:
        """The delivery of a document; None where it is none."""
        try:
            if document.problem:
                raise NoDelivery(f"it is {document.problem}")
            return read_delivery(document.body)
        except NoDelivery as problem:
            self._quarantine(document, problem)
            return None

    def _quarantine(self, document: Document, problem: NoDelivery) -> None:
        self.counts["quarantined"] += 1
        self._inbox.quarantine(document, str(problem))
        if document.line is None:
            self._files.gone(document.file)

    # Deciding

    def _wanted(self, batch: list[tuple[Document, Delivery]]) -> list[tuple[Document, Delivery]]:
        """The deliveries that may be the end of an execution which is not loaded."""
        executions = [delivery.execution for _, delivery in batch]
        held = self._held(executions)
        if forgotten := self._forgotten(executions):
            self._files.mark(forgotten, batch)
        wanted: list[tuple[Document, Delivery]] = []
        for document, delivery in batch:
            execution = delivery.execution
            self.counts["delivered"] += 1
            if execution in held or execution in self._settled:
                self.counts["doubled"] += 1
                self._files.settle([execution])
            elif execution in self.taken:
                self.counts["doubled"] += 1
            elif self._verify:
                self._leave_open(execution, "deliveries are verified")
            elif delivery.status.strip().lower() not in self._terminal_statuses:
                self._leave_open(execution, f"it was delivered as {shown(delivery.status)}")
            else:
                wanted.append((document, delivery))
        return wanted

    def _leave_open(self, execution: ExecutionId, reason: str) -> None:
        if execution in self.unsettled:
            self.counts["doubled"] += 1
        self.unsettled[execution] = reason

    def _ends(self, wanted: list[tuple[Document, Delivery]]) -> Iterator[list[Ended]]:
        page: list[Ended] = []
        size = 0
        for (document, delivery), end in self._side_by_side(wanted, self._end, _may_have_url):
            execution = delivery.execution
            if execution in self.taken:
                self.counts["doubled"] += 1
            elif isinstance(end, NoDelivery):
                self._quarantine(document, end)
                self._files.drop(document.file, execution)
            elif isinstance(end, str):
                self._leave_open(execution, end)
            else:
                self.taken.add(execution)
                if self.unsettled.pop(execution, None) is not None:
                    self.counts["doubled"] += 1
                page.append(end)
                size += end.weight
                del end  # whoever gets the page frees it, and the next one may be long in coming
                if size >= _PAGE_BYTES:
                    yield page
                    page, size = [], 0
        yield page

    def _end(self, item: tuple[Document, Delivery]) -> Ended | NoDelivery | str:
        """The end that a delivery tells of; else why the API has to be asked, or why it is no delivery."""
        delivery = item[1]
        completed = delivery.status.strip().lower() == "completed"
        try:
            data = {index: self._urls.fetch(url) for index, url in urls_of(delivery).items()}
            payload = read_payload(delivery, data)
        except NoDelivery as problem:
            return problem
        except UrlError as error:
            return str(error)
        except ValueError as error:
            return f"what is behind its signed URL is {error}"
        if completed and not has_steps(payload):
            return "it was delivered without steps"
        size = len(delivery.body) + sum(map(len, data.values()))
        outcome = "completed" if completed else "failed"
        return Ended(delivery.execution, outcome, delivery.status, payload, None, 0, None, None, size)

    # Several at once

    def _side_by_side(
        self, items: Iterable[_T], do: Callable[[_T], _R], in_thread: Callable[[_T], bool]
    ) -> Iterator[tuple[_T, _R]]:
        """Each item with what came of it, in order, a few at once; ends early where it is to stop."""
        under_way: deque[tuple[_T, Future[_R] | None]] = deque()

        def first() -> tuple[_T, _R]:
            item, future = under_way.popleft()
            return item, do(item) if future is None else future.result()

        for item in items:
            if self._stop():
                return
            under_way.append((item, self._threads.submit(do, item) if in_thread(item) else None))
            while under_way and (len(under_way) > 2 * self._max_workers or under_way[0][1] is None):
                if not self._comes(under_way[0][1]):
                    return
                yield first()
        while under_way and self._comes(under_way[0][1]):
            yield first()

    def _comes(self, future: Future[_R] | None) -> bool:
        """Waits for it; false where it is to stop before."""
        while future is not None and not future.done():
            if self._stop():
                return False
            wait([future], _TICK_SECONDS)
        return not self._stop()


class _Files:
    """Which files can be put away: those that have been read, and all of whose executions are settled."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._left: dict[str, int] = {}  # deliveries that are not settled, and one more while it is read
        self._with: dict[ExecutionId, list[str]] = {}
        self._forgotten: dict[str, set[ExecutionId]] = {}

    def begin(self, name: str) -> None:
        self._left[name] = 1

    def add(self, name: str, execution: ExecutionId) -> None:
        self._left[name] += 1
        self._with.setdefault(execution, []).append(name)

    def end(self, name: str) -> None:
        self._put_away([name])

    def gone(self, name: str) -> None:
        """It was moved elsewhere."""
        self._left.pop(name, None)

    def drop(self, name: str, execution: ExecutionId) -> None:
        """One delivery of it is none."""
        if name in self._with.get(execution, ()):
            self._with[execution].remove(name)
            self._put_away([name])

    def mark(self, forgotten: Collection[ExecutionId], batch: Iterable[tuple[Document, Delivery]]) -> None:
        """Deliveries of these executions are taken out of their files before these are put away."""
        for document, delivery in batch:
            if delivery.execution in forgotten:
                self._forgotten.setdefault(document.file, set()).add(delivery.execution)

    def settle(self, executions: Iterable[ExecutionId]) -> None:
        self._put_away([name for execution in executions for name in self._with.pop(execution, ())])

    def _put_away(self, names: Iterable[str]) -> None:
        done = []
        for name in names:
            if name not in self._left:
                continue
            self._left[name] -= 1
            if not self._left[name]:
                del self._left[name]
                self._erase(name)
                done.append(name)
        self._inbox.put_away(done)

    def _erase(self, name: str) -> None:
        """Takes what is forgotten out of a file."""
        forgotten = self._forgotten.pop(name, None)
        if forgotten and not self._inbox.leaves_files:
            try:
                erase_in_file(self._inbox, name, forgotten)
            except Exception as error:  # the package of a file system may raise anything
                logger.warning(f"inbox: {shown(name)} has what is forgotten, and cannot be changed: {reason_of(error)}")


def _may_have_url(item: tuple[Document, Delivery]) -> bool:
    return b'"url"' in item[1].body


def _taken_now(documents: Iterable[Document]) -> Iterable[Document]:
    """All of them, read here and now; where that fails, the error comes when they are taken."""
    try:
        return list(documents)
    except Exception as error:  # the package of a file system may raise anything
        return _failing(error)


def _failing(error: Exception) -> Iterator[Document]:
    raise error
    yield
