"""Real faults on loopback, through whole loads: what each comes to, and that its neighbours do not notice."""

import base64
import email.utils
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import dlt
import pytest

from further_source import CredentialsError, Report, further_source, run_in_slices
from further_source.sandbox import Reply, Sandbox, cell, completed, error, running, step
from tests.conftest import MakePipeline
from tests.support.loading import query, tables
from tests.support.slow import few_of

GOOD = [("wf", f"good-{number}") for number in range(6)]
BAD = ("wf", "bad")
DONE = completed(*BAD, [step("Extract", [{"name": cell("bad", 0.5)}])])
TIMEOUT = 1.5  # seconds of one request


@dataclass(frozen=True)
class Row:
    """What `executions` is to say of the bad one; `error` is how `poll_error` begins."""

    outcome: str
    error: str | None
    count: int | range
    status: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def after(*faults: Any) -> tuple[Any, ...]:
    """Faults, after which it completes."""
    return (*faults, DONE)


def at_last(count: int) -> Row:
    return Row("completed", None, count, "completed")


def garbled(reason: str) -> Row:
    return Row("invalid", reason, 3)


def gone(reason: str, **settings: Any) -> Row:
    return Row("unreachable", reason, 10, settings=settings)


HTML = Reply(502, b"<html><h1>502 Bad Gateway</h1></html>", {"Content-Type": "text/html"})
BIG = completed(*BAD, [step("Extract", [{"text": cell("x" * 1_000_000, 0.5)} for _ in range(30)])])
OTHER = completed("wf", "good-0", [step("Extract", [{"name": cell("stolen", 0.5)}])])
NOBODYS = {"status": "completed", "steps": OTHER["steps"]}
ZEROS = Reply(200, gzip.compress(bytes(3_000_000)), {"Content-Encoding": "gzip"})
ECHO = "the secret is sandbox-secret, or Basic " + base64.b64encode(b"sandbox:sandbox-secret").decode()


def on_the_wire(payload: dict[str, Any]) -> bytes:
    """A whole answer, to be sent after, or as, the body of another one."""
    body = json.dumps(payload).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def with_stray_bytes(payload: dict[str, Any], stray: bytes) -> Reply:
    body = json.dumps(payload).encode()
    return Reply(200, body + stray, {"Content-Length": str(len(body))})


