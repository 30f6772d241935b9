"""Measures everything side by side in one run, prints the tables and writes RESULTS.md; `--quick` is a smoke run."""

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import waiting
from benchmarks.measure import measure

_RESULTS = Path(__file__).with_name("RESULTS.md")
_NOTES = Path(__file__).with_name("NOTES.md")
_PACKAGES = ("dlt", "duckdb", "pyarrow", "msgspec", "orjson", "requests", "pandas")


class Scale(NamedTuple):
    """How much is measured."""

    executions: int
    growth: tuple[int, ...]
    small: int
    listed: tuple[int, ...]
    step_names: int
    huge_rows: int
    waiting: int
    real_scale: float
    starts: int
    reported: tuple[int, ...]
    stored: tuple[int, ...]
    pushed: int
    kills: int
    lake_loads: int


FULL = Scale(
    500,
    (50, 500, 5_000),
    20_000,
    (10_000, 100_000, 1_000_000),
    300,
    170_000,
    1_000,
    20,
    5,
    (1_000_000, 10_000_000),
    (500, 5_000, 50_000),
    100_000,
    10,
    100,
)
QUICK = Scale(10, (5, 10), 200, (1_000,), 3, 500, 100, 200, 1, (40_000,), (50,), 300, 1, 4)
_ROWS, _FIELDS = 100, 20


class Table(NamedTuple):
    title: str
    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def __str__(self) -> str:
        lines = [f"## {self.title}", "", _line(self.headers), _line(["---"] * len(self.headers))]
        return "\n".join([*lines, *map(_line, self.rows), ""])


def _line(values: Any) -> str:
    return f"| {' | '.join(values)} |"


def tables(scale: Scale) -> Iterator[Table]:
    yield ingest(scale)
    yield growth(scale)
    yield small(scale)
    yield step_names(scale)
    yield rebuilt(scale)
    yield waiting_virtual(scale)
    yield waiting_real(scale)
    yield idle(scale)
    yield next_to_nothing(scale)
    yield huge(scale)
    yield startup(scale)
    yield report(scale)
    yield stored(scale)
    yield push(scale)
    yield lakes(scale)


def ingest(scale: Scale) -> Table:
    size = {"executions": scale.executions, "rows": _ROWS, "fields": _FIELDS}
    cells_alone, all_four = "(a) DuckDB SQL over files, `cells` only", "(a4) the same, all four tables"
    runs = {
        "ours, all four tables": measure("ingest:ours", **size),
        # Without `executions` there would be no ledger.
        "ours, `executions` and `cells`": measure("ingest:ours", **size, tables=["executions", "cells"]),
        cells_alone: measure("ingest:duckdb_sql", **size),
        all_four: measure("ingest:duckdb_sql", **size, all_tables=True),
        "(b) documented loop, dlt resource of dicts": measure("ingest:dlt_dicts", **size),
        "(c) documented loop, DataFrame insert": measure("ingest:data_frame", **size),
        "(d) dlt `rest_api`": measure("ingest:rest_api", **size),
    }
    rows = [
        (
            name,
            f"{run['seconds']:.1f}",
            f"{run['seconds'] / runs[cells_alone]['seconds']:.2f}",
            f"{run['seconds'] / runs[all_four]['seconds']:.2f}",
            f"{run['cells'] / run['seconds']:,.0f}",
            f"{run['peak_mb']:.0f}",
        )
        for name, run in runs.items()
    ]
    cells = scale.executions * _ROWS * _FIELDS
    title = f"Ingest: {cells:,} cells ({scale.executions} executions × {_ROWS} rows × {_FIELDS} fields) over loopback"
    return Table(title, ("what", "seconds", "times (a)", "times (a4)", "cells per second", "peak MB"), rows)


def growth(scale: Scale) -> Table:
    rows = []
    for executions in scale.growth:
        run = measure("ingest:ours", executions=executions, rows=_ROWS, fields=_FIELDS)
        rows.append(
            (
                f"{run['cells']:,}",
                f"{run['seconds']:.1f}",
                f"{run['seconds'] / run['cells'] * 1e6:.1f}",
                f"{run['peak_mb']:.0f}",
            )
        )
    return Table("Growth: all four tables", ("cells", "seconds", "microseconds per cell", "peak MB"), rows)


def small(scale: Scale) -> Table:
    size = {"executions": scale.small, "rows": 1, "fields": 3}
    runs = {
        "ours, all four tables": measure("ingest:ours", **size),
        "bare `requests.Session` loop in 8 threads, nothing loaded": measure("small:bare_loop", **size),
        "(b) documented loop, dlt resource of dicts": measure("ingest:dlt_dicts", **size),
    }
    base = scale.small / runs["bare `requests.Session` loop in 8 threads, nothing loaded"]["seconds"]
    rows = [
        (name, f"{scale.small / run['seconds']:,.0f}", f"{scale.small / run['seconds'] / base:.2f}")
        for name, run in runs.items()
    ]
    title = f"Many small: {scale.small:,} executions of 3 cells"
    return Table(title, ("what", "executions per second", "times the bare loop"), rows)


