"""Many small executions: how many are asked and loaded in a second."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from benchmarks.measure import timed
from benchmarks.payloads import WORKFLOW_ID, execution_ids
from benchmarks.serve import TOKEN, serving

_THREADS = 8


def bare_loop(executions: int, rows: int, fields: int) -> dict[str, Any]:
    """A `requests.Session` in each of as many threads as we have workers, that throws the answers away."""
    result: dict[str, Any] = {"executions": executions}
    local = threading.local()
    with serving(executions, rows, fields) as base_url:

        def get(execution_id: str) -> str:
            if not hasattr(local, "session"):
                local.session = requests.Session()
                local.session.headers["Authorization"] = f"Bearer {TOKEN}"
            url = f"{base_url}/api/v1/workflow-builder/workflows/{WORKFLOW_ID}/executions/{execution_id}"
            return str(local.session.get(url, timeout=60).json()["status"])

        with timed(result), ThreadPoolExecutor(_THREADS) as pool:
            assert all(status == "completed" for status in pool.map(get, execution_ids(executions)))
    return result
