"""An inbox, and a source of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dlt.extract import DltSource

from further_source import further_webhooks
from further_source.sandbox import Sandbox

MakeWebhooks = Callable[..., DltSource]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    directory = tmp_path / "inbox"
    directory.mkdir()
    return directory


@pytest.fixture
def webhooks(inbox: Path, sandbox: Sandbox) -> MakeWebhooks:
    """The source of the inbox, in a hurry; with the credentials of the sandbox unless it is told otherwise."""

    def make(**arguments: Any) -> DltSource:
        hurry: dict[str, Any] = {
            "base_url": sandbox.base_url,
            "client_id": sandbox.client_id,
            "client_secret": sandbox.client_secret,
            "initial_interval": 0.01,
            "max_interval": 0.01,
            "max_requests_per_second": 10_000,
            "max_wait": 0,
            "outage_patience": 0,
            "delivery_hosts": ["127.0.0.1"],
        }
        return further_webhooks(**{"inbox": str(inbox), **hurry, **arguments})

    return make
