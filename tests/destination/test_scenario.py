"""The scenario on each destination that can be had here."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import pytest
import sqlalchemy

from further_source.sandbox import Sandbox
from tests.destination.conftest import AZURITE_ACCOUNT
from tests.destination.scenario import Destination, play
from tests.support.command import Command, finish, ids, loaded, serve

Format = Literal["delta", "iceberg"] | None
FORMATS: list[Format] = ["delta", "iceberg", None]


@pytest.mark.slow
@pytest.mark.duckdb
def test_duckdb(tmp_path: Path) -> None:
    file = str(tmp_path / "cells.duckdb")
    play(Destination("duckdb", {"DESTINATION__DUCKDB__CREDENTIALS": file}), tmp_path)


@pytest.mark.slow
@pytest.mark.postgres
def test_postgresql(postgres_url: str, tmp_path: Path) -> None:
    play(Destination("postgres", {"DESTINATION__POSTGRES__CREDENTIALS": postgres_url}), tmp_path)


@pytest.mark.slow
@pytest.mark.sqlite
def test_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/lite.db"
    play(Destination("sqlalchemy", {"DESTINATION__SQLALCHEMY__CREDENTIALS": url}), tmp_path)


@pytest.mark.slow
@pytest.mark.mariadb
def test_mariadb(mariadb_url: str, tmp_path: Path) -> None:
    play(Destination("sqlalchemy", {"DESTINATION__SQLALCHEMY__CREDENTIALS": mariadb_url}), tmp_path)


@pytest.mark.slow
@pytest.mark.mariadb
def test_a_row_of_mariadb_holds_the_texts_of_all_fields_of_a_table(mariadb_url: str, tmp_path: Path) -> None:
    """Of 40 bytes each: longer ones are moved out of the row."""
    with Sandbox() as sandbox:
        command = Command(tmp_path, sandbox)
        command.environment["DESTINATION__SQLALCHEMY__CREDENTIALS"] = mariadb_url
        serve(sandbox, "ex", {f"field_{number}": "t" * 40 for number in range(160)})
        loaded(command.run_here(*ids(["ex"]), "--destination", "sqlalchemy", "--dataset", "wide_rows", "--quiet"))

    assert columns_of(mariadb_url, "wide_rows", "rows_extract") == 6 + 2 * 150
    assert columns_of(mariadb_url, "wide_rows", "rows_extract___2") == 6 + 2 * 10


@pytest.mark.slow
@pytest.mark.bigquery
@pytest.mark.timeout(3600)  # seconds; a project of Google's (BIGQUERY_PROJECT) takes some ten minutes
# Of Google's client: it would rather read by the Storage API, which needs a package and a role more.
@pytest.mark.filterwarnings("ignore:Cannot create BigQuery Storage client:UserWarning")
def test_bigquery(bigquery_environment: dict[str, str], tmp_path: Path) -> None:
    play(Destination("bigquery", bigquery_environment), tmp_path)


def columns_of(url: str, dataset: str, table: str) -> int:
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        found = len(sqlalchemy.inspect(connection).get_columns(table, dataset))
    engine.dispose()
    return found


def lake(url: str, table_format: Format, environment: Mapping[str, str] = MappingProxyType({})) -> Destination:
    return Destination(
        "filesystem",
        {**environment, "DESTINATION__FILESYSTEM__BUCKET_URL": url},
        "upsert" if table_format else "append",
        table_format,
    )


@pytest.mark.slow
@pytest.mark.lake
@pytest.mark.parametrize("table_format", FORMATS)
def test_lake_in_a_directory(table_format: Format, tmp_path: Path) -> None:
    play(lake(str(tmp_path / "lake"), table_format), tmp_path)


@pytest.mark.slow
@pytest.mark.s3
@pytest.mark.parametrize("table_format", FORMATS)
def test_lake_on_s3(table_format: Format, s3_environment: dict[str, str], tmp_path: Path) -> None:
    play(lake(f"s3://scenario/{table_format}", table_format, s3_environment), tmp_path)


@pytest.mark.slow
@pytest.mark.mariadb
def test_parts_load_side_by_side_into_mariadb(mariadb_url: str, tmp_path: Path) -> None:
    """They all want columns of the same tables at the same time."""
    with Sandbox() as sandbox:
        command = Command(tmp_path, sandbox)
        command.environment["DESTINATION__SQLALCHEMY__CREDENTIALS"] = mariadb_url
        names = [f"ex{number}" for number in range(24)]
        for number, name in enumerate(names):
            serve(sandbox, name, {"Paid ($)": number, "Paid (%)" if number % 2 else "Paid": "none"})
        where = [*ids(names), "--destination", "sqlalchemy", "--dataset", "parts", "--quiet", "--strict"]
        for load in [command.start(*where, "--shard", f"{part}/3") for part in (1, 2, 3)]:
            loaded(finish(load))

    engine = sqlalchemy.create_engine(mariadb_url)
    with engine.connect() as connection:
        counts, fields = (
            connection.execute(sqlalchemy.text(query)).all()
            for query in (
                "SELECT count(*), count(paid_dollar), count(paid_percent), count(paid) FROM parts.rows_extract",
                "SELECT field, number_column, text_column FROM parts.fields WHERE rows_table LIKE 'rows%'",
            )
        )
    engine.dispose()
    assert counts == [(24, 24, 12, 12)]
    assert sorted(fields) == [
        ("Paid", None, "paid"),
        ("Paid ($)", "paid_dollar", None),
        ("Paid (%)", None, "paid_percent"),
    ]


@pytest.mark.slow
@pytest.mark.azure
@pytest.mark.parametrize("table_format", FORMATS)
def test_lake_on_azure(table_format: Format, azure_environment: dict[str, str], tmp_path: Path) -> None:
    # pyiceberg knows no az://.
    url = (
        f"abfss://lake@{AZURITE_ACCOUNT}.dfs.core.windows.net/iceberg"
        if table_format == "iceberg"
        else f"az://lake/{table_format}"
    )
    play(lake(url, table_format, azure_environment), tmp_path)


@pytest.mark.slow
@pytest.mark.gcs
def test_lake_on_gcs(gcs_environment: dict[str, str], tmp_path: Path) -> None:
    play(lake("gs://lake", None, gcs_environment), tmp_path)


# What stands in for them, where anything does, and why it is not enough.
NOBODY = {
    "databricks": "dlt's driver speaks Thrift over TLS, and minilake 1.9 and brickhouse 0.1 answer to REST alone",
    "clickhouse": "no package has a server of this decade: Debian's is of 2018, and chdb has none",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in NOBODY])
def test_a_destination_of_your_own(name: str, configured: dict[str, str], tmp_path: Path) -> None:
    prefix = f"DESTINATION__{name.upper()}__"
    if not any(variable.startswith(prefix) for variable in configured):
        pytest.skip(f"{NOBODY[name]}; {prefix}... in the environment names a real one")
    play(Destination(name, configured), tmp_path)
