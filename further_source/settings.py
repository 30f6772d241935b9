"""Constants and frozen settings; no logic.

The presets `simple`, `standard`, `complex` and `bulk` have the intervals of the API's own polling guidance; `default`
is its example.
"""

from dataclasses import dataclass

PRODUCTION_URL = "https://api.further.ai"
TOKEN_PATH = "/api/v1/oauth2/access_token"  # noqa: S105  a path, not a secret
EXECUTION_PATH = "/api/v1/workflow-builder/workflows/{workflow_id}/executions/{execution_id}"

SOURCE_NAME = "further_source"
PIPELINE_NAME = "further"
DATASET_NAME = "further_data"
DEMO_PIPELINE_NAME = "further_demo"

ID_PATTERN = r"[A-Za-z0-9_-]{1,128}"

MAX_FAILURES_IN_A_ROW = 10
MAX_UNREADABLE_IN_A_ROW = 3
OUTAGE_WITNESSES = 3  # executions that failed with no answer in between
MAX_RETRY_AFTER = 300.0  # seconds
SHORT_RETRY_AFTERS_IN_A_ROW = 3  # then no pause is shorter than the backoff
MAX_JITTER = 0.2  # of a wait
TOKEN_LEEWAY_SHARE = 0.1  # of a token's life
TOKEN_LEEWAY_MAX = 60.0  # seconds

LEASE_SECONDS = 180.0  # after which a machine that died keeps no other one out

MAX_ANSWER_BYTES = 1_000_000_000  # inflated

DELIVERY_HOSTS = ("*.blob.core.windows.net",)  # the API's documented signed URL is on one of these
MAX_LIST_BYTES = 1_000_000_000  # inflated
MAX_LIST_LINES = 10_000_000
MAX_LIST_LINE = 1_000_000  # characters
MAX_LIST_JSON = 250_000_000  # characters of one JSON document

MAX_FIELDS_PER_TABLE = 400


@dataclass(frozen=True)
class PollingPreset:
    """The seconds before the second request, the factor from each wait to the next, and the longest wait in seconds."""

    initial_interval: float
    backoff_factor: float
    max_interval: float


POLLING_PRESETS = {
    "default": PollingPreset(5, 1.5, 30),
    "simple": PollingPreset(3, 1.5, 5),
    "standard": PollingPreset(5, 1.5, 10),
    "complex": PollingPreset(10, 1.5, 15),
    "bulk": PollingPreset(15, 1.5, 30),
    "steady": PollingPreset(13, 1, 13),
}


@dataclass(frozen=True)
class PollingSettings:
    """When executions are asked again, and how fast.

    Intervals, `max_wait` and `outage_patience` are in seconds; `max_wait` counts from an execution's own first readable
    answer. With an `outage_patience` of 0, failures count also while the API as a whole is out. `terminal_statuses` are
    in lower case.
    """

    initial_interval: float = 5
    backoff_factor: float = 1.5
    max_interval: float = 30
    max_wait: float = 600
    max_requests_per_second: float = 10
    max_workers: int = 8
    outage_patience: float = 900
    terminal_statuses: frozenset[str] = frozenset({"completed", "failed"})
