"""JSON in and out without losing anything: every digit of a number, and no text a destination refuses."""

import codecs
import json
import math
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import orjson

__all__ = [
    "Constant",
    "OddObject",
    "MANY_BYTES",
    "Unread",
    "dumps",
    "holds_constant",
    "loads",
    "loads_checked",
    "number_of",
    "storable_text",
]

_INT64 = range(-(2**63), 2**63)
MANY_BYTES = 1_000_000
"""How long a body is from which on `unread` pays."""

_CHUNK = 1 << 20
_MAX_DIGITS = 4300  # of an int, as Python and msgspec have it
# Read as 0 by what is fast. Begins with what is seldom, or the search would take ten times as long.
_NEGATIVE_ZERO = re.compile(rb"-0(?<![^\s:\[,]..)(?![.0-9eE])")
_SPACED_KEY = re.compile(rb'[\s\[{]*"(?:[^"\\]|\\.)*"\s+:')
_ESCAPES_UNSTORABLE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_PLAIN = frozenset({str, int, float, Decimal, bool, type(None), dict})


class Constant(float):
    """`NaN` or an infinity, which are no JSON but written by many programs, or a number with an exponent beyond all.

    `repr` is its text.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class OddObject(dict[str, Any]):
    """An object of which a dict says too little: a key comes twice, or a constant or another such is in it.

    As a dict it has the last value of each key. `pairs` are all keys with their values, in order.
    """

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        self.pairs = tuple(pairs)
        super().__init__(self.pairs)


class Unread(NamedTuple):
    """A JSON text that was checked, but not parsed: `loads_checked` can."""

    text: msgspec.Raw


def loads(body: bytes | bytearray, *, unread: str | None = None) -> Any:
    """Parses a JSON text in UTF-8, with or without a byte order mark.

    Integers are `int`, or `Decimal` where they have more than 4300 digits or are -0. Other numbers are finite
    `float`, or `Decimal` where a double would overflow. `NaN` and infinities are `Constant`, and so is a number with
    an exponent beyond all. U+0000 and lone surrogates, in keys too, become U+FFFD. An object with a key twice, or with
    keys that become the same, is an `OddObject`, and so is one that holds such an object or a `Constant`.

    What is not plain is read by the standard library, in three times the time. Keys that come twice are found by
    counting: as many `":` as the text has, so many keys must be in the objects. So a key that comes twice can pass
    for a single one where white space stands before its colon, but not before the first colon of the text.

    Args:
        unread: A key of the outermost object, whose value stays `Unread` where the body is long (`MANY_BYTES`) and can
            be checked without parsing it. It may hold all of what is not plain, but for constants and lone surrogates.

    Raises:
        ValueError: The body is not JSON, not UTF-8, or nested too deeply; its text says where and why.
    """
    text = body.removeprefix(codecs.BOM_UTF8)
    if unread is not None and len(text) >= MANY_BYTES:
        parts = _checked_parts(text)
        if parts is not None and unread in parts:
            return {
                storable_text(key): Unread(part) if key == unread else loads(bytes(part)) for key, part in parts.items()
            }
    if _is_plain(text):
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # lone surrogates and 1e400 are JSON
            pass
        else:
            if _has_keys(value, text.count(b'":')):
                return value
    return _loads_exactly(text, len(body) - len(text))


def loads_checked(text: bytes) -> Any:
    """`loads` of a text that was checked before, perhaps with more of the stack left than is now."""
    try:
        return loads(text)
    except ValueError:  # nested very deeply
        with ThreadPoolExecutor(1) as thread:  # which has a stack of its own
            return thread.submit(loads, text).result()


def dumps(value: Any, *, spell: bool = False) -> str:
    """Compact JSON text of what `loads` returns.

    A `Decimal` becomes a number with all its digits, an `OddObject` has each key as often as it came. A `Constant`
    is null, or with `spell` its text.
    """

    def default(value: Any) -> Any:
        if isinstance(value, Decimal) and value.is_finite():
            return orjson.Fragment(str(value))  # str() keeps every digit, and is a JSON number
        if isinstance(value, Constant):
            return repr(value) if spell else None
        raise TypeError(f"{type(value).__name__} is not JSON")

    try:
        return orjson.dumps(value, default, orjson.OPT_PASSTHROUGH_SUBCLASS).decode()
    except TypeError:  # an odd object, nested deeper than orjson writes, or an int beyond 64 bits
        return _dumps_any_depth(value, default)


def number_of(value: Any) -> float | None:
    """A JSON number as a double; None where it is no number, or none that a double can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except OverflowError:  # of an int; a Decimal becomes infinite
        return None
    return number if math.isfinite(number) else None


def holds_constant(value: Any) -> bool:
    """Whether there is a `Constant` in a value of `loads`, however deep."""
    todo = [value]
    while todo:
        item = todo.pop()
        if type(item) is Constant:
            return True
        if type(item) is list:
            todo += item
        elif type(item) is OddObject:
            todo += [child for _, child in item.pairs]
    return False


