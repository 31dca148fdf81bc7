"""Build the databases that `make bench-scale` measures: through the store's own writer, the smaller one on the way to the larger.

    .venv/bin/python bench/grow.py FOLDER [--tasks 500000 10000000] [--args-bytes 90]

FOLDER/tasks-<n>-<args>.db are kept and used again; a build that was broken off goes on from the largest that is there. Ten
million take half an hour of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sqlite3
import time
from pathlib import Path

import company
from company import BATCH_TASKS, MOST, TOGETHER, WEEK_NS

from looseends_daemon.store.connection import Database

JUDGED_EVERY = 50_000


def path_of(folder: Path, tasks: int, args_bytes: int) -> Path:
    """Where a database of this size lies."""
    return folder / f"tasks-{tasks}-{args_bytes}.db"


def begin_of(path: Path) -> int:
    """The made-up time at which its first task began, ns."""
    conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(conn.execute("SELECT value FROM mark WHERE name = 'bench_begin'").fetchone()[0])
    finally:
        conn.close()


async def grow(path: Path, known: int, tasks: int, args_bytes: int) -> None:
    """Tell tasks from `known` to `tasks`."""
    database = await Database.open(str(path))
    crowd = company.Company(begin_of(path), args_bytes=args_bytes, first=known)
    judged, since, events = known, time.perf_counter(), 0
    while crowd.told < tasks:
        batches = min(TOGETHER, -(-(tasks - crowd.told) // BATCH_TASKS))
        events += await company.tell(database, crowd, batches)
        if crowd.told - judged >= JUDGED_EVERY or crowd.told >= tasks:
            judged = crowd.told
            await company.judge(database, crowd.now)
            rate = events / (time.perf_counter() - since)
            print(f"{path.name}: {crowd.told:,} tasks, {rate:,.0f} events/s of late", flush=True)
            since, events = time.perf_counter(), 0
    await company.tell(database, crowd, 0)
    await database.close()


async def build(folder: Path, sizes: list[int], args_bytes: int) -> None:
    """All sizes, each from the one before."""
    last = max(sizes)
    known: tuple[int, Path] | None = None
    for size in sorted(sizes):
        path = path_of(folder, size, args_bytes)
        if not path.exists():
            growing = path.with_suffix(".growing")
            growing.unlink(missing_ok=True)
            if known is not None:
                shutil.copyfile(known[1], growing)
            else:
                await start(growing, last)
            await grow(growing, known[0] if known else 0, size, args_bytes)
            growing.rename(path)
        known = (size, path)


async def start(path: Path, last: int) -> None:
    """An empty database whose time begins early enough for the largest to end now."""
    database = await Database.open(str(path))
    begin = time.time_ns() - WEEK_NS * last // MOST
    await database.write(lambda conn: conn.execute("INSERT INTO mark (name, value) VALUES ('bench_begin', ?)", (begin,)))
    await database.close()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--tasks", type=int, nargs="+", default=[500_000, MOST])
    options.add_argument("--args-bytes", type=int, default=90)
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(build(given.folder, given.tasks, given.args_bytes))
