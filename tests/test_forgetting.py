"""Documents that are forgotten: no byte of them is left, and no load brings them back."""

import gzip
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import dlt
import duckdb
import fsspec
import psycopg2
import pyarrow.parquet
import pytest

from further_source import run_in_slices
from further_source.exceptions import ConfigurationError, FurtherError
from further_source.executions import ExecutionId
from further_source.forgetting import forget
from further_source.inbox.store import Inbox
from further_source.sandbox import Sandbox, cell, completed, step
from tests.conftest import MakePipeline
from tests.support.deliveries import failing
from tests.support.loading import WORKFLOW, asked, query, serve_rows, source_of, tables

VALUES = 200


def planted() -> list[str]:
    """Values that stand nowhere else, and do not shrink when they are compressed."""
    return [f"{uuid.uuid4().hex}-{number}" for number in range(VALUES)]


def answer_with(execution_id: str, values: list[str]) -> dict[str, Any]:
    """An answer with the values wherever one has room for some: cells, metadata, schema and other keys."""
    external_id, note, schema, metadata, *rest = values
    rows = [{"Name": cell(one, 0.5), "List": cell([two], None), "Odd": {"value": 1, "from": three}}
            for one, two, three in zip(rest[0::3], rest[1::3], rest[2::3], strict=False)]  # fmt: skip
    rows.append({"Name": cell(rest[-1], 0.5)})
    answer = completed(WORKFLOW, execution_id, [step("Extract", rows)], note=note)
    answer["metadata"] = {"external_id": external_id}
    answer["steps"][0]["data"] |= {"schema": {"title": schema}, "metadata": {"by": metadata}}
    return answer


def serve_planted(sandbox: Sandbox, execution_id: str, values: list[str]) -> None:
    sandbox.serve(WORKFLOW, execution_id, answer_with(execution_id, values))


def texts_of(file: Path) -> Iterator[bytes]:
    """The bytes of a file, and what they say once they are inflated."""
    content = file.read_bytes()
    yield content
    if file.suffix == ".parquet":
        yield json.dumps(pyarrow.parquet.read_table(file).to_pylist(), default=str).encode()
    elif content.startswith(b"\x1f\x8b"):
        yield gzip.decompress(content)


def found(values: Iterable[str], *places: Path) -> set[str]:
    """Those of the values that stand anywhere in files, or below directories."""
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]
    assert files
    content = b"\0".join(text for file in files for text in texts_of(file))
    return {value for value in values if value.encode() in content}


def load(pipeline: dlt.Pipeline, sandbox: Sandbox, *executions: str, **arguments: Any) -> Any:
    return run_in_slices(pipeline, source_of(sandbox, executions, **arguments))


def ids_in(pipeline: dlt.Pipeline, table: str) -> set[str]:
    return {name for (name,) in query(pipeline, f"SELECT workflow_execution_id FROM {table}")}


def test_no_byte_is_left_in_duckdb_nor_here(
    sandbox: Sandbox, make_pipeline: MakePipeline, tmp_path: Path, log: list[str]
) -> None:
    values, kept = planted(), planted()
    serve_planted(sandbox, "gone", values)
    serve_planted(sandbox, "stays", kept)
    load(make_pipeline(), sandbox, "gone", "stays")
    before = contents(make_pipeline(), "stays")
    assert found(values, tmp_path / "further.duckdb")
    assert found(values, tmp_path / "pipelines") == {*values}

    done = forget(make_pipeline(), external_id=values[0])

    assert done.executions == [(WORKFLOW, "gone")]
    assert done.rows == {"executions": 1, "steps": 1, "cells": 196, "rows_extract": 66}
    assert not found(values, tmp_path)
    assert [path.name for path in tmp_path.glob("further.*")] == ["further.duckdb"]
    assert contents(make_pipeline()) == before
    report = load(make_pipeline(), sandbox, "gone", "stays", reload=True)
    assert (report.listed, report.forgotten, report.remaining, report.all_completed) == (2, 1, 0, True)
    assert asked(sandbox) == {"gone": 1, "stays": 2}
    assert not found(values, tmp_path)
    assert log == []


