"""One huge answer."""

import multiprocessing
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from benchmarks import ingest
from benchmarks.measure import timed
from benchmarks.payloads import bodies, execution_ids, payload
from further_source import further_pipeline, further_webhooks, run_in_slices


def loaded(rows: int, fields: int, executions: int = 1) -> dict[str, Any]:
    """Asked and loaded into all four tables."""
    return ingest.ours(executions, rows, fields)


def delivered(rows: int, fields: int) -> dict[str, Any]:
    """Delivered with a signed URL in place of its data, and loaded into all four tables."""
    inbox, data = Path("inbox"), Path("data")
    inbox.mkdir()
    data.mkdir()
    result: dict[str, Any] = {}
    with _files_of(data) as base_url:
        to_write = (inbox / "one.json", data / "one.json", f"{base_url}/one.json", rows, fields)
        writer = multiprocessing.get_context("spawn").Process(target=_write_delivery, args=to_write)
        writer.start()  # what it takes does not count here
        writer.join()
        pipeline = further_pipeline("benchmark", destination="duckdb", dataset_name="data")
        source = further_webhooks("inbox", delivery_hosts=["127.0.0.1"])
        with timed(result):
            report = run_in_slices(pipeline, source)
    result["cells"] = report.rows["cells"]
    return result


def parsed(rows: int, fields: int) -> dict[str, Any]:
    """`orjson.loads` of the same bytes, and nothing else; `before_mb` is what the bytes alone took."""
    ((_, body),) = bodies(1, rows, fields)
    result: dict[str, Any] = {"mb": len(body) / 1e6}
    result["before_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with timed(result):
        orjson.loads(body)
    return result


@contextmanager
def _files_of(directory: Path) -> Iterator[str]:
    """The base URL of a server of a directory's files."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        yield re.search(r"http://[^/]+", process.stdout.readline()).group()  # type: ignore[union-attr]
        process.terminate()


def _write_delivery(delivery: Path, data: Path, url: str, rows: int, fields: int) -> None:
    answer = payload(execution_ids(1)[0], rows, fields)
    step = answer["steps"][0]
    data.write_bytes(orjson.dumps(step["data"]))
    step["data"] = {"url": url}
    delivery.write_bytes(orjson.dumps(answer))
