"""The documentation as a site: every page is in it, every link leads somewhere, nothing is fetched from elsewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import tomlkit

from tests.support.documents import DOCUMENTS, PROJECT, Document

SITE = PROJECT / "build" / "site"


def pages_of(navigation: Any) -> list[str]:
    if isinstance(navigation, str):
        return [navigation]
    return [page for entry in navigation for below in entry.values() for page in pages_of(below)]


def test_every_page_is_in_the_navigation_once() -> None:
    project = tomlkit.parse((PROJECT / "zensical.toml").read_text(encoding="utf-8")).unwrap()["project"]

    benchmarks = (PROJECT / "benchmarks").glob("*.md")
    assert sorted(pages_of(project["nav"])) == sorted(
        path.relative_to(PROJECT).as_posix() for path in [*DOCUMENTS, *benchmarks]
    )


@pytest.fixture(scope="module")
def built() -> dict[str, str]:
    """The site's pages by their paths."""
    if importlib.util.find_spec("zensical") is None or importlib.util.find_spec("mmdr") is None:
        pytest.skip("needs the group docs")
    done = subprocess.run(
        [sys.executable, "-m", "docs.build"], cwd=PROJECT, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
    return {path.relative_to(SITE).as_posix(): path.read_text(encoding="utf-8") for path in SITE.rglob("*.html")}


def test_every_link_of_the_site_leads_somewhere(built: dict[str, str]) -> None:
    for page, html in built.items():
        for link in set(re.findall(r'<a [^>]*?href="([^"#]+)', html)):
            if page == "404.html" or re.match(r"[a-z]+:", link):
                continue
            target = (SITE / page).parent / unquote(link)
            assert target.is_file() or (target / "index.html").is_file(), f"{page}: {link}"


def test_nothing_is_fetched_from_elsewhere(built: dict[str, str]) -> None:
    for page, html in built.items():
        fetched = re.findall(r'\ssrc="([^"]+)"', html)
        fetched += re.findall(r'<link rel="(?!canonical)[^"]*" (?:[^>]* )?href="([^"]+)"', html)
        fetched += re.findall(r"@import[^;]*|url\([^)]*\)", html)
        assert [url for url in fetched if "//" in url] == [], page
        assert 'class="mermaid' not in html, page  # which has the browser fetch mermaid


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_diagram_is_drawn(built: dict[str, str], document: Path) -> None:
    page = document.relative_to(PROJECT).with_suffix("").as_posix()
    html = built["index.html" if page == "README" else f"{page}/index.html"]

    assert html.count('<div class="diagram"') == len(Document(document).blocks("mermaid"))
    assert html.count('role="graphics-document') == len(Document(document).blocks("mermaid"))
