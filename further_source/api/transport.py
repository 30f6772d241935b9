"""One HTTP exchange with one host, cut at its deadline: no retry, no redirect, no cookie.

The deadline holds for the whole exchange. Timeouts of requests and of sockets hold for one read each, so a server that
sends a byte now and then outlasts them. Therefore a thread watches the time, and shuts the connection down.
"""

import contextlib
import http.client
import io
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from further_source.exceptions import ConfigurationError

__all__ = ["MAX_ERROR_BODY", "MAX_REQUEST_TIMEOUT", "HttpAnswer", "NoAnswer", "Transport", "is_loopback"]

MAX_REQUEST_TIMEOUT = 86_400.0  # seconds; sockets do not take infinity
MAX_ERROR_BODY = 64 * 1024  # bytes that are read of a refusal; only its text is wanted

_PIECE = 64 * 1024  # bytes that are read at once; inflated they may be a thousand times as many


class HttpAnswer(NamedTuple):
    """An HTTP answer. `broken` tells why the body is not whole; None where it is."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    broken: str | None
    is_too_large: bool = False


class NoAnswer(NamedTuple):
    """Why there was no HTTP answer, in our own words and without the URL."""

    reason: str


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Transport:
    """Sends requests to one host, and cuts each at its deadline. Safe to call from `max_workers` threads at once.

    Args:
        base_url: What the paths of requests are appended to.
        request_timeout: Seconds for one whole exchange, body included.
        max_workers: How many connections are kept open for reuse.
        max_answer_bytes: How large an answer may be, inflated.

    Raises:
        ConfigurationError: The environment names a bundle of certificates that does not exist.
    """

    def __init__(self, base_url: str, request_timeout: float, max_workers: int, max_answer_bytes: int) -> None:
        self._base_url = base_url
        self._timeout = request_timeout
        self._max_answer_bytes = max_answer_bytes
        self._watchdog = _Watchdog()
        # An adapter without a session: a session keeps cookies, replaces our Authorization header by what .netrc
        # holds, and handles redirects. dlt's own client is a session too, and sleeps.
        self._adapter = _Adapter(pool_connections=2, pool_maxsize=max_workers, max_retries=0)
        loopback = is_loopback(urlsplit(base_url).hostname or "")
        self._proxies = {} if loopback else get_environ_proxies(base_url)
        self._ca_bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        if self._ca_bundle and not os.path.exists(self._ca_bundle):
            raise ConfigurationError("REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE is set to what does not exist")
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": f"further_source/{_version()}",
        }

    def exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> HttpAnswer | NoAnswer:
        """Sends a request and reads its answer, within `request_timeout`; never raises for what the network does."""
        request = requests.Request(
            method, self._base_url + path, headers={**self._headers, **headers}, data=body
        ).prepare()
        attempt = self._watchdog.start(self._timeout)
        try:
            answer = self._send(request, attempt)
        finally:
            self._watchdog.finish(attempt)
        # An answer that was cut can look whole.
        reason = attempt.cut_because
        if reason and isinstance(answer, HttpAnswer):
            return answer._replace(broken=reason, is_too_large=False)
        return NoAnswer(reason) if reason else answer

    def close(self) -> None:
        self._watchdog.close()
        self._adapter.close()

    def _send(self, request: requests.PreparedRequest, attempt: "_Attempt") -> HttpAnswer | NoAnswer:
        _current.attempt = attempt
        try:
            if attempt.cut_because:
                return NoAnswer(attempt.cut_because)
            response = self._adapter.send(
                request,
                stream=True,
                timeout=self._timeout,
                verify=self._ca_bundle or True,
                proxies=self._proxies,
            )
            return self._read(response, attempt)
        except (
            requests.RequestException,
            HTTPError,
            http.client.HTTPException,
            OSError,
            ValueError,
        ) as error:
            return NoAnswer(self._reason(error))
        finally:
            _current.attempt = None

    def _read(self, response: requests.Response, attempt: "_Attempt") -> HttpAnswer:
        """Reads the body; that of a refusal only as far as its text needs.

        Piece by piece: a small body may inflate to a very large one, which takes its time, and what a length says that
        is declared may never come.
        """
        raw, status = response.raw, response.status_code
        is_refusal = status >= 300
        most = MAX_ERROR_BODY if is_refusal else self._max_answer_bytes + 1
        body = io.BytesIO()  # pieces in a list would be there twice when they are joined
        size, broken = 0, None
        try:
            while size < most and not attempt.cut_because:
                piece = raw.read(min(_PIECE, most - size), decode_content=True)
                if not piece:
                    break
                size += body.write(piece)
            else:
                raw.close()  # there may be more
        except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            broken = self._reason(error)
            raw.close()
        finally:
            raw.release_conn()
        if size == most and not is_refusal:
            broken = f"the answer is larger than max_answer_bytes ({self._max_answer_bytes})"
            return HttpAnswer(status, response.headers, b"", broken, is_too_large=True)
        return HttpAnswer(status, response.headers, body.getvalue(), broken)

    def _reason(self, error: BaseException) -> str:
        causes = list(_causes(error))
        proxy = "proxy: " if any(isinstance(cause, requests.exceptions.ProxyError) for cause in causes) else ""
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return f"{proxy}TLS certificate not accepted: {cause.verify_message}"
        for kinds, reason in _REASONS:
            if any(isinstance(cause, kinds) for cause in causes):
                return proxy + reason.format(timeout=self._timeout)
        for cause in causes:
            if isinstance(cause, OSError) and cause.strerror:
                return proxy + cause.strerror.lower()
        return f"{proxy}request failed ({type(causes[-1]).__name__})"


# The first that fits. In our own words, because the libraries' texts hold URLs and addresses of objects.
_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((socket.gaierror,), "host name not resolved"),
    ((ConnectionRefusedError,), "connection refused"),
    ((http.client.RemoteDisconnected,), "connection closed without an answer"),
    ((ConnectionResetError, BrokenPipeError), "connection reset"),
    ((TimeoutError, urllib3.exceptions.TimeoutError, requests.Timeout), "timed out after {timeout:g} s"),
    ((urllib3.exceptions.IncompleteRead, http.client.IncompleteRead), "the body ended early"),
    ((urllib3.exceptions.DecodeError,), "the body cannot be decompressed"),
    ((ssl.SSLError, urllib3.exceptions.SSLError), "TLS failed"),
    ((requests.exceptions.InvalidProxyURL, requests.exceptions.InvalidSchema), "the proxy cannot be used"),
    ((requests.exceptions.ProxyError,), "refused"),
    ((http.client.HTTPException,), "the answer is not HTTP"),
    ((urllib3.exceptions.ProtocolError,), "the body ended early"),  # the last chunk is missing
)


def _causes(error: BaseException) -> Iterable[BaseException]:
    """The error and all its causes, outermost first, also those that urllib3 keeps only as an argument."""
    todo, seen = [error], set()
    while todo:
        cause = todo.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        linked = [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
        todo.extend(link for link in linked if isinstance(link, BaseException))


def _version() -> str:
    try:
        return metadata.version("further_source")
    except metadata.PackageNotFoundError:
        return "unknown"


# The deadline of a whole request.


class _Attempt:
    """One request under way, and a second handle on its socket."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.ends_at = time.monotonic() + timeout
        self.cut_because: str | None = None
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None

    def watch(self, connected: socket.socket) -> None:
        """Keeps a duplicate of the socket that this request goes over; TLS may be wrapped around it later.

        A duplicate, because urllib3 may close its own at any moment, and the number of a closed file descriptor may
        be that of another socket a moment later.
        """
        with self._lock:
            if self._handle:
                self._handle.close()
            self._handle = socket.socket(fileno=socket.dup(connected.fileno()))
            if self.cut_because:
                self._shut_down()

    def cut(self, reason: str) -> None:
        with self._lock:
            self.cut_because = reason
            self._shut_down()

    def release(self) -> None:
        with self._lock:
            if self._handle:
                self._handle.close()
                self._handle = None

    def _shut_down(self) -> None:
        if self._handle:
            with contextlib.suppress(OSError):  # the other side has closed it already
                self._handle.shutdown(socket.SHUT_RDWR)