FAULTS: list[tuple[str, tuple[Any, ...], Row]] = [
    ("429", after(error(429)), at_last(2)),
    ("429 with seconds", after(error(429, headers={"Retry-After": "1"})), at_last(2)),
    ("429 many times", after(*[error(429, headers={"Retry-After": "0"})] * 15), at_last(16)),
    ("500 once", after(error(500)), at_last(2)),
    ("500 nine times", after(*[error(500)] * 9), at_last(10)),
    ("500 for ever", (error(500, "Out of order"),), gone("500: Out of order")),
    ("500 once it had answered", (running(*BAD), error(500)), Row("unreachable", "500: ", 11, "running")),
    ("502 with HTML", (HTML,), gone("502: <html><h1>502 Bad Gateway</h1></html>")),
    ("502 with HTML once", after(HTML), at_last(2)),
    ("reset", (Reply(fault="reset"),), gone("connection reset")),
    ("reset once", after(Reply(fault="reset")), at_last(2)),
    ("closed", (Reply(fault="close"),), gone("connection closed without an answer")),
    ("truncated", (Reply(200, DONE, fault="truncated"),), gone("200: the body ended early")),
    ("truncated once", after(Reply(200, DONE, fault="truncated")), at_last(2)),
    ("empty", (Reply(200, fault="empty"),), garbled("200: the body is empty")),
    ("empty 204", (Reply(204),), garbled("204: the body is empty")),
    ("empty twice", after(*[Reply(200, fault="empty")] * 2), at_last(3)),
    ("another content type", (Reply(200, DONE, {"Content-Type": "text/html"}),), at_last(1)),
    (
        "HTML",
        (Reply(200, b"<html>Sign in", {"Content-Type": "text/html"}),),
        garbled("200: the body is not JSON: <html>"),
    ),
    ("a list", (Reply(200, [DONE]),), Row("invalid", "200: the answer is no JSON object", 1)),
    ("null", (Reply(200, b"null"),), Row("invalid", "200: the answer is no JSON object", 1)),
    ("a string", (Reply(200, b'"completed"'),), Row("invalid", "200: the answer is no JSON object", 1)),
    ("no status", (Reply(200, {"workflow_id": "wf"}),), Row("invalid", "200: the answer has no text `status`", 1)),
    ("status a number", ({"status": 3},), Row("invalid", "200: the answer has no text `status`", 1)),
    ("invalid UTF-8", (Reply(200, b'{"status": "\xff\xfe"}'),), garbled("200: the body is not JSON")),
    ("half of JSON", (Reply(200, b'{"status": "compl'),), garbled("200: the body is not JSON")),
    ("drip", (Reply(200, DONE, fault="drip", delay=0.2), DONE), at_last(2)),
    ("silent once", after(Reply(fault="silent")), at_last(2)),
    (
        "silent for ever",
        (Reply(fault="silent"),),
        gone("timed out after 0.2 s", request_timeout=0.2, max_workers=2),
    ),
    ("403", (error(403, "No permission"),), Row("forbidden", "403: No permission", 1)),
    ("404", (error(404),), Row("not_found", "404: Not Found", 1)),
    ("404 after it ran", (running(*BAD), error(404)), Row("not_found", "404: Not Found", 2, "running")),
    ("422", (error(422, [{"loc": ["path", "id"], "msg": "bad"}]),), Row("rejected", "422: path.id: bad", 1)),
    ("408", after(error(408)), at_last(2)),
    ("401 once", after(error(401)), at_last(2)),
    ("somebody else's id", (OTHER,), Row("invalid", "200: the answer is for another workflow_execution_id", 1)),
    ("30 MB", (BIG,), at_last(1)),
    ("103 before the answer", (Reply(103, on_the_wire(DONE)),), at_last(1)),
    ("102 before the answer, after it ran", (running(*BAD), Reply(102, on_the_wire(DONE))), at_last(2)),
    ("another answer after the answer", (with_stray_bytes(running(*BAD), on_the_wire(OTHER)), DONE), at_last(2)),
    ("an interim answer after the answer", (with_stray_bytes(DONE, b"HTTP/1.1 103 Early Hints\r\n\r\n"),), at_last(1)),
    ("no ids", (NOBODYS,), Row("invalid", "200: the answer has none of the ids that were asked for", 1)),
    (
        "gzip that becomes too much",
        (ZEROS,),
        Row(
            "invalid",
            "200: the answer is larger than max_answer_bytes (1000000)",
            1,
            settings={"max_answer_bytes": 1_000_000},
        ),
    ),
    (
        "4 GB that are only declared",
        (Reply(200, DONE, {"Content-Length": "4000000000"}),),
        gone("200: timed out after 0.2 s", request_timeout=0.2, max_workers=2),
    ),
    (
        "429 for ever with Retry-After: 0",
        (error(429, headers={"Retry-After": "0"}),),
        # The longest interval is 0.05 s, so that about 60 fit into three seconds; at full rate 3,000 would.
        Row("unreachable", "429", range(10, 150), settings={"max_wait": 3}),
    ),
    ("a secret is echoed", (error(500, ECHO),), gone("500: the secret is ***, or Basic c2FuZGJveDp***")),
]


def load(pipeline: dlt.Pipeline, sandbox: Sandbox, executions: Any = (), **settings: Any) -> Report:
    defaults: dict[str, Any] = {
        "base_url": sandbox.base_url,
        "client_id": sandbox.client_id,
        "client_secret": sandbox.client_secret,
        "initial_interval": 0.02,
        "backoff_factor": 1.2,
        "max_interval": 0.05,
        "max_wait": 60,
        "outage_patience": 0,
        "max_requests_per_second": 1000,
        "request_timeout": TIMEOUT,
    }
    source = further_source(executions or [GOOD[0], BAD, *GOOD[1:]], **{**defaults, **settings})
    return run_in_slices(pipeline, source)


def serve_good(sandbox: Sandbox) -> None:
    for number, (workflow_id, execution_id) in enumerate(GOOD):
        answer = completed(workflow_id, execution_id, [step("Extract", [{"name": cell(execution_id, 0.5)}])])
        sandbox.add(workflow_id, execution_id, *[running(workflow_id, execution_id)] * (number % 3), answer)


