"""Fetches the files behind the signed URLs of deliveries: of hosts that are allowed, without a token, no redirects.

Such a URL is a secret, and it comes with an unsigned body: it is never shown whole, and nothing is asked of a host that
is not on the list.
"""

import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from further_source.api.transport import NoAnswer, Transport, is_loopback
from further_source.exceptions import ConfigurationError
from further_source.text import shown

__all__ = ["SignedUrls", "UrlError", "check_hosts"]


class UrlError(Exception):
    """The file behind a URL cannot be had; the text says why, without the URL."""


def check_hosts(hosts: object) -> tuple[str, ...]:
    """Names of hosts, in lower case; one that begins with `*.` stands for all below it.

    Raises:
        ConfigurationError: It is no list of these.
    """
    checked = []
    for host in hosts if isinstance(hosts, Sequence) and not isinstance(hosts, str) else [hosts]:
        name = host.lower() if isinstance(host, str) else ""
        plain = name.removeprefix("*.")
        if not plain or any(sign in plain for sign in "*/:@?#\\ ") or not plain.isprintable():
            raise ConfigurationError(f"delivery_hosts holds {shown(host)}: it must be the name of a host, or *.NAME")
        checked.append(name)
    return tuple(checked)


class SignedUrls:
    """Fetches files. Safe to call from `max_workers` threads at once.

    Args:
        hosts: As `check_hosts` gives them.
        request_timeout: Seconds for one whole request, body included.
        max_bytes: How large a file may be, inflated.
    """

    def __init__(self, hosts: Sequence[str], *, request_timeout: float, max_workers: int, max_bytes: int) -> None:
        self._hosts = hosts
        self._request_timeout = request_timeout
        self._max_workers = max_workers
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._transports: dict[str, Transport] = {}

    def fetch(self, url: str) -> bytes:
        """What is behind a URL.

        Raises:
            UrlError: It is not one of an allowed host, it has expired, or the file is too large or did not come.
        """
        origin, path = self._checked(url)
        with self._lock:
            transport = self._transports.get(origin)
            if transport is None:
                transport = Transport(origin, self._request_timeout, self._max_workers, self._max_bytes)
                self._transports[origin] = transport
        answer = transport.exchange("GET", path, {})
        if isinstance(answer, NoAnswer):
            raise UrlError(f"its signed URL: {answer.reason}")
        if not 200 <= answer.status < 300:
            raise UrlError(f"its signed URL answered {answer.status}")
        if answer.broken:
            raise UrlError(f"its signed URL: {answer.broken}")
        return answer.body

    def close(self) -> None:
        """Closes the connections; requests under way are cut short."""
        for transport in self._transports.values():
            transport.close()

    def _checked(self, url: str) -> tuple[str, str]:
        """The origin, and the path with the query exactly as they came."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            raise UrlError("its signed URL has a host or a port that cannot be one") from None
        if not url.isprintable() or " " in url or "\\" in url or "@" in parts.netloc or not host.isascii():
            raise UrlError("its signed URL has stray characters")
        if not any(_matches(host, allowed) for allowed in self._hosts):
            raise UrlError(f"the host of its signed URL, {shown(host)}, is not one of delivery_hosts")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
            raise UrlError("its signed URL is not https://")
        if port not in (None, 443) and not is_loopback(host):
            raise UrlError("its signed URL has a port of its own")
        netloc = f"[{host}]" if ":" in host else host
        origin = f"{parts.scheme}://{netloc}" + (f":{port}" if port else "")
        return origin, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _matches(host: str, allowed: str) -> bool:
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed
