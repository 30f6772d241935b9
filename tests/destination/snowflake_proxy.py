"""A proxy before fakesnow, which stands in for Snowflake: it puts into other words what fakesnow 0.12 does not take.

- Several statements in one request, as dlt sends them, are sent one after the other.
- Stages in quotes, as in `PUT 'file://...' '@"SCHEMA"."%TABLE"/...'`, lose them.
- Options of a file format lose their commas, and `MATCH_BY_COLUMN_NAME` the quotes of its value.
- `COPY` of JSON lines names the columns: dlt loads none but those of its own table `_dlt_pipeline_state`.
"""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests
import sqlglot

_HOP_BY_HOP = {"accept-encoding", "connection", "content-encoding", "content-length", "host", "transfer-encoding"}
_STATE = {
    "version": "NUMBER",
    "engine_version": "NUMBER",
    "pipeline_name": "VARCHAR",
    "state": "VARCHAR",
    "created_at": "TIMESTAMP_TZ",
    "version_hash": "VARCHAR",
    "_dlt_load_id": "VARCHAR",
    "_dlt_id": "VARCHAR",
}


def reworded(sql: str) -> list[str]:
    """The statements to send in place of these."""
    if re.match(r"\s*(PUT|COPY|REMOVE)\b", sql):
        sql = re.sub(r"'@([^']*)'", lambda stage: "@" + stage[1].replace('"', ""), sql)
    if re.match(r"\s*PUT\b", sql):
        return [sql]
    sql = re.sub(r"(?<=FILE_FORMAT = \()[^)]*", lambda options: options[0].replace(",", " "), sql)
    sql = sql.replace("MATCH_BY_COLUMN_NAME='CASE_INSENSITIVE'", "MATCH_BY_COLUMN_NAME=CASE_INSENSITIVE")
    if copy := re.match(r"\s*COPY INTO (\S+)\s+FROM (\S+)\s.*TYPE = 'JSON'", sql, re.DOTALL):
        values = ", ".join(f"json:{name}::{data_type}" for name, data_type in _STATE.items())
        table, stage = copy.groups()
        sql = (
            f"COPY INTO {table} ({', '.join(_STATE)}) FROM (SELECT {values} FROM {stage}) FILE_FORMAT = (TYPE = 'JSON')"
        )
    return _split(sql)


def _split(sql: str) -> list[str]:
    ends = [token for token in sqlglot.tokenize(sql, read="snowflake") if token.token_type.name == "SEMICOLON"]
    starts = [0, *(token.end + 1 for token in ends)]
    statements = [
        sql[start:end].strip() for start, end in zip(starts, [*(token.start for token in ends), len(sql)], strict=True)
    ]
    return [statement for statement in statements if statement]


@contextmanager
def proxy(target: str) -> Iterator[int]:
    """Serves on the port that it yields; the last answer to several statements is theirs, or the first failure."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            for part in self._bodies(body):
                answer = requests.request(self.command, target + self.path, data=part, headers=headers, timeout=60)
                is_json = answer.headers.get("Content-Type", "").startswith("application/json")
                if is_json and not answer.json().get("success"):
                    break
            # The driver would repeat for minutes what is answered with 500.
            self.send_response(200 if is_json else answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in {*_HOP_BY_HOP, "date", "server"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = pass_on

        def _bodies(self, body: bytes) -> list[bytes]:
            if self.command != "POST" or "/queries/v1/query-request" not in self.path:
                return [body]
            asked = json.loads(body)
            return [json.dumps({**asked, "sqlText": sql}).encode() for sql in reworded(asked["sqlText"])] or [body]

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
