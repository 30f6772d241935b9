"""Loads the packages that an earlier run left pending because its destination failed, or because it was killed.

`pipeline.run()` alone is not enough:

- If the destination has no dataset yet, it throws the pending packages away.
- A process that is killed after it has normalized a package, and before it has deleted the extracted files, leaves
  both. dlt would normalize the package again and fail, at every run, because the normalized package exists.
- A process that is killed after it has extracted a package, and before it has saved the schema, leaves a package whose
  tables are not in the schema. dlt would fail to normalize it, at every run.
- A process that is killed after it has loaded a package, and before it has moved it to the loaded ones, leaves it
  pending. dlt would refuse to load it, at every run.
- A process that is killed in the middle of loading a package leaves it half loaded, and it is not known how far it had
  come. See `interrupted`.
- A power cut may leave any file of a package short, zeroed or missing. dlt would load what there is, or fail at every
  run. See `package_manifest`.
"""

from pathlib import Path

import dlt
from dlt.common.storages import PackageStorage

from further_source.destination.adapted import adapt
from further_source.destination.appending import merge_package
from further_source.destination.forgotten import erase_what_came_back
from further_source.destination.interrupted import begin_anew, give_up, is_loaded
from further_source.destination.package_manifest import copies, fault
from further_source.destination.set_aside import set_aside
from further_source.destination.working_state import mend_storages
from further_source.dlt_internals import extracted_packages, load_storage
from further_source.telemetry import stop_telemetry_unless_configured

__all__ = ["has_pending", "load_pending"]

_CONSEQUENCE = "its executions are asked again if they are listed"


def has_pending(pipeline: dlt.Pipeline) -> bool:
    """Whether any package waits, also one that cannot be read, at which dlt's own `has_pending_data` fails."""
    mend_storages(Path(pipeline.working_dir))
    return bool(pipeline.list_extracted_load_packages() or pipeline.list_normalized_load_packages())


def load_pending(pipeline: dlt.Pipeline) -> None:
    """Loads all pending packages, every row once; does nothing if there are none.

    A package that is not as it was when it was complete, or cannot be read, is set aside with a warning: it is moved to
    `<working directory>.set_aside`. The executions in it are asked again by the next load that they are listed for.

    Raises:
        dlt.pipeline.exceptions.PipelineStepFailed: As `pipeline.run` raises it.
        dlt.common.destination.exceptions.DestinationException: The destination failed before anything was loaded.
    """
    stop_telemetry_unless_configured()
    if not has_pending(pipeline):
        return
    adapt(pipeline.destination)
    _put_away_what_is_loaded(pipeline)
    if pipeline.list_normalized_load_packages():
        _set_aside_what_is_torn(pipeline, load_storage(pipeline).normalized_packages)
    _delete_what_is_normalized(pipeline)
    if pipeline.list_extracted_load_packages():
        _set_aside_what_is_torn(pipeline, extracted_packages(pipeline))
    _save_schemas(pipeline)
    _merge_what_is_extracted(pipeline)
    _begin_anew(pipeline)
    pipeline.normalize()
    pipeline.load()
    erase_what_came_back(pipeline)


def _set_aside_what_is_torn(pipeline: dlt.Pipeline, packages: PackageStorage) -> None:
    working_dir = Path(pipeline.working_dir)
    for load_id in packages.list_packages():
        directory = _directory(packages, load_id)
        if (reason := fault(directory)) is None:
            _restore_state(packages, load_id, working_dir)
            continue
        if packages.initial_state == "normalized":
            give_up(pipeline, load_id)
        set_aside(directory, working_dir, reason, _CONSEQUENCE)


def _directory(packages: PackageStorage, load_id: str) -> Path:
    return Path(packages.storage.make_full_path(packages.get_package_path(load_id)))


def _restore_state(packages: PackageStorage, load_id: str, working_dir: Path) -> None:
    """Mends the state of a package that is whole otherwise: dlt changes it while it loads."""
    file = _directory(packages, load_id) / packages.LOAD_PACKAGE_STATE_FILE_NAME
    state = copies(file.parent).get(file.name)
    try:
        packages.get_load_package_state(load_id)
    except Exception:  # whatever dlt finds wrong with it
        consequence = "the manifest has a copy" if state is not None else "the package is loaded without it"
        set_aside(file, working_dir, "it cannot be read", consequence)
    if state is not None and not file.exists():
        packages.storage.save(str(file), state)


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


def _merge_what_is_extracted(pipeline: dlt.Pipeline) -> None:
    packages = extracted_packages(pipeline)
    for load_id in pipeline.list_extracted_load_packages():
        merge_package(packages, load_id)


def _put_away_what_is_loaded(pipeline: dlt.Pipeline) -> None:
    packages = load_storage(pipeline)
    for load_id in pipeline.list_normalized_load_packages():
        if packages.normalized_packages.is_package_completed(load_id) or is_loaded(pipeline, load_id):
            paths = packages.get_normalized_package_path(load_id), packages.get_loaded_package_path(load_id)
            packages.storage.rename_tree(*paths)


def _begin_anew(pipeline: dlt.Pipeline) -> None:
    packages = load_storage(pipeline).normalized_packages
    for load_id in pipeline.list_normalized_load_packages():
        if not packages.has_abort_flag(load_id):
            begin_anew(pipeline, packages, load_id)
