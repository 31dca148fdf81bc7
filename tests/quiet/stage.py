"""Where the quiet run plays: a real daemon that can be stopped, killed and frozen, a receiver that verifies, and the books.

Rules: the daemon is the installed command with a configuration of its own; a planted fault is the same command behind a few
changed lines (planted_daemon.py). What was said is read from the tables themselves, so that no query can hide a judgement.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import re
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import UUID

import harness
from quiet.raw import Instance
from quiet.table import Said

HERE = Path(__file__).resolve().parent
SERVICES = HERE / "services"
COMMAND = Path(sys.executable).with_name("looseends")
START_S, UNDER_WAY_S = 30.0, 0.2
HALF_A_REQUEST = b"POST /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"
BAD_LINE = re.compile(r'"level": "(error|critical)"|^Traceback|^Fatal')
STATES = ("scheduled", "running", "retrying", "succeeded", "failed", "cancelled")
CONFIG = """\
[server]
listen = ["127.0.0.1:{port}", "unix:{folder}/looseends/looseends.sock"]
external_url = "http://127.0.0.1:{port}"
instance = "quiet"

[storage]
path = "{folder}/looseends.db"

[detect]
default_deadline = "{default_deadline}"
start_within = "3s"
unreachable_after = "{lease_s}s"
grace = "1s"

[alerts]
group_wait = "200ms"
group_interval = "1s"
repeat_interval = "never"
sample_tasks = 50

