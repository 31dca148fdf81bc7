"""An instance told of by hand: its own clock, batches and heartbeats over one kept TCP connection, each told until it is taken.

It stands for what no hook captures yet, and for hosts whose clock, network or end is not that of this machine.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections import deque
from http.client import HTTPConnection, HTTPException
from typing import Any

NS = 1_000_000_000
HEARTBEAT_S = 1.0
ANSWER_S = 5.0
RETRY_S = 0.2
EVENTS_MAX = 200


def new_task() -> str:
    """An id for a task."""
    return str(uuid.uuid4())


class Instance:
    """Made known by its first batch. End it with `leave` (goodbye) or `fall_silent`; `errors` must stay empty."""

    def __init__(self, port: int, service: str, *, clock_off_s: float = 0.0, twice_every: int = 0) -> None:
        """`clock_off_s` is added to all its times; every `twice_every`-th batch is sent a second time."""
        self.port, self.service, self.id = port, service, new_task()
        self.errors: list[str] = []
        self.behind = 0
        """What it says of records that it has and does not send yet."""
        self._off, self._twice_every, self._sent = int(clock_off_s * NS), twice_every, 0
        self._events: deque[dict[str, Any]] = deque()
        self._news, self._ending, self._silent = threading.Event(), threading.Event(), threading.Event()
        self._connection: HTTPConnection | None = None
        self._closing = False
        self._started_at = self.now()
        self._thread = threading.Thread(target=self._run, name=f"instance of {service}", daemon=True)
        self._thread.start()

    def now(self) -> int:
        """Its own clock, ns."""
        return time.time_ns() + self._off

    def tell(self, kind: str, task: str, **fields: Any) -> None:
        """One event, dated now unless it says `at` (ns). Never waits."""
        event = {"type": kind, "task": task, "at": self.now(), **fields}
        self._events.append(event)
        self._news.set()

    def leave(self) -> None:
        """Tell the rest, say goodbye, close. Does not wait for it: `join` does."""
        self._ending.set()
        self._news.set()

    def fall_silent(self, close: bool = False) -> None:
        """Tell what was told so far and then nothing more; its connection stays open unless `close`."""
        self._closing = close
        self._silent.set()
        self._news.set()

    def join(self, timeout_s: float) -> None:
        """Wait until it has left. Raises AssertionError naming what it could not do."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"an instance of {self.service} could not leave within {timeout_s:g} s"
        assert not self.errors, f"an instance of {self.service}: {self.errors[:3]}"

    def close(self) -> None:
        """Close a connection that was left open."""
        if self._connection is not None:
            self._connection.close()

    # --- its thread ---

    def _run(self) -> None:
        self._post([])
        while not (self._ending.is_set() or self._silent.is_set()):
            self._news.wait(HEARTBEAT_S)
            self._news.clear()
            if not self._tell_all():
                self._beat()
        self._tell_all()
        if self._ending.is_set():
            self._until_taken("DELETE", f"/instances/{self.id}", lambda: {"reason": "exit", "last_seq": 0, "open": []})
        if self._connection is not None and not (self._silent.is_set() and not self._closing):
            self._connection.close()

    def _tell_all(self) -> bool:
        """Whether there was something to tell."""
        told = False
        while self._events:
            count = min(EVENTS_MAX, len(self._events))
            batch = [self._events[n] for n in range(count)]
            self._post(batch)
            if self._twice_every and self._sent % self._twice_every == 0:
                self._post(batch)  # as after an answer that never came
            for _ in range(count):
                self._events.popleft()
            told = True
        return told

    def _post(self, events: list[dict[str, Any]]) -> None:
        self._sent += 1

        def body() -> dict[str, Any]:
            backlog = len(self._events) - len(events) + self.behind
            return {"instance": self._instance(), "sent_at": self.now(), "backlog": backlog, "events": events}

        answer = self._until_taken("POST", "/events", body)
        if answer.get("rejected"):
            self.errors.append(f"rejected: {answer['rejected'][:2]}")

    def _instance(self) -> dict[str, Any]:
        return {"id": self.id, "service": self.service, "host": "elsewhere", "pid": 1, "started_at": self._started_at}

    def _beat(self) -> None:
        said = {"at": self.now(), "backlog": self.behind}
        if self._ask("PUT", f"/instances/{self.id}/heartbeat", said)[0] == 404:
            self._post([])

    def _until_taken(self, method: str, path: str, body: Any) -> dict[str, Any]:
        while True:
            status, answer = self._ask(method, path, body())
            if 200 <= status < 300:
                return answer
            if status not in (0, 503):
                self.errors.append(f"{method} {path}: {status} {str(answer)[:200]}")
                return {}
            time.sleep(RETRY_S)

    def _ask(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """(status, answer); status 0: nobody answered."""
        connection = self._connection or HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        self._connection = connection
        try:
            connection.request(method, f"/api/v1{path}", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else {}
        except (OSError, HTTPException, json.JSONDecodeError):
            with contextlib.suppress(OSError):
                connection.close()
            self._connection = None
            return 0, {}
