"""Real HTTP on loopback: what each answer, fault and refusal comes to, and what must never get out."""

import base64
import contextlib
import email.utils
import gzip
import html
import json
import logging
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from further_source.api.client import Client, ClientCredentials, StaticToken, check_base_url
from further_source.exceptions import ConfigurationError
from further_source.executions import ExecutionId
from further_source.polling.outcomes import (
    Answered,
    Failure,
    Outcome,
    Refused,
    Throttled,
    Token,
    Unauthorized,
)
from further_source.sandbox import Reply, Sandbox, completed, error, running
from tests.support.slow import few_of

EXECUTION = ExecutionId("wf-1", "ex_1")
RUNNING = running(*EXECUTION, metadata={"external_id": "INV-1"})
CREDENTIALS = ClientCredentials("sandbox-client", "sandbox-secret")
SHORT = 0.4  # seconds, where a deadline has to be reached


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@contextlib.contextmanager
def client_of(base_url: str, token: str = "t", timeout: float = 10) -> Iterator[Client]:
    client = Client(base_url, StaticToken(token), request_timeout=timeout)
    try:
        yield client
    finally:
        client.close()


def ask(sandbox: Sandbox, reply: Any, timeout: float = 10) -> Outcome:
    sandbox.add(*EXECUTION, reply)
    with client_of(sandbox.base_url, sandbox.issue_token(), timeout) as client:
        assert client.token is not None
        return client.get_execution(EXECUTION, client.token)


def ask_for_token(sandbox: Sandbox, *replies: Any, timeout: float = 10, clock: Any = lambda: 1000.0) -> Any:
    sandbox.script_token(*replies)
    client = Client(sandbox.base_url, CREDENTIALS, request_timeout=timeout, clock=clock)
    try:
        return client.request_token()
    finally:
        client.close()


# Answers


def test_a_readable_execution_is_answered_with_all_its_keys(sandbox: Sandbox) -> None:
    payload = {**completed(*EXECUTION, []), "n": 12345678901234567890123, "x": 1}
    outcome = ask(sandbox, payload)
    assert isinstance(outcome, Answered)
    assert outcome.status == "completed"
    assert str(outcome.payload["n"]) == "12345678901234567890123"
    assert outcome.payload == payload
    assert outcome.size == len(json.dumps(payload, separators=(",", ":")))


@pytest.mark.parametrize(
    "reply",
    [
        RUNNING,
        Reply(201, RUNNING),
        Reply(200, RUNNING, {"Content-Type": "text/html; charset=latin-1"}),
        {"status": "running", "workflow_execution_id": "ex_1"},
        {"status": "running", "workflow_id": "wf-1", "workflow_execution_id": None},
        b"\xef\xbb\xbf" + json.dumps(RUNNING).encode(),
        Reply(200, gzip.compress(json.dumps(RUNNING).encode()), {"Content-Encoding": "gzip"}),
        Reply(200, RUNNING, delay=0.05),
        Reply(200, RUNNING, fault="drip", delay=0.001),
        Reply(200, RUNNING, fault="drip_headers", delay=0.001),
    ],
)
def test_good_json_is_answered_however_it_comes(sandbox: Sandbox, reply: Any) -> None:
    outcome = ask(sandbox, reply)
    assert isinstance(outcome, Answered), outcome
    assert outcome.status == "running"


INVALID = "invalid"
STATUSES = [
    *((status, Refused(INVALID, "")) for status in (300, 301, 302, 303, 304, 307, 308)),
    *((status, Refused("rejected", "")) for status in (400, 402, 405, 406, 409, 410, 418, 422, 451, 499)),
    *((status, Failure("")) for status in (408, 425, 500, 501, 502, 503, 504, 520, 599, 999)),
    (401, Unauthorized("")),
    (403, Refused("forbidden", "")),
    (404, Refused("not_found", "")),
    (429, Throttled("")),
]


