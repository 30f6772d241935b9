"""Takes deliveries of executions out of an inbox for good, wherever they are in it: waiting, archived, in quarantine.

What is no readable delivery, in quarantine mostly, is known by the text of its `workflow_execution_id`.
"""

import re
import zlib
from collections.abc import Callable, Collection
from typing import NamedTuple, TypeVar

import msgspec

from further_source.exceptions import FurtherError
from further_source.executions import ExecutionId
from further_source.inbox.delivery import NoDelivery, read_delivery
from further_source.inbox.store import Inbox, reason_of
from further_source.text import shown

__all__ = ["Erased", "delivered_with", "erase_deliveries", "erase_in_file"]

_ID = rb'"workflow_execution_id"\s*:\s*"(%s)"'
_ANY_ID = re.compile(_ID % rb"[A-Za-z0-9_-]+")
_BROKEN = (EOFError, zlib.error)

_R = TypeVar("_R")


class Erased(NamedTuple):
    """What was done in an inbox.

    Attributes:
        location: Of the inbox, without what is secret in a URL.
        deliveries: How many were taken out.
        unclear: Names of files of some of which it cannot be told whose it is. That is left.
    """

    location: str
    deliveries: int
    unclear: list[str]


class _Metadata(msgspec.Struct):
    external_id: object = None


class _Whose(msgspec.Struct):
    metadata: _Metadata | None = None


_read_whose = msgspec.json.Decoder(_Whose).decode


def delivered_with(inbox: Inbox, external_id: str) -> set[ExecutionId]:
    """The executions of all deliveries that have an external id in their metadata.

    Raises:
        FurtherError: The inbox, or a file of it, cannot be read just now.
    """
    return {
        execution
        for name in _names(inbox)
        for execution in _now(inbox, name, lambda name: _executions_with(inbox, name, external_id))
    }


def erase_deliveries(inbox: Inbox, executions: Collection[ExecutionId]) -> Erased:
    """Takes all deliveries of executions out of an inbox. Other lines of a file stay in it.

    Raises:
        FurtherError: The inbox, or a file of it, cannot be read or changed just now.
    """
    _now(inbox, "", lambda _: inbox.sweep())
    count = 0
    unclear: list[str] = []
    for name in _names(inbox):
        erased, is_clear = _now(inbox, name, lambda name: erase_in_file(inbox, name, executions))
        count += erased
        unclear += [] if is_clear else [name]
    return Erased(inbox.shown, count, unclear)


def erase_in_file(inbox: Inbox, name: str, executions: Collection[ExecutionId]) -> tuple[int, bool]:
    """Takes deliveries of executions out of one file; returns how many, and whether it was clear whose all of it is."""
    wanted = _Wanted(executions)
    try:
        are = [wanted.is_of(text) for text in inbox.texts(name)]
        if all(are):
            inbox.remove(name)
        elif any(are):
            inbox.rewrite(name, (text for text in inbox.texts(name) if not wanted.is_of(text)))
    except FileNotFoundError:
        return 0, True  # it has gone elsewhere, and is met there
    except _BROKEN:
        return 0, False
    return sum(map(bool, are)), None not in are


class _Wanted:
    def __init__(self, executions: Collection[ExecutionId]) -> None:
        self._executions = frozenset(executions)
        self._ids = {one.workflow_execution_id.encode() for one in executions}

    def is_of(self, text: bytes) -> bool | None:
        """Whether a text is of one of the executions; None where nothing tells of which it is."""
        try:
            return read_delivery(text).execution in self._executions
        except NoDelivery:
            ids = _ANY_ID.findall(text)
            return None if not ids else not self._ids.isdisjoint(ids)


def _executions_with(inbox: Inbox, name: str, external_id: str) -> set[ExecutionId]:
    found: set[ExecutionId] = set()
    try:
        for text in inbox.texts(name):
            try:
                delivery = read_delivery(text)
                metadata = _read_whose(delivery.body).metadata
            except (NoDelivery, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if metadata is not None and metadata.external_id == external_id:
                found.add(delivery.execution)
    except (FileNotFoundError, *_BROKEN):
        pass  # it has gone elsewhere, and is met there; or nobody can read it
    return found


def _names(inbox: Inbox) -> list[str]:
    return _now(inbox, "", lambda _: inbox.names_everywhere())


def _now(inbox: Inbox, name: str, do: Callable[[str], _R]) -> _R:
    try:
        return do(name)
    except Exception as error:  # the package of a file system may raise anything
        file = f", {shown(name)}" if name else ""
        raise FurtherError(
            f"inbox {inbox.shown}{file}: {reason_of(error)}: it may have something of them; forget them again"
        ) from error
