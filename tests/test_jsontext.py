"""JSON in and out: every digit, and nothing a destination cannot hold."""

import json
import math
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from further_source import jsontext
from further_source.jsontext import MANY_BYTES, Constant, OddObject, Unread, dumps, holds_constant, loads


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
    if isinstance(value, Decimal) and len(value.as_tuple().digits) <= 4300:
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
    assert loads(text.encode()) == Decimal(text)
    assert type(loads(text.encode())) is (int if len(digits) <= 4300 else Decimal)
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
        b"nan",
        b"[+Infinity]",
        b"[-NaN]",
        b"[1234567890123456789012, inf]",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'["\xff", 1234567890123456789012]',
        b'"a\x00b"',
        b"\xff\xfe\"\x00a\x00\"\x00",
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


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "not JSON"),
        (b" <html>", "not JSON"),
        (b'{"a": 1,\n "b": nan}', "not JSON at byte 15 (line 2): expecting value, found 'n'"),
        (b'\xef\xbb\xbf{"\xc3\xa4": x}', "not JSON at byte 10 (line 1): expecting value, found 'x'"),
        (b'{"a"', "not JSON at byte 4 (line 1): expecting ':' delimiter, but it ends there"),
        (b'["a\nb"]', "not JSON at byte 3 (line 1): invalid control character, found '\\n'"),
        (b'["a', "not JSON at byte 1 (line 1): unterminated string"),
        (b"[1] \xf0\x9f\x9a\x97", "not JSON at byte 4 (line 1): extra data, found '\\U0001f697'"),
        (b'[\n"a\xff"]', "not JSON at byte 4 (line 2): not UTF-8"),
        (b"[" * 100_000, "not JSON that can be read: nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(body: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(complaint)}$"):
        loads(body)


# Numbers that are none


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "1e9999999999999999999999", "-1E+9999999999999999999"]
)
def test_constants_are_read_and_written_as_null_or_as_their_text(text: str) -> None:
    for shape in ("%s", "[%s]", '[1, {"a": [%s, 2]}]', '{"a": %s, "a": 1}', "[" * 300 + "%s" + "]" * 300):
        value = loads((shape % text).encode())
        assert holds_constant(value)
        assert json.loads(dumps(value)) == json.loads(shape % "null")
        assert json.loads(dumps(value, spell=True)) == json.loads(shape % json.dumps(text))
    assert type(loads(text.encode())) is Constant
    assert str(loads(text.encode())) == text


def test_what_has_no_constant_in_it_holds_none() -> None:
    for text in ("1", '"NaN"', "[null]", '{"a": "Infinity", "a": {"b": [1e400]}}'):
        assert not holds_constant(loads(text.encode()))


@pytest.mark.parametrize("text", ["-0", "[-0]", '{"a":-0}', '{"a":[1,-0]}', '{"a":"-0","b":-0}', "[-0.0,-0]"])
def test_zero_keeps_its_sign(text: str) -> None:
    for spaced in (text, text.replace(":", ": ").replace(",", " ,\n").replace("]", " ]").replace("}", "\t}")):
        assert dumps(loads(spaced.encode())) == text


@pytest.mark.parametrize("text", ['{"a": "2024-01-05"}', "[-0.5]", "[-0e1, -0E1]", '["-0.5", "B-01"]', '{"a-0": 1}'])
def test_the_search_for_negative_zeros_does_not_change_what_is_read(text: str) -> None:
    assert typed(loads(text.encode())) == typed(json.loads(text))


# Keys that come twice


def pairs_of(value: Any) -> Any:
    """The value with each object as the list of its keys and values."""
    if isinstance(value, dict):
        pairs = value.pairs if isinstance(value, OddObject) else value.items()
        return [("key", key, pairs_of(child)) for key, child in pairs]
    return [pairs_of(child) for child in value] if isinstance(value, list) else value


def pairs_in(text: str) -> Any:
    """The same, read by other means than the code under test."""
    return json.loads(text, object_pairs_hook=lambda pairs: [("key", key, value) for key, value in pairs])


PAIRS = st.recursive(
    st.none() | st.integers(0, 9) | st.sampled_from(['":', '\\":', " :", "a"]),
    lambda children: (
        st.lists(children, max_size=4)
        | st.lists(st.tuples(st.sampled_from(["a", "b", '":', "\\", '\\"']), children), max_size=5).map(tuple)
    ),
    max_leaves=15,
)


def written_pairs(value: Any, colon: str) -> str:
    if isinstance(value, tuple):
        return "{" + ",".join(f"{json.dumps(k)}{colon}{written_pairs(v, colon)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written_pairs(child, colon) for child in value) + "]"
    return json.dumps(value)


