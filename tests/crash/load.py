"""Writers that post batches of events and remember what was answered: who was told 200, and whose answer never came.

Rules:

1. What a batch holds is a function of (seed, writer, number): it is sent again byte for byte, and what the database must hold
   can be told without remembering every event.
2. A batch is sent until it is answered, the next one only then: as a client does it.
3. Batch n starts block n of tasks and ends block n - 1, so a task's two halves travel in different commits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple
from uuid import UUID

from looseends.wire import NS, uuid8

BLOCK = 8
ENDS: tuple[str | None, ...] = (*["finished"] * 7, "failed", "cancelled", None)
"""What becomes of every tenth task each; None: it goes on running."""
STATE_OF = {"finished": "succeeded", "failed": "failed", "cancelled": "cancelled", None: "running"}
SPREAD_S = 600
"""Tasks begin all over this many seconds before the load, so that the ledger has more than one cell to get wrong."""


class Planned(NamedTuple):
    """One task as it will be told. Times in unix ns; `end` None: it is never told to end."""

    id: bytes
    number: int
    started_at: int
    ended_at: int
    end: str | None

    def started(self) -> dict[str, Any]:
        """Its start as an event."""
        told = {"name": f"crash.{self.number % 3}", "deadline": "never", "args": {"number": self.number}}
        return {"type": "started", "task": str(UUID(bytes=self.id)), "at": self.started_at, **told}

    def ended(self) -> dict[str, Any]:
        """Its end as an event."""
        told: dict[str, Any] = {"error": {"type": "ValueError", "message": "planned"}} if self.end == "failed" else {}
        told |= {"reason": "requested"} if self.end == "cancelled" else {}
        return {"type": self.end, "task": str(UUID(bytes=self.id)), "at": self.ended_at, **told}


class Told(NamedTuple):
    """One event of a batch as the database must show it: the task began, or is in this state since."""

    task: Planned
    end: bool

    def event(self) -> dict[str, Any]:
        """As it is sent."""
        return self.task.ended() if self.end else self.task.started()


class Plan:
    """Everything one writer will ever send."""

    def __init__(self, seed: int, writer: int, base: int) -> None:
        """`base`: unix ns of the newest begin."""
        self._root, self._base = f"{seed}/{writer}", base
        self.instance = {
            "id": uuid8(hashlib.sha256(self._root.encode()).digest()),
            "service": "crash",
            "host": "nowhere",
            "pid": writer + 1,
        }

    def task(self, number: int) -> Planned:
        """The task with this number, from 0."""
        task = UUID(uuid8(hashlib.sha256(f"{self._root}/{number}".encode()).digest())).bytes
        began = self._base - number * 7919 % SPREAD_S * NS + number % 1000 * 1000
        return Planned(task, number, began, began + 5_000_000, ENDS[number % len(ENDS)])

    def block(self, batch: int) -> list[Planned]:
        """The tasks that begin in this batch, from 0."""
        return [self.task(number) for number in range(batch * BLOCK, (batch + 1) * BLOCK)]

    def told(self, batch: int) -> list[Told]:
        """The events of this batch: ends of the block before, starts of its own."""
        before = self.block(batch - 1) if batch else []
        ends = [Told(task, True) for task in before if task.end is not None]
        return ends + [Told(task, False) for task in self.block(batch)]

    def body(self, batch: int) -> bytes:
        """As it is posted."""
        return json.dumps({"instance": self.instance, "events": [told.event() for told in self.told(batch)]}).encode()


class Answered(NamedTuple):
    """What a 200 said about one batch."""

    batch: int
    accepted: int
    duplicates: int
    again: bool


class Writer(threading.Thread):
    """Posts its plan batch by batch over one kept connection; parks when the daemon dies, until `go_on`."""

    def __init__(self, plan: Plan, connect: Callable[[], HTTPConnection]) -> None:
        super().__init__(name=f"writer {plan.instance['pid']}", daemon=True)
        self.plan, self.connect = plan, connect
        self.answered: list[Answered] = []
        self.unanswered: int | None = None
        """The batch that was under way when the daemon died, until it is answered."""
        self.trouble: list[str] = []
        self._parked = threading.Event()
        self._go = threading.Event()
        self._stopping = False

    def run(self) -> None:
        """Until `finish`, or until an answer makes no sense."""
        while not self._done():
            with contextlib.suppress(OSError, HTTPException), contextlib.closing(self.connect()) as connection:
                self._post_all(connection)
            if not self._done():
                self._park()

    def _done(self) -> bool:
        return bool(self.trouble) or (self._stopping and self.unanswered is None)

    def _park(self) -> None:
        self._parked.set()
        self._go.wait()
        self._go.clear()

    def _post_all(self, connection: HTTPConnection) -> None:
        """One batch after the other until the connection breaks. Raises OSError, HTTPException."""
        while not self._done():
            again = self.unanswered is not None
            batch = self.unanswered if self.unanswered is not None else len(self.answered)
            self.unanswered = batch
            self._take(post(connection, self.plan.body(batch)), batch, again)

    def _take(self, answer: tuple[int, dict[str, Any]], batch: int, again: bool) -> None:
        status, said = answer
        if status != 200 or said["rejected"] or said["warnings"]:
            self.trouble.append(f"batch {batch}: {status} {said}")
            return
        self.answered.append(Answered(batch, said["accepted"], said["duplicates"], again))
        self.unanswered = None

    # --- for the test's thread ---

    def wait_parked(self, timeout_s: float) -> bool:
        """Whether it noticed the death of its daemon within `timeout_s`, or has nothing more to do."""
        return self._parked.wait(timeout_s) or not self.is_alive()

    def go_on(self) -> None:
        """The daemon is back."""
        self._parked.clear()
        self._go.set()

    def finish(self) -> None:
        """Get the batch under way answered, and end."""
        self._stopping = True
        self._go.set()


def post(connection: HTTPConnection, body: bytes) -> tuple[int, dict[str, Any]]:
    """(status, answer) of one batch. Raises OSError, HTTPException where no answer comes."""
    connection.request("POST", "/api/v1/events", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())
