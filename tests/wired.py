"""HTTP as the tests of client and daemon speak it: a connection over a unix socket, and a server's side that answers JSON."""

from __future__ import annotations

import gzip
import json
import socket
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from typing import Any

ANSWER_S = 20.0


def unix_connection(path: str, timeout_s: float = ANSWER_S) -> HTTPConnection:
    """HTTP over a unix socket, connected. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    connection = HTTPConnection("localhost", timeout=timeout_s)
    connection.sock = sock
    return connection


class JsonHandler(BaseHTTPRequestHandler):
    """Reads a request with its body, packed or not; `tell` answers. A subclass says what: `reply(body)`."""

    protocol_version = "HTTP/1.1"

    def reply(self, body: Any) -> None:
        """Answer what was asked, with `tell` or by hanging up. `body`: the parsed JSON, None without one."""
        raise NotImplementedError

    def tell(self, status: int, answer: Any) -> None:
        """Send an answer: JSON, or no body at all for None."""
        told = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def _do(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        self.reply(json.loads(data) if data else None)

    do_GET = do_POST = do_PUT = do_DELETE = _do

    def log_message(self, format: str, *args: object) -> None:
        return

    def address_string(self) -> str:
        return "client"
