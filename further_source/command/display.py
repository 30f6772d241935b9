"""What a load shows to people and machines of how it went."""

from collections.abc import Sequence
from typing import Any

from further_source.exceptions import FurtherError
from further_source.pipeline import PipelineSettings
from further_source.run.report import Report
from further_source.text import one_line, printable

__all__ = ["outcome_counts", "review_query", "summary", "summary_document", "text_table"]

_MAX_REASON = 100  # characters
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
_DELIVERIES = {
    "delivered": "deliveries read",
    "doubled": "deliveries of what was loaded or delivered before",
    "quarantined": "files or lines that are no delivery: see quarantine/ in the inbox",
    "never_delivered": "never delivered, so the API was to be asked",
    "awaited": "not delivered yet",
    "reconciled": "settled by asking the API",
}


def outcome_counts(counts: dict[str, int]) -> str:
    """Counts by `poll_outcome` in one line."""
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in _OUTCOMES if counts.get(outcome))


def summary(report: Report, settings: PipelineSettings) -> str:
    """How a run went, in a few lines: executions by outcome, rows by table, where they are, a query to try."""
    lines = [f"{report.listed} executions listed"]
    if earlier := report.earlier.total():
        lines.append(f"  {earlier:>7} loaded earlier ({outcome_counts(report.earlier)})")
    if report.forgotten:
        lines.append(f"  {report.forgotten:>7} forgotten: never asked again")
    lines += [f"  {report.ended[key]:>7} {text}" for key, text in _OUTCOMES.items() if report.ended[key]]
    if kept := report.kept.total():
        lines.append(f"  {kept:>7} asked again without a new ending: what was loaded of them stays")
    lines += [f"  {report.deliveries[key]:>7} {text}" for key, text in _DELIVERIES.items() if report.deliveries[key]]
    if report.remaining:
        lines.append(f"  {report.remaining:>7} not ended yet: the next run asks again")
    if rows := {table: count for table, count in report.rows.items() if count}:
        lines.append("rows loaded")
        names = [name for name in _TABLES_FIRST if name in rows]
        names += sorted(rows.keys() - set(_TABLES_FIRST))
        lines += [f"  {rows[name]:>7} {name}" for name in names]
    lines += _not_completed(report, settings.dataset)
    if _anything_there(report):
        lines.append(f"data: {settings.destination_name}, dataset {settings.dataset}, {settings.location}")
    if report.rows["cells"] or (report.earlier + report.kept)["completed"]:
        lines += ["try:", *(f"  {line}" for line in review_query(settings.dataset).splitlines())]
    return "\n".join(lines)


def _anything_there(report: Report) -> bool:
    """Whether there are tables now, as far as the run can tell: an empty list makes them too."""
    return bool(report.rows or report.earlier or report.kept)


def _not_completed(report: Report, dataset: str) -> list[str]:
    """The first few that did not complete, and how to list all."""
    if not report.not_completed:
        return []
    lines = ["did not complete"]
    for outcome in dict.fromkeys(one.poll_outcome for one in report.not_completed):
        named = [one for one in report.not_completed if one.poll_outcome == outcome]
        lines += [f"  {outcome:<11} {one.execution}{_reason(one.poll_error)}" for one in named]
        if more := report.ended[outcome] - len(named):
            lines.append(f"  {outcome:<11} and {more} more")
    return [*lines, "all of them:", *(f"  {line}" for line in not_completed_query(dataset).splitlines())]


def _reason(error: str | None) -> str:
    return f" ({one_line(error, _MAX_REASON)})" if error else ""


def summary_document(
    report: Report, settings: PipelineSettings, *, error: FurtherError | None, exit_code: int
) -> dict[str, Any]:
    """The same for machines: counts by `poll_outcome` and by table, where the data is, and how the command ended."""
    return {
        "listed": report.listed,
        "ended": dict(report.ended),
        "earlier": dict(report.earlier),
        "kept": dict(report.kept),
        "forgotten": report.forgotten,
        "remaining": report.remaining,
        "not_completed": [
            {**one.execution._asdict(), "poll_outcome": one.poll_outcome, "poll_error": one.poll_error}
            for one in report.not_completed
        ],
        "not_completed_query": not_completed_query(settings.dataset) if report.not_completed else None,
        "rows": dict(report.rows),
        "deliveries": dict(report.deliveries),
        "destination": settings.destination_name,
        "dataset": settings.dataset,
        "location": settings.location,
        "error": None if error is None else str(error),
        "exit_code": exit_code,
    }


def not_completed_query(dataset: str) -> str:
    """All executions that ended otherwise than completed."""
    return (
        "SELECT workflow_id, workflow_execution_id, poll_outcome, poll_error\n"
        f"FROM {dataset}.executions\n"
        "WHERE poll_outcome NOT IN ('completed', 'running')\n"
        "ORDER BY poll_outcome, workflow_id, workflow_execution_id;"
    )


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
