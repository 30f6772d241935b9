"""JSON in and out without losing anything: every digit of a number, and no text a destination refuses."""

import codecs
import json
import re
from decimal import Decimal
from typing import Any

import orjson

_INT64 = range(-(2**63), 2**63)
# orjson makes floats of integers beyond 64 bits, silently; those have 19 digits or more. They are looked
# for with every digit made a zero, which is seven times as fast as a regular expression.
_TO_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_MANY_DIGITS = b"0" * 19
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def loads(body: bytes | bytearray) -> Any:
    """Parses a JSON text in UTF-8, with or without a byte order mark.

    Integers within 64 bits signed are `int`, longer ones `Decimal` with every digit. Other numbers are
    finite `float`, or `Decimal` where a double would overflow. U+0000 and lone surrogates, in keys too,
    become U+FFFD.

    Raises:
        ValueError: The body is not JSON (NaN and Infinity are not), not UTF-8, or nested too deeply.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    unstorable = b"\\u0000" in body
    if _MANY_DIGITS in body.translate(_TO_ZEROS):
        value = _loads_exactly(body)
        unstorable = unstorable or bool(_SURROGATE_ESCAPE.search(body))
    else:
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:  # also for lone surrogates and for 1e400, which are JSON
            value = _loads_exactly(body)
            unstorable = unstorable or bool(_SURROGATE_ESCAPE.search(body))
    return _storable(value) if unstorable else value


def dumps(value: Any) -> str:
    """Compact JSON text of what `loads` returns; a `Decimal` becomes a number with all its digits."""
    try:
        return orjson.dumps(value, default=_number).decode()
    except TypeError:  # nested deeper than orjson writes, or an int beyond 64 bits
        return _dumps_any_depth(value)


def _loads_exactly(body: bytes | bytearray) -> Any:
    # Decoded here: given bytes, the standard library guesses the encoding and lets surrogates pass.
    text = body.decode("utf-8")
    try:
        return json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    except ArithmeticError:
        raise ValueError("JSON has a number beyond what can be held") from None


def _integer(text: str) -> int | Decimal:
    if len(text) < 19:
        return int(text)
    # Not by way of int(): it refuses more than 4300 digits.
    number = Decimal(text)
    return int(number) if _INT64.start <= number < _INT64.stop else number


def _float(text: str) -> float | Decimal:
    number = float(text)
    return Decimal(text) if number in (float("inf"), float("-inf")) else number


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _storable(value: Any) -> Any:
    """Replaces what SQL destinations cannot hold, in place; without recursion, as depth is the API's."""
    root = [value]
    containers: list[Any] = [root]
    while containers:
        container = containers.pop()
        if isinstance(container, dict):
            items = list(container.items())
            container.clear()
            container.update((_storable_text(key), _storable_text(child)) for key, child in items)
            children = list(container.values())
        else:
            container[:] = children = [_storable_text(child) for child in container]
        containers.extend(child for child in children if isinstance(child, (dict, list)))
    return root[0]


def _storable_text(value: Any) -> Any:
    return _UNSTORABLE.sub("\ufffd", value) if isinstance(value, str) else value


def _number(value: Any) -> orjson.Fragment:
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(str(value))  # str() keeps every digit, and is a JSON number
    raise TypeError(f"{type(value).__name__} is not JSON")


class _Written(str):
    """Text that is part of the output already, as opposed to a string to be quoted."""


def _dumps_any_depth(value: Any) -> str:
    written: list[str] = []
    todo: list[Any] = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            parts: list[Any] = []
            for key, child in item.items():
                parts += [_Written(f"{',' if parts else '{'}{_dumps_scalar(key)}:"), child]
            todo.extend(reversed([*parts, _Written("}")] if parts else [_Written("{}")]))
        elif isinstance(item, list):
            parts = []
            for child in item:
                parts += [_Written("," if parts else "["), child]
            todo.extend(reversed([*parts, _Written("]")] if parts else [_Written("[]")]))
        else:
            written.append(item if isinstance(item, _Written) else _dumps_scalar(item))
    return "".join(written)


def _dumps_scalar(value: Any) -> str:
    if isinstance(value, int) and value not in _INT64:
        value = Decimal(value)
    return orjson.dumps(_storable_text(value), default=_number).decode()
