"""Links, anchors, files and tests that the documentation names exist."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, PROJECT, Document, names

SCENARIOS = ("test_scenario.py", "test_ducklake.py", "test_snowflake.py")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in Document(document).links():
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in Document(target).anchors(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_files_that_are_named_exist(document: Path) -> None:
    text = Document(document).text
    named = re.findall(r"(?<![\w/.])(?:\.dlt|\.ci|docs|examples|pipelines|tests)/[\w.-]+", text)

    for name in set(named) - {".dlt/secrets.toml"}:
        assert (PROJECT / name.rstrip(".")).exists(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_tests_that_are_named_exist(document: Path) -> None:
    for file, test in set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", Document(document).text)):
        tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
        tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert test in tests, f"{file}::{test}"


@pytest.mark.parametrize(
    "heading", ["Polling", "Loading", "Data", "Command", "Report, reviews and thresholds", "Secrets"]
)
def test_every_promise_names_a_test(heading: str) -> None:
    [[header, *rows]] = Document(PROJECT / "docs" / "reliability.md").tables(heading)

    assert header == ["promise", "shown by"]
    for promise, shown_by in rows:
        assert names(shown_by), promise
        assert all(re.fullmatch(r"tests/[\w/]+\.py::test_\w+", name) for name in names(shown_by)), shown_by


def test_destinations_that_were_run_name_the_tests_that_did() -> None:
    page = Document(PROJECT / "docs" / "destinations.md").text
    rows = [line for line in page.splitlines() if line.startswith("|") and "run here against" in line]
    scenarios = "".join((PROJECT / "tests" / "destination" / name).read_text(encoding="utf-8") for name in SCENARIOS)

    assert len(rows) >= 10
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert set(named) <= set(re.findall(r"^def (test_\w+)", scenarios, re.MULTILINE)), row