def row_of(pipeline: dlt.Pipeline, execution_id: str = BAD[1]) -> tuple[Any, ...]:
    (row,) = query(
        pipeline,
        "SELECT poll_outcome, poll_error, poll_count, status FROM executions "
        f"WHERE workflow_execution_id = '{execution_id}'",
    )
    return row


def assert_neighbours_are_intact(pipeline: dlt.Pipeline) -> None:
    rows = query(
        pipeline,
        "SELECT workflow_execution_id, poll_outcome, poll_count FROM executions "
        "WHERE workflow_execution_id LIKE 'good-%' ORDER BY 1",
    )
    assert [row[:2] for row in rows] == [(execution_id, "completed") for _, execution_id in GOOD]
    cells = query(
        pipeline,
        "SELECT workflow_execution_id, value FROM cells WHERE workflow_execution_id LIKE 'good-%' ORDER BY 1",
    )
    assert cells == [(execution_id, execution_id) for _, execution_id in GOOD]


@pytest.mark.parametrize(
    ("replies", "expected"), few_of([row[1:] for row in FAULTS], every=5), ids=[row[0] for row in FAULTS]
)
def test_a_fault_ends_as_one_row_and_leaves_its_neighbours_alone(
    sandbox: Sandbox, pipeline: dlt.Pipeline, replies: tuple[Any, ...], expected: Row
) -> None:
    serve_good(sandbox)
    sandbox.add(*BAD, *replies)

    report = load(pipeline, sandbox, **expected.settings)

    outcome, told, count, status = row_of(pipeline)
    assert (outcome, status) == (expected.outcome, expected.status)
    assert count == sandbox.asked(*BAD)
    assert count in (expected.count if isinstance(expected.count, range) else [expected.count])
    assert (told or "").startswith(expected.error or "")
    assert (told is None) == (expected.error is None)
    assert "stolen" not in str(query(pipeline, "SELECT value FROM cells WHERE length(value) < 100"))
    assert report.ended.total() == 7
    assert_neighbours_are_intact(pipeline)


