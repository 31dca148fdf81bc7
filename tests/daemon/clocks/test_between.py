"""Something in between on the network: its cuts and stalls are no deaths, and deaths are found fast all the same.

Real: a daemon, a service whose spool it does not watch, and a proxy on TCP that cuts every connection and then passes nothing on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from living import Living

import harness
from quiet.proxy import Proxy

SERVICE = """
import sys, looseends
looseends.init(service="far")
with looseends.track("work", key=sys.argv[1], deadline="never"):
    print("at work", flush=True)
    sys.stdin.read()
"""
STALL_S = 4.0
FAST_S = 5.0
LEASE = "1m"


class Far:
    """A daemon, a proxy before it, and services that work far away from its spools."""

    def __init__(self, processes: harness.Processes, folder: Path) -> None:
        self._processes, self._folder = processes, folder
        self._services: list[harness.Process] = []
        self.living: Any = None
        self.proxy: Any = None

    def start(self, fault: str | None = None) -> None:
        self.living = Living(self._processes, self._folder, grace="200ms", lease=LEASE, fault=fault)
        self.living.start()
        self.proxy = Proxy(self.living.port, cut_every=0)

    def service(self, key: str, *, direct: bool = False) -> harness.Process:
        """One that works until its standard input ends, and is known by its first heartbeat."""
        port = self.living.port if direct else self.proxy.port
        env = {"LOOSEENDS_URL": f"http://127.0.0.1:{port}", "LOOSEENDS_SPOOL_DIR": str(self._folder / f"far-{key}")}
        process = self._processes.start(sys.executable, "-c", SERVICE, key, env=env, stdin=True)
        self._services.append(process)
        process.wait_for("at work")
        harness.wait_until(lambda: self.living.count(f"key:{key}") == 1, "its task to be known", 10)
        time.sleep(0.5)  # its first heartbeat follows at once, and the daemon's grace is over
        return process

    def end(self) -> None:
        for process in self._services:
            process.hang_up()
        if self.proxy is not None:
            self.proxy.close()

    def verdict(self, key: str) -> Any:
        """(verdict, reason) of a service's task."""
        (task,) = self.living.ask("GET", f"/api/v1/tasks?q=key:{key}")["items"]
        return task["verdict"], task["reason"]


@pytest.fixture
def far(processes: harness.Processes, state_dir: Path) -> Iterator[Far]:
    far = Far(processes, state_dir)
    yield far
    far.end()


def test_who_is_cut_off_and_comes_back_into_a_network_that_stalls_is_not_gone(far: Far) -> None:
    far.start()
    far.service("one")
    far.proxy.cut_all()
    far.proxy.stall(STALL_S)
    harness.wait_until(lambda: far.proxy.opened >= 2, "it to come back", 5)
    time.sleep(1.0)
    assert far.living.judgements() == []
    assert far.living.ask("GET", "/api/v1/instances")["items"][0]["state"] == "alive"


def test_a_daemon_that_believes_every_end_of_a_connection_is_caught(far: Far) -> None:
    far.start("gullible")
    far.service("one")
    far.proxy.cut_all()
    far.proxy.stall(STALL_S)
    told = ["verdict", "withdrawn"]
    harness.wait_until(lambda: [what for what, _ in far.living.judgements()] == told, "the alarm, and its end", 10)


def test_who_is_cut_off_again_and_again_stays_alive(far: Far) -> None:
    far.start()
    far.service("one")
    for times in range(2, 5):
        far.proxy.cut_all()
        harness.wait_until(lambda times=times: far.proxy.opened >= times, "it to come back", 5)
        time.sleep(0.3)
    time.sleep(2.5)
    assert far.living.judgements() == []


@pytest.mark.parametrize("direct", [True, False])
def test_a_process_that_is_killed_out_of_sight_is_gone_within_seconds(far: Far, direct: bool) -> None:
    far.start()
    bystander = far.service("bystander")
    doomed = far.service("doomed", direct=direct)
    began = time.monotonic()
    doomed.kill()
    harness.wait_until(lambda: far.verdict("doomed")[0] == "lost", "the verdict", 10)
    assert time.monotonic() - began < FAST_S, "its connection told of it, not the lease"
    assert "its connection ended at" in far.verdict("doomed")[1]
    assert far.verdict("bystander")[0] is None and bystander.running


def test_who_finds_the_door_shut_for_a_second_is_not_gone(far: Far) -> None:
    far.start()
    far.service("one")
    far.proxy.cut_all()
    far.proxy.shut = True
    time.sleep(1.0)
    far.proxy.shut = False
    harness.wait_until(lambda: far.proxy.opened >= 2, "it to come back", 5)
    time.sleep(2.5)
    assert far.living.judgements() == []
