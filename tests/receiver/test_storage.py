"""What a receiver has done to a delivery by the time that it acknowledges it."""

import json
from contextlib import closing
from pathlib import Path

from further_source.receiver.storage import Storage
from tests.support.deliveries import inline
from tests.support.synced import Step, steps_to_disk


def kept(storage: Storage, body: bytes) -> list[Step]:
    incoming = storage.incoming("")
    incoming.add(body)
    with steps_to_disk() as steps:
        incoming.keep()
    return steps


def test_its_bytes_are_on_the_disk_before_it_has_its_name_and_then_its_name_is(tmp_path: Path) -> None:
    with closing(Storage(tmp_path, max_bytes=10_000)) as storage:
        synced, renamed, directory = kept(storage, json.dumps(inline("a")).encode())

    (stored,) = tmp_path.glob("*.json")
    assert (synced.kind, synced.path.parent, synced.path.suffix) == ("sync", tmp_path, ".part")
    assert (renamed, directory) == (Step("rename", stored), Step("sync", tmp_path))


def test_so_they_are_of_what_goes_to_quarantine(tmp_path: Path) -> None:
    with closing(Storage(tmp_path, max_bytes=10_000)) as storage:
        synced, renamed, directory = kept(storage, b"no delivery")

    (stored,) = tmp_path.glob("quarantine/*.json")
    assert (synced.kind, synced.path.suffix) == ("sync", ".part")
    assert (renamed, directory) == (Step("rename", stored), Step("sync", tmp_path / "quarantine"))
