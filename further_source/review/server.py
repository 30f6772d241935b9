"""Serves the page of a queue on this machine: a few routes, with what keeps the pages of other sites out."""

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from further_source.exceptions import FurtherError
from further_source.jsontext import storable_text
from further_source.review.page import ask_name, cell_page, not_shown
from further_source.review.queue import Queue
from further_source.text import one_line

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["page_app", "serve"]

_MAX_NAME = 200  # characters
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def page_app(queue: Queue, hosts: Sequence[str]) -> "Starlette":
    """The page of a queue.

    Args:
        queue: What is to be reviewed.
        hosts: The values of the Host header that are answered, so that no page of another site gets in by a name that
            leads here.
    """
    from starlette.applications import Starlette  # noqa: PLC0415  of the extra
    from starlette.concurrency import run_in_threadpool  # noqa: PLC0415
    from starlette.middleware import Middleware  # noqa: PLC0415
    from starlette.middleware.trustedhost import TrustedHostMiddleware  # noqa: PLC0415
    from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    def show(request: "Request") -> "Response":
        reviewer = request.query_params.get("reviewer", "").strip()[:_MAX_NAME]
        # A page of another site may lead here, and may not take cells in anybody's name.
        if not reviewer or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return HTMLResponse(ask_name(), headers=_HEADERS)
        try:
            shown = cell_page(queue, reviewer, request.query_params.get("skip", ""))
        except Exception as error:  # a load may have a DuckDB file open
            return HTMLResponse(not_shown(error, reviewer), 503, headers=_HEADERS)
        return HTMLResponse(shown, headers=_HEADERS)

    async def act(request: "Request") -> "Response":
        # Forms of other sites cannot send JSON without asking first.
        if request.headers.get("content-type") != "application/json":
            return JSONResponse({"problem": "send JSON"}, 415)
        try:
            sent = dict(await request.json())
        except (ValueError, TypeError):
            return JSONResponse({"problem": "send an object of JSON"}, 400)
        reviewer = storable_text(str(sent.get("reviewer", "")).strip()[:_MAX_NAME])
        if not reviewer:
            return JSONResponse({"problem": "who are you?"}, 400)
        try:
            if sent.get("action") == "undo":
                undone = await run_in_threadpool(queue.undo, reviewer)
                return JSONResponse({"problem": None if undone else "there is nothing to undo"})
            values = [
                storable_text(str(sent.get(name) or "")) for name in ("cell", "action", "corrected_value", "reason")
            ]
            problem = await run_in_threadpool(queue.save, reviewer, *values)
        except Exception as error:
            return JSONResponse({"problem": f"not saved: {one_line(str(error))}"}, 503)
        return JSONResponse({"problem": problem}, 409 if problem else 200)

    def root(request: "Request") -> "Response":
        return RedirectResponse("/review")

    return Starlette(
        routes=[Route("/", root), Route("/review", show), Route("/verdicts", act, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )


def serve(queue: Queue, host: str, port: int, hosts: Sequence[str], ready: Callable[[str], None]) -> None:
    """Serves the page until the process is told to stop.

    Args:
        queue: What is to be reviewed.
        host: The address to listen on.
        port: The port; 0 for any.
        hosts: As of `page_app`.
        ready: Called with the URL once it listens.

    Raises:
        FurtherError: The address is taken.
    """
    import uvicorn  # noqa: PLC0415  of the extra

    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # before anybody is told
    except OSError as error:
        raise FurtherError(f"{host}:{port}: {(error.strerror or str(error)).lower()}") from None
    named = f"[{host}]" if ":" in host else host
    ready(f"http://{named}:{listening.getsockname()[1]}/")
    uvicorn.Server(uvicorn.Config(page_app(queue, hosts), log_level="warning")).run(sockets=[listening])
