"""Whoever waits for the turn to decide about columns is told why it does not come."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pytest
import sqlalchemy

from further_source import FurtherError
from further_source.destination.turn import in_turn

MakePipeline = Callable[..., dlt.Pipeline]
NO_TABLE = "no table"
READ_ONLY = "a table to read"


def lite(tmp_path: Path, options: str = "") -> Any:
    return dlt.destinations.sqlalchemy(sqlalchemy.create_engine(f"sqlite:///file:{tmp_path}/lite.db?uri=true{options}"))


def refused_at_once(pipeline: dlt.Pipeline) -> str:
    with (
        pytest.raises(FurtherError, match=r"let this user read and write .*_further_leases") as told,
        in_turn(pipeline),
    ):
        pass
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.timeout(60)  # others are waited for for three minutes
@pytest.mark.parametrize("there", [NO_TABLE, READ_ONLY])
def test_a_user_of_postgres_without_the_right_is_refused_at_once(
    there: str, make_pipeline: MakePipeline, postgres_url: str
) -> None:
    dataset = f"turn_{there.replace(' ', '_')}"
    owner = make_pipeline(destination=dlt.destinations.postgres(postgres_url), dataset_name=dataset)
    with in_turn(owner):
        pass
    limited = make_pipeline(
        destination=dlt.destinations.postgres(postgres_url.replace("postgres:none@", f"{dataset}:none@")),
        dataset_name=dataset,
    )
    connection = psycopg2.connect(postgres_url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE ROLE {dataset} LOGIN; GRANT USAGE ON SCHEMA {dataset} TO {dataset}")
            if there == NO_TABLE:
                cursor.execute(f"DROP TABLE {dataset}._further_leases")
            else:
                cursor.execute(f"GRANT SELECT ON {dataset}._further_leases TO {dataset}")
            try:
                assert "permission denied" in refused_at_once(limited)
            finally:
                cursor.execute(f"DROP OWNED BY {dataset}; DROP ROLE {dataset}; DROP SCHEMA {dataset} CASCADE")
    finally:
        connection.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("there", [NO_TABLE, READ_ONLY])
def test_a_user_of_mariadb_without_the_right_is_refused_at_once(
    there: str, make_pipeline: MakePipeline, mariadb_url: str
) -> None:
    dataset = f"turn_{there.replace(' ', '_')}"
    with in_turn(make_pipeline(destination=dlt.destinations.sqlalchemy(mariadb_url), dataset_name=dataset)):
        pass
    engine = sqlalchemy.create_engine(mariadb_url)
    with engine.connect() as connection:
        for statement in (
            f"CREATE USER {dataset}@'%'",
            f"GRANT SELECT ON {dataset}.* TO {dataset}@'%'",
            *([f"DROP TABLE {dataset}._further_leases"] if there == NO_TABLE else []),
        ):
            connection.execute(sqlalchemy.text(statement))
    engine.dispose()
    url = mariadb_url.replace("root@", f"{dataset}@").replace("/mysql", f"/{dataset}")
    limited = make_pipeline(destination=dlt.destinations.sqlalchemy(url), dataset_name=dataset)
    assert "denied to user" in refused_at_once(limited)


@pytest.mark.timeout(60)
def test_a_database_of_sqlite_that_is_only_read_is_refused_at_once(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    with in_turn(make_pipeline(destination=lite(tmp_path), dataset_name="main")):
        pass
    limited = make_pipeline(destination=lite(tmp_path, "&mode=ro"), dataset_name="main")
    assert "readonly database" in refused_at_once(limited)


def test_who_waited_in_vain_is_told_the_last_error(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline = make_pipeline(destination=lite(tmp_path), dataset_name="main")
    with in_turn(pipeline):
        pass
    with pipeline.sql_client() as client:
        client.execute_sql("ALTER TABLE _further_leases DROP COLUMN host")
    with pytest.raises(FurtherError, match=r"for 0\.3 s, at last because: .*host"), in_turn(pipeline, patience=0.3):
        pass


def test_who_waited_for_others_in_vain_is_told_of_them(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline = make_pipeline(destination=lite(tmp_path), dataset_name="main")
    with (
        in_turn(pipeline),
        pytest.raises(FurtherError, match=r"other loads decided about columns for 0\.3 s"),
        in_turn(pipeline, patience=0.3),
    ):
        pass
