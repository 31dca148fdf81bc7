"""What stands where the daemon would, for speed: takes every batch over a unix socket and keeps its events."""

from __future__ import annotations

import gzip
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

TAKEN = b'{"accepted":0,"duplicates":0,"warnings":[],"rejected":[],"orders":0}'


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def receiving(path: str) -> Iterator[list[dict[str, Any]]]:
    """Events as they come. An event is in the list before its batch is answered."""
    events: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # a killed client
                return

        def _take(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(size)
            if len(data) < size:
                return  # killed while it sent
            if self.headers.get("Content-Encoding") == "gzip":
                data = gzip.decompress(data)
            body = json.loads(data) if data else {}
            events.extend(body.get("events", []) if isinstance(body, dict) else [])
            self.send_response(200)
            self.send_header("Content-Length", str(len(TAKEN)))
            self.end_headers()
            self.wfile.write(TAKEN)

        do_POST = do_PUT = do_DELETE = do_GET = _take

        def log_message(self, format: str, *args: object) -> None:
            return

        def address_string(self) -> str:
            return "client"

    with _Server(path, Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield events
        server.shutdown()