@pytest.mark.parametrize(("status", "expected"), STATUSES)
def test_a_status_decides_the_outcome(sandbox: Sandbox, status: int, expected: Outcome) -> None:
    outcome = ask(sandbox, Reply(status, {"detail": "why"}))
    assert type(outcome) is type(expected)
    assert getattr(outcome, "poll_outcome", None) == getattr(expected, "poll_outcome", None)
    if status >= 400:
        assert getattr(outcome, "error", None) == f"{status}: why"
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize(("status", "expected"), [(s, e) for s, e in STATUSES if s in {401, 404, 429, 500}])
@pytest.mark.parametrize("fault", ["truncated", "empty", "drip"])
def test_a_status_decides_even_if_the_body_does_not_arrive(
    sandbox: Sandbox, status: int, expected: Outcome, fault: Any
) -> None:
    outcome = ask(sandbox, Reply(status, {"detail": "why"}, fault=fault, delay=0.1), timeout=1)
    assert type(outcome) is type(expected)
    assert getattr(outcome, "poll_outcome", None) == getattr(expected, "poll_outcome", None)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(200, RUNNING, fault="reset"), "connection reset"),
        (Reply(200, RUNNING, fault="close"), "connection closed without an answer"),
        (Reply(200, RUNNING, fault="truncated"), "200: the body ended early"),
        (Reply(200, RUNNING, fault="empty"), "200: the body is empty"),
        (Reply(200, RUNNING, fault="silent"), "timed out after 0.4 s"),
        (Reply(200, RUNNING, fault="drip", delay=0.05), "200: timed out after 0.4 s"),
        (Reply(200, RUNNING, fault="drip_headers", delay=0.05), "timed out after 0.4 s"),
        (Reply(200, RUNNING, delay=2), "timed out after 0.4 s"),
        (Reply(204), "204: the body is empty"),
        (b"<html>oops</html>", "200: the body is not JSON: <html>oops</html>"),
        (b'{"status": "caf\xe9"}', "200: the body is not JSON at byte 15 (line 1): not UTF-8"),
        (b'{"status":\n nan}', "200: the body is not JSON at byte 12 (line 2): expecting value, found 'n'"),
        (b'{"status": "r', "200: the body is not JSON at byte 11 (line 1): unterminated string"),
        (b"[1}", "200: the body is not JSON at byte 2 (line 1): expecting ',' delimiter, found '}'"),
        (Reply(200, RUNNING, {"Content-Encoding": "gzip"}), "200: the body cannot be decompressed"),
        (Reply(200, b"zz\r\n", {"Transfer-Encoding": "chunked"}), "200: the body ended early"),
    ],
)
def test_no_usable_answer_is_a_failure_with_a_short_reason(sandbox: Sandbox, reply: Any, reason: str) -> None:
    started = time.monotonic()
    outcome = ask(sandbox, reply, timeout=SHORT)
    assert isinstance(outcome, Failure)
    assert outcome.error == reason
    assert time.monotonic() - started < SHORT + 0.4
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize(
    ("reply", "unreadable"),
    [
        (b"<html>oops</html>", "200: not JSON"),
        (b"<html>oops again</html>", "200: not JSON"),
        (b'{"status": "run', "200: not JSON"),
        (b'{"status": "running", "meta', "200: not JSON"),
        (Reply(203, b"{"), "203: not JSON"),
        (Reply(200, fault="empty"), "200: empty"),
        (Reply(204), "204: empty"),
        (Reply(200, RUNNING, fault="truncated"), None),
        (Reply(200, b"zz\r\n", {"Transfer-Encoding": "chunked"}), None),
        (Reply(200, RUNNING, {"Content-Encoding": "gzip"}), None),
        (Reply(200, RUNNING, fault="drip", delay=0.05), None),
        (Reply(200, RUNNING, fault="reset"), None),
        (Reply(502, b"<html>"), None),
    ],
)
def test_a_failure_tells_whether_its_body_came_whole_and_cannot_be_read(
    sandbox: Sandbox, reply: Any, unreadable: str | None
) -> None:
    outcome = ask(sandbox, reply, timeout=SHORT)
    assert isinstance(outcome, Failure)
    assert outcome.unreadable == unreadable


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"null", "200: the answer is no JSON object"),
        (b"[]", "200: the answer is no JSON object"),
        (b'"running"', "200: the answer is no JSON object"),
        (b"17", "200: the answer is no JSON object"),
        (b"{}", "200: the answer has no text `status`"),
        (b'{"status": 1}', "200: the answer has no text `status`"),
        (b'{"status": "running"}', "200: the answer has none of the ids that were asked for"),
        (
            b'{"status": "completed", "workflow_id": null, "workflow_execution_id": null}',
            "200: the answer has none of the ids that were asked for",
        ),
        (b'{"status": "running", "workflow_id": "WF-1"}', 'for another workflow_id: "WF-1"'),
        (b'{"status": "running", "workflow_execution_id": 7}', "for another workflow_execution_id: 7"),
        (b'{"status": "running", "workflow_execution_id": ""}', 'for another workflow_execution_id: ""'),
    ],
)
def test_a_readable_answer_that_is_no_execution_is_invalid(sandbox: Sandbox, body: bytes, reason: str) -> None:
    outcome = ask(sandbox, body)
    assert isinstance(outcome, Refused)
    assert outcome.poll_outcome == "invalid"
    assert outcome.error.endswith(reason)


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("1.5", 1.5, 1.5),
        ("-3", 0, 0),
        ("86400", 300, 300),
        ("9" * 500, 300, 300),
        (100, 95, 100),
        (-100, 0, 0),
        (100_000, 300, 300),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_bounds(
    sandbox: Sandbox, header: str | int, low: float, high: float
) -> None:
    if isinstance(header, int):
        header = email.utils.formatdate(time.time() + header, usegmt=True)
    reply = error(429, "slow down", {"Retry-After": header})
    for outcome in (ask(sandbox, reply), ask_for_token(sandbox, reply)):
        assert isinstance(outcome, Throttled)
        assert outcome.retry_after is not None
        assert low <= outcome.retry_after <= high


