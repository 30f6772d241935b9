"""Names of columns and tables, made of the names that documents, workflows and whoever sends metadata chose.

Labels are as printed: `Claim #`, `Rate (%)`, `保険番号`, or a question of 120 characters. What comes of one is readable
and the same in every run and on every machine. It is in ASCII, dlt's naming convention leaves it as it is, and no
destination reserves it. It has no `__`, which joins a name with what is ours: `paid__confidence`.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import count

from anyascii import anyascii
from dlt.common.normalizers.naming import NamingConvention

__all__ = ["UNNAMED", "column_name", "free_name", "is_usable", "path_name", "table_name"]

UNNAMED = "unnamed"
"""The name for what leaves nothing to name it by."""

_WORDS = {
    "#": "number",
    "%": "percent",
    "$": "dollar",
    "€": "euro",
    "£": "pound",
    "￡": "pound",
    "¥": "yen",
    "￥": "yen",
    "&": "and",
    "@": "at",
    "+": "plus",
}
_TO_WORDS = str.maketrans({sign: f" {word} " for sign, word in _WORDS.items()})
_BETWEEN_WORDS = re.compile("[^A-Za-z0-9]+")

# Without regard to case. All but dlt's own are BigQuery's.
_RESERVED_BEGINNINGS = (
    "_dlt",
    "_table_",
    "_file_",
    "_partition",
    "_row_timestamp",
    "__root__",
    "_colidentifier",
    "_change_sequence_number",
    "_change_type",
    "_change_timestamp",
)
_RESERVED = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})  # the system columns of PostgreSQL

_ROOM = len("_999") + len("__confidence")  # for what comes behind a name: a number, then the longest of our endings
_ROOM_OF_TABLE = len("_999") + len("___99")
_MAX_TABLE_NAME = 150  # dlt names files after tables, and file systems take no more than 255 bytes


def column_name(label: str, naming: NamingConvention) -> str:
    """The column for a field's name or for a key.

    A name that is too long is shortened by dlt's naming, with a tag of the whole label in it.
    """
    return _shortened(_unreserved(_name(label, naming)), label, naming.max_length, _ROOM)


def path_name(keys: Sequence[str], naming: NamingConvention) -> str:
    """The column for a key in objects within objects, their keys before it: `metadata__broker__name`."""
    path = _unreserved(naming.make_path(*(_name(key, naming) for key in keys)))
    short = _shortened(path, "\0".join(keys), naming.max_length, _ROOM)
    return naming.normalize_path(short)  # where it was cut, a part can begin with a digit


def table_name(prefix: str, label: str | None, otherwise: str, naming: NamingConvention) -> str:
    """The table for a step's name, behind a prefix; for `otherwise` where there is nothing to name it by."""
    words = _words(label or "").lstrip("_") or otherwise
    name = _unlimited(naming).normalize_table_identifier(prefix + words)
    return _shortened(
        name, label or otherwise, min(naming.max_length or _MAX_TABLE_NAME, _MAX_TABLE_NAME), _ROOM_OF_TABLE
    )


def is_usable(label: str) -> bool:
    """Whether the label leaves anything to name by."""
    return bool(_words(label).lstrip("_"))


def free_name(base: str, taken: Iterable[str]) -> str:
    """The name itself, or with the first of `_2`, `_3`, … behind it that is not taken; without regard to case."""
    names = {name.lower() for name in taken}
    numbered = (base if number == 1 else f"{base}_{number}" for number in count(1))
    return next(name for name in numbered if name.lower() not in names)


def _words(label: str) -> str:
    """The label in letters, digits and single underscores, one in front where the label has one."""
    text = anyascii(label.translate(_TO_WORDS)).translate(_TO_WORDS).strip()
    words = _BETWEEN_WORDS.sub("_", text).strip("_")
    return f"_{words}" if words and text.startswith("_") else words


def _name(label: str, naming: NamingConvention) -> str:
    return _unlimited(naming).normalize_identifier(_words(label) or UNNAMED)


def _unreserved(name: str) -> str:
    if name.lower().startswith(_RESERVED_BEGINNINGS):
        name = name.lstrip("_")
    return f"{name}_2" if name.lower() in _RESERVED else name


def _unlimited(naming: NamingConvention) -> NamingConvention:
    return type(naming)()


def _shortened(name: str, label: str, limit: int | None, room: int) -> str:
    return NamingConvention.shorten_identifier(name, label, limit - room) if limit else name
