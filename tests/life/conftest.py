"""A real daemon that watches a spool, and services of many kinds beside it."""

from __future__ import annotations

import http.client
import json
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import harness

COMMAND = Path(sys.executable).with_name("looseends")
SERVICES = Path(__file__).with_name("services")
CONFIG = """\
[server]
listen = ["unix:{folder}/looseends/looseends.sock"]
[storage]
path = "{folder}/looseends.db"
[detect]
grace = "300ms"
{more}
"""


class House:
    """`looseends serve` on a unix socket in `folder`, and what it answers the operator."""

    def __init__(self, processes: harness.Processes, folder: Path, more: str = "") -> None:
        self.folder, self.socket = folder, f"{folder}/looseends/looseends.sock"
        self.processes = processes
        config = folder / "config.toml"
        config.write_text(CONFIG.format(folder=folder, more=more))
        self.daemon = processes.start(COMMAND, "serve", "-c", config)
        self.daemon.wait_for("looseends is running")

    def service(self, script: str, *args: str, stdin: bool = False, **env: str) -> harness.Process:
        """One of tests/life/services/*.py in a process of its own; give it `stdin`, and hang up in the end."""
        named = {"LOOSEENDS_SERVICE": "life", **env}
        return self.processes.start(sys.executable, SERVICES / script, *args, env=named, stdin=stdin)

    def ask(self, path: str) -> Any:
        """GET /api/v1..., as the operator."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.connect(self.socket)
        connection = http.client.HTTPConnection("localhost")
        connection.sock = sock
        token = (self.folder / "looseends.db.token").read_text().strip()
        try:
            connection.request("GET", f"/api/v1{path}", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            assert answer.status == 200, (path, answer.status)
            return json.load(answer)
        finally:
            connection.close()

    def tasks(self, q: str = "") -> list[dict[str, Any]]:
        """Tasks that match a query, newest first."""
        found: list[dict[str, Any]] = self.ask(f"/tasks?limit=500&q={quote(q)}")["items"]
        return found

    def task(self, name: str, when: Callable[[dict[str, Any]], Any], words: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """Wait for the newest task of this name to be as wanted."""
        until = time.monotonic() + timeout_s
        while True:
            found = self.tasks(f"name:{name}")
            if found and when(found[0]):
                return found[0]
            if time.monotonic() > until:
                raise harness.WaitedTooLong(f"waited {timeout_s:g} s for {name} to be {words}; it is {found[:1]}")
            time.sleep(0.02)


class Sink:
    """Takes every POST with 200 and keeps its body."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}/"
        self.bodies: queue.Queue[bytes] = queue.Queue()


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A receiver of webhooks on a loopback port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.bodies.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Sink(server)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def open_house(processes: harness.Processes, state_dir: Path) -> Callable[..., House]:
    """Start a daemon in the test's own state folder; `more` is added to its configuration."""
    return lambda more="": House(processes, state_dir, more)


@pytest.fixture
def house(open_house: Callable[..., House]) -> Iterator[House]:
    """A daemon as it comes."""
    yield open_house()
