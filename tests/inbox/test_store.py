"""The files of an inbox on file systems other than the local one."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from further_source.inbox.store import Document, Inbox


@pytest.fixture
def url() -> Iterator[str]:
    """A place in memory, where fsspec works as it does on an object store: no directory is made, none is needed."""
    location = f"memory://{uuid.uuid4().hex}/inbox"
    yield location
    fs, path = fsspec.url_to_fs(location)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def put(url: str, name: str, body: bytes = b"{}") -> None:
    fs, path = fsspec.url_to_fs(f"{url}/{name}")
    fs.pipe_file(path, body)


def found(url: str) -> list[str]:
    fs, path = fsspec.url_to_fs(url)
    return sorted(name[len(path) + 1 :] for name in fs.find(path))


def test_a_bucket_without_a_file_is_an_empty_inbox(url: str) -> None:
    assert Inbox(url).is_empty
    assert Inbox(url).names() == []


def test_what_is_in_the_inbox_is_listed_and_what_was_put_away_is_not(url: str) -> None:
    for name in ("b.json", "2026/11/a.json", ".part.json", "archive/2026-11-25/c.json", "quarantine/d.json"):
        put(url, name)

    assert Inbox(url).names() == ["2026/11/a.json", "b.json"]


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "file.json").write_text("{}")
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")

    assert Inbox(str(tmp_path)).names() == ["file.json", "loop.json"]


def test_files_are_read_archived_and_quarantined(url: str) -> None:
    put(url, "a.json", b"whole")
    put(url, "b.jsonl", b"1\n\n2")
    put(url, "c.json", b"bad")
    inbox = Inbox(url)

    assert [*inbox.documents("a.json", 100)] == [Document("a.json", None, b"whole")]
    assert [*inbox.documents("b.jsonl", 100)] == [Document("b.jsonl", 1, b"1\n"), Document("b.jsonl", 3, b"2")]
    assert [*inbox.documents("gone.json", 100)] == []
    inbox.put_away(["a.json", "gone.json"])
    inbox.quarantine(Document("c.json", None, b"bad"), "why")

    [archived, *others] = found(url)
    assert archived.startswith("archive/")
    assert archived.endswith("/a.json")
    assert others == ["b.jsonl", "quarantine/c.json", "quarantine/c.json.reason.txt"]
