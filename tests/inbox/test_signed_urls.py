"""Which URLs are fetched, how far, and that nothing of ours goes out and nothing of theirs is told."""

from collections.abc import Iterator

import pytest

from further_source import ConfigurationError
from further_source.inbox.signed_urls import SignedUrls, UrlError, check_hosts
from further_source.sandbox import Reply, Sandbox
from further_source.settings import DELIVERY_HOSTS


@pytest.fixture
def urls() -> Iterator[SignedUrls]:
    fetches = SignedUrls(("127.0.0.1",), request_timeout=5, max_workers=2, max_bytes=1000)
    yield fetches
    fetches.close()


def refused(urls: SignedUrls, url: str) -> str:
    with pytest.raises(UrlError) as raised:
        urls.fetch(url)
    assert "SECRET" not in str(raised.value)
    return str(raised.value)


def test_what_is_behind_it_is_fetched_and_nothing_of_ours_is_sent(sandbox: Sandbox, urls: SignedUrls) -> None:
    assert urls.fetch(sandbox.sign({"data": []})) == b'{"data":[]}'

    [request] = sandbox.requests
    assert request.headers.keys() == {"host", "accept", "accept-encoding", "user-agent"}


def test_the_signature_is_sent_as_it_came(sandbox: Sandbox, urls: SignedUrls) -> None:
    refused(urls, f"{sandbox.base_url}/extraction/x%20y.json?se=2026-01-01T00%3A00%3A00Z&sig=a%2Bb%2F%3D~%7e&SECRET")

    [request] = sandbox.requests
    assert request.path == "/extraction/x%20y.json?se=2026-01-01T00%3A00%3A00Z&sig=a%2Bb%2F%3D~~&SECRET"


# Only hosts below blob.core.windows.net are allowed. None of these is connected to: the names do not exist.
NEVER_FETCHED = {
    "another host": "https://example.invalid/x?sig=SECRET",
    "the domain itself": "https://blob.core.windows.net/x?sig=SECRET",
    "a host that only ends like it": "https://evilblob.core.windows.net/x?sig=SECRET",
    "a host that only begins like it": "https://a.blob.core.windows.net.evil.invalid/x?sig=SECRET",
    "the domain as a user": "https://a.blob.core.windows.net@evil.invalid/x?sig=SECRET",
    "the domain after a backslash": "https://evil.invalid\\.blob.core.windows.net/x?sig=SECRET",
    "the domain in the path": "https://evil.invalid/.blob.core.windows.net?sig=SECRET",
    "in clear": "http://a.blob.core.windows.net/x?sig=SECRET",
    "a port": "https://a.blob.core.windows.net:8443/x?sig=SECRET",
    "another scheme": "file://a.blob.core.windows.net/etc/passwd?SECRET",
    "loopback": "http://127.0.0.1:1/x?sig=SECRET",
    "a line break": "https://a.blob.core.windows.net/x\r\nX-Evil: 1?sig=SECRET",
    "a port that is none": "https://a.blob.core.windows.net:x/SECRET",
    "no URL": "SECRET",
    "another alphabet": "https://a.blob.core.windows.net。evil.invalid/x?sig=SECRET",
}


@pytest.mark.parametrize("url", NEVER_FETCHED.values(), ids=NEVER_FETCHED)
def test_nothing_is_asked_of_other_hosts_or_in_clear(url: str) -> None:
    told = refused(SignedUrls(DELIVERY_HOSTS, request_timeout=5, max_workers=1, max_bytes=1000), url)

    assert told.startswith(("its signed URL is not https", "its signed URL has", "the host of its signed URL"))


def test_an_expired_url_a_redirect_and_half_a_body_are_told_without_the_url(sandbox: Sandbox, urls: SignedUrls) -> None:
    target = sandbox.sign({"data": []})
    told = [
        refused(urls, sandbox.sign({}, expires_in=0)),
        refused(urls, sandbox.sign(Reply(302, headers={"Location": target}))),
        refused(urls, sandbox.sign(Reply(body=b'{"data": []}', fault="truncated"))),
        refused(urls, sandbox.sign(Reply(body=b" " * 1001))),
        refused(urls, sandbox.sign(Reply(fault="reset"))),
    ]

    assert told == [
        "its signed URL answered 403",
        "its signed URL answered 302",
        "its signed URL: the body ended early",
        "its signed URL: the answer is larger than max_answer_bytes (1000)",
        "its signed URL: connection reset",
    ]
    assert not any("sig=" in text for text in told)


def test_a_url_that_drips_is_cut_at_the_timeout(sandbox: Sandbox) -> None:
    urls = SignedUrls(("127.0.0.1",), request_timeout=0.3, max_workers=1, max_bytes=1000)

    assert refused(urls, sandbox.sign(Reply(body=b" " * 500, fault="drip", delay=0.05))) == (
        "its signed URL: timed out after 0.3 s"
    )
    urls.close()


@pytest.mark.parametrize("hosts", [["*"], ["https://x"], [""], [7], ["a.*.net"], ["a/b"], None])
def test_hosts_that_cannot_be_one_are_wrong_configuration(hosts: object) -> None:
    with pytest.raises(ConfigurationError, match="delivery_hosts"):
        check_hosts(hosts)


def test_one_host_will_do_for_a_list() -> None:
    assert check_hosts("Storage.example.com") == ("storage.example.com",)
