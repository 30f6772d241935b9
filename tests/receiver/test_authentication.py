"""Bearer tokens are verified with the keys of the identity provider; real keys, real HTTP."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.inbox.conftest import inbox as _inbox
from tests.support.deliveries import inline
from tests.support.receiving import Receiver, waits

inbox = _inbox

OURS = {"iss": "https://idp.example", "aud": "further-inbox"}
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class IdentityProvider:
    """Serves public keys; `answer` is what it answers, `asked` how often it was asked."""

    def __init__(self) -> None:
        provider = self
        self.asked = 0
        self.status = 200
        self.answer: Any = {"keys": [_public(PRIVATE, "one")]}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                body = json.dumps(provider.answer).encode()
                self.send_response(provider.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _public(key: rsa.RSAPrivateKey, key_id: str) -> dict[str, Any]:
    public: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**public, "kid": key_id, "use": "sig"}


def token(key: Any = PRIVATE, algorithm: str = "RS256", key_id: str | None = "one", **claims: Any) -> str:
    content = {**OURS, "exp": time.time() + 600, **claims}
    content = {name: value for name, value in content.items() if value is not None}
    return jwt.encode(content, key, algorithm=algorithm, headers={"kid": key_id} if key_id else None)


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    started = IdentityProvider()
    yield started
    started.close()


@pytest.fixture
def receiver(inbox: Path, provider: IdentityProvider) -> Iterator[Receiver]:
    options = ("--issuer", OURS["iss"], "--audience", OURS["aud"], "--jwks-url", provider.url)
    with Receiver(inbox, *options) as started:
        yield started


def deliver(receiver: Receiver, bearer: str) -> int:
    return receiver.post(inline("a"), {"Authorization": bearer}).status_code


def test_only_a_token_that_was_signed_for_us_is_taken(
    receiver: Receiver, provider: IdentityProvider, inbox: Path
) -> None:
    good = token()
    head, _, signature = good.split(".")
    forged = f"{head}.{jwt.encode({**OURS, 'exp': 9e9}, PRIVATE, 'RS256').split('.')[1]}.{signature}"
    public_as_secret = "not the key, but a secret of its own length, for HMAC"
    refused = {
        "no token": "",
        "another scheme": f"Basic {good}",
        "no JWT": "Bearer correct horse",
        "unsigned": f"Bearer {head}.{good.split('.')[1]}.",
        "alg none": f"Bearer {token(None, 'none')}",
        "a shared secret": f"Bearer {token(public_as_secret, 'HS256')}",
        "an algorithm that is not listed": f"Bearer {token(algorithm='RS512')}",
        "other claims": f"Bearer {forged}",
        "another key under the same id": f"Bearer {token(OTHER)}",
        "expired": f"Bearer {token(exp=time.time() - 60)}",
        "no expiry": f"Bearer {token(exp=None)}",
        "not valid yet": f"Bearer {token(nbf=time.time() + 600)}",
        "another issuer": f"Bearer {token(iss='https://other.example')}",
        "another audience": f"Bearer {token(aud='other')}",
        "no audience": f"Bearer {token(aud=None)}",
    }

    answers = {name: deliver(receiver, bearer) for name, bearer in refused.items()}

    assert answers == dict.fromkeys(refused, 401)
    assert waits(inbox) == []
    assert deliver(receiver, f"Bearer {good}") == 202
    assert deliver(receiver, f"bearer {token(key_id=None)}") == 202
    assert provider.asked == 1
    assert len(waits(inbox)) == 2


def test_a_new_key_is_fetched_and_unknown_ones_do_not_make_it_ask_each_time(
    receiver: Receiver, provider: IdentityProvider
) -> None:
    assert deliver(receiver, f"Bearer {token()}") == 202
    provider.answer = {"keys": [_public(PRIVATE, "one"), _public(OTHER, "two")]}
    assert deliver(receiver, f"Bearer {token(OTHER, key_id='two')}") == 202
    # It cannot be told just now whether there is such a key.
    assert [deliver(receiver, f"Bearer {token(OTHER, key_id='three')}") for _ in range(5)] == [503] * 5
    assert provider.asked == 2


def test_where_the_identity_provider_is_out_deliveries_are_to_come_again(
    receiver: Receiver, provider: IdentityProvider, inbox: Path
) -> None:
    good = provider.answer
    outages: list[tuple[int, Any]] = [(500, {}), (302, {}), (200, []), (200, {"keys": []}), (200, {"x": 1})]
    for status, answer in outages:
        provider.status, provider.answer = status, answer
        refused = receiver.post(inline("a"), {"Authorization": f"Bearer {token()}"})
        assert refused.status_code == 503, answer
        assert refused.headers["Retry-After"]
    assert waits(inbox) == []

    provider.status, provider.answer = 200, good
    assert deliver(receiver, f"Bearer {token()}") == 202


def test_a_key_is_never_told(inbox: Path) -> None:
    secret = "correct-horse-battery"
    with Receiver(inbox, "--api-key-header", "X-Key", "--api-key", secret) as receiver:
        answers = [receiver.post(inline("a"), {"X-Key": key}).text for key in (secret, "wrong")]
        told = [*answers, receiver.get("metrics").text, receiver.get("healthz").text, receiver.stop()[1]]

    assert not any(secret in text for text in told)
