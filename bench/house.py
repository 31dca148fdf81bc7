"""A real daemon in a process of its own over a database that was built before, with the heartbeats of its instances.

Rules: the processes of a made-up company must go on living, or all their open tasks would be lost at once; so a thread tells
their heartbeats over one connection. What is asked is asked over HTTP, as a person's browser does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

CONFIG = """[server]
listen = ["127.0.0.1:{port}"]
[storage]
path = "{path}"
retain_finished = "{retain}"
max_size = "100GiB"
"""
HEARTBEAT_S = 5.0
START_S_MAX = 60.0


class House:
    """`with House(path) as house`: the daemon answers. `started_s`: from its spawn to its first 200."""

    def __init__(self, path: Path, retain: str = "90d") -> None:
        self.path, self.port = path, random.randrange(20_000, 30_000)
        self.config = path.with_suffix(".toml")
        self.config.write_text(CONFIG.format(port=self.port, path=path, retain=retain))
        self._stop = threading.Event()
        self._lives = threading.Thread(target=self._heartbeats, daemon=True)
        self.started_s = 0.0
        self.token = ""

    def __enter__(self) -> House:
        env = {**os.environ, "XDG_STATE_HOME": str(self.path.parent)}
        command = [sys.executable, "-m", "looseends.cli", "serve", "-c", str(self.config)]
        began = time.perf_counter()
        said = self.path.with_suffix(".log").open("w")
        self.process = subprocess.Popen(command, env=env, stdout=said, stderr=said)
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                break
            if time.perf_counter() - began > START_S_MAX:
                raise SystemExit(f"the daemon did not start: {self.path.with_suffix('.log')}")
            time.sleep(0.005)
        self.started_s = time.perf_counter() - began
        self.token = Path(f"{self.path}.token").read_text().strip()
        self._lives.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.send_signal(signal.SIGTERM)
        self._stop.set()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._lives.join()

    @property
    def memory_mib(self) -> float:
        """What it has in memory now (RSS)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    @property
    def cpu_s(self) -> float:
        """The CPU time it has used (s)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def connection(self) -> http.client.HTTPConnection:
        """A kept connection to it."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def get(self, line: http.client.HTTPConnection, path: str) -> tuple[float, int]:
        """(seconds until the whole answer was here, its bytes). Raises SystemExit for anything but 200."""
        began = time.perf_counter()
        line.request("GET", path, headers={"Authorization": f"Bearer {self.token}", "Accept-Encoding": "gzip"})
        answer = line.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path} was answered with {answer.status}: {body[:300]!r}")
        return time.perf_counter() - began, len(body)

    def ask(self, path: str) -> Any:
        """The JSON of a route."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def _heartbeats(self) -> None:
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as conn:
            alive = [row[0] for row in conn.execute("SELECT id FROM instance WHERE state = 'alive' AND host LIKE 'host-%'")]
        line = self.connection()
        while not self._stop.is_set():
            for who in alive:
                try:
                    line.request("PUT", f"/api/v1/instances/{who}/heartbeat", "{}", {"Content-Type": "application/json"})
                    line.getresponse().read()
                except OSError:
                    line.close()
                if self._stop.wait(HEARTBEAT_S / max(1, len(alive))):
                    return
