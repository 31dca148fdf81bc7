"""Fixtures of the client's tests: an isolated spool, and a real HTTP server that stands where the daemon would."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from looseends import trouble
from looseends.lifecycle import PROCESS
from looseends.wire import check_batch
from wired import JsonHandler

WAIT_S = 20.0


class Receiver:
    """What a daemon would have seen: every batch checked with the daemon's own `check_batch`, every call kept."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.events: list[dict[str, Any]] = []
        self.batches: list[Any] = []
        self.calls: list[tuple[str, str, Any, dict[str, str]]] = []
        self.arrived: list[float] = []
        self.known: set[str] = set()
        self.answers: list[tuple[int, Any]] = []  # taken first, one per POST /events
        self.orders: dict[str, dict[str, Any]] = {}
        self.sign: Callable[[dict[str, Any], str], str | None] = lambda order, instance: None
        self.results: dict[str, Any] = {}
        self.connections = 0
        self.url = ""

    def wait(self, condition: Callable[[Receiver], Any], seconds: float = WAIT_S) -> Any:
        """Block until `condition(self)` is true. Fails the test after `seconds`."""
        with self.changed:
            done = self.changed.wait_for(lambda: condition(self), seconds)
        seen = [(event["type"], event.get("name")) for event in self.events][-20:]
        assert done, f"waited {seconds} s; events: {seen}; calls: {self.calls[-5:]}"
        return done

    def of(self, name: str) -> list[dict[str, Any]]:
        """Events of tasks of this name."""
        return [event for event in self.events if event.get("name") == name]

    def types(self, name: str) -> list[str]:
        """Event types of tasks of this name in order of arrival, repeats of a sent-again batch left out."""
        return [kind for _, kind in dict.fromkeys((event["task"], event["type"]) for event in self.of(name))]

    def answer(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        with self.changed:
            self.calls.append((method, path, body, headers))
            try:
                return self._answer(method, path, body)
            finally:
                self.changed.notify_all()

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        parts = path.removeprefix("/api/v1/").split("/")
        if path == "/api/v1/events":
            return self._batch(body)
        if parts[0] == "instances" and parts[1] not in self.known:
            return 404, {"title": "unknown instance"}
        if method == "DELETE":
            return 204, None
        if parts[-1] == "heartbeat":
            return 200, {"orders": len([o for o in self.orders.values() if o["id"] not in self.results]), "stacks": []}
        if parts[-1] == "functions":
            return 200, {"items": body}
        if parts[-1] == "orders":
            return 200, {"items": [o for o in self.orders.values() if o["id"] not in self.results]}
        if parts[-1] == "claim":
            order = self.orders[parts[1]]
            return 200, {"order": order, "fence": 7, "mac": self.sign(order, body["instance"])}
        if parts[-1] == "result":
            self.results[parts[1]] = body
            return 200, {}
        return 404, None

    def _batch(self, body: Any) -> tuple[int, Any]:
        if self.answers:
            status, answer = self.answers.pop(0)
            if status != 200:
                return status, answer
        batch = check_batch(body, time.time_ns())
        self.known.add(body["instance"]["id"])
        self.batches.append(batch)
        self.events += batch.events
        self.arrived += [time.monotonic()] * len(batch.events)
        rejected = [{"index": p.index, "pointer": p.pointer, "detail": p.detail} for p in batch.rejected]
        return 200, {"accepted": len(batch.events), "duplicates": 0, "warnings": [], "rejected": rejected, "orders": 0}


def _handler(receiver: Receiver) -> type[JsonHandler]:
    class Handler(JsonHandler):
        def setup(self) -> None:
            receiver.connections += 1
            super().setup()

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # a killed client
                return

        def reply(self, body: Any) -> None:
            self.tell(*receiver.answer(self.command, self.path, body, {k.lower(): v for k, v in self.headers.items()}))

    return Handler


class _Tcp(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 64


class _Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


def serve(receiver: Receiver, address: Any) -> socketserver.BaseServer:
    """Serve `receiver` on a (host, port) or a path until `shutdown`."""
    kind = _Unix if isinstance(address, str) else _Tcp
    server = kind(address, _handler(receiver))
    receiver.url = f"unix:{address}" if isinstance(address, str) else f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A spool of this test's own, nobody listening; the process's instance is ended afterwards."""
    folder = tmp_path / "spool"
    for name in [name for name in os.environ if name.startswith(("LOOSEENDS_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LOOSEENDS_SPOOL_DIR", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("LOOSEENDS_URL", f"unix:{tempfile.gettempdir()}/no-looseends-here")
    monkeypatch.setenv("LOOSEENDS_SERVICE", "tests")
    PROCESS.goodbye(0.5)
    PROCESS.given, PROCESS.disabled, PROCESS._retry_at = {}, False, 0.0
    trouble.COUNTS.clear()
    trouble._said_at.clear()
    yield str(folder)
    PROCESS.goodbye(0.5)
    PROCESS.given, PROCESS.disabled = {}, False


@pytest.fixture
def receiver(spool: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver on a unix socket, set as LOOSEENDS_URL."""
    folder = tempfile.mkdtemp(prefix="le-")
    found = Receiver()
    server = serve(found, f"{folder}/s")
    monkeypatch.setenv("LOOSEENDS_URL", found.url)
    yield found
    PROCESS.goodbye(2.0)
    server.shutdown()
    server.server_close()
    shutil.rmtree(folder)


@pytest.fixture
def tcp_receiver(spool: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver on a loopback port, set as LOOSEENDS_URL."""
    found = Receiver()
    server = serve(found, ("127.0.0.1", 0))
    monkeypatch.setenv("LOOSEENDS_URL", found.url)
    yield found
    PROCESS.goodbye(2.0)
    server.shutdown()
    server.server_close()


Child = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def child(spool: str) -> Iterator[Child]:
    """Run Python source in a process of its own; killed at the end of the test if it still runs."""
    running: list[subprocess.Popen[str]] = []

    def start(source: str, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def serving() -> Iterator[Callable[[Receiver, Any], None]]:
    """Start serving a receiver later in a test, at an address chosen there."""
    servers: list[socketserver.BaseServer] = []
    yield lambda receiver, address: servers.append(serve(receiver, address))
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def free_port() -> int:
    """A loopback port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def new_receiver() -> Callable[[], Receiver]:
    """A receiver that is not served yet."""
    return Receiver


@pytest.fixture
def recorded(spool: str) -> Callable[[], list[dict[str, Any]]]:
    """End this process's instance without a daemon, and read its journal as whoever adopts it would."""
    from looseends import journal

    def read() -> list[dict[str, Any]]:
        PROCESS.goodbye(10)  # it is done long before, on a machine that is not busy
        events = []
        for folder in journal.folders(spool):
            orphan = journal.adopt(folder)
            assert orphan is not None
            events += [event for batch in orphan.batches() for event in batch]
            orphan.close()
        return events

    return read