class _Watchdog:
    """Cuts the attempts that are past their deadline. Its one thread starts with the first attempt."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._attempts: set[_Attempt] = set()
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, timeout: float) -> _Attempt:
        attempt = _Attempt(timeout)
        with self._changed:
            if self._closed:
                attempt.cut("the client is closed")
                return attempt
            self._attempts.add(attempt)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="request-deadlines", daemon=True)
                self._thread.start()
            # If others are under way, the thread wakes up for these first: all have the same timeout.
            if len(self._attempts) == 1:
                self._changed.notify()
        return attempt

    def finish(self, attempt: _Attempt) -> None:
        with self._changed:
            self._attempts.discard(attempt)
        attempt.release()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            for attempt in self._attempts:
                attempt.cut("the client was closed")
            self._attempts.clear()
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for attempt in [attempt for attempt in self._attempts if attempt.ends_at <= now]:
                    attempt.cut(f"timed out after {attempt.timeout:g} s")
                    self._attempts.remove(attempt)
                ends_at = min((attempt.ends_at for attempt in self._attempts), default=None)
                self._changed.wait(None if ends_at is None else ends_at - now)


class _Current(threading.local):
    attempt: _Attempt | None = None


# How a connection finds its attempt: urllib3 makes and uses a connection in the thread that asks.
_current = _Current()


# What belongs to an answer and what does not. http.client takes 102 and 103 for the answer itself, and forgets what it
# has read beyond one: the next request on the connection would get the answer of the one before.


class _Answer(http.client.HTTPResponse):
    """An answer without the interim ones (1xx) before it."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = _Reader(self.fp.detach(), sock)

    def begin(self) -> None:
        super().begin()
        while 100 <= self.status < 200:
            self.headers = self.msg = None  # type: ignore[assignment]  # it begins again where there are none
            super().begin()


