"""Text for people: one line, short, and nothing in it that a terminal could take for more than text."""

import re

__all__ = ["one_line", "printable", "shortened", "shown", "shown_url"]

_MAX_LINE = 600  # characters
_MAX_SHOWN = 80


def printable(text: str) -> str:
    """`text` with control characters and the like escaped, line breaks too."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def shortened(text: str, max_length: int) -> str:
    """`text`, cut to `max_length` characters with an ellipsis at the end where it is longer."""
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def one_line(text: str, max_length: int = _MAX_LINE) -> str:
    """`text` in one printable line of at most `max_length` characters; runs of white space become a space."""
    return shortened(printable(" ".join(text.split())), max_length)


def shown(value: object) -> str:
    """A value as Python writes it (text in quotes), in one line of about 80 characters at most."""
    if isinstance(value, str):
        text = repr(value[: _MAX_SHOWN + 1])
        return text if len(text) <= _MAX_SHOWN + 2 else text[: _MAX_SHOWN - 2] + "…" + text[0]
    return shortened(printable(repr(value)), _MAX_SHOWN)


def shown_url(path: str) -> str:
    """A path, or a URL without user, password and query: these may be secrets."""
    if "://" in path:
        # A secret key may hold a slash: where a colon is followed by no port, all up to the last @ goes.
        path = re.sub(r"://(?:[^/]*@|[^/:]*:(?!\d*(?:/|$)).*@)", "://***@", path, flags=re.DOTALL)
        path = re.sub(r"\?.*", "?***", path, flags=re.DOTALL)
    return path if path.isprintable() and 0 < len(path) <= 200 else shown(path)