@pytest.mark.parametrize("header", ["", "soon", "nan", "5, 5", "Wed, 99 Foo 2015", "\xff"])
def test_an_unreadable_retry_after_is_none(sandbox: Sandbox, header: str) -> None:
    assert ask(sandbox, error(429, "slow down", {"Retry-After": header})) == Throttled("429: slow down")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"detail": "no such execution"}, "404: no such execution"),
        (
            {"detail": [{"loc": ["body", "client_id"], "msg": "field required"}, {"loc": ["query", 0]}, 1]},
            "404: body.client_id: field required; query.0",
        ),
        ({"detail": [{"msg": "no"}]}, "404: no"),
        ({"detail": {"a": 1}}, '404: {"detail":{"a":1}}'),
        ({"error": "x"}, '404: {"error":"x"}'),
        ([1], "404: [1]"),
        (b"", "404"),
        (b" \n", "404"),
        (b"<h1>Not\nFound\x1b[31m</h1>", r"404: <h1>Not\nFound\x1b[31m</h1>"),
        ({"detail": "a\u2028b\u202ec\td"}, r"404: a\u2028b\u202ec\td"),
        (b"\xff\x00", "404: �\\x00"),
    ],
)
def test_error_texts_are_the_apis_detail_or_an_excerpt_on_one_line(sandbox: Sandbox, body: Any, text: str) -> None:
    assert ask(sandbox, Reply(404, body)) == Refused("not_found", text)


@pytest.mark.parametrize("body", [b"x" * 10_000_000, {"detail": "é\n" * 100_000}])
def test_error_texts_are_short(sandbox: Sandbox, body: Any) -> None:
    outcome = ask(sandbox, Reply(500, body))
    assert isinstance(outcome, Failure)
    assert len(outcome.error) == 300
    assert outcome.error.endswith("…")


# Large answers


def bomb(megabytes: int) -> bytes:
    """Gzip of so many megabytes of zeros, a thousandth as long; made of one megabyte, many times."""
    return gzip.compress(bytes(1_000_000)) * megabytes


@contextlib.contextmanager
def allocated_at_most(megabytes: float) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()


def ask_with(sandbox: Sandbox, reply: Any, **arguments: Any) -> Outcome:
    sandbox.add(*EXECUTION, reply)
    client = Client(sandbox.base_url, StaticToken("t"), **arguments)
    try:
        return client.get_execution(EXECUTION, Token(sandbox.issue_token()))
    finally:
        client.close()


def test_an_answer_that_inflates_beyond_the_bound_is_invalid_and_takes_no_more_memory(sandbox: Sandbox) -> None:
    reply = Reply(200, bomb(200), {"Content-Encoding": "gzip"})
    with allocated_at_most(30):
        outcome = ask_with(sandbox, reply, max_answer_bytes=10_000_000)

    assert outcome == Refused("invalid", "200: the answer is larger than max_answer_bytes (10000000)")


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize(("bound", "expected"), [(0, Answered), (-1, Refused)])
def test_an_answer_of_exactly_the_bound_is_taken(sandbox: Sandbox, encoded: bool, bound: int, expected: type) -> None:
    body = json.dumps({**RUNNING, "filling": "x" * 300_000}).encode()
    reply = Reply(200, gzip.compress(body), {"Content-Encoding": "gzip"}) if encoded else Reply(200, body)

    assert type(ask_with(sandbox, reply, max_answer_bytes=len(body) + bound)) is expected


def test_after_an_answer_that_was_too_large_others_are_read(sandbox: Sandbox) -> None:
    sandbox.add(*EXECUTION, {**RUNNING, "filling": "x" * 300_000}, RUNNING)
    token = Token(sandbox.issue_token())
    client = Client(sandbox.base_url, StaticToken("t"), max_answer_bytes=1000)
    outcomes = [client.get_execution(EXECUTION, token) for _ in range(2)]
    client.close()

    assert [type(outcome) for outcome in outcomes] == [Refused, Answered]


def test_the_deadline_holds_while_an_answer_is_inflated(sandbox: Sandbox) -> None:
    reply = Reply(200, bomb(4000), {"Content-Encoding": "gzip"})
    sandbox.add(*EXECUTION, reply)
    started = time.monotonic()

    outcome = ask_with(sandbox, reply, max_answer_bytes=10**10, request_timeout=SHORT)

    assert outcome == Failure("200: timed out after 0.4 s")
    assert time.monotonic() - started < SHORT + 0.6


