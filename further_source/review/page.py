"""The page on which people look at one cell after the other: a few routes, and a queue that hands out each cell once.

A verdict is in the destination before the page is told so. The queue is held in memory and made anew by a restart from
what has no review yet, so that a server that is killed loses nothing but who had which cell.
"""

import hashlib
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from html import escape
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from further_source.exceptions import FurtherError
from further_source.jsontext import storable_text
from further_source.review.cells import ReviewedCell
from further_source.review.importing import NO_VALUE, VERDICTS, review_record
from further_source.review.queue import cells_around
from further_source.review.store import ReviewStore
from further_source.review.views import WITHDRAWN
from further_source.tables.columns import REVIEWS
from further_source.text import one_line

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Queue", "page_app"]

_CLAIM_SECONDS = 900.0
_MAX_NAME = 200  # characters
_NEIGHBOURS = 2  # rows before and after


@dataclass
class _Claim:
    reviewer: str
    until: float


class _Done(NamedTuple):
    reviewer: str
    verdict: str
    corrected: str | None
    reason: str


@dataclass
class Queue:
    """Which cells are open, and who has which.

    Args:
        store: The reviews, prepared.
        cells: The queue, in the order in which it is handed out.
        sampled: Whether it is a sample over all confidences.
    """

    store: ReviewStore
    cells: Sequence[ReviewedCell]
    sampled: bool
    _places: dict[str, int] = field(default_factory=dict)
    _claims: dict[str, _Claim] = field(default_factory=dict)
    _done: dict[str, _Done] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._places = {cell.fingerprint: place for place, cell in enumerate(self.cells)}

    @property
    def left(self) -> int:
        """How many cells have no verdict."""
        return len(self.cells) - len(self._done) - len(self._changed)

    def take(self, reviewer: str, skipped: str = "") -> ReviewedCell | None:
        """The cell that the reviewer has, or the next that nobody has; after `skipped`, if there is any there.

        A cell that somebody has had for a quarter of an hour is open again.
        """
        with self._lock:
            now = time.monotonic()
            self._claims = {key: claim for key, claim in self._claims.items() if claim.until > now}
            if skipped and (claim := self._claims.get(skipped)) and claim.reviewer == reviewer:
                del self._claims[skipped]
            mine = [key for key, claim in self._claims.items() if claim.reviewer == reviewer]
            taken = mine[0] if mine else self._next_free(self._places.get(skipped, -1) + 1)
            if taken is None:
                return None
            self._claims[taken] = _Claim(reviewer, now + _CLAIM_SECONDS)
            return self.cells[self._places[taken]]

    def _next_free(self, start: int) -> str | None:
        """The first cell from that place on, and then from the beginning, that is open and nobody's."""
        fingerprints = list(self._places)
        turned = chain(islice(fingerprints, start, None), islice(fingerprints, start))
        taken = (self._done, self._claims, self._changed)
        return next((one for one in turned if not any(one in some for some in taken)), None)

    def save(self, reviewer: str, fingerprint: str, verdict: str, corrected: str, reason: str) -> str | None:
        """Stores a verdict; what is wrong with it, if anything is. By the return it is in the destination.

        Sent once more, it is stored once.
        """
        place = self._places.get(fingerprint)
        if place is None or verdict not in VERDICTS:
            return "no such cell or verdict"
        cell = self.cells[place]
        if verdict == "corrected" and (not corrected or corrected == cell.value):
            return f"write what the value should be, {NO_VALUE} for none"
        said = _Done(reviewer, verdict, corrected if verdict == "corrected" else None, reason)
        with self._lock:
            if (done := self._done.get(fingerprint)) is not None:
                if done == said:
                    return None  # its answer was lost on the way
                return f"{done.reviewer} has given it a verdict already"
            claim = self._claims.get(fingerprint)
            if claim and claim.reviewer != reviewer:
                return "somebody else has this cell"
            self._append(cell, reviewer, verdict, said.corrected, reason)
            self._done[fingerprint] = said
            self._claims.pop(fingerprint, None)
        return None

    def undo(self, reviewer: str) -> ReviewedCell | None:
        """Takes back the reviewer's last verdict, and gives the cell again."""
        with self._lock:
            mine = (key for key, done in reversed(self._done.items()) if done.reviewer == reviewer)
            fingerprint = next(mine, None)
            if fingerprint is None:
                return None
            cell = self.cells[self._places[fingerprint]]
            self._append(cell, reviewer, WITHDRAWN, None, None)
            del self._done[fingerprint]
            for key in [key for key, claim in self._claims.items() if claim.reviewer == reviewer]:
                del self._claims[key]
            self._claims[fingerprint] = _Claim(reviewer, time.monotonic() + _CLAIM_SECONDS)
            return cell

    def _append(
        self, cell: ReviewedCell, reviewer: str, verdict: str, corrected: str | None, reason: str | None
    ) -> None:
        record = review_record(
            cell,
            verdict,
            corrected_value=corrected,
            reason=reason or None,
            reviewer=reviewer,
            reviewed_at=datetime.now(timezone.utc),
            review_id=hashlib.sha256(secrets.token_bytes(16)).hexdigest()[:32],
            sampled=self.sampled,
        )
        self.store.append(REVIEWS, [record])

    def rows_around(self, cell: ReviewedCell) -> list[list[ReviewedCell]] | None:
        """The cells of its row and of those before and after it, as they are now, row by row.

        None if the cell is not there any more, or has another value: then it is taken off the queue.
        """
        rows: dict[int, list[ReviewedCell]] = {}
        for one in cells_around(self.store, cell, _NEIGHBOURS):
            rows.setdefault(one.row_index, []).append(one)
        if all(one.fingerprint != cell.fingerprint for one in rows.get(cell.row_index, ())):
            with self._lock:
                self._changed.add(cell.fingerprint)
                self._claims.pop(cell.fingerprint, None)
            return None
        return [rows[index] for index in sorted(rows)]


