"""What one request can come to. The client makes these, the poller decides by them."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Token:
    """A bearer token; times are seconds on the poller's clock, None where the life is unknown."""

    value: str = field(repr=False)
    renew_at: float | None = None
    expires_at: float | None = None


@dataclass(frozen=True)
class Answered:
    """A readable execution. `size` is that of its body in bytes."""

    status: str
    payload: dict[str, Any]
    size: int = 0


@dataclass(frozen=True)
class Refused:
    """A final word about one execution: `not_found`, `forbidden`, `rejected` or `invalid`."""

    poll_outcome: str
    error: str


@dataclass(frozen=True)
class Failure:
    """No usable answer this time: connection error, timeout, 408, 425, 5xx or an unreadable body.

    `unreadable` tells why a body that came whole cannot be read, always in the same words; else it is None.
    """

    error: str
    unreadable: str | None = None


@dataclass(frozen=True)
class Throttled:
    """429. `retry_after` is in seconds, None where the API did not say."""

    error: str
    retry_after: float | None = None


@dataclass(frozen=True)
class Unauthorized:
    """401 for the token that was sent; at the token endpoint, any refusal of the credentials."""

    error: str


Outcome = Answered | Refused | Failure | Throttled | Unauthorized
TokenOutcome = Token | Failure | Throttled | Unauthorized
