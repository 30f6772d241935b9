"""One polling in the background."""

import socket
import threading
import time

from further_source.api.client import Client, StaticToken
from further_source.executions import ExecutionId
from further_source.run.session import Session
from further_source.settings import PollingSettings


def test_closing_cuts_the_requests_that_are_under_way() -> None:
    """Nobody answers: each would go on for the whole of its timeout."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(f"http://127.0.0.1:{server.getsockname()[1]}", StaticToken("t"), request_timeout=600)
        listed = [ExecutionId("wf", f"ex-{number}") for number in range(3)]
        session = Session(listed, client, PollingSettings(max_requests_per_second=1000))
        connections = [server.accept()[0] for _ in listed]
        for connection in connections:
            assert connection.recv(65536)

        session.close()

        for connection in connections:
            connection.settimeout(10)
            assert connection.recv(65536) == b""
            connection.close()
    until = time.monotonic() + 10
    while names := [thread.name for thread in threading.enumerate() if thread.name.startswith("further-")]:
        assert time.monotonic() < until, names
        time.sleep(0.01)