def fill(inbox: Path, gone: bytes, stays: bytes) -> None:
    """Deliveries of one that is to go and one that stays, as receivers and gateways write them, whole and not."""
    noted = b'{"workflow_execution_id": "other", "cut'
    for name, content in {
        "gone.json": gone,
        "2026/11/gone.json.gz": gzip.compress(gone),
        "stays.json": stays,
        "both.jsonl": gone + b"\n" + stays + b"\n" + gone,
        "both.jsonl.gz": gzip.compress(stays + b"\n" + gone),
        "archive/2026-11-01/gone.json": gone,
        "archive/2026-11-01/both.ndjson": stays + b"\n" + gone,
        "quarantine/cut.json": gone[:-10],
        "quarantine/cut.json.reason.txt": b"it is not JSON",
        "quarantine/packed.json": gzip.compress(gone[:-10]),
        "quarantine/other.json": noted,
        "quarantine/anything.json": b"what",
        f".{'0' * 16}.lock": b"",
        f".{'0' * 16}-1.part": gone[:-20],
    }.items():
        file = inbox / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


@pytest.mark.slow
def test_no_byte_is_left_in_an_inbox_and_what_comes_later_is_deleted(
    sandbox: Sandbox, make_pipeline: MakePipeline, tmp_path: Path, log: list[str]
) -> None:
    values, kept = planted(), planted()
    gone, stays = (json.dumps(answer_with(*one)).encode() for one in (("gone", values), ("stays", kept)))
    inbox = tmp_path / "inbox"
    fill(inbox, gone, stays)
    load(make_pipeline(), sandbox, inbox=str(inbox))
    fill(inbox, gone, stays)
    before = contents(make_pipeline(), "stays")
    assert found(values, tmp_path) == {*values}

    done = forget(make_pipeline(), external_id=values[0], inboxes=[Inbox(str(inbox))])

    assert done.executions == [(WORKFLOW, "gone")]
    assert done.inboxes == [(str(inbox), 14, ["quarantine/anything.json"])]
    assert not found(values, tmp_path)
    assert found(kept, inbox) == {*kept}
    assert (inbox / "both.jsonl").read_bytes() == stays + b"\n"
    assert gzip.decompress((inbox / "both.jsonl.gz").read_bytes()) == stays + b"\n"
    assert {path.name for path in (inbox / "quarantine").iterdir()} == {"other.json", "anything.json"}
    assert not list(inbox.rglob(".*"))

    fill(inbox, gone, stays)
    (inbox / "archive" / "2026-11-01" / "gone.json").unlink()
    for file in (*inbox.rglob("*.ndjson"), *inbox.glob("quarantine/*"), *inbox.glob(".*")):
        file.unlink()
    load(make_pipeline(), sandbox, inbox=str(inbox))
    assert not found(values, tmp_path)
    assert found(kept, inbox) == {*kept}
    assert not Inbox(str(inbox)).names()
    assert contents(make_pipeline()) == before
    assert asked(sandbox) == {}
    assert log == []


