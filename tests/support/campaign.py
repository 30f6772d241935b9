"""Kills a load at each of its steps in turn, or at one of so many, and loads again.

It is run as `python -m tests.support.campaign JSON`.

A step is a file that is opened for writing, renamed or deleted, or a statement of SQL, right before it and right after
it. Each load begins with a copy of the same working directory and database. The process imports everything once and
then forks, for a load takes less time than the imports.

The libraries of Delta and Iceberg do not tell of files. There a step is a call of what commits, or writes a file.

With `elsewhere` another machine, which has the database alone, loads after each kill at a statement, and only then the
one that was killed, whose package waits there.
"""

import json
import os
import re
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import dlt
import psycopg2
import pyarrow.parquet  # noqa: F401  once, and not in each fork; so are records
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from psycopg2.sql import Composed

from further_source.destination.lease_table import FREE, LEASES
from further_source.destination.working_state import mend_working_state
from further_source.lock import only_load
from further_source.run import run_in_slices
from further_source.run.records import records_of  # noqa: F401
from further_source.source import further_source

FILE_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
STATEMENTS = {"execute", "copy_expert", "commit", "begin", "rollback"}
WRITES = re.compile(r"\s*(insert|delete|create|alter|update|drop)", re.IGNORECASE).match
DATASET = "further_data"
COMMITS = {"write_deltalake", "update", "commit_table", "create_table", "_write_metadata", "write_file", "append"}
LAKES = re.compile(r".*/(deltalake|pyiceberg)/", re.DOTALL).match
_STATEMENT = re.compile(r"(c_return|execute|commit) (?!select|set local)", re.IGNORECASE).match
_CHANGING = {"_dlt_load_id", "_dlt_id", "poll_first_at", "poll_last_at", "poll_count"}