@pytest.mark.slow
def test_the_cells_of_a_large_body_arrive_whole(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    serve_good(sandbox)
    sandbox.add(*BAD, BIG)
    load(pipeline, sandbox, request_timeout=60)
    sizes = query(pipeline, "SELECT length(value), count(*) FROM cells WHERE workflow_execution_id = 'bad' GROUP BY 1")
    assert sizes == [(1_000_000, 30)]


@pytest.mark.slow
@pytest.mark.parametrize("in_seconds", few_of([True, False]))
def test_retry_after_pauses_everybody(sandbox: Sandbox, pipeline: dlt.Pipeline, in_seconds: bool) -> None:
    later = datetime.now(timezone.utc) + timedelta(seconds=3)
    header = "2" if in_seconds else email.utils.format_datetime(later, usegmt=True)
    serve_good(sandbox)
    sandbox.add(*BAD, error(429, headers={"Retry-After": header}), DONE)
    load(pipeline, sandbox, max_workers=1)
    assert row_of(pipeline) == ("completed", None, 2, "completed")
    assert_neighbours_are_intact(pipeline)
    times = [record.at for record in sandbox.requests]
    throttled = next(index for index, record in enumerate(sandbox.requests) if record.status == 429)
    # HTTP dates are whole seconds, so of three seconds more than one is left.
    assert times[throttled + 1] - times[throttled] >= (2 if in_seconds else 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    few_of(
        [
            Reply(fault="silent"),
            Reply(200, DONE, fault="drip", delay=0.05),
            Reply(200, b"", fault="drip_headers", delay=0.05),
            Reply(500, {"detail": "slow"}, delay=0.8),
        ]
    ),
    ids=["silent", "drip", "drip_headers", "slow 500"],
)
def test_one_that_hangs_delays_nobody(sandbox: Sandbox, pipeline: dlt.Pipeline, fault: Reply) -> None:
    """All of the others end while the first request of the bad one is still under way."""
    serve_good(sandbox)
    sandbox.add(*BAD, fault, DONE)
    # Apart by more than it takes to note a request, so that they are noted in their order.
    load(pipeline, sandbox, [BAD, *GOOD], request_timeout=3, max_workers=2, max_requests_per_second=20)
    order = [record.workflow_execution_id for record in sandbox.requests if record.workflow_execution_id]
    first, *later = [index for index, name in enumerate(order) if name == BAD[1]]
    assert later, "the bad one was asked again"
    assert set(order[first + 1 : later[0]]) == {execution_id for _, execution_id in GOOD}
    assert row_of(pipeline)[:3] == ("completed", None, 2)
    assert_neighbours_are_intact(pipeline)


@pytest.mark.parametrize("status", few_of([301, 302, 303, 307, 308]))
def test_a_redirect_is_not_followed(sandbox: Sandbox, pipeline: dlt.Pipeline, status: int) -> None:
    serve_good(sandbox)
    with Sandbox() as elsewhere:
        location = f"{elsewhere.base_url}/login?next=secret#here"
        sandbox.add(*BAD, Reply(status, headers={"Location": location}))
        load(pipeline, sandbox)
        assert elsewhere.requests == []
    outcome, told, count, _ = row_of(pipeline)
    assert (outcome, count) == ("invalid", 1)
    assert str(status) in told
    assert "/login" in told
    assert "secret" not in told
    assert_neighbours_are_intact(pipeline)


def test_401_for_ever_stops_the_run_with_what_had_arrived(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    serve_good(sandbox)
    sandbox.add(*BAD, *[running(*BAD)] * 12, error(401, "No such token"))
    with pytest.raises(CredentialsError, match="401: No such token"):
        load(pipeline, sandbox)
    assert_neighbours_are_intact(pipeline)
    assert query(pipeline, "SELECT count(*) FROM executions WHERE workflow_execution_id = 'bad'") == [(0,)]
    assert sum("oauth2" in record.path for record in sandbox.requests) == 2  # one renewal


@pytest.mark.parametrize(
    "fault", few_of([error(500), Reply(fault="reset"), Reply(200, b"<html>"), error(429), Reply(204)])
)
def test_a_token_endpoint_that_is_down_for_a_while_is_asked_again(
    sandbox: Sandbox, pipeline: dlt.Pipeline, fault: Reply
) -> None:
    serve_good(sandbox)
    sandbox.script_token(fault, fault, fault, None)
    load(pipeline, sandbox, GOOD)
    assert_neighbours_are_intact(pipeline)


def test_a_token_endpoint_that_stays_down_makes_all_unreachable(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    sandbox.script_token(error(503, "Maintenance"))
    report = load(pipeline, sandbox)
    assert report.nothing_reached
    assert report.ended == {"unreachable": 7}
    assert row_of(pipeline) == ("unreachable", "token endpoint: 503: Maintenance", 0, None)
    assert all(record.path.endswith("/access_token") for record in sandbox.requests)


@pytest.mark.parametrize("reply", few_of([error(401, "Invalid client"), error(422, []), error(403), Reply(302)]))
def test_refused_client_credentials_stop_the_run(sandbox: Sandbox, pipeline: dlt.Pipeline, reply: Reply) -> None:
    sandbox.script_token(reply)
    with pytest.raises(CredentialsError, match="token endpoint"):
        load(pipeline, sandbox)
    assert len(sandbox.requests) == 1
    assert tables(pipeline) <= {"_further_leases"}


@pytest.mark.slow
def test_tokens_that_expire_are_renewed_in_time(pipeline: dlt.Pipeline) -> None:
    with Sandbox(expires_in=1) as sandbox:
        serve_good(sandbox)
        sandbox.serve(*BAD, DONE, after=3.5)
        load(pipeline, sandbox)
        assert row_of(pipeline)[0] == "completed"
        assert sum("oauth2" in record.path for record in sandbox.requests) >= 3
        refused = [record for record in sandbox.requests if record.status == 401]
        assert len(refused) <= 2  # one that was under way in the moment of expiry, on a slow machine
    assert_neighbours_are_intact(pipeline)


def test_tokens_revoked_in_the_middle_are_renewed(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    serve_good(sandbox)
    sandbox.serve(*BAD, DONE, after=1)
    revoke = threading.Timer(0.5, sandbox.revoke_tokens)
    revoke.start()
    try:
        load(pipeline, sandbox)
    finally:
        revoke.cancel()
        revoke.join()
    assert row_of(pipeline)[0] == "completed"
    assert_neighbours_are_intact(pipeline)


def test_a_host_that_does_not_resolve(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    report = load(pipeline, sandbox, [BAD], base_url="https://further.invalid", client_id="i", client_secret="s")
    assert report.nothing_reached
    assert row_of(pipeline)[:3] == ("unreachable", "token endpoint: host name not resolved", 0)


def test_a_port_that_nobody_listens_on(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    credentials: dict[str, Any] = {"access_token": "t", "client_id": None, "client_secret": None}
    load(pipeline, sandbox, [BAD], base_url=f"http://127.0.0.1:{port}", **credentials)
    assert row_of(pipeline)[:3] == ("unreachable", "connection refused", 10)


@contextmanager
def restarting(sandbox: Sandbox, *, after: float, away: float) -> Iterator[None]:
    """Within, the API goes away after some seconds, and comes back after some more."""

    def restart() -> None:
        time.sleep(after)
        sandbox.stop()
        time.sleep(away)
        sandbox.start()

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_an_api_that_restarts_in_the_middle(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    serve_good(sandbox)
    sandbox.serve(*BAD, DONE, after=0.2)

    with restarting(sandbox, after=0.5, away=0.2):
        load(pipeline, sandbox, initial_interval=0.2, max_interval=0.5)
    assert row_of(pipeline)[0] == "completed"
    assert_neighbours_are_intact(pipeline)


@pytest.mark.parametrize(("patience", "expected"), few_of([(60, "completed"), (0, "unreachable")]))
def test_an_api_that_is_away_for_longer_than_ten_failures_take(
    sandbox: Sandbox, pipeline: dlt.Pipeline, patience: float, expected: str
) -> None:
    for execution in [*GOOD, BAD]:
        sandbox.serve(*execution, completed(*execution, []), after=0.6)

    with restarting(sandbox, after=0.3, away=3):
        report = load(pipeline, sandbox, outage_patience=patience, max_interval=0.1)
    assert report.ended == {expected: 7}


@pytest.mark.slow
def test_an_api_that_stays_away_is_given_up_when_the_patience_is_over(sandbox: Sandbox, pipeline: dlt.Pipeline) -> None:
    sandbox.script_token(error(503, "Maintenance"))
    began = time.monotonic()
    report = load(pipeline, sandbox, outage_patience=2, max_interval=0.2)
    assert report.ended == {"unreachable": 7}
    assert time.monotonic() - began >= 2


class RawServer:
    """Answers each connection with bytes that no HTTP server would send."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._answer = answer
        self.base_url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                self._answer(connection)

    def __enter__(self) -> "RawServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


def _chunked_without_end(connection: socket.socket) -> None:
    body = json.dumps(DONE).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body))


def _not_gzip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd")


@pytest.mark.parametrize(
    ("answer", "reason"),
    few_of(
        [
            (lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), "the answer is not HTTP"),
            (_chunked_without_end, "200: the body ended early"),
            (_not_gzip, "200: the body cannot be decompressed"),
        ]
    ),
    ids=["not HTTP", "chunks without an end", "not gzip"],
)
def test_what_is_hardly_http_is_unreachable(
    sandbox: Sandbox, pipeline: dlt.Pipeline, answer: Callable[[socket.socket], None], reason: str
) -> None:
    with RawServer(answer) as server:
        credentials: dict[str, Any] = {"access_token": "t", "client_id": None, "client_secret": None}
        load(pipeline, sandbox, [BAD], base_url=server.base_url, **credentials)
    assert row_of(pipeline)[:3] == ("unreachable", reason, 10)


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 30
    while any(thread.name.startswith(("further-", "request-deadlines")) for thread in threading.enumerate()):
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.01)


def test_the_next_run_asks_for_the_bad_one_alone(sandbox: Sandbox, make_pipeline: MakePipeline) -> None:
    serve_good(sandbox)
    sandbox.add(*BAD, error(500))
    load(make_pipeline(), sandbox)
    sandbox.add(*BAD, DONE)
    before = len(sandbox.requests)
    load(make_pipeline(), sandbox)
    assert [record.workflow_execution_id for record in sandbox.requests[before:]] == [None, BAD[1]]
    assert row_of(make_pipeline()) == ("completed", None, 1, "completed")
    assert_neighbours_are_intact(make_pipeline())
