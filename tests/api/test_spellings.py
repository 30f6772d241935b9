"""A secret is found however it is written, and nothing else is."""

import base64
import html
import json
import string
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from further_source.api.spellings import blotted_out
from further_source.api.transport import MAX_ERROR_BODY

SECRET = "s3cr3t/with \"quotes\" & <umlauts>-äöü+'\\'\N{AUTOMOBILE}"
TOKEN = "eyJhbGciOiJIUzI1NiJ9." + string.ascii_letters + "-_." + string.digits


def blot(secret: str, text: str) -> str:
    return blotted_out([secret], text)


def lower_escapes(text: str) -> str:
    return "".join(part.lower() if number else part for number, part in enumerate(text.partition("%")))


WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": lambda secret: json.dumps(secret)[1:-1],
    "JSON, upper case": lambda secret: "".join(
        f"\\u{ord(sign):04X}" if 127 < ord(sign) < 65536 else json.dumps(sign)[1:-1] for sign in secret
    ),
    "JSON, not ASCII": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "JSON of PHP": lambda secret: json.dumps(secret)[1:-1].replace("/", "\\/"),
    "JSON of Go": lambda secret: json.dumps(secret)[1:-1].replace("&", "\\u0026").replace("<", "\\u003c"),
    "JSON in JSON": lambda secret: json.dumps(json.dumps(secret))[3:-3],
    "URL": quote,
    "URL, lower case": lambda secret: quote(secret, safe="").replace("%2F", "%2f").replace("%C3%A4", "%c3%a4"),
    "URL, all": lambda secret: quote(secret, safe=""),
    "URL, with plus": quote_plus,
    "URL in URL": lambda secret: quote(quote(secret, safe=""), safe=""),
    "HTML": html.escape,
    "HTML, some": lambda secret: html.escape(secret, quote=False),
    "HTML, numbers": lambda secret: "".join(sign if sign.isalnum() else f"&#{ord(sign)};" for sign in secret),
    "HTML, hexadecimal": lambda secret: "".join(sign if sign.isalnum() else f"&#x{ord(sign):X};" for sign in secret),
}


@pytest.mark.parametrize("secret", [SECRET, TOKEN, "short/1", "a b&c"])
@pytest.mark.parametrize("way", WRITTEN.values(), ids=WRITTEN)
def test_a_secret_is_found_however_it_is_written(way: Callable[[str], str], secret: str) -> None:
    written = way(secret)

    assert blot(secret, f"you sent <{written}>, no good") == "you sent <***>, no good"


@pytest.mark.parametrize("secret", [SECRET, TOKEN])
@pytest.mark.parametrize("way", WRITTEN.values(), ids=WRITTEN)
def test_where_a_text_is_cut_no_beginning_of_a_secret_is_left(way: Callable[[str], str], secret: str) -> None:
    written = way(secret)
    filling = "no good. " * 300
    for length in range(len(written)):
        for before in (filling, f"{filling}{written} ", f"{written}{filling}"):
            blotted = blotted_out([secret], before + written[:length], is_cut=True)
            assert before.replace(written, "***").startswith(blotted)
            assert len(blotted) > 200


@pytest.mark.parametrize("secret", [SECRET, TOKEN, "eight***"])
@pytest.mark.parametrize("before", ["", "i", "id", "id:", "Bearer "])
@pytest.mark.parametrize("after", ["", "x", "\n\n"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_is_found_in_base64_wherever_it_begins(
    secret: str, before: str, after: str, encode: Callable[[bytes], bytes]
) -> None:
    written = encode(f"{before}{secret}{after}".encode()).decode()
    left = blot(secret, f"Basic {written}!").removeprefix("Basic ").removesuffix("!")

    assert "***" in left
    # What is left belongs to what stands before and after, and to four bits of the secret at most.
    assert len(left.replace("***", "")) <= len(encode(before.encode())) + len(encode(after.encode())) + 4
    assert blot(secret, quote(written, safe="")).count("***") == 1


def test_several_secrets_are_found_also_where_one_is_part_of_another() -> None:
    both = ["secret-one", "secret-one-and-more"]

    assert blotted_out(both, "secret-one secret-one-and-more") == "*** ***"


def test_a_short_secret_is_found_as_a_whole_word_alone() -> None:
    assert blot("b", "boom, b is wrong, (b)") == "boom, *** is wrong, (***)"


@pytest.mark.parametrize(
    "secret", ["\\" * 40 + "Z" * 8, "/" * 20, '\\"' * 20, " +&<" * 8, "%25" * 10, "0" * 20, TOKEN * 20]
)
@pytest.mark.parametrize("text", ["\\", "\\/", '\\"', "%", "%25", "&#0", "0", "&amp;", " ", "+", TOKEN])
def test_no_text_takes_long_to_search(secret: str, text: str) -> None:
    began = time.process_time()
    blot(secret, text * (MAX_ERROR_BODY // len(text)))

    assert time.process_time() - began < 2


def test_without_a_secret_nothing_is_found() -> None:
    assert blotted_out([], "no good") == blotted_out([], "no good", is_cut=True) == "no good"


@given(st.text(min_size=8), st.text(max_size=20), st.text(max_size=20))
def test_any_secret_is_found_in_any_text(secret: str, before: str, after: str) -> None:
    for way in (str, WRITTEN["JSON"], WRITTEN["JSON, not ASCII"], WRITTEN["URL, all"], WRITTEN["HTML"]):
        try:
            written = way(secret)
        except UnicodeEncodeError:  # a lone surrogate cannot be in a URL
            continue
        assert "***" in blot(secret, f"{before}{written}{after}")
