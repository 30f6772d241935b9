"""All at once: a thousand deliveries, stalled clients, a huge body, a full disk, and a receiver that is killed."""

import asyncio
import json
import resource
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.command import HANG
from tests.support.deliveries import inline
from tests.support.receiving import BY_KEY, Receiver, leftovers, quarantined, waits

DELIVERIES, STALLED = 1_000, 200
TEXT = 20_000  # bytes in each
HUGE = b"[" + b"1," * 25_000_000 + b"1]"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one. A thousand sockets are open on it at once."""
    directory = tmp_path / "inbox"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(directory)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield directory
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    subprocess.run(["umount", "-l", str(directory)], check=True)


class Storm:
    """Senders that send again what got no 2xx, as the API does."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self.receiver = Receiver(disk)
        self.port = self.receiver.port
        self.acknowledged: list[bytes] = []
        self.answers: Counter[str] = Counter()

    async def stall(self, sent: bytes) -> asyncio.StreamWriter:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        return writer

    async def send(self, body: bytes) -> None:
        while (answer := await self._post(body)) != "202":
            self.answers[answer] += 1
            await asyncio.sleep(0.5)
        self.answers[answer] += 1
        self.acknowledged.append(body)

    async def _post(self, body: bytes) -> str:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nX-Key: correct horse\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(head.encode() + body)
                return (await reader.readline()).decode().split(" ")[1]
            finally:
                writer.close()
        except (OSError, IndexError):
            return "none"

    async def until(self, enough: int) -> None:
        deadline = time.monotonic() + HANG
        while len(self.acknowledged) < enough:
            assert time.monotonic() < deadline, self.answers
            await asyncio.sleep(0.01)

    async def fill_the_disk(self) -> None:
        """Until deliveries are to come again; then there is room."""
        filling = self.disk / ".fill"
        deadline = time.monotonic() + HANG
        with filling.open("wb", buffering=0) as file:
            while not self.answers["503"]:
                with suppress(OSError):
                    while file.write(b"x" * 4096):
                        pass
                assert time.monotonic() < deadline, self.answers
                await asyncio.sleep(0.05)
        filling.unlink()

    async def kill(self) -> None:
        self.receiver.process.kill()
        self.receiver.process.communicate()
        self.receiver = await asyncio.to_thread(Receiver, self.disk, *BY_KEY, "--port", str(self.port))


@pytest.mark.slow
def test_what_got_a_2xx_is_in_the_inbox_whole_and_normal_ones_are_served(disk: Path) -> None:
    bodies = [json.dumps(inline(f"e{number}", {"text": "x" * TEXT})).encode() for number in range(DELIVERIES)]
    begun = b"POST / HTTP/1.1\r\nHost: x\r\nX-Key: correct horse\r\nContent-Length: 100\r\n\r\n{"
    storm = Storm(disk)

    async def play() -> None:
        stalled = [await storm.stall(begun if number % 4 else b"POST / HT") for number in range(STALLED)]
        sending = asyncio.gather(*map(storm.send, [HUGE, *bodies]))
        await storm.until(200)
        await storm.fill_the_disk()
        await storm.until(500)
        await storm.kill()
        stalled += [await storm.stall(begun) for _ in range(STALLED)]
        await asyncio.wait_for(sending, 3 * HANG)
        for writer in stalled:
            writer.close()

    asyncio.run(play())
    storm.receiver.process.kill()
    storm.receiver.process.communicate()

    assert sorted(storm.acknowledged) == sorted([HUGE, *bodies])
    assert {file.read_bytes() for file in waits(disk)} == {*bodies}
    assert quarantined(disk).keys() == {HUGE}
    assert storm.answers["503"] >= 1
    assert storm.answers["none"] >= 1  # of the one that was killed
    assert storm.answers.keys() == {"202", "503", "none"}
    with Receiver(disk):
        assert leftovers(disk) == []
