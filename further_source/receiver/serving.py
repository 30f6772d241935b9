"""Serves the application until a signal comes."""

import asyncio
import signal
import socket
from contextlib import suppress
from importlib import import_module

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from further_source.console import show

__all__ = ["listen", "serve"]

_BACKLOG = 2048
_HEAD_SECONDS = 15.0
_KEEP_ALIVE_SECONDS = 60
_MORE_SECONDS = 3.0  # to write what has arrived, once no body may arrive any more
_FILES = 65_536


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: It cannot.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG)


def serve(app: Starlette, listener: socket.socket, *, body_timeout: float, welcome: str) -> None:
    """Serves until SIGINT or SIGTERM; what is arriving then is received to its end."""
    _raise_limit_of_files()
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(body_timeout + _MORE_SECONDS),
    )
    server = _Server(config, welcome)
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # before it starts, and where it raises them again once it has stopped
        signal.signal(number, server.handle_exit)
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Tells that it is there."""

    def __init__(self, config: uvicorn.Config, welcome: str) -> None:
        super().__init__(config)
        self._welcome = welcome

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        show(self._welcome)


class _Protocol(H11Protocol):
    """Closes a connection on which no whole head of a request comes; uvicorn waits for one without end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(_HEAD_SECONDS, self._close_without_head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None:
            self._head_timer.cancel()

    def _close_without_head(self) -> None:
        if self.cycle is None:
            self.transport.abort()


def _raise_limit_of_files() -> None:
    """Each connection takes one."""
    with suppress(ImportError, OSError, ValueError):
        resource = import_module("resource")  # which Windows has not
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
