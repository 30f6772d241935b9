"""The API: a token, a path, one request, one outcome.

Nothing here retries or sleeps. Whatever the network or the API does becomes an outcome (`polling.outcomes`), never an
exception.
"""

import email.utils
import json
import math
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import requests

from further_source import jsontext
from further_source.api.spellings import blotted_out
from further_source.api.transport import (
    MAX_ERROR_BODY,
    MAX_REQUEST_TIMEOUT,
    HttpAnswer,
    NoAnswer,
    Transport,
    is_loopback,
)
from further_source.exceptions import ConfigurationError
from further_source.executions import ExecutionId
from further_source.polling.outcomes import (
    Answered,
    Failure,
    Outcome,
    Refused,
    Throttled,
    Token,
    TokenOutcome,
    Unauthorized,
)
from further_source.settings import (
    EXECUTION_PATH,
    ID_PATTERN,
    MAX_ANSWER_BYTES,
    MAX_RETRY_AFTER,
    TOKEN_LEEWAY_MAX,
    TOKEN_LEEWAY_SHARE,
    TOKEN_PATH,
)
from further_source.text import printable, shortened

__all__ = ["Client", "ClientCredentials", "StaticToken", "check_base_url"]

_MAX_ERROR_TEXT = 300  # characters
_ASK_AGAIN = frozenset({408, 425})
_SENDABLE_TOKEN = re.compile(r"[!-~\xa1-\xff]+")  # no control characters, no spaces, Latin-1


@dataclass(frozen=True)
class StaticToken:
    """A bearer token obtained elsewhere. It cannot be renewed."""

    access_token: str = field(repr=False)


@dataclass(frozen=True)
class ClientCredentials:
    """Id and secret of an OAuth2 client, for which the API gives tokens."""

    client_id: str = field(repr=False)
    client_secret: str = field(repr=False)


def check_base_url(url: str) -> str:
    """The URL without its trailing slash, its scheme and host in lower case.

    Raises:
        ConfigurationError: The URL is no http(s) URL with a host, or has a user, a password, a query or a fragment,
            or is an `http://` URL of another machine. The message does not show the URL, because it may hold a
            password.
    """
    url = url.strip() if isinstance(url, str) else ""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # a bad port or IPv6 address
        raise ConfigurationError("base_url has a host or a port that cannot be one") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigurationError("base_url must be an http:// or https:// URL with a host")
    if "@" in parts.netloc:
        raise ConfigurationError("base_url must not hold a user name or password")
    if "?" in url or "#" in url:
        raise ConfigurationError("base_url must not have a query or a fragment")
    if port == 0 or not url.isprintable() or " " in url or "\\" in url or not _is_host(parts.scheme, host):
        raise ConfigurationError("base_url has a host or a port that cannot be one, or stray characters")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError("base_url must be https://: over http:// the token would go out in clear")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def _is_host(scheme: str, host: str) -> bool:
    netloc = f"[{host}]" if ":" in host else host
    try:
        requests.Request("GET", f"{scheme}://{netloc}").prepare()
        host.encode("idna")
    except (requests.RequestException, ValueError):
        return False
    return True


class Client:
    """Asks the API, one HTTP request per call. Safe to call from `max_workers` threads at once.

    Attributes:
        token: The static token, or None where one must be asked for.
        renewable: Whether `request_token` can be called.
    """

    def __init__(
        self,
        base_url: str,
        credentials: StaticToken | ClientCredentials,
        *,
        request_timeout: float = 60,
        max_workers: int = 8,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Sends nothing yet.

        Args:
            base_url: As `check_base_url` takes it. If it has a path, the API's paths are appended to that.
            credentials: A token, or what to get one with.
            request_timeout: Seconds from the start of a request to the last byte of its answer.
            max_workers: How many connections are kept open for reuse.
            max_answer_bytes: How large an answer may be, inflated; a larger one is `invalid`.
            clock: Gives seconds; when a token expires is told on this clock.

        Raises:
            ConfigurationError: The base URL, the static token or a number has a value that cannot work.
        """
        if not 0 < request_timeout <= MAX_REQUEST_TIMEOUT:
            raise ConfigurationError("request_timeout must be above 0, and a day (86400 s) at most")
        if not max_answer_bytes >= 1:
            raise ConfigurationError("max_answer_bytes must be at least 1")
        base_url = check_base_url(base_url)
        self._credentials = credentials
        self._clock = clock
        self._http = Transport(base_url, request_timeout, max_workers, max_answer_bytes)
        self.renewable = isinstance(credentials, ClientCredentials)
        self.token: Token | None = None
        if isinstance(credentials, StaticToken):
            if not _SENDABLE_TOKEN.fullmatch(credentials.access_token):
                raise ConfigurationError("access_token is empty, or has characters no token can have")
            self.token = Token(credentials.access_token)

    def get_execution(self, execution: ExecutionId, token: Token) -> Outcome:
        """Asks once for an execution.

        Raises:
            ValueError: The caller gave ids or a token that cannot be sent.
        """
        if not all(re.fullmatch(ID_PATTERN, part) for part in execution):
            raise ValueError("not an id of a workflow or an execution")
        if not _SENDABLE_TOKEN.fullmatch(token.value):
            raise ValueError("the token has characters no token can have")
        workflow_id, execution_id = execution
        path = EXECUTION_PATH.format(workflow_id=workflow_id, execution_id=execution_id)
        answer = self._http.exchange("GET", path, {"Authorization": f"Bearer {token.value}"})
        tell = _Teller(secrets=(token.value, *self._secrets()))
        if isinstance(answer, NoAnswer):
            return Failure(tell(answer.reason))
        return _execution_outcome(answer, execution, tell)

    def request_token(self) -> TokenOutcome:
        """Asks once for a new token. It should be renewed once a tenth of its life is left, 60 s at most.

        Raises:
            RuntimeError: The client has a static token, see `renewable`.
        """
        if not isinstance(self._credentials, ClientCredentials):
            raise RuntimeError("a static token cannot be renewed")
        asked_at = self._clock()
        body = {"client_id": self._credentials.client_id, "client_secret": self._credentials.client_secret}
        headers = {"Content-Type": "application/json"}
        answer = self._http.exchange("POST", TOKEN_PATH, headers, json.dumps(body).encode())
        tell = _Teller(secrets=self._secrets(), prefix="token endpoint: ")
        if isinstance(answer, NoAnswer):
            return Failure(tell(answer.reason))
        return _token_outcome(answer, asked_at, tell)

    def close(self) -> None:
        """Closes the connections. Requests under way are cut short; their outcome is a `Failure`."""
        self._http.close()

    def _secrets(self) -> tuple[str, ...]:
        if isinstance(self._credentials, StaticToken):
            return (self._credentials.access_token,)
        return (self._credentials.client_secret,)


# What answers mean


def _execution_outcome(answer: HttpAnswer, execution: ExecutionId, tell: "_Teller") -> Outcome:
    status = answer.status
    if 200 <= status < 300:
        return _read_execution(answer, execution, tell)
    if 300 <= status < 400:
        return Refused("invalid", _tell_redirect(answer, tell))
    error = _tell_error(answer, tell)
    if status == 401:
        return Unauthorized(error)
    if status == 429:
        return Throttled(error, _retry_after(answer))
    if status in _ASK_AGAIN or not 400 <= status < 500:
        return Failure(error)
    return Refused({403: "forbidden", 404: "not_found"}.get(status, "rejected"), error)


def _token_outcome(answer: HttpAnswer, asked_at: float, tell: "_Teller") -> TokenOutcome:
    status = answer.status
    if 200 <= status < 300:
        return _read_token(answer, asked_at, tell)
    if 300 <= status < 400:
        return Unauthorized(_tell_redirect(answer, tell))
    error = _tell_error(answer, tell)
    if status == 429:
        return Throttled(error, _retry_after(answer))
    if status in _ASK_AGAIN or not 400 <= status < 500:
        return Failure(error)
    return Unauthorized(error)


def _read_execution(answer: HttpAnswer, execution: ExecutionId, tell: "_Teller") -> Outcome:
    if answer.is_too_large:
        return Refused("invalid", tell(f"{answer.status}: {answer.broken}"))
    try:
        payload = _read_json(answer, unread="steps")
    except ValueError as error:
        if answer.broken:
            return Failure(tell(str(error)))
        # A body that is no JSON, such as a proxy's error page, tells most by its first characters.
        is_like_json = answer.body.lstrip()[:1] in (b"{", b"[")
        shown, is_cut = ("", False) if is_like_json else _excerpt(answer.body)
        how = "not JSON" if answer.body.strip() else "empty"  # wherever it is that the JSON ends
        return Failure(tell(str(error), shown, is_cut=is_cut), unreadable=f"{answer.status}: {how}")
    if not isinstance(payload, dict):
        return Refused("invalid", tell(f"{answer.status}: the answer is no JSON object"))
    status = payload.get("status")
    if not isinstance(status, str):
        return Refused("invalid", tell(f"{answer.status}: the answer has no text `status`"))
    answered = {key: payload[key] for key in execution._fields if payload.get(key) is not None}
    if not answered:
        return Refused("invalid", tell(f"{answer.status}: the answer has none of the ids that were asked for"))
    for key, value in answered.items():
        if value != getattr(execution, key):
            text = f"{answer.status}: the answer is for another {key}"
            return Refused("invalid", tell(text, jsontext.dumps(value)))
    return Answered(status, payload, len(answer.body))


def _read_token(answer: HttpAnswer, asked_at: float, tell: "_Teller") -> TokenOutcome:
    try:
        payload = _read_json(answer)
    except ValueError as error:
        return Failure(tell(str(error)))  # the body is not shown: it could hold a token
    value = payload.get("access_token") if isinstance(payload, dict) else None
    if not isinstance(value, str) or not value:
        return Failure(tell(f"{answer.status}: the answer has no `access_token`"))
    if not _SENDABLE_TOKEN.fullmatch(value):
        return Failure(tell(f"{answer.status}: the `access_token` has characters no token can have"))
    life = _seconds(payload.get("expires_in"))
    if life is None:
        return Token(value)
    expires_at = asked_at + life
    return Token(value, expires_at - min(TOKEN_LEEWAY_MAX, life * TOKEN_LEEWAY_SHARE), expires_at)


def _seconds(value: Any) -> float | None:
    seconds = jsontext.number_of(value)
    return seconds if seconds is not None and seconds > 0 else None


def _read_json(answer: HttpAnswer, unread: str | None = None) -> Any:
    """The body parsed as JSON, whatever its content type; a ValueError tells the user why it cannot be."""
    if answer.broken:
        raise ValueError(f"{answer.status}: {answer.broken}")
    if not answer.body.strip():
        raise ValueError(f"{answer.status}: the body is empty")
    try:
        return jsontext.loads(answer.body, unread=unread)
    except ValueError as error:
        raise ValueError(f"{answer.status}: the body is {error}") from None


def _tell_redirect(answer: HttpAnswer, tell: "_Teller") -> str:
    location = answer.headers.get("Location", "")
    try:
        parts = urlsplit(location)
    except ValueError:
        target = ""
    else:
        # Without user and query: these may hold secrets, and the text ends up in a table.
        host = parts.netloc.rpartition("@")[2]
        target = f"{parts.scheme}://{host}{parts.path}" if host else parts.path
    return tell(f"answered with a redirect ({answer.status}), redirects are not followed", target)


def _tell_error(answer: HttpAnswer, tell: "_Teller") -> str:
    if answer.broken:  # half a body could end with half a secret, which nothing would find
        return tell(f"{answer.status}: {answer.broken}")
    if detail := _detail(answer.body):
        return tell(str(answer.status), detail)
    excerpt, is_cut = _excerpt(answer.body)
    return tell(str(answer.status), excerpt, is_cut=is_cut)


def _detail(body: bytes) -> str:
    """The text in the API's error body: its `detail` is a text or, for a 422, a list of `loc` and `msg`."""
    try:
        payload = jsontext.loads(body)
    except ValueError:
        return ""
    detail = payload.get("detail") if isinstance(payload, dict) else None
    if isinstance(detail, str):
        return detail
    entries = [entry for entry in detail if isinstance(entry, dict)] if isinstance(detail, list) else []
    return "; ".join(text for text in map(_detail_entry, entries) if text)


def _detail_entry(entry: dict[str, Any]) -> str:
    loc, msg = entry.get("loc"), entry.get("msg")
    where = ".".join(str(part) for part in loc if isinstance(part, (str, int))) if isinstance(loc, list) else ""
    return ": ".join(part for part in (where, msg) if isinstance(part, str) and part)


def _excerpt(body: bytes) -> tuple[str, bool]:
    """The beginning of a body as text, and whether it may be cut."""
    return body[:MAX_ERROR_BODY].decode("utf-8", "replace").strip(), len(body) >= MAX_ERROR_BODY


def _retry_after(answer: HttpAnswer) -> float | None:
    """The seconds to wait by `Retry-After`, which holds either seconds or an HTTP date; None without one."""
    text = answer.headers.get("Retry-After", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(text)
        except (TypeError, ValueError, IndexError, OverflowError):
            return None
        when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
        seconds = (when - datetime.now(timezone.utc)).total_seconds()
    return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER)


class _Teller:
    """Makes error texts fit for a table and a terminal: one line, short, nothing secret."""

    def __init__(self, secrets: Iterable[str], prefix: str = "") -> None:
        self._secrets = tuple(secret for secret in secrets if secret)
        self._prefix = prefix

    def __call__(self, ours: str, theirs: str = "", *, is_cut: bool = False) -> str:
        """One line of `ours`, our own words, and `theirs`, which the API said and which may echo a secret.

        Args:
            is_cut: Whether `theirs` was cut, perhaps in the middle of a secret.
        """
        # Before the text is made shorter: its end could be the beginning of a secret.
        theirs = blotted_out(self._secrets, theirs, is_cut=is_cut) if theirs else ""
        text = f"{self._prefix}{ours}: {theirs}" if theirs else self._prefix + ours
        return shortened(printable(text[: _MAX_ERROR_TEXT + 1]), _MAX_ERROR_TEXT)
