"""Keeps a DuckDB file open: dlt opens it ten times in a load, and to open a closed one costs more than what it holds.

What is open in a process costs next to nothing to open again. But no other process can read it then, so it is closed
while the API is polled.
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
        self._is_duckdb = pipeline.destination is not None and pipeline.destination.destination_type == _DUCKDB

    def __enter__(self) -> "OpenFile":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Opens it. Where that fails, it fails again for whoever needs it, who will tell."""
        if self._is_duckdb:
            client: Any = self._pipeline.destination_client()
            with suppress(DestinationException):
                self._connections.enter_context(client)

    def close(self) -> None:
        self._connections.close()
