"""A real daemon that a test may kill and start again on the same database, and what it answers when asked.

Rules: it is the installed command with a configuration of its own; a planted fault is the same command behind a few changed
lines (planted_daemon.py). The database is read only while the daemon runs: the last one to close a file that was killed in
mid-write would tidy it up, and it is the daemon's recovery that is under test.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import harness

HERE = Path(__file__).resolve().parent
COMMAND = Path(sys.executable).with_name("looseends")
START_S = 30.0
ANSWER_S = 20.0
PAGE = 500
BAD_LINE = re.compile(r'"level": "(error|critical)"|^Traceback|^Fatal')

CONFIG = """\
[server]
listen = ["127.0.0.1:{port}", "unix:{socket}"]
[storage]
path = "{database}"
[detect]
grace = "{grace}"
unreachable_after = "1h"
"""


def tcp_connection(port: int, timeout_s: float = ANSWER_S) -> HTTPConnection:
    """HTTP over TCP, connected. Raises OSError."""
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    connection.connect()
    return connection


class Daemon:
    """One database with a daemon that lives, dies and comes back. `bad_lines`: errors it logged, in all its lives."""

    def __init__(
        self, processes: harness.Processes, folder: Path, port: int, planted: str | None = None, grace: str = "200ms"
    ) -> None:
        """`folder`: where everything of it goes. `planted`: a fault of planted_daemon.py. `grace`: its [detect] grace."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.port, self.socket, self.database = port, f"{folder}/looseends.sock", folder / "looseends.db"
        self._config = folder / "config.toml"
        self._config.write_text(CONFIG.format(port=port, socket=self.socket, database=self.database, grace=grace))
        self._processes = processes
        self._command = [COMMAND] if planted is None else [sys.executable, HERE / "planted_daemon.py", planted]
        self._process: harness.Process | None = None
        self.bad_lines: list[str] = []

    def start(self) -> None:
        """Returns once it has said that its doors are open."""
        self._process = self._processes.start(*self._command, "serve", "-c", self._config)
        self._process.wait_for("looseends is running", START_S)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        process = self._gone()
        process.kill()
        self._keep_bad_lines(process)
        # It is dead for certain: a thousand of them must not pile up, nor their numbers be signalled once more at the end.
        self._processes.started.remove(process)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        process = self._gone()
        code = process.stop(timeout_s=START_S)
        self._keep_bad_lines(process)
        return code

    def _gone(self) -> harness.Process:
        process, self._process = self._process, None
        assert process is not None, "this daemon was not started"
        assert process.running, f"it ended by itself:\n{process.output}"
        return process

    def _keep_bad_lines(self, process: harness.Process) -> None:
        self.bad_lines += [line for line in process.lines if BAD_LINE.search(line)]

    def service_env(self, client: str) -> dict[str, str]:
        """For service.py: which client it uses, and this daemon alone. Without an address it would look on the default port,
        too, while this one is dead, and tell everything to whatever daemon lives there.
        """
        return {"CRASH_CLIENT": client, "LOOSEENDS_URL": f"unix:{self.socket}"}

    def wait_until(self, condition: Callable[[], object], what: str, *others: harness.Process) -> None:
        """As harness.wait_until; what it raises also shows what this daemon and these other processes said meanwhile."""
        try:
            harness.wait_until(condition, what)
        except harness.WaitedTooLong as late:
            living = [process for process in (self._process, *others) if process is not None]
            said = "\n".join(f"{process.args} said:\n{process.output}" for process in living)
            raise harness.WaitedTooLong(f"{late}\n{said}") from None

    # --- asking ---

    def get(self, path: str, **query: str | int) -> Any:
        """The answer of GET /api/v1/<path> as the operator sees it."""
        connection = tcp_connection(self.port)
        token = Path(f"{self.database}.token").read_text().strip()
        where = f"/api/v1/{path}?{urlencode(query)}" if query else f"/api/v1/{path}"
        connection.request("GET", where, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        assert response.status == 200, f"GET {where}: {response.status} {body!r}"
        return json.loads(body)

    def tasks(self, q: str = "") -> Iterator[dict[str, Any]]:
        """Every task of a query, page by page."""
        query: dict[str, str | int] = {"q": q, "limit": PAGE}
        while True:
            page: Mapping[str, Any] = self.get("tasks", **query)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    @contextlib.contextmanager
    def look(self) -> Iterator[sqlite3.Connection]:
        """The tables themselves, read-only, as one consistent view."""
        assert self._process is not None and self._process.running, "the tables are read only while the daemon runs"
        conn = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, isolation_level=None)
        conn.row_factory = sqlite3.Row
        try:
            conn.execute("BEGIN")
            yield conn
        finally:
            conn.close()
