"""The report in a real Chromium: nothing is asked for, nothing is wrong, everybody can read it."""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dlt
import pytest

from further_source.report.figures import FieldConfidence, read_figures
from further_source.report.page import page as page_of
from tests.report.conftest import Load

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]

VIEWS: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}},
}


@pytest.fixture
def browser() -> Iterator[Any]:
    with importlib.import_module("playwright.sync_api").sync_playwright() as playwright:
        # Debian's: Playwright's own are not to be had everywhere.
        yield playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])


def test_a_heat_map_of_many_steps_and_fields_can_be_read(browser: Any, pipeline: dlt.Pipeline, load: Load) -> None:
    """None is lost, no table is wider than ten steps, the least confident are in sight, and the page is no wider."""
    load(pipeline)
    fields = [
        FieldConfidence(f"Extract part {step}", f"a_field_with_quite_a_long_name_{number}", 9, 9, number / 50, 0.0)
        for step in range(14)
        for number in range(step % 3, 40, 2)
    ]
    figures = replace(read_figures(pipeline), fields=fields)
    for view in VIEWS.values():
        opened = browser.new_context(**view).new_page()
        opened.set_content(page_of(figures, dataset="further_data", made_at=datetime.now(timezone.utc)))

        tables = opened.locator("#fields table.heat").all()
        assert sum(table.locator("td.mark").count() for table in tables) == len(fields)
        assert max(table.locator("thead th").count() for table in tables) == 10
        assert [table.is_visible() for table in tables] == [True, False, True]  # the others are folded away
        assert tables[0].locator("tbody tr").count() == 30
        assert tables[0].locator("tbody td.mark").first.inner_text() == "0.000"
        assert opened.evaluate("document.documentElement.scrollWidth") == view["viewport"]["width"]


def test_the_report_is_sound_in_a_browser(browser: Any, pipeline: dlt.Pipeline, load: Load, tmp_path: Path) -> None:
    load(pipeline)
    figures = read_figures(pipeline)
    file = tmp_path / "report.html"
    file.write_text(page_of(figures, dataset="further_data", made_at=datetime.now(timezone.utc)), encoding="utf-8")
    axe = importlib.import_module("axe_playwright_python.sync_playwright").Axe()
    for name, view in VIEWS.items():
        said: list[str] = []
        asked: list[str] = []
        # axe comes as a script, which the page itself forbids.
        opened = browser.new_context(bypass_csp=True, **view).new_page()
        opened.on("console", lambda message, said=said: said.append(message.text))
        opened.on("pageerror", lambda error, said=said: said.append(str(error)))
        opened.on("request", lambda request, asked=asked: asked.append(request.url))
        opened.goto(file.as_uri())

        assert (said, asked) == ([], [file.as_uri()]), name
        assert opened.locator("script").count() == 0
        assert opened.evaluate("document.documentElement.scrollWidth") == view["viewport"]["width"], name
        charts = opened.locator("svg.chart")
        assert charts.count() >= 5
        for number in range(charts.count()):
            assert charts.nth(number).locator(".mark").count() > 0
        heat = opened.locator("table.heat")
        assert heat.locator("td.mark").count() == len(figures.fields)
        [lowest] = [one for one in figures.fields if (one.step_name, one.field) == ("Extract", "claimant")]
        column = heat.locator("thead th").all_inner_texts().index("Extract")
        row = heat.locator("tbody tr").filter(has=opened.get_by_role("rowheader", name="claimant", exact=True))
        assert row.locator("td").nth(column).inner_text() == f"{lowest.mean:.3f}"
        assert opened.locator('[data-figure="Cells"]').inner_text() == f"{figures.cell_count:,}"
        found = axe.run(opened)
        assert found.violations_count == 0, (name, found.generate_report())
