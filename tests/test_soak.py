"""Long runs: what a process holds does not grow with the loads it has made."""

import gc
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from further_source.executions import ExecutionId
from further_source.polling.outcomes import Answered
from further_source.polling.poll import poll_executions
from further_source.polling.workers import Poller
from further_source.sandbox import Sandbox, cell, completed, step
from further_source.settings import PollingSettings
from tests.support.virtual import (
    START_UTC,
    FakeApi,
    Outage,
    Reply,
    VirtualClock,
    VirtualWorkers,
    answer,
    fault,
    grant,
    listed,
    throttle,
    unauthorized,
)

PROJECT = Path(__file__).parents[1]
SLICES, PER_SLICE, SIZE = 1_000, 3, 100_000
RUNNING = answer("running", 0.2)
DONE = Reply(Answered("completed", {"status": "completed"}, size=SIZE), 0.2)
WARM = 35  # loads after which dlt's trace, of 100 steps at most, is as long as it gets


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors as Linux shows them")
@pytest.mark.parametrize("loads", [60, pytest.param(1_000, marks=pytest.mark.campaign)])
def test_a_process_that_loads_for_long_holds_no_more_than_after_its_first_loads(
    loads: int, sandbox: Sandbox, tmp_path: Path
) -> None:
    for number in range(30 * loads):
        name = f"ex-{number}"
        sandbox.serve(
            "wf", name, completed("wf", name, [step("S", [{"x": cell(f"{number} {row}", 0.5)} for row in range(300)])])
        )
    source = {
        "executions": [f"wf/ex-{number}" for number in range(30 * loads)],
        "base_url": sandbox.base_url,
        "access_token": sandbox.issue_token(),
        "max_requests_per_second": 2,
        "max_wait": 0,
        "commit_interval": 0.01,
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.soak",
            json.dumps({"directory": str(tmp_path), "loads": loads, "source": source}),
        ],
        cwd=PROJECT,
        env={**os.environ, "DATA_WRITER__DISABLE_COMPRESSION": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    after = json.loads(done.stdout.splitlines()[-1])
    assert len(after) == loads
    warm, last = after[WARM], after[-1]
    assert last["threads"] <= warm["threads"] + 1
    assert last["descriptors"] <= warm["descriptors"] + 2
    assert last["arrow"] <= warm["arrow"]
    # An execution that is kept has some 1,000 of Python's blocks of memory, and each load has one at least.
    assert last["blocks"] - warm["blocks"] < 15_000
    # DuckDB and the allocator keep more for a while, 10 MB in 70 loads; then no more.
    assert last["resident"] - warm["resident"] < 60_000_000


@pytest.mark.slow
def test_a_thousand_slices_of_polling_hold_no_more_than_the_first_ones() -> None:
    """In virtual time, hours of it, with tokens that expire, faults, 429s and outages.

    The poller alone: dlt takes a third of a second for a load, so that a thousand whole ones are left to the campaign.
    """
    scripts: dict[ExecutionId, list[Reply]] = {}
    beginnings: list[list[Reply]] = [[], [RUNNING], [fault()], [throttle(20)], [RUNNING, unauthorized()]]
    for number, execution in enumerate(listed(SLICES * PER_SLICE)):
        scripts[execution] = [*beginnings[number % len(beginnings)], DONE]
    clock = VirtualClock()
    api = FakeApi(
        clock, scripts, tokens=[grant(600, 0.1)], outages=[Outage(hour * 3600.0, hour * 3600.0 + 60) for hour in (1, 5)]
    )
    poll = partial(
        poll_executions,
        list(scripts),
        api,
        replace(PollingSettings(), max_requests_per_second=0.2),
        workers=VirtualWorkers(clock, api),
        clock=clock,
        now_utc=lambda: START_UTC,
        on_change=lambda state: None,
    )
    poller = Poller(poll, max_bytes=10 * SIZE)
    poller.start()
    held: list[Counter[str]] = []
    slices = ended = 0
    while not poller.exhausted:
        ended += len(poller.page(60, max_bytes=PER_SLICE * SIZE))
        slices += 1
        old = max(0, len(api.sent) - 50)
        api.sent[:old] = [api.sent[0]] * old  # so that the log keeps no tokens
        if slices % 100 == 50:
            held.append(objects_of_ours())
    assert poller.error is None
    assert ended == SLICES * PER_SLICE
    assert slices >= SLICES
    assert clock.since_start > 4 * 3600
    assert held[-1] - held[0] - Counter(dict.fromkeys(held[-1], 20)) == {}  # of no class more than 20 more


def objects_of_ours() -> Counter[str]:
    """How many objects there are of each class of the package."""
    kinds = (type(thing) for thing in gc.get_objects())
    return Counter(kind.__name__ for kind in kinds if str(kind.__module__).startswith("further_source"))
