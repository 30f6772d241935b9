"""JSON in and out: every digit, and nothing a destination cannot hold."""

import json
import math
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from further_source.jsontext import dumps, loads

INT64 = range(-(2**63), 2**63)


@st.composite
def integer_texts(draw: st.DrawFn) -> str:
    """Integers by their text, as Python itself writes none of more than 4300 digits."""
    digits = draw(st.sampled_from([1, 2, 17, 18, 19, 20, 21, 40, 4301, 10_000]))
    first, pattern = draw(st.integers(1, 9)), draw(st.text("0123456789", min_size=1, max_size=30))
    text = (str(first) + pattern * digits)[:digits]
    return draw(st.sampled_from(["", "-"])) + text


TEXTS = st.text(st.characters(exclude_categories=[])) | st.sampled_from(["\x00", "a\ud800b", "\udfff", "🚗"])
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = integer_texts().map(Decimal) | FLOATS | st.integers(-(2**65), 2**65).map(Decimal)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXTS, children, max_size=4),
    max_leaves=12,
)


def written(value: Any) -> str:
    """JSON text of a generated value, by other means than the code under test."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {written(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


def expected(value: Any) -> Any:
    """What `loads` has to make of the text of `value`."""
    if isinstance(value, dict):
        return {expected(key): expected(child) for key, child in value.items()}
    if isinstance(value, list):
        return [expected(child) for child in value]
    if isinstance(value, str):
        # The text of "\ud83d" + "\ude97" is that of one character.
        joined = value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return re.sub("[\x00\ud800-\udfff]", "\ufffd", joined)
    if isinstance(value, Decimal) and INT64.start <= value < INT64.stop:
        return int(value)
    return value


def typed(value: Any) -> Any:
    """The value with its types, so that 1, 1.0, True and Decimal(1) differ."""
    if isinstance(value, dict):
        return {key: typed(child) for key, child in value.items()}
    if isinstance(value, list):
        return [typed(child) for child in value]
    return type(value).__name__, value, math.copysign(1, value) if isinstance(value, float) else None


@given(VALUES)
@settings(deadline=None)
@example(Decimal(2**63))
@example(Decimal(-(2**63)))
@example([Decimal(2**64 - 1), "\ud83d\ude97", {"\x00": "\ud83d"}])
def test_what_is_read_is_what_was_written(value: Any) -> None:
    assert typed(loads(written(value).encode())) == typed(expected(value))


@given(VALUES)
@settings(deadline=None)
def test_writing_and_reading_again_changes_nothing(value: Any) -> None:
    read = loads(written(value).encode())
    assert typed(loads(dumps(read).encode())) == typed(read)


@pytest.mark.parametrize("digits", ["9223372036854775808", "18446744073709551615", "1" * 25, "7" * 10_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_long_integers_keep_every_digit(digits: str, sign: str) -> None:
    text = sign + digits
    if text == "-9223372036854775808":
        assert loads(text.encode()) == -(2**63)
    else:
        assert isinstance(loads(text.encode()), Decimal)
    assert dumps({"n": loads(text.encode())}) == f'{{"n":{text}}}'


@pytest.mark.parametrize("text", ["1e400", "-1.5E+999", "1" + "0" * 400 + ".5"])
def test_numbers_beyond_a_double_are_decimals(text: str) -> None:
    assert loads(text.encode()) == Decimal(text)
    assert type(loads(text.encode())) is Decimal
    assert loads(dumps(Decimal(text)).encode()) == Decimal(text)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"<html>",
        b"nul",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"[1234567890123456789012, NaN]",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'["\xff", 1234567890123456789012]',
        b'"a\x00b"',
        b"\xff\xfe\"\x00a\x00\"\x00",
        b"1e9999999999999999999999",
        b"01",
        b"[" * 100_000 + b"]" * 100_000,
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_json_in_utf8_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        loads(body)


def test_a_byte_order_mark_is_accepted() -> None:
    assert loads(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    assert loads(bytearray(b'\xef\xbb\xbf{"a": 1}')) == {"a": 1}


def test_nul_and_lone_surrogates_become_replacement_characters_in_keys_too() -> None:
    body = rb'{"a\u0000": ["\uD800", "\ud83d\ude97", "\\u0000", {"\udfff": "x\u0000y"}], "b": "\\ud800"}'
    assert loads(body) == {"a\ufffd": ["\ufffd", "🚗", r"\u0000", {"\ufffd": "x\ufffdy"}], "b": r"\ud800"}


def test_of_two_keys_that_become_one_the_last_wins() -> None:
    assert loads(rb'{"\u0000": 1, "\ufffd": 2}') == {"\ufffd": 2}


def test_text_is_compact_and_keeps_characters() -> None:
    assert dumps({"größe": [1, 2.5, None, True, "🚗"]}) == '{"größe":[1,2.5,null,true,"🚗"]}'


@pytest.mark.parametrize("depth", [254, 255, 900])
def test_what_can_be_read_can_be_written_however_deep(depth: int) -> None:
    text = '{"a":[' * (depth // 2) + '"x",12345678901234567890123,[],{}' + "]}" * (depth // 2)
    value = loads(text.encode()) if depth < 500 else _nested(depth // 2)
    assert dumps(value) == text


def _nested(depth: int) -> Any:
    value: Any = ["x", Decimal(12345678901234567890123), [], {}]
    for _ in range(depth - 1):
        value = [{"a": value}]
    return {"a": value}


def test_long_python_integers_are_written_too() -> None:
    assert dumps([2**70, 10**5000]) == f"[{2**70},1{'0' * 5000}]"


def test_what_is_no_json_value_is_not_written() -> None:
    for value in (object(), Decimal("NaN"), {"a": {1, 2}}):
        with pytest.raises(TypeError):
            dumps(value)
