"""The sections of the report, each made of the figures."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from xml.etree.ElementTree import Element

from further_source.report import charts
from further_source.report.figures import FieldConfidence, Figures, Through
from further_source.report.markup import Content, tag
from further_source.report.parts import by_time, duration, legend, moment_of, numbers_of, percent, some, table
from further_source.report.queries import WAITING_BOUNDS, WORST_CELLS

__all__ = ["SECTIONS"]

_OUTCOMES = ("completed", "failed", "running", "other")
_HEAT = (0.5, 0.7, 0.8, 0.9, 0.95)
_MAX_FIELDS = 600
_MAX_STEPS = 10  # side by side, as far as paper is wide
_MAX_ROWS_OF_HEAT = 30
_MAX_ROWS = 200
_NO_NAME = "(no name)"


def _section(name: str, title: str, *contents: Content, wide: bool = False) -> Element:
    heading = f"{name}-heading"
    return tag(
        "section",
        tag("h2", title, id=heading),
        contents,
        id=name,
        aria_labelledby=heading,
        class_="wide" if wide else None,
    )


def _to_see(figures: Figures) -> Element:
    """What a reader should look at first."""
    changed = [one for one in figures.changes if one.is_noteworthy]
    fallen = sum(one.difference < 0 for one in changed)
    unwell = {
        outcome: sum(day.get(outcome, 0) for day in figures.outcomes.values())
        for outcome in sorted({key for day in figures.outcomes.values() for key in day} - {"completed", "running"})
    }
    without = figures.cells.get(None, 0)
    named = [one for one in figures.without_column if one[3] != "no value has come yet"]
    notes: list[tuple[int, str, str]] = [
        (len(changed), f"mean confidence of {some(len(changed), 'field')} has changed, {fallen} fell", "changes"),
        *((count, f"{some(count, 'execution')} ended as {outcome}", "outcomes") for outcome, count in unwell.items()),
        (len(figures.types), f"{some(len(figures.types), 'field')} came in more than one type", "types"),
        (len(named), f"{some(len(named), 'field')} without a column", "columns"),
        (without, f"{some(without, 'cell')} came without a confidence", "fields"),
    ]
    shown = [tag("li", tag("a", text, href=f"#{target}")) for count, text, target in notes if count]
    return _section(
        "look",
        "What to look at",
        tag("ul", shown, class_="notes") if shown else tag("p", "Nothing stands out."),
        wide=True,
    )


def _straight_through(figures: Figures) -> Element:
    title = "What would go straight through"
    if not figures.cell_count:
        return _section("through", title, tag("p", "No cells are loaded."))
    shares = [_shares(one, figures) for one in figures.through]
    drawn: list[charts.Line] = [
        ("cells", "cells", [(one[0], one[1]) for one in shares]),
        ("documents", "whole documents", [(one[0], one[2]) for one in shares]),
    ]
    errors = [(one.threshold, one.error) for one in figures.through if one.error is not None]
    if errors:
        drawn.append(("error", "wrong cells among these, by reviews", errors))
    at = {one.threshold: one for one in figures.through}
    told = "; ".join(
        f"at {threshold:.2f}: {percent(at[threshold].cells, figures.cell_count)} of cells, "
        f"{percent(at[threshold].documents, figures.document_count)} of documents"
        for threshold in (0.7, 0.8, 0.9)
    )
    rows = [
        (
            f"{one.threshold:.2f}",
            one.cells,
            percent(one.cells, figures.cell_count),
            one.documents,
            percent(one.documents, figures.document_count),
            "" if one.error is None else f"{one.error:.2%}",
        )
        for one in figures.through
    ]
    return _section(
        "through",
        title,
        tag("p", f"{told[0].upper()}{told[1:]}.", class_="soft"),
        tag(
            "figure",
            charts.lines(
                "through-chart", f"{title}, by threshold", f"Falling lines: {told}.", drawn, "threshold of confidence"
            ),
            legend([(kind, name, "line") for kind, name, _ in drawn]),
        ),
        numbers_of(
            "Threshold by threshold",
            ("threshold", "cells", "share", "documents", "share", "wrong, by reviews"),
            rows,
        ),
    )


def _shares(one: Through, figures: Figures) -> tuple[float, float, float]:
    return (
        one.threshold,
        one.cells / figures.cell_count,
        one.documents / figures.document_count if figures.document_count else 0.0,
    )


def _histogram(figures: Figures) -> Element:
    classes = [0] * 20
    for bucket, count in figures.cells.items():
        if bucket is not None:
            classes[min(19, bucket // 5)] += count
    stacks = [(f"{number / 20:.2f} to {(number + 1) / 20:.2f}", {"bar": count}) for number, count in enumerate(classes)]
    without = figures.cells.get(None, 0)
    return _section(
        "histogram",
        "Confidence of cells",
        tag("p", f"{without:,} cells without a confidence are not in it.", class_="soft") if without else None,
        charts.bars(
            "histogram-chart",
            "Cells by confidence",
            f"Bars, each a twentieth wide; the highest has {max(classes):,} of {sum(classes):,} cells.",
            stacks,
            "confidence",
            edges=[(tenth / 10, f"{tenth / 10:.1f}") for tenth in range(0, 11, 2)],
        ),
        numbers_of("Cells by confidence", ("confidence", "cells"), [(name, parts["bar"]) for name, parts in stacks]),
    )


def _heat_map(figures: Figures) -> Element:
    """A table of field by step, or several where there are many steps; the least confident come first."""
    title = "Confidence, step by field"
    shown = sorted(figures.fields, key=_least_first)[:_MAX_FIELDS]
    if not shown:
        return _section("fields", title, tag("p", "No cells are loaded."), wide=True)
    steps = list(dict.fromkeys(one.step_name for one in shown))
    left_out = len(figures.fields) - len(shown)
    bounds = ["below 0.50", *(f"from {low:.2f}" for low in _HEAT)]
    rows = [
        (
            one.step_name or _NO_NAME,
            one.field or _NO_NAME,
            one.cells,
            one.with_confidence,
            *("" if number is None else f"{number:.3f}" for number in (one.mean, one.lowest)),
        )
        for one in shown
    ]
    return _section(
        "fields",
        title,
        tag("p", "Mean confidence of each field in each step; the least confident fields and steps come first."),
        tag("p", f"{left_out} more fields are more confident than these.", class_="soft") if left_out else None,
        tag(
            "ul",
            (tag("li", text, class_=f"h{number}") for number, text in enumerate(bounds)),
            class_="colours",
            aria_label="Colours",
        ),
        (
            _matrix([one for one in shown if one.step_name in of_table], of_table)
            for of_table in (steps[start : start + _MAX_STEPS] for start in range(0, len(steps), _MAX_STEPS))
        ),
        numbers_of("Field by field", ("step", "field", "cells", "with confidence", "mean", "lowest"), rows),
        wide=True,
    )


def _least_first(one: FieldConfidence) -> tuple[bool, float]:
    return one.mean is None, one.mean or 0.0


def _matrix(shown: Sequence[FieldConfidence], steps: Sequence[str | None]) -> list[Element]:
    """The least confident fields, and the others folded away."""
    fields: dict[str | None, dict[str | None, FieldConfidence]] = {}
    for one in shown:
        fields.setdefault(one.field, {})[one.step_name] = one
    names = list(fields)
    first, others = names[:_MAX_ROWS_OF_HEAT], names[_MAX_ROWS_OF_HEAT:]
    parts = [_heat_table([(name, fields[name]) for name in first], steps)]
    if others:
        summary = tag("summary", f"{len(others)} more fields, more confident than these")
        parts.append(tag("details", summary, _heat_table([(name, fields[name]) for name in others], steps)))
    return parts


def _heat_table(
    rows: Sequence[tuple[str | None, Mapping[str | None, FieldConfidence]]], steps: Sequence[str | None]
) -> Element:
    caption = f"Mean confidence of {len(rows)} fields in {', '.join(step or _NO_NAME for step in steps)}"
    head = (tag("th", step or _NO_NAME, scope="col") for step in steps)
    body = (
        tag("tr", tag("th", name or _NO_NAME, scope="row"), (_heat_cell(of_field.get(step)) for step in steps))
        for name, of_field in rows
    )
    made = tag(
        "table",
        tag("caption", caption, class_="unseen"),
        tag("thead", tag("tr", tag("td", "field", class_="soft"), head)),
        tag("tbody", body),
        class_="heat",
    )
    return tag("div", made, class_="scroll", tabindex=0, role="group", aria_label=caption)


def _heat_cell(one: FieldConfidence | None) -> Element:
    if one is None:
        return tag("td")
    if one.mean is None:
        return tag("td", "none", class_="mark none")
    return tag("td", f"{one.mean:.3f}", class_=f"mark h{sum(one.mean >= low for low in _HEAT)}")


def _changes(figures: Figures) -> Element:
    title = "Changes of mean confidence"
    if not figures.changes or figures.compared_at is None:
        return _section(
            "changes", title, tag("p", "There is nothing to compare: all that is counted was loaded on one side.")
        )
    rows = [
        (
            one.step_name or _NO_NAME,
            one.field or _NO_NAME,
            f"{one.before:.3f}",
            f"{one.after:.3f}",
            f"{one.difference:+.3f}",
            one.cells_before,
            one.cells_after,
            "changed" if one.is_noteworthy else "",
        )
        for one in figures.changes
    ]
    count = sum(one.is_noteworthy for one in figures.changes)
    return _section(
        "changes",
        title,
        tag(
            "p",
            f"What was loaded from {moment_of(figures.compared_at)} on against what was loaded before. {count} of "
            f"{len(rows)} fields changed by 0.01 or more, and by four standard errors. A change of the model behind "
            "the API shows here first; so does a change of the documents.",
        ),
        table(
            "Mean confidence before and after",
            ("step", "field", "before", "after", "change", "cells before", "after", ""),
            rows[: max(count, 15)][:_MAX_ROWS],
        ),
        wide=True,
    )


def _reliability(figures: Figures) -> Element | None:
    if not figures.reviewed:
        return None
    said = [
        f"{one.lower:.2f} to {one.upper:.2f}: {one.right:,} of {one.cells:,} right, {one.share:.1%} "
        f"({one.bounds[0]:.1%} to {one.bounds[1]:.1%})"
        for one in figures.reviewed
    ]
    points = [
        ((one.lower + one.upper) / 2, one.share, *one.bounds, text)
        for one, text in zip(figures.reviewed, said, strict=True)
    ]
    rows = [
        (
            f"{one.lower:.2f} to {one.upper:.2f}",
            one.cells,
            one.right,
            f"{one.share:.1%}",
            f"{one.bounds[0]:.1%} to {one.bounds[1]:.1%}",
        )
        for one in figures.reviewed
    ]
    return _section(
        "reliability",
        "How often confidence is right",
        tag(
            "p",
            "The share of reviewed cells that were right, with Wilson's bounds at 95 %. On the dashed line confidence "
            "would be the share that is right.",
            class_="soft",
        ),
        charts.reliability(
            "reliability-chart", "Share right by confidence, as reviewed", "; ".join(said), points, "confidence"
        ),
        table("Reviewed cells", ("confidence", "reviewed", "right", "share", "bounds"), rows),
    )


def _thresholds(figures: Figures) -> Element | None:
    if not figures.thresholds:
        return None
    rows = [
        (
            one.step_name or "all",
            one.field or "all",
            "none yet" if one.threshold is None else f"{one.threshold:.3f}",
            f"{one.target_error:.1%} at {one.confidence_level:.0%}",
            percent(one.cells_through, one.cells),
            one.reviews_needed or "",
        )
        for one in figures.thresholds
    ]
    return _section(
        "thresholds",
        "Thresholds in force",
        table(
            "As further-source threshold found them",
            ("step", "field", "threshold", "error at most", "straight through", "reviews still needed"),
            rows[:_MAX_ROWS],
        ),
        wide=True,
    )


def _outcomes(figures: Figures) -> Element:
    counted: dict[date, dict[str, int]] = {}
    for day, outcomes in figures.outcomes.items():
        parts = counted.setdefault(day, dict.fromkeys(_OUTCOMES, 0))
        for outcome, count in outcomes.items():
            parts[outcome if outcome in parts else "other"] += count
    stacks = by_time(counted)
    rows = [(str(day), outcome, count) for day, of_day in figures.outcomes.items() for outcome, count in of_day.items()]
    return _section(
        "outcomes",
        "Executions by outcome",
        tag(
            "figure",
            charts.bars(
                "outcomes-chart",
                "Executions by the day they were last asked, and by outcome",
                f"{sum(count for *_, count in rows):,} executions on {len(counted)} days.",
                stacks,
                "last asked",
            ),
            legend([(name, name, "rect") for name in _OUTCOMES if any(parts[name] for _, parts in stacks)]),
        )
        if stacks
        else tag("p", "No execution is loaded."),
        numbers_of("Executions by day and outcome", ("day", "outcome", "executions"), rows[-_MAX_ROWS:])
        if rows
        else None,
    )


def _loads(figures: Figures) -> Element:
    stacks = by_time({day: {"bar": count} for day, count in figures.loads_by_day.items()})
    return _section(
        "loads",
        "Loads",
        tag(
            "p",
            f"The first {moment_of(figures.first_load)}, the last {moment_of(figures.last_load)}.",
            class_="soft",
        ),
        charts.bars("loads-chart", "Loads by day", f"{figures.loads:,} loads.", stacks, "loaded") if stacks else None,
        numbers_of(
            "Loads by day",
            ("day", "loads"),
            [(str(day), count) for day, count in figures.loads_by_day.items()][-_MAX_ROWS:],
        )
        if stacks
        else None,
    )


def _waiting(figures: Figures) -> Element:
    names = [
        *(f"under {duration(bound)}" for bound in WAITING_BOUNDS),
        f"{duration(WAITING_BOUNDS[-1])} or more",
    ]
    rows = [*zip(names, figures.waiting, strict=False)]
    while len(rows) > 1 and not rows[-1][1]:
        rows.pop()
    edges = [
        ((n + 0.5) / len(rows), name.replace("under ", "<").replace(" or more", "+"))
        for n, (name, _) in enumerate(rows)
    ]
    return _section(
        "waiting",
        "From the first asking to the last",
        charts.bars(
            "waiting-chart",
            "Ended executions by the time from the first asking to the last",
            "; ".join(f"{name} {count:,}" for name, count in rows),
            [(name, {"bar": count}) for name, count in rows],
            "of completed and failed executions",
            edges=edges,
        )
        if rows
        else tag("p", "No execution has ended."),
        numbers_of("Ended executions", ("time", "executions"), rows) if rows else None,
    )


def _types(figures: Figures) -> Element:
    rows = [
        (step or _NO_NAME, field or _NO_NAME, ", ".join(f"{kind} {count:,}" for kind, count in kinds.items()))
        for (step, field), kinds in figures.types.items()
    ]
    return _section(
        "types",
        "Fields that changed their type",
        table("Fields with cells of more than one type", ("step", "field", "cells by type"), rows[:_MAX_ROWS])
        if rows
        else tag("p", "None."),
    )


def _without_column(figures: Figures) -> Element:
    rows = [
        (table, step or _NO_NAME, field, reason) for table, step, field, reason in figures.without_column[:_MAX_ROWS]
    ]
    return _section(
        "columns",
        "Fields without a column",
        table("Fields that have no column in a wide table", ("table", "step", "field", "why"), rows)
        if rows
        else tag("p", "None."),
    )


def _worst(figures: Figures) -> Element:
    rows = [
        (
            f"{one.confidence:.3f}",
            one.step_name or _NO_NAME,
            one.field or _NO_NAME,
            one.row_index,
            f"{one.workflow_id}/{one.workflow_execution_id}",
            *(("null" if one.value is None else one.value,) if figures.has_values else ()),
        )
        for one in figures.worst
    ]
    headers = ("confidence", "step", "field", "row", "execution", *(("value",) if figures.has_values else ()))
    return _section(
        "worst",
        "The least confident cells",
        table(f"Where the {min(WORST_CELLS, len(rows))} least confident cells stand; rows count from 0", headers, rows)
        if rows
        else tag("p", "No cell has a confidence."),
        wide=True,
    )


SECTIONS: tuple[Callable[[Figures], Element | None], ...] = (
    _to_see,
    _straight_through,
    _histogram,
    _reliability,
    _thresholds,
    _heat_map,
    _changes,
    _outcomes,
    _waiting,
    _loads,
    _types,
    _without_column,
    _worst,
)
