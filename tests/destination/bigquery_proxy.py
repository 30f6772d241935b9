"""A proxy before a server of BigQuery's API: it notes what is asked, and answers in its place where it is told to."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

_HOP_BY_HOP = {"connection", "content-encoding", "content-length", "host", "keep-alive", "transfer-encoding"}


@dataclass
class Traffic:
    """What has passed.

    Attributes:
        url: Of the proxy, as of `BIGQUERY_EMULATOR_HOST`.
        statements: The SQL of queries, in the order in which they came.
        load_jobs: For each load job the dataset and the table that it was to load.
        refuse: Given a statement, or `load DATASET.TABLE`, the error that is answered in place of passing it on.
    """

    url: str = ""
    statements: list[str] = field(default_factory=list)
    load_jobs: list[tuple[str, str]] = field(default_factory=list)
    refuse: Callable[[str], dict[str, Any] | None] = lambda what: None


def refusal(code: int, reason: str, message: str) -> dict[str, Any]:
    """An error as BigQuery's API puts it."""
    return {"code": code, "message": message, "errors": [{"reason": reason, "message": message, "domain": "global"}]}


@contextmanager
def proxy(target: str) -> Iterator[Traffic]:
    traffic = Traffic()
    session = requests.Session()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            error = self._noted(body) if self.command == "POST" else None
            if error is not None:
                self._answer(error["code"], {"Content-Type": "application/json"}, json.dumps({"error": error}).encode())
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            # Requests for a whole URL are those of an upload that was begun.
            url = target + self.path.removeprefix(traffic.url)
            answer = session.request(self.command, url, data=body, headers=headers, timeout=60)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            self._answer(answer.status_code, kept, answer.content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

        def _noted(self, body: bytes) -> dict[str, Any] | None:
            if not re.search(r"/(queries|jobs)(\?|$)", self.path):
                return None
            asked = _json_of(body)
            configuration = asked.get("configuration", {})
            if table := configuration.get("load", {}).get("destinationTable"):
                what = f"load {table['datasetId']}.{table['tableId']}"
                traffic.load_jobs.append((table["datasetId"], table["tableId"]))
            else:
                what = asked.get("query") or configuration["query"]["query"]
                traffic.statements.append(what)
            return traffic.refuse(what)

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    traffic.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield traffic
    finally:
        server.shutdown()
        server.server_close()
        session.close()


def _json_of(body: bytes) -> dict[str, Any]:
    """The JSON of a request; of an upload in parts that of the first part."""
    if body.startswith(b"--"):
        body = body.split(b"\r\n\r\n", 1)[1]
    found: dict[str, Any] = json.JSONDecoder().raw_decode(body.decode(errors="replace").lstrip())[0]
    return found
