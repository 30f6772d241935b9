"""Torn files of pending packages and of dlt's working state: no row is missing, none comes twice, no run is stuck."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from further_source import Report, load_pending, rebuilding, run_in_slices
from further_source.destination.working_state import mend_working_state
from further_source.sandbox import Sandbox
from further_source.source import rebuilding_source
from tests.support.disks import small_disk_at
from tests.support.loading import WORKFLOW, asked, cells_of, query, serve_rows, source_of
from tests.support.slow import few_of

slow = pytest.mark.slow
campaign = pytest.mark.campaign
DESTINATIONS = ["duckdb", "postgres"]
NORMALIZED = "load/normalized"
EXTRACTED = "normalize/extracted"
OLD_A = [("a", "0", "x", "1"), ("a", "1", "x", "2"), ("a", "1", "y", "3")]
NEW_A = [("a", "0", "x", "5")]
REST = [("b", "0", "x", "4"), ("c", "0", "x", "6"), ("c", "0", "z", "true"), ("c", "1", "x", "7")]


class Case:
    """A pipeline into a dataset of its own, whose `a` and `b` are loaded, and of which `a` has been answered anew."""

    def __init__(self, directory: Path, url: str | None, dataset: str, sandbox: Sandbox) -> None:
        self.pipelines_dir = directory / "pipelines"
        self.working_dir = self.pipelines_dir / "further"
        self.aside = self.pipelines_dir / "further.set_aside"
        self._database = directory / "further.duckdb"
        self._url = url
        self._dataset = dataset
        self.sandbox = sandbox
        serve_rows(sandbox, "a", cells_of(x="1"), cells_of(x="2", y=3))
        serve_rows(sandbox, "b", cells_of(x="4"))
        run_in_slices(self.pipeline, source_of(sandbox, ["a", "b"]))
        serve_rows(sandbox, "a", cells_of(x="5"))
        serve_rows(sandbox, "c", cells_of(x="6", z=True), cells_of(x="7"))

    @property
    def pipeline(self) -> dlt.Pipeline:
        mend_working_state("further", str(self.pipelines_dir))
        destination: Any = (
            dlt.destinations.duckdb(str(self._database)) if self._url is None else dlt.destinations.postgres(self._url)
        )
        return dlt.pipeline(
            "further", pipelines_dir=str(self.pipelines_dir), destination=destination, dataset_name=self._dataset
        )

    def leave_pending(self, step: str) -> Path:
        """A package that replaces `a`, and has `c`, as far as the step; its directory."""
        pipeline = self.pipeline
        pipeline.extract(source_of(self.sandbox, ["a", "c"], reload=True))
        if step == "extracted":
            (package,) = (self.working_dir / EXTRACTED).iterdir()
            return package
        pipeline.normalize()
        if step == "half loaded":
            self.execute("ALTER TABLE executions ALTER status TYPE integer USING NULL::integer")
            while self.cells("a") != NEW_A:  # then the tables do not fit together
                with pytest.raises(PipelineStepFailed):
                    pipeline.load()
            self.execute("ALTER TABLE executions ALTER status TYPE varchar USING 'completed'")
        (package,) = (path for path in (self.working_dir / NORMALIZED).iterdir() if path.is_dir())
        return package

    def execute(self, sql: str) -> None:
        with self.pipeline.sql_client() as client:
            client.execute_sql(sql)

    def load(self) -> Report:
        return run_in_slices(self.pipeline, source_of(self.sandbox, ["a", "b", "c"]))

    def cells(self, *names: str) -> list[tuple[Any, ...]]:
        rows = query(self.pipeline, "SELECT workflow_execution_id, row_index, field, value FROM cells")
        return sorted((name, str(index), field, value) for name, index, field, value in rows if name in names)

    def assert_all_there_once(self, a: list[tuple[Any, ...]] | None = None) -> None:
        """All tables have all of `b` and `c`, and one answer for `a`, the given one if any."""
        stored = self.cells("a", "b", "c")
        of_a = [cell for cell in stored if cell[0] == "a"]
        assert stored == sorted([*of_a, *REST])
        assert of_a in ([a] if a is not None else [OLD_A, NEW_A])
        row_counts = {"a": 1 if of_a == NEW_A else 2, "b": 1, "c": 2}
        for sql in (
            "SELECT workflow_execution_id, row_count FROM steps",
            "SELECT workflow_execution_id, count(*) FROM rows_extract GROUP BY 1",
        ):
            rows = query(self.pipeline, sql)
            assert len(rows) == len(row_counts)
            assert dict(rows) == row_counts, sql
        executions = query(self.pipeline, "SELECT workflow_execution_id, poll_outcome, cell_count FROM executions")
        assert sorted(executions) == [("a", "completed", len(of_a)), ("b", "completed", 1), ("c", "completed", 3)]
        fields = query(self.pipeline, "SELECT field FROM fields WHERE rows_table = 'rows_extract'")
        assert sorted(fields) == [("x",), ("y",), ("z",)]
        for table, key in (("_dlt_loads", "load_id"), ("_dlt_pipeline_state", "_dlt_id")):
            assert query(self.pipeline, f"SELECT {key} FROM {table} GROUP BY 1 HAVING count(*) > 1") == []

    def assert_nothing_left_to_do(self) -> None:
        before = asked(self.sandbox)
        self.load()
        assert asked(self.sandbox) == before
        assert not self.pipeline.has_pending_data


@pytest.fixture(params=DESTINATIONS)
def case(request: pytest.FixtureRequest, tmp_path: Path, sandbox: Sandbox) -> Iterator[Case]:
    if request.param == "duckdb":
        yield Case(tmp_path, None, "further_data", sandbox)
        return
    url = request.getfixturevalue("postgres_url")
    dataset = f"torn_{abs(hash(request.node.nodeid)):x}"
    yield Case(tmp_path, url, dataset, sandbox)
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '30s'; DROP SCHEMA IF EXISTS {dataset}, {dataset}_staging CASCADE")


def short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def garbage(path: Path) -> None:
    path.write_bytes(bytes(byte ^ 0x5A for byte in path.read_bytes()))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "short": short,
    "empty": empty,
    "zeroed": zeroed,
    "garbage": garbage,
    "missing": Path.unlink,
}
STEPS = ["extracted", "normalized", "half loaded"]
FILES = ["executions", "steps", "cells", "rows_extract", "schema.json", "manifest.json", "load_package_state.json"]


def torn(package: Path, file: str) -> Path:
    (path,) = package.glob(file if file.endswith(".json") else f"*_jobs/{file}.*[!l]")
    return path


COMMON = {
    ("duckdb", "extracted", "cells", "short"),
    ("duckdb", "normalized", "steps", "missing"),
    ("duckdb", "normalized", "schema.json", "zeroed"),
    ("duckdb", "normalized", "manifest.json", "empty"),
    ("duckdb", "normalized", "load_package_state.json", "short"),
    ("postgres", "normalized", "cells", "short"),
    ("postgres", "half loaded", "executions", "garbage"),
}
ALL = sorted(
    ((*one, file, damage) for one in product(DESTINATIONS, STEPS) for file in FILES for damage in DAMAGES),
    key=lambda one: one not in COMMON,
)


@pytest.mark.parametrize(
    ("case", "step", "file", "damage"),
    few_of([pytest.param(*one, marks=() if one in COMMON else campaign) for one in ALL]),
    indirect=["case"],
)
def test_a_torn_package_is_set_aside_and_its_executions_are_asked_again(
    case: Case, log: list[str], step: str, file: str, damage: str
) -> None:
    package = case.leave_pending(step)
    log.clear()
    path = torn(package, file)
    content = path.read_bytes()
    DAMAGES[damage](path)
    asked_before = asked(case.sandbox)

    case.load()

    told = [line for line in log if "set aside" in line]
    if file == "load_package_state.json":
        # The manifest has a copy of it. One that is missing is none to dlt, and nothing is lost with it.
        assert len(told) == (damage != "missing")
        case.assert_all_there_once(NEW_A)
        assert asked(case.sandbox) == asked_before
    else:
        (line,) = told
        assert str(package) in line
        assert "\n" not in line
        (kept,) = case.aside.iterdir()
        assert str(kept) in line
        if damage != "missing":
            assert len(content) >= next(kept.rglob(path.name)).stat().st_size  # renamed, not deleted
        # What was replaced in part is asked again; what was not is as it was.
        case.assert_all_there_once(NEW_A if step == "half loaded" else OLD_A)
        assert asked(case.sandbox)["c"] == asked_before["c"] + 1
        assert asked(case.sandbox)["a"] == asked_before["a"] + (step == "half loaded")
    case.assert_nothing_left_to_do()


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", [pytest.param("extracted", marks=slow), pytest.param("normalized", marks=slow), STEPS[2]]
)
@pytest.mark.parametrize("case", ["duckdb", pytest.param("postgres", marks=slow)], indirect=True)
def test_a_whole_package_is_loaded_and_nothing_is_asked_again(case: Case, log: list[str], step: str) -> None:
    case.leave_pending(step)
    log.clear()
    before = asked(case.sandbox)
    case.load()
    assert log == []
    assert asked(case.sandbox) == before
    case.assert_all_there_once(NEW_A)
    assert not case.aside.exists()


@pytest.mark.parametrize("file", [None, pytest.param("cells", marks=slow), pytest.param("steps", marks=slow)])
@pytest.mark.parametrize("case", ["duckdb", pytest.param("postgres", marks=slow)], indirect=True)
def test_what_a_package_has_appended_before_it_failed_is_replaced_torn_or_not(
    case: Case, monkeypatch: pytest.MonkeyPatch, file: str | None
) -> None:
    monkeypatch.setenv("LOAD__WORKERS", "20")  # all files at once, before one of them fails
    case.execute("ALTER TABLE executions ALTER status TYPE integer USING NULL::integer")
    with pytest.raises(PipelineStepFailed):
        run_in_slices(case.pipeline, source_of(case.sandbox, ["c"]))
    assert case.cells("c") == [cell for cell in REST if cell[0] == "c"]
    case.execute("ALTER TABLE executions ALTER status TYPE varchar USING 'completed'")
    (package,) = (path for path in (case.working_dir / NORMALIZED).iterdir() if path.is_dir())
    if file is not None:
        short(torn(package, file))
    before = asked(case.sandbox)
    case.load()
    case.assert_all_there_once(OLD_A)
    assert asked(case.sandbox)["c"] == before["c"] + (file is not None)
    case.assert_nothing_left_to_do()


@pytest.mark.slow
def test_notes_of_dlt_that_a_power_cut_took_back_load_no_file_twice(case: Case) -> None:
    """Renames of files and what dlt wrote while it loaded are not on disk, and the destination has the rows."""
    package = case.leave_pending("half loaded")
    for path in package.glob("completed_jobs/*"):
        path.rename(package / "new_jobs" / path.name)
    for path in package.glob("new_jobs/*.sql"):
        empty(path)
    for path in package.glob(".pending_transitions/*"):
        empty(path)
    case.load()
    case.assert_all_there_once(NEW_A)
    assert not case.aside.exists()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["short", pytest.param("missing", marks=slow)])
@pytest.mark.parametrize("case", ["duckdb", pytest.param("postgres", marks=slow)], indirect=True)
def test_a_rebuild_still_drops_the_tables_when_what_dlt_noted_of_it_is_lost(case: Case, damage: str) -> None:
    case.load()
    pipeline = case.pipeline
    pipeline.extract(rebuilding_source(lambda: rebuilding._pages(None, Counter())))
    pipeline.normalize()
    (package,) = (path for path in (case.working_dir / NORMALIZED).iterdir() if path.is_dir())
    DAMAGES[damage](package / "load_package_state.json")
    case.load()
    case.assert_all_there_once(OLD_A)  # in `fields` too, which is appended to


@pytest.mark.slow
@pytest.mark.parametrize("case", ["duckdb", pytest.param("postgres", marks=slow)], indirect=True)
def test_a_normalized_package_that_is_torn_is_made_again_of_what_was_extracted(case: Case) -> None:
    """After a power cut both can be there: dlt deletes the one right after it has renamed the other."""
    extracted = case.leave_pending("extracted")
    shutil.copytree(extracted, case.working_dir / "copy")
    case.pipeline.normalize()
    (case.working_dir / "copy").rename(extracted)
    short(torn(case.working_dir / NORMALIZED / extracted.name, "cells"))
    before = asked(case.sandbox)
    case.load()
    case.assert_all_there_once(NEW_A)
    assert asked(case.sandbox) == before


# Packages without a manifest


@pytest.fixture
def older(case: Case) -> Path:
    """A normalized package as a version made it that wrote no manifests."""
    package = case.leave_pending("normalized")
    (package / "manifest.json").unlink()
    state = package / "load_package_state.json"
    content = json.loads(state.read_text())
    assert content.pop("further_source_manifest")
    state.write_text(json.dumps(content))
    return package


@pytest.mark.slow
@pytest.mark.parametrize("case", ["duckdb", pytest.param("postgres", marks=slow)], indirect=True)
def test_a_package_of_an_older_version_is_loaded_if_it_can_be_read(case: Case, older: Path) -> None:
    case.load()
    case.assert_all_there_once(NEW_A)
    assert not case.aside.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("cells", "zeroed"),
        pytest.param("cells", "empty", marks=slow),
        pytest.param("steps", "short", marks=slow),
        pytest.param("schema.json", "short", marks=slow),
        ("load_package_state.json", "garbage"),
    ],
)
@pytest.mark.parametrize("case", ["duckdb", pytest.param("postgres", marks=slow)], indirect=True)
def test_a_package_of_an_older_version_is_set_aside_if_it_cannot_be_read(
    case: Case, older: Path, file: str, damage: str
) -> None:
    DAMAGES[damage](torn(older, file))
    case.load()
    case.assert_all_there_once(OLD_A)
    assert len(list(case.aside.iterdir())) == 1


# dlt's own working state

STATE_FILES = ["state.json", "schemas/further_source.schema.json", "load/.version", "normalize/.version"]


@pytest.mark.slow
@pytest.mark.parametrize("file", STATE_FILES)
@pytest.mark.parametrize(
    "damage", ["zeroed", *(pytest.param(name, marks=campaign) for name in ("short", "empty", "garbage", "missing"))]
)
@pytest.mark.parametrize(
    "step", ["normalized", pytest.param("extracted", marks=campaign), pytest.param("none", marks=campaign)]
)
@pytest.mark.parametrize("case", ["duckdb", pytest.param("postgres", marks=campaign)], indirect=True)
def test_working_state_that_cannot_be_read_stops_no_run_and_costs_no_package(
    case: Case, log: list[str], file: str, damage: str, step: str
) -> None:
    if step == "none":
        a = OLD_A
    else:
        a = NEW_A
        case.leave_pending(step)
    log.clear()
    path = case.working_dir / file
    DAMAGES[damage](path)
    before = asked(case.sandbox)
    case.load()
    case.assert_all_there_once(a)
    if step != "none":
        assert asked(case.sandbox) == before
    if damage != "missing" and not (damage == "short" and path.name == ".version"):
        told = [line for line in log if str(path) in line and "set aside" in line]
        assert len(told) == 1
        assert len(list(case.aside.iterdir())) == 1
    case.assert_nothing_left_to_do()


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk_at(tmp_path / "small", "3m") as directory:
        yield directory


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that pyarrow could not close
def test_a_full_disk_loses_no_row_behind_a_load_that_succeeds(
    small_disk: Path, tmp_path: Path, sandbox: Sandbox, log: list[str]
) -> None:
    """It fills up at one moment after the other of making the package."""
    serve_rows(sandbox, "a", *(cells_of(x=f"{number:>0100}") for number in range(400)))

    def pipeline() -> dlt.Pipeline:
        mend_working_state("further", str(small_disk))
        return dlt.pipeline(
            "further",
            pipelines_dir=str(small_disk),
            destination=dlt.destinations.duckdb(str(tmp_path / "further.duckdb")),
            dataset_name="further_data",
        )

    run_in_slices(pipeline(), source_of(sandbox, []))
    failed = 0
    for free in range(4_000, 400_000, 40_000):
        filler = small_disk / "filler"
        left = os.statvfs(small_disk)
        filler.write_bytes(bytes(max(0, left.f_bavail * left.f_frsize - free)))
        try:
            run_in_slices(pipeline(), source_of(sandbox, ["a"], reload=True))
        except (PipelineStepFailed, OSError):
            failed += 1
        filler.unlink()
        run_in_slices(pipeline(), source_of(sandbox, ["a"]))
        assert query(pipeline(), "SELECT count(*), count(DISTINCT row_index) FROM cells") == [(400, 400)]
        assert not pipeline().has_pending_data
    assert failed


@pytest.mark.slow
@pytest.mark.parametrize("case", ["duckdb", pytest.param("postgres", marks=slow)], indirect=True)
def test_what_load_pending_cannot_read_is_set_aside_in_a_script_of_ones_own_too(case: Case) -> None:
    package = case.leave_pending("normalized")
    short(torn(package, "cells"))
    load_pending(case.pipeline)
    case.pipeline.run(source_of(case.sandbox, [f"{WORKFLOW}/{name}" for name in "abc"]))
    case.assert_all_there_once(OLD_A)