def page_app(queue: Queue, hosts: Sequence[str]) -> "Starlette":
    """The page of a queue.

    Args:
        queue: What is to be reviewed.
        hosts: The values of the Host header that are answered, so that no page of another site gets in by a name that
            leads here.
    """
    from starlette.applications import Starlette  # noqa: PLC0415  of the extra
    from starlette.middleware import Middleware  # noqa: PLC0415
    from starlette.middleware.trustedhost import TrustedHostMiddleware  # noqa: PLC0415
    from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    def show(request: "Request") -> "Response":
        reviewer = request.query_params.get("reviewer", "").strip()[:_MAX_NAME]
        # A page of another site may lead here, and may not take cells in anybody's name.
        if not reviewer or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return HTMLResponse(_document(_ASK_NAME), headers=_HEADERS)
        try:
            shown = _cell_page(queue, reviewer, request.query_params.get("skip", ""))
        except Exception as error:  # a load may have a DuckDB file open
            return HTMLResponse(_document(_not_shown(error, reviewer)), 503, headers=_HEADERS)
        return HTMLResponse(_document(shown), headers=_HEADERS)

    async def act(request: "Request") -> "Response":
        from starlette.concurrency import run_in_threadpool  # noqa: PLC0415

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


def serve(queue: Queue, host: str, port: int, hosts: Sequence[str], ready: Any) -> None:
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
    import socket  # noqa: PLC0415

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


