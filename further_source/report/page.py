"""The report as one HTML file: no script, and nothing that a browser would have to ask anybody for."""

from datetime import datetime
from importlib import resources
from xml.etree.ElementTree import Element

from further_source.report.figures import Figures
from further_source.report.markup import document, tag
from further_source.report.parts import count_of, moment_of
from further_source.report.sections import SECTIONS

__all__ = ["page"]

# Whatever a name in the data may hold, a browser neither runs it nor asks for it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(figures: Figures, *, dataset: str, made_at: datetime) -> str:
    """The whole file.

    Args:
        dataset: What was looked at.
        made_at: When the figures were read.
    """
    sections = [section for section in (make(figures) for make in SECTIONS) if section is not None]
    links = [tag("li", tag("a", section[0].text or "", href=f"#{section.get('id')}")) for section in sections]
    style = tag("style")
    style.text = resources.files("further_source.report").joinpath("style.css").read_text(encoding="utf-8")
    title = f"Report of {dataset}"
    return document(
        tag(
            "html",
            tag(
                "head",
                tag("meta", charset="utf-8"),
                tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
                tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
                tag("meta", name="referrer", content="no-referrer"),
                tag("title", title),
                style,
            ),
            tag(
                "body",
                tag("header", tag("h1", title), tag("p", _about(figures, made_at), class_="soft"), _numbers(figures)),
                tag("nav", tag("ul", links), aria_label="Sections"),
                tag("main", tag("div", sections, class_="cards")),
                tag("footer", tag("p", _END, class_="soft")),
            ),
            lang="en",
        )
    )


_END = (
    "Days and times are UTC. A cell goes straight through at a threshold if its confidence is at least that, a "
    "document if all its cells do; a cell without a confidence never does. Confidence is what the API says of its own "
    "answer. How often it is right, only reviews tell."
)


def _about(figures: Figures, made_at: datetime) -> str:
    counted = f"only what was loaded from {moment_of(figures.since)} on" if figures.since else "all that is loaded"
    values = "values of cells are shown" if figures.has_values else "no values of cells"
    return f"Made {moment_of(made_at)}; {counted}; {values}."


def _numbers(figures: Figures) -> Element:
    known = figures.cell_count - figures.cells.get(None, 0)
    mean = sum((one.mean or 0.0) * one.with_confidence for one in figures.fields) / known if known else None
    numbers: list[tuple[str, str, str | None]] = [
        ("Executions", count_of(figures.executions), None),
        ("completed", count_of(figures.completed), None),
        ("Documents with cells", count_of(figures.document_count), None),
        ("Cells", count_of(figures.cell_count), None),
        ("Mean confidence", "none" if mean is None else f"{mean:.3f}", None),
        ("Loads", count_of(figures.loads), None),
        ("Last load", moment_of(figures.last_load), "moment"),
        ("Last asked", moment_of(figures.last_asked), "moment"),
    ]
    return tag(
        "dl",
        (
            tag("div", tag("dt", name), tag("dd", number, class_=kind, data_figure=name))
            for name, number, kind in numbers
        ),
        class_="numbers",
    )
