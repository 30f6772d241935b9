"""The sandbox: the part of the Further AI API that this package uses, on loopback.

Requests for a token, to create an execution and to get one are answered as documented. The following is the sandbox's
own, and says nothing of the API: an execution can be created under any workflow id, and the body of that request is
ignored; how long an execution runs; the wording of `detail`; 405 for other methods; the `Retry-After` of a 429; where
signed URLs lead, and that an expired one is answered 403.
"""

import base64
import json
import math
import re
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from further_source.sandbox import data
from further_source.sandbox.scripts import (
    Answer,
    AnyReply,
    Script,
    SequenceScript,
    TimedScript,
    error,
    prepare,
)
from further_source.sandbox.wire import LOOPBACK, LoopbackServer

# Written out, and not taken from the client's constants: a mistake there must not be repeated here.
_TOKEN_PATH = "/api/v1/oauth2/access_token"  # noqa: S105  a path, not a secret
_STORAGE_PATH = "/extraction/extraction_step_data.json"
_EXECUTIONS_PATH = re.compile(r"/api/v1/workflow-builder/workflows/([^/]+)/executions(?:/([^/]+))?")


@dataclass(frozen=True)
class RequestRecord:
    """One request as the sandbox saw it.

    Attributes:
        at: When it came, in seconds of `time.monotonic()`.
        method: The HTTP method.
        path: The path as sent, with its query if there was one.
        workflow_id: The one in the path; None if there is none in it.
        workflow_execution_id: The one in the path; None if there is none in it.
        status: The status of the answer; None if a fault kept the client from a full answer.
        headers: As sent, authorization too, but with names in lower case.
    """

    at: float
    method: str
    path: str
    workflow_id: str | None
    workflow_execution_id: str | None
    status: int | None
    headers: Mapping[str, str]


