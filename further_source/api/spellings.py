"""How a secret may be written where it is echoed: as it is, escaped for JSON, a URL or HTML, or in base64."""

import base64
import re
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["blotted_out"]

_LONGEST = 15  # characters that one of a secret is written with

_LONG = 8  # characters
_ENTITIES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
_SHORT_ESCAPES = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}


def blotted_out(secrets: Sequence[str], text: str, *, is_cut: bool = False) -> str:
    """`text` with `***` for each of the secrets, in whatever way it is written; none of them is empty.

    A short secret, such as `b`, counts only as a whole word: else it would blot out others.

    Args:
        is_cut: Whether the text was cut, perhaps in the middle of a secret; what could be the beginning of one is
            left out.
    """
    pattern = _pattern(tuple(secrets))
    if is_cut and secrets:
        found_until = max((found.end() for found in pattern.finditer(text)), default=0)
        text = text[: max(found_until, len(text) - _LONGEST * max(map(len, secrets)))]
    return pattern.sub("***", text)


@lru_cache(maxsize=8)
def _pattern(secrets: tuple[str, ...]) -> re.Pattern[str]:
    # The longest first: if one is part of another, the rest of the longer one would stay.
    longest_first = sorted(set(secrets), key=len, reverse=True)
    found = [pattern for secret in longest_first for pattern in _patterns(secret)]
    return re.compile("|".join(found) or r"(?!)")


def _patterns(secret: str) -> list[str]:
    plain = "".join(map(_part, re.findall(r"\\+|[^\\]", secret)))
    if len(secret) < _LONG:
        return [rf"(?<!\w){plain}(?!\w)"]
    return [plain, *("".join(map(_base64_character, text)) for text in _in_base64(secret))]


# No more of what may be repeated than is ever written, or a text of nothing else would take very long to search.


def _part(part: str) -> str:
    """A character, or several backslashes."""
    if part[0] != "\\":
        return _character(part)
    return rf"(?:\\{{{len(part)},{4 * len(part)}}}|(?:{_escaped(part[0])}){{{len(part)}}})"


def _character(character: str) -> str:
    if character.isascii() and character.isalnum():
        return character  # nobody escapes these
    ways = [_escaped(character), rf"\\{{0,3}}{re.escape(character)}"]
    if character in _SHORT_ESCAPES:
        ways.append(rf"\\{{1,4}}{_SHORT_ESCAPES[character]}")
    if character in _ENTITIES:
        ways.append(f"&(?:amp;)?{_ENTITIES[character]};")
    if character == " ":
        ways.append(r"\+")
    return f"(?:{'|'.join(ways)})"


def _escaped(character: str) -> str:
    """By its number, in JSON, URLs or HTML."""
    units = character.encode("utf-16-be", "surrogatepass")
    in_json = "".join(rf"\\{{1,4}}u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
    in_url = "".join(f"%(?:25)?{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    in_html = f"&#0{{0,6}}{ord(character)};|&#x0{{0,6}}{ord(character):x};"
    return f"(?i:{in_json}|{in_url}|{in_html})"


def _in_base64(secret: str) -> list[str]:
    """The characters in base64 that are the secret's alone, for each place where it can begin in three bytes."""
    content = secret.encode("utf-8", "surrogatepass")
    found = []
    for before in range(3):
        first = -(-before * 8 // 6)
        end = (before + len(content)) * 8 // 6
        found.append(base64.b64encode(bytes(before) + content)[first:end].decode())
    return found


def _base64_character(character: str) -> str:
    other = {"+": "-", "/": "_"}.get(character)  # in URLs
    return f"(?:{_character(character)}|{other})" if other else character
