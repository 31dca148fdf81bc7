"""Tasks recorded for a test: into a folder that vanishes, with no daemon, no thread and no spool of anybody.

Rules: while a recording lasts, this process's journals lie in the recording's own folder and nothing is sent; afterwards the
process is as it was. What is read is what a daemon would have been sent, so a test sees arguments as they are recorded:
redacted, bounded, by parameter name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import journal as journals
from . import lifecycle, settings, slots, telling
from .journal import Journal
from .lifecycle import PROCESS, Process

ENDED = ("succeeded", "failed", "cancelled", "dropped", "never_started")
_STATES = {"finished": "succeeded", "failed": "failed", "cancelled": "cancelled"}


class Seen:
    """One task as it was recorded."""

    def __init__(self, task: str) -> None:
        self.id = task
        self.name = ""
        self.key: str | None = None
        self.args: dict[str, Any] = {}
        self.attempt = 0
        self.state = "expected"
        """scheduled, running, succeeded, failed, cancelled, dropped (it began), never_started (dropped before), expected."""
        self.error: dict[str, Any] = {}
        self.reason = ""
        self.parent: str | None = None
        self.source = ""
        self.queue: str | None = None
        self.handled: bool | None = None
        self.within = 0.0
        self.result: Any = None
        self.began_at = 0
        self.events: list[dict[str, Any]] = []

    def add(self, event: dict[str, Any]) -> None:
        """Fold in one event; events come in the order of their attempts."""
        self.events.append(event)
        self.name = event.get("name", self.name)
        self.attempt = max(self.attempt, int(event["attempt"]))
        kind = event["type"]
        for field in ("key", "args", "parent", "source", "queue", "within", "handled"):
            if event.get(field) is not None:
                setattr(self, field, event[field])
        if kind in ("scheduled", "started", "expected"):
            self.began_at = self.began_at or int(event["at"])
            self.state = {"scheduled": "scheduled", "started": "running", "expected": "expected"}[kind]
        elif kind == "dropped":
            self.state = "dropped" if self.state == "running" else "never_started"
        elif kind in _STATES:
            self.state = _STATES[kind]
        self.error, self.result = event.get("error", self.error), event.get("result", self.result)
        self.reason = event.get("reason", self.reason)

    def __repr__(self) -> str:
        """One line for people: `mail.send key=7 failed: TimeoutError: ... (order_id=7)`."""
        said = [self.name, *([f"key={self.key}"] if self.key else []), self.state]
        if self.error:
            said.append(f"({self.error.get('type')}: {str(self.error.get('message', ''))[:200]})")
        elif self.reason:
            said.append(f"({self.reason})")
        if self.attempt > 1:
            said.append(f"attempt {self.attempt}")
        shown = ", ".join(f"{name}={value!r:.80}" for name, value in list(self.args.items())[:10])
        return " ".join([*said, f"with {shown}"] if shown else said)


class Recording:
    """What was recorded since it began. `tasks()` reads it anew each time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._journals: list[tuple[int, Journal]] = []

    def open(self) -> None:
        """A journal for this process; in place of Process._open."""
        found = PROCESS.settings()
        instance = lifecycle.describe(_local(found, self._folder))
        journal = Journal(self._folder, instance)
        self._journals.append((os.getpid(), journal))
        PROCESS.sender, PROCESS.journal = _NoSender(), journal  # type: ignore[assignment]

    def tasks(self, name: str | None = None) -> list[Seen]:
        """Every task recorded so far, of this name or of all, in the order in which they began; forked children's too."""
        found: dict[str, Seen] = {}
        for event in self._events():
            found.setdefault(event["task"], Seen(event["task"])).add(event)
        ordered = sorted(found.values(), key=lambda seen: seen.began_at)
        return [seen for seen in ordered if name in (None, seen.name)]

    def _events(self) -> Iterator[dict[str, Any]]:
        mine = [journal for pid, journal in self._journals if pid == os.getpid()]
        for journal in mine:
            for segment in list(journal.segments):
                yield from _events_of(journal, segment)
        known = {journal.folder for journal in mine}
        for folder in journals.folders(self._folder):
            orphan = journals.adopt(folder) if folder not in known else None
            if orphan is not None:  # a child that has ended; a living one is not yet to be read
                try:
                    for batch in orphan.batches():
                        yield from batch
                finally:
                    orphan.close()

    def close(self) -> None:
        """Let go of the journals. One with a task still open stays mapped: its end must not become an error of the test."""
        for pid, journal in self._journals:
            if pid == os.getpid() and not any(True for _ in _open_places(journal)):
                journal.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def recording() -> Iterator[Recording]:
    """Record every task of this process, from here to the end of the block, for itself alone."""
    found = Recording(tempfile.mkdtemp(prefix="looseends-test-"))
    kept = {name: getattr(PROCESS, name) for name in ("journal", "sender", "disabled", "given", "loop", "_retry_at")}
    outer = vars(PROCESS).get("_open")
    PROCESS._open = found.open  # type: ignore[method-assign]
    PROCESS.journal = PROCESS.sender = None
    PROCESS.disabled, PROCESS._retry_at = False, 0.0
    try:
        yield found
    finally:
        del PROCESS._open
        if outer is not None:
            PROCESS._open = outer  # type: ignore[method-assign]
        for name, value in kept.items():
            setattr(PROCESS, name, value)
        found.close()


def _local(found: settings.Settings, folder: str) -> settings.Settings:
    return found._replace(spool=folder, url=None, token=None)


def _events_of(journal: Journal, segment: Any) -> Iterator[dict[str, Any]]:
    anchor = time.time_ns() - time.monotonic_ns()
    for index in range(segment.head.slots):
        if segment.map[slots.HEADER_BYTES + index * slots.SLOT_BYTES] == 1:
            record = slots.read_slot(segment.map, index, segment.head, journal.names, segment.side.read)
            if record is not None:
                yield from telling.events_of(record, anchor, segment.side.read)


def _open_places(journal: Journal) -> Iterator[int]:
    """As Process.open_places, for a journal that need not be the current one."""
    reader = Process.__new__(Process)
    reader.journal = journal
    for _, at in Process.open_places(reader):
        yield at


class _NoSender:
    """Stands where a sender would: nothing is sent, and everybody who waits for that is told that it was done."""

    def wake(self) -> None:
        """Nobody sleeps."""

    def flush(self, timeout: float) -> int:
        """Nothing is unsent."""
        return 0

    def stop(self, timeout: float) -> bool:
        """All of it was done."""
        return True

    def abandon(self) -> None:
        """A fork has nothing to let go of."""
