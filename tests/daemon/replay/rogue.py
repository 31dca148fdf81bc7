"""A rogue: answers everything as a daemon would, says that an order waits, and hands one out to whoever claims it.

usage: rogue.py ADDRESS LOG ORDER [UID]      ADDRESS: 127.0.0.1:PORT or unix:PATH; UID: whose process it is to be
Every request is a line in LOG. The mac of its claims is made up: it has no order key.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

ADDRESS, LOG, ORDER = sys.argv[1:4]
OFFERED: dict[str, Any] = {
    "id": ORDER,
    "name": "shop.charge",
    "args": {"order_id": 7},
    "replay_of": ORDER,
    "idempotency_key": "k",
    "signature": "(order_id: 'int') -> 'None'",
}


class Handler(BaseHTTPRequestHandler):
    """Says yes to everything."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Log, then answer by path."""
        size = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(size)
        with open(LOG, "a") as file:
            file.write(f"{self.command} {self.path}\n")
        answer: dict[str, Any] = {"accepted": 1, "duplicates": 0, "warnings": [], "rejected": [], "orders": 1, "stacks": []}
        if self.path.endswith("/orders"):
            answer = {"items": [OFFERED], "next_cursor": None}
        elif self.path.endswith("/claim"):
            answer = {"order": OFFERED, "fence": 1, "mac": "0" * 64}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def address_string(self) -> str:
        """A unix socket's peer has no address."""
        return "peer"

    def log_message(self, *_: Any) -> None:
        """The log is a file of its own."""


def main() -> None:
    """Listen, as whom it is told to be, and answer for ever."""
    unix = ADDRESS.startswith("unix:")
    server = HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    if unix:
        server.socket.bind(ADDRESS[5:])
        os.chmod(ADDRESS[5:], 0o777)
    else:
        host, _, port = ADDRESS.rpartition(":")
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.socket.bind((host, int(port)))
    if len(sys.argv) > 4:
        os.seteuid(int(sys.argv[4]))  # what the kernel tells the other end is who called listen
    server.socket.listen(16)
    if len(sys.argv) > 4:
        os.seteuid(0)
    print("rogue is up", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
