"""The charts, in SVG: colours are the page's own, and each mark tells its number.

Drawn by hand: they are bars and lines, a library of charts would be the largest dependency by far, and its charts bring
scripts or colours that are fixed, where these follow the reader's dark mode, print, and take a few kilobytes.
"""

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from further_source.report.markup import Content, tag

__all__ = ["Line", "Point", "bars", "lines", "reliability"]

# A phone is about as wide, so that text is not scaled down on it.
_WIDTH, _HEIGHT = 400, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 12, 36
_INNER_WIDTH, _INNER_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

Line = tuple[str, str, Sequence[tuple[float, float]]]
"""Its CSS class, its name, and its points, both coordinates from 0 to 1."""
Point = tuple[float, float, float, float, str]
"""x, y, the lower and the upper bound of y (all from 0 to 1), and what it tells."""


def _chart(name: str, title: str, description: str, *contents: Content) -> Element:
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-desc"),
        contents,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        class_="chart",
        id=name,
    )


def _x(share: float) -> float:
    return _LEFT + share * _INNER_WIDTH


def _y(share: float) -> float:
    return _TOP + (1 - share) * _INNER_HEIGHT


def _label(text: str, x: float, y: float, *, anchor: str = "middle") -> Element:
    return tag("text", text, x=x, y=y, text_anchor=anchor)


def _grid(labels: Sequence[tuple[float, str]]) -> list[Element]:
    """Lines across, each with its label at the left."""
    return [
        element
        for share, text in labels
        for element in (
            tag("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_y(share), y2=_y(share)),
            _label(text, _LEFT - 5, _y(share) + 4, anchor="end"),
        )
    ]


_SHARES = [(share / 100, f"{share} %") for share in (0, 25, 50, 75, 100)]


def _axis(title: str, labels: Sequence[tuple[float, str]]) -> list[Element]:
    return [
        *(_label(text, _x(share), _HEIGHT - _BOTTOM + 15) for share, text in labels),
        _label(title, _x(0.5), _HEIGHT - 4),
    ]


_CONFIDENCES = [(tenth / 10, f"{tenth / 10:.1f}") for tenth in range(0, 11, 2)]


def bars(
    name: str,
    title: str,
    description: str,
    stacks: Sequence[tuple[str, Mapping[str, int]]],
    axis: str,
    *,
    edges: Sequence[tuple[float, str]] | None = None,
) -> Element:
    """Bars of counts, side by side.

    Args:
        stacks: For each bar its name and its parts, counts by CSS class, which is what they are called too.
        axis: What the bars are.
        edges: Labels below them, at shares of the width; else the names of some bars.
    """
    highest = max((sum(parts.values()) for _, parts in stacks), default=0) or 1
    wide = 1 / max(1, len(stacks))
    marks = []
    for number, (label, parts) in enumerate(stacks):
        below = 0
        for kind, count in parts.items():
            if count:
                share = count / highest
                said = f"{label}: {count:,}" + (f" {kind}" if len(parts) > 1 or kind != "bar" else "")
                marks.append(
                    tag(
                        "rect",
                        tag("title", said),
                        class_=f"mark {kind}",
                        x=_x(number * wide + wide * 0.06),
                        y=_y(below / highest + share),
                        width=wide * 0.88 * _INNER_WIDTH,
                        height=max(0.75, share * _INNER_HEIGHT),
                    )
                )
                below += count
    if edges is None:
        every = max(1, -(-len(stacks) // 6))
        edges = [((n + 0.5) * wide, label) for n, (label, _) in enumerate(stacks) if n % every == 0]
    scale = [(0.0, "0"), (0.5, _short(highest / 2)), (1.0, _short(highest))]
    return _chart(name, title, description, _grid(scale), marks, _axis(axis, edges))


def lines(name: str, title: str, description: str, drawn: Sequence[Line], axis: str) -> Element:
    """Lines of shares over confidence."""
    marks = [
        tag(
            "polyline",
            tag("title", called),
            class_=f"mark line {kind}",
            points=" ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points),
        )
        for kind, called, points in drawn
    ]
    return _chart(name, title, description, _grid(_SHARES), marks, _axis(axis, _CONFIDENCES))


def reliability(name: str, title: str, description: str, points: Sequence[Point], axis: str) -> Element:
    """Points with bounds, and the line on which they would be if confidence were the share that is right."""
    marks = [
        tag(
            "g",
            tag("title", said),
            tag("line", class_="bound", x1=_x(x), x2=_x(x), y1=_y(lower), y2=_y(upper)),
            tag("circle", class_="mark point", cx=_x(x), cy=_y(y), r=4),
        )
        for x, y, lower, upper, said in points
    ]
    ideal = tag("line", class_="ideal", x1=_x(0), y1=_y(0), x2=_x(1), y2=_y(1))
    return _chart(name, title, description, _grid(_SHARES), ideal, marks, _axis(axis, _CONFIDENCES))


def _short(number: float) -> str:
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {sign}"
    return f"{number:.3g}"
