"""Who may deliver: whoever has a key, or a bearer token of the identity provider; or anyone."""

import hashlib
import hmac
import math
import re
import threading
import time
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

import jwt
from starlette.datastructures import Headers

from further_source.exceptions import ConfigurationError
from further_source.text import shown, shown_url

__all__ = ["ALGORITHMS", "Anyone", "ApiKeys", "Authentication", "BearerTokens", "Unavailable"]

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those with a public key: with a shared secret, whoever can verify a token can make one."""

_KEYS_SECONDS = 300
_FETCH_SECONDS = 5
_REFRESH_SECONDS = 30  # so often at most for a key that is not known; unknown ones cost anybody nothing to send
_LEEWAY_SECONDS = 30  # between two clocks
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_is_header_name = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch


class Unavailable(Exception):
    """It cannot be told now who this is: the keys of the identity provider cannot be had."""


class Authentication(Protocol):
    """Tells who may deliver."""

    def allows(self, headers: Headers) -> bool:
        """Whether a delivery with these headers is taken. May block.

        Raises:
            Unavailable: That cannot be told now.
        """


class Anyone:
    """Takes the deliveries of anyone."""

    def allows(self, headers: Headers) -> bool:
        return True


class ApiKeys:
    """Takes deliveries with one of some keys in a header.

    Raises:
        ConfigurationError: No header can have this name, or a key is empty.
    """

    def __init__(self, header: str, keys: Sequence[str]) -> None:
        if not _is_header_name(header):
            raise ConfigurationError(f"--api-key-header {shown(header)}: no header can have this name")
        if not keys or not all(key.strip() for key in keys):
            raise ConfigurationError("--api-key is empty")
        self._header = header
        self._keys = [_digest(key.strip().encode("utf-8", "surrogateescape")) for key in keys]

    def allows(self, headers: Headers) -> bool:
        sent = _digest(headers.get(self._header, "").strip().encode("latin-1"))
        # Each is compared, so that the time tells nothing.
        return sum(hmac.compare_digest(sent, key) for key in self._keys) > 0


class BearerTokens:
    """Takes deliveries with a JWT that the identity provider signed for us.

    Raises:
        ConfigurationError: An algorithm has no public key, or the URL is not https.
    """

    def __init__(self, *, issuer: str, audience: str, jwks_url: str, algorithms: Sequence[str]) -> None:
        for algorithm in algorithms:
            if algorithm not in ALGORITHMS:
                raise ConfigurationError(f"--algorithm {shown(algorithm)}: it must be one of {', '.join(ALGORITHMS)}")
        url = urlsplit(jwks_url)
        if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
            raise ConfigurationError(f"--jwks-url {shown_url(jwks_url)}: it must begin with https://")
        self._issuer = issuer
        self._audience = audience
        self._algorithms = [*algorithms]
        self._keys = jwt.PyJWKClient(jwks_url, lifespan=_KEYS_SECONDS, timeout=_FETCH_SECONDS)
        self._refreshing = threading.Lock()
        self._refreshed_at = -math.inf

    def allows(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        token = token.strip()
        try:
            head = jwt.get_unverified_header(token)
            if head.get("alg") not in self._algorithms:
                return False  # before keys are fetched for it
            key = self._key(head.get("kid"))
            if key is None:
                return False
            jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError:
            return False
        return True

    def _key(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key with an id; None where the identity provider has none."""
        keys = self._fetched()
        if key_id is None:
            return keys[0] if len(keys) == 1 else None
        if key := self._keys.match_kid(keys, key_id):
            return key
        with self._refreshing:
            now = time.monotonic()
            if now - self._refreshed_at < _REFRESH_SECONDS:
                raise Unavailable("its key is not known, and keys were fetched just now")
            self._refreshed_at = now
            return self._keys.match_kid(self._fetched(refresh=True), key_id)

    def _fetched(self, *, refresh: bool = False) -> list[jwt.PyJWK]:
        try:
            return self._keys.get_signing_keys(refresh=refresh)
        except (jwt.PyJWTError, ValueError, OSError):
            raise Unavailable("the keys of the identity provider cannot be fetched") from None


def _digest(key: bytes) -> bytes:
    """Of one length, whatever the key's is."""
    return hashlib.sha256(key).digest()
