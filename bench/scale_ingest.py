"""The rate at which the writer takes events in, at two sizes in turn: the part of bench/scale.py that needs no HTTP."""

from __future__ import annotations

import functools
import gc
import sqlite3
import statistics
import time
from pathlib import Path

import company
from company import PLAIN, TOGETHER
from grow import begin_of

from looseends_daemon.core.policy import Policy
from looseends_daemon.store.connection import Database

SLICES = 24
ROUNDS = 3
RATIO_MIN = 0.8
CUTS = {"without the index task_key": "DROP INDEX task_key", "without the index task_newest": "DROP INDEX task_newest"}
Line = tuple[str, str, str, bool | None]


class Side:
    """One of the databases that take turns, and its events a second in each slice: by wall clock and by CPU of this process."""

    def __init__(self, name: str, database: Database, crowd: company.Company, policy: Policy = PLAIN) -> None:
        self.name, self.database, self.crowd, self.policy = name, database, crowd, policy
        self.wall: list[float] = []
        self.cpu: list[float] = []

    async def slice(self, counts: bool) -> None:
        """Tell for a while."""
        gc.collect()
        began, used, events = time.perf_counter(), time.process_time(), 0
        for _ in range(ROUNDS):
            events += await company.tell(self.database, self.crowd, TOGETHER, policy=self.policy)
        if counts:
            self.wall.append(events / (time.perf_counter() - began))
            self.cpu.append(events / (time.process_time() - used))


async def turns(sides: list[Side]) -> None:
    """Slices of each in turn, the first two to get warm."""
    for number in range(-2, SLICES):
        for side in sides if number % 2 else reversed(sides):
            await side.slice(number >= 0)
    for side in sides:
        await side.database.close()


def ratio(one: list[float], other: list[float]) -> tuple[float, str]:
    """The median of one to the other, slice by slice, and the same with n and the middle half."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(one, other, strict=True)], n=4)
    return middle, f"{middle:.2f} (n {len(one)}, {low:.2f} to {high:.2f})"


async def compare(small: Path, large: Path, sizes: tuple[int, int], args_bytes: int) -> list[Line]:
    """The writer at both sizes."""
    sides = []
    for path, tasks in zip((small, large), sizes, strict=True):
        sides.append(Side(f"{tasks:,} tasks", await Database.open(str(path)), crowd_of(path, tasks, args_bytes)))
    await turns(sides)
    found: list[Line] = []
    for what in ("wall", "cpu"):
        rates = [getattr(side, what) for side in sides]
        found += [
            (f"events/s ({what}), {s.name}", f"{statistics.median(r):,.0f}", "", None) for s, r in zip(sides, rates, strict=True)
        ]
        middle, figure = ratio(rates[1], rates[0])
        found.append((f"rate at {sizes[1]:,} / at {sizes[0]:,} ({what})", figure, f"{RATIO_MIN}", middle >= RATIO_MIN))
    return found


async def diet(paths: list[Path], tasks: int, args_bytes: int) -> list[Line]:
    """What single parts of the schema cost the writer: the same load without one of them, in turn with the whole."""
    whole = Side("as it is", await Database.open(str(paths[0])), crowd_of(paths[0], tasks, args_bytes))
    sides = [whole]
    for path, (name, cut) in zip(paths[1:-1], CUTS.items(), strict=True):
        database = await Database.open(str(path))
        await database.write(functools.partial(_cut, cut))
        sides.append(Side(name, database, crowd_of(path, tasks, args_bytes)))
    exporting = Policy(exports=("span", "log"))
    sides.append(
        Side("with OTLP export on", await Database.open(str(paths[-1])), crowd_of(paths[-1], tasks, args_bytes), exporting)
    )
    await turns(sides)
    found: list[Line] = []
    for side in sides[1:]:
        found.append((f"events/s {side.name} / as it is (cpu)", ratio(side.cpu, whole.cpu)[1], "", None))
    return found


def _cut(statement: str, conn: sqlite3.Connection) -> None:
    conn.execute(statement)


def crowd_of(path: Path, tasks: int, args_bytes: int) -> company.Company:
    """Who goes on telling to a database of so many tasks."""
    return company.Company(begin_of(path), args_bytes=args_bytes, first=tasks)
