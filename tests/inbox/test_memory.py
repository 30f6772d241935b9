"""An inbox of many files is read in bounded memory: only the ids of what was delivered are kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deliveries import inline

FILES, FIRST, LAST = 16_000, 4_000, 15_000
BODY = 5_000  # bytes; all that come between the two measurements are 55 MB
SCRIPT = r"""
import re, sys
import dlt
from further_source import further_webhooks, run_in_slices, set_defaults

def resident():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) // 1024

first, last = map(int, sys.argv[2:])
found = {}

def on_progress(report):
    for number in (first, last):
        if report.ended.total() >= number:
            found.setdefault(number, resident())

set_defaults()
pipeline = dlt.pipeline("further", destination="duckdb", dataset_name="further_data")
run_in_slices(pipeline, further_webhooks(sys.argv[1], commit_interval=3600), on_progress=on_progress)
print(found[last] - found[first])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells how much memory is taken")
def test_memory_does_not_grow_with_the_number_of_files(inbox: Path, tmp_path: Path) -> None:
    for number in range(FILES):
        delivery = inline(f"e{number}", {"text": "x" * BODY})
        (inbox / f"{number:08}.json").write_text(json.dumps(delivery), encoding="utf-8")
    script = tmp_path / "load.py"
    script.write_text(SCRIPT, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, str(script), str(inbox), str(FIRST), str(LAST)], stdout=subprocess.PIPE, text=True, check=True
    )

    assert int(done.stdout.splitlines()[-1]) < 70