class Base:
    """The database and working directory that each load begins with, and the copies that it gets.

    Args:
        directory: Has `pipelines`, for DuckDB `further.duckdb`, and for a lake `lake`; the copies go into `copy`. A
            lake has to be made there, because Iceberg's metadata names its place.
        url: Of a PostgreSQL server that has the database `base`; else None.
        lake: The format of tables, where these are in a lake.
    """

    def __init__(self, directory: Path, url: str | None, lake: str | None) -> None:
        self._directory = directory
        self._url = url
        self.lake = lake
        self._pipelines = directory / "copy" / "pipelines"

    @contextmanager
    def elsewhere(self, *, free: bool = True) -> Iterator[None]:
        """Another machine within; the lease of the one that was killed has run out if it is `free`."""
        own, self._pipelines = self._pipelines, self._directory / "copy" / "elsewhere"
        if free:
            with suppress(DestinationUndefinedEntity), self.pipeline().sql_client() as client:
                client.execute_sql(f"UPDATE {client.make_qualified_table_name(LEASES)} SET lease_id = '{FREE}'")
        yield
        self._pipelines = own

    def copy(self) -> None:
        shutil.rmtree(self._directory / "copy", ignore_errors=True)
        shutil.copytree(self._directory / "pipelines", self._pipelines)
        if self.lake is not None:
            shutil.copytree(self._directory / "lake", self._directory / "copy" / "lake")
            return
        if self._url is None:
            shutil.copy(self._directory / "further.duckdb", self._directory / "copy" / "further.duckdb")
            return
        with closing(psycopg2.connect(self._url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("DROP DATABASE IF EXISTS copy WITH (FORCE)")
                cursor.execute("CREATE DATABASE copy TEMPLATE base")

    @property
    def destination(self) -> Any:
        if self.lake is not None:
            return dlt.destinations.filesystem(str(self._directory / "copy" / "lake"))
        if self._url is None:
            return dlt.destinations.duckdb(str(self._directory / "copy" / "further.duckdb"))
        return dlt.destinations.postgres(self._url.replace("/postgres?", "/copy?"))

    def pipeline(self) -> dlt.Pipeline:
        mend_working_state("further", str(self._pipelines))
        return dlt.pipeline(
            "further", pipelines_dir=str(self._pipelines), destination=self.destination, dataset_name=DATASET
        )


def forked(work: Callable[[], Any]) -> tuple[int, Any]:
    """The exit code of a process of its own that does the work, below 0 for a signal, and what it returned."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        try:
            with os.fdopen(writer, "w") as out:
                json.dump(work(), out, default=str)
            code = 0
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as result:
        text = result.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, json.loads(text) if text else None


class Steps:
    """Counts the steps of this process, and sends it a signal at one of them: of a number, or the first with a text."""

    def __init__(self, below: Path, at: int | str | None, send: signal.Signals = signal.SIGKILL) -> None:
        self._below = str(below)
        self._at = at
        self._signal = send
        self._lock = threading.Lock()
        self.made: list[str] = []

    def begin(self) -> None:
        sys.addaudithook(self._audit)
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def _step(self, what: str) -> None:
        with self._lock:
            self.made.append(what)
            if self._at == len(self.made) or (isinstance(self._at, str) and self._at in what):
                self._at = None
                os.kill(os.getpid(), self._signal)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if (writes or event in FILE_EVENTS) and str(arguments[0]).startswith(self._below):
            self._step(f"{event} {arguments[0]}")

    def _profile(self, frame: FrameType, event: str, function: Any) -> None:
        if event in ("call", "return"):
            if frame.f_code.co_name in COMMITS and LAKES(frame.f_code.co_filename):
                self._step(f"{event} {frame.f_code.co_name}")
            return
        if event not in ("c_call", "c_return") or function.__name__ not in STATEMENTS:
            return
        owner = type(getattr(function, "__self__", None)).__module__
        query = frame.f_locals.get("query") or frame.f_locals.get("copy_sql")
        query = query.as_string(function.__self__) if isinstance(query, Composed) else str(query)
        if owner.startswith("psycopg2"):
            self._step(f"{event} {query}")
        # DuckDB's functions are those of pybind11. It runs in this process, so that a kill after a statement is one
        # before the next.
        elif owner.startswith("pybind11") and event == "c_call" and (function.__name__ != "execute" or WRITES(query)):
            self._step(f"{function.__name__} {query}")


@contextmanager
def loading(base: Base, arguments: dict[str, Any]) -> Iterator[Callable[[], Any]]:
    """The load; its pipeline is made before, for that is no part of it, and the lock is held, as by the command."""
    pipeline = base.pipeline()
    with only_load(pipeline.pipeline_name, pipeline.pipelines_dir):
        yield lambda: run_in_slices(pipeline, further_source(**arguments), table_format=base.lake)


def load_to_the_kill(base: Base, arguments: dict[str, Any], directory: Path, kill_at: int | None) -> list[str]:
    steps = Steps(directory / "copy", kill_at)
    with loading(base, arguments) as load:
        steps.begin()
        load()
        sys.setprofile(None)
    return steps.made


def load_again(base: Base, arguments: dict[str, Any], *, elsewhere: bool = False) -> dict[str, list[Any]]:
    with base.elsewhere() if elsewhere else nullcontext(), loading(base, arguments) as load:
        load()
    return contents(base)


def contents(base: Base) -> dict[str, list[Any]]:
    """All rows by table, without what is another each time; of dlt's own tables what must not be there twice."""
    found: dict[str, list[Any]] = {}
    if base.lake is not None:
        return contents_of_lake(base.pipeline(), base.lake)
    with base.pipeline().sql_client() as client:

        def rows(sql: str) -> list[Any]:
            with client.execute_query(sql) as cursor:
                return sorted(cursor.fetchall(), key=repr)

        columns: dict[str, list[str]] = {}
        for table, column in rows(
            f"SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = '{DATASET}'"
        ):
            columns.setdefault(table, []).append(column)
        for table, names in columns.items():
            if table == LEASES:
                continue
            if table.startswith("_dlt"):
                key = {"_dlt_loads": "load_id", "_dlt_version": "version_hash"}.get(table, "_dlt_id")
                found[table] = rows(f"SELECT {key} FROM {DATASET}.{table} GROUP BY 1 HAVING count(*) > 1")
            else:
                selected = ", ".join(f'"{name}"' for name in sorted(names) if name not in _CHANGING)
                found[table] = rows(f'SELECT {selected} FROM {DATASET}."{table}"')
    return found


def contents_of_lake(pipeline: dlt.Pipeline, table_format: str) -> dict[str, list[Any]]:
    pipeline.sync_destination()
    client: Any = pipeline.destination_client()
    found: dict[str, list[Any]] = {}
    for name in pipeline.default_schema.data_table_names():
        table = client.load_open_table(table_format, name)
        rows = (table.to_pyarrow_table() if table_format == "delta" else table.scan().to_arrow()).to_pylist()
        kept = ({key: row[key] for key in sorted(row) if key not in _CHANGING} for row in rows)
        found[name] = sorted(kept, key=repr)
    return found


def main() -> None:
    options = json.loads(sys.argv[1])
    directory = Path(options["directory"])
    base, source = Base(directory, options["url"], options["lake"]), options["source"]
    base.copy()
    code, expected = forked(lambda: load_again(base, source))
    assert code == 0, "it does not even load without a kill"
    base.copy()
    code, made = forked(lambda: load_to_the_kill(base, source, directory, None))
    assert code == 0
    failures, killed = [], 0
    steps: Sequence[int] = range(1, len(made) + 1)
    if options["inserts_into"]:
        wanted = f'insert into "{DATASET}"."{options["inserts_into"]}"'
        first = next(step for step in steps if wanted in made[step - 1])
        steps = steps[first - 1 : first + options["following"]]
    steps = steps[options["first"] :: options["every"]]
    if options["elsewhere"]:
        steps = [step for step in steps if _STATEMENT(made[step - 1])]
    for step in steps:
        base.copy()
        code, _ = forked(lambda step=step: load_to_the_kill(base, source, directory, step))  # type: ignore[misc]
        killed += code == -signal.SIGKILL
        for elsewhere in [True, False] if options["elsewhere"] else [False]:
            code, found = forked(lambda elsewhere=elsewhere: load_again(base, source, elsewhere=elsewhere))  # type: ignore[misc]
            if code or found != expected:
                wrong = [] if code else sorted(table for table in expected if found.get(table) != expected[table])
                failure = {"step": step, "code": code, "at": made[step - 1], "tables": wrong, "elsewhere": elsewhere}
                failures.append(failure)
    result = {"steps": len(steps), "killed": killed, "failures": failures, "tables": sorted(expected)}
    print(json.dumps({**result, "appends_to": _appended(made)}))


def _appended(made: Iterable[str]) -> list[str]:
    """The tables into which files were loaded that did not go by way of a staging table."""
    into = rf'(?:insert into|copy) [^ ]*"{DATASET}"\."(\w+)".*(?:read_parquet|from stdin|values)'
    pattern = re.compile(into, re.IGNORECASE | re.DOTALL)
    return sorted({match[1] for step in made if (match := pattern.search(step))})


if __name__ == "__main__":
    main()
