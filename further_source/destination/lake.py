"""Loads into tables of Delta and Iceberg: what a load has of an execution replaces what was there, in one commit.

dlt would merge row by row, by a key: rows that an execution no longer has would stay, and each load would read and
compare all that is there. Here a load of a table is one commit, which takes away the rows of its executions, and those
of its own load id, and adds what came. Nearly always there is nothing to take away, and the commit appends.

So a load that was killed is loaded again without a row coming twice, however far it had come. And of two loads at once
the formats themselves let one pass: a commit fails if rows of its executions were added since it looked, and is made
anew. What Iceberg needs for that where no catalog is configured is in `claims`.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.destination.reference import DestinationReference
from dlt.common.storages.exceptions import CurrentLoadPackageStateNotAvailable
from dlt.common.storages.load_package import commit_load_package_state
from dlt.destinations import filesystem

from further_source.destination.by_execution import grouped, rows_of
from further_source.destination.claims import claiming
from further_source.destination.committing import until_it_passes
from further_source.destination.files import disown
from further_source.executions import ExecutionId
from further_source.tables.columns import FIELDS, MERGE_KEY
from further_source.tables.fields import has_executions

if TYPE_CHECKING:
    from dlt.destinations.impl.filesystem.filesystem import FilesystemClient

__all__ = ["disown_first", "replace_in_lakes"]

_TYPE = "dlt.destinations.filesystem"
_DISOWNED = "further_source_disowned"


def replace_in_lakes(destination: Any) -> None:
    """If the destination is dlt's filesystem, makes it replace by executions in Delta and Iceberg; else does nothing.

    It changes the object itself, and what dlt makes of the destination's name, because a pipeline may get either of
    them once more for the load.
    """
    if type(destination) is filesystem:
        DestinationReference.register(_Lake, _TYPE)
        destination.__class__ = _Lake


def disown_first(executions: Iterable[ExecutionId]) -> None:
    """Has the package that is being extracted say of executions that it replaces them, before it touches a row.

    Their rows in `executions` get the id of this load, which is not finished. Should it never be, they are asked again.
    """
    state: Any = dlt.current.load_package_state()["state"]
    state[_DISOWNED] = sorted(map(list, executions))
    commit_load_package_state()


class _Lake(filesystem):
    @property
    def destination_type(self) -> str:
        return _TYPE  # pipelines store it, to find the destination again

    @property
    def client_class(self) -> "type[FilesystemClient]":
        found = super().client_class
        return found if self.is_hf else _client_class()


@cache
def _client_class() -> "type[FilesystemClient]":
    from dlt.destinations.impl.filesystem.filesystem import (  # noqa: PLC0415  imported where it is the destination
        DeltaLoadFilesystemJob,
        FilesystemClient,
        IcebergLoadFilesystemJob,
        TableFormatLoadFilesystemJob,
    )

    class Rows(TableFormatLoadFilesystemJob):
        """What a load has for one table."""

        @cached_property
        def whole(self) -> Any:
            """All files; the columns of each are nulls in the others. dlt takes those of the first."""
            import pyarrow.dataset as ds  # noqa: PLC0415  takes long
            import pyarrow.parquet as pq  # noqa: PLC0415

            schema = _unified(pq.read_schema(path) for path in self.file_paths)
            return ds.dataset(self.file_paths, schema=schema)

        @property
        def kept(self) -> Any:
            """The condition that holds for all rows but tombstones."""
            import pyarrow.dataset as ds  # noqa: PLC0415

            return ds.field("_deleted").is_null() if "_deleted" in self.whole.schema.names else None

        @property
        def arrow_dataset(self) -> Any:
            import pyarrow.dataset as ds  # noqa: PLC0415

            return ds.dataset(self.whole.to_table(filter=self.kept))

        @cached_property
        def executions(self) -> Mapping[str, set[str]]:
            """The executions that it replaces, by workflow."""
            if not has_executions(self.load_table_name):
                return {}
            return grouped(self.whole.to_batches(columns=list(MERGE_KEY)))

        @property
        def table(self) -> Any:
            """As it is now; None where there is none yet."""
            table_format: Any = self._load_table["table_format"]
            try:
                return self._job_client.load_open_table(table_format, self.load_table_name)
            except DestinationUndefinedEntity:
                return None

    class Delta(Rows, DeltaLoadFilesystemJob):
        def run(self) -> None:
            from deltalake.exceptions import CommitFailedError  # noqa: PLC0415

            until_it_passes(self._make if self.table is None else self._replace, CommitFailedError)

        def _replace(self) -> None:
            from deltalake import write_deltalake  # noqa: PLC0415

            predicate = rows_of(self._load_id, self.executions)
            write_deltalake(self.table, self._added, mode="overwrite", predicate=predicate, schema_mode="merge")

        def _make(self) -> None:
            from deltalake import write_deltalake  # noqa: PLC0415
            from deltalake.exceptions import DeltaError  # noqa: PLC0415
            from dlt.common.libs.deltalake import deltalake_storage_options  # noqa: PLC0415

            config = self._job_client.config
            try:
                write_deltalake(
                    self._job_client.get_open_table_location("delta", self.load_table_name),
                    self._added,
                    partition_by=self._partition_columns,
                    mode="error",
                    storage_options=deltalake_storage_options(config.credentials, config.deltalake_storage_options),
                    configuration=config.deltalake_configuration,
                )
            except DeltaError:
                if self.table is None:
                    raise
                self._replace()  # another load was faster

        @property
        def _added(self) -> Any:
            from dlt.common.libs.deltalake import ensure_delta_compatible_arrow_data  # noqa: PLC0415

            return ensure_delta_compatible_arrow_data(
                self.whole.scanner(filter=self.kept).to_reader(), self._partition_columns
            )

    class Iceberg(Rows, IcebergLoadFilesystemJob):
        makes_table = False

        def run(self) -> None:
            from further_source.destination.iceberg import Conflict  # noqa: PLC0415

            if not self.makes_table:  # dlt runs the job again once it has made the table
                until_it_passes(self._replace, Conflict)

        def _replace(self) -> None:
            from further_source.destination.iceberg import replace_rows  # noqa: PLC0415

            replace = partial(replace_rows, self._job_client, self.load_table_name)
            try:
                replace(self.arrow_dataset, self._load_id, self.executions)
            except DestinationUndefinedEntity:
                self._make()
                replace(self.arrow_dataset, self._load_id, self.executions)

        def _make(self) -> None:
            own = self._load_table
            self.makes_table = True
            # Should another load have made it by now, dlt must not write to it.
            self._load_table = {**own, "write_disposition": "skip"}
            try:
                super().run()
            finally:
                self.makes_table, self._load_table = False, own

    class Client(FilesystemClient):
        def initialize_storage(self, truncate_tables: Any = None) -> None:
            super().initialize_storage(truncate_tables)
            with suppress(CurrentLoadPackageStateNotAvailable):
                package: Any = dlt.current.load_package_state()
                if executions := package["state"].get(_DISOWNED):
                    disown(self, (ExecutionId(*one) for one in executions), package["load_id"])

        def get_open_table_catalog(self, table_format: Any, catalog_name: str | None = None) -> Any:
            return claiming(super().get_open_table_catalog(table_format, catalog_name), self.fs_client)

        @staticmethod
        def get_reference_followup_job_class(table: Any) -> Any:
            found = FilesystemClient.get_reference_followup_job_class(table)
            is_ours = has_executions(table["name"]) or table["name"] == FIELDS.name
            if found is None or not is_ours or table["write_disposition"] == "replace":
                return found
            return Delta if issubclass(found, DeltaLoadFilesystemJob) else Iceberg

    return Client


def _unified(schemas: Iterable[Any]) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    return pa.unify_schemas(list(schemas), promote_options="permissive")
