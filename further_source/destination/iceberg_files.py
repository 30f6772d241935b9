"""The files of an Iceberg table: small ones become large ones, and those that no snapshot refers to are deleted.

pyiceberg expires snapshots, and has nothing yet that rewrites files or deletes those that are not needed any more.
"""

from datetime import datetime, timedelta, timezone
from typing import Any

from fsspec.core import strip_protocol
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files
from pyiceberg.table import TableProperties

from further_source.destination.committing import until_it_passes
from further_source.destination.iceberg import Conflict, committing

__all__ = ["compact_iceberg"]

_TARGET_BYTES = 100_000_000  # as Delta's
_AGE = "history.expire.max-snapshot-age-ms"
_DAY = timedelta(days=1)
"""Each commit reads all snapshots, so a week of them, as Delta keeps, would make loads slow."""
_DELETES_METADATA = TableProperties.METADATA_DELETE_AFTER_COMMIT_ENABLED
_KEPT_METADATA = "100"


def compact_iceberg(client: Any, name: str) -> int:
    """Compacts a table, expires its snapshots, and deletes files; returns how many were deleted."""
    until_it_passes(lambda: _rewrite(client, name), Conflict)
    until_it_passes(lambda: _expire(client, name), Conflict)
    return _delete(client, client.load_open_table("iceberg", name))


def _rewrite(client: Any, name: str) -> None:
    """Writes the rows of all small files into as few as it takes, in one commit, in their order."""
    with committing(client, name) as table:
        tasks = list(table.scan().plan_files())
        small = [task for task in tasks if task.file.file_size_in_bytes < _TARGET_BYTES / 2]
        if len(small) < 2:
            return
        scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
        with table.transaction() as transaction, transaction.update_snapshot().overwrite() as rewrite:
            for task in small:
                rewrite.delete_data_file(task.file)
            for part in _parts(small):
                rows = scan.to_table(part)
                for file in _dataframe_to_data_files(transaction.table_metadata, rows, table.io, rewrite.commit_uuid):
                    rewrite.append_data_file(file)


def _parts(tasks: list[Any]) -> list[list[Any]]:
    """The files in parts of about the size of one that is written; the oldest first."""
    parts: list[list[Any]] = [[]]
    size = 0
    for task in sorted(tasks, key=lambda task: str(task.file.file_path)):
        if size >= _TARGET_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(task)
        size += task.file.file_size_in_bytes
    return parts


def _expire(client: Any, name: str) -> None:
    with committing(client, name) as table:
        properties = table.metadata.properties
        if _DELETES_METADATA not in properties:
            with table.transaction() as transaction:
                # Each commit writes a file of metadata; pyiceberg deletes all but the last hundred then.
                transaction.set_properties(
                    {_DELETES_METADATA: "true", TableProperties.METADATA_PREVIOUS_VERSIONS_MAX: _KEPT_METADATA}
                )
        table.maintenance.expire_snapshots().older_than(datetime.now(timezone.utc) - _age(table)).commit()


def _age(table: Any) -> timedelta:
    return timedelta(milliseconds=int(table.metadata.properties.get(_AGE, _DAY / timedelta(milliseconds=1))))


def _delete(client: Any, table: Any) -> int:
    """Deletes the files below the table's directory that nothing refers to, if they are old enough."""
    # Files that are being written are in no snapshot yet, however few of these are kept.
    oldest = datetime.now(timezone.utc) - max(_age(table), _DAY)
    files, location = client.fs_client, strip_protocol(table.location())
    found = [path for directory in ("data", "metadata") for path in files.find(f"{location}/{directory}")]
    old = [path for path in found if files.modified(path) < oldest]
    unused = set(old) - _used(table) if old else set()
    for path in unused:
        files.rm_file(path)
    return len(unused)


def _used(table: Any) -> set[str]:
    """The paths of all files that any snapshot refers to, and of the metadata that the table keeps."""
    used = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    for snapshot in table.metadata.snapshots:
        used.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in used:
                used.add(manifest.manifest_path)
                used.update(entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io))
    return {strip_protocol(path) for path in used}
