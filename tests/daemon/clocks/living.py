"""A real daemon with a configuration of its own, and what it answers."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import harness

COMMAND = Path(sys.executable).with_name("looseends")
PLANTED = Path(__file__).with_name("planted_daemon.py")
CONFIG = """\
[server]
listen = ["unix:{folder}/s", "127.0.0.1:{port}"]
shutdown_timeout = "{stop}"
[storage]
path = "{folder}/looseends.db"
[detect]
grace = "{grace}"
unreachable_after = "{lease}"
spools = ["{folder}/spool"]
"""


class Living:
    """`looseends serve` in `folder`."""

    def __init__(
        self,
        processes: harness.Processes,
        folder: Path,
        *,
        grace: str = "1s",
        lease: str = "10m",
        stop: str = "10s",
        fault: str | None = None,
    ) -> None:
        """`fault`: one of planted_daemon.py."""
        self.folder, self.socket, self.port = folder, f"{folder}/s", harness.free_port()
        self._processes = processes
        self._command = [COMMAND] if fault is None else [sys.executable, PLANTED, fault]
        (folder / "spool").mkdir(mode=0o700, exist_ok=True)
        (folder / "config.toml").write_text(CONFIG.format(folder=folder, port=self.port, grace=grace, lease=lease, stop=stop))
        self.process: harness.Process | None = None

    def start(self) -> float:
        """Returns how long it took to the first answer (s)."""
        began = time.monotonic()
        env = {"XDG_STATE_HOME": str(self.folder)}
        self.process = self._processes.start(*self._command, "serve", "-c", self.folder / "config.toml", env=env)
        harness.wait_until(self._answers, "the first answer", 30)
        return time.monotonic() - began

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/livez", text=True) == "ok\n"
        except OSError:
            return False

    def connect(self) -> http.client.HTTPConnection:
        """A connection of the test's own."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(30)
        try:
            sock.connect(self.socket)
        except OSError:
            sock.close()
            raise
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = sock
        return connection

    def ask(self, method: str, path: str, body: Any = None, *, text: bool = False, by: Any = None) -> Any:
        """One answer of status 2xx."""
        connection = by or self.connect()
        try:
            headers = {"Content-Type": "application/json"}
            if method == "GET" and path.startswith("/api"):
                token = (self.folder / "looseends.db.token").read_text().strip()
                headers = {"Authorization": f"Bearer {token}"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read()
            assert answer.status in (200, 204), (answer.status, data)
            return data.decode() if text else json.loads(data) if data else None
        finally:
            if by is None:
                connection.close()

    def beat(self, instance: str, by: Any = None) -> None:
        """A heartbeat."""
        self.ask("PUT", f"/api/v1/instances/{instance}/heartbeat", {"backlog": 0}, by=by)

    def instance(self, instance: str) -> Any:
        return self.ask("GET", f"/api/v1/instances/{instance}")

    def count(self, q: str) -> int:
        """How many of the newest 500 tasks a query finds."""
        return len(self.ask("GET", f"/api/v1/tasks?limit=500&q={q}")["items"])

    def judgements(self) -> list[tuple[str, str]]:
        """(what, reason) of every judgement, read beside the daemon, whether or not it runs."""
        with sqlite3.connect(f"file:{self.folder}/looseends.db?mode=ro", uri=True) as conn:
            found = conn.execute("SELECT what, reason FROM judgement ORDER BY at, n").fetchall()
        conn.close()
        return found

    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def channel(self) -> str:
        """Who we are on its socket."""
        return f"uds:{os.geteuid()}"