@given(PAIRS, st.sampled_from([":", ": ", " : ", "\n:"]))
@settings(deadline=None)
def test_keys_that_come_twice_are_kept_in_order_and_written_again(value: Any, colon: str) -> None:
    text = written_pairs((("steps", value),), colon)

    read = loads(text.encode())

    assert pairs_of(read) == pairs_in(text)
    assert pairs_in(dumps(read)) == pairs_in(text)
    assert json.loads(json.dumps(read)) == json.loads(text)  # as a dict it has the last


@pytest.mark.parametrize("text", ['{"a" : 1, "a": 2}', '[{"a"\n: 1, "a": 2}]', '{"a\\"" : {"b": 1, "b": 2}}'])
def test_white_space_before_the_first_colon_hides_no_key_that_comes_twice(text: str) -> None:
    assert pairs_of(loads(text.encode())) == pairs_in(text)


def test_only_what_holds_something_odd_is_an_odd_object() -> None:
    read = loads(b'{"a": {"b": 1, "b": 2}, "c": {"d": [{"e": 1}]}, "f": [[{"g": [NaN]}, {"h": [1]}]]}')

    assert type(read) is OddObject
    assert [type(read[key]) for key in "acf"] == [OddObject, dict, list]
    assert [type(item) for item in read["f"][0]] == [OddObject, dict]


def test_keys_that_become_the_same_are_both_kept() -> None:
    for text in (rb'{"\u0000": 1, "\ufffd": 2}', rb'{"\ud800": 1, "\udfff": 2}'):
        read = loads(text)
        assert type(read) is OddObject
        assert read.pairs == (("\ufffd", 1), ("\ufffd", 2))
        assert read == {"\ufffd": 2}


def test_plain_json_is_not_read_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard library would take three times as long."""
    monkeypatch.delattr(jsontext, "_loads_exactly")
    values: tuple[Any, ...] = (
        {"steps": [{"data": {"data": [{"f": {"value": "10:30 \n", "confidence_score": 0.0123456789012345678}}] * 3}}]},
        {"a": {"b": {"c": [[1, {"d": 2**70}], {}]}}, "e": [], "f": "2024-01-05"},
        [],
        "text",
        2**64,
    )
    for value in values:
        for text in (json.dumps(value), json.dumps(value, separators=(",", ":")), json.dumps(value, indent=1)):
            assert loads(text.encode()) == value


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
    for value in (object(), Decimal("NaN"), {"a": {1, 2}}, OddObject([("a", object())])):
        with pytest.raises(TypeError):
            dumps(value)


# What stays unread


def long(text: str | bytes) -> bytes:
    return (text.encode() if isinstance(text, str) else text) + b" " * MANY_BYTES


@pytest.mark.parametrize(
    "steps",
    [
        "[]",
        "null",
        ' {"a": [1, "x", null, -0, 1e400, 1e9999999999999999999999, "\\u0000"]} ',
        '[{"a": 1, "a": 2}]',
        "1" * 5_000,
        '"größe"',
    ],
)
def test_a_value_of_a_long_body_can_stay_unread(steps: str) -> None:
    text = f'{{"status": "completed", "steps": 0, "steps": {steps}, "metadata": {{"n": 1e400, "a": 1, "a": 2}}}}'

    read = loads(long(text), unread="steps")

    expected = loads(text.encode())
    assert list(read) == ["status", "steps", "metadata"]
    assert type(read["steps"]) is Unread
    assert typed(loads(bytes(read["steps"].text))) == typed(expected["steps"])
    assert typed({**read, "steps": 0}) == typed({**expected, "steps": 0})
    assert type(read["metadata"]) is OddObject
    assert typed(loads(text.encode(), unread="steps")) == typed(expected)  # it is short
    assert typed(loads(long(text))) == typed(expected)


@pytest.mark.parametrize(
    "text",
    ["[]", '"steps"', "{}", '{"a": 1}', '{"steps": NaN}', '{"a": NaN, "steps": 1}', r'{"steps": ["\ud800"]}', "-0"],
)
def test_what_cannot_stay_unread_is_read(text: str) -> None:
    assert str(pairs_of(loads(long(text), unread="steps"))) == str(pairs_of(loads(text.encode())))  # NaN != NaN


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b'{"steps": [1, 2', "not JSON at byte 1000015 (line 1): expecting ',' delimiter, but it ends there"),
        (b'{"steps": [1,, 2]}', "not JSON at byte 13 (line 1): expecting value, found ','"),
        (b'{"steps": ["\xff"]}', "not JSON at byte 12 (line 1): not UTF-8"),
        (b'{"steps": ["' + b"x" * 2**20 + b'\xc3"]}', "not JSON at byte 1048588 (line 1): not UTF-8"),
        (b'{"steps": 1} x', "not JSON at byte 13 (line 1): extra data, found 'x'"),
        (b'{"steps": ' + b"[" * 100_000, "not JSON that can be read: nested too deeply"),
    ],
)
def test_what_stays_unread_is_checked(text: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(complaint)}$"):
        loads(long(text), unread="steps")
