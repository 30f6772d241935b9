"""HTML and SVG as a tree, so that whatever text comes into it is escaped when it is written."""

from collections.abc import Iterable
from xml.etree import ElementTree

from further_source.text import printable

__all__ = ["Content", "document", "tag"]

Content = ElementTree.Element | str | int | None | Iterable["Content"]


def tag(name: str, /, *contents: Content, **attributes: object) -> ElementTree.Element:
    """An element.

    Args:
        contents: Elements, text, numbers, or iterables of these; None is nothing.
        attributes: `class_` is `class` and `aria_label` is `aria-label`; those that are None are left out.
    """
    element = ElementTree.Element(
        name,
        {key.rstrip("_").replace("_", "-"): _text(value) for key, value in attributes.items() if value is not None},
    )
    _append(element, contents)
    return element


def _append(element: ElementTree.Element, contents: Iterable[Content]) -> None:
    for content in contents:
        if isinstance(content, ElementTree.Element):
            element.append(content)
        elif isinstance(content, str | int | float):
            if len(element):
                element[-1].tail = (element[-1].tail or "") + _text(content)
            else:
                element.text = (element.text or "") + _text(content)
        elif content is not None:
            _append(element, content)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return printable(str(value))


def document(html: ElementTree.Element) -> str:
    """The whole file of an `html` element."""
    return "<!DOCTYPE html>\n" + ElementTree.tostring(html, encoding="unicode", method="html") + "\n"