class _Reader(io.BufferedReader):
    """Reads one answer from a connection; the connection ends with it if there is more to read."""

    def __init__(self, raw: io.RawIOBase, connected: socket.socket) -> None:
        self._connected = connected
        super().__init__(raw)

    def close(self) -> None:
        if not self.closed and self._has_more():
            # Shut down and not closed: the pool sees that it has ended, and opens another.
            with contextlib.suppress(OSError):
                self._connected.shutdown(socket.SHUT_RDWR)
        super().close()

    def _has_more(self) -> bool:
        try:
            timeout = self._connected.gettimeout()
            self._connected.settimeout(0)
            try:
                return bool(self.peek(1))
            finally:
                self._connected.settimeout(timeout)
        except ssl.SSLWantReadError:
            return False
        except (OSError, ValueError):  # it has failed already
            return True


class _WatchedConnection(HTTPConnection):
    response_class = _Answer

    def _new_conn(self) -> socket.socket:
        attempt = _current.attempt
        if attempt:
            self.timeout = self._time_per_address(attempt)
        connected = super()._new_conn()
        if attempt:
            attempt.watch(connected)
        return connected

    def _time_per_address(self, attempt: _Attempt) -> float:
        # Until it is connected there is no socket that could be shut down, and each address of a host is tried for
        # this long. How long to wait for a name server is the system's to decide.
        host = self._dns_host.strip("[]")
        addresses = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
        left = attempt.ends_at - time.monotonic()
        return max(left / max(len(addresses), 1), 0.001)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None and _current.attempt:
            _current.attempt.watch(self.sock)
        super().request(*args, **kwargs)


class _WatchedTLSConnection(_WatchedConnection, HTTPSConnection):
    pass


class _WatchedPool(HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _WatchedTLSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTLSConnection


_POOLS = {"http": _WatchedPool, "https": _WatchedTLSPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # these have their own kind of connections
            manager.pool_classes_by_scheme = _POOLS
        return manager
