"""The read side of the store: core/resources.Reader over the read-only connections, each method one consistent read."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from looseends.wire import format_time, is_uuid
from looseends_daemon.core.query import parse
from looseends_daemon.core.resources import (
    AuditRow,
    BlindWindow,
    Bucket,
    HistoryEntry,
    Incident,
    Instance,
    Ledger,
    Notice,
    Page,
    Replay,
    Task,
)
from looseends_daemon.core.stats import MINUTE_NS
from looseends_daemon.store import blind, ledger, shown
from looseends_daemon.store import incident_pages as incident_store
from looseends_daemon.store import instances as instance_store
from looseends_daemon.store import outbox as outbox_store
from looseends_daemon.store import replays as replay_store
from looseends_daemon.store.codes import blob
from looseends_daemon.store.connection import Database
from looseends_daemon.store.ledger import COLUMNS, HOUR_MINUTES
from looseends_daemon.store.query_sql import TEXT_TASKS_MAX, where
from looseends_daemon.store.questions import NO_CURSOR, Question, ask_apart, mark_of, page_mark, whole
from looseends_daemon.store.seeking import Bounds, Walk, place_after, place_before

T = TypeVar("T")
SEEK_S_MAX = 0.05
"""How long a list may look for more rows before it says how far it got (s)."""


class StoreReader:
    """Implements core/resources.Reader. `base_url` begins the `url` of every resource."""

    def __init__(self, database: Database, *, base_url: str = "", wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._base = base_url
        self._now = wall_ns

    async def _ask(self, question: Question[T]) -> T:
        return await self._database.read(lambda conn: ask_apart(conn, question))

    # --- tasks ---

    async def tasks(
        self, q: str, *, from_: int | None = None, to: int | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[Task]:
        """Newest begun first. Raises QueryError with column and allowed words, ValueError for a made-up cursor."""
        query, bounds = parse(q), Bounds(from_=from_, to=to, below=None if cursor is None else _cursor(cursor))
        sql = where(query, now=self._now(), to=to)
        return await self._ask(_tasks(Walk(query, sql, bounds, "task.*", SEEK_S_MAX), limit, self._base, query.searches_text))

    async def task(self, task_id: str) -> Task | None:
        """One task with lineage and replayability; also by the id its sender gave it."""
        return await self._ask(_task(task_id, self._base))

    async def history(self, task_id: str) -> list[HistoryEntry] | None:
        """Facts and judgements in order of time; None: no such task."""
        return await self._ask(_history(task_id))

    async def last_event_at(self) -> int | None:
        """Arrival of the newest event ever stored."""
        return await self._ask(_last_event_at())

    # --- the ledger ---

    async def ledger(self, from_: int, to: int, bucket: float | None = None, service: str | None = None) -> Ledger:
        """The equation of [from, to), whole minutes; with `bucket` (seconds, a multiple of 60) also by bucket."""
        return await self._ask(_ledger(from_, to, bucket, service, self._now()))

    # --- what others keep ---

    async def incidents(self, state: str | None = None, limit: int = 50, cursor: str | None = None) -> Page[Incident]:
        """Newest first."""
        return await self._ask(incident_store.incident_page(state, limit, cursor, self._base, self._now()))

    async def incident(self, incident_id: str) -> Incident | None:
        """One incident with the reason of every transition."""
        return await self._ask(incident_store.incident_one(incident_id, self._base, self._now()))

    async def notices(self, incident: str | None = None, limit: int = 50, cursor: str | None = None) -> Page[Notice]:
        """Newest first, with their delivery attempts."""
        return await self._database.read(lambda conn: outbox_store.notices(conn, incident, limit, cursor))

    async def notice(self, notice_id: str) -> Notice | None:
        """One notice with its body and every delivery attempt."""
        return await self._database.read(lambda conn: outbox_store.notice(conn, notice_id))

    async def replays(self, limit: int = 50, cursor: str | None = None) -> Page[Replay]:
        """Newest first."""
        return await self._database.read(lambda conn: replay_store.replays(conn, limit, cursor, self._base))

    async def replay(self, replay_id: str) -> Replay | None:
        """One replay with its orders."""
        return await self._database.read(lambda conn: replay_store.replay(conn, replay_id, self._base, self._now()))

    async def instances(self, limit: int = 50, cursor: str | None = None) -> Page[Instance]:
        """Newest first."""
        return await self._database.read(lambda conn: instance_store.instances(conn, self._now(), limit, cursor))

    async def instance(self, instance_id: str) -> Instance | None:
        """One instance with the functions it registered."""
        return await self._database.read(lambda conn: instance_store.instance(conn, self._now(), instance_id))

    async def blind_windows(
        self, from_: int | None = None, to: int | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[BlindWindow]:
        """Newest first: times in [from, to) in which something may be missing."""
        return await self._ask(blind.windows(from_, to, limit, cursor, self._now()))

    async def audit(self, limit: int = 50, cursor: str | None = None) -> Page[AuditRow]:
        """Newest first."""
        return await self._ask(_audit(limit, cursor))


def _tasks(walk: Walk, limit: int, base: str, searches_text: bool) -> Question[Page[Task]]:
    yield from walk.take(limit + 1)
    rows = walk.rows
    found = yield from shown.neighbours(rows[:limit])
    items = []
    for row in rows[:limit]:
        items.append((yield from shown.full(row, found, base)))
    more = place_after(rows[limit - 1]) if len(rows) > limit else place_before(walk.seen_from) if walk.stopped else None
    return Page(items=items, next_cursor=more, searched=_searched(walk, len(rows) > limit, searches_text))


def _searched(walk: Walk, is_full: bool, searches_text: bool) -> str | None:
    """How far it was looked, where that is not as far as there is anything."""
    said = [f"names everywhere; inside of the newest {TEXT_TASKS_MAX:,} tasks"] if searches_text else []
    if walk.stopped and not is_full:
        said.append(f"so far only what began at {format_time(walk.seen_from)} or later was looked at; the next page goes on")
    return "; ".join(said) or None


def _cursor(cursor: str) -> tuple[int, bytes]:
    """The last row of the page before. Raises ValueError in words."""
    try:
        began_at, task = cursor.split(".")
        return whole(int(began_at, 16)), bytes.fromhex(task)
    except ValueError:
        raise ValueError(NO_CURSOR) from None


def _row(task_id: str) -> Question[sqlite3.Row | None]:
    if is_uuid(task_id):
        rows = yield "SELECT * FROM task WHERE id = ?", (blob(task_id),)
    else:
        rows = yield "SELECT task.* FROM external JOIN task ON task.id = external.task WHERE text = ? LIMIT 1", (task_id,)
    return rows[0] if rows else None


def _task(task_id: str, base: str) -> Question[Task | None]:
    row = yield from _row(task_id)
    return None if row is None else (yield from shown.full(row, (yield from shown.neighbours([row])), base))


def _history(task_id: str) -> Question[list[HistoryEntry] | None]:
    row = yield from _row(task_id)
    return None if row is None else (yield from shown.history(row))


def _last_event_at() -> Question[int | None]:
    rows = yield "SELECT value FROM mark WHERE name = 'last_event_at'", ()
    return int(rows[0]["value"]) if rows else None


def _ledger(from_: int, to: int, bucket: float | None, service: str | None, now: int) -> Question[Ledger]:
    width = int((bucket or 3600) // 60)
    first, last = from_ // MINUTE_NS, -(-to // MINUTE_NS)
    sums = ", ".join(f"sum({column}) AS {column}" for column in COLUMNS)
    table, params = "ledger_all WHERE minute >= ? AND minute < ?", [first, last]
    if service is not None:
        of = yield "SELECT id FROM type WHERE service = ?", (service,)
        only = f"type IN ({', '.join(str(int(row['id'])) for row in of)})"
        table = f"ledger WHERE minute >= ? AND minute < ? AND {only}"
        if width % HOUR_MINUTES == 0:
            table, params = ledger.window(first, last, only)
    rows = yield f"SELECT minute / ? * ? AS at, {sums} FROM {table} GROUP BY 1 ORDER BY 1", [width, width, *params]
    buckets = [_bucket(row) for row in rows]
    total = {column: sum(getattr(one, column) for one in buckets) for column in COLUMNS}
    settled = {"failed": total.pop("settled_failed"), "gap": total.pop("settled_gap")}
    terms = sum(total[term] for term in ("succeeded", "failed", "cancelled", "in_time", "gap"))
    kept = buckets if bucket is not None else []
    complete = yield from blind.is_complete(from_, to, service, now)
    return Ledger(from_=from_, to=to, tasks=terms, settled=settled, complete=complete, bucket=bucket, buckets=kept, **total)


def _bucket(row: sqlite3.Row) -> Bucket:
    counted = {column: row[column] for column in COLUMNS}
    tasks = sum(counted[term] for term in ("succeeded", "failed", "cancelled", "in_time", "gap"))
    return Bucket(at=row["at"] * MINUTE_NS, tasks=tasks, **counted)


def _audit(limit: int, cursor: str | None) -> Question[Page[AuditRow]]:
    rows = yield "SELECT * FROM audit WHERE n < ? ORDER BY n DESC LIMIT ?", (page_mark(cursor), limit + 1)
    items = [AuditRow(**{name: row[name] for name in AuditRow.__struct_fields__}) for row in rows[:limit]]
    return Page(items=items, next_cursor=mark_of(rows[limit - 1]["n"]) if len(rows) > limit else None)
