"""Reads the project's Markdown: its blocks of code, its tables, its links."""

import re
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGES = sorted((PROJECT / "docs").glob("*.md"))
DOCUMENTS = [*(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *PAGES]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its first line of code."""

    language: str
    code: str
    line: int

    def __str__(self) -> str:
        return f"{self.language}-line-{self.line}"


class Document:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.prose = _FENCE.sub("", self.text)

    def blocks(self, language: str) -> list[Block]:
        return [
            Block(language, match[2], self.text.count("\n", 0, match.start()) + 2)
            for match in _FENCE.finditer(self.text)
            if match[1] == language
        ]

    def section(self, heading: str) -> str:
        """What stands between a heading and the next one, of whatever level."""
        found = list(_HEADING.finditer(_without_code(self.text)))
        for match, following in zip(found, [*found[1:], None], strict=True):
            if match[1] == heading:
                return self.text[match.end() : following.start() if following else None]
        raise LookupError(f"{self.path.name} has no heading {heading!r}")

    def tables(self, heading: str) -> list[list[list[str]]]:
        """The tables of a section: rows of cells, the header first, the line of dashes left out."""
        runs = re.findall(r"(?:^\|.*\n)+", self.section(heading) + "\n", re.MULTILINE)
        return [[_cells(line) for line in run.splitlines() if not re.fullmatch(r"[|\s:-]+", line)] for run in runs]

    def links(self) -> list[str]:
        return _LINK.findall(self.prose)

    def anchors(self) -> set[str]:
        """As GitHub makes them of headings."""
        headings = _HEADING.findall(self.prose)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def names(cell: str) -> list[str]:
    """What stands in backticks in a table's cell."""
    return re.findall(r"`([^`]+)`", cell)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _without_code(text: str) -> str:
    """The text with its code blanked out, at the same positions."""
    return _FENCE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
