"""Posts the ends of executions to an endpoint, as the API does with webhooks, and if told to goes wrong as it can.

Documented: both formats; network errors and 5xx are tried again with exponential backoff; any other answer than 2xx is
final. The sandbox's own: when, how long and how often it tries, and which deliveries go wrong.
"""

import heapq
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests

from further_source.sandbox.data import DemoExecution

__all__ = ["PushSettings", "Pusher"]

_ATTEMPTS = 8
_FIRST_WAIT = 1.0  # seconds before the second attempt; each later wait is twice as long
_TIMEOUT = 10.0
_HELD_BACK = 3.0  # seconds that a delivery comes late which others are to overtake
_PART = 2  # of a truncated body


@dataclass(frozen=True)
class PushSettings:
    """Where deliveries go, and what goes wrong on the way.

    Attributes:
        url: The endpoint.
        format: `inline`, or `url` for signed URLs in place of each step's data.
        headers: Sent with each, as the one with the key.
        faults: Of `doubled`, `reordered`, `dropped`, `expired` (only in the format `url`) and `truncated`. Of N faults,
            each befalls one execution in N + 1, and one in N + 1 is delivered as it should be. A None among them stands
            for no fault, so that more are delivered as they should be.
    """

    url: str
    format: str = "url"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    faults: Sequence[str | None] = ()


class Pusher:
    """Posts each execution once it ends, counted from `start`, in one thread.

    Args:
        executions: Those that never end are never posted.
        settings: Where to, and what goes wrong.
        sign: Makes a signed URL of a step's data that lives so many seconds.

    Attributes:
        counts: How many deliveries were `acknowledged`, `refused` (and will not be sent again), `given_up` and
            `dropped`.
    """

    def __init__(
        self, executions: Sequence[DemoExecution], settings: PushSettings, sign: Callable[[Any, float], str]
    ) -> None:
        self._settings = settings
        self._sign = sign
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, int, bytes]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox-push", daemon=True)
        self.counts: Counter[str] = Counter()
        ending = [execution for execution in executions if execution.after is not None]
        for number, execution in enumerate(ending):
            self._plan(execution, self._fault(number))

    def start(self) -> None:
        self._started = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Sends no more."""
        self._stopped.set()
        self._thread.join(_TIMEOUT)

    def join(self, timeout: float) -> bool:
        """Waits until nothing is left to be sent; false where that takes longer."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _fault(self, number: int) -> str | None:
        faults = (*self._settings.faults, None)
        return faults[number % len(faults)]

    def _plan(self, execution: DemoExecution, fault: str | None) -> None:
        if fault == "dropped":
            self.counts["dropped"] += 1
            return
        at = execution.after or 0.0
        body = json.dumps(self._delivery(execution.payload, expired=fault == "expired")).encode()
        if fault == "truncated":
            body = body[: len(body) // _PART]
        self._add(at + _HELD_BACK if fault == "reordered" else at, 1, body)
        if fault == "doubled":
            self._add(at, 1, body)

    def _delivery(self, payload: Mapping[str, Any], *, expired: bool) -> Mapping[str, Any]:
        if self._settings.format == "inline" or "steps" not in payload:
            return payload
        lives = 0.0 if expired else 3600.0
        steps = [{**step, "data": {"url": self._sign(step["data"], lives)}} for step in payload["steps"]]
        return {**payload, "steps": steps}

    def _add(self, at: float, attempt: int, body: bytes) -> None:
        heapq.heappush(self._due, (at, next(self._numbers), attempt, body))

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False  # the endpoint is asked, and no proxy
            while self._due and not self._stopped.is_set():
                at, _, attempt, body = heapq.heappop(self._due)
                if self._stopped.wait(max(0.0, self._started + at - time.monotonic())):
                    return
                self._send(session, attempt, body)

    def _send(self, session: requests.Session, attempt: int, body: bytes) -> None:
        status = self._post(session, body)
        if status is not None and 200 <= status < 300:
            self.counts["acknowledged"] += 1
        elif status is not None and status < 500:
            self.counts["refused"] += 1
        elif attempt == _ATTEMPTS:
            self.counts["given_up"] += 1
        else:
            wait = _FIRST_WAIT * 2 ** (attempt - 1)
            self._add(time.monotonic() - self._started + wait, attempt + 1, body)

    def _post(self, session: requests.Session, body: bytes) -> int | None:
        headers = {"Content-Type": "application/json", **self._settings.headers}
        try:
            with session.post(
                self._settings.url, body, headers=headers, timeout=_TIMEOUT, allow_redirects=False, stream=True
            ) as answer:
                return answer.status_code
        except requests.RequestException:
            return None
