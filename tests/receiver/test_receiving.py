"""What a running receiver acknowledges is in the inbox, whatever else reaches it."""

import gzip
import hashlib
import json
import os
import resource
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import dlt
import pytest
import requests

from further_source import run_in_slices
from further_source.command.main import main
from tests.inbox.conftest import MakeWebhooks
from tests.inbox.conftest import inbox as _inbox
from tests.inbox.conftest import webhooks as _webhooks
from tests.support.command import HANG
from tests.support.deliveries import failing, files, inline, outcomes
from tests.support.disks import small_disk_at
from tests.support.receiving import BY_KEY, COMMAND, KEY, Receiver, leftovers, quarantined, wait_until, waits

inbox, webhooks = _inbox, _webhooks


@pytest.fixture
def receiver(inbox: Path) -> Iterator[Receiver]:
    with Receiver(inbox) as started:
        yield started


def test_what_is_stored_is_what_came_and_is_loaded(
    receiver: Receiver, inbox: Path, webhooks: MakeWebhooks, pipeline: dlt.Pipeline
) -> None:
    body = json.dumps(inline("a"), indent=1).encode()
    assert receiver.post(body).status_code == 202
    assert receiver.post(failing("b"), path="behind/a/proxy").status_code == 202
    packed = gzip.compress(json.dumps(inline("c")).encode())
    assert receiver.post(packed, {**KEY, "Content-Encoding": "gzip"}).status_code == 202

    stored = waits(inbox)
    assert [file.read_bytes() for file in stored][::2] == [body, packed]
    assert hashlib.sha256(body).hexdigest()[:32] in stored[0].name
    assert receiver.metric('further_deliveries_total{outcome="stored"}') == 3
    assert receiver.metric("further_inbox_files") == 3
    assert receiver.metric("further_inbox_oldest_seconds") < HANG
    run_in_slices(pipeline, webhooks())

    assert outcomes(pipeline) == {"a": "completed", "b": "failed", "c": "completed"}
    assert receiver.metric("further_inbox_files") == 0
    assert receiver.get("healthz").status_code == 200


def test_only_a_wrong_key_is_refused_and_two_are_taken_while_they_are_rotated(inbox: Path) -> None:
    wrong: list[dict[str, str]] = [{}, {"X-Key": "old"}, {"X-Key": ""}, {"Authorization": "Bearer correct horse"}]
    with Receiver(inbox, *BY_KEY, "--api-key", "next") as receiver:
        assert [receiver.post(inline("a"), headers).status_code for headers in wrong] == [401] * len(wrong)
        assert waits(inbox) == []
        assert [receiver.post(inline(key), {"X-Key": key}).status_code for key in ("correct horse", "next")] == [
            202
        ] * 2


def test_what_is_no_delivery_is_kept_in_quarantine_and_never_refused(inbox: Path) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    path_trick = json.dumps({**inline("a"), "workflow_id": "../../../etc"}).encode()
    large = b'{"large": "' + b"x" * 60_000 + b'"}'
    bodies = {b"": "", b"no JSON": "", b"[]": "", path_trick: "", large: ""}
    with Receiver(inbox, *BY_KEY, "--max-bytes", "50000", "--hard-max-bytes", "100000") as receiver:
        for body in bodies:
            assert receiver.post(body).status_code == 202
        for encoding, body in (
            ("gzip", bomb),
            ("deflate", zlib.compress(b"{}")),
            ("gzip", b"{ not gzip"),
            ("../x", b"{}"),
        ):
            bodies[body] = encoding
            assert receiver.post(body, {**KEY, "Content-Encoding": encoding}).status_code == 202
        assert receiver.post(b"x" * 100_001).status_code == 413
        assert requests.post(receiver.url, data=iter([b"x" * 60_000] * 2), headers=KEY, timeout=HANG).status_code == 413
        assert receiver.post(inline("../../b"), path="..%2f..%2fx").status_code == 202
        bodies[json.dumps(inline("../../b")).encode()] = ""
        assert receiver.metric('further_deliveries_total{outcome="quarantined"}') == len(bodies)

    assert waits(inbox) == []
    assert leftovers(inbox) == []
    kept = quarantined(inbox)
    assert kept.keys() == bodies.keys()
    assert "--max-bytes" in kept[large]
    assert "unpacked" in kept[bomb]
    assert "not gzip" in kept[b"{ not gzip"]
    assert {file.split("/")[0] for file in files(inbox.parent)} <= {"inbox", "dlt"}


