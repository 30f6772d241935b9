"""Texts that a spreadsheet would take for formulas, and back.

Cells of documents are untrusted: a claimant called `=HYPERLINK(...)` must not become a formula in the reviewer's Excel.
In CSV such a text gets an apostrophe before it, and so does one that begins with an apostrophe, so that the way back is
clear. Numbers below zero stay as they are. In xlsx texts are typed as texts, and need nothing.
"""

import re

__all__ = ["defused", "restored"]

# Full-width signs too: some spreadsheets take them for the others.
_BEGINNINGS = "=+-@\t\r\n'＝＋－＠"
_NEGATIVE = re.compile(r"-\d+(\.\d+)?")


def defused(text: str) -> str:
    """The text as it goes to CSV."""
    # A spreadsheet may cut away spaces before it looks.
    dangerous = text.lstrip(" \xa0")[:1] in _BEGINNINGS and text.strip() != ""
    return f"'{text}" if dangerous and not _NEGATIVE.fullmatch(text) else text


def restored(text: str) -> str:
    """The text that was defused; one that was not stays as it is."""
    return text[1:] if text[:1] == "'" and defused(text[1:]) == text else text