def step_names(scale: Scale) -> Table:
    many = {"rows": 10, "fields": _FIELDS}
    count = scale.step_names
    runs = {
        "ours, one step name": measure("ingest:ours", executions=count, **many),
        f"ours, {count} step names": measure("ingest:ours", executions=count, step_names=count, **many),
        f"{count} wide tables by dlt alone": measure("wide:plain_dlt", step_names=count, **many),
    }
    rows = [(name, f"{run['cpu_seconds']:.1f}", f"{run['seconds']:.1f}") for name, run in runs.items()]
    title = f"Many step names: {count} executions of 10 rows × {_FIELDS} fields"
    return Table(title, ("what", "CPU seconds", "seconds"), rows)


def rebuilt(scale: Scale) -> Table:
    run = measure("wide:rebuilt", executions=scale.executions, rows=_ROWS, fields=_FIELDS)
    rows = [
        (name, f"{run[f'cpu_{key}']:.1f}", f"{run[key]:.1f}", f"{run[key] / run['seconds']:.2f}")
        for name, key in (("load, all four tables", "seconds"), ("`rebuild`", "rebuild"))
    ]
    title = f"Wide tables made anew: {run['cells']:,} cells"
    return Table(title, ("what", "CPU seconds", "seconds", "times the load"), rows)


def waiting_virtual(scale: Scale) -> Table:
    count = scale.waiting
    longest = waiting.lower_bound(count)["last"]
    runs = {
        "lower bound: the longest execution": {"last": longest},
        "documented backoff, one after the other": waiting.documented_in_turn(count),
        "documented backoff, all at once, no budget": waiting.documented_at_once(count),
        "fixed 10 s, all at once, no budget": waiting.fixed(count, 10),
    }
    for preset in ("default", "steady"):
        for rate in (10, 100):
            runs[f"ours, `{preset}`, {rate} requests per second"] = waiting.polled(count, preset, rate)
    runs["unknown age: documented backoff, all at once, no budget"] = waiting.documented_at_once(
        count, unknown_age=True
    )
    for preset in ("default", "steady"):
        runs[f"unknown age: ours, `{preset}`, 100 requests per second"] = waiting.polled(
            count, preset, 100, unknown_age=True
        )
    title = f"Waiting, in virtual time: {count:,} executions that take lognormal(90 s, 0.5)"
    return Table(title, _WAITING_HEADERS, [_waiting_row(name, run, longest) for name, run in runs.items()])


def waiting_real(scale: Scale) -> Table:
    longest = waiting.lower_bound(scale.waiting)["last"]
    run = measure("waiting:real", count=scale.waiting, scale=scale.real_scale, rate=100)
    title = f"Waiting, for real at 1/{scale.real_scale:g} of the scale, over HTTP into DuckDB (times at full scale)"
    return Table(title, _WAITING_HEADERS, [_waiting_row("ours, `default`, 100 requests per second", run, longest)])


_WAITING_HEADERS = (
    "what",
    "requests per execution",
    "mean delay, s",
    "p95 delay, s",
    "time to the last, s",
    "times the bound",
)


def _waiting_row(name: str, run: dict[str, Any], longest: float) -> tuple[str, ...]:
    keys = ("requests_per_execution", "mean_delay", "p95_delay")
    figures = [f"{run[key]:.2f}" if key in run else "" for key in keys]
    return (name, *figures, f"{run['last']:.0f}", f"{run['last'] / longest:.2f}")


def idle(scale: Scale) -> Table:
    rows = []
    empty = measure("idle:listed", count=0)
    for count in (0, *scale.listed):
        run = measure("idle:listed", count=count) if count else empty
        more = run["seconds"] - empty["seconds"]
        rows.append(
            (f"{count:,}", f"{run['seconds']:.1f}", f"{more:.1f}", f"{run['peak_mb']:.0f}", str(run["requests"]))
        )
    headers = ("listed, all loaded", "seconds", "over the empty list", "peak MB", "requests")
    return Table("Nothing to do", headers, rows)


def next_to_nothing(scale: Scale) -> Table:
    run = measure("idle:repeated", times=2 * scale.starts)
    names = {"nothing": "nothing new", "one": "one new execution of two cells"}
    rows = [(text, f"{run[key]:.2f}") for key, text in names.items()]
    title = f"Next to nothing to do, where all is imported (median of {2 * scale.starts})"
    return Table(title, ("what is new", "CPU seconds"), rows)


