"""The read side of the first pages: core/front.Front over the read-only connections.

Rules: a count that is only an aid (facets, "how many match") runs under a deadline of its own and gives way, saying so; the
ledger's sums are the same rows that reads.py adds up, so that page, API and database cannot disagree.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import aiosqlite

from looseends_daemon.core.front import (
    FACET_CHOICES_MAX,
    FACET_TASKS_MAX,
    FACETS,
    MARKS_MAX,
    MATCHING_MAX,
    SEEN_S_MAX,
    VALUES_MAX,
    Choice,
    Facet,
    Found,
    Happened,
    Now,
    TypeCount,
)
from looseends_daemon.core.query import parse
from looseends_daemon.core.resources import STATES, VERDICTS, Bucket, Ledger, Page, Task
from looseends_daemon.core.stats import MINUTE_NS
from looseends_daemon.store import blind, ledger, shown
from looseends_daemon.store.connection import Database
from looseends_daemon.store.files import primary
from looseends_daemon.store.ledger import COLUMNS
from looseends_daemon.store.query_sql import where
from looseends_daemon.store.questions import Question, ask_apart
from looseends_daemon.store.seeking import Bounds, Walk

T = TypeVar("T")
FAREWELL = "its process ended and said goodbye"
"""How the reason of an orderly end begins (http/instances.GOODBYE): everything else is a death."""
_TERMS = ("succeeded", "failed", "cancelled", "in_time", "gap")
_TASKS = " + ".join(_TERMS)
# Where the values of a word stand. A facet's column is read from the counted tasks, its name looked up afterwards.
_SOURCES = {
    "name": ("type", "type", "id", "name"),
    "service": ("type", "type", "id", "service"),
    "environment": ("environment", "environment", "id", "name"),
    "host": ("instance", "instance", "no", "host"),
    "release": ("instance", "instance", "no", "release"),
    "instance": ("instance", "instance", "no", "id"),
}
_WORDS: dict[str, tuple[str, ...]] = {"state": STATES, "verdict": VERDICTS}


class StoreFront:
    """Implements core/front.Front."""

    def __init__(self, database: Database, *, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._now = wall_ns

    async def _ask(self, question: Question[T]) -> T:
        return await self._database.read(lambda conn: ask_apart(conn, question))

    async def ledger(self, from_: int, to: int, bucket: float | None = None, environment: str | None = None) -> Ledger:
        """The equation of [from_, to), whole minutes; with `bucket` also by bucket, of which only those with tasks are listed."""
        return await self._ask(_ledger(from_, to, bucket, environment, self._now()))

    async def happened(self, from_: int, to: int, environment: str | None = None) -> list[Happened]:
        """Releases and deaths, newest first."""
        return await self._ask(_happened(from_, to, environment))

    async def types(self, from_: int, to: int, environment: str | None = None, limit: int = 5) -> list[TypeCount]:
        """The most troubled types of a window."""
        return await self._ask(_types(from_, to, environment, limit))

    async def loose(self, environment: str | None = None, limit: int = 50) -> Page[Task]:
        """The newest open loose ends, without the question whether they can be replayed. No cursor: it is an excerpt."""
        return await self._ask(_loose(environment, limit))

    async def environments(self) -> list[str]:
        """All environments that were ever seen."""
        return await self._ask(_names("SELECT name FROM environment ORDER BY name", ()))

    async def found(self, q: str, *, from_: int | None = None, to: int | None = None) -> Found | None:
        """How many match, and what they have in common; None: it took too long. Raises QueryError."""
        query = parse(q)
        sql = where(query, now=self._now(), to=to)
        columns = "task.state, task.verdict, task.type, task.environment, task.instance"
        walk = Walk(query, sql, Bounds(from_=from_, to=to), columns, SEEN_S_MAX)

        async def ask(conn: aiosqlite.Connection) -> Found | None:
            deadline = time.monotonic() + 2 * SEEN_S_MAX
            await conn.set_progress_handler(lambda: int(time.monotonic() > deadline), 10_000)
            try:
                return await ask_apart(conn, _found(walk))
            except sqlite3.OperationalError as error:
                if primary(error) == sqlite3.SQLITE_INTERRUPT:
                    return None
                raise

        return await self._database.read(ask)

    async def values(self, word: str, beginning: str, limit: int = VALUES_MAX) -> list[str]:
        """What may follow `word:`."""
        if word not in _SOURCES:
            return []
        _, table, key, column = _SOURCES[word]
        # The newest first: instances come and go, and who types looks for one that is there now.
        sql = (
            f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL AND lower(substr({column}, 1, ?)) = lower(?)"
            f" GROUP BY {column} ORDER BY max({key}) DESC LIMIT ?"
        )
        return await self._ask(_names(sql, (len(beginning), beginning, limit)))

    async def now(self) -> Now:
        """How things stand."""
        return await self._ask(_standing())


def _names(sql: str, params: tuple[Any, ...]) -> Question[list[str]]:
    return [row[0] for row in (yield sql, params)]


def _of(environment: str | None) -> tuple[str, list[Any]]:
    if environment is None:
        return "", []
    return " AND environment = (SELECT id FROM environment WHERE name = ?)", [environment]


def _ledger(from_: int, to: int, bucket: float | None, environment: str | None, now: int) -> Question[Ledger]:
    width = int((bucket or 60) // 60)
    only, params = _of(environment)
    sums = ", ".join(f"sum({column}) AS {column}" for column in COLUMNS)
    rows = yield (
        f"SELECT minute / ? * ? AS at, {sums} FROM ledger_all WHERE minute >= ? AND minute < ?{only} GROUP BY 1 ORDER BY 1",
        [width, width, from_ // MINUTE_NS, -(-to // MINUTE_NS), *params],
    )
    counted = [{column: int(row[column]) for column in COLUMNS} for row in rows]
    total = {column: sum(one[column] for one in counted) for column in COLUMNS}
    settled = {"failed": total.pop("settled_failed"), "gap": total.pop("settled_gap")}
    buckets = [
        Bucket(at=row["at"] * MINUTE_NS, tasks=sum(one[term] for term in _TERMS), **one)
        for row, one in zip(rows, counted, strict=True)
    ]
    complete = yield from blind.is_complete(from_, to, None, now)
    kept = buckets if bucket is not None else []
    tasks = sum(total[term] for term in _TERMS)
    return Ledger(from_=from_, to=to, tasks=tasks, settled=settled, complete=complete, bucket=bucket, buckets=kept, **total)


def _happened(from_: int, to: int, environment: str | None) -> Question[list[Happened]]:
    only, params = ("", []) if environment is None else (" AND environment = ?", [environment])
    releases = yield (
        "SELECT service, environment, release, min(first_heard_at) AS at FROM instance"
        f" WHERE release IS NOT NULL{only} GROUP BY service, environment, release"
        " HAVING at >= ? AND at < ? ORDER BY at DESC LIMIT ?",
        [*params, from_, to, MARKS_MAX],
    )
    # What it had told before it died was its life; when we noticed is not when it happened.
    deaths = yield (
        "SELECT service, environment, id AS instance, host, pid, release, min(ended_at, max(last_heard_at, lived_at)) AS at"
        f" FROM instance WHERE state != 'alive' AND ended_at >= ? AND at >= ? AND at < ?{only}"
        " AND ifnull(reason, '') NOT LIKE ? ORDER BY at DESC LIMIT ?",
        [from_, from_, to, *params, f"{FAREWELL}%", MARKS_MAX],
    )
    marks = [Happened(what="release", **dict(row)) for row in releases]
    marks += [Happened(what="death", **dict(row)) for row in deaths]
    return sorted(marks, key=lambda mark: mark.at, reverse=True)[:MARKS_MAX]


def _types(from_: int, to: int, environment: str | None, limit: int) -> Question[list[TypeCount]]:
    only, params = _of(environment)
    cells, bounds = ledger.window(from_ // MINUTE_NS, -(-to // MINUTE_NS))
    rows = yield (
        f"SELECT type.service, type.name, s.* FROM (SELECT type AS no, sum({_TASKS}) AS tasks, sum(failed) AS failed,"
        f" sum(gap) AS gap, sum(loose) AS loose FROM {cells} WHERE 1{only} GROUP BY type HAVING tasks > 0"
        " ORDER BY gap DESC, failed DESC, tasks DESC LIMIT ?) AS s JOIN type ON type.id = s.no"
        " ORDER BY gap DESC, failed DESC, tasks DESC",
        [*bounds, *params, limit],
    )
    return [TypeCount(**{name: row[name] for name in TypeCount.__struct_fields__}) for row in rows]


def _loose(environment: str | None, limit: int) -> Question[Page[Task]]:
    only, params = _of(environment)
    rows = yield f"SELECT * FROM task WHERE loose = 1{only} ORDER BY began_at DESC, id DESC LIMIT ?", [*params, limit + 1]
    found = yield from shown.neighbours(rows[:limit])
    tasks = [shown.resource(row, found) for row in rows[:limit]]
    return Page(items=tasks, next_cursor="more" if len(rows) > limit else None)


def _found(walk: Walk) -> Question[Found]:
    yield from walk.take(max(MATCHING_MAX, FACET_TASKS_MAX) + 1)
    newest = walk.rows[:FACET_TASKS_MAX]
    facets = []
    for word in FACETS:
        counted = yield from _values(word, newest)
        mine = sorted(((n, value) for value, n in counted.items()), key=lambda one: (-one[0], one[1]))
        choices = [Choice(value=_spelt(word, value), count=n) for n, value in mine[:FACET_CHOICES_MAX]]
        facets.append(Facet(word=word, choices=choices, left=max(0, len(mine) - FACET_CHOICES_MAX)))
    matching = min(len(walk.rows), MATCHING_MAX)
    more = len(walk.rows) > MATCHING_MAX or walk.stopped
    return Found(matching=matching, more=more, counted=len(newest), facets=facets)


def _values(word: str, rows: list[sqlite3.Row]) -> Question[Counter[str]]:
    """How many of these tasks have which value of a word; those without one are left out."""
    outer, table, key, column = _SOURCES.get(word, (word, "", "", ""))
    numbers = Counter(row[outer] for row in rows if row[outer] is not None)
    if word in _WORDS:
        return Counter({str(number): n for number, n in numbers.items()})
    marks = ", ".join("?" * len(numbers))
    named = yield f"SELECT {key} AS no, {column} AS value FROM {table} WHERE {key} IN ({marks})", list(numbers)
    counted: Counter[str] = Counter()
    for row in named:
        if row["value"] is not None:
            counted[str(row["value"])] += numbers[row["no"]]
    return counted


def _spelt(word: str, value: str) -> str:
    return _WORDS[word][int(value)] if word in _WORDS else value


def _standing() -> Question[Now]:
    rows = yield (
        "SELECT (SELECT value FROM mark WHERE name = 'last_event_at') AS last_event_at,"
        " (SELECT count(*) FROM task WHERE loose = 1) AS loose,"
        " (SELECT count(*) FROM incident WHERE state != 'resolved') AS incidents,"
        " (SELECT ifnull(max(n), 0) FROM audit) AS acts,"
        " (SELECT count(*) FROM instance WHERE state != 'gone') AS instances",
        (),
    )
    return Now(**dict(rows[0]))
