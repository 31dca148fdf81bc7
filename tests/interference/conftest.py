"""A service with a real daemon behind a port that may turn bad, and a plain twin of the service for comparison."""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import harness

HERE = Path(__file__).resolve().parent
COMMAND = Path(sys.executable).with_name("looseends")
START_S = 30.0
sys.path.insert(0, str(HERE))

from bad_daemon import BadDaemon  # noqa: E402
from load import expected  # noqa: E402

__all__ = ["BadDaemon", "expected"]


class Service:
    """served.py in a process of its own."""

    def __init__(self, processes: harness.Processes, kind: str, env: Mapping[str, str]) -> None:
        self._processes = processes
        self.process = processes.start(sys.executable, HERE / "served.py", kind, env=env, stdin=True)
        self.port = int(self.process.wait_for(r"^port (\d+)$", START_S)[1])

    def state(self) -> dict[str, Any]:
        """What it holds now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/state", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def ask(self, first: int, count: int, rate: float) -> dict[str, Any]:
        """Load it, from another process; every answer is checked."""
        load = self._processes.start(sys.executable, HERE / "load.py", str(self.port), str(first), str(count), str(rate))
        line = load.wait_for(r'^{"answers".*}$', count / rate + START_S)
        load.wait()
        found: dict[str, Any] = json.loads(line[0])
        return found


class House:
    """One daemon, the bad one in front of it, and services that tell it what they do."""

    def __init__(self, processes: harness.Processes, folder: Path) -> None:
        self.processes, self.folder = processes, folder
        self.services: list[Service] = []
        self.port = harness.free_port()
        self.database = folder / "looseends.db"
        self.bad = BadDaemon(self.port)
        listen = f"127.0.0.1:{self.port}"
        self.daemon = processes.start(COMMAND, "serve", "--db", str(self.database), "--listen", listen)
        self.daemon.wait_for("looseends is running", START_S)

    def service(self, kind: str = "audited", **env: str) -> Service:
        """Start a service; an audited one finds the bad daemon's port where the daemon should be."""
        self.services.append(service := Service(self.processes, kind, self._env() | env))
        return service

    def _env(self) -> dict[str, str]:
        told = {"LOOSEENDS_URL": f"http://127.0.0.1:{self.bad.port}", "LOOSEENDS_SERVICE": "served"}
        return told | {"LOOSEENDS_SPOOL_DIR": str(self.folder / "spool")}

    def ledger(self) -> dict[str, Any]:
        """What the daemon has counted of the service so far."""
        token = Path(f"{self.database}.token").read_text().strip()
        url = f"http://127.0.0.1:{self.port}/api/v1/ledger?service=served"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def wait_for_all(self, service: Service, count: int, timeout_s: float = 40.0) -> dict[str, Any]:
        """The ledger, once it holds `count` tasks that ended. Asking the service for its state has its sender try at once."""
        until = time.monotonic() + timeout_s
        while True:
            state, ledger = service.state(), self.ledger()
            if ledger["succeeded"] + ledger["failed"] >= count or time.monotonic() > until:
                assert ledger["succeeded"] + ledger["failed"] == ledger["tasks"] == count, (ledger, state, self.bad.heard)
                return ledger
            time.sleep(0.05)


@pytest.fixture
def house(processes: harness.Processes, tmp_path: Path) -> Iterator[House]:
    """See House."""
    found = House(processes, tmp_path)
    yield found
    for service in found.services:
        service.process.hang_up()
        service.process.wait()
    found.bad.close()
    assert not re.search(r"^Traceback", found.daemon.output, re.M), found.daemon.output
