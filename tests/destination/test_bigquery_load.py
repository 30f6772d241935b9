"""What loads send to BigQuery, seen on the way to its stand-in, and what becomes of refusals that Google documents."""

import re
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from further_source.sandbox import Sandbox, running
from tests.destination.bigquery_proxy import Traffic, proxy, refusal
from tests.support.command import WORKFLOW, Command, asked, finish, ids, loaded, serve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.bigquery,
    # Of Google's client: it would rather read by the Storage API, which needs a package and a role more.
    pytest.mark.filterwarnings("ignore:Cannot create BigQuery Storage client:UserWarning"),
]

DATASET = "further_data"
TABLES = {"executions", "steps", "cells", "rows_extract"}
CHANGE = re.compile(r"\b(DELETE FROM|INSERT INTO|UPDATE|MERGE INTO|TRUNCATE TABLE)\s+([`\w.]+)")
READ = re.compile(r"\b(?:FROM|JOIN|UPDATE)\s+(`[`\w.]+)")
QUOTA = refusal(403, "quotaExceeded", "Your table exceeded quota for imports or query appends per table")
REFUSALS = {
    "conflict": refusal(
        400, "invalidQuery", "Could not serialize access to table insurer:x.executions due to concurrent update"
    ),
    "aborted": refusal(400, "invalidQuery", "Transaction is aborted due to concurrent update against table executions"),
    "queue": refusal(
        400,
        "resourcesExceeded",
        "Resources exceeded during query execution: Too many DML statements outstanding against table, limit is 20.",
    ),
    "rate": refusal(403, "rateLimitExceeded", "Exceeded rate limits: too many table update operations for this table"),
}


class Loads:
    """The command, with a dataset of its own, and what it sends."""

    def __init__(self, command: Command, sandbox: Sandbox, traffic: Traffic, dataset: str) -> None:
        self.command, self.sandbox, self.traffic, self.dataset = command, sandbox, traffic, dataset

    def arguments(self, *names: str) -> list[str]:
        return [*ids(names), "--destination", "bigquery", "--dataset", self.dataset, "--quiet"]

    def load(self, *names: str, code: int = 0, options: tuple[str, ...] = ()) -> str:
        self.traffic.statements.clear()
        self.traffic.load_jobs.clear()
        return loaded(self.command.run_here(*self.arguments(*names), *options), code).stderr

    def changes(self) -> Counter[tuple[str, str]]:
        """The statements that change tables of data, by their first words and `DATASET.TABLE`."""
        found = (match.groups() for statement in self.traffic.statements for match in CHANGE.finditer(statement))
        changed = ((words, self._name(table)) for words, table in found)
        return Counter(change for change in changed if change[1].rpartition(".")[2] in TABLES)

    def tables_read(self) -> int:
        """How many tables queries name, each counted again for each query; at least 10 MB are billed for each."""
        return sum(len(set(READ.findall(statement))) for statement in self.traffic.statements)

    def _name(self, table: str) -> str:
        return ".".join(table.replace("`", "").split(".")[-2:]).replace(self.dataset, DATASET)

    def rows(self, sql: str) -> list[Any]:
        url = f"{self.traffic.url}/bigquery/v2/projects/insurer/queries"
        body = {"query": sql.format(self.dataset), "useLegacySql": False}
        answer = requests.post(url, json=body, timeout=60).json()
        return [tuple(column["v"] for column in row["f"]) for row in answer.get("rows", [])]


@pytest.fixture
def loads(bigquery_environment: dict[str, str], sandbox: Sandbox, tmp_path: Path) -> Iterator[Loads]:
    if "BIGQUERY_EMULATOR_HOST" not in bigquery_environment:
        pytest.skip("looks at what is sent to the stand-in; without BIGQUERY_PROJECT")
    with proxy(bigquery_environment["BIGQUERY_EMULATOR_HOST"]) as traffic:
        command = Command(tmp_path, sandbox, max_wait=0)
        command.environment.update({**bigquery_environment, "BIGQUERY_EMULATOR_HOST": traffic.url})
        yield Loads(command, sandbox, traffic, f"loads_{uuid.uuid4().hex[:8]}")


