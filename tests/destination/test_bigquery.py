"""What would go to BigQuery, up to the door: files, statements, and what is asked of an empty project."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import dlt
import pyarrow.parquet as pq
import pytest
import sqlglot
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from dlt.common.configuration.specs import GcpServiceAccountCredentials
from sqlglot import exp

from further_source.review.store import ReviewStore
from further_source.review.views import cells_final_query, review_conflicts_query
from further_source.sandbox import Sandbox, cell, completed, failed, step
from tests.support.loading import WORKFLOW, cells_of, source_of

# Of Google's client: it would rather read by the Storage API, which needs a package and a role more.
pytestmark = pytest.mark.filterwarnings("ignore:Cannot create BigQuery Storage client:UserWarning")

NOT_FOUND = {"code": 404, "message": "Not found: Dataset", "errors": [{"reason": "notFound"}], "status": "NOT_FOUND"}


class EmptyProject(BaseHTTPRequestHandler):
    """BigQuery's API of a project without datasets, and the token endpoint before it."""

    protocol_version = "HTTP/1.1"
    requests: ClassVar[list[tuple[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/token":
            self._answer(200, {"access_token": "token", "expires_in": 3600, "token_type": "Bearer"})
        else:
            self.requests.append((self.path.partition("?")[0], json.loads(body)))
            self._answer(404, {"error": NOT_FOUND})

    def do_GET(self) -> None:
        self._answer(404, {"error": NOT_FOUND})

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyProject)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", url)  # Google's client asks there
    EmptyProject.requests = []
    yield url
    server.shutdown()
    server.server_close()


@pytest.fixture
def bigquery(project: str, tmp_path: Path) -> dlt.Pipeline:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {
        "project_id": "insurer",
        "private_key": pem,
        "client_email": "loader@insurer.iam.gserviceaccount.com",
        "token_uri": f"{project}/token",
    }
    credentials = GcpServiceAccountCredentials()
    credentials.parse_native_representation(json.dumps(account))
    return dlt.pipeline(
        "further",
        pipelines_dir=str(tmp_path / "pipelines"),
        destination=dlt.destinations.bigquery(credentials=credentials),
        dataset_name="further_data",
    )


@pytest.fixture
def normalized(sandbox: Sandbox, bigquery: dlt.Pipeline) -> dlt.Pipeline:
    """A pipeline with everything ready to be loaded."""
    long = "a very long name " * 30
    rows = [
        {
            "policy_number": cell("02139", 0.97),
            "premium": cell(1250.5, 1.0),
            "tags": cell(["a"], None),
            long: cell(1, 1),
        },
        {"premium": cell("tomorrow", 0.5), "größe": cell({"a": [1]}, 0.5), f"{long}!": cell(True, 1)},
        {f"field_{number}": cell(number, 0.5) for number in range(396)},
    ]
    steps = [step("Extract Policy Details", rows), step(long, [cells_of(a=1)]), step("保険", [cells_of(b=2)])]
    answer = completed(WORKFLOW, "ex", steps)
    sandbox.serve(WORKFLOW, "ex", {**answer, "metadata": {"external_id": "INV-1", "at": "2024-01-01T00:00:00Z"}})
    sandbox.serve(WORKFLOW, "bad", failed(WORKFLOW, "bad"))
    bigquery.extract(source_of(sandbox, ["ex", "bad"]))
    bigquery.normalize()
    return bigquery


@pytest.mark.slow
def test_the_first_load_asks_for_the_ledger_and_does_not_mind_that_there_is_none(
    normalized: dlt.Pipeline, project: str
) -> None:
    queries = [body["query"] for path, body in EmptyProject.requests if path.endswith("/queries")] + [
        body["configuration"]["query"]["query"] for path, body in EmptyProject.requests if path.endswith("/jobs")
    ]
    assert "SELECT `load_id` FROM `insurer`.`further_data`.`_dlt_loads` WHERE `status` = 0" in queries
    for statement in queries:
        sqlglot.parse_one(statement, dialect="bigquery")


@pytest.mark.slow
def test_every_table_goes_as_parquet_without_types_that_bigquery_refuses_in_it(normalized: dlt.Pipeline) -> None:
    (load_id,) = normalized.list_normalized_load_packages()
    jobs = normalized.get_load_package_info(load_id).jobs["new_jobs"]
    names = {job.job_file_info.table_name: job.job_file_info.file_format for job in jobs}
    tables = {name: file_format for name, file_format in names.items() if not name.startswith("_dlt")}

    assert {"executions", "steps", "cells", "rows_extract_policy_details"} < tables.keys()
    assert set(tables.values()) == {"parquet"}
    for job in jobs:
        if job.job_file_info.table_name in tables:
            types = {str(field.type) for field in pq.read_schema(job.file_path)}
            assert types <= {"string", "int64", "double", "bool", "timestamp[us, tz=UTC]"} | {
                "dictionary<values=string, indices=int8, ordered=0>"
            }
    for name in tables:
        data_types = {column["data_type"] for column in normalized.default_schema.get_table_columns(name).values()}
        assert data_types <= {"text", "bigint", "double", "bool", "timestamp"}


@pytest.mark.slow
def test_the_statements_that_make_the_tables(normalized: dlt.Pipeline) -> None:
    tables = {name: create_table(normalized, name) for name in normalized.default_schema.data_table_names()}

    for name, create in tables.items():
        columns = [column.name for column in create.find_all(exp.ColumnDef)]
        assert len(columns) == len({column.lower() for column in columns}) <= 10_000
        assert len(name) <= 1_024
        for column in columns:
            assert column.isascii()
            assert column.replace("_", "a").isalnum()
            assert not column[0].isdigit()
            assert len(column) <= 300
        partition, cluster = create.find(exp.PartitionedByProperty), create.find(exp.ClusterProperty)
        by = "DATE(`poll_last_at`)" if name == "executions" else None
        assert (partition and partition.this.sql("bigquery")) == by
        assert cluster is not None
        keys = ["workflow_id", "workflow_execution_id", *(["field"] if name == "cells" else [])]
        assert [column.name for column in cluster.expressions] == (["rows_table"] if name == "fields" else keys)
    assert len(list(tables["rows_extract_policy_details"].find_all(exp.ColumnDef))) == 6 + 2 * 400 + 1


def create_table(pipeline: dlt.Pipeline, name: str) -> exp.Create:
    client: Any = pipeline.destination_client()
    columns = list(client.schema.get_table_columns(name).values())
    (statement,) = client._get_table_update_sql(name, columns, False)
    create = sqlglot.parse_one(statement, dialect="bigquery")
    assert isinstance(create, exp.Create)
    return create


def test_merges_are_by_execution(normalized: dlt.Pipeline) -> None:
    for name in set(normalized.default_schema.data_table_names()) - {"fields"}:
        table: Any = normalized.default_schema.get_table(name)
        assert (table["write_disposition"], table["x-merge-strategy"]) == ("merge", "delete-insert")
        keys = [column["name"] for column in table["columns"].values() if column.get("merge_key")]
        assert keys == ["workflow_id", "workflow_execution_id"]


def test_the_views_of_reviews_are_in_its_dialect(bigquery: dlt.Pipeline) -> None:
    with ReviewStore(bigquery).sql() as sql:
        queries = [cells_final_query(sql), review_conflicts_query(sql)]

    for query in queries:
        (parsed,) = sqlglot.parse(query, dialect="bigquery")
        assert parsed is not None
        tables = {table.sql("bigquery") for table in parsed.find_all(exp.Table)}
        assert tables >= {"`insurer`.`further_data`.`cells`", "`insurer`.`further_data`.`reviews`"}
        assert "VARCHAR" not in query
        assert r"""REGEXP_EXTRACT(`extra`, r'"duplicate": ?([0-9]{1,9})[,}]')""" in query
