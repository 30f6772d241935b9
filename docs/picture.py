"""Makes the picture of the report in the README: `uv run python -m docs.picture`, into `docs/report.png`.

It loads the demo into a directory that goes away again, and photographs the top of the demo's report in Chromium.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

PROJECT = Path(__file__).parents[1]
PICTURE = PROJECT / "docs" / "report.png"
_WIDTH = 1100  # CSS pixels
_ROWS = 10  # of the heat map
_DEMO = "from further_source.command.main import further_source_command; further_source_command()"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            [sys.executable, "-c", _DEMO, "demo"],
            cwd=directory,
            env={**os.environ, "DLT_DATA_DIR": f"{directory}/dlt"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        photograph(Path(directory) / "further_demo.html", PICTURE)


def photograph(report: Path, picture: Path) -> None:
    """The report from its title to the first rows of the heat map, without its contents and notes."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": _WIDTH, "height": 800}, bypass_csp=True)
        page.goto(report.as_uri())
        page.add_style_tag(content="nav, #look, details { display: none } html { font-family: 'Liberation Sans' }")
        last = page.locator("table.heat tbody tr").nth(_ROWS - 1).bounding_box()
        assert last is not None, "the report has no heat map"
        size = {"x": 0, "y": 0, "width": _WIDTH, "height": last["y"] + last["height"] + 1}
        page.screenshot(path=picture, clip=size, full_page=True)  # type: ignore[arg-type]
        browser.close()


if __name__ == "__main__":
    main()
