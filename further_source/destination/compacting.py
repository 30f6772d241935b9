"""Tables of Delta and Iceberg kept small: small files become large ones, and what nobody reads any more is deleted.

Each load adds a file to each table and a version to its log. Deleted is what no version of the last week refers to in
Delta, and of the last day in Iceberg, so that whoever reads the table, or loads into it, may go on. Tables may say
otherwise by properties of their formats: `delta.deletedFileRetentionDuration` and `delta.logRetentionDuration`,
`history.expire.max-snapshot-age-ms`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dlt
from dlt.common import logger
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.destinations.fs_client import FSClientBase

from further_source.destination.adapted import adapt
from further_source.destination.committing import until_it_passes
from further_source.exceptions import ConfigurationError
from further_source.text import one_line

__all__ = ["Compacted", "compact", "compact_where_due"]


_SMALL = 50_000_000  # bytes; both formats make files of 100 MB


@dataclass(frozen=True)
class Compacted:
    """What became of a table.

    Attributes:
        before: How many files its rows were in.
        after: How many they are in now.
        deleted: Files that were deleted, of rows and of metadata; not those of the log of Delta.
    """

    table: str
    before: int
    after: int
    deleted: int


def compact(pipeline: dlt.Pipeline) -> list[Compacted]:
    """Compacts all tables of the pipeline's dataset.

    Raises:
        ConfigurationError: The destination has no tables of Delta or Iceberg.
    """
    if not issubclass(pipeline.destination.client_class, FSClientBase):
        raise ConfigurationError(
            f"compact: {pipeline.destination.destination_name} keeps its tables by itself; only tables of Delta and "
            "Iceberg are compacted"
        )
    adapt(pipeline.destination)
    pipeline.sync_destination()
    done = [_compact(*one) for one in _tables(pipeline)]
    if not done:
        raise ConfigurationError("compact: there are no tables of Delta or Iceberg in this dataset")
    return done


def compact_where_due(pipeline: dlt.Pipeline, loads: int) -> None:
    """After loads: compacts each table with the files of so many loads, each of which adds one; 0 compacts nothing.

    A failure is warned of: what is loaded is loaded, and the next run tries again.
    """
    if not loads or not issubclass(pipeline.destination.client_class, FSClientBase):
        return
    try:
        for client, table, table_format in _tables(pipeline):
            if sum(size < _SMALL for size in _sizes(client, table, table_format)) >= loads:
                done = _compact(client, table, table_format)
                logger.info(f"{table}: {done.before} files compacted into {done.after}, {done.deleted} deleted")
    except Exception as error:
        logger.warning(one_line(f"compact_every: the tables were not compacted: {error}"))


def _tables(pipeline: dlt.Pipeline) -> Iterator[tuple[Any, str, str]]:
    """dlt's client, name and format of each table that is there and has one."""
    if not pipeline.default_schema_name:
        return
    client: Any = pipeline.destination_client()
    for table in pipeline.default_schema.data_table_names():
        if table_format := client.prepare_load_table(table).get("table_format"):
            try:
                client.load_open_table(table_format, table)
            except DestinationUndefinedEntity:
                continue
            yield client, table, table_format


def _sizes(client: Any, table: str, table_format: str) -> list[int]:
    """The sizes of the files that a table's rows are in now, in bytes."""
    found = client.load_open_table(table_format, table)
    if table_format == "delta":
        import pyarrow as pa  # noqa: PLC0415

        sizes: list[int] = pa.table(found.get_add_actions(flatten=True)).column("size_bytes").to_pylist()
        return sizes
    return [task.file.file_size_in_bytes for task in found.scan().plan_files()]


def _compact(client: Any, table: str, table_format: str) -> Compacted:
    before = len(_sizes(client, table, table_format))
    if table_format == "delta":
        deleted = _compact_delta(client, table)
    else:
        from further_source.destination.iceberg_files import compact_iceberg  # noqa: PLC0415  where it is the format

        deleted = compact_iceberg(client, table)
    return Compacted(table, before, len(_sizes(client, table, table_format)), deleted)


def _compact_delta(client: Any, name: str) -> int:
    from deltalake.exceptions import CommitFailedError  # noqa: PLC0415  where it is the format

    until_it_passes(lambda: client.load_open_table("delta", name).optimize.compact(), CommitFailedError)
    table = client.load_open_table("delta", name)
    # Also what loads that were killed left behind, which no log names.
    deleted = len(table.vacuum(dry_run=False, full=True))
    table.create_checkpoint()
    table.cleanup_metadata()
    return deleted
