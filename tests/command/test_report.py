"""`further-source report`: the file, what it may hold, and what is wrong usage."""

import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from further_source.command.main import main
from further_source.lock import only_load
from further_source.sandbox import Sandbox, cell, completed, step
from further_source.settings import PIPELINE_NAME
from tests.support.command import WORKFLOW, Command

SCRIPT = "</style><script>alert('step')</script>"
VALUE = "Sandoval, Sean & <b>Sons</b>"


class Parsed(HTMLParser):
    """Elements by tag, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text: str) -> None:
        self.text += text


@pytest.fixture
def loaded_here(command_here: Command, sandbox: Sandbox) -> Command:
    rows = [{"claimant": cell(VALUE, 0.2), SCRIPT: cell(1, 0.9)}]
    sandbox.serve(WORKFLOW, "a", completed(WORKFLOW, "a", [step(SCRIPT, rows)]))
    assert main(["load", f"{WORKFLOW}/a", "--quiet"]) == 0
    return command_here


def test_the_report_shows_no_value_and_nothing_in_it_is_run_or_asked_for(
    loaded_here: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report"]) == 0

    out = loaded_here.directory / "report.html"
    assert capsys.readouterr().out == f"{out}\n"
    html = out.read_text(encoding="utf-8")
    parsed = Parsed(html)
    assert parsed.text.count(SCRIPT) >= 3
    assert "Sandoval" not in html
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "form", "base"}
    assert all(attributes.get("href", "#").startswith("#") for _, attributes in parsed.tags)
    assert not {name for _, attributes in parsed.tags for name in attributes if name.startswith(("on", "src", "style"))}
    assert not any(scheme in html for scheme in ("http:", "https:", "url(", "@import"))


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of Unix")
def test_values_are_shown_only_if_asked_for_and_to_the_owner_alone(loaded_here: Command) -> None:
    out = loaded_here.directory / "july.html"
    assert main(["report", "--out", str(out)]) == 0
    assert main(["report", "--out", str(out), "--values"]) == 0

    assert VALUE in Parsed(out.read_text(encoding="utf-8")).text
    assert out.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in loaded_here.directory.glob("*.html*")] == ["july.html"]


def test_where_it_is_is_told_as_json(loaded_here: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--json", "--since", "2020-01-31"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told == {"report": str(loaded_here.directory / "report.html")}
    assert "only what was loaded from 2020-01-31 00:00 on" in Path(told["report"]).read_text(encoding="utf-8")


def test_a_report_leaves_a_load_alone(loaded_here: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with only_load(PIPELINE_NAME, str(loaded_here.data_dir / "pipelines")):
        assert main(["report"]) == 75
    assert "another load of pipeline further is running" in capsys.readouterr().err


def test_nothing_is_made_where_nothing_is_loaded(command_here: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 1

    assert "nothing is loaded" in capsys.readouterr().err
    assert list(command_here.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--since", "yesterday"], "'yesterday' is no date like 2026-01-31"),
        (["--out", ""], "--out is empty"),
        (["--out", "no/such/report.html"], "--out no/such/report.html: no file in a directory that exists"),
        (["--out", "."], "--out .: no file in a directory that exists"),
        (["--out", "pipe"], "--out pipe: no file in a directory that exists"),  # nor a device: it would be replaced
    ],
)
def test_wrong_usage_is_told(
    command_here: Command, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    if os.name != "nt":
        os.mkfifo("pipe")
    try:
        code = main(["report", *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line


@pytest.mark.slow
def test_the_demo_ends_with_a_report(command_here: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--max-wait", "0"]) == 0

    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("report: ")]
    path = Path(line.removeprefix("report: ").removesuffix(" (open it in a browser)"))
    assert path == command_here.directory / "further_demo.html"
    assert "What would go straight through" in path.read_text(encoding="utf-8")
