"""The README's picture of the report: small, near the top, and made by the script."""

import struct
from pathlib import Path

import dlt
import pytest

from docs.picture import PICTURE, photograph
from further_source.report.figures import read_figures
from further_source.report.page import page
from further_source.sandbox import Sandbox, cell, completed, step
from tests.support.documents import PROJECT, Document
from tests.support.loading import WORKFLOW, source_of


def size_of(png: Path) -> tuple[int, int]:
    head = png.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", head[16:])
    return width, height


def test_the_readme_shows_it_near_the_top() -> None:
    readme = Document(PROJECT / "README.md")

    above, shown, _ = readme.text.partition("(docs/report.png)")
    assert shown
    assert above.count("\n") < 40
    assert PICTURE.stat().st_size < 150_000
    assert 800 < size_of(PICTURE)[0] < 1600


@pytest.mark.browser
@pytest.mark.filterwarnings("default")
def test_the_script_makes_one_like_it(pipeline: dlt.Pipeline, sandbox: Sandbox, tmp_path: Path) -> None:
    rows = [{f"field_{number}": cell("x", number / 12) for number in range(12)}] * 9
    sandbox.serve(WORKFLOW, "a", completed(WORKFLOW, "a", [step("Extract", rows)]))
    pipeline.run(source_of(sandbox, ["a"]))
    figures = read_figures(pipeline)
    report = tmp_path / "report.html"
    assert figures.last_load is not None
    report.write_text(page(figures, dataset="further_data", made_at=figures.last_load), encoding="utf-8")

    photograph(report, tmp_path / "report.png")

    width, height = size_of(tmp_path / "report.png")
    assert width == size_of(PICTURE)[0]
    assert 0.8 < height / size_of(PICTURE)[1] < 1.25