def test_a_load_of_what_is_new_deletes_from_executions_alone(loads: Loads) -> None:
    serve(loads.sandbox, "a", {"x": 1})
    serve(loads.sandbox, "b", {"x": 2})
    loads.sandbox.serve(WORKFLOW, "late", running(WORKFLOW, "late"))
    loads.load("a", "late")

    loads.load("b", "late")
    assert loads.changes() == {
        ("TRUNCATE TABLE", "further_data_staging.executions"): 1,
        ("DELETE FROM", "further_data.executions"): 1,
        ("INSERT INTO", "further_data.executions"): 1,
    }
    assert Counter(table for _, table in loads.traffic.load_jobs) == dict.fromkeys(TABLES, 1)
    # Of the tables that grow no query reads more than these, other than by ids.
    whole = [text for text in loads.traffic.statements if re.search(r"\.`(cells|steps|rows_extract)`", text)]
    whole = [text for text in whole if "`workflow_execution_id` IN ('b', 'late')" not in text]
    assert [re.sub(r"`insurer`\.`\w+`\.", "", text) for text in whole] == [
        "SELECT (SELECT coalesce(sum(`row_count`), 0) FROM `steps`) - (SELECT count(*) FROM `rows_extract`)"
    ]
    assert 20 < loads.tables_read() <= 30

    loads.load("a", options=("--reload",))
    assert loads.changes().keys() >= {("DELETE FROM", f"further_data.{table}") for table in TABLES}


def test_a_change_that_is_refused_for_others_is_made_a_moment_later(loads: Loads) -> None:
    """What BigQuery says where a table is being changed, or where 20 changes wait; each once, one after the other."""
    left = list(REFUSALS)

    def refuse(what: str) -> dict[str, Any] | None:
        is_merge = f".`{loads.dataset}`.`executions`" in what and "DELETE FROM" in what
        return REFUSALS[left.pop(0)] if left and is_merge else None

    serve(loads.sandbox, "a", {"x": 1})
    serve(loads.sandbox, "b", {"x": 2})
    loads.load("a")
    loads.traffic.refuse = refuse
    told = loads.load("b")

    assert left == []
    assert told.count("retried in load") == len(REFUSALS) - 1  # that of the rate Google's client does again by itself
    assert loads.rows("SELECT workflow_execution_id FROM {}.executions ORDER BY 1") == [("a",), ("b",)]
    assert loads.rows("SELECT workflow_execution_id, x FROM {}.rows_extract ORDER BY 1") == [("a", "1.0"), ("b", "2.0")]


def test_load_jobs_beyond_the_quota_wait_for_a_later_run(loads: Loads) -> None:
    serve(loads.sandbox, "a", {"x": 1})
    loads.traffic.refuse = lambda what: QUOTA if what == f"load {loads.dataset}.cells" else None
    told = loads.load("a", code=1)
    assert "exceeded quota for imports" in told
    assert "waits in the pending package" in told

    loads.traffic.refuse = lambda what: None
    loads.load("a")
    assert asked(loads.sandbox) == {"a": 1}
    assert loads.rows("SELECT count(*) FROM {}.cells") == [("1",)]


def test_parts_load_side_by_side_into_bigquery(loads: Loads) -> None:
    names = [f"ex{number}" for number in range(6)]
    for number, name in enumerate(names):
        serve(loads.sandbox, name, {"Paid ($)": number, "Paid (%)" if number % 2 else "Paid": "none"})
    started = [loads.command.start(*loads.arguments(*names), "--shard", f"{part}/2") for part in (1, 2)]
    for load in started:
        loaded(finish(load))

    counts = "SELECT count(*), count(paid_dollar), count(paid_percent), count(paid) FROM {}.rows_extract"
    assert loads.rows(counts) == [("6", "6", "3", "3")]
    assert loads.rows("SELECT count(*), count(DISTINCT workflow_execution_id) FROM {}.executions") == [("6", "6")]
