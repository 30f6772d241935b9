"""Builds the documentation as a site: `uv run --group docs python -m docs.build`, into `build/site`.

The pages are copied as they lie in the repository, so that links between its files hold on a forge and on the site.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from zlib import crc32

import mmdr

PROJECT = Path(__file__).parents[1]
PAGES = PROJECT / "build" / "pages"
COPIED = [
    "*.md",
    "LICENSE",
    "Dockerfile",
    "docs/*.md",
    "docs/*.png",
    "docs/recipes/*.sql",
    "examples/**/*",
    "benchmarks/*.md",
]


def main() -> int:
    shutil.rmtree(PAGES, ignore_errors=True)
    for path in (path for pattern in COPIED for path in PROJECT.glob(pattern) if path.is_file()):
        target = PAGES / path.relative_to(PROJECT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return subprocess.run([sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=PROJECT).returncode


def picture(source: str, language: str, css_class: str, *args: Any, **kwargs: Any) -> str:
    """Draws a fence of mermaid, so that no reader's browser has to fetch the means to; see `zensical.toml`."""
    # Styles in an SVG hold for all of its page, so each has its own name.
    svg = mmdr.render(source).svg().replace("merman", f"diagram-{crc32(source.encode()):08x}")
    return f'<div class="{css_class}" style="background: white">{svg}</div>'


if __name__ == "__main__":
    sys.exit(main())
