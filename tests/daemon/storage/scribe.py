"""A process that stores numbered facts: `scribe.py PATH`. A line on standard input is one write; it answers `ok N` or `no WORDS`.

Beside writing: `pause`-free, so that a tracer that is attached between two lines sees the writes of the next line only.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import sys

from looseends_daemon.store import checkpoints
from looseends_daemon.store.connection import Database
from looseends_daemon.store.schema import StoreError


def note(number: int) -> object:
    """A write like that of a batch: one row, and the mark that reopening looks for."""

    def work(conn: sqlite3.Connection) -> None:
        conn.execute("INSERT INTO environment (id, name) VALUES (?, ?)", (number, f"{number} " + "x" * 5_000))
        conn.execute("INSERT OR REPLACE INTO mark (name, value) VALUES ('last_event_at', ?)", (number,))

    return work


async def answer(database: Database, line: str) -> str:
    """Do what a line says."""
    word, _, rest = line.partition(" ")
    if word == "write":
        try:
            await database.write(note(int(rest)))  # type: ignore[arg-type]
        except StoreError as error:
            return f"no {error}"
        return f"ok {rest}"
    if word == "limit":  # bytes that a file may have; 0: any
        size = int(rest) or resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return "limited"
    return f"reopened {database.reopened} missing {database.missing} trouble {database.trouble}"


async def main(path: str) -> None:
    """Answer line by line until the input ends."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    checkpoints.EVERY_S = 3_600.0  # nothing but what a line asks for may touch the disk
    database = await Database.open(path)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(await answer(database, line.strip()), flush=True)
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
