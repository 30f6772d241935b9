"""A connection to PostgreSQL that is lost after the server has committed, and before it has said so."""

import re
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["CutConnections"]

_STATEMENT = re.compile(rb'(?:COPY|INSERT INTO) "[^\n(]*', re.IGNORECASE)
_BYTES = 65_536


class CutConnections:
    """Stands between a client and the server, on a socket in a directory of its own.

    Args:
        server: The directory of the server's socket.
        directory: That of the socket it listens on.

    Attributes:
        directory: The one of its socket.
        after: The next COMMIT that follows a statement with this text is the last thing heard on its connection.
        was_cut: Whether it has come.
        is_away_then: Whether nobody is answered from then on, until this is false.
    """

    def __init__(self, server: Path, directory: Path) -> None:
        self.after: str | None = None
        self.was_cut = False
        self.is_away_then = False
        self.directory = directory
        self._server = next(path for path in server.glob(".s.PGSQL.*") if path.suffix != ".lock")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(directory / self._server.name))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._between, args=(client,), daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _between(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            if self.was_cut and self.is_away_then:
                return
            server.connect(str(self._server))
            is_over = threading.Event()
            back = threading.Thread(target=self._answered, args=(client, server, is_over), daemon=True)
            back.start()
            self._sent(client, server, is_over)
            back.join()

    def _sent(self, client: Any, server: Any, is_over: threading.Event) -> None:
        last = ""
        with suppress(OSError):
            while data := client.recv(_BYTES):
                if found := _STATEMENT.findall(data):
                    last = found[-1].decode()
                if b"COMMIT\x00" in data and self.after is not None and self.after in last:
                    self.after, self.was_cut = None, True
                    is_over.set()
                server.sendall(data)
        _end(client, server)

    def _answered(self, client: Any, server: Any, is_over: threading.Event) -> None:
        with suppress(OSError):
            while (data := server.recv(_BYTES)) and not is_over.is_set():
                client.sendall(data)
        _end(client, server)


def _end(*connections: Any) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
