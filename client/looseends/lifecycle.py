"""This process as an instance: opened at its first record, anew after a fork, ended with a goodbye. No signal handler.

Rules:

1. Importing does nothing. The first record (or `init`, or a hook's first request) makes the journal, then the thread.
2. After a fork the child is another instance: it lets go of everything inherited and opens its own on its first record.
3. At exit the journal holds all that matters already; the goodbye is a courtesy with a deadline of 2 s.
4. `PROCESS` is the one object this package keeps; everything that fails in it is counted, never raised.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from . import settings, slots, trouble
from .journal import Journal, Segment, SpoolFull
from .slots import HEADER_BYTES, SLOT_BYTES
from .wire import uuid8

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task

    from .sender import Sender

VERSION = "0.1.0"
GOODBYE_S = 2.0
REOPEN_S = 5.0
FINALIZER_PRIORITY = -1_000
"""Among multiprocessing's finalizers: beneath all that a service registers."""


class Process:
    """What this process has opened: settings, journal, sender, the loop its coroutines run on."""

    def __init__(self) -> None:
        self.given: dict[str, str | None] = {}
        self.endings: list[Callable[[], None]] = []  # asked before a goodbye: what is still unsure is decided then
        self.reached = ""  # the default unix socket, once it was reached: this process and its forks stay with it
        self._reset()

    def _reset(self) -> None:
        self.born = time.time_ns()  # this process (a fork its own), not its first record: a loop is told by how early it began
        self.journal: Journal | None = None
        self.sender: Sender | None = None
        self.missed = 0  # tasks that began while no journal could be made: the next one tells of them
        self.idle = False  # the sender sleeps without a time limit and wants to be woken
        self.loop: AbstractEventLoop | None = None
        self.spawned: set[Task[Any]] = set()
        self.blocks: dict[Any, FrameType] = {}  # stacks.begins_here: tasks that no frame of ours stands around
        self.disabled = False
        self._ending = self._opening = self._finalizer = False
        self._retry_at = 0.0
        self._lock = threading.RLock()

    def open(self) -> Journal | None:
        """The journal, made now if need be; None where it is switched off, ending, or cannot be made (tried each 5 s)."""
        if self._ending or self.disabled or time.monotonic() < self._retry_at:
            return self.journal
        with self._lock:
            # `_opening` is only ever seen here by a signal handler or finaliser that interrupts the opening in this thread
            if self.journal is None and not self._ending and not self._opening:
                self._opening = True
                try:
                    self._open()
                except Exception as error:  # noqa: BLE001 - whatever stands in the way, the host's task goes on
                    self._retry_at = time.monotonic() + REOPEN_S
                    trouble.note("the journal cannot be opened; tasks are not recorded", error)
                finally:
                    self._opening = False
            return self.journal

    def _open(self) -> None:
        found = self.settings()
        for complaint in found.complaints:
            trouble.note("a setting is wrong", complaint)
        self.disabled = found.disabled
        if self.disabled:
            return
        instance = describe(found, self.born)
        try:
            journal = Journal(found.spool, instance)
        except SpoolFull:
            raise  # the fallback would only get round the bound
        except OSError as error:
            trouble.note(f"the spool {found.spool} cannot be written; {found.fallback_spool} is used", error)
            journal = Journal(found.fallback_spool, instance)
        from .sender import Sender

        missed, self.missed = self.missed, 0
        if missed:
            journal.drop(missed)
        self.sender = Sender(self, journal, instance, found)
        self.journal = journal
        self.sender.start()
        journal.keep_ready()
        self._hear_of_the_end()

    def _hear_of_the_end(self) -> None:
        """Where multiprocessing forked us, it ends us by `os._exit`, after its own finalizers: ours is the last of them."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None and not self._finalizer and sys.modules["multiprocessing.process"].parent_process() is not None:
            self._finalizer = True
            util.Finalize(None, self.at_exit, exitpriority=FINALIZER_PRIORITY)

    def settings(self) -> settings.Settings:
        """The settings as they stand now."""
        environ = os.environ
        return settings.resolve(
            environ,
            self.given,
            home=environ.get("HOME") or "/",
            temporary=environ.get("TMPDIR") or "/tmp",
            program=settings.program_name(sys.argv[0] if sys.argv else ""),
            uid=os.getuid(),
        )

    def wake(self) -> None:
        """Tell the sleeping sender that there is something new. Cheap, no lock; callers look at `idle` first."""
        sender = self.sender
        if sender is not None:
            sender.wake()

    def open_places(self) -> Iterator[tuple[Segment, int]]:
        """Where records without an end lie."""
        for segment in list(self.journal.segments) if self.journal is not None else []:
            column = segment.map[HEADER_BYTES::SLOT_BYTES]
            for index in range(column.rfind(1) + 1):
                if column[index] and not slots.words_of(segment.map, index)[2]:
                    yield segment, HEADER_BYTES + index * SLOT_BYTES

    def drop_open(self, keep: set[tuple[int, int]]) -> None:
        """Report every task without an end as dropped by the exit, except the places in `keep`."""
        now = time.monotonic_ns()
        for segment, at in self.open_places():
            if (id(segment), at) not in keep:
                Journal.end(segment, at, now, slots.DROPPED)

    def service_ended(self, timeout: float = GOODBYE_S) -> None:
        """A server in this process has stopped, and may be killed by its signal next: say goodbye now if nothing is open."""
        try:
            self.look_for_fork()
            if self.sender is None:
                return
            if next(self.open_places(), None) is None:
                self.goodbye(timeout)
            else:
                self.sender.flush(timeout)
        except Exception as error:  # noqa: BLE001 - as at_exit
            trouble.note("the goodbye failed", error)

    def goodbye(self, timeout: float = GOODBYE_S, reopen: bool = True) -> None:
        """Drop what is open, send what is unsent, say goodbye, remove the folder if all of it was taken."""
        self.look_for_fork()
        with self._lock:
            sender, self._ending = self.sender, True
        try:
            if sender is not None:
                for ending in self.endings:
                    ending()
                self.drop_open(set())
                sender.stop(timeout)
        finally:
            self.journal = self.sender = None
            self._ending = not reopen

    def at_exit(self) -> None:
        """The interpreter ends: after its threads, before its modules. What begins later gets a journal all the same."""
        try:
            self.goodbye()
        except Exception as error:  # noqa: BLE001 - an exit must stay an exit
            trouble.note("the goodbye failed", error)

    def look_for_fork(self) -> None:
        """Let go of a journal that is the parent's, in the child of a fork that ran no hook (forks.py)."""
        journal = self.journal
        if journal is not None and not journal.alive[0]:
            self.forked(journal)

    def forked(self, stale: Journal) -> Journal | None:
        """A journal of this process in place of its parent's: of a child that no hook told of the fork."""
        with _FORKED:
            if self.journal is stale:
                self.after_fork()
        return self.open()

    def after_fork(self) -> None:
        """In the child: nothing of the parent's is ours. Descriptors are closed, mappings let go, no thread is joined."""
        journal, sender = self.journal, self.sender
        self._reset()
        trouble.COUNTS.clear()
        try:
            if sender is not None:
                sender.abandon()
            if journal is not None:
                journal.abandon()
        except Exception as error:  # noqa: BLE001 - a fork must not fail for us
            trouble.note("after fork", error)


def describe(found: settings.Settings, born: int | None = None) -> dict[str, Any]:
    """The wire `instance` of this process, with a new random id. `born`: unix ns, now where it is not known."""
    instance = {
        "id": uuid8(os.urandom(16)),
        "service": found.service,
        "environment": found.environment,
        "release": found.release,
        "host": slots.clean(os.uname().nodename) or "unknown",
        "pid": os.getpid(),
        "started_at": born or time.time_ns(),
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "client": VERSION,
    }
    return {name: value for name, value in instance.items() if value is not None}


_FORKED = threading.Lock()
"""Apart from the process's own lock, which a thread may have held that the fork left behind."""
PROCESS = Process()
os.register_at_fork(after_in_child=PROCESS.after_fork)
atexit.register(PROCESS.at_exit)
