"""One long run in a process of its own, which tells after each load what the process holds by then."""

import gc
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa

from further_source import Report, further_source, run_in_slices


class Held:
    """What the process holds after each load, until there were so many: counts, and of `arrow` and `resident` bytes."""

    def __init__(self, loads: int) -> None:
        self._loads = loads
        self._loaded = 0
        self.after: list[dict[str, int]] = []

    def stop(self) -> bool:
        return len(self.after) >= self._loads

    def on_progress(self, report: Report) -> None:
        if report.loaded == self._loaded or self.stop():
            return
        self._loaded = report.loaded
        gc.collect()
        self.after.append(
            {
                "threads": threading.active_count(),
                "descriptors": len(os.listdir("/proc/self/fd")),
                "blocks": sys.getallocatedblocks(),
                "arrow": pa.total_allocated_bytes(),
                "resident": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            }
        )


def main() -> None:
    options: dict[str, Any] = json.loads(sys.argv[1])
    pipeline = dlt.pipeline(
        "further",
        pipelines_dir=options["directory"],
        destination=dlt.destinations.duckdb(f"{options['directory']}/further.duckdb"),
        dataset_name="further_data",
    )
    held = Held(options["loads"])
    run_in_slices(pipeline, further_source(**options["source"]), stop=held.stop, on_progress=held.on_progress)
    print(json.dumps(held.after))


if __name__ == "__main__":
    main()