[[endpoint]]
name = "receiver"
url = "http://127.0.0.1:{receiver}/"
secrets = ["{secret}"]
"""
OPEN_COUNT = STATES.index("succeeded")
UNFINISHED = """
SELECT type.name, count(*) FROM task t JOIN type ON type.id = t.type
WHERE t.state < ? AND (t.key IS NULL OR t.key NOT LIKE 'loss-%') GROUP BY 1
"""
JUDGEMENTS = """
SELECT t.id, t.key, type.name, j.what, coalesce(j.verdict, j.what) AS problem, j.reason
FROM judgement j JOIN task t ON t.id = j.task JOIN type ON type.id = t.type ORDER BY j.at, j.n
"""


class Stage:
    """One run's processes. `goes_on` is false once `stopping` is set: whoever acts then ends in order."""

    def __init__(
        self,
        folder: Path,
        processes: harness.Processes,
        *,
        seed: int,
        lease_s: float,
        planted: str | None = None,
        default_deadline: str = "10s",
    ) -> None:
        """`planted`: a fault of planted_daemon.py. `lease_s`: after so long unheard an instance is unreachable."""
        self.folder, self.processes, self.lease_s = folder, processes, lease_s
        self.chance, self.port, self.stopping = random.Random(seed), harness.free_port(), threading.Event()
        self.watched, self.notices_file = folder / "looseends" / "spool", folder / "notices.jsonl"
        self._secret, self._receiver_port = "whsec_" + base64.b64encode(os.urandom(32)).decode(), harness.free_port()
        self._command = [COMMAND] if planted is None else [sys.executable, HERE / "planted_daemon.py", planted]
        self._config = folder / "config.toml"
        self._config.write_text(
            CONFIG.format(
                port=self.port,
                folder=folder,
                lease_s=lease_s,
                default_deadline=default_deadline,
                receiver=self._receiver_port,
                secret=self._secret,
            )
        )
        (folder / "looseends").mkdir(mode=0o700, exist_ok=True)
        self._daemon: harness.Process | None = None
        self._daemons: list[harness.Process] = []
        self._instances: list[Instance] = []
        self._listening: list[harness.Process] = []

    # --- the daemon and the receiver ---

    def begin(self) -> None:
        """The receiver, which verifies with the `standardwebhooks` package, and the daemon."""
        program = harness.ROOT / "examples" / "webhook_receiver.py"
        args = ("--secret", self._secret, "--port", str(self._receiver_port), "--append", self.notices_file)
        self.processes.start(sys.executable, program, *args).wait_for("listening on")
        self.start_daemon()

    def start_daemon(self) -> None:
        """Returns once its doors are open."""
        self._daemon = self.processes.start(*self._command, "serve", "-c", self._config)
        self._daemons.append(self._daemon)
        self._daemon.wait_for("looseends is running", START_S)

    def restart_daemon(self, number: int, pause_s: float = 0.0) -> None:
        """SIGTERM or SIGKILL, and after a pause a new one on the same database; a request is half sent as the signal comes."""
        assert self._daemon is not None and self._daemon.running, self._daemon
        with socket.create_connection(("127.0.0.1", self.port)) as slow:
            slow.sendall(HALF_A_REQUEST)
            time.sleep(UNDER_WAY_S)
            self._daemon.signal(number)
            self._daemon.wait(START_S)
        time.sleep(pause_s)
        self.start_daemon()

    def freeze_daemon(self, seconds: float) -> None:
        """SIGSTOP for so long."""
        assert self._daemon is not None
        freeze(self._daemon, seconds)

    def end(self) -> None:
        """Whoever fell silent lets go of its connection, too."""
        self.stopping.set()
        for instance in self._instances:
            instance.close()
        for process in self._listening:
            process.hang_up()

    # --- acting ---

    def goes_on(self, seconds: float) -> bool:
        """Wait so long; whether the run goes on after that."""
        return not self.stopping.wait(seconds)

    def service(self, *args: str | Path, env: dict[str, str] | None = None, stdin: bool = False) -> harness.Process:
        """Start a Python program of a service: `-m module ...` or one of services/."""
        process = self.processes.start(sys.executable, *args, env=env, cwd=SERVICES, stdin=stdin)
        self._listening += [process] if stdin else []
        return process

    def instance(self, service: str, **options: Any) -> Instance:
        """An instance told of by hand."""
        made = Instance(self.port, service, **options)
        self._instances.append(made)
        return made

    # --- asking ---

    def api(self, path: str) -> Any:
        """GET /api/v1/<path>, as the operator."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        token = (self.folder / "looseends.db.token").read_text().strip()
        connection.request("GET", f"/api/v1/{path}", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        assert response.status == 200, (path, response.status, text)
        return json.loads(text)

    @contextlib.contextmanager
    def look(self) -> Iterator[sqlite3.Connection]:
        """The tables, read-only, as one consistent view."""
        conn = sqlite3.connect(f"file:{self.folder}/looseends.db?mode=ro", uri=True, isolation_level=None, timeout=10)
        conn.row_factory = sqlite3.Row
        try:
            conn.execute("BEGIN")
            yield conn
        finally:
            conn.close()

    def judged(self) -> list[Said]:
        """Every judgement of every task, taken back or not, in order."""
        with self.look() as conn:
            rows = conn.execute(JUDGEMENTS).fetchall()
        return [
            Said(str(UUID(bytes=row["id"])), row["key"], row["name"], _problem(row["what"], row["problem"]), row["reason"])
            for row in rows
        ]

    def notices(self) -> list[dict[str, Any]]:
        """Every verified notice, in order of arrival."""
        if not self.notices_file.exists():
            return []
        return [json.loads(line)["notice"] for line in self.notices_file.read_text().splitlines()]

    def told(self) -> list[Said]:
        """Every line about a task in every notice."""
        tasks = (task for notice in self.notices() for task in notice["data"]["tasks"])
        return [Said(t["id"], t["key"], t["name"], _told_problem(t), t["reason"] or "") for t in tasks]

    def strays(self) -> list[str]:
        """Notices about no task."""
        return [f"{n['type']}: {n['data']['incident']['title']}" for n in self.notices() if not n["data"]["tasks"]]

    def books(self) -> dict[str, Counter[str]]:
        """How many tasks of each name are in each state."""
        found: dict[str, Counter[str]] = {}
        with self.look() as conn:
            rows = conn.execute("SELECT type.name, t.state, count(*) FROM task t JOIN type ON type.id = t.type GROUP BY 1, 2")
            for name, state, count in rows.fetchall():
                found.setdefault(name, Counter())[STATES[state]] += count
        return found

    def bad_lines(self) -> list[str]:
        """Errors that the daemon logged, in all its lives."""
        return [line for daemon in self._daemons for line in daemon.lines if BAD_LINE.search(line)]

    def last_words(self) -> str:
        """What the daemon said in its latest life, and every error of the earlier ones."""
        told = ["the daemon said:", *(self._daemon.lines[-40:] if self._daemon else []), *self.bad_lines()]
        return "\n  ".join(line[:2000] for line in told)

    def unfinished(self) -> list[str]:
        """What is open and not planted, by number and name."""
        with self.look() as conn:
            return [f"{count} of {name}" for name, count in conn.execute(UNFINISHED, (OPEN_COUNT,)).fetchall()]


def _problem(what: str, word: str) -> str:
    """A judgement in one word: a verdict, `failed`, or what was done to an earlier one."""
    return word if what in ("verdict", "loose") else what


def _told_problem(task: dict[str, Any]) -> str:
    """A task's line in a notice, in one word."""
    return str(task["verdict"] or ("failed" if task["error"] else "settled"))


def freeze(process: harness.Process, seconds: float) -> None:
    """SIGSTOP for so long, then SIGCONT whatever happens meanwhile."""
    process.signal(signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        process.signal(signal.SIGCONT)
