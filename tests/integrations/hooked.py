"""A daemon and services beside it, all real processes, for tests of what a hook captures."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness import Process, Processes, free_port, wait_until

CONFIG = """\
[server]
listen = ["127.0.0.1:{port}", "unix:{socket}"]
[storage]
path = "{folder}/looseends.db"
[detect]
grace = "200ms"
{more}
"""


class Daemon:
    """The installed daemon on files of its own, and services that share its spool. `state`: XDG_STATE_HOME of all of them."""

    def __init__(self, processes: Processes, state: Path, more: str = "") -> None:
        self.processes, self.state = processes, state
        self.port, self.socket = free_port(), state / "d.sock"
        config = state / "config.toml"
        config.write_text(CONFIG.format(port=self.port, socket=self.socket, folder=state, more=more))
        process = processes.start(sys.executable, "-m", "looseends.cli", "serve", "-c", config)
        process.wait_for("looseends is running")
        self.token = (state / "looseends.db.token").read_text().strip()

    @property
    def env(self) -> dict[str, str]:
        """What makes a program a service of this daemon."""
        return {"LOOSEENDS_URL": f"unix:{self.socket}", "LOOSEENDS_SERVICE": "shop"}

    def start(self, *args: str | Path, cwd: Path, **env: str) -> Process:
        """A service."""
        return self.processes.start(*args, env={**self.env, **env}, cwd=cwd)

    def python(self, source: str, folder: Path, *args: str, name: str = "shop.py", **env: str) -> Process:
        """A service from its source text."""
        (folder / name).write_text(source)
        return self.start(sys.executable, name, *args, cwd=folder, **env)

    # --- asking ---

    def get(self, path: str) -> tuple[int, str]:
        """Any page or resource, as the operator: status and text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def tasks(self, q: str = "") -> list[dict[str, Any]]:
        """The newest 500 tasks of a query."""
        status, text = self.get(f"/api/v1/tasks?limit=500&q={quote(q)}")
        assert status == 200, text
        found: list[dict[str, Any]] = json.loads(text)["items"]
        return found

    def notices(self) -> list[dict[str, Any]]:
        """Every incident there was: each would have paged somebody."""
        status, text = self.get("/api/v1/incidents?limit=500")
        assert status == 200, text
        found: list[dict[str, Any]] = json.loads(text)["items"]
        return found

    def ledger(self) -> dict[str, Any]:
        """The last 24 hours."""
        found: dict[str, Any] = json.loads(self.get("/api/v1/ledger")[1])
        terms = [found[term] for term in ("succeeded", "failed", "cancelled", "in_time", "gap")]
        assert found["tasks"] == sum(terms)
        return found

    def wait(self, condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> Any:
        """Until it is so; the failure shows every task."""
        try:
            return wait_until(condition, what, timeout_s)
        except AssertionError as late:
            shown = [(t["name"], t["state"], t["verdict"], t["reason"]) for t in self.tasks()]
            raise AssertionError(f"{late}; tasks: {shown}; {[p.output[-2000:] for p in self.processes.started[1:]]}") from None

    def wait_for(self, q: str, count: int = 1) -> list[dict[str, Any]]:
        """Until exactly so many tasks answer the query."""
        found: list[dict[str, Any]] = self.wait(lambda: len(t := self.tasks(q)) == count and t, f"{count} of {q}")
        return found


def ask(port: int, method: str, path: str) -> int:
    """The status a service answers with."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def hang_up_early(port: int, path: str) -> None:
    """Ask, and close the connection without waiting for the answer: a user who clicks again."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
