"""Mends what dlt keeps in a pipeline's working directory: a file that cannot be read stops each run.

dlt has most of it from the destination again. What is missing only there is in the pending packages: their schema,
without which they cannot be loaded.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import semver
from dlt.common.schema import Schema
from dlt.common.storages import FileStorage, LoadStorage, NormalizeStorage, PackageStorage, SchemaStorage
from dlt.common.storages.configuration import SchemaStorageConfiguration
from dlt.common.storages.versioned_storage import VersionedStorage
from dlt.common.versioned_state import json_decode_state, json_encode_state
from dlt.pipeline.state_sync import default_pipeline_state, migrate_state_to_current

from further_source.destination.set_aside import set_aside

__all__ = ["mend_storages", "mend_working_state"]

_STATE = "state.json"
_SCHEMAS = "schemas"
_STORAGES = {
    "normalize": (NormalizeStorage.EXTRACTED_FOLDER,),
    "load": (LoadStorage.NEW_PACKAGES_FOLDER, LoadStorage.NORMALIZED_FOLDER, LoadStorage.LOADED_FOLDER),
}
_CONSEQUENCE = "dlt gets it from the destination again"


def mend_working_state(pipeline_name: str, pipelines_dir: str) -> None:
    """Sets aside what cannot be read of a pipeline's state and schemas; to be called before dlt makes the pipeline.

    Without a state dlt would delete all that is pending, so a new one is made.
    """
    working_dir = Path(pipelines_dir) / pipeline_name
    if not working_dir.is_dir():
        return
    mend_storages(working_dir)
    for path in (working_dir / _SCHEMAS).glob("*"):
        if path.suffix != ".json" and path.is_file():
            path.unlink()  # dlt was killed before it had given it its name, and would take it for a schema
    unreadable = [path for path in _state_files(working_dir) if not _is_readable(path, pipeline_name)]
    for path in unreadable:
        set_aside(path, working_dir, "it cannot be read", _CONSEQUENCE)
    has_state = (working_dir / _STATE).exists()
    if unreadable or ((has_state or _packages(working_dir)) and _is_incomplete(working_dir, pipeline_name)):
        _make_state(working_dir, pipeline_name)


def mend_storages(working_dir: Path) -> None:
    """Makes the parts of dlt's storages that are missing, and sets aside what cannot be read of their versions."""
    for name, folders in _STORAGES.items():
        directory = working_dir / name
        if not directory.is_dir():
            continue
        for folder in folders:
            (directory / folder).mkdir(exist_ok=True)
        version = directory / VersionedStorage.VERSION_FILE
        try:
            semver.Version.parse(version.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except ValueError:
            set_aside(version, working_dir, "it cannot be read", "dlt makes a new one")


def _state_files(working_dir: Path) -> Iterator[Path]:
    yield from working_dir.glob(_STATE)
    yield from (working_dir / _SCHEMAS).glob("*.schema.json")


def _is_readable(path: Path, pipeline_name: str) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
        if path.name == _STATE:
            _decode_state(text, pipeline_name)
        else:
            json.loads(text)["version_hash"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _is_incomplete(working_dir: Path, pipeline_name: str) -> bool:
    """Whether the state is missing, or a schema that it names."""
    file = working_dir / _STATE
    if not file.exists():
        return True
    names = _decode_state(file.read_text(encoding="utf-8"), pipeline_name).get("schema_names") or ()
    return not all((working_dir / _SCHEMAS / f"{name}.schema.json").exists() for name in names)


def _decode_state(text: str, pipeline_name: str) -> Any:
    state: Any = migrate_state_to_current(pipeline_name, json_decode_state(text))
    if not isinstance(state["_local"], dict):
        raise ValueError("no state of a pipeline")
    return state


def _make_state(working_dir: Path, pipeline_name: str) -> None:
    """Makes a state with the schemas that are there, and those that packages have.

    It is older than any. So dlt takes that of the destination in its place, with its schemas, once nothing is pending.
    """
    file = working_dir / _STATE
    state: Any = default_pipeline_state()
    if file.exists():
        state = {**_decode_state(file.read_text(encoding="utf-8"), pipeline_name), "_state_version": 0}
    schemas = SchemaStorage(SchemaStorageConfiguration(str(working_dir / _SCHEMAS)), makedirs=True)
    for package in _packages(working_dir):
        if (schema := _schema_of(package)) is not None and not schemas.has_schema(schema.name):
            schemas.save_schema(schema)
    state["schema_names"] = sorted(schemas.list_schemas())
    state["default_schema_name"] = next(iter(state["schema_names"]), None)
    FileStorage(str(working_dir)).save(_STATE, json_encode_state(state))


def _packages(working_dir: Path) -> list[Path]:
    """The directories of pending packages, the last one first."""
    folders = (("normalize", NormalizeStorage.EXTRACTED_FOLDER), ("load", LoadStorage.NORMALIZED_FOLDER))
    found = [path for folder in folders for path in working_dir.joinpath(*folder).glob("*") if path.is_dir()]
    return sorted(found, key=lambda path: path.name, reverse=True)


def _schema_of(package: Path) -> Schema | None:
    try:
        content = json.loads((package / PackageStorage.SCHEMA_FILE_NAME).read_text(encoding="utf-8"))
        return Schema.from_dict(content)
    except Exception:  # whatever dlt finds wrong with it
        return None
