"""Loads the packages that an earlier run left pending because its destination failed, or because it was killed.

`pipeline.run()` alone is not enough:

- If the destination has no dataset yet, it throws the pending packages away.
- A process that is killed after it has normalized a package, and before it has deleted the extracted files, leaves
  both. dlt would normalize the package again and fail, at every run, because the normalized package exists.
- A process that is killed after it has extracted a package, and before it has saved the schema, leaves a package whose
  tables are not in the schema. dlt would fail to normalize it, at every run.
- A process that is killed after it has loaded a package, and before it has moved it to the loaded ones, leaves it
  pending. dlt would refuse to load it, at every run.
- dlt loads a file into a staging table, and then notes that it has. A process that is killed in between leaves no note,
  and the next one loads the file again. Its rows would be merged twice, because the merges here rely on it that no row
  comes twice. So if it is not known whether a file was loaded, its staging table is emptied, and all files of that
  table are loaded again.
"""

from typing import Any

import dlt
from dlt.common.destination.client import WithStagingDataset
from dlt.common.storages import PackageStorage

from further_source.destination.postgres import keep_empty_texts
from further_source.dlt_internals import extracted_packages, load_storage

__all__ = ["load_pending"]

_FOLLOW_UPS = {"sql", "reference"}


def load_pending(pipeline: dlt.Pipeline) -> None:
    """Loads all pending packages, every row once.

    Raises:
        dlt.pipeline.exceptions.PipelineStepFailed: As `pipeline.run` raises it.
    """
    keep_empty_texts(pipeline.destination)
    _delete_what_is_normalized(pipeline)
    _save_schemas(pipeline)
    _put_away_what_is_loaded(pipeline)
    _empty_doubtful_staging(pipeline)
    pipeline.normalize()
    pipeline.load()


def _delete_what_is_normalized(pipeline: dlt.Pipeline) -> None:
    extracted = extracted_packages(pipeline)
    for load_id in set(pipeline.list_extracted_load_packages()) & set(pipeline.list_normalized_load_packages()):
        extracted.delete_package(load_id)


def _save_schemas(pipeline: dlt.Pipeline) -> None:
    """Saves the schema of an extracted package, if it was made from the one that is saved."""
    extracted = extracted_packages(pipeline)
    for load_id in pipeline.list_extracted_load_packages():
        schema = extracted.load_schema(load_id)
        if schema.name in pipeline.schemas and pipeline.schemas[schema.name].version_hash in schema.previous_hashes:
            pipeline.schemas.save_schema(schema)


def _put_away_what_is_loaded(pipeline: dlt.Pipeline) -> None:
    packages = load_storage(pipeline)
    for load_id in pipeline.list_normalized_load_packages():
        if packages.normalized_packages.is_package_completed(load_id):
            paths = packages.get_normalized_package_path(load_id), packages.get_loaded_package_path(load_id)
            packages.storage.rename_tree(*paths)


def _empty_doubtful_staging(pipeline: dlt.Pipeline) -> None:
    """Empties the staging tables that may already hold a file of a pending package, and queues their files again."""
    packages = load_storage(pipeline).normalized_packages
    for load_id in pipeline.list_normalized_load_packages():
        if not (tables := _in_doubt(packages, load_id)):
            continue
        with pipeline.destination_client() as client:
            if not isinstance(client, WithStagingDataset):
                continue
            if tables := {table for table in tables if client.should_load_data_to_staging_dataset(table)}:
                with client.with_staging_dataset() as staging:
                    staging.initialize_storage(truncate_tables=tables)
                _queue_again(packages, load_id, tables)


def _in_doubt(packages: PackageStorage, load_id: str) -> set[str]:
    """The tables with a file whose loading was begun, and of which no note tells how that ended."""
    return {
        job.table_name
        for state, job in packages.list_all_jobs_with_states(load_id)
        if state == "started_jobs"
        and job.file_format not in _FOLLOW_UPS
        and packages.load_pending_transition(load_id, job.file_name()) is None
    }


def _queue_again(packages: PackageStorage, load_id: str, tables: set[str]) -> None:
    jobs: list[tuple[Any, Any]] = [
        (state, job)
        for state, job in packages.list_all_jobs_with_states(load_id)
        if state in {"started_jobs", "completed_jobs"}
        and job.table_name in tables
        and job.file_format not in _FOLLOW_UPS
    ]
    # The files in doubt come last. If this process is killed before the end, the next one finds them, and begins anew.
    jobs.sort(
        key=lambda found: (
            found[0] == "started_jobs",
            packages.load_pending_transition(load_id, found[1].file_name()) is None,
        )
    )
    for state, job in jobs:
        # Under another name: a destination that knows its jobs by name would take the old one for done.
        packages.storage.atomic_rename(
            packages.get_job_file_path(load_id, state, job.file_name()),
            packages.get_job_file_path(load_id, "new_jobs", job.with_retry().file_name()),
        )
        packages.clear_pending_transition(load_id, job.file_name())
