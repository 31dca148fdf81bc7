"""A daemon as a process of its own that a test may kill, and what tells it things over HTTP with nothing of ours."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from harness import Process, Processes, free_port, wait_until

CONFIG = """\
[server]
listen = ["127.0.0.1:{port}"]
[storage]
path = "{folder}/looseends.db"
[detect]
grace = "200ms"
[alerts]
group_wait = "0s"
"""


class Watched:
    """`looseends serve` on a port that stays the same however often it is killed and started again."""

    def __init__(self, folder: Path, processes: Processes, toml: str = "", env: dict[str, str] | None = None) -> None:
        self.port, self.folder, self._processes, self._env = free_port(), folder, processes, env or {}
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "config.toml"
        self.config.write_text(CONFIG.format(port=self.port, folder=folder) + toml)
        self.process = self.start()

    def start(self) -> Process:
        """Start it; returns when it is ready."""
        command = (sys.executable, "-m", "looseends.cli", "serve", "-c", self.config)
        self.process = self._processes.start(*command, env=self._env)
        wait_until(lambda: self._lives(), "the daemon to answer", 30.0)
        return self.process

    def _lives(self) -> bool:
        assert self.process.running, self.process.output
        try:
            return bool(fetch(f"{self.url}/livez")[0] == 200)
        except OSError:
            return False

    def tell(self, *events: dict[str, Any]) -> None:
        """Report events without an instance, as a shell user does."""
        common = {"service": "shop", "name": "mail.send", "at": time.time_ns() - 1_000_000}
        status, body = fetch(f"{self.url}/api/v1/events", [{**common, **event} for event in events])
        assert status == 200 and not json.loads(body)["rejected"], body


def fetch(url: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """GET, or POST of JSON. Raises OSError."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status), answer.read().decode()
