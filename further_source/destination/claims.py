"""Lets one process at a time make the next version of an Iceberg table for which no catalog is configured.

A catalog sees to it that of two commits on the same version one fails. Without one, dlt has a catalog in memory, which
takes the file of metadata with the highest number for the table as it is: of two commits at once the later would undo
the earlier. So whoever commits first makes a file that claims the next number, which only one can make, and then looks
whether the table still is what the commit is based on.

A claim that is left behind (by a process that was killed) is taken over by the next number of claim: at once if its
process ran on this machine and is gone, else after a minute. Should a process stand still for longer than that between
its look and its commit, two may commit on the same version after all, and what one of them wrote is lost.
"""

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any

from dlt.common import logger

__all__ = ["claiming"]

_CLAIM = re.compile(r"(\d+)\.(\d+)\.claim")
_PATIENCE = 60.0  # seconds
_LOOK_EVERY = 0.1


def claiming(catalog: Any, files: Any) -> Any:
    """The catalog, if it is one in memory made such that its commits claim the number of the next version.

    Args:
        catalog: pyiceberg's.
        files: fsspec's filesystem of the tables.
    """
    from dlt.common.libs.pyiceberg import is_ephemeral_catalog  # noqa: PLC0415  where it is the format

    if is_ephemeral_catalog(catalog) and "commit_table" not in vars(catalog):
        commit, create = catalog.commit_table, catalog.create_table

        def commit_table(table: Any, requirements: Any, updates: Any) -> Any:
            directory, _, base = table.metadata_location.rpartition("/")
            with _claimed(files, _path(directory), _version(base) + 1, base):
                return commit(table, requirements, updates)

        def create_table(*arguments: Any, location: str, **keywords: Any) -> Any:
            with _claimed(files, f"{_path(location).rstrip('/')}/metadata", 0, None):
                return create(*arguments, location=location, **keywords)

        catalog.commit_table, catalog.create_table = commit_table, create_table
    return catalog


@contextmanager
def _claimed(files: Any, directory: str, version: int, base: str | None) -> Iterator[None]:
    """Holds the claim within.

    Args:
        base: The file of metadata that the commit is based on; None for a table that is made.

    Raises:
        CommitFailedException: The table is not as that file has it any more.
    """
    from pyiceberg.exceptions import CommitFailedException  # noqa: PLC0415

    files.makedirs(directory, exist_ok=True)
    try:
        number = _claim(files, directory, version)
    except (NotImplementedError, ValueError) as error:
        logger.info(f"the store cannot make a file only if it is not there, so commits are not kept apart: {error}")
        yield
        return
    try:
        latest = max((name for name in _names(files, directory) if name.endswith(".json")), default=None)
        if latest != base:
            raise CommitFailedException(f"{directory}: {latest} is newer than {base}")
        yield
    finally:
        for one in range(1, number + 1):
            with suppress(FileNotFoundError):
                files.rm_file(_file(directory, version, one))


def _claim(files: Any, directory: str, version: int) -> int:
    """Makes the claim, as soon as nobody else has one that counts; returns its number, which is the highest."""
    seen, seen_at = 0, 0.0
    while True:
        held = _highest(files, directory, version)
        if held != seen:
            seen, seen_at = held, time.monotonic()
        if held and time.monotonic() < seen_at + _PATIENCE and not _is_left(files, _file(directory, version, held)):
            time.sleep(_LOOK_EVERY)
            continue
        claim = _file(directory, version, held + 1)
        try:
            with files.open(claim, "xb") as file:
                file.write(json.dumps({"host": socket.gethostname(), "process_id": os.getpid()}).encode())
        except FileExistsError:
            continue
        if _highest(files, directory, version) == held + 1:
            return held + 1
        files.rm_file(claim)  # what was seen before had been taken over, and is taken back


def _highest(files: Any, directory: str, version: int) -> int:
    claims = filter(None, map(_CLAIM.fullmatch, _names(files, directory)))
    return max((int(claim[2]) for claim in claims if int(claim[1]) == version), default=0)


def _is_left(files: Any, claim: str) -> bool:
    """Whether the process that made it ran on this machine and is gone."""
    if os.name == "nt":  # there one cannot ask without ending it
        return False
    try:
        found = json.loads(files.cat_file(claim))
        if found["host"] == socket.gethostname():
            os.kill(found["process_id"], 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):  # gone meanwhile, or not written yet
        return False
    return False


def _names(files: Any, directory: str) -> list[str]:
    files.invalidate_cache(directory)
    with suppress(FileNotFoundError):  # a store has no directories that are empty
        return [PurePosixPath(file).name for file in files.ls(directory, detail=False)]
    return []


def _file(directory: str, version: int, number: int) -> str:
    return f"{directory}/{version:05d}.{number}.claim"


def _version(name: str) -> int:
    return int(name.partition("-")[0])


def _path(location: str) -> str:
    from fsspec.core import strip_protocol  # noqa: PLC0415

    return str(strip_protocol(location))
