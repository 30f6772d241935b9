"""HTTP on a loopback socket: reads requests, sends answers and faults. Knows nothing of what is answered."""

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from further_source.sandbox.scripts import Answer, error, prepare

LOOPBACK = "127.0.0.1"

_NO_LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)

Respond = Callable[[str, str, Mapping[str, str], bytes], Answer]
"""Called with method, path, headers (names in lower case) and body of a request, in the request's thread."""


class LoopbackServer(ThreadingHTTPServer):
    """Serves `respond` on a port of 127.0.0.1, 0 for any free one, with a daemon thread per connection."""

    daemon_threads = True
    request_queue_size = 128
    # On Windows this would let a second server share the port; it has to be refused.
    allow_reuse_address = os.name != "nt"

    def __init__(self, port: int, respond: Respond) -> None:
        self.respond = respond
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__((LOOPBACK, port), _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, name="sandbox", daemon=True
        )
        self._thread.start()

    def stop(self, patience: float = 2.0) -> None:
        """Closes the port and every connection, hung ones too; waits at most `patience` seconds for them."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        self._thread.join()
        deadline = time.monotonic() + patience
        with self._changed:
            for connection in self._connections:
                _shut(connection)
            while self._connections and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def server_bind(self) -> None:
        # HTTPServer's own method asks for the name of this machine, which can take seconds.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._changed:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._connections.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # That clients leave in the middle is usual here.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        body = self._read_body()
        if body is None:
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._send(self.server.respond(self.command, self.path, headers, body))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _handle

    def _read_body(self) -> bytes | None:
        if "Transfer-Encoding" in self.headers:
            self.send_error(411)
            return None
        try:
            length = int(self.headers.get("Content-Length", 0))
        except ValueError:
            self.send_error(400)
            return None
        return self.rfile.read(length) if length > 0 else b""

    def _send(self, answer: Answer) -> None:
        match answer.fault:
            case "drip":
                self._write(answer.head)
                self._drip(answer.body, answer.delay)
            case "drip_headers":
                self._drip(answer.head, answer.delay)
                self._write(answer.body)
            case fault:
                if answer.delay and self.server.stopping.wait(answer.delay):
                    fault = "close"
                self._send_at_once(answer, fault)

    def _send_at_once(self, answer: Answer, fault: str | None) -> None:
        if fault in (None, "empty"):
            self._write(answer.head + answer.body)
            return
        self.close_connection = True
        if fault == "truncated":
            self._write(answer.head + answer.body[: len(answer.body) // 2])
        elif fault == "silent":
            # Ends when the client leaves, or when the server stops and shuts the connection down.
            while self.connection.recv(4096):
                pass
        elif fault == "reset":
            # Closed here and now, so that no orderly end of the stream is sent first.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self.rfile.close()
            self.connection.close()

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)

    def _drip(self, data: bytes, delay: float) -> None:
        for index in range(len(data)):
            self._write(data[index : index + 1])
            if self.server.stopping.wait(delay):
                raise ConnectionAbortedError("the sandbox stops")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers what the base class refuses by itself: malformed requests and unknown methods."""
        self.close_connection = True
        answer = prepare(error(code, message, {"Connection": "close"}))
        self._write(answer.head if self.command == "HEAD" else answer.head + answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: `Sandbox.requests` is the log."""


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
