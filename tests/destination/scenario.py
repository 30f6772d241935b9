"""One story of loads that every destination has to get right, whatever it is.

It goes through the command, so that a destination is what it is for users: a name, and settings in the environment.
What it then holds is read with dlt alone and compared, cell for cell, with the answers that the API gave.
"""

import datetime as dt
import shutil
import signal
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import dlt
import pyarrow.parquet as pq
import pytest

from further_source.sandbox import Sandbox, cell, completed, failed, running, step
from tests.support.command import WORKFLOW, Command, asked, cells_of, finish, ids, loaded, told, until

Strategy = Literal["delete-insert", "upsert", "append"]
Row = dict[str, Any]

ODD_TEXTS = {
    "empty": "",
    "blank": " ",
    "quotes": "\"'`''\"\"",
    "lines": "a\nb\r\nc\td",
    "emoji": "🚗 保険 é",
    "null": "NULL",
    "backslash_n": "\\N",
    "backslashes": "\\ \\\\ \\x41 C:\\new",
    "separators": "a,b;c|d\x1e\x7f%s %(x)s {x} :x ?",
    "nothing": "\x00-\x00",
    "digits": "12345678901234567",
    "zip": "02139",
    "day": "2024-02-30",
    "time": "2024-01-01T00:00:00+02:00",
    "boolean": "true",
    "json": '{"a": "b"}',
    "long": "é€🚗 " * 100_000,  # 1.0 MB
}
NUMBERS = {
    "whole": 12345678901234567,
    "fraction": 0.12345678901234568,
    "tiny": 1e-7,
    "huge": 123456789012345678901234567890,
    "below": -0.5,
}