def test_a_length_that_is_only_declared_takes_no_memory() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 4000000000\r\nConnection: close\r\n\r\n{"
    served = raw_server(lambda _: [head, b""], hang_up=True)
    with served as (base_url, _), client_of(base_url) as client, allocated_at_most(10):
        outcome = client.get_execution(EXECUTION, Token("t"))

    assert outcome == Failure("200: the body ended early")


@pytest.mark.parametrize("encoding", few_of(["gzip", "deflate", "raw deflate"]))
def test_an_answer_of_several_megabytes_is_read_whole_however_it_is_compressed(sandbox: Sandbox, encoding: str) -> None:
    payload = {**RUNNING, "filling": [str(number) for number in range(500_000)]}
    body = json.dumps(payload).encode()
    raw = zlib.compressobj(wbits=-15)
    compressed = {
        "gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "raw deflate": raw.compress(body) + raw.flush(),
    }
    reply = Reply(200, compressed[encoding], {"Content-Encoding": encoding.split()[-1]})

    outcome = ask(sandbox, reply)
    assert isinstance(outcome, Answered)
    assert outcome.payload == payload
    assert outcome.size == len(body)


def test_an_empty_answer_may_be_compressed_too(sandbox: Sandbox) -> None:
    outcome = ask(sandbox, Reply(200, gzip.compress(b""), {"Content-Encoding": "gzip"}))

    assert outcome == Failure("200: the body is empty", unreadable="200: empty")


@pytest.mark.parametrize("most", [0, -1, float("nan")])
def test_a_bound_that_cannot_work_is_not_accepted(most: float) -> None:
    with pytest.raises(ConfigurationError, match="^max_answer_bytes .*$"):
        Client("https://host.invalid", StaticToken("t"), max_answer_bytes=most)  # type: ignore[arg-type]


# What must not get out


SECRET = 'se"cret/ü\\1'


def echoes(secret: str) -> list[Any]:
    return [
        {"detail": f"bad Bearer {secret} {secret}"},
        {"detail": [{"loc": ["body", secret], "msg": secret}]},
        {"x" * 280: secret},
        {"status": "running", "workflow_id": secret + secret},
        f"x {secret}".encode(),
        json.dumps({"a": secret}, ensure_ascii=False).encode(),
        f"token={quote(secret)} or {quote(secret, safe='')}".encode(),
        f"token={re.sub('%..', lambda escape: escape[0].lower(), quote(secret, safe=''))}".encode(),
        html.escape(f"<b>{secret}</b>").encode(),
        json.dumps({"a": secret}).replace("/", "\\/").encode(),
        f"Authorization: Basic {base64.b64encode(f'id:{secret}'.encode()).decode()}".encode(),
        base64.urlsafe_b64encode(f"{secret} {secret}  {secret}".encode()),
    ]


def test_a_short_secret_blots_out_no_part_of_a_word(sandbox: Sandbox) -> None:
    client = Client(sandbox.base_url, ClientCredentials("id", "b"))
    sandbox.script_token(error(401, "boom, b is wrong"))

    assert client.request_token() == Unauthorized("token endpoint: 401: boom, *** is wrong")
    client.close()


@pytest.mark.parametrize("status", few_of([200, 302, 400, 401, 403, 404, 422, 429, 500], every=4))
@pytest.mark.parametrize("number", few_of(range(len(echoes(""))), every=4))
def test_secrets_that_are_echoed_are_blotted_out(sandbox: Sandbox, status: int, number: int) -> None:
    token = sandbox.issue_token()
    headers = {"Location": f"https://u:{token}@host.invalid/{token}?sig=1#f"}
    client = Client(sandbox.base_url, ClientCredentials("id", SECRET))
    sandbox.add(*EXECUTION, *(Reply(status, echoes(secret)[number], headers) for secret in (token, SECRET)))
    sandbox.script_token(Reply(status, echoes(SECRET)[number]))
    outcomes: list[Any] = [client.get_execution(EXECUTION, Token(token)) for _ in range(2)]
    outcomes.append(client.request_token())
    client.close()
    for outcome in outcomes:
        assert token[:10] not in outcome.error
        assert "cret" not in outcome.error
        assert not any(
            base64.b64encode(inner.encode()).decode()[:-4] in outcome.error for inner in (token[1:], "cret/")
        )
        assert "sig=1" not in outcome.error


@pytest.mark.parametrize("head", [b"500 Odd", b"200 OK"])
def test_no_part_of_a_secret_is_left_where_a_long_body_is_cut(head: bytes) -> None:
    token = "".join(f"{number:04}" for number in range(1000))  # so long that little is left of the body
    body = f"<html>{token * 20}".encode()
    answer = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (head, len(body), body)
    with raw_server(lambda _: [answer]) as (base_url, _), client_of(base_url, token) as client:
        outcome = client.get_execution(EXECUTION, Token(token))

    assert isinstance(outcome, Failure)
    assert "***" in outcome.error
    assert not any(f"{number:04}" in outcome.error for number in range(1, 1000))


def test_our_own_words_are_not_blotted_out() -> None:
    with client_of("https://nosuchhost.invalid", "name") as client:
        assert client.get_execution(EXECUTION, Token("name")) == Failure("host name not resolved")


def test_secrets_are_not_in_reprs() -> None:
    held = [StaticToken("hush"), ClientCredentials("id", "hush"), Token("hush")]
    with client_of("https://host.invalid", "hush") as client:
        assert "hush" not in repr([held, client, client.token])


def test_nothing_secret_is_logged(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = ask_for_token(sandbox)
    sandbox.add(*EXECUTION, RUNNING)
    with client_of(sandbox.base_url, token.value) as client:
        client.get_execution(EXECUTION, token)
    assert "Starting new HTTP connection" in caplog.text
    assert token.value not in caplog.text
    assert sandbox.client_secret not in caplog.text


def test_a_redirect_is_not_followed(sandbox: Sandbox) -> None:
    with Sandbox() as other:
        location = other.base_url.replace("//", "//user:pass@") + "/elsewhere?sig=abc#part"
        outcome = ask(sandbox, Reply(307, b"", {"Location": location}))
        assert outcome == Refused(
            "invalid",
            f"answered with a redirect (307), redirects are not followed: {other.base_url}/elsewhere",
        )
        assert isinstance(ask_for_token(sandbox, Reply(307, b"", {"Location": location})), Unauthorized)
        assert other.requests == []
    assert len(sandbox.requests) == 2


@pytest.mark.parametrize("location", ["https://[bad", "", "//", "\xff", "https://x:99999/"])
def test_an_unreadable_redirect_is_invalid_all_the_same(sandbox: Sandbox, location: str) -> None:
    outcome = ask(sandbox, Reply(302, b"", {"Location": location}))
    assert isinstance(outcome, Refused)
    assert outcome.error.startswith("answered with a redirect (302), redirects are not followed")


def test_netrc_does_not_replace_the_token(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\ndefault login some password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert isinstance(ask(sandbox, RUNNING), Answered)
    assert isinstance(ask_for_token(sandbox), Token)
    get, post = sandbox.requests
    assert get.headers["authorization"].startswith("Bearer ")
    assert "authorization" not in post.headers


def test_cookies_are_not_kept(sandbox: Sandbox) -> None:
    token = Token(sandbox.issue_token())
    sandbox.add(*EXECUTION, Reply(200, RUNNING, {"Set-Cookie": "a=b; Path=/"}))
    with client_of(sandbox.base_url) as client:
        client.get_execution(EXECUTION, token)
        client.get_execution(EXECUTION, token)
    assert ["cookie" in request.headers for request in sandbox.requests] == [False, False]


def test_requests_say_who_asks_and_what_for(sandbox: Sandbox) -> None:
    ask(sandbox, RUNNING)
    headers = sandbox.requests[0].headers
    assert headers["accept"] == "application/json"
    assert headers["user-agent"].startswith("further_source/")


# Connections


def connections(caplog: pytest.LogCaptureFixture) -> int:
    return sum("Starting new HTTP" in record.getMessage() for record in caplog.records)


def test_connections_are_reused(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "urllib3")
    token = Token(sandbox.issue_token())
    sandbox.add(*EXECUTION, RUNNING, error(404), Reply(500), error(429), RUNNING)
    with client_of(sandbox.base_url) as client:
        for _ in range(6):
            client.get_execution(EXECUTION, token)
    assert connections(caplog) == 1


def test_a_connection_that_timed_out_is_not_reused(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    token = Token(sandbox.issue_token())
    slow = Reply(200, RUNNING, fault="drip", delay=0.05)
    sandbox.add(*EXECUTION, RUNNING, slow, RUNNING, Reply(200, RUNNING, fault="drip_headers", delay=0.05), RUNNING)
    with client_of(sandbox.base_url, timeout=SHORT) as client:
        outcomes = [client.get_execution(EXECUTION, token) for _ in range(5)]
    assert [type(outcome) for outcome in outcomes] == [Answered, Failure, Answered, Failure, Answered]


def test_many_threads_share_a_client_and_slow_ones_harm_no_others(sandbox: Sandbox) -> None:
    token = Token(sandbox.issue_token())
    executions = [ExecutionId("wf", f"ex-{number}") for number in range(64)]
    for number, execution in enumerate(executions):
        slow = Reply(200, running(*execution), fault="drip_headers", delay=0.05)
        sandbox.add(*execution, slow if number % 8 == 0 else running(*execution))
    client = Client(sandbox.base_url, StaticToken("t"), request_timeout=SHORT, max_workers=8)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda execution: client.get_execution(execution, token), executions))
    client.close()
    for number, (execution, outcome) in enumerate(zip(executions, outcomes, strict=True)):
        if number % 8 == 0:
            assert isinstance(outcome, Failure)
        else:
            assert isinstance(outcome, Answered)
            assert outcome.payload["workflow_execution_id"] == execution.workflow_execution_id


def test_closing_cuts_what_is_under_way(sandbox: Sandbox) -> None:
    sandbox.add(*EXECUTION, Reply(200, fault="silent"))
    token = Token(sandbox.issue_token())
    with client_of(sandbox.base_url, timeout=30) as client, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(client.get_execution, EXECUTION, token)
        while not sandbox.requests:
            time.sleep(0.005)
        client.close()
        assert asking.result(5) == Failure("the client was closed")
        assert client.get_execution(EXECUTION, token) == Failure("the client is closed")
    assert len(sandbox.requests) == 1


def test_a_closed_client_leaves_no_thread(sandbox: Sandbox) -> None:
    before = set(threading.enumerate())
    sandbox.add(*EXECUTION, RUNNING)
    with client_of(sandbox.base_url) as client:
        client.get_execution(EXECUTION, Token(sandbox.issue_token()))
        (thread,) = (one for one in set(threading.enumerate()) - before if one.name == "request-deadlines")

    thread.join(5)
    assert not thread.is_alive()


@contextlib.contextmanager
def raw_server(
    answer: Callable[[str], Sequence[bytes]], certificate: Path | None = None, *, hang_up: bool = False
) -> Iterator[Any]:
    """Sends for each request on a connection the bytes for its execution id, in so many packets.

    Gives the base URL, and a list that grows by one entry for each connection.
    """
    server = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            connection = context.wrap_socket(connection, server_side=True)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError), connection:
            while request := connection.recv(65536):
                for number, packet in enumerate(answer(request.split()[1].decode().rpartition("/")[2])):
                    time.sleep(0.02 if number else 0)
                    connection.sendall(packet)
                if hang_up:
                    return

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connections.append(server.accept()[0])
                threading.Thread(target=serve, args=(connections[-1],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    scheme = "http" if certificate is None else "https"
    yield f"{scheme}://localhost:{server.getsockname()[1]}", connections
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def answer_of(execution_id: str, head: bytes = b"HTTP/1.1 200 OK") -> bytes:
    body = json.dumps(running("wf", execution_id)).encode()
    return head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def ask_twenty(base_url: str) -> list[Outcome]:
    executions = [ExecutionId("wf", f"ex-{number}") for number in range(20)]
    with client_of(base_url) as client:
        return [client.get_execution(execution, Token("t")) for execution in executions]


def assert_each_got_its_own(outcomes: list[Outcome]) -> None:
    got = [outcome.payload["workflow_execution_id"] for outcome in outcomes if isinstance(outcome, Answered)]
    assert got == [f"ex-{number}" for number in range(20)], outcomes


EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    "interim", [EARLY_HINTS, PROCESSING, CONTINUE, PROCESSING * 3 + CONTINUE + EARLY_HINTS], ids=len
)
@pytest.mark.parametrize("apart", [False, True])
def test_interim_answers_are_skipped_and_the_connection_is_kept(interim: bytes, apart: bool) -> None:
    def answer(execution_id: str) -> list[bytes]:
        packets = [interim, answer_of(execution_id)]
        return packets if apart else [b"".join(packets)]

    with raw_server(answer) as (base_url, connections):
        assert_each_got_its_own(ask_twenty(base_url))
        assert len(connections) == 1


def test_interim_answers_for_ever_are_cut_at_the_deadline() -> None:
    with (
        raw_server(lambda _: [PROCESSING] * 1000) as (base_url, _),
        client_of(base_url, timeout=SHORT) as client,
    ):
        assert client.get_execution(EXECUTION, Token("t")) == Failure("timed out after 0.4 s")


STRAY = [
    answer_of("ex-stray"),
    b"\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
    answer_of("ex-stray") * 200,  # more than is read at once
    EARLY_HINTS,
]


@pytest.mark.parametrize("stray", STRAY, ids=len)
@pytest.mark.parametrize("tls", [False, True])
def test_stray_bytes_after_an_answer_do_not_become_the_next_answer(
    stray: bytes, tls: bool, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    served = raw_server(lambda execution_id: [answer_of(execution_id) + stray], certificate if tls else None)
    with served as (base_url, connections):
        assert_each_got_its_own(ask_twenty(base_url))
        assert len(connections) == 20


def test_stray_bytes_that_come_before_the_next_request_do_not_become_its_answer() -> None:
    executions = [ExecutionId("wf", f"ex-{number}") for number in range(5)]
    served = raw_server(lambda execution_id: [answer_of(execution_id), answer_of("ex-stray")])
    with served as (base_url, connections), client_of(base_url) as client:
        for execution in executions:
            outcome = client.get_execution(execution, Token("t"))
            assert isinstance(outcome, Answered), outcome
            assert outcome.payload["workflow_execution_id"] == execution.workflow_execution_id
            time.sleep(0.1)
        assert len(connections) == 5


@pytest.mark.parametrize("status", [204, 304])
def test_a_body_where_none_may_be_does_not_become_the_next_answer(status: int) -> None:
    def answer(execution_id: str) -> list[bytes]:
        return [answer_of(execution_id, b"HTTP/1.1 %d Odd" % status if execution_id == "ex_1" else b"HTTP/1.1 200 OK")]

    with raw_server(answer) as (base_url, connections), client_of(base_url) as client:
        assert not isinstance(client.get_execution(EXECUTION, Token("t")), Answered)
        assert isinstance(client.get_execution(ExecutionId("wf", "ex-2"), Token("t")), Answered)
        assert len(connections) == 2


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_with_nothing_more_on_it_is_kept(
    tls: bool, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    served = raw_server(lambda execution_id: [answer_of(execution_id)], certificate if tls else None)
    with served as (base_url, connections):
        assert_each_got_its_own(ask_twenty(base_url))
        assert len(connections) == 1


def test_a_refused_connection_and_an_unknown_host_are_failures() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with client_of(f"http://127.0.0.1:{port}") as client:
        assert client.get_execution(EXECUTION, Token("t")) == Failure("connection refused")
    with client_of("https://nosuchhost.invalid") as client:
        assert client.get_execution(EXECUTION, Token("t")) == Failure("host name not resolved")


def test_loopback_is_asked_without_a_proxy(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox() as proxy:
        monkeypatch.setenv("http_proxy", proxy.base_url)
        monkeypatch.setenv("all_proxy", proxy.base_url)
        assert isinstance(ask(sandbox, RUNNING), Answered)
        assert proxy.requests == []


def test_other_hosts_are_asked_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Sandbox() as proxy:
        monkeypatch.setenv("https_proxy", proxy.base_url.replace("//", "//user:hush@"))
        with client_of("https://nosuchhost.invalid") as client:
            outcome = client.get_execution(EXECUTION, Token("t"))
    assert outcome == Failure("proxy: refused")


def test_the_deadline_holds_behind_a_proxy_that_trickles(monkeypatch: pytest.MonkeyPatch) -> None:
    def trickle(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            for byte in b"HTTP/1.1 200 OK\r\nVia: %s\r\n\r\n" % (b"x" * 100):
                connection.sendall(bytes([byte]))
                time.sleep(SHORT / 4)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: trickle(server.accept()[0]), daemon=True).start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
        with client_of("https://nosuchhost.invalid", timeout=SHORT) as client:
            started = time.monotonic()
            assert client.get_execution(EXECUTION, Token("t")) == Failure("timed out after 0.4 s")
            assert time.monotonic() - started < 10 * SHORT  # it trickles for thirty times as long


def test_all_addresses_of_a_host_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody accepts at any of them: each has as many connections waiting as it takes, and lets others wait."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = first.getsockname()[1]
        addresses = [f"127.0.0.{number}" for number in range(1, 21)]
        for address in addresses:
            if address != "127.0.0.1":
                stack.enter_context(socket.create_server((address, port), backlog=0))
            stack.enter_context(socket.create_connection((address, port)))
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
        client = stack.enter_context(client_of(f"https://many.invalid:{port}", timeout=SHORT))
        started = time.monotonic()
        assert client.get_execution(EXECUTION, Token("t")) == Failure("timed out after 0.4 s")
        assert time.monotonic() - started < 10 * SHORT


# TLS


Serve = Callable[[ssl.SSLSocket], None]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("makes its certificate with openssl")
    path = tmp_path / "certificate.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", str(tmp_path / "c")]
    subprocess.run(command, check=True, capture_output=True)
    with path.open("ab") as file:
        file.write((tmp_path / "c").read_bytes())
    return path


@contextlib.contextmanager
def tls_server(certificate: Path, answer: bytes, delay: float) -> Iterator[str]:
    """Sends the answer to each connection, byte by byte if there is a delay."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
            while tls.recv(65536):
                for part in [bytes([byte]) for byte in answer] if delay else [answer]:
                    tls.sendall(part)
                    time.sleep(delay)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"https://localhost:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    server.close()


BODY = json.dumps(RUNNING).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def test_a_certificate_nobody_vouches_for_is_not_accepted(certificate: Path) -> None:
    with tls_server(certificate, ANSWER, 0) as base_url, client_of(base_url) as client:
        outcome = client.get_execution(EXECUTION, Token("t"))
    assert isinstance(outcome, Failure)
    assert outcome.error.startswith("TLS certificate not accepted: self")


@pytest.mark.parametrize(("delay", "expected"), [(0.0, Answered), (0.05, Failure)])
def test_a_deadline_holds_over_tls_on_new_and_on_reused_connections(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, delay: float, expected: type
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with tls_server(certificate, ANSWER, delay) as base_url, client_of(base_url, timeout=SHORT) as client:
        for _ in range(2):
            started = time.monotonic()
            assert type(client.get_execution(EXECUTION, Token("t"))) is expected
            assert time.monotonic() - started < SHORT + 0.4


def test_a_silent_tls_handshake_is_cut() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        base_url = f"https://127.0.0.1:{server.getsockname()[1]}"
        client = stack.enter_context(client_of(base_url, timeout=SHORT))
        assert client.get_execution(EXECUTION, Token("t")) == Failure("timed out after 0.4 s")


# Tokens


def test_a_token_says_when_it_is_to_be_renewed(sandbox: Sandbox) -> None:
    client = Client(sandbox.base_url, CREDENTIALS, clock=iter([1000.0, 2000.0]).__next__)
    assert client.renewable
    assert client.token is None
    token = client.request_token()
    assert isinstance(token, Token)
    assert (token.renew_at, token.expires_at) == (4540, 4600)
    sandbox.add(*EXECUTION, RUNNING)
    assert isinstance(client.get_execution(EXECUTION, token), Answered)
    client.close()


@pytest.mark.parametrize(
    ("expires_in", "renew_at", "expires_at"),
    [
        ({"expires_in": 100}, 1090, 1100),
        ({"expires_in": 0.5}, 1000.45, 1000.5),
        ({}, None, None),
        ({"expires_in": None}, None, None),
        ({"expires_in": "3600"}, None, None),
        ({"expires_in": True}, None, None),
        ({"expires_in": 0}, None, None),
        ({"expires_in": -1}, None, None),
        ({"expires_in": 10**400}, None, None),
    ],
)
def test_a_life_that_is_no_positive_number_is_unknown(
    sandbox: Sandbox, expires_in: dict[str, Any], renew_at: float | None, expires_at: float | None
) -> None:
    token = ask_for_token(sandbox, {"access_token": "abc", **expires_in})
    assert token == Token("abc", renew_at, expires_at)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        *((error(status, "no"), Unauthorized(f"token endpoint: {status}: no")) for status in (400, 401, 403, 404)),
        (
            error(422, [{"loc": ["body", "client_id"], "msg": "field required"}]),
            Unauthorized("token endpoint: 422: body.client_id: field required"),
        ),
        *((error(status, "no"), Failure(f"token endpoint: {status}: no")) for status in (408, 425, 500, 503)),
        (error(429, "no"), Throttled("token endpoint: 429: no")),
        (Reply(200, fault="reset"), Failure("token endpoint: connection reset")),
        (Reply(200, fault="silent"), Failure("token endpoint: timed out after 0.4 s")),
        (Reply(200, {"a": 1}, fault="truncated"), Failure("token endpoint: 200: the body ended early")),
        (b"<html>", Failure("token endpoint: 200: the body is not JSON")),
        (b"", Failure("token endpoint: 200: the body is empty")),
        (b"[]", Failure("token endpoint: 200: the answer has no `access_token`")),
        ({"access_token": ""}, Failure("token endpoint: 200: the answer has no `access_token`")),
        ({"access_token": 5}, Failure("token endpoint: 200: the answer has no `access_token`")),
        *(
            ({"access_token": value}, Failure("token endpoint: 200: the `access_token` has characters no token can have"))  # noqa: E501
            for value in ("abc\r\nX: y", "abc\n", "snow☃", "a\x00b", " abc")
        ),
    ],
)  # fmt: skip
def test_a_token_that_does_not_come(sandbox: Sandbox, reply: Any, expected: Any) -> None:
    timeout = SHORT if "timed out" in expected.error else 10
    assert ask_for_token(sandbox, reply, timeout=timeout) == expected
    assert len(sandbox.requests) == 1


def test_wrong_credentials_are_unauthorized(sandbox: Sandbox) -> None:
    client = Client(sandbox.base_url, ClientCredentials("sandbox-client", "wrong"))
    assert client.request_token() == Unauthorized("token endpoint: 401: Invalid client credentials")
    client.close()


# Mistakes of the caller


def test_a_static_token_cannot_be_renewed() -> None:
    with client_of("https://host.invalid") as client:
        assert not client.renewable
        assert client.token == Token("t")
        with pytest.raises(RuntimeError):
            client.request_token()


@pytest.mark.parametrize("token", ["", "a b", "abc\n", "snow☃"])
def test_a_token_that_cannot_be_sent_is_not_accepted(token: str) -> None:
    with pytest.raises(ConfigurationError, match="^access_token .*$"):
        Client("https://host.invalid", StaticToken(token))
    with client_of("https://host.invalid") as client, pytest.raises(ValueError, match="^the token has"):
        client.get_execution(EXECUTION, Token(token))


@pytest.mark.parametrize("bad", ["", "..", "a/b", "a\n", "a?b", "é", "a" * 129])
def test_ids_that_cannot_be_ids_are_not_sent(bad: str) -> None:
    with client_of("https://host.invalid") as client:
        for execution in (ExecutionId(bad, "ex"), ExecutionId("wf", bad)):
            with pytest.raises(ValueError, match="not an id"):
                client.get_execution(execution, Token("t"))


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_cannot_work_is_not_accepted(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="^request_timeout .*$"):
        Client("https://host.invalid", StaticToken("t"), request_timeout=timeout)


@pytest.mark.parametrize(
    ("url", "normalized"),
    [
        ("https://api.further.ai", "https://api.further.ai"),
        ("HTTPS://API.Further.AI/", "https://api.further.ai"),
        ("https://host:8443/prefix/V1//", "https://host:8443/prefix/V1"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://127.8.9.10:80/", "http://127.8.9.10:80"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        (" https://bücher.example\n", "https://bücher.example"),
    ],
)
def test_base_urls_are_normalized(url: str, normalized: str) -> None:
    assert check_base_url(url) == normalized


@pytest.mark.parametrize(
    "url",
    [
        "", "api.further.ai", "ftp://host", "https://", "https:///path", "//host", "file:///etc/passwd",
        "http://api.further.ai", "http://0.0.0.0", "http://localhost.evil.com", "http://127.0.0.1.evil.com",
        "http://10.0.0.1", "http://[::2]", "http://127.1", "http://localhost@evil.com",
        "https://user:hush@host", "https://user@host", "https://@host",
        "https://host?x=hush", "https://host/#hush", "https://host/?", "https://host#",
        "https://host:0", "https://host:99999", "https://host:hush", "https://[::1", "https://a..b",
        "https://ho st", "https://host/a\nb", "https://host\\@hush", "https://*.host", "https://" + "a" * 64,
        None, 7,
    ],
)  # fmt: skip
def test_base_urls_that_cannot_work_are_refused_in_one_line_that_shows_no_password(url: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_base_url(url)
    assert str(caught.value).startswith("base_url ")
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_path_of_the_base_url_is_kept(sandbox: Sandbox) -> None:
    with client_of(sandbox.base_url + "/proxied/") as client:
        assert isinstance(client.get_execution(EXECUTION, Token(sandbox.issue_token())), Refused)
    assert sandbox.requests[0].path == "/proxied/api/v1/workflow-builder/workflows/wf-1/executions/ex_1"
