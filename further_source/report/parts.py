"""What the report's sections are made of: tables, legends, periods of time, and numbers as text."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from xml.etree.ElementTree import Element

from further_source.report.markup import tag

__all__ = ["by_time", "count_of", "duration", "legend", "moment_of", "numbers_of", "percent", "some", "table"]

_MAX_BARS = 45


def table(caption: str, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Element:
    """A table that can be scrolled sideways, by keyboard too, where it is wider than the page."""
    rows = list(rows)
    numeric = [all(isinstance(row[n], int) for row in rows) for n in range(len(headers))]

    def cell(column: int, value: object) -> Element:
        text = f"{value:,}" if isinstance(value, int) else str(value)
        kind = "number" if numeric[column] else "id" if headers[column] in ("execution", "value") else None
        return tag("th", text, scope="row", class_=kind) if column == 0 else tag("td", text, class_=kind)

    head = [
        tag("th", name, scope="col", class_="number" if numeric[n] else None) if name else tag("td")
        for n, name in enumerate(headers)
    ]
    body = (tag("tr", (cell(n, value) for n, value in enumerate(row))) for row in rows)
    made = tag("table", tag("caption", caption), tag("thead", tag("tr", head)), tag("tbody", body))
    return tag("div", made, class_="scroll", tabindex=0, role="group", aria_label=caption)


def numbers_of(caption: str, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Element:
    """The numbers of a chart, folded away."""
    return tag("details", tag("summary", f"{caption}, in numbers"), table(caption, headers, rows))


def legend(entries: Iterable[tuple[str, str, str]]) -> Element:
    """CSS class, name and shape of each."""

    def sample(kind: str, shape: str) -> Element:
        mark = (
            tag("line", class_=f"line {kind}", x1=0, y1=5, x2=20, y2=5)
            if shape == "line"
            else tag("rect", class_=f"mark {kind}", width=20, height=10)
        )
        return tag("svg", mark, viewBox="0 0 20 10", aria_hidden="true")

    return tag("ul", (tag("li", sample(kind, shape), name) for kind, name, shape in entries), class_="legend")


def by_time(counted: Mapping[date, Mapping[str, int]]) -> list[tuple[str, dict[str, int]]]:
    """All days from the first to the last, or weeks or months where these are too many; empty ones too."""
    if not counted:
        return []
    days = (max(counted) - min(counted)).days
    if days < _MAX_BARS:
        first, name, label = _same_day, "%Y-%m-%d", "%m-%d"
    elif days < _MAX_BARS * 7:
        first, name, label = _monday, "%Y-%m-%d", "%m-%d"
    else:
        first, name, label = _first_of_month, "%Y-%m", "%Y-%m"
    kinds = dict.fromkeys(kind for parts in counted.values() for kind in parts)
    periods: dict[date, dict[str, int]] = {}
    for number in range(days + 1):
        day = min(counted) + timedelta(days=number)
        parts = periods.setdefault(first(day), dict.fromkeys(kinds, 0))
        for kind, count in counted.get(day, {}).items():
            parts[kind] += count
    named = label if len({day.strftime(label) for day in periods}) == len(periods) else name
    return [(day.strftime(named), parts) for day, parts in periods.items()]


def _same_day(day: date) -> date:
    return day


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _first_of_month(day: date) -> date:
    return day.replace(day=1)


def duration(seconds: int) -> str:
    """In seconds, minutes or hours; the last two only for whole ones."""
    if seconds < 60:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 3600 else f"{seconds // 3600} h"


def count_of(number: int) -> str:
    """With commas between thousands."""
    return f"{number:,}"


def some(number: int, what: str) -> str:
    """`1 field`, `2 fields`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def percent(part: int, whole: int) -> str:
    """The share with one decimal; nothing of nothing."""
    return f"{part / whole:.1%}" if whole else ""


def moment_of(moment: datetime | None) -> str:
    """To the minute; `never` where there is none."""
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
