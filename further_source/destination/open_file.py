"""Keeps a DuckDB file open: dlt opens it ten times in a load, and to open a closed one costs more than what it holds.

What is open in a process costs next to nothing to open again. But no other process can read it then, so it is closed
while the API is polled.

While a load is at work it has to be open: that keeps another process from loading in between, should this one stand
still for longer than its lease.
"""

from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationException

__all__ = ["OpenFile"]

_DUCKDB = "dlt.destinations.duckdb"


class OpenFile:
    """The DuckDB file of a pipeline; nothing, where its destination is another."""

    def __init__(self, pipeline: dlt.Pipeline) -> None:
        self._pipeline = pipeline
        self._connections = ExitStack()
        self._load = pipeline.load
        self._is_duckdb = pipeline.destination is not None and pipeline.destination.destination_type == _DUCKDB

    def __enter__(self) -> "OpenFile":
        self.open()
        self._pipeline.load = self._load_with_it_open  # type: ignore[method-assign]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._pipeline.load = self._load  # type: ignore[method-assign]

    def open(self) -> None:
        """Opens it. Where that fails, it fails again for whoever needs it, who will tell."""
        with suppress(DestinationException):
            self._hold()

    def _hold(self) -> None:
        if self._is_duckdb:
            client: Any = self._pipeline.destination_client()
            self._connections.enter_context(client)

    def _load_with_it_open(self, *arguments: Any, **keywords: Any) -> Any:
        self._hold()  # another process may have had it when polling ended
        return self._load(*arguments, **keywords)

    def close(self) -> None:
        self._connections.close()
