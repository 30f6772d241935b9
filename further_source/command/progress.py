"""What a load shows while it runs: a few lines that are kept up to date on a terminal, else a line now and then."""

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from further_source.command.display import outcome_counts
from further_source.polling.state import PollState
from further_source.run.report import Report
from further_source.text import one_line

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["show_progress"]

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_LOOKS = 0.25
_RATE_SECONDS = 60.0
_JOIN_SECONDS = 1.0
_MAX_REASON = 120  # characters


@contextmanager
def show_progress(*, quiet: bool, stop: Callable[[], bool]) -> Iterator[Callable[[Report], None]]:
    """Shows on standard error how the reports stand that it is given, and that `stop` became true; nothing if `quiet`.

    A report is looked at several times a second until the end, for polling goes on while a load blocks.
    """
    if quiet:
        yield lambda report: None
        return
    progress = _Progress(stop)
    shown = _live if sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown") else _log_lines
    with shown(progress):
        yield progress.take


class _Progress:
    """What there is to say, as lines of plain text."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.report: Report | None = None
        self.began = time.monotonic()
        self._stop = stop
        self._to_wall = time.time() - time.monotonic()
        self._ends: deque[tuple[float, int]] = deque()

    def take(self, report: Report) -> None:
        if self.report is None:
            self._ends.append((time.monotonic(), 0))
        self.report = report

    @property
    def turn(self) -> tuple[object, ...]:
        """Changes with what should be said at once."""
        if (report := self.report) is None:
            return (self._stop(),)
        state = report.polling
        return (self._stop(), report.remaining == 0, state.outage_reason is None, state.pause_reason is None)

    def lines(self) -> list[str]:
        lines = ["looking at the destination"]
        if (report := self.report) is not None:
            lines = [*self._counts(report), *self._troubles(report.polling)]
        if self._stop():
            lines.append("stopping: loading what has arrived; again to end now")
        return lines

    def _counts(self, report: Report) -> Iterator[str]:
        state, to_ask = report.polling, report.to_ask
        ended = max(report.asked, state.asked - state.waiting)  # of which some are still on their way here
        outcomes = outcome_counts(report.ended)
        yield f"{ended} of {to_ask} ended" + (f": {outcomes}" if outcomes else "")
        if ended < to_ask:
            counts = {"running": state.waiting - state.retried, "retried": state.retried}
            counts["not asked yet"] = to_ask - max(state.asked, ended)
            yield ", ".join(f"{count} {what}" for what, count in counts.items() if count > 0)
            if (rate := self._rate(ended)) > 0:
                yield f"{_per_time(rate)}, about {_duration((to_ask - ended) / rate)} left"
        if report.loaded_at is not None and report.loaded:
            yield f"{report.loaded} loaded, the last at {_time_of_day(report.loaded_at)}"

    def _troubles(self, state: PollState) -> Iterator[str]:
        if state.outage_reason is not None and state.outage_ends_at is not None:
            until = _time_of_day(state.outage_ends_at + self._to_wall)
            yield f"the API cannot be reached, tried until {until}: {_reason(state.outage_reason)}"
        elif state.retry_reason is not None:
            yield f"{'retried' if state.retried else 'token asked for again'}: {_reason(state.retry_reason)}"
        if state.paused_until is not None:
            yield f"paused until {_time_of_day(state.paused_until + self._to_wall)}: {_reason(state.pause_reason)}"

    def _rate(self, ended: int) -> float:
        """How many ended per second lately."""
        now = time.monotonic()
        self._ends.append((now, ended))
        while self._ends[0][0] < now - _RATE_SECONDS:
            self._ends.popleft()
        first_at, first = self._ends[0]
        return (ended - first) / (now - first_at) if now > first_at else 0.0


@contextmanager
def _live(progress: _Progress) -> Iterator[None]:
    # Imported where there is a terminal, for runs from cron start faster without.
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    live = Live(get_renderable=lambda: _frame(progress), console=console, redirect_stdout=False)
    stderr = sys.stderr
    with suppress(OSError):  # of a terminal that is gone, which must not stop a load
        live.start()
        console.show_cursor()  # or it would stay hidden where the process is ended at once
    _log_to(stderr, sys.stderr)
    try:
        yield
    finally:
        _log_to(sys.stderr, stderr)
        with suppress(OSError):
            live.stop()


def _log_to(before: TextIO, after: TextIO) -> None:
    """Lets what is logged appear above the lines that are kept up to date, in place of among them."""
    for handler in logging.getLogger("dlt").handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is before:
            handler.setStream(after)


def _frame(progress: _Progress) -> "Group":
    from rich.console import Group
    from rich.padding import Padding
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    report = progress.report
    to_ask = report.to_ask if report is not None else 0
    bar = ProgressBar(total=to_ask or None, completed=report.asked if report is not None else 0, pulse=not to_ask)
    seconds = int(time.monotonic() - progress.began)
    first, *others = progress.lines()
    clock = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return Group(Padding(bar), Text(f"{clock} {first}"), *map(Text, others))


@contextmanager
def _log_lines(progress: _Progress) -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=_write_lines, args=(progress, sys.stderr, over), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_JOIN_SECONDS)  # and no longer: who reads standard error may be asleep


def _write_lines(progress: _Progress, stream: TextIO, over: threading.Event) -> None:
    """A line at intervals where anything is new, at once where it matters, and at the end."""
    shown, turn, at = "", None, float("-inf")
    last = False
    while not last:
        last = over.wait(_SECONDS_BETWEEN_LOOKS)
        if progress.report is None and not progress.turn[0]:
            continue
        line, now = "; ".join(progress.lines()), time.monotonic()
        due = last or progress.turn != turn or now >= at + _SECONDS_BETWEEN_LINES
        if due and line != shown:
            shown, turn, at = line, progress.turn, now
            with suppress(OSError, ValueError):  # who reads no more, or a full disk, must not stop a load
                print(f"{time.strftime('%H:%M:%S')} {line}", file=stream, flush=True)


def _reason(reason: str | None) -> str:
    return one_line(reason or "", _MAX_REASON)


def _time_of_day(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _per_time(rate: float) -> str:
    for per, seconds in (("second", 1), ("minute", 60)):
        if rate * seconds >= 1:
            return f"{rate * seconds:.0f} a {per}"
    return f"{rate * 3600:.0f} an hour"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