def huge(scale: Scale) -> Table:
    size = {"rows": scale.huge_rows, "fields": _FIELDS}
    parsed = measure("huge:parsed", **size)
    rows = [
        ("ours: asked, and loaded into all four tables", *_time_and_memory(measure("huge:loaded", **size))),
        ("ours: delivered with a signed URL, and loaded", *_time_and_memory(measure("huge:delivered", **size))),
        ("`orjson.loads` alone", *_time_and_memory(parsed)),
    ]
    return Table(f"One huge answer: {parsed['mb']:.0f} MB", ("what", "seconds", "peak MB"), rows)


def _time_and_memory(run: dict[str, Any]) -> tuple[str, str]:
    return f"{run['seconds']:.1f}", f"{run['peak_mb']:.0f}"


def startup(scale: Scale) -> Table:
    run = measure("startup:commands", times=scale.starts)
    names = {
        "import_dlt": '`python -c "import dlt"`',
        "dlt_and_duckdb": "the same, and DuckDB's first statement with a parameter",
        "installed_help": "`further-source --help`",
        "help": "`load.py --help`",
        "wrong_usage": "`load.py --no-such-option`",
        "nothing_to_do": "`load.py` with an empty list",
        "imports": "importing dlt and what `load.py` imports",
        "nothing_new": "`load.py` with a list of which all is loaded",
    }
    rows = [
        (text, f"{run[key]:.2f}", f"{run[f'cpu_{key}']:.2f}", f"{run[key] / run['import_dlt']:.2f}")
        for key, text in names.items()
    ]
    headers = ("what", "seconds", "CPU seconds", "times `import dlt`")
    return Table(f"Start-up (median of {scale.starts})", headers, rows)


def report(scale: Scale) -> Table:
    rows = []
    for cells in scale.reported:
        run = measure("report:made", cells=cells)
        rows.append((f"{run['cells']:,}", f"{run['seconds']:.1f}", f"{run['mb'] * 1000:.0f}"))
    return Table("Report, on DuckDB", ("cells", "seconds", "size, kB"), rows)


def stored(scale: Scale) -> Table:
    rows = []
    for files in scale.stored:
        run = measure("push:stored", files=files)
        rows.append((f"{files:,}", f"{run['loading']:.1f}", f"{run['deciding']:.1f}", f"{run['load_mb']:.0f}"))
    headers = ("deliveries, a file each", "seconds to load", "to find all loaded", "peak MB")
    return Table("An inbox, into DuckDB", headers, rows)


def push(scale: Scale) -> Table:
    run = measure("push:campaign", executions=scale.pushed, kills=scale.kills)
    row = (
        f"{run['acknowledged']:,}",
        f"{run['receiving']:.0f}",
        f"{run['loading']:.0f}",
        f"{run['needed']:,}",
        f"{run['requests']:,}",
        f"{run['requests'] / run['needed']:.3f}",
    )
    title = (
        f"Webhooks: {scale.pushed:,} executions, 10 % dropped, 10 % doubled, 20 % late, 2 % with an expired URL, "
        f"receiver and loader each killed {scale.kills} times"
    )
    headers = (
        "acknowledged",
        "seconds to receive",
        "of the last load",
        "dropped or expired",
        "requests to the API",
        "requests for each",
    )
    return Table(title, headers, [row])


def lakes(scale: Scale) -> Table:
    rows = []
    for table_format in ("delta", "iceberg"):
        for every in (0, max(2, scale.lake_loads // 5)):
            run = measure("lakes:loads", table_format=table_format, loads=scale.lake_loads, compact_every=every)
            rows.append(
                (
                    f"{table_format.capitalize()}, {f'`compact_every = {every}`' if every else 'never compacted'}",
                    f"{run['first']:.2f}",
                    f"{run['last']:.2f}",
                    f"{run['last'] / run['first']:.2f}",
                    f"{run['compacting']:.1f}",
                    f"{run['compact']:.1f}",
                    f"{run['after']:.2f}",
                    f"{run['after'] / run['first']:.2f}",
                )
            )
    title = f"Data lakes: loads of 10,000 new cells, the {scale.lake_loads}th beside the first; CPU seconds"
    headers = (
        "what",
        "first",
        "last",
        "times the first",
        "compacting in all",
        "`compact` after it",
        "next",
        "times the first",
    )
    return Table(title, headers, rows)


def _head(scale: Scale) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return (
        "# Results\n\n"
        "Written by `uv run python -m benchmarks`; all figures of one run on one machine, so compare ratios.\n\n"
        f"{date.today()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {versions}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run of every case; writes nothing")
    scale = QUICK if parser.parse_args().quick else FULL
    parts = [_head(scale)]
    for table in tables(scale):
        print(table, flush=True)
        parts.append(str(table))
    if scale is FULL:
        parts.append(_NOTES.read_text())
        _RESULTS.write_text("\n".join(parts))
        print(f"written to {_RESULTS.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
