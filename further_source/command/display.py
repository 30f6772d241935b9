"""What a load shows to people: progress while it runs, and a summary of how it went."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from further_source.exceptions import FurtherError
from further_source.pipeline import PipelineSettings
from further_source.run import Report
from further_source.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["review_query", "show_progress", "summary", "summary_document", "text_table"]

_SECONDS_BETWEEN_LINES = 10.0
_TABLES_FIRST = ("executions", "steps", "cells")
_OUTCOMES = {
    "completed": "completed",
    "failed": "failed",
    "running": "still running when waiting ended",
    "not_found": "not found (404)",
    "forbidden": "forbidden (403)",
    "rejected": "rejected",
    "invalid": "answered with something else",
    "unreachable": "unreachable",
}


@contextmanager
def show_progress(*, quiet: bool) -> Iterator[Callable[[Report], None]]:
    """Shows reports on standard error: a live bar on a terminal, else a line now and then; nothing if `quiet`."""
    if quiet:
        yield lambda report: None
    elif sys.stderr.isatty():
        with _bar() as progress:
            task = progress.add_task("polling", total=None)
            yield lambda report: progress.update(
                task,
                total=report.listed - report.earlier.total(),
                completed=report.asked,
                description=_outcomes(report.ended) or "polling",
            )
    else:
        yield _Lines(sys.stderr)


def _bar() -> "Progress":
    # Imported where there is a terminal, for runs from cron start faster without.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


class _Lines:
    """Log lines at intervals, and whenever nothing is left to wait for."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = ""
        self._at = float("-inf")

    def __call__(self, report: Report) -> None:
        line = f"{report.asked} of {report.listed - report.earlier.total()} ended"
        if outcomes := _outcomes(report.ended):
            line += f": {outcomes}"
        due = time.monotonic() - self._at >= _SECONDS_BETWEEN_LINES or report.remaining == 0
        if due and line != self._shown:
            self._shown, self._at = line, time.monotonic()
            with suppress(OSError):  # who reads no more, or a full disk, must not stop a load
                print(f"{time.strftime('%H:%M:%S')} {line}", file=self._stream, flush=True)


def _outcomes(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in _OUTCOMES if counts.get(outcome))


def summary(report: Report, settings: PipelineSettings) -> str:
    """How a run went, in a few lines: executions by outcome, rows by table, where they are, a query to try."""
    lines = [f"{report.listed} executions listed"]
    if earlier := report.earlier.total():
        lines.append(f"  {earlier:>7} loaded earlier ({_outcomes(report.earlier)})")
    lines += [f"  {report.ended[key]:>7} {text}" for key, text in _OUTCOMES.items() if report.ended[key]]
    if kept := report.kept.total():
        lines.append(f"  {kept:>7} asked again without a new ending: what was loaded of them stays")
    if report.remaining:
        lines.append(f"  {report.remaining:>7} not ended yet: the next run asks again")
    if rows := {table: count for table, count in report.rows.items() if count}:
        lines.append("rows loaded")
        names = [name for name in _TABLES_FIRST if name in rows]
        names += sorted(rows.keys() - set(_TABLES_FIRST))
        lines += [f"  {rows[name]:>7} {name}" for name in names]
    lines += [
        f"data: {settings.destination_name}, dataset {settings.dataset}, {settings.location}",
        "try:",
        *(f"  {line}" for line in review_query(settings.dataset).splitlines()),
    ]
    return "\n".join(lines)


def summary_document(
    report: Report, settings: PipelineSettings, *, error: FurtherError | None, exit_code: int
) -> dict[str, Any]:
    """The same for machines: counts by `poll_outcome` and by table, where the data is, and how the command ended."""
    return {
        "listed": report.listed,
        "ended": dict(report.ended),
        "earlier": dict(report.earlier),
        "kept": dict(report.kept),
        "remaining": report.remaining,
        "rows": dict(report.rows),
        "destination": settings.destination_name,
        "dataset": settings.dataset,
        "location": settings.location,
        "error": None if error is None else str(error),
        "exit_code": exit_code,
    }


def review_query(dataset: str) -> str:
    """The cells that need a human's eye."""
    return (
        "SELECT e.metadata__external_id, c.step_name, c.row_index, c.field, c.value, c.confidence\n"
        f"FROM {dataset}.cells c\n"
        f"JOIN {dataset}.executions e USING (workflow_id, workflow_execution_id)\n"
        "WHERE c.confidence < 0.7\n"
        "ORDER BY c.confidence, c.field, c.value\n"
        "LIMIT 10;"
    )


def text_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of plain text; control characters in it are escaped."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="")
    for header in headers:
        table.add_column(header, overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*("" if value is None else printable(str(value)) for value in row))
    console = Console(width=120, no_color=True, markup=False, highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
