"""What dlt has under private names alone, or has no hook for, all in one place: a new dlt may take any of it away."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlt
from dlt.common.configuration.specs import base_configuration
from dlt.common.destination.client import JobClientBase
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.storages import LoadStorage, PackageStorage
from dlt.common.storages.exceptions import CurrentLoadPackageStateNotAvailable
from dlt.extract.storage import ExtractStorage
from dlt.normalize.normalize import Normalize

if TYPE_CHECKING:
    from dlt.destinations.job_client_impl import SqlJobClientBase

__all__ = [
    "Commit",
    "append_what_packages_name",
    "base_tables",
    "extracted_packages",
    "is_sqlalchemy",
    "keep_inner_hints",
    "kept_capabilities",
    "load_storage",
    "stored_columns",
    "update_tables",
    "when_packages_are_committed",
]

Rows = Mapping[str, int]
Commit = Callable[[Path, Rows, Callable[[], None]], None]
"""Takes the directory of a package that is whole, the rows of its files by name, and what makes it count as pending."""


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
    the public `get_storage_tables` wants to be told the tables, and others may have made some. Through SQLAlchemy,
    whose databases need not have an information schema, it is asked for the tables that SQLAlchemy finds, by
    `_ensure_transaction`: in the transaction that is open, if one is.

    Raises:
        DestinationUndefinedEntity: The destination has no such dataset yet.
    """
    if is_sqlalchemy(client):
        yield from _reflected_columns(client)
        return
    catalog, dataset, _ = client.sql_client._get_information_schema_components()
    query, parameters = client._get_info_schema_columns_query(catalog, dataset, [])
    for table, column, db_type, _, *numeric in client.sql_client.execute_sql(query, *parameters) or ():
        precision, scale = numeric if client.capabilities.schema_supports_numeric_precision else (None, None)
        yield table, column, client._from_db_type(db_type, precision, scale)["data_type"] or ""


def is_sqlalchemy(client: Any) -> bool:
    """Whether dlt reaches the destination through SQLAlchemy; the client's class cannot be imported without that."""
    return hasattr(client.sql_client, "reflect_table")


def base_tables(client: "SqlJobClientBase") -> list[str]:
    """The tables of the dataset that are no views, names in the destination's own case.

    By `_get_information_schema_components` and `_qualify_info_schema_table_name` of the SQL client, or as SQLAlchemy
    finds them.

    Raises:
        DestinationUndefinedEntity: The destination has no such dataset yet.
    """
    if is_sqlalchemy(client):
        return _reflected_tables(client)
    sql = client.sql_client
    catalog, dataset, _ = sql._get_information_schema_components()
    of_catalog = "table_catalog = %s AND " if catalog else ""
    query = (
        f"SELECT table_name FROM {sql._qualify_info_schema_table_name('TABLES')} "  # noqa: S608
        f"WHERE {of_catalog}table_schema = %s AND table_type = 'BASE TABLE'"
    )
    return [name for (name,) in sql.execute_sql(query, *filter(None, (catalog, dataset))) or ()]


def _reflected_tables(client: Any) -> list[str]:
    import sqlalchemy  # noqa: PLC0415  a driver

    sql = client.sql_client
    if not sql.has_dataset():
        raise DestinationUndefinedEntity(sql.dataset_name)
    with sql._ensure_transaction():
        return list(sqlalchemy.inspect(sql.native_connection).get_table_names(sql.dataset_name))


def _reflected_columns(client: Any) -> Iterator[tuple[str, str, str]]:
    for table, columns in client.get_storage_tables(_reflected_tables(client)):
        for name, column in columns.items():
            yield table, name, column.get("data_type", "")


def update_tables(client: "SqlJobClientBase", tables: Sequence[str]) -> None:
    """Makes tables as the client's schema has them, or adds the columns that they lack, with dlt's own statements.

    By `_build_schema_update_sql`, or `_to_table_object` through SQLAlchemy: the public `update_stored_schema` would
    store the schema as a new version, too.
    """
    if not is_sqlalchemy(client):
        statements, _ = client._build_schema_update_sql(client.get_storage_tables(tables))
        client.sql_client.execute_many(statements)
        return
    other: Any = client
    for name in tables:
        other._to_table_object(client.schema.tables[name])
        table, columns, exists = other.sql_client.compare_storage_table(name)
        if exists:
            other.sql_client.alter_table_add_columns(columns)
        else:
            other.sql_client.create_table(table)


