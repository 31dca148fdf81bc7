"""Tasks that are going to be stuck, planted one by one at a daemon, and when its verdict on each could be read.

The service that plants them speaks as often as it plants, so nothing has to be waited for but the daemon. A verdict is found by
asking the database file itself every millisecond, from a connection of its own: what is measured ends with the commit.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import threading
import time
import uuid
from collections import deque
from typing import Any

from kit import Daemon, new_instance, uuid7

DEADLINE_S = 1.0
LOOK_S = 0.001
PATIENCE_S = 60.0


class DueWatch:
    """Plants a task every `every` seconds in a thread, and notes (s) how long after its due time each verdict was there."""

    def __init__(self, daemon: Daemon, every: float = 0.05, service: str = "planted") -> None:
        self._daemon, self._every = daemon, every
        self._instance, self._number = new_instance(service), 0
        self._stop = threading.Event()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self.late: list[float] = []
        self.unanswered = 0
        self.failed: BaseException | None = None
        self._threads = [threading.Thread(target=self._guarded, args=(run,), daemon=True) for run in (self._plant, self._look)]
        for thread in self._threads:
            thread.start()

    def _guarded(self, run: Any) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - told by close()
            self.failed = error

    def _plant(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._daemon.port, timeout=PATIENCE_S)
        due = time.perf_counter()
        while not self._stop.is_set():
            now = time.time_ns()
            self._number += 1
            task = uuid7(now)
            event = {"type": "started", "task": task, "name": "wait.for_ever", "at": now, "deadline": DEADLINE_S}
            said = {"instance": self._instance, "sent_at": now, "backlog": 0, "events": [{**event, "seq": self._number}]}
            connection.request("POST", "/api/v1/events", json.dumps(said), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                self._waiting.append((uuid.UUID(task).bytes, now / 1e9 + DEADLINE_S))
            else:
                self.unanswered += 1
            due += self._every
            time.sleep(max(0.0, due - time.perf_counter()))

    def _look(self) -> None:
        conn = sqlite3.connect(f"file:{self._daemon.database}?mode=ro", uri=True, isolation_level=None)
        while not (self._stop.is_set() and not self._waiting):
            if not self._waiting or time.time() < self._waiting[0][1]:
                time.sleep(LOOK_S)
                continue
            task, due = self._waiting[0]
            if conn.execute("SELECT 1 FROM judgement WHERE task = ? LIMIT 1", (task,)).fetchone():
                self.late.append(time.time() - due)
                self._waiting.popleft()
            elif time.time() - due > PATIENCE_S:
                raise SystemExit(f"no verdict {PATIENCE_S:g} s after a task was due")
            else:
                time.sleep(LOOK_S)
        conn.close()

    def close(self) -> list[float]:
        """Plant no more, wait for the verdicts that are due, and give all of them. Raises what went wrong."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S * 2)
        if self.failed is not None:
            raise SystemExit(f"planting failed: {self.failed!r}")
        return self.late
