"""Push and poll in one ledger, while receiver and loader are killed: the tables are those of polling alone."""

import itertools
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from further_source.sandbox import Sandbox, cell, completed, step
from further_source.sandbox.data import DemoExecution
from further_source.sandbox.push import Pusher, PushSettings
from tests.support.command import WORKFLOW, Command, asked, loaded, stored_cells
from tests.support.receiving import BY_KEY, KEY, Receiver, wait_until

EXECUTIONS = 2_000
KILLS = 3
# In fiftieths, with the None that the sandbox adds: 10 % dropped, 10 % doubled, 20 % reordered. 2 % of all have a URL
# that has expired: twice the share, for half of all have no URL.
SHARES = [*["dropped"] * 5, *["doubled"] * 5, *["reordered"] * 10, *["expired"] * 2, *[None] * 27]


def executions() -> list[DemoExecution]:
    made = []
    for number in range(EXECUTIONS):
        rows = [{"name": cell(f"n{number}", 0.9), "amount": cell(number / 7, 0.5)} for _ in range(1 + number % 3)]
        payload = completed(WORKFLOW, f"e{number}", [step("Extract", rows)], metadata={"external_id": f"X{number}"})
        made.append(DemoExecution(WORKFLOW, f"e{number}", payload, 0.0))
    return made


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    directory = tmp_path / "inbox"
    directory.mkdir()
    return directory


def pushers(sandbox: Sandbox, listed: list[DemoExecution], url: str) -> Iterator[Pusher]:
    """Half of them in each format."""
    half = len(listed) // 2
    for kind, part in (("inline", listed[:half]), ("url", listed[half:])):
        faults = [fault for fault in SHARES if kind == "url" or fault != "expired"]
        random.Random(kind).shuffle(faults)  # noqa: S311
        yield Pusher(
            part, PushSettings(url, kind, KEY, faults), lambda data, lives: sandbox.sign(data, expires_in=lives)
        )


def has_acknowledged(sending: list[Pusher], enough: int) -> bool:
    return sum(pusher.counts["acknowledged"] for pusher in sending) >= enough


@pytest.mark.slow
def test_the_tables_are_those_of_polling_alone(sandbox: Sandbox, inbox: Path, tmp_path: Path) -> None:
    listed = executions()
    for execution in listed:
        sandbox.serve(execution.workflow_id, execution.execution_id, execution.payload)
    by_push = Command(
        tmp_path / "push", sandbox, inbox=inbox, delivery_hosts='["127.0.0.1"]', executions_file=tmp_path / "list"
    )
    (tmp_path / "list").write_text("\n".join(f"{one.workflow_id}/{one.execution_id}" for one in listed))

    moments = random.Random(1)  # noqa: S311
    receiver = Receiver(inbox)
    sending = [*pushers(sandbox, listed, receiver.url)]
    for pusher in sending:
        pusher.start()
    for kill in range(1, KILLS + 1):
        enough = kill * EXECUTIONS // (KILLS + 2)
        wait_until(partial(has_acknowledged, sending, enough))
        receiver.process.kill()
        receiver.process.communicate()
        receiver = Receiver(inbox, *BY_KEY, "--port", str(receiver.port))
        load = by_push.start("--quiet")
        with suppress(subprocess.TimeoutExpired):
            load.wait(moments.uniform(2, 8))  # anywhere from its start to its end
        load.kill()
        load.communicate()
    assert all(pusher.join(300) for pusher in sending)
    receiver.stop()
    counts = sum((pusher.counts for pusher in sending), Counter[str]())
    files = [file for file in inbox.rglob("2*.json") if file.is_file()]
    assert len(files) >= counts["acknowledged"]
    assert counts["given_up"] == counts["refused"] == 0

    loaded(by_push.run("--strict", push_grace=0))
    requests = asked(sandbox)
    by_poll = Command(tmp_path / "poll", sandbox, executions_file=tmp_path / "list")
    loaded(by_poll.run("--strict"))

    assert stored_cells(by_push) == stored_cells(by_poll)
    for sql in (
        "SELECT workflow_execution_id, status, poll_outcome, metadata__external_id, cell_count FROM executions",
        "SELECT workflow_execution_id, step_index, step_name, row_count FROM steps",
        "SELECT workflow_execution_id, row_index, name, amount FROM rows_extract",
    ):
        assert sorted(by_push.query(sql), key=repr) == sorted(by_poll.query(sql), key=repr)
    # Asked is what was dropped or had expired, and hardly more: again only what a load that was killed had not loaded.
    lacking = counts["dropped"] + sum(1 for _ in expired(listed))
    assert len(requests) == lacking
    assert requests.total() <= 1.1 * lacking


def expired(listed: list[DemoExecution]) -> Iterator[Any]:
    faults = [*SHARES]
    random.Random("url").shuffle(faults)  # noqa: S311
    cycle = itertools.cycle([*faults, None])
    return (one for one, fault in zip(listed[len(listed) // 2 :], cycle, strict=False) if fault == "expired")
