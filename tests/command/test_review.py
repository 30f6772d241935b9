"""`further-source review` and `threshold`: queues out, verdicts in, the page, and what is told of mistakes."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import requests

from further_source.command.main import main
from further_source.lock import only_server
from further_source.pipeline import pipeline_settings
from further_source.sandbox import Sandbox, cell, completed, step
from further_source.settings import PIPELINE_NAME
from tests.support.command import HANG, WORKFLOW, Command

Serve = Callable[..., tuple["subprocess.Popen[str]", str]]


@pytest.fixture(name="command")
def _command(command_here: Command) -> Command:
    return command_here


def load(sandbox: Sandbox, name: str, rows: list[dict[str, Any]], *options: str) -> None:
    sandbox.serve(WORKFLOW, name, completed(WORKFLOW, name, [step("Extract", rows)]))
    assert main(["load", f"{WORKFLOW}/{name}", "--quiet", *options]) == 0


def filled(path: Path, fill: Callable[[int, dict[str, str]], None]) -> None:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        fill(number, row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_a_queue_goes_out_and_comes_back(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    load(sandbox, "a", [{"x": cell("1", 0.4), "y": cell("2", 0.9), "z": cell("3", None)}])
    path = command.directory / "q.csv"
    assert main(["review", "export", "--below", "0.5", "--out", "q.csv"]) == 0
    assert capsys.readouterr().out == "2 cells to review in q.csv\n"

    filled(path, lambda number, row: row.update(verdict="corrected" if number else "correkt"))
    assert main(["review", "import", "q.csv"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2].rpartition(": ")[0] for line in lines] == [
        "q.csv: row 2, column verdict",
        "q.csv: row 3, column corrected_value",
    ]
    filled(path, lambda number, row: row.update(verdict="corrected", corrected_value=f"new {number}"))
    for added in (2, 0):
        assert main(["review", "import", "q.csv", "--reviewer", "ann", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["added"] == added
    assert command.query("SELECT field, value, review_state, reviewer FROM cells_final ORDER BY field") == [
        ("x", "new 1", "corrected", "ann"),
        ("y", "2", "none", None),
        ("z", "new 0", "corrected", "ann"),
    ]
    load(sandbox, "b", [{"x": cell("1", 0.4)}])  # loads go on beside the views


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["review", "export", "--below", "2", "--out", "q.csv"], "'2' is no number from 0 to 1"),
        (["review", "export", "--out", "q.pdf"], "ends with none of .csv, .xlsx, .json"),
        (["review", "export", "--out", "no/q.csv"], "--out no/q.csv: no file in a directory that exists"),
        (["review", "export", "--out", "pipe.csv"], "--out pipe.csv: no file in a directory that exists"),
        (["review", "export", "--out", "q.csv"], "nothing is loaded yet"),
        (["review", "import", "no.csv"], "no.csv: no such file or directory"),
        (["threshold", "--target-error", "0"], "'0' is not between 0 and 1"),
        (["review", "export", "--sample", "5", "--limit", "3", "--out", "q.csv"], "--limit: a sample that is cut"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    command: Command, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("pipe.csv").mkdir()
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    told = capsys.readouterr().err

    assert code == 2
    assert message in told
    assert told.count("\n") == 1
    assert not command.database.exists()


@pytest.mark.slow
def test_thresholds_follow_from_a_sample_and_decide_what_is_exported(
    command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"x": cell(str(n), n / 1000), "y": cell("y", 0.5)} for n in range(1, 1000)]
    load(sandbox, "a", rows)
    assert main(["review", "export", "--sample", "1500", "--out", "s.csv"]) == 0
    right = {"verdict": "correct"}
    wrong = {"verdict": "unreadable"}
    filled(
        command.directory / "s.csv",
        lambda _, row: row.update(wrong if row["field"] == "y" or float(row["confidence"]) < 0.3 else right),
    )
    assert main(["review", "import", "s.csv"]) == 0
    capsys.readouterr()

    assert main(["threshold", "--target-error", "0.01", "--json"]) == 0
    x, y = json.loads(capsys.readouterr().out)["thresholds"]
    assert (x["field"], y["field"], y["threshold"], y["cells_through"]) == ("x", "y", None, 0)
    assert 0.29 < x["threshold"] < 0.4
    assert x["cells_through"] == 1000 - round(x["threshold"] * 1000)
    assert main(["review", "export", "--out", "q.csv"]) == 0
    open_cells = command.query(
        "SELECT count(*) FROM cells_final WHERE review_verdict IS NULL "
        f"AND (field = 'y' OR confidence < {x['threshold']})"
    )
    assert f"{open_cells[0][0]} cells" in capsys.readouterr().out
    assert main(["threshold", "--target-error", "0.01", "--by", "step"]) == 0
    assert capsys.readouterr().out.startswith("Extract: from 0.5")  # above it there is no y


# The page


@pytest.fixture
def serve(command: Command) -> Iterator[Serve]:
    """Starts the page on a free port; gives its process and its URL."""
    started = []

    def start(*options: str) -> tuple["subprocess.Popen[str]", str]:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from further_source.command.main import further_source_command; further_source_command()",
                *("review", "serve", "--below", "1", "--port", "0", *options),
            ],
            cwd=command.directory,
            env=command.env(),
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        started.append(process)
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        return process, found[0]

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=HANG)


def shown_cell(url: str, reviewer: str) -> str:
    text = requests.get(f"{url}review", {"reviewer": reviewer}, timeout=HANG).text
    found = re.search(r'data-cell="(\w*)"', text)
    assert found is not None
    return found[1]


def say(url: str, reviewer: str, shown: str, action: str, **more: str) -> int:
    sent = {"reviewer": reviewer, "cell": shown, "action": action, **more}
    return requests.post(f"{url}verdicts", json=sent, timeout=HANG).status_code


def test_one_server_serves_a_dataset(command: Command, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    load(sandbox, "a", [{"x": cell("1", 0.5)}])
    settings = pipeline_settings(PIPELINE_NAME)
    with only_server(settings.pipelines_dir, settings.location, settings.dataset):
        assert main(["review", "serve", "--below", "1"]) == 75
    said = capsys.readouterr().err
    assert (said.count("\n"), "another server of reviews of dataset further_data" in said) == (1, True)


@pytest.mark.slow
def test_each_verdict_outlives_the_server_and_no_cell_is_given_to_two(
    command: Command, sandbox: Sandbox, serve: Serve
) -> None:
    load(sandbox, "a", [{name: cell(name, 0.5) for name in "abcd"}])
    process, url = serve()
    first, second = shown_cell(url, "ann"), shown_cell(url, "bob")
    assert first != second
    assert shown_cell(url, "ann") == first
    assert say(url, "bob", first, "correct") == 409
    assert say(url, "ann", first, "corrected", corrected_value="A") == 200
    process.send_signal(signal.SIGKILL)
    process.wait(HANG)
    reviews = "SELECT field, verdict, corrected_value, reviewer FROM reviews ORDER BY reviewed_at"
    assert command.query(reviews) == [("a", "corrected", "A", "ann")]

    _, url = serve()
    third = shown_cell(url, "ann")
    assert third == second  # the one that is done does not come again
    assert say(url, "ann", third, "unreadable") == 200
    assert say(url, "ann", "", "undo") == 200
    assert shown_cell(url, "ann") == third
    assert command.query("SELECT review_state, review_verdict FROM cells_final WHERE field = 'b'") == [("none", None)]
    load(sandbox, "b", [{"x": cell("1", 0.4)}])  # while the page is served


def test_the_page_answers_only_those_it_is_for(command: Command, sandbox: Sandbox, serve: Serve) -> None:
    load(sandbox, "a", [{"<b>": cell("<script>alert(1)</script>", 0.5)}])
    _, url = serve()

    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    led_here = requests.get(f"{url}review", {"reviewer": "evil"}, headers=elsewhere, timeout=HANG)
    assert "data-cell" not in led_here.text
    assert "Your name" in led_here.text
    page = requests.get(f"{url}review", {"reviewer": '"><script>'}, timeout=HANG)
    assert re.search(r'data-cell="\w', page.text)  # nobody else has it
    assert "<script>alert(1)" not in page.text
    assert '"><script>' not in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert requests.get(url, headers={"Host": "evil.example"}, timeout=HANG).status_code == 400
    form = requests.post(f"{url}verdicts", data={"reviewer": "x", "action": "undo"}, timeout=HANG)
    assert form.status_code == 415
    assert url.startswith("http://127.0.0.1:")
    for host in ("localhost", "[::1]:8020", "127.0.0.1:1"):
        assert requests.get(url, headers={"Host": host}, timeout=HANG).status_code == 200
    for body in (b"{", b"[]", b"7", b'"x"', b"\xff"):
        sent = requests.post(f"{url}verdicts", data=body, headers={"Content-Type": "application/json"}, timeout=HANG)
        assert sent.status_code == 400, body
    assert command.query("SELECT count(*) FROM reviews") == [(0,)]


@pytest.mark.slow
def test_while_a_load_has_the_file_open_the_page_says_so(command: Command, sandbox: Sandbox, serve: Serve) -> None:
    load(sandbox, "a", [{"x": cell("1", 0.5)}])
    _, url = serve()
    with duckdb.connect(str(command.database)):
        page = requests.get(f"{url}review", {"reviewer": "ann & <b>"}, timeout=HANG)
        assert page.status_code == 503
        assert "Not shown" in page.text
        assert 'href="/review?reviewer=ann+%26+%3Cb%3E"' in page.text

    shown = shown_cell(url, "ann & <b>")
    assert shown
    with duckdb.connect(str(command.database)):
        assert say(url, "ann & <b>", shown, "correct") == 503
    assert say(url, "ann & <b>", shown, "correct") == 200
    assert command.query("SELECT reviewer FROM reviews") == [("ann & <b>",)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_two_people_go_through_a_queue_by_keyboard(command: Command, sandbox: Sandbox, serve: Serve) -> None:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    load(sandbox, "a", [{f"f{number}": cell(f"v{number}", number / 20) for number in range(12)}])
    _, url = serve()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        pages, errors, requested = [], [], set()
        for reviewer in ("ann", "bob"):
            page = browser.new_context().new_page()
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.on("request", lambda request: requested.add(request.url))
            page.goto(url)
            page.wait_for_selector("#reviewer:focus")  # the browser gives it the focus some time after loading
            page.keyboard.type(reviewer)
            page.wait_for_function("name => document.getElementById('reviewer').value === name", arg=reviewer)
            page.keyboard.press("Enter")
            page.wait_for_selector("#field, main p")
            pages.append(page)
        seen = []
        keys = iter([["a"], ["r"], ["c", "+new", "Enter"], ["n"], ["a"], ["u"]] * 10)
        while any(page.query_selector("#field") for page in pages):
            fields = [page.inner_text("#field") for page in pages if page.query_selector("#field")]
            assert len(set(fields)) == len(fields)
            for page in pages:
                if page.query_selector("#field") is None:
                    continue
                seen.append(page.inner_text("#field"))
                pressed = next(keys)
                with page.expect_navigation():
                    for key in pressed:
                        if key.startswith("+"):
                            page.keyboard.type(key[1:])
                        else:
                            page.keyboard.press(key)
                page.wait_for_load_state()
        browser.close()

    assert errors == []
    assert all(one.startswith(url) for one in requested)
    assert command.query("SELECT count(*) FROM cells_final WHERE review_verdict IS NULL") == [(0,)]
    assert {*command.query("SELECT DISTINCT reviewer FROM reviews")} == {("ann",), ("bob",)}
    assert set(command.query("SELECT value FROM cells_final WHERE review_state = 'corrected'")) == {("new",)}