@pytest.mark.slow
def test_what_was_delivered_and_never_loaded_is_forgotten_by_its_external_id(
    sandbox: Sandbox, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    values = planted()
    url = f"memory://{uuid.uuid4().hex}/inbox"
    fs, path = fsspec.url_to_fs(url)
    for name in ("gone", "stays"):
        answer = answer_with(name, values if name == "gone" else planted())
        fs.pipe_file(f"{path}/{name}.json", json.dumps(answer).encode())
        fs.pipe_file(f"{path}/{name}.jsonl", b"\n".join(json.dumps(one).encode() for one in (answer, failing("more"))))

    done = forget(make_pipeline(), external_id=values[0], inboxes=[Inbox(url)])

    assert (done.executions, done.inboxes) == ([(WORKFLOW, "gone")], [(url, 2, [])])
    assert Inbox(url).names() == ["gone.jsonl", "stays.json", "stays.jsonl"]
    load(make_pipeline(), sandbox, "gone", inbox=url)
    assert ids_in(make_pipeline(), "executions") == {"stays", "more"}
    assert not found(values, tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_an_inbox_that_cannot_be_read_is_told_and_it_can_be_repeated(
    sandbox: Sandbox, make_pipeline: MakePipeline, tmp_path: Path, log: list[str]
) -> None:
    values = planted()
    inbox = tmp_path / "inbox"
    fill(inbox, json.dumps(answer_with("gone", values)).encode(), b"")
    unreadable = inbox / "unreadable.json"
    unreadable.symlink_to(unreadable)

    with pytest.raises(FurtherError, match=r"inbox .*/inbox, 'unreadable.json': too many .* forget them again"):
        forget(make_pipeline(), [ExecutionId(WORKFLOW, "gone")], inboxes=[Inbox(str(inbox))])
    assert query(make_pipeline(), "SELECT erased_at FROM forgotten") == [(None,)]
    load(make_pipeline(), sandbox, inbox=str(inbox))  # is not stopped by it
    assert "inbox: 'unreadable.json' cannot be read now, and stays: too many levels of symbolic links" in log
    unreadable.unlink()
    forget(make_pipeline(), [ExecutionId(WORKFLOW, "gone")], inboxes=[Inbox(str(inbox))])
    assert not found(values, tmp_path)


def contents(pipeline: dlt.Pipeline, execution_id: str = "") -> dict[str, list[Any]]:
    """All rows of all tables; of an execution alone if one is given."""
    condition = f"WHERE workflow_execution_id = '{execution_id}'" if execution_id else ""
    names = sorted(tables(pipeline) - {"forgotten"})
    return {name: sorted(query(pipeline, f"SELECT * FROM {name} {condition}"), key=repr) for name in names}


@pytest.mark.slow
def test_what_begins_anew_leaves_it_forgotten(sandbox: Sandbox, make_pipeline: MakePipeline) -> None:
    for name in ("gone", "stays"):
        serve_rows(sandbox, name, {"x": cell(name, 0.5)})
    forget(make_pipeline(), [ExecutionId(WORKFLOW, "gone")])  # before anything of it was ever loaded
    load(make_pipeline(refresh="drop_sources"), sandbox, "gone", "stays")
    run_in_slices(make_pipeline(), source_of(sandbox, ["gone", "stays"]).with_resources("cells"))

    assert asked(sandbox) == {"stays": 2}
    assert ids_in(make_pipeline(), "executions") == ids_in(make_pipeline(), "cells") == {"stays"}


@pytest.mark.slow
def test_a_package_that_waits_elsewhere_does_not_bring_it_back(
    sandbox: Sandbox, make_pipeline: MakePipeline, tmp_path: Path, log: list[str]
) -> None:
    values = planted()
    serve_planted(sandbox, "gone", values)
    serve_rows(sandbox, "stays", {"x": cell("y", 0.5)})
    load(make_pipeline(), sandbox, "gone")
    elsewhere = str(tmp_path / "elsewhere")
    waiting = make_pipeline(pipelines_dir=elsewhere)
    waiting.extract(source_of(sandbox, ["gone", "stays"], reload=True))
    waiting.normalize()
    forget(make_pipeline(), [ExecutionId(WORKFLOW, "gone")])

    load(make_pipeline(pipelines_dir=elsewhere), sandbox, "gone", "stays")

    assert all(ids <= {"stays"} for ids in (ids_in(make_pipeline(), name) for name in ("executions", "cells", "steps")))
    [message] = [message for message in log if "had come back" in message]
    assert "run `further-source forget wf/gone`" in message
    forget(make_pipeline(pipelines_dir=elsewhere), [ExecutionId(WORKFLOW, "gone")])
    assert not found(values, tmp_path)
    assert ids_in(make_pipeline(), "executions") == {"stays"}


@pytest.mark.slow
def test_what_is_pending_here_is_loaded_for_the_others(sandbox: Sandbox, make_pipeline: MakePipeline) -> None:
    for name in ("gone", "stays"):
        serve_rows(sandbox, name, {"x": cell(name, 0.5)})
    pipeline = make_pipeline()
    pipeline.extract(source_of(sandbox, ["gone", "stays"]))

    forget(make_pipeline(), [ExecutionId(WORKFLOW, "gone")])

    assert ids_in(make_pipeline(), "executions") == {"stays"}
    assert not make_pipeline().has_pending_data


@pytest.mark.slow
def test_torn_packages_and_those_of_others_are_looked_into(
    sandbox: Sandbox, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    values = planted()
    serve_planted(sandbox, "gone", values)
    load(make_pipeline(), sandbox, "gone")
    here = tmp_path / "pipelines"
    [package] = here.glob("further/load/loaded/*")
    for place in ("further.set_aside/1_torn", "theirs/load/loaded/2", "further/load/new/3", "theirs/load/normalized/4"):
        shutil.copytree(package, here / place)
    for file in here.joinpath("further.set_aside").rglob("*.parquet"):
        file.write_bytes(file.read_bytes()[:-20])

    with pytest.raises(FurtherError, match="theirs/load/normalized/4: a package that waits has something of them"):
        forget(make_pipeline(), [ExecutionId(WORKFLOW, "gone")])
    shutil.rmtree(here / "theirs/load/normalized")
    forget(make_pipeline(), external_id="of no execution")  # ends what was begun

    assert not found(values, tmp_path)
    with pytest.raises(FurtherError, match="no execution is loaded with external id 'of no execution'"):
        forget(make_pipeline(), external_id="of no execution")


@pytest.mark.slow
def test_views_indexes_and_tables_of_others_stay(sandbox: Sandbox, make_pipeline: MakePipeline, tmp_path: Path) -> None:
    serve_rows(sandbox, "gone", {"x": cell("1", 0.5)})
    load(make_pipeline(), sandbox, "gone")
    with duckdb.connect(str(tmp_path / "further.duckdb")) as connection:
        connection.execute("CREATE SCHEMA theirs")
        connection.execute("CREATE TABLE theirs.notes (id INTEGER PRIMARY KEY, note VARCHAR DEFAULT 'none')")
        connection.execute("INSERT INTO theirs.notes VALUES (1, 'kept')")
        connection.execute("CREATE VIEW further_data.low AS SELECT * FROM further_data.cells WHERE confidence < 0.7")
        connection.execute("CREATE TABLE further_data.reviews AS SELECT * FROM further_data.cells")
        connection.execute("CREATE INDEX of_cells ON further_data.cells (workflow_execution_id)")
        connection.execute("CREATE MACRO theirs.twice(x) AS 2 * x")

    done = forget(make_pipeline(), [ExecutionId(WORKFLOW, "gone")])

    assert done.rows["reviews"] == 1
    with duckdb.connect(str(tmp_path / "further.duckdb")) as connection:
        assert connection.execute("SELECT count(*) FROM further_data.low").fetchall() == [(0,)]
        assert connection.execute("SELECT *, theirs.twice(2) FROM theirs.notes").fetchall() == [(1, "kept", 4)]
        assert connection.execute("SELECT index_name FROM duckdb_indexes()").fetchall() == [("of_cells",)]
        with pytest.raises(duckdb.ConstraintException):
            connection.execute("INSERT INTO theirs.notes (id) VALUES (1)")


def test_plain_files_say_that_they_cannot(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    lake = dlt.destinations.filesystem((tmp_path / "lake").as_uri())
    with pytest.raises(ConfigurationError, match="knows no SQL"):
        forget(make_pipeline(destination=lake), [ExecutionId(WORKFLOW, "gone")])


@pytest.mark.slow
def test_no_byte_is_left_in_the_tables_of_postgresql(
    sandbox: Sandbox, make_pipeline: MakePipeline, postgres_url: str, tmp_path: Path
) -> None:
    """Nor in its statistics. The write-ahead log is PostgreSQL's own to recycle."""
    values = planted()
    serve_planted(sandbox, "gone", values)
    serve_planted(sandbox, "stays", planted())

    def pipeline() -> dlt.Pipeline:
        return make_pipeline(destination=dlt.destinations.postgres(postgres_url), dataset_name="further_forgets")

    load(pipeline(), sandbox, "gone", "stays")
    [(directory,)] = query(pipeline(), "SHOW data_directory")
    data = [path for path in Path(directory).iterdir() if path.name not in {"pg_wal", "log"} and path.is_dir()]
    with psycopg2.connect(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("ANALYZE")  # takes samples of the values, as PostgreSQL does by itself now and then
    with psycopg2.connect(postgres_url) as connection:
        connection.autocommit = True
        connection.cursor().execute("CHECKPOINT")
    assert found(values, *data)

    done = forget(pipeline(), [ExecutionId(WORKFLOW, "gone")])

    assert done.rows == {"executions": 1, "steps": 1, "cells": 196, "rows_extract": 66}
    assert not found(values, *data, tmp_path)
    report = load(pipeline(), sandbox, "gone", "stays")
    assert (report.forgotten, asked(sandbox)["gone"]) == (1, 1)
    assert ids_in(pipeline(), "cells") == {"stays"}
