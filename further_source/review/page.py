"""The HTML of the page on which people look at one cell after the other."""

from collections.abc import Sequence
from html import escape
from urllib.parse import urlencode

from further_source.review.cells import ReviewedCell
from further_source.review.importing import NO_VALUE
from further_source.review.queue import Queue
from further_source.text import one_line

__all__ = ["ask_name", "cell_page", "not_shown"]

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


_UNDO = '<p><button data-act="undo">Undo (u)</button></p>'


def ask_name() -> str:
    """The page that asks who reviews."""
    return _document(_ASK_NAME)


def cell_page(queue: Queue, reviewer: str, skipped: str) -> str:
    """The page of the next cell for a reviewer, who has it from now on; or that none is left.

    Args:
        skipped: The fingerprint of a cell that the reviewer passes over, or "".
    """
    cell = queue.take(reviewer, skipped)
    rows = None
    while cell and (rows := queue.rows_around(cell)) is None:
        cell = queue.take(reviewer, cell.fingerprint)
    shown = _cell(cell, rows) if cell and rows else f"<p>Nothing is left for you.</p>{_UNDO}"
    return _document(
        f'<main data-reviewer="{escape(reviewer)}" data-cell="{cell.fingerprint if cell else ""}">'
        f'<h1>Review</h1><p><span id="left">{queue.left}</span> left of {len(queue.cells)}</p>'
        f'<p id="problem" role="alert"></p>{shown}</main><script>{_SCRIPT}</script>'
    )


def not_shown(error: Exception, reviewer: str) -> str:
    """The page that says why there is none just now."""
    again = f"/review?{urlencode({'reviewer': reviewer})}"
    return _document(
        f'<p role="alert">Not shown: {escape(one_line(str(error)))}</p><p><a href="{escape(again)}">Try again</a></p>'
    )


def _document(body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Review</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{body}</body></html>'
    )


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