def when_packages_are_committed(commit: Commit) -> None:
    """Has `commit` called in place of the rename by which dlt makes a package count, extracted or normalized.

    By `commit_new_load_package` of both storages and `spool_files` of the normalizer: dlt has no hook there, and
    between that rename and anything that could be done after it a process may be killed. A second call does nothing.
    """
    if hasattr(ExtractStorage.commit_new_load_package, "__wrapped__"):
        return

    @wraps(ExtractStorage.commit_new_load_package)
    def commit_extracted(self: ExtractStorage, load_id: str, *arguments: Any) -> None:
        rows = {Path(file.file_path).name: file.items_count for file in self.closed_files(load_id)}
        with_rename(self, rows, commit_extracted.__wrapped__, self, load_id, *arguments)

    @wraps(Normalize.spool_files)
    def spool_files(self: Normalize, load_id: str, schema: Any, map_f: Any, files: Any) -> None:
        rows: dict[str, int] = {}

        def mapped(*arguments: Any) -> Any:
            result = map_f(*arguments)
            rows.update({Path(file.file_path).name: file.items_count for file in result.file_metrics})
            return result

        with_rename(self.load_storage, rows, spool_files.__wrapped__, self, load_id, schema, mapped, files)

    def with_rename(owner: Any, rows: Rows, call: Callable[..., None], *arguments: Any) -> None:
        """Calls it with `commit` around the renames of whole directories in the owner's storage."""
        storage = owner.storage
        rename = storage.rename_tree

        def rename_tree(source: str, target: str) -> None:
            commit(Path(storage.make_full_path(source)), rows, lambda: rename(source, target))

        storage.rename_tree = rename_tree
        try:
            call(*arguments)
        finally:
            del storage.rename_tree

    ExtractStorage.commit_new_load_package = commit_extracted  # type: ignore[method-assign, assignment]
    Normalize.spool_files = spool_files  # type: ignore[method-assign]


def append_what_packages_name(key: str) -> None:
    """Has dlt append to tables where it would merge, if the state of the package that is loaded names them under a key.

    By `prepare_load_table`, which dlt asks for how to load a table: a schema has one write disposition for each, and to
    change that for a package would make a new version of the schema. A second call does nothing.
    """
    found = JobClientBase.prepare_load_table
    if hasattr(found, "__wrapped__"):
        return

    @wraps(found)
    def prepare_load_table(self: JobClientBase, table_name: str) -> Any:
        table = found(self, table_name)
        if table["write_disposition"] == "merge":
            with suppress(CurrentLoadPackageStateNotAvailable):
                state: Any = dlt.current.load_package_state()["state"]
                if table_name in state.get(key, ()):
                    table["write_disposition"] = "append"
                    for column in table["columns"].values():
                        column.pop("hard_delete", None)  # dlt warns that it deletes nothing
        return table

    JobClientBase.prepare_load_table = prepare_load_table  # type: ignore[method-assign]


def keep_inner_hints() -> None:
    """Has dlt keep what it finds inside of type hints: it asks 11,000 times in a load, always for the same few hundred.

    That is a tenth of what a load with next to nothing in it costs. A second call does nothing.
    """
    found = base_configuration.extract_inner_hint
    if hasattr(found, "__wrapped__"):
        return
    kept = cache(found)

    @wraps(found)
    def extract_inner_hint(hint: Any, *arguments: bool, **keywords: bool) -> Any:
        try:
            return kept(hint, *arguments, **keywords)
        except TypeError:  # not every hint can be hashed
            return found(hint, *arguments, **keywords)

    base_configuration.extract_inner_hint = extract_inner_hint


@contextmanager
def kept_capabilities(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Has dlt find out once what the pipeline's destination can do: it does so twenty times in a load.

    Each time it resolves the whole configuration, which is a fifth of what a load with next to nothing in it costs.
    """
    destination: Any = pipeline.destination
    if destination is None or "capabilities" in vars(destination):
        yield
        return
    find = destination.capabilities
    kept: dict[Any, Any] = {}

    def capabilities(config: Any = None, naming: Any = None) -> Any:
        if config is not None:
            return find(config, naming)
        key = (type(naming), getattr(naming, "max_length", None))
        if key not in kept:
            kept[key] = find(None, naming)
        found = kept[key].copy()
        found.update({name: list(value) for name, value in found.items() if isinstance(value, list)})
        return found

    destination.capabilities = capabilities
    try:
        yield
    finally:
        del destination.capabilities
