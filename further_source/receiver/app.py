"""The application: one delivery a request, and what watches over it.

A sender takes any 4xx but 401 and 403 as final, so only what can never be taken gets one: a body over the hard limit.
Whatever may pass (a full disk, too much at once, a body that stalls) is answered 503.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from further_source.console import tell
from further_source.receiver.authentication import Authentication, Unavailable
from further_source.receiver.metrics import Metrics
from further_source.receiver.storage import Incoming, Storage, reason_of

__all__ = ["Limits", "receiver_app"]

_RETRY_SECONDS = 30
_WRITERS = 16

_T = TypeVar("_T")


@dataclass(frozen=True)
class Limits:
    """How long and how large a body may be, and how many are received at once.

    Attributes:
        hard_max_bytes: A larger body is refused for good.
        body_timeout: Seconds for one whole body.
        max_concurrency: How many are received at once; more are to come again.
    """

    hard_max_bytes: int
    body_timeout: float
    max_concurrency: int


class _Refused(Exception):
    """A delivery is not taken."""

    def __init__(self, outcome: str, status: int, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.status = status


def receiver_app(storage: Storage, authentication: Authentication, limits: Limits) -> Starlette:
    """The ASGI application of a receiver."""
    receiver = _Receiver(storage, authentication, limits)
    return Starlette(
        routes=[
            Route("/healthz", receiver.health, methods=["GET"]),
            Route("/metrics", receiver.show_metrics, methods=["GET"]),
            # Behind a proxy the path may be any; a delivery is told by its key.
            Route("/{path:path}", receiver.deliver, methods=["POST"]),
        ],
        lifespan=receiver.lifespan,
    )


class _Receiver:
    def __init__(self, storage: Storage, authentication: Authentication, limits: Limits) -> None:
        self._storage = storage
        self._authentication = authentication
        self._limits = limits
        self._metrics = Metrics(storage)
        self._under_way = 0
        self._trouble: str | None = None

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._writers = anyio.CapacityLimiter(_WRITERS)
        # Of their own: an identity provider that does not answer must keep nothing from being written.
        self._askers = anyio.CapacityLimiter(_WRITERS)
        yield

    async def deliver(self, request: Request) -> Response:
        try:
            problem = await self._receive(request)
        except _Refused as refused:
            self._metrics.count(refused.outcome)
            if refused.status >= 500:
                self._tell(str(refused))
            return _answer(refused.status, str(refused))
        except ClientDisconnect:
            self._metrics.count("disconnected")
            return Response(status_code=503)  # nobody reads it
        self._trouble = None
        self._metrics.count("stored" if problem is None else "quarantined")
        return _answer(202, "stored")

    async def _receive(self, request: Request) -> str | None:
        """Stores a delivery; returns why it is in quarantine, None where it is in the inbox."""
        if self._under_way >= self._limits.max_concurrency:
            raise _Refused("overload", 503, "too many deliveries at once")
        self._under_way += 1
        try:
            with anyio.fail_after(self._limits.body_timeout):
                await self._authenticate(request)
                incoming = await self._read(request)
            return await self._in_thread(incoming.keep)
        except TimeoutError:
            raise _Refused("timeout", 503, "the body did not arrive in time") from None
        except OSError as error:
            raise _Refused("storage", 503, f"the inbox cannot be written to: {reason_of(error)}") from None
        finally:
            self._under_way -= 1

    async def _authenticate(self, request: Request) -> None:
        try:
            allows = partial(self._authentication.allows, request.headers)
            allowed = await anyio.to_thread.run_sync(allows, limiter=self._askers, abandon_on_cancel=True)
        except Unavailable as unavailable:
            raise _Refused("identity", 503, str(unavailable)) from None
        if not allowed:
            raise _Refused("unauthorized", 401, "not authorized")

    async def _read(self, request: Request) -> Incoming:
        most = self._limits.hard_max_bytes
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise _too_large(most)
        incoming = self._storage.incoming(request.headers.get("content-encoding", "").strip().lower())
        try:
            async for chunk in request.stream():
                incoming.add(chunk)
                if incoming.size > most:
                    raise _too_large(most)
                if incoming.due:
                    await self._in_thread(incoming.flush)
        except BaseException:
            incoming.discard()
            raise
        return incoming

    async def _in_thread(self, write: Callable[[], _T]) -> _T:
        return await anyio.to_thread.run_sync(write, limiter=self._writers)

    async def health(self, request: Request) -> Response:
        try:
            await self._in_thread(self._storage.probe)
        except OSError as error:
            return _answer(503, f"the inbox cannot be written to: {reason_of(error)}")
        return _answer(200, "ok")

    async def show_metrics(self, request: Request) -> Response:
        text = await self._in_thread(partial(generate_latest, self._metrics.registry))
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    def _tell(self, trouble: str) -> None:
        """Tells of a trouble once, until a delivery is stored again or there is another one."""
        if trouble != self._trouble:
            self._trouble = trouble
            tell("receive", f"{trouble}; deliveries are answered 503, and are sent again")


def _too_large(most: int) -> _Refused:
    return _Refused("too_large", 413, f"larger than --hard-max-bytes ({most})")


def _answer(status: int, detail: str) -> Response:
    headers = {"retry-after": str(_RETRY_SECONDS)} if status == 503 else {}
    return JSONResponse({"detail": detail}, status, headers)
