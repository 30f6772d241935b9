"""Deliveries over real files and real HTTP into a real DuckDB."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt
import pytest

from further_source import ConfigurationError, run_in_slices
from further_source.executions import ExecutionId
from further_source.forgetting import forget
from further_source.sandbox import Sandbox, cell, completed, error, failed, step
from tests.conftest import MakePipeline
from tests.inbox.conftest import MakeWebhooks
from tests.support.deliveries import by_url, failing, files, inline, outcomes, store
from tests.support.loading import WORKFLOW, asked, query, records, source_of, tables, wide
from tests.support.slow import few_of

NO_CREDENTIALS: dict[str, Any] = {"client_id": "", "client_secret": ""}
Write = Callable[[dict[str, Any]], dict[str, Any]]

HELD = [
    completed(
        WORKFLOW,
        "a",
        [
            step(
                "Extract",
                [{"premium": cell(1200.5, 0.9), "note": cell("tomorrow", None)}, {"premium": cell("n/a", 0.2)}],
                schema={"fields": ["premium"]},
                metadata={"pages": 2},
            ),
            step("Summary", [{"big": cell(2**70, 1), "list": cell([1, {"b": None}], 0.5)}]),
        ],
        metadata={"external_id": "X-1"},
    ),
    completed(WORKFLOW, "b", [step("Extract", [])], metadata={"external_id": "X-2"}),
    failed(WORKFLOW, "c", metadata={"external_id": "X-3"}, error={"code": 7}),
    inline("d", {"name": "Größe"}),
]


def loaded(pipeline: dlt.Pipeline) -> dict[str, list[dict[str, Any]]]:
    """All that is in the tables, but for when and how often the API was asked."""
    asked_when = ("poll_count", "poll_first_at", "poll_last_at")
    return {name: records(pipeline, name, *asked_when) for name in sorted(tables(pipeline))}


@pytest.fixture
def polled(sandbox: Sandbox, make_pipeline: MakePipeline, tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """What is loaded of `HELD` by polling."""
    for payload in HELD:
        sandbox.serve(WORKFLOW, payload["workflow_execution_id"], payload)
    pipeline = make_pipeline(
        pipeline_name="polled", destination=dlt.destinations.duckdb(str(tmp_path / "polled.duckdb"))
    )
    pipeline.run(source_of(sandbox, ["a", "b", "c", "d"]))
    return loaded(pipeline)


@pytest.mark.parametrize("way", few_of(["inline", "url", "mixture", "lines.gz"]))
def test_deliveries_give_what_polling_gives(
    sandbox: Sandbox,
    pipeline: dlt.Pipeline,
    inbox: Path,
    webhooks: MakeWebhooks,
    polled: dict[str, list[dict[str, Any]]],
    way: str,
) -> None:
    as_url = {"url": "abcd", "mixture": "ad"}.get(way, "")
    deliveries = [
        by_url(sandbox, payload) if payload["workflow_execution_id"] in as_url else payload for payload in HELD
    ]
    text = "\n".join(map(json.dumps, deliveries)).encode()
    if way == "lines.gz":
        store(inbox, "all.jsonl.gz", gzip.compress(text))
    else:
        for delivery in deliveries:
            store(inbox, f"{delivery['workflow_execution_id']}.json", delivery)
    before = asked(sandbox)

    report = run_in_slices(pipeline, webhooks(**NO_CREDENTIALS))

    assert loaded(pipeline) == polled
    assert asked(sandbox) == before
    assert report.listed == 4
    assert report.ended == {"completed": 3, "failed": 1}
    assert report.deliveries == {"delivered": 4}
    assert {row["poll_count"] for row in records(pipeline, "executions")} == {0}


@pytest.mark.slow
def test_a_large_file_behind_a_url_is_loaded_whole(
    sandbox: Sandbox, pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    rows = [{"number": number, "text": "x" * 300} for number in range(10_000)]
    store(inbox, "a.json", by_url(sandbox, inline("a", *rows)))

    run_in_slices(pipeline, webhooks())

    assert query(pipeline, "SELECT count(*), sum(value_number) FROM cells") == [(20_000, sum(range(10_000)))]
    assert outcomes(pipeline) == {"a": "completed"}


# What becomes of the files


def test_what_is_loaded_is_archived_by_day(pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks) -> None:
    store(inbox, "2026/11/a.json", inline("a"))
    store(inbox, "b.json", inline("b"))

    run_in_slices(pipeline, webhooks())

    [first, second] = files(inbox)
    day = first.split("/")[1]
    assert (first, second) == (f"archive/{day}/2026/11/a.json", f"archive/{day}/b.json")


@pytest.mark.slow
def test_an_archived_file_is_never_written_over(pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks) -> None:
    for execution_id in "ab":
        store(inbox, "same.json", inline(execution_id))
        run_in_slices(pipeline, webhooks())

    archived = [file for file in files(inbox) if file.startswith("archive/")]
    assert [file.rpartition("/")[2] for file in archived] == ["same-2.json", "same.json"]
    assert outcomes(pipeline) == {"a": "completed", "b": "completed"}


@pytest.mark.slow
def test_what_is_loaded_is_deleted_or_left_if_wanted(
    pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    store(inbox, "a.json", inline("a"))

    run_in_slices(pipeline, webhooks(inbox_loaded="leave"))
    assert files(inbox) == ["a.json"]

    report = run_in_slices(pipeline, webhooks(inbox_loaded="delete"))
    assert files(inbox) == []
    assert report.deliveries == {"delivered": 1, "doubled": 1}
    assert outcomes(pipeline) == {"a": "completed"}


def test_nothing_is_put_away_before_its_load_is_committed(
    make_pipeline: MakePipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    """A plain `pipeline.run` cannot be told when it is; the next run finds in the ledger what is loaded."""
    pipeline = make_pipeline()
    store(inbox, "a.json", inline("a"))

    pipeline.run(webhooks())
    assert files(inbox) == ["a.json"]

    pipeline.run(webhooks())
    assert [file.rpartition("/")[2] for file in files(inbox)] == ["a.json"]
    assert files(inbox)[0].startswith("archive/")
    assert outcomes(pipeline) == {"a": "completed"}


@pytest.mark.slow
def test_a_file_stays_until_all_that_is_in_it_is_settled(
    sandbox: Sandbox, pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    lines = [inline("a"), by_url(sandbox, inline("b"), expires_in=0), inline("a")]
    store(inbox, "all.jsonl", *lines)

    report = run_in_slices(pipeline, webhooks(**NO_CREDENTIALS))
    assert files(inbox) == ["all.jsonl"]
    assert outcomes(pipeline) == {"a": "completed", "b": "unreachable"}
    assert report.deliveries == {"delivered": 3, "doubled": 1}

    sandbox.serve(WORKFLOW, "b", inline("b"))
    run_in_slices(pipeline, webhooks())
    assert [file.rpartition("/")[2] for file in files(inbox)] == ["all.jsonl"]
    assert files(inbox)[0].startswith("archive/")
    assert outcomes(pipeline) == {"a": "completed", "b": "completed"}


def test_a_file_that_cannot_be_moved_stays_and_is_told_of(
    pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks, log: list[str]
) -> None:
    store(inbox, "a.json", inline("a"))
    (inbox / "archive").write_text("in the way")

    run_in_slices(pipeline, webhooks())

    assert outcomes(pipeline) == {"a": "completed"}
    assert files(inbox) == ["a.json", "archive"]
    [told] = log
    assert "'a.json' cannot be put away" in told


# What is in the inbox


def test_hidden_files_and_directories_are_not_in_the_inbox(
    pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    names = [".half-written.json", ".git/a.json", "archive/2026-01-01/a.json", "quarantine/a.json"]
    for name in names:
        store(inbox, name, inline("a"))

    report = run_in_slices(pipeline, webhooks())

    assert report.deliveries == {}
    assert files(inbox) == sorted(names)


@pytest.mark.slow
def test_age_does_not_matter(pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks) -> None:
    store(inbox, "b.json", inline("b"))
    run_in_slices(pipeline, webhooks())
    os.utime(store(inbox, "a.json", inline("a")), (0, 0))
    run_in_slices(pipeline, webhooks())

    assert outcomes(pipeline) == {"a": "completed", "b": "completed"}


def test_what_is_no_delivery_goes_to_quarantine_with_the_reason_and_stops_nobody(
    pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks, log: list[str]
) -> None:
    bad = {
        "0.json": (b"<html>", "it is not JSON\n"),
        "1.json": (json.dumps(inline("a", {"name": "q"})).encode().replace(b'"q"', b'"\xff"'), "not UTF-8\n"),
        "2.json.gz": (gzip.compress(b"{}" * 9)[:-12], "it is not gzip, or cut short\n"),
        "3.jsonl.gz": (gzip.compress(b"{}" * 9)[:-12], "it is not gzip, or cut short\n"),
        "4": (b"", "it is empty\n"),
    }
    for name, (body, _) in bad.items():
        store(inbox, name, body)
    store(inbox, "5.json", inline("good"))

    report = run_in_slices(pipeline, webhooks())

    assert report.deliveries["quarantined"] == len(bad)
    assert outcomes(pipeline) == {"good": "completed"}
    for name, (body, reason) in bad.items():
        assert (inbox / "quarantine" / name).read_bytes() == body
        assert (inbox / "quarantine" / f"{name}.reason.txt").read_text().endswith(reason)
        assert not (inbox / name).exists()
    assert len(log) == len(bad)


def test_a_bad_line_goes_to_quarantine_and_the_others_are_loaded(
    pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    store(inbox, "all.jsonl", inline("a"), b"{", b"", inline("b"))

    report = run_in_slices(pipeline, webhooks())

    assert report.deliveries == {"delivered": 2, "quarantined": 1}
    assert outcomes(pipeline) == {"a": "completed", "b": "completed"}
    assert (inbox / "quarantine" / "all.jsonl.line-2.json").read_bytes() == b"{\n"
    assert not (inbox / "all.jsonl").exists()


@pytest.mark.slow
def test_a_delivery_that_inflates_without_end_goes_to_quarantine(
    pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    store(inbox, "bomb.json.gz", gzip.compress(b" " * 50_000_000))
    store(inbox, "bombs.jsonl.gz", gzip.compress(b" " * 50_000_000 + b"\n" + json.dumps(inline("a")).encode()))

    report = run_in_slices(pipeline, webhooks(max_answer_bytes=1_000_000))

    assert report.deliveries == {"delivered": 1, "quarantined": 2}
    assert outcomes(pipeline) == {"a": "completed"}
    reason = (inbox / "quarantine" / "bomb.json.gz.reason.txt").read_text()
    assert reason == "it is larger than max_answer_bytes (1000000)\n"


# Which of several counts


@pytest.mark.slow
def test_a_delivery_of_what_the_ledger_holds_is_counted_and_put_away(
    sandbox: Sandbox, pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    sandbox.serve(WORKFLOW, "a", inline("a", {"name": "polled"}))
    run_in_slices(pipeline, source_of(sandbox, ["a"]))
    store(inbox, "a.json", inline("a", {"name": "pushed"}))

    report = run_in_slices(pipeline, webhooks())

    assert report.deliveries == {"delivered": 1, "doubled": 1}
    assert not (inbox / "a.json").exists()
    assert query(pipeline, "SELECT value FROM cells") == [("polled",)]


@pytest.mark.slow
@pytest.mark.parametrize("listed", [True, False])
def test_what_was_forgotten_is_not_brought_back_by_a_delivery(
    pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks, listed: bool
) -> None:
    forget(pipeline, [ExecutionId(WORKFLOW, "gone")])
    store(inbox, "gone.json", inline("gone"))
    store(inbox, "stays.json", inline("stays"))
    executions = [f"{WORKFLOW}/gone"] if listed else None

    run_in_slices(pipeline, webhooks(executions=executions, reload=True))

    assert not (inbox / "gone.json").exists()
    assert outcomes(pipeline) == {"stays": "completed"}
    assert query(pipeline, "SELECT DISTINCT workflow_execution_id FROM cells") == [("stays",)]


@pytest.mark.slow
def test_with_reload_a_delivery_replaces_what_is_loaded(
    pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    for rows in ([{"name": "first"}, {"name": "second"}], [{"name": "third"}]):
        store(inbox, "a.json", inline("a", *rows))
        run_in_slices(pipeline, webhooks(reload=True))

    assert query(pipeline, "SELECT value FROM cells WHERE _deleted IS NULL") == [("third",)]
    assert wide(pipeline, "rows_extract") == [{"workflow_execution_id": "a", "name": "third"}]


@pytest.mark.slow
def test_of_two_deliveries_the_first_ending_counts(pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks) -> None:
    running = {**inline("a"), "status": "running"}
    store(inbox, "1.json", running)
    store(inbox, "2.json", inline("a", {"name": "second"}))
    store(inbox, "3.json", inline("a", {"name": "third"}))

    report = run_in_slices(pipeline, webhooks(**NO_CREDENTIALS))

    assert report.deliveries == {"delivered": 3, "doubled": 2}
    assert query(pipeline, "SELECT value FROM cells") == [("second",)]
    assert all(file.startswith("archive/") for file in files(inbox))


# What the API is asked for


def test_what_a_delivery_leaves_open_is_asked_of_the_api_in_the_same_run(
    sandbox: Sandbox, pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    store(inbox, "1.json", by_url(sandbox, inline("expired"), expires_in=0))
    store(inbox, "2.json", {**inline("empty"), "steps": []})
    store(inbox, "3.json", {**inline("early"), "status": "running"})
    store(inbox, "4.json", {**inline("elsewhere"), "steps": [{"data": {"url": "https://example.com/x?sig=SECRET"}}]})
    store(inbox, "5.json", inline("whole"))
    for execution_id in ("expired", "empty", "early", "elsewhere", "whole"):
        sandbox.serve(WORKFLOW, execution_id, inline(execution_id, {"name": "from the API"}))

    report = run_in_slices(pipeline, webhooks())

    assert set(outcomes(pipeline).values()) == {"completed"}
    assert asked(sandbox) == {"expired": 1, "empty": 1, "early": 1, "elsewhere": 1}
    assert report.deliveries == {"delivered": 5, "reconciled": 4}
    assert query(pipeline, "SELECT count(*) FROM cells WHERE value = 'from the API'") == [(4,)]
    assert all(file.startswith("archive/") for file in files(inbox))


@pytest.mark.slow
def test_without_credentials_what_is_open_is_a_row_that_says_so_and_completes_when_a_run_can_ask(
    sandbox: Sandbox, pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    store(inbox, "1.json", by_url(sandbox, inline("expired"), expires_in=0))
    store(inbox, "2.json", {**inline("empty"), "steps": []})

    report = run_in_slices(pipeline, webhooks(**NO_CREDENTIALS))

    assert not report.nothing_reached
    rows = query(pipeline, "SELECT workflow_execution_id, poll_outcome, poll_error FROM executions ORDER BY 1")
    without = "and there are no credentials to ask the API with"
    assert rows == [
        ("empty", "unreachable", f"it was delivered without steps, {without}"),
        ("expired", "unreachable", f"its signed URL answered 403, {without}"),
    ]
    assert files(inbox) == ["1.json", "2.json"]

    for execution_id in ("expired", "empty"):
        sandbox.serve(WORKFLOW, execution_id, inline(execution_id))
    run_in_slices(pipeline, webhooks())

    assert outcomes(pipeline) == {"expired": "completed", "empty": "completed"}
    assert all(file.startswith("archive/") for file in files(inbox))


def test_what_the_api_does_not_settle_either_stays_in_the_inbox(
    sandbox: Sandbox, pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    store(inbox, "a.json", {**inline("a"), "steps": []})
    sandbox.add(WORKFLOW, "a", error(404))

    run_in_slices(pipeline, webhooks())

    assert outcomes(pipeline) == {"a": "not_found"}
    assert files(inbox) == ["a.json"]


def test_a_failed_execution_needs_no_steps(pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks) -> None:
    store(inbox, "a.json", failing("a"))

    run_in_slices(pipeline, webhooks(**NO_CREDENTIALS))

    assert outcomes(pipeline) == {"a": "failed"}


def test_verifying_loads_what_the_api_answers_and_no_body(
    sandbox: Sandbox, pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    store(inbox, "a.json", inline("a", {"name": "forged"}))
    store(inbox, "b.json", inline("b", {"name": "invented"}))
    sandbox.serve(WORKFLOW, "a", inline("a", {"name": "true"}))

    run_in_slices(pipeline, webhooks(verify_deliveries=True))

    assert outcomes(pipeline) == {"a": "completed", "b": "not_found"}
    assert query(pipeline, "SELECT value FROM cells") == [("true",)]


def test_verifying_needs_credentials(webhooks: MakeWebhooks) -> None:
    with pytest.raises(ConfigurationError, match="no credentials"):
        webhooks(verify_deliveries=True, **NO_CREDENTIALS)


# What is listed beside


@pytest.mark.slow
def test_a_listed_execution_is_asked_once_the_grace_is_over(
    sandbox: Sandbox, pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    for execution_id in ("a", "late"):
        sandbox.serve(WORKFLOW, execution_id, inline(execution_id))
    store(inbox, "a.json", inline("a"))
    listed = [(WORKFLOW, "a"), (WORKFLOW, "late")]

    report = run_in_slices(pipeline, webhooks(executions=listed, push_grace=600))
    assert (report.listed, report.remaining) == (2, 1)
    assert report.deliveries == {"delivered": 1, "awaited": 1}
    assert outcomes(pipeline) == {"a": "completed", "late": "running"}
    [(seen,)] = query(pipeline, "SELECT _dlt_load_id FROM executions WHERE workflow_execution_id = 'late'")

    report = run_in_slices(pipeline, webhooks(executions=listed, push_grace=600))
    assert report.deliveries == {"awaited": 1}
    assert query(pipeline, "SELECT _dlt_load_id FROM executions WHERE poll_outcome = 'running'") == [(seen,)]
    assert asked(sandbox) == {}

    report = run_in_slices(pipeline, webhooks(executions=listed, push_grace=0.001))
    assert report.deliveries == {"never_delivered": 1, "reconciled": 1}
    assert outcomes(pipeline) == {"a": "completed", "late": "completed"}
    assert asked(sandbox) == {"late": 1}


def test_a_delivery_that_comes_within_the_grace_replaces_the_row_that_waits(
    sandbox: Sandbox, pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    listed = [(WORKFLOW, "late")]
    run_in_slices(pipeline, webhooks(executions=listed))
    store(inbox, "late.json", inline("late"))

    report = run_in_slices(pipeline, webhooks(executions=listed))

    assert report.all_completed
    assert outcomes(pipeline) == {"late": "completed"}
    assert asked(sandbox) == {}


@pytest.mark.slow
def test_what_was_asked_before_is_asked_again_whatever_the_grace(
    sandbox: Sandbox, pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    run_in_slices(pipeline, source_of(sandbox, ["a"]))
    assert outcomes(pipeline) == {"a": "not_found"}
    sandbox.serve(WORKFLOW, "a", inline("a"))

    run_in_slices(pipeline, webhooks(executions=[(WORKFLOW, "a")], push_grace=600))

    assert outcomes(pipeline) == {"a": "completed"}


def test_without_credentials_what_never_came_is_a_row_that_says_so(
    pipeline: dlt.Pipeline, webhooks: MakeWebhooks
) -> None:
    report = run_in_slices(pipeline, webhooks(executions=[(WORKFLOW, "a")], push_grace=0, **NO_CREDENTIALS))

    assert report.deliveries == {"never_delivered": 1}
    assert query(pipeline, "SELECT poll_outcome, poll_error FROM executions") == [
        ("unreachable", "no delivery came, and there are no credentials to ask the API with")
    ]


# Many


@pytest.mark.slow
def test_loads_are_cut_and_files_put_away_load_by_load(
    pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    for number in range(6):
        store(inbox, f"{number}.json", inline(f"e{number}", *[{"name": "x" * 1000}] * 2500))
    left: list[int] = []

    run_in_slices(
        pipeline,
        webhooks(commit_interval=0),
        on_progress=lambda report: left.append(sum("/" not in file for file in files(inbox))),
    )

    assert left[-1] == 0
    assert any(0 < number < 6 for number in left)
    assert query(pipeline, "SELECT count(*) FROM cells") == [(15_000,)]
    assert len(query(pipeline, "SELECT DISTINCT _dlt_load_id FROM executions")) > 1


def test_a_stop_leaves_what_is_not_loaded_in_the_inbox(
    pipeline: dlt.Pipeline, inbox: Path, webhooks: MakeWebhooks
) -> None:
    for number in range(6):
        store(inbox, f"{number}.json", inline(f"e{number}", *[{"name": "x" * 1000}] * 2500))
    stopped = False

    def stop_now(report: Any) -> None:
        nonlocal stopped
        stopped = stopped or report.ended.total() > 0

    run_in_slices(pipeline, webhooks(commit_interval=0), stop=lambda: stopped, on_progress=stop_now)

    there = outcomes(pipeline)
    left = {file for file in files(inbox) if "/" not in file}
    assert 0 < len(there) < 6
    assert {f"{name[1:]}.json" for name in there} | left == {f"{number}.json" for number in range(6)}
    assert not {f"{name[1:]}.json" for name in there} & left


def test_an_inbox_that_is_not_there_is_wrong_configuration(webhooks: MakeWebhooks) -> None:
    with pytest.raises(ConfigurationError, match="no such directory"):
        webhooks(inbox="elsewhere")
