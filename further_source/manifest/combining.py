"""Several lists as one, and one list in parts."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain

from further_source.executions import ExecutionId
from further_source.garbage import rarely_collected

__all__ = ["merge_executions", "shard"]


def merge_executions(*sources: Iterable[ExecutionId]) -> list[ExecutionId]:
    """All executions of all sources, in their order. An execution that comes twice is kept where it came first."""
    with rarely_collected():
        return list(dict.fromkeys(chain.from_iterable(sources)))


def shard(executions: Iterable[ExecutionId], index: int, count: int) -> Iterator[ExecutionId]:
    """The executions of part `index` (from 1) of `count` parts, in their order.

    Each execution is in exactly one part. Its ids and `count` alone decide which: it is the same part on every machine,
    today and later, whatever else is listed.

    Raises:
        ValueError: `index` is not one of 1 to `count`.
    """
    if not 1 <= index <= count:
        raise ValueError(f"shard {index}/{count}: it must be one of 1/{count} to {count}/{count}")
    return (execution for execution in executions if _hash(execution) % count == index - 1)


def _hash(execution: ExecutionId) -> int:
    digest = hashlib.blake2b(f"{execution.workflow_id}/{execution.workflow_execution_id}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big")