@dataclass(frozen=True)
class Destination:
    """A destination as users name it.

    Attributes:
        name: dlt's name of it, as of `--destination`.
        environment: What configures it.
        table_format: Of a data lake.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    strategy: Strategy = "delete-insert"
    table_format: Literal["delta", "iceberg"] | None = None


def play(destination: Destination, directory: Path) -> None:
    """Plays all of it, in a dataset of its own that is dropped at the end.

    Raises:
        AssertionError: The destination holds something else than the API answered.
    """
    with Sandbox() as sandbox:
        story = Story(destination, sandbox, directory)
        try:
            story.first_load()
            story.later_load_without_the_working_directory()
            story.nothing_is_asked_again()
            story.reload_with_fewer_rows_and_then_with_none()
            story.an_empty_list()
            story.a_killed_load()
        finally:
            story.drop()


class Story:
    def __init__(self, destination: Destination, sandbox: Sandbox, directory: Path) -> None:
        self.destination = destination
        self.sandbox = sandbox
        self.command = Command(directory, sandbox, max_wait=0)
        environment = dict(destination.environment)
        if destination.table_format:
            environment["DESTINATION__FILESYSTEM__TABLE_FORMAT"] = destination.table_format
        self.command.environment.update(environment)
        self.dataset = f"scenario_{uuid.uuid4().hex[:8]}"
        self.pipelines_dir = directory / "reader"
        self.began = dt.datetime.now(dt.timezone.utc)
        self.payloads: dict[str, Row] = {}
        self.outcomes: dict[str, str] = {}

    # What happens

    def first_load(self) -> None:
        self._completes("odd", {**ODD_TEXTS, **NUMBERS, "list": ["a", {"b": 1}], "flag": True, "none": None})
        self._completes("plain", {"amount": 1, "zip": "02139"}, {"amount": 2.5}, {"zip": ""})
        self._completes("Plain", {"amount": 4})  # ids differ in case alone
        self._completes("empty")
        self.sandbox.serve(WORKFLOW, "bad", failed(WORKFLOW, "bad"))
        self.sandbox.serve(WORKFLOW, "late", running(WORKFLOW, "late"))
        self.outcomes |= {"bad": "failed", "late": "running"}
        self._load("odd", "plain", "Plain", "empty", "bad", "late")
        self._is_right()

    def later_load_without_the_working_directory(self) -> None:
        """What ran has completed, with a new field and another type of an old one."""
        self._completes("late", {"amount": "tomorrow", "zip": 2139, "city": "Köln"})
        if self.destination.strategy == "append":
            self.outcomes["late "] = "running"  # the row stays
        shutil.rmtree(self.command.data_dir)
        self._load("odd", "plain", "Plain", "empty", "bad", "late")
        assert asked(self.sandbox) == {"odd": 1, "plain": 1, "Plain": 1, "empty": 1, "bad": 1, "late": 2}
        self._is_right()

    def nothing_is_asked_again(self) -> None:
        before = len(self.sandbox.requests)
        self._load("odd", "plain", "Plain", "empty", "bad", "late")
        assert len(self.sandbox.requests) == before

    def reload_with_fewer_rows_and_then_with_none(self) -> None:
        rows: list[Row] = [{"amount": 3, "zip": "02139"}]
        if self.destination.strategy == "append":
            line = told(self._command("plain", "--reload"), 2)
            assert line.endswith("cannot take away what was loaded before; load into a new dataset")
            return
        for left in (rows, []):
            self._completes("plain", *left)
            self._load("plain", "--reload")
            self._is_right()

    def an_empty_list(self) -> None:
        self._load("--executions", "-")
        self._is_right()

    def a_killed_load(self) -> None:
        """Killed while its files are being loaded, as far as that can be met; the next run ends it."""
        names = [f"killed-{number}" for number in range(3)]
        for name in names:
            self._completes(name, *[{"amount": number, "killed": name} for number in range(20)])
        process = self.command.start(*self._arguments(*names))
        jobs = "load/normalized/*/started_jobs/*"
        until(lambda: process.poll() is not None or any(self.command.pipeline.glob(jobs)), every=0.001)
        process.send_signal(signal.SIGKILL)
        finish(process)
        self._load(*names)
        self._is_right()

    # How

    def _completes(self, name: str, *rows: Row) -> None:
        steps = [step("Extract", [{key: cell(value, 0.5) for key, value in row.items()} for row in rows])]
        metadata = {"external_id": f"X-{name}", "received_at": "2024-01-01T00:00:00+02:00"}
        self.payloads[name] = completed(WORKFLOW, name, steps, metadata=metadata)
        self.sandbox.serve(WORKFLOW, name, self.payloads[name])
        self.outcomes[name] = "completed"

    def _arguments(self, *arguments: str) -> list[str]:
        named = [argument if argument.startswith("-") else ids([argument])[0] for argument in arguments]
        return [*named, "--destination", self.destination.name, "--dataset", self.dataset, "--quiet"]

    def _command(self, *arguments: str) -> Any:
        return self.command.run_here(*self._arguments(*arguments))

    def _load(self, *arguments: str) -> None:
        loaded(self._command(*arguments))

    # What is there then

    def _is_right(self) -> None:
        keys = ("step_index", "step_name", "row_index", "field", "value", "value_type", "confidence")
        same(
            _rows_of(self._read("cells"), "workflow_id", "workflow_execution_id", *keys),
            map(_storable, cells_of(self.payloads.values())),
        )
        numbers = [
            (name, row["field"], row["value_number"])
            for row in self._read("cells")
            for name in [row["workflow_execution_id"]]
            if row["value_number"] is not None
        ]
        same(
            numbers,
            [
                (name, key, float(value))
                for name, row in self._extracted()
                for key, value in row.items()
                if _type_of(value) == "double"
            ],
        )
        same(
            _rows_of(self._read("steps"), "workflow_execution_id", "step_index", "step_name", "row_count"),
            [(name, 0, "Extract", len(payload["steps"][0]["data"]["data"])) for name, payload in self.payloads.items()],
        )
        same(_wide(self._read("rows_extract")), [_wide_row(name, row) for name, row in self._extracted()])
        self._executions_are_right()

    def _extracted(self) -> list[tuple[str, Row]]:
        return [
            (name, {key: one["value"] for key, one in row.items()})
            for name, payload in self.payloads.items()
            for row in payload["steps"][0]["data"]["data"]
        ]

    def _executions_are_right(self) -> None:
        rows = self._read("executions")
        texts = ("metadata__external_id", "metadata__received_at")
        expected = []
        for name, outcome in self.outcomes.items():
            payload = self.payloads.get(name)
            metadata = (f"X-{name}", "2024-01-01T00:00:00+02:00") if payload else (None, None)
            counts = (1, len(cells_of([payload]))) if payload else (0, 0) if outcome == "failed" else (None, None)
            expected.append((name.strip(), outcome, outcome, *counts, *metadata))
        same(
            _rows_of(rows, "workflow_execution_id", "status", "poll_outcome", "step_count", "cell_count", *texts),
            expected,
        )
        second = dt.timedelta(seconds=1)
        for row in rows:
            first, last = _instant(row["poll_first_at"]), _instant(row["poll_last_at"])
            assert self.began - second <= first <= last <= dt.datetime.now(dt.timezone.utc) + second

    @contextmanager
    def _pipeline(self) -> Iterator[dlt.Pipeline]:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.command.directory)
            for name, value in self.command.env().items():
                if name not in ("HOME", "PATH"):
                    patch.setenv(name, value)
            yield dlt.pipeline(
                "further",
                pipelines_dir=str(self.pipelines_dir),
                destination=self.destination.name,
                dataset_name=self.dataset,
            )

    def _read(self, table: str) -> list[Row]:
        """The rows of a table, by names of columns in lower case."""
        with self._pipeline() as pipeline:
            if self.destination.name == "filesystem":
                return self._read_files(pipeline, table)
            with pipeline.sql_client() as client:
                qualified = client.make_qualified_table_name(_cased(client, table))
                with client.execute_query(f"SELECT * FROM {qualified}") as cursor:
                    names = [str(name).lower() for name in cursor.columns_schema]
                    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def _read_files(self, pipeline: Any, table: str) -> list[Row]:
        pipeline.activate()
        pipeline.sync_destination()
        client: Any = pipeline.destination_client()
        table_format = self.destination.table_format
        if table_format is None:
            files = [file for file in client.list_table_files(table) if file.endswith(".parquet")]
            return [row for file in files for row in pq.read_table(file, filesystem=client.fs_client).to_pylist()]
        opened = client.load_open_table(table_format, table)
        found = opened.to_pyarrow_table() if table_format == "delta" else opened.scan().to_arrow()
        rows: list[Row] = found.to_pylist()
        return rows

    def drop(self) -> None:
        if self.destination.name == "filesystem":
            return
        with self._pipeline() as pipeline:
            for name in (self.dataset, f"{self.dataset}_staging"):
                with pipeline.sql_client() as client, client.with_alternative_dataset_name(name):
                    if client.has_dataset():
                        client.drop_dataset()


def same(found: Any, expected: Any) -> None:
    """Fails with what is missing and what is there besides."""
    found, expected = Counter(found), Counter(expected)
    missing, besides = [[_short(one) for one in counter.elements()] for counter in (expected - found, found - expected)]
    assert (missing, besides) == ([], [])


def _short(row: Any) -> Any:
    return tuple(f"{one[:80]}… ({len(one)})" if isinstance(one, str) and len(one) > 80 else one for one in row)


def _rows_of(rows: list[Row], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row.get(name) for name in names) for row in rows]


def _cased(client: Any, name: str) -> str:
    return name.upper() if client.capabilities.casefold_identifier is str.upper else name


def _storable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """U+0000 becomes U+FFFD, as the documentation says."""
    return tuple(one.replace("\x00", "\ufffd") if isinstance(one, str) else one for one in row)


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "double" if isinstance(value, int | float) else "text"


_FIRST = {"amount": "double", "zip": "text"}  # of fields that come with other types later


def _wide_row(name: str, row: Row) -> tuple[Any, ...]:
    """A row as `rows_extract` should have it: what is not null of it, in the order of the columns' names."""
    cells = {}
    for key, value in row.items():
        if value is None:
            continue
        kind = _type_of(value)
        column = key if _FIRST.get(key, kind) == kind else f"{key}__v_{kind}"
        cells[column] = '["a",{"b":1}]' if isinstance(value, list) else float(value) if kind == "double" else value
    return (name, *_storable(tuple(part for pair in sorted(cells.items()) for part in pair)))


def _wide(rows: list[Row]) -> list[tuple[Any, ...]]:
    keys = {"workflow_id", "workflow_execution_id", "step_index", "row_index", "_deleted", "_dlt_load_id", "_dlt_id"}
    return [
        (
            row["workflow_execution_id"],
            *(
                part
                for key in sorted(row.keys() - keys)
                if row[key] is not None and not key.endswith("__confidence")
                for part in (key, row[key])
            ),
        )
        for row in rows
    ]


def _instant(value: Any) -> dt.datetime:
    """A timestamp; UTC where a destination keeps none with a time zone."""
    instant = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    return instant if instant.tzinfo else instant.replace(tzinfo=dt.timezone.utc)