@pytest.mark.slow
def test_stalled_clients_keep_nobody_else_waiting_and_are_let_go(inbox: Path) -> None:
    begun = b"POST / HTTP/1.1\r\nHost: x\r\nX-Key: correct horse\r\nContent-Length: 100\r\n\r\n{"
    with Receiver(inbox, *BY_KEY, "--body-timeout", "3") as receiver:
        stalled = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(200)]
        for client in stalled[:150]:
            client.sendall(begun)  # the others send no head
        with ThreadPoolExecutor(20) as clients:
            answers = [*clients.map(lambda number: receiver.post(inline(f"e{number}")).status_code, range(100))]
        answered = []
        for client in stalled[:150]:
            client.settimeout(HANG)
            answered.append(client.recv(1000))
            client.close()
        for client in stalled[150:]:
            client.close()
        assert receiver.metric('further_deliveries_total{outcome="timeout"}') == 150

    assert answers == [202] * 100
    assert len(waits(inbox)) == 100
    assert all(answer.startswith(b"HTTP/1.1 503 ") and b"retry-after:" in answer for answer in answered)


@pytest.mark.slow
def test_too_many_at_once_are_to_come_again(inbox: Path) -> None:
    begun = b"POST / HTTP/1.1\r\nHost: x\r\nX-Key: correct horse\r\nContent-Length: 100\r\n\r\n{"
    with Receiver(inbox, *BY_KEY, "--max-concurrency", "1") as receiver:
        with socket.create_connection(("127.0.0.1", receiver.port)) as client:
            client.sendall(begun)
            wait_until(lambda: receiver.post(inline("a")).status_code == 503)
            assert receiver.post(inline("a")).headers["Retry-After"]
        wait_until(lambda: receiver.post(inline("a")).status_code == 202)
        assert receiver.metric('further_deliveries_total{outcome="disconnected"}') == 1


def test_every_acknowledged_delivery_survives_a_kill(inbox: Path) -> None:
    acknowledged: list[bytes] = []
    some = threading.Event()

    def deliver(receiver: Receiver, number: int) -> None:
        body = json.dumps(inline(f"e{number}", {"text": "x" * 100_000})).encode()
        try:
            if receiver.post(body).status_code == 202:
                acknowledged.append(body)
        except requests.RequestException:
            return
        if len(acknowledged) >= 60:
            some.set()

    with Receiver(inbox) as receiver, ThreadPoolExecutor(16) as clients:
        for number in range(200):
            clients.submit(deliver, receiver, number)
        assert some.wait(HANG)
        receiver.process.kill()
    assert 60 <= len(acknowledged) < 200
    stored = [file.read_bytes() for file in waits(inbox)]
    assert set(acknowledged) <= set(stored)
    assert all(json.loads(body)["status"] == "completed" for body in stored)
    (inbox / ".0123-1.part").write_bytes(b"of a receiver that runs")
    with Receiver(inbox) as again:
        assert leftovers(inbox) == [".0123-1.part"]
        assert again.post(inline("after")).status_code == 202


def limit_of_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_where_nothing_can_be_written_deliveries_are_to_come_again(inbox: Path) -> None:
    large = inline("large", {"text": "x" * 60_000})
    with Receiver(inbox, preexec=limit_of_file_size) as receiver:
        answer = receiver.post(large)
        assert receiver.post(inline("small")).status_code == 202
        assert receiver.metric('further_deliveries_total{outcome="storage"}') == 1
        code, told = receiver.stop()

    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert code == 0
    assert "cannot be written to: file too large" in told
    assert len(waits(inbox)) == 1
    assert leftovers(inbox) == []


