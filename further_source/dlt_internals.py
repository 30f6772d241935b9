"""What dlt has under private names alone, all in one place: a new dlt may take any of it away."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dlt
from dlt.common.storages import LoadStorage, PackageStorage

if TYPE_CHECKING:
    from dlt.destinations.job_client_impl import SqlJobClientBase

__all__ = ["extracted_packages", "load_storage", "schema_update_statements", "stored_columns"]


def extracted_packages(pipeline: dlt.Pipeline) -> PackageStorage:
    """The packages that are extracted and not normalized yet, to delete some or to read their schemas.

    By `Pipeline._get_normalize_storage`: in public a pipeline only lists their ids.
    """
    return pipeline._get_normalize_storage().extracted_packages


def load_storage(pipeline: dlt.Pipeline) -> LoadStorage:
    """The packages that are normalized or loaded, to move them and the jobs in them.

    By `Pipeline._get_load_storage`: in public a pipeline tells what is in its packages, and changes nothing of it.
    """
    return pipeline._get_load_storage()


def stored_columns(client: "SqlJobClientBase") -> Iterator[tuple[str, str, str]]:
    """Table, name and dlt data type of each column in the dataset, names in the destination's own case.

    The data type is empty where dlt knows none like it.

    By `_get_information_schema_components` of the SQL client, `_get_info_schema_columns_query` and `_from_db_type`:
    the public `get_storage_tables` wants to be told the tables, and others may have made some.

    Raises:
        DestinationUndefinedEntity: The destination has no such dataset yet.
    """
    catalog, dataset, _ = client.sql_client._get_information_schema_components()
    query, parameters = client._get_info_schema_columns_query(catalog, dataset, [])
    for table, column, db_type, _, *numeric in client.sql_client.execute_sql(query, *parameters) or ():
        precision, scale = numeric if client.capabilities.schema_supports_numeric_precision else (None, None)
        yield table, column, client._from_db_type(db_type, precision, scale)["data_type"] or ""


def schema_update_statements(client: "SqlJobClientBase", tables: Sequence[str]) -> list[str]:
    """The statements that make tables as the client's schema has them, or add the columns that they lack.

    By `_build_schema_update_sql`: the public `update_stored_schema` would store the schema as a new version, too.
    """
    statements, _ = client._build_schema_update_sql(client.get_storage_tables(tables))
    return statements