def _checked_parts(text: bytes | bytearray) -> dict[str, msgspec.Raw] | None:
    """The texts of an object's values; None where it is no object, or its text cannot be checked without parsing."""
    try:
        parts = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        decoder, view = codecs.getincrementaldecoder("utf-8")(), memoryview(text)
        for start in range(0, len(view), _CHUNK):  # what it decodes is not kept
            decoder.decode(view[start : start + _CHUNK])
        decoder.decode(b"", final=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return parts


def _is_plain(text: bytes | bytearray) -> bool:
    """Whether the fast reader may be asked: there is nothing that it would read as something else."""
    has_nul = b"\\" in text and b"\\u0000" in text  # the first is found or not in no time
    return not (has_nul or _NEGATIVE_ZERO.search(text) or _SPACED_KEY.match(text))


def _has_keys(value: Any, count: int) -> bool:
    """Whether the objects in a value have so many keys together; level by level, as most have few levels."""
    level, found = [value], 0
    while level:
        kinds = set(map(type, level))
        objects = level if kinds == {dict} else [item for item in level if type(item) is dict]
        lists = [item for item in level if type(item) is list] if list in kinds else []
        found += sum(map(len, objects))
        if found >= count:
            break
        level = list(chain(chain.from_iterable(map(dict.values, objects)), chain.from_iterable(lists)))
    return found == count


def _loads_exactly(body: bytes | bytearray, offset: int) -> Any:
    try:
        # Decoded here: given bytes, the standard library guesses the encoding and lets surrogates pass.
        text = body.decode("utf-8")
        is_storable = _ESCAPES_UNSTORABLE.search(text) is None
        value = json.loads(
            text,
            object_pairs_hook=_object if is_storable else _storable_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=Constant,
        )
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise ValueError(f"not JSON at byte {offset + error.start} (line {line}): not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(_complaint(error, offset)) from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    return value if is_storable else _storable(value)


def _complaint(error: json.JSONDecodeError, offset: int) -> str:
    before, found = error.doc[: error.pos], error.doc[error.pos : error.pos + 1]
    if not before.strip():
        return "not JSON"
    what = error.msg[0].lower() + error.msg[1:].removesuffix(" at")
    if what.endswith(" starting"):  # of a string; that it begins with a quote is no news
        what = what.removesuffix(" starting")
    else:
        what += f", found {found!a}" if found else ", but it ends there"
    return f"not JSON at byte {offset + len(before.encode())} (line {error.lineno}): {what}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs) and (_PLAIN.issuperset(map(type, value.values())) or not any(map(_is_odd, pairs))):
        return value
    return OddObject(pairs)


def _storable_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return _object([(storable_text(key), _storable(value)) for key, value in pairs])


def _storable(value: Any) -> Any:
    """Replaces what SQL destinations cannot hold in a text or in lists, in place; objects have it done already."""
    lists = [value] if type(value) is list else []
    for items in lists:
        for index, item in enumerate(items):
            if type(item) is str:
                items[index] = storable_text(item)
            elif type(item) is list:
                lists.append(item)
    return storable_text(value) if type(value) is str else value


def storable_text(text: str) -> str:
    """The text with U+FFFD for what no SQL destination holds: U+0000 and lone surrogates."""
    return _UNSTORABLE.sub("\ufffd", text)


def _is_odd(pair: tuple[str, Any]) -> bool:
    todo = [pair[1]]
    while todo:
        item = todo.pop()
        if type(item) is OddObject or type(item) is Constant:
            return True
        if type(item) is list:
            todo += item
    return False


def _integer(text: str) -> int | Decimal:
    # Not int() of more digits: it refuses.
    return Decimal(text) if text == "-0" or len(text.lstrip("-")) > _MAX_DIGITS else int(text)


def _float(text: str) -> float | Decimal:
    number = float(text)
    if math.isfinite(number):
        return number
    try:
        return Decimal(text)
    except ArithmeticError:  # its exponent has 19 digits or more
        return Constant(text)


class _Written(str):
    """Text that is part of the output already, as opposed to a string to be quoted."""


def _dumps_any_depth(value: Any, default: Callable[[Any], Any]) -> str:
    written: list[str] = []
    todo: list[Any] = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            parts: list[Any] = []
            for key, child in item.pairs if isinstance(item, OddObject) else item.items():
                parts += [_Written(f"{',' if parts else '{'}{_dumps_scalar(key, default)}:"), child]
            todo.extend(reversed([*parts, _Written("}")] if parts else [_Written("{}")]))
        elif isinstance(item, list):
            parts = []
            for child in item:
                parts += [_Written("," if parts else "["), child]
            todo.extend(reversed([*parts, _Written("]")] if parts else [_Written("[]")]))
        else:
            written.append(item if isinstance(item, _Written) else _dumps_scalar(item, default))
    return "".join(written)


def _dumps_scalar(value: Any, default: Callable[[Any], Any]) -> str:
    if isinstance(value, int) and value not in _INT64:
        value = Decimal(value)
    return orjson.dumps(_storable(value), default).decode()