# What is on the page

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { max-width: 72rem; margin: 1rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { border: 1px solid GrayText; padding: .2rem .5rem; text-align: left; vertical-align: top }
td { white-space: pre-wrap }
td.this { outline: 3px solid Highlight }
#value { font-size: 1.5rem; white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid GrayText; padding: .5rem }
textarea, input { font: inherit; width: 100%; box-sizing: border-box }
button { font: inherit; padding: .3rem .8rem; margin: .5rem .3rem .5rem 0 }
#problem { font-weight: bold }
"""
_ASK_NAME = """<form action="/review"><p><label for="reviewer">Your name</label>
<input id="reviewer" name="reviewer" autofocus required maxlength="200"></p><button>Begin</button></form>"""
_SCRIPT = """
const main = document.querySelector('main'), reviewer = main.dataset.reviewer, cell = main.dataset.cell;
const corrected = document.querySelector('#corrected'), reason = document.querySelector('#reason');
let busy = false;
const next = skip => location.replace('/review?' + new URLSearchParams(skip ? {reviewer, skip} : {reviewer}));
async function act(action) {
  if (busy) return;
  busy = true;
  try {
    const answer = await fetch('/verdicts', {method: 'POST', headers: {'Content-Type': 'application/json'},
      body: JSON.stringify({reviewer, cell, action, corrected_value: corrected?.value, reason: reason?.value})});
    const {problem} = await answer.json();
    if (!problem) return next();
    document.querySelector('#problem').textContent = problem;
  } catch (error) { document.querySelector('#problem').textContent = 'not saved: ' + error; }
  busy = false;
}
for (const button of document.querySelectorAll('button[data-act]'))
  button.addEventListener('click', () => run(button.dataset.act));
function run(action) {
  if (action === 'next') return next(cell);
  if (action === 'edit') { corrected.focus(); return corrected.select(); }
  act(action);
}
document.addEventListener('keydown', event => {
  const typing = event.target.matches('textarea, input');
  if (typing && event.key === 'Enter' && !event.shiftKey) { event.preventDefault(); return act('corrected'); }
  if (event.key === 'Escape' && typing) { event.preventDefault(); return event.target.blur(); }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const action = {a: 'correct', c: 'edit', r: 'unreadable', u: 'undo', n: 'next'}[event.key];
  if (action && (cell || action === 'undo')) { event.preventDefault(); run(action); }
});
"""
_BUTTONS = """<p><button data-act="correct">Correct (a)</button><button data-act="edit">Write another value (c)</button>
<button data-act="corrected">Save it (Enter)</button><button data-act="unreadable">Unreadable (r)</button>
<button data-act="undo">Undo (u)</button><button data-act="next">Next (n)</button></p>"""


def _document(body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Review</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{body}</body></html>'
    )


def _cell_page(queue: Queue, reviewer: str, skipped: str) -> str:
    cell = queue.take(reviewer, skipped)
    rows = None
    while cell and (rows := queue.rows_around(cell)) is None:
        cell = queue.take(reviewer, cell.fingerprint)
    shown = _cell(cell, rows) if cell and rows else f"<p>Nothing is left for you.</p>{_UNDO}"
    return (
        f'<main data-reviewer="{escape(reviewer)}" data-cell="{cell.fingerprint if cell else ""}">'
        f'<h1>Review</h1><p><span id="left">{queue.left}</span> left of {len(queue.cells)}</p>'
        f'<p id="problem" role="alert"></p>{shown}</main><script>{_SCRIPT}</script>'
    )


def _not_shown(error: Exception, reviewer: str) -> str:
    again = f"/review?{urlencode({'reviewer': reviewer})}"
    return (
        f'<p role="alert">Not shown: {escape(one_line(str(error)))}</p><p><a href="{escape(again)}">Try again</a></p>'
    )


_UNDO = '<p><button data-act="undo">Undo (u)</button></p>'


def _cell(cell: ReviewedCell, rows: Sequence[Sequence[ReviewedCell]]) -> str:
    confidence = "none" if cell.confidence is None else f"{cell.confidence:g}"
    value = "<em>no value</em>" if cell.value is None else escape(cell.value)
    place = f"{cell.workflow_id}/{cell.workflow_execution_id}, {cell.step_name}, row {cell.row_index}"
    return (
        f'<p>{escape(place)}</p><h2 id="field">{escape(cell.field)}</h2><div id="value">{value}</div>'
        f"<p>{escape(cell.value_type)}, confidence {confidence}</p>"
        f'<p><label for="corrected">What it should be ({escape(NO_VALUE)} for no value)</label>'
        f'<textarea id="corrected" rows="2">{escape(cell.value or "")}</textarea></p>'
        '<p><label for="reason">Reason</label><input id="reason"></p>'
        f"{_BUTTONS}{_neighbours(rows, cell)}"
    )


def _neighbours(rows: Sequence[Sequence[ReviewedCell]], cell: ReviewedCell) -> str:
    fields = list(dict.fromkeys(one.field for row in rows for one in row))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("row", *fields))
    body = ""
    for row in rows:
        values = {one.field: one for one in reversed(row)}
        body += f'<tr><th scope="row">{row[0].row_index}</th>'
        for name in fields:
            one = values.get(name)
            marked = ' class="this"' if one and one.fingerprint == cell.fingerprint else ""
            body += f"<td{marked}>{escape(one.value or '') if one else ''}</td>"
        body += "</tr>"
    caption = "<caption>The row and its neighbours</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
