"""What the benchmarks of the daemon share: a daemon in a process of its own, what it uses, and a report as text and Markdown.

Rules: a figure is printed with how often it was taken and its spread; a bar is named beside it, met or missed. `--markdown FILE`
writes the same report for docs/performance.md, which bench/collect.py puts together.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
START_S_MAX = 60.0
MIB = 1 << 20


class Spread(NamedTuple):
    """The median of several takes, and the least and the greatest of them."""

    median: float
    least: float
    most: float
    n: int

    def text(self, digits: int = 2) -> str:
        """As it stands in a table."""
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f} to {self.most:,.{digits}f}, n {self.n})"


def spread(values: Iterable[float]) -> Spread:
    """Of at least one value."""
    taken = sorted(values)
    return Spread(statistics.median(taken), taken[0], taken[-1], len(taken))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def verdict(ratio: float, bar: float, *, least: bool = True) -> str:
    """`bar 0.80: met`. `least`: the bar is the least that will do."""
    met = ratio >= bar if least else ratio <= bar
    return f"{'at least' if least else 'at most'} {bar:g}: {'met' if met else 'MISSED'}"


class Report:
    """What a benchmark says: to the terminal, and as Markdown into `path` where one is given, part by part."""

    def __init__(self, title: str, command: str, words: str, path: str | None = None) -> None:
        self.missed, self._path = 0, path
        self._lines = [f"## {title}", "", words, "", f"Run it again: `{command}`. {machine()}", ""]
        print(f"{title}\n{machine()}\n", flush=True)

    def say(self, words: str) -> None:
        """A sentence."""
        print(words, flush=True)
        self._lines += [words, ""]
        self._keep()

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; what says MISSED in it is counted."""
        texts = [[str(cell) for cell in row] for row in rows]
        widths = [max(len(row[n]) for row in [list(head), *texts]) for n in range(len(head))]
        for row in [list(head), *texts]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)
        print(flush=True)
        self._lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        self._lines += [f"| {' | '.join(row)} |" for row in texts] + [""]
        self.missed += sum("MISSED" in cell for row in texts for cell in row)
        self._keep()

    def _keep(self) -> None:
        if self._path is not None:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            Path(self._path).write_text("\n".join(self._lines).rstrip() + "\n", encoding="utf-8")


def machine() -> str:
    """On what it was measured."""
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return f"{os.cpu_count()} cores ({model or platform.machine()}), {platform.system()}, {versions}."


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Used(NamedTuple):
    """What a process had used at one moment: CPU in seconds, memory in bytes, open descriptors."""

    cpu: float
    memory: int
    descriptors: int


def used_by(pid: int) -> Used:
    """Of a process of ours that lives. Raises OSError when it does not."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return Used(cpu, pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd")))


class Daemon:
    """`looseends serve` with a folder of its own, on a port of 127.0.0.1 and a unix socket. `close()` ends it."""

    def __init__(self, folder: Path, config: str = "", env: Mapping[str, str] | None = None) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that no daemon is left behind
        self.folder, self.port, self.socket = folder, free_port(), str(folder / "daemon.sock")
        self.database = folder / "bench.db"
        listen = f'[server]\nlisten = ["127.0.0.1:{self.port}", "unix:{self.socket}"]\n[storage]\npath = "{self.database}"\n'
        self._config = folder / "config.toml"
        self._config.write_text(listen + config)
        self._env = {**os.environ, "XDG_STATE_HOME": str(folder), "PYTHONUNBUFFERED": "1", **(env or {})}
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        """Start it (again), and wait until it answers."""
        command = [sys.executable, "-m", "looseends.cli", "serve", "-c", str(self._config)]
        log = (self.folder / "daemon.log").open("a")
        self.process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log, text=True)
        log.close()
        deadline = time.monotonic() + START_S_MAX
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the daemon did not start:\n{(self.folder / 'daemon.log').read_text()[-2000:]}")
            time.sleep(0.002)
        return self.process

    def answers(self) -> bool:
        """Whether it answers now."""
        try:
            return self.ask("GET", "/livez")[0] == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: Any = None, *, bearer: bool = False) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json"}
        if bearer:
            headers["Authorization"] = "Bearer " + Path(f"{self.database}.token").read_text().strip()
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """What an operator gets as JSON."""
        status, body = self.ask("GET", path, bearer=True)
        if status != 200:
            raise SystemExit(f"GET {path}: {status} {body[:300]!r}")
        return json.loads(body)

    @property
    def used(self) -> Used:
        """What it has used."""
        return used_by(self.process.pid)

    def wal_bytes(self) -> int:
        """The size of its log."""
        path = Path(f"{self.database}-wal")
        return path.stat().st_size if path.exists() else 0

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.wait(30)

    def close(self) -> None:
        """End it and wait. Safe to repeat."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()


class Receiver:
    """Answers 204 to every webhook and notes (monotonic s, CloudEvent)."""

    def __init__(self) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        heard: list[tuple[float, dict[str, Any]]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                heard.append((time.monotonic(), json.loads(body)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                return

        self.heard = heard
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()


def uuid7(at_ns: int) -> str:
    """An id as a client of a queue makes it: ordered by time."""
    raw = bytearray((at_ns // 1_000_000).to_bytes(6, "big") + os.urandom(10))
    raw[6], raw[8] = (raw[6] & 0x0F) | 0x70, (raw[8] & 0x3F) | 0x80
    return str(uuid.UUID(bytes=bytes(raw)))


def new_instance(service: str = "shop-web") -> dict[str, Any]:
    """A process of a service, as its first batch names it."""
    return {
        "id": str(uuid.uuid4()),
        "service": service,
        "environment": "production",
        "release": "2026.11.3",
        "host": "web-1",
        "pid": os.getpid(),
    }


def start_of(number: int, at: int, names: int = 20) -> dict[str, Any]:
    """A task's start as our client tells it, with about 90 bytes of arguments. `at` in ns."""
    args = {"order_id": number, "customer": "ada@example.com", "total": 12.5, "note": "a line of text"}
    return {
        "type": "started",
        "task": uuid7(at),
        "name": f"mail.send_{number % names}",
        "attempt": 1,
        "at": at,
        "deadline": 30,
        "args": args,
        "key": f"order-{number}",
        "request": "POST /register",
        "source": "task",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "seq": number,
    }


def end_of(start: Mapping[str, Any], at: int) -> dict[str, Any]:
    """How that task ended well."""
    kept = {name: start[name] for name in ("task", "name", "attempt", "seq")}
    return {"type": "finished", **kept, "at": at, "duration": 0.008}
