"""What the sandbox is told to answer: replies, faults, and the documented shapes of an execution."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, Protocol, get_args

Fault = Literal["reset", "truncated", "empty", "silent", "drip", "drip_headers", "close"]
"""How an answer goes wrong on the wire.

- `reset`: the connection is reset (RST) in place of an answer
- `truncated`: half of the body is sent and the connection closed, though `Content-Length` promised all of it
- `empty`: the status without a body
- `silent`: no answer, until the client leaves or the sandbox stops
- `drip`: the body comes byte by byte, `delay` seconds apart
- `drip_headers`: the status line and the headers come byte by byte, `delay` seconds apart
- `close`: the connection is closed in place of an answer
"""

FAULTS: tuple[str, ...] = get_args(Fault)


@dataclass(frozen=True)
class Reply:
    """One answer of the sandbox.

    Attributes:
        status: The HTTP status.
        body: Raw bytes, sent as they are, or anything `json.dumps` takes.
        headers: Added to `Content-Type: application/json` and `Content-Length`; they replace headers of that name.
        fault: What goes wrong on the way (see `Fault`).
        delay: Seconds before the answer; with the `drip` faults, seconds between two bytes.
    """

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    delay: float = 0.0

    def __post_init__(self) -> None:
        if self.fault is not None and self.fault not in FAULTS:
            raise ValueError(f"no such fault: {self.fault!r}, one of {', '.join(FAULTS)}")


AnyReply = dict[str, Any] | bytes | Reply
"""A reply; or the body alone of a reply of status 200, a `dict` that is sent as JSON or `bytes` as they are."""


def running(workflow_id: str, execution_id: str, **extra: Any) -> dict[str, Any]:
    """The documented answer for an execution that has not ended.

    Args:
        workflow_id: The id of its workflow.
        execution_id: Its own id.
        extra: Further top-level keys, such as `metadata` (an empty object if not given).
    """
    return _execution(workflow_id, execution_id, "running", extra)


def completed(workflow_id: str, execution_id: str, steps: Sequence[Mapping[str, Any]], **extra: Any) -> dict[str, Any]:
    """The documented answer for a completed execution. `step` makes its steps."""
    return {**_execution(workflow_id, execution_id, "completed", extra), "steps": list(steps)}


def failed(workflow_id: str, execution_id: str, **extra: Any) -> dict[str, Any]:
    """The documented answer for a failed execution. What its error details look like is not documented."""
    return _execution(workflow_id, execution_id, "failed", extra)


def step(step_name: str, rows: Sequence[Mapping[str, Any]], **extra: Any) -> dict[str, Any]:
    """A step as documented. Each of `rows` maps names of fields to cells, which `cell` makes.

    `extra` is added to the step's `data`, or replaces its empty `schema` and `metadata`.
    """
    return {"step_name": step_name, "data": {"schema": {}, "data": list(rows), "metadata": {}, **extra}}


def cell(value: Any, confidence_score: float | None) -> dict[str, Any]:
    """A cell as documented, but that a `confidence_score` of null is not."""
    return {"value": value, "confidence_score": confidence_score}


def error(status: int, detail: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
    """An error with the documented body. Without `detail` its text is the phrase of the status, as `Not Found`."""
    return Reply(status, {"detail": _phrase(status) if detail is None else detail}, headers or {})


def _execution(workflow_id: str, execution_id: str, status: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "workflow_id": workflow_id,
        "workflow_execution_id": execution_id,
        "status": status,
        "metadata": {},
        **extra,
    }


@dataclass(frozen=True)
class Answer:
    """A reply ready to be sent. It is encoded once, however often it is sent."""

    status: int
    head: bytes
    body: bytes
    fault: Fault | None = None
    delay: float = 0.0


def prepare(reply: AnyReply) -> Answer:
    """Encodes a reply.

    Raises:
        TypeError: The body is not bytes, and JSON cannot hold it.
    """
    if not isinstance(reply, Reply):
        reply = Reply(body=reply)
    # ASCII with escapes, so that a lone surrogate in a test's payload is sent as JSON has it.
    body = (
        reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body, separators=(",", ":")).encode("ascii")
    )
    if reply.fault == "empty":
        body = b""
    # A truncated answer promises more than it sends, even when there is no body to cut.
    length = max(len(body), 1) if reply.fault == "truncated" else len(body)
    replaced = {name.lower() for name in reply.headers}
    standard = {"Content-Type": "application/json", "Content-Length": str(length)}
    headers = {name: value for name, value in standard.items() if name.lower() not in replaced}
    lines = [f"HTTP/1.1 {reply.status} {_phrase(reply.status)}"]
    lines += [f"{name}: {value}" for name, value in {**headers, **reply.headers}.items()]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return Answer(reply.status, head, body, reply.fault, reply.delay)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class Script(Protocol):
    """Decides what an execution answers next."""

    def next(self, now: float) -> Answer:
        """The answer to a request at `now`, in seconds on a monotonic clock."""


class SequenceScript:
    """Answers one after the other; the last repeats."""

    def __init__(self, replies: Sequence[AnyReply]) -> None:
        if not replies:
            raise ValueError("a script needs at least one reply")
        self._left = [prepare(reply) for reply in reversed(replies)]

    def next(self, now: float) -> Answer:
        return self._left.pop() if len(self._left) > 1 else self._left[0]


class TimedScript:
    """Runs for a time, then answers its payload.

    Args:
        workflow_id: The id of its workflow.
        execution_id: Its own id.
        payload: What it answers in the end. The metadata of a `dict` is shown while it runs, too.
        after: Seconds it runs; None never ends.
        started_at: When it started, in seconds on a monotonic clock; None for the time of its first request.
    """

    def __init__(
        self,
        workflow_id: str,
        execution_id: str,
        payload: AnyReply,
        *,
        after: float | None,
        started_at: float | None = None,
    ) -> None:
        shown = {"metadata": payload["metadata"]} if isinstance(payload, dict) and "metadata" in payload else {}
        self._running = prepare(running(workflow_id, execution_id, **shown))
        self._payload = prepare(payload)
        self._after = after
        self._started_at = started_at

    def next(self, now: float) -> Answer:
        if self._started_at is None:
            self._started_at = now
        if self._after is None or now - self._started_at < self._after:
            return self._running
        return self._payload
