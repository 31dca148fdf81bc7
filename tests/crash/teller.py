"""A process that tells the story to a real database: a line of JSON on its standard input is one telling, by a child of its own.

The order: `path` of the database, `rounds` of the story, `thread` to wait for a tracer on (writer, desk, all, none), `fault` to
plant or null. The child says `trace TID` and waits for its tracer; then `did N` once step N is answered (0: it is open),
`refused N WORDS` each time step N is refused, `closed`; or `raised WORDS`, its last. The parent says `over STATUS`, and takes the
next line.

It forks because starting Python a thousand times would be most of the work. The parent has no thread that a child could miss.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from crash import story
from looseends_daemon.store import checkpoints, connection, files, ledger
from looseends_daemon.store.connection import Database
from looseends_daemon.store.schema import StoreError

T = TypeVar("T")
TRIES_MAX = 5
TRACER_S_MAX = 20.0
SETTLE_S = 0.005
LATE_S = 0.005
ANY_TRACER = (0x59616D61, -1)  # PR_SET_PTRACER, PR_SET_PTRACER_ANY: a tracer need not be our ancestor


def say(words: str) -> None:
    """One line, by one system call: it is out before anything else happens."""
    os.write(1, f"{words}\n".encode())


# --- planted faults -----------------------------------------------------------------------------------------------


def answers_early() -> None:
    """Everybody who waits is told before COMMIT: the common shortcut."""

    def commit(self: Database, group: list[connection._Job]) -> None:
        self._conn.execute("BEGIN IMMEDIATE")
        for jobs in connection._of_a_kind(group):
            connection._run_jobs(self._conn, jobs)
            for job in jobs:
                job.loop.call_soon_threadsafe(connection._settle, [job])
        time.sleep(LATE_S)
        self._conn.execute("COMMIT")

    Database._commit = commit  # type: ignore[method-assign]


def answers_anyway() -> None:
    """A commit that failed is answered like one that did not."""

    def failed(self: Database, group: list[connection._Job], error: Exception) -> None:
        if self._conn.in_transaction:
            self._conn.execute("ROLLBACK")

    Database._failed = failed  # type: ignore[method-assign]


def commits_halves() -> None:
    """The rows of a step are stored, and the ledger a commit later."""
    honest = ledger.Moves.write

    def write(self: Any, conn: Any) -> None:
        conn.execute("RELEASE job")
        conn.execute("COMMIT")
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("SAVEPOINT job")
        honest(self, conn)

    ledger.Moves.write = write  # type: ignore[method-assign]


def synchronous(word: str) -> None:
    """Every connection that writes syncs as this pragma says, and not as ours."""
    honest = files.connect

    def connect(path: str) -> Any:
        conn = honest(path)
        conn.execute(f"PRAGMA synchronous = {word}")
        return conn

    files.connect = checkpoints.connect = connect  # type: ignore[attr-defined]


FAULTS: dict[str, Callable[[], None]] = {
    "answers-early": answers_early,
    "answers-anyway": answers_anyway,
    "commits-halves": commits_halves,
    "synchronous-normal": lambda: synchronous("NORMAL"),
    "synchronous-off": lambda: synchronous("OFF"),
}


# --- one telling --------------------------------------------------------------------------------------------------


async def traced(*threads: int) -> None:
    """Wait until each of these threads has a tracer."""
    say(f"trace {threads[0]}")
    deadline = time.monotonic() + TRACER_S_MAX
    while not all(_has_tracer(thread) for thread in threads):
        assert time.monotonic() < deadline, "no tracer came"
        await asyncio.sleep(SETTLE_S)
    await asyncio.sleep(SETTLE_S)


def _has_tracer(thread: int) -> bool:
    lines = Path(f"/proc/self/task/{thread}/status").read_text().splitlines()
    return "TracerPid:\t0" not in lines


async def answered(no: int, act: Callable[[], Awaitable[T]]) -> T:
    """Take a step until it is answered, as a client does. Raises StoreError after TRIES_MAX refusals."""
    for tries in range(1, TRIES_MAX + 1):
        try:
            value = await act()
        except StoreError as error:
            say(f"refused {no} {error}")
            if tries == TRIES_MAX:
                raise
        else:
            say(f"did {no}")
            return value
    raise AssertionError("unreachable")


async def tell(order: dict[str, Any]) -> None:
    """Tell the story as ordered."""
    desk = await asyncio.wrap_future(story.prepare().submit(threading.get_native_id))
    if order["thread"] != "none" and order["thread"] != "writer":
        await traced(*([desk] if order["thread"] == "desk" else [os.getpid(), desk]))
    database = await answered(0, lambda: Database.open(order["path"]))
    if order["thread"] == "writer":
        await traced(database._thread.native_id or 0)
    for step in story.story(order["rounds"]):
        await answered(step.no, lambda step=step: story.take(database, step))  # type: ignore[misc]
    await database.close()
    say("closed")


def child(order: dict[str, Any]) -> int:
    """The whole life of a child; its exit code."""
    ctypes.CDLL(None).prctl(*ANY_TRACER, 0, 0, 0)
    if order["fault"]:
        FAULTS[order["fault"]]()
    try:
        asyncio.run(tell(order))
    except (StoreError, sqlite3.Error, OSError, AssertionError) as error:  # who reads the lines judges it
        say(f"raised {type(error).__name__} {error}")
        return 1
    return 0


def main() -> None:
    """One child after the other until the input ends."""
    gc.freeze()
    say("ready")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        _, status = os.waitpid(pid, 0)
        say(f"over {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main()
