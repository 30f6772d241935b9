"""The documented queries on a lake, as Sail runs them: an engine that scales out, with Spark's protocol and SQL."""

import json
import re
import shutil
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pyarrow as pa
import pytest
import sqlglot
from deltalake import DeltaTable
from pyiceberg.table import StaticTable
from sqlglot import exp

from further_source.settings import DATASET_NAME
from tests.docs.test_schedulers import run
from tests.support.command import Command
from tests.support.demo import load_demo
from tests.support.documents import PROJECT, Document

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")]

QUERIES = Document(PROJECT / "docs" / "queries.md")

# The paragraph before a query, and why it does not run there.
LEFT_OUT = {
    "What the last load brought": "in a lake `_dlt_loads` is JSON",
    "A histogram of confidence": "`bar` is DuckDB's own",
    "The columns that hold them": "sqlglot's translation of `len` is not for arrays",
    "One execution as a table again": "PIVOT without the fields' names is DuckDB's own",
    "Sums from `cells`": "amount_of",
    "The same from a wide table": "amount_of",
    "Dates from text": "date_of",
    "What was not sure": "amount_of",
    "DuckDB:": "a table nested in a cell is read by each engine's own functions",
}

ON_SAIL = """
import json, sys
from pysail.spark import SparkConnectServer
from pyspark.sql.connect.session import SparkSession
given = json.load(open("given.json"))
server = SparkConnectServer("127.0.0.1", 0)
server.start(background=True)
host, port = server.listening_address
spark = SparkSession.builder.remote(f"sc://{host}:{port}").getOrCreate()
for name, path in given["tables"].items():
    spark.read.format(given["format"]).load(path).createOrReplaceTempView(name)
answers = {about: spark.sql(sql).toArrow().to_pylist() for about, sql in given["queries"].items()}
answers = {about: [[*row.values()] for row in rows] for about, rows in answers.items()}
json.dump(answers, open("answers.json", "w"), default=lambda value: value.isoformat())
"""


def documented() -> dict[str, str]:
    """The queries of the page by the paragraph that is before them."""
    found = re.findall(r"((?:[^\n]+\n)+)\n```sql\n(.*?)```", QUERIES.text, re.DOTALL)
    return dict(found)


def translated(sql: str) -> str:
    """What Sail 0.7 is given: unlike Spark it knows neither `GROUP BY ALL` nor tables of columns that `USING` joins."""
    [select] = sqlglot.parse(sql, read="duckdb")
    assert isinstance(select, exp.Select)
    joined = {name.name for join in select.args.get("joins") or [] for name in join.args.get("using") or []}
    for column in select.find_all(exp.Column):
        if column.name in joined:
            column.set("table", None)
    group, order = select.args.get("group"), select.args.get("order")
    if group is not None and group.args.get("all"):
        plain = [column.unalias() for column in select.selects if not column.find(exp.AggFunc)]
        group.replace(exp.Group(expressions=[column.copy() for column in plain]))
    if order is not None and order.find(exp.Var):  # ALL
        order.replace(exp.Order(expressions=[exp.Literal.number(n + 1) for n in range(len(select.selects))]))
    return select.sql("spark").replace(f"{DATASET_NAME}.", "")


def read_delta(table: Path) -> pa.Table:
    return DeltaTable(str(table)).to_pyarrow_table()


def read_iceberg(table: Path) -> pa.Table:
    newest = max((table / "metadata").glob("*.metadata.json"))
    return StaticTable.from_metadata(str(newest)).scan().to_arrow()


@pytest.mark.parametrize(("table_format", "read"), [("delta", read_delta), ("iceberg", read_iceberg)])
def test_a_lake_answers_on_sail_as_on_duckdb(
    table_format: str, read: Callable[[Path], pa.Table], tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    pipeline = dlt.pipeline(
        "further_demo",
        pipelines_dir=str(tmp_path / "pipelines"),
        destination=dlt.destinations.filesystem(str(lake)),
        dataset_name=DATASET_NAME,
    )
    load_demo(pipeline, table_format=table_format)
    tables = {path.name: path for path in (lake / DATASET_NAME).iterdir() if re.match("[a-z]", path.name)}
    del tables["init"]
    queries = {about: sql for about, sql in documented().items() if not about.startswith(tuple(LEFT_OUT))}
    assert len(queries) >= 10
    command = Command(tmp_path)
    given = {
        "format": table_format,
        "tables": {name: str(path) for name, path in tables.items()},
        "queries": {about: translated(sql) for about, sql in queries.items()},
    }
    (command.directory / "given.json").write_text(json.dumps(given), encoding="utf-8")

    options = ["--no-project", "--with", "pysail>=0.7,<0.8", "--with", "pyspark-client>=4,<5"]
    run(command.directory, command.env(), options, ON_SAIL, QUERIES.path)

    answers = json.loads((command.directory / "answers.json").read_text(encoding="utf-8"))
    with duckdb.connect() as connection:
        connection.execute(f"CREATE SCHEMA {DATASET_NAME}; SET TimeZone = 'UTC'")
        for name, path in tables.items():
            connection.register("table_read", read(path))
            connection.execute(f"CREATE TABLE {DATASET_NAME}.{name} AS FROM table_read")
        for about, sql in queries.items():
            expected = [*map(comparable, connection.sql(sql).fetchall())]
            assert bool(expected) != ("-- returns no row today" in sql), about
            assert sorted(map(comparable, answers[about])) == sorted(expected), about


def comparable(row: Any) -> str:
    """A row as text: moments without their zone's spelling, whatever type an engine gives numbers."""
    return repr([value.isoformat() if isinstance(value, datetime | date) else value for value in row])


def test_what_is_left_out_is_on_the_page() -> None:
    for about in LEFT_OUT:
        assert sum(paragraph.startswith(about) for paragraph in documented()) == 1, about
