"""Webhooks that go wrong in every way, while receiver and loader are killed: how fast, and what the API is asked.

10 % of the deliveries are dropped, 10 % come twice, 20 % late; half of all are inline, half by URL; 2 % of all have
a URL that has expired. `tests/receiver/test_campaign.py` is the same for fewer executions, and compares all tables.
"""

import random
import resource
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from benchmarks.measure import timed
from further_source.sandbox import Sandbox, cell, completed, step
from further_source.sandbox.data import DemoExecution
from further_source.sandbox.push import Pusher, PushSettings
from tests.support.command import WORKFLOW, Command, asked, cells_of, loaded, stored_cells
from tests.support.receiving import BY_KEY, KEY, Receiver

# In fiftieths, with the None that the sandbox adds. Expired is twice the share, for half of all have no URL.
_SHARES = [*["dropped"] * 5, *["doubled"] * 5, *["reordered"] * 10, *["expired"] * 2, *[None] * 27]
_SENDERS = 8


def campaign(executions: int, kills: int) -> dict[str, Any]:
    """Seconds until all is received, and of the last load; requests, and how many the dropped and expired need.

    Fails where a cell is missing, wrong or there twice.
    """
    payloads = [_payload(number) for number in range(executions)]
    result: dict[str, Any] = {}
    inbox = Path("inbox").absolute()
    inbox.mkdir()
    listed = Path("list").absolute()
    listed.write_text("\n".join(f"{WORKFLOW}/{one['workflow_execution_id']}" for one in payloads))
    with Sandbox() as sandbox:
        for payload in payloads:
            sandbox.serve(WORKFLOW, payload["workflow_execution_id"], payload)
        command = Command(Path("push"), sandbox, inbox=inbox, delivery_hosts='["127.0.0.1"]', executions_file=listed)
        with timed(result, "receiving"):
            sending = _received(sandbox, payloads, inbox, command, kills)
        with timed(result, "loading"):
            loaded(command.run("--strict", "--quiet", push_grace=0))
        requests = asked(sandbox)
    counts = sum((pusher.counts for pusher in sending), Counter[str]())
    assert stored_cells(command) == cells_of(payloads)
    needed = counts["dropped"] + sum(_expired(part, len(payloads[part::_SENDERS])) for part in range(_SENDERS))
    return {**result, "acknowledged": counts["acknowledged"], "needed": needed, "requests": requests.total()}


def stored(files: int) -> dict[str, Any]:
    """Seconds of a load from an inbox of so many deliveries, a file each, and of the next, which finds them loaded.

    `load_mb` is the most memory that the process of a load held.
    """
    result: dict[str, Any] = {}
    inbox = Path("inbox").absolute()
    inbox.mkdir()
    for number in range(files):  # none is kept: `load_mb` begins with what this process holds
        (inbox / f"{number:06}.json").write_bytes(orjson.dumps(_payload(number)))
    with Sandbox() as sandbox:
        command = Command(Path("stored"), sandbox, inbox=inbox, inbox_loaded="leave")
        with timed(result, "loading"):
            loaded(command.run("--quiet"))
        with timed(result, "deciding"):
            loaded(command.run("--quiet"))
        assert not asked(sandbox)
    result["load_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    assert stored_cells(command) == cells_of([_payload(number) for number in range(files)])
    return result


def _payload(number: int) -> dict[str, Any]:
    rows = [{"name": cell(f"n{number}", 0.9), "amount": cell(number / 7, 0.5)} for _ in range(1 + number % 3)]
    return completed(WORKFLOW, f"e{number}", [step("Extract", rows)], metadata={"external_id": f"X{number}"})


def _received(
    sandbox: Sandbox, payloads: list[dict[str, Any]], inbox: Path, command: Command, kills: int
) -> list[Pusher]:
    """Sends all of them, and kills the receiver, and a load beside it, so many times meanwhile."""
    moments = random.Random(1)
    receiver = Receiver(inbox)
    sending = [_pusher(sandbox, payloads[part::_SENDERS], receiver.url, part) for part in range(_SENDERS)]
    for pusher in sending:
        pusher.start()
    for kill in range(1, kills + 1):
        while sum(pusher.counts["acknowledged"] for pusher in sending) < kill * len(payloads) // (kills + 2):
            time.sleep(0.02)
        receiver.process.kill()
        receiver.process.communicate()
        receiver = Receiver(inbox, *BY_KEY, "--port", str(receiver.port))
        load = command.start("--quiet", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with suppress(subprocess.TimeoutExpired):
            load.wait(moments.uniform(2, 20))
        load.kill()
        load.wait()
    assert all(pusher.join(3600) for pusher in sending)
    receiver.stop()
    assert not any(pusher.counts["given_up"] or pusher.counts["refused"] for pusher in sending)
    return sending


def _pusher(sandbox: Sandbox, payloads: list[dict[str, Any]], url: str, part: int) -> Pusher:
    posts = [DemoExecution(WORKFLOW, one["workflow_execution_id"], one, 0.0) for one in payloads]
    settings = PushSettings(url, "url" if part % 2 else "inline", KEY, _faults(part))
    return Pusher(posts, settings, lambda data, lives: sandbox.sign(data, expires_in=lives))


def _faults(part: int) -> list[str | None]:
    faults = [fault for fault in _SHARES if part % 2 or fault != "expired"]
    random.Random(part).shuffle(faults)
    return faults


def _expired(part: int, deliveries: int) -> int:
    faults = [*_faults(part), None]  # as the sandbox goes round them
    return sum(faults[number % len(faults)] == "expired" for number in range(deliveries))
