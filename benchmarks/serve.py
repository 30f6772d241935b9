"""Serves answers over loopback HTTP from a process of its own.

`python -m benchmarks.serve EXECUTIONS ROWS FIELDS STEP_NAMES` prints its base URL, then serves until its standard input
is closed. Answers are made before; a thread per connection does nothing but look one up and send it, so that serving
costs as little as it can.
"""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.payloads import bodies

TOKEN = "token"


@contextmanager
def serving(executions: int, rows: int, fields: int, step_names: int = 1) -> Iterator[str]:
    """The base URL of a server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.serve", *map(str, (executions, rows, fields, step_names))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        yield process.stdout.readline().strip()
        process.stdin.close()


def _serve(answers: dict[bytes, bytes]) -> int:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    threading.Thread(target=_accept, args=(listener, answers), daemon=True).start()
    return int(listener.getsockname()[1])


def _accept(listener: socket.socket, answers: dict[bytes, bytes]) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer, args=(connection, answers), daemon=True).start()


def _answer(connection: socket.socket, answers: dict[bytes, bytes]) -> None:
    received = b""
    with connection:
        while True:
            while b"\r\n\r\n" not in received:
                chunk = connection.recv(65536)
                if not chunk:
                    return
                received += chunk
            head, _, received = received.partition(b"\r\n\r\n")
            execution_id = head.split(b" ", 2)[1].rpartition(b"/")[2]
            connection.sendall(answers[execution_id])


def main() -> None:
    answers = {}
    for execution_id, body in bodies(*map(int, sys.argv[1:])):
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        answers[execution_id.encode()] = head.encode() + body
    print(f"http://127.0.0.1:{_serve(answers)}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