class Sandbox:
    """A stand-in of the API, on 127.0.0.1 only, as a context manager.

        with Sandbox() as sandbox:
            sandbox.serve("wf", "ex", completed("wf", "ex", [step("Extract", [{"a": cell(1, 0.9)}])]))
            requests.get(sandbox.base_url + "/api/v1/...")

    It can be scripted before it starts and while it runs, from any thread. Started again after a stop, it
    listens on the same port and remembers everything.

    Args:
        port: 0 for any free one.
        client_id: What the token endpoint accepts.
        client_secret: What the token endpoint accepts.
        expires_in: Life of its tokens in seconds.
        requests_per_second: More requests than this are answered 429; None for no limit. Refused ones do not count.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        client_id: str = "sandbox-client",
        client_secret: str = "sandbox-secret",  # noqa: S107  of a stand-in on loopback
        expires_in: float = 3600,
        requests_per_second: float | None = None,
    ) -> None:
        if requests_per_second is not None and requests_per_second <= 0:
            raise ValueError("requests_per_second must be above 0")
        self.port = port
        self.client_id = client_id
        self.client_secret = client_secret
        self.expires_in = expires_in
        self._limit = None if requests_per_second is None else _RateLimit(requests_per_second)
        self._lock = threading.Lock()
        self._tokens: dict[str, float] = {}
        self._token_script: deque[Answer | None] = deque()
        self._scripts: dict[tuple[str, str], Script] = {}
        self._signed: dict[str, tuple[Answer, float]] = {}
        self._created: Counter[str] = Counter()
        self._requests: list[RequestRecord] = []
        self._asked: Counter[tuple[str, str]] = Counter()
        self._server: LoopbackServer | None = None

    def __enter__(self) -> "Sandbox":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> "Sandbox":
        """Listens from now on, and returns itself.

        Raises:
            OSError: The port is in use.
            RuntimeError: It is started already.
        """
        if self._server is not None:
            raise RuntimeError("the sandbox is started already")
        self._server = LoopbackServer(self.port, self._respond)
        self.port = self._server.server_port
        return self

    def stop(self) -> None:
        """Closes the port and every connection at once. Does nothing if it is not started."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT`.

        Raises:
            RuntimeError: It was never started and has no port yet.
        """
        if not self.port:
            raise RuntimeError("the sandbox has no port before it is started")
        return f"http://{LOOPBACK}:{self.port}"

    def issue_token(self, expires_in: float = 3600) -> str:
        """A valid bearer token, made without a request to the token endpoint; `expires_in` is in seconds."""
        claims = {"sub": self.client_id, "exp": int(time.time() + expires_in)}
        # Shaped like the documented JWT; it is valid because the sandbox remembers it.
        token = ".".join([_base64({"alg": "HS256", "typ": "JWT"}), _base64(claims), secrets.token_urlsafe(32)])
        with self._lock:
            self._tokens[token] = time.monotonic() + expires_in
        return token

    def revoke_tokens(self) -> None:
        """Makes every token issued so far invalid."""
        with self._lock:
            self._tokens.clear()

    def add(self, workflow_id: str, execution_id: str, *replies: AnyReply) -> None:
        """Scripts an execution: one reply for each GET with a valid token; the last one is repeated.

        Replaces what the execution did before.
        """
        self._register(workflow_id, execution_id, SequenceScript(replies))

    def serve(self, workflow_id: str, execution_id: str, payload: AnyReply, after: float | None = 0.0) -> None:
        """Serves an execution that runs `after` seconds, counted from its first GET, then answers `payload`.

        `after=None` never ends. Replaces what the execution did before.
        """
        self._register(workflow_id, execution_id, TimedScript(workflow_id, execution_id, payload, after=after))

    def serve_demo(self) -> list[tuple[str, str]]:
        """Serves the executions of `demo_executions()`; returns their workflow and execution ids."""
        executions = data.demo_executions()
        for execution in executions:
            self.serve(execution.workflow_id, execution.execution_id, execution.payload, execution.after)
        return [(execution.workflow_id, execution.execution_id) for execution in executions]

    def script_token(self, *replies: AnyReply | None) -> None:
        """Scripts the token endpoint: one reply for each request, whatever it sends; the last one is repeated.

        For a reply of None it answers as without a script. Replaces the script before; no replies at all end it.
        """
        answers = deque(None if reply is None else prepare(reply) for reply in replies)
        with self._lock:
            self._token_script = answers

    def sign(self, body: AnyReply, *, expires_in: float = 3600) -> str:
        """Stores what a step's `data` holds; returns a signed URL of it, as deliveries in the format `url` have.

        Args:
            body: What the URL answers; after `expires_in` seconds it is 403.
        """
        signature = secrets.token_urlsafe(32)
        with self._lock:
            self._signed[signature] = prepare(body), time.monotonic() + expires_in
        return f"{self.base_url}{_STORAGE_PATH}?sv=2024-11-04&sig={signature}"

    @property
    def requests(self) -> list[RequestRecord]:
        """A copy of the requests so far, in the order in which they were answered."""
        with self._lock:
            return list(self._requests)

    def asked(self, workflow_id: str, execution_id: str) -> int:
        """How many GETs have come for an execution so far, refused ones included."""
        with self._lock:
            return self._asked[workflow_id, execution_id]

    def _register(self, workflow_id: str, execution_id: str, script: Script) -> None:
        with self._lock:
            self._scripts[workflow_id, execution_id] = script

    def _respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        at = time.monotonic()
        route = path.partition("?")[0]
        match = _EXECUTIONS_PATH.fullmatch(route)
        workflow_id, execution_id = (part and unquote(part) for part in match.groups()) if match else (None, None)
        retry_after = self._limit.refuse(at) if self._limit and route != _STORAGE_PATH else None
        if retry_after is not None:
            # In HTTP, `Retry-After` has whole seconds.
            answer = prepare(error(429, "Rate limit exceeded", {"Retry-After": str(math.ceil(retry_after))}))
        elif route == _TOKEN_PATH:
            answer = self._answer_token(method, body)
        elif route == _STORAGE_PATH:
            answer = self._answer_signed(path, at)
        elif (refusal := self._refuse_token(headers.get("authorization", ""), at)) is not None:
            answer = refusal
        elif workflow_id is None:
            answer = _NOT_FOUND
        elif execution_id is None:
            answer = self._create(workflow_id, at) if method == "POST" else _METHOD_NOT_ALLOWED
        elif method == "GET":
            answer = self._get(workflow_id, execution_id, at)
        else:
            answer = _METHOD_NOT_ALLOWED
        status = answer.status if answer.fault in (None, "empty") else None
        record = RequestRecord(at, method, path, workflow_id, execution_id, status, headers)
        # Before the answer is sent, so that whoever has the answer finds the record.
        with self._lock:
            self._requests.append(record)
            if method == "GET" and workflow_id is not None and execution_id is not None:
                self._asked[workflow_id, execution_id] += 1
        return answer

    def _answer_signed(self, path: str, at: float) -> Answer:
        with self._lock:
            answer, expires_at = self._signed.get(path.rpartition("sig=")[2], (_NOT_SIGNED, 0.0))
        return answer if at < expires_at else _NOT_SIGNED

    def _answer_token(self, method: str, body: bytes) -> Answer:
        with self._lock:
            script = self._token_script
            scripted = (script.popleft() if len(script) > 1 else script[0]) if script else None
        if scripted is not None:
            return scripted
        if method != "POST":
            return _METHOD_NOT_ALLOWED
        try:
            sent = json.loads(body)
        except ValueError:
            sent = None
        if not isinstance(sent, dict):
            detail = [{"loc": ["body"], "msg": "value is not a valid dict", "type": "type_error.dict"}]
            return prepare(error(422, detail))
        missing = [name for name in ("client_id", "client_secret") if name not in sent]
        if missing:
            return prepare(
                error(
                    422,
                    [
                        {"loc": ["body", name], "msg": "field required", "type": "value_error.missing"}
                        for name in missing
                    ],
                )
            )
        if (sent["client_id"], sent["client_secret"]) != (self.client_id, self.client_secret):
            return prepare(error(401, "Invalid client credentials"))
        token = self.issue_token(self.expires_in)
        return prepare({"access_token": token, "token_type": "bearer", "expires_in": self.expires_in})

    def _refuse_token(self, authorization: str, now: float) -> Answer | None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _MISSING_TOKEN
        with self._lock:
            expires_at = self._tokens.get(token.strip())
        return None if expires_at is not None and now < expires_at else _INVALID_TOKEN

    def _create(self, workflow_id: str, now: float) -> Answer:
        with self._lock:
            self._created[workflow_id] += 1
            number = self._created[workflow_id]
        execution = data.create_execution(workflow_id, number)
        self._register(
            workflow_id,
            execution.execution_id,
            TimedScript(
                workflow_id,
                execution.execution_id,
                execution.payload,
                after=execution.after,
                started_at=now,
            ),
        )
        return prepare(
            {
                "workflow_execution_id": execution.execution_id,
                "status": "running",
                "message": "Execution triggered successfully",
            }
        )

    def _get(self, workflow_id: str, execution_id: str, now: float) -> Answer:
        with self._lock:
            script = self._scripts.get((workflow_id, execution_id))
            return _NOT_FOUND if script is None else script.next(now)


class _RateLimit:
    """Lets at most `per_second` requests through in any second; refused ones do not count."""

    def __init__(self, per_second: float) -> None:
        self._count = max(1, int(per_second))
        self._window = self._count / per_second
        self._accepted: deque[float] = deque()
        self._lock = threading.Lock()

    def refuse(self, now: float) -> float | None:
        """Seconds until a request would be accepted again; None if this one is."""
        with self._lock:
            while self._accepted and self._accepted[0] <= now - self._window:
                self._accepted.popleft()
            if len(self._accepted) >= self._count:
                return self._accepted[0] + self._window - now
            self._accepted.append(now)
            return None


def _base64(claims: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


_NOT_SIGNED = prepare(error(403, "Signature not valid in the specified time frame"))
_NOT_FOUND = prepare(error(404))
_METHOD_NOT_ALLOWED = prepare(error(405))
_MISSING_TOKEN = prepare(error(401, "Missing bearer token"))
_INVALID_TOKEN = prepare(error(401, "Invalid or expired token"))