@pytest.fixture
def small_disk(inbox: Path) -> Iterator[Path]:
    with small_disk_at(inbox, "256k"):
        yield inbox


def test_a_full_disk_is_waited_for(small_disk: Path) -> None:
    with Receiver(small_disk) as receiver:
        answers = [receiver.post(inline(f"e{number}", {"text": "x" * 20_000})).status_code for number in range(20)]
        filling = small_disk / "fill"
        with filling.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        assert receiver.get("healthz").status_code == 503
        filling.unlink()
        for stored in waits(small_disk)[:5]:
            stored.unlink()
        assert receiver.get("healthz").status_code == 200
        assert receiver.post(inline("again")).status_code == 202

    assert answers.count(202) + answers.count(503) == 20
    assert answers.count(503) >= 1
    assert len(waits(small_disk)) == answers.count(202) - 5 + 1
    assert leftovers(small_disk) == []


def test_what_is_arriving_is_received_before_it_stops(receiver: Receiver, inbox: Path) -> None:
    body = json.dumps(inline("late")).encode()
    head = f"POST / HTTP/1.1\r\nHost: x\r\nX-Key: correct horse\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", receiver.port)) as client:
        client.sendall(head + body[:10])
        time.sleep(0.5)
        receiver.process.terminate()
        wait_until(lambda: not _listens(receiver.port))
        client.sendall(body[10:])
        client.settimeout(HANG)
        assert client.recv(1000).startswith(b"HTTP/1.1 202 ")
    assert receiver.process.wait(HANG) == 0
    assert [file.read_bytes() for file in waits(inbox)] == [body]
    assert [file for file in os.listdir(inbox) if file.startswith(".")] == []


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], ["--api-key"]),
        (["--api-key", "x"], ["--api-key-header", "missing"]),
        (["--api-key-header", "X-Key"], ["--api-key", "missing"]),
        (["--api-key-header", "X Key", "--api-key", "x"], ["--api-key-header 'X Key'"]),
        ([*BY_KEY, "--accept-from-anyone"], ["only one"]),
        ([*BY_KEY, "--host", "0.0.0.0"], ["--host '0.0.0.0'", "--behind-tls"]),
        ([*BY_KEY, "--hard-max-bytes", "10"], ["--hard-max-bytes", "--max-bytes"]),
        ([*BY_KEY, "--body-timeout", "0"], ["--body-timeout"]),
        ([*BY_KEY, "--inbox", "nowhere"], ["--inbox 'nowhere'"]),
        (["--issuer", "i", "--audience", "a"], ["--jwks-url"]),
        (["--issuer", "i", "--audience", "a", "--jwks-url", "http://idp.example/keys"], ["--jwks-url", "https"]),
        (["--issuer", "i", "--audience", "a", "--jwks-url", "https://x/", "--algorithm", "HS256"], ["HS256"]),
        (["--issuer", "i", "--audience", "a", "--jwks-url", "https://x/", "--algorithm", "none"], ["'none'"]),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    inbox: Path, capsys: pytest.CaptureFixture[str], options: list[str], named: list[str]
) -> None:
    code = _exit_code(["receive", "--inbox", str(inbox), *options])

    told = capsys.readouterr().err
    assert code == 2
    [line] = told.splitlines()
    assert all(name in line for name in named), line
    assert files(inbox) == []


def _exit_code(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code


def test_the_environment_gives_what_should_not_be_seen(inbox: Path) -> None:
    variables = {"INBOX": str(inbox), "API_KEY_HEADER": "X-Key", "API_KEY": "one", "API_KEY_2": "two"}
    environment = {**os.environ, **{f"FURTHER_RECEIVER_{name}": value for name, value in variables.items()}}
    with subprocess.Popen(
        [*COMMAND, "--port", "0"], stdout=subprocess.PIPE, encoding="utf-8", env=environment
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split(" on ")[1].split()[0]
        answers = [
            requests.post(url, json=inline(key), headers={"X-Key": key}, timeout=HANG).status_code
            for key in ("one", "two", "three")
        ]
        process.terminate()

    assert answers == [202, 202, 401]
