"""When a child process ends: one thread waits for all of them, and looks at nothing but their sentinels.

Rules: the sentinels are copies, so that a service may close its own at any time. The thread is started with the first child, and
does not keep the process from ending. In a forked child nothing of it is left. At most CHILDREN_MAX are watched.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable

from looseends import trouble

CHILDREN_MAX = 1_000
TELLING_S = 1.0
NAME = "looseends-children"


class Exits:
    """The children that are watched, by the copy of their sentinel."""

    def __init__(self) -> None:
        self.waiting: dict[int, Callable[[], None]] = {}
        self.lock, self.telling = threading.Lock(), threading.Lock()
        self.wake: tuple[int, int] | None = None

    def watch(self, sentinel: int, gone: Callable[[], None]) -> None:
        """Call `gone`, in a thread of ours, once this sentinel says so. Raises OSError: no descriptor is left."""
        with self.lock:
            if len(self.waiting) >= CHILDREN_MAX:
                trouble.note("too many child processes to watch", f"{CHILDREN_MAX} are watched already")
                return
            self.waiting[os.dup(sentinel)] = gone
            if self.wake is None:
                self.wake = os.pipe()
                threading.Thread(target=self._run, args=self.wake[:1], name=NAME, daemon=True).start()
            os.write(self.wake[1], b".")

    def look(self, timeout_ms: int | None = 0, *others: int) -> None:
        """Tell of every child that is gone by now."""
        waiter = select.poll()
        for fd in [*self.waiting, *others]:
            waiter.register(fd, select.POLLIN | select.POLLHUP)
        for fd, _ in waiter.poll(timeout_ms):
            if fd in others:
                os.read(fd, 4096)
            else:
                with self.telling:
                    self._gone(fd)

    def _gone(self, fd: int) -> None:
        with self.lock:
            tell = self.waiting.pop(fd, None)
        if tell is None:
            return
        os.close(fd)
        try:
            tell()
        except Exception as error:  # noqa: BLE001 - the next child is to be watched all the same
            trouble.note("the end of a child process could not be told", error)

    def _run(self, woken: int) -> None:
        while True:
            try:
                self.look(None, woken)
            except Exception as error:  # noqa: BLE001 - as in _gone
                trouble.note("child processes cannot be watched", error)
                return

    def forget(self) -> None:
        """In a forked child: its parent's children are its parent's to watch."""
        for fd in [*self.waiting, *(self.wake or ())]:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.__init__()  # type: ignore[misc]


EXITS = Exits()
os.register_at_fork(after_in_child=EXITS.forget)


def watch(sentinel: int, gone: Callable[[], None]) -> None:
    """Call `gone`, in a thread of ours, once this sentinel of a child says that it is gone."""
    EXITS.watch(sentinel, gone)


def look() -> None:
    """This process says goodbye: tell of the children that are gone by now, those too that the thread is about to tell of."""
    EXITS.look()
    if EXITS.telling.acquire(timeout=TELLING_S):
        EXITS.telling.release()
