"""A purge: removing what a person names, by query and window, a few hundred tasks a commit, with two rows in the audit log.

Rules: it removes what is over and nothing else: what is open and every loose end stays, and is counted. What it removes goes with
everything of its own, as the janitor removes it. A query that searches text is refused: it would only reach the newest tasks, and
a removal must be exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from looseends.wire import INT_MAX, format_time
from looseends_daemon.core.query import QueryError, parse
from looseends_daemon.core.resources import Value
from looseends_daemon.core.retention import ANY_AGE
from looseends_daemon.store import retention
from looseends_daemon.store.access import audit
from looseends_daemon.store.codes import ORDER
from looseends_daemon.store.connection import Database
from looseends_daemon.store.query_sql import where
from looseends_daemon.store.questions import Question, ask_async
from looseends_daemon.store.retention import STEP_TASKS_MAX, Walk

T = TypeVar("T")
CALL_TASKS_MAX = 20_000
"""Tasks removed in one call; who wants more calls again, and sees how far it got."""
COUNT_TASKS_MAX = 200_000
"""Tasks counted in one read, well within its time."""
OVER = "(task.loose = 0 AND (task.state >= 3 OR (task.verdict IS NOT NULL AND task.settled IS NOT NULL)))"
"""core/retention.over_since as SQL."""


class Wish(Value, frozen=True):
    """What shall go: the tasks of a query that began in [from, to), ns."""

    to: int
    from_: int = 0
    q: str = ""

    def words(self) -> str:
        """For the audit log."""
        window = f"begun before {format_time(self.to)}" + (f" and since {format_time(self.from_)}" if self.from_ else "")
        return f"{self.q!r} {window}" if self.q.strip() else f"all tasks {window}"


class Counted(Value, frozen=True):
    """How many tasks the wish names: those that would go, and those that stay because they are open or loose ends."""

    tasks: int = 0
    removable: int = 0
    open: int = 0
    loose: int = 0


class Purged(Value, frozen=True):
    """What a call did. `more`: there is more to remove, call again."""

    removed: int
    more: bool


def check(wish: Wish, now: int) -> tuple[str, list[object]]:
    """(SQL, parameters) of the wish. Raises QueryError."""
    query = parse(wish.q)
    text = next((term for term in query.terms if term.is_searched), None)
    if text is not None:
        allowed = ["name:mail.*", "service:shop", "key:order-7"]
        raise QueryError("a purge cannot search text; name what shall go", text.column, allowed)
    return where(query, now=now, to=wish.to)


async def count(database: Database, wish: Wish, now: int) -> Counted:
    """How many tasks a purge would remove and leave, counted in slices of time. Raises QueryError, StoreError."""
    sql, params = check(wish, now)
    total = Counted()
    begin = wish.from_
    while begin < wish.to:
        end = await _ask(database, _slice_end(begin, wish.to))
        some = await _ask(database, _count(sql, params, begin, end))
        total = Counted(**{name: getattr(total, name) + getattr(some, name) for name in Counted.__struct_fields__})
        begin = end
    return total


def _slice_end(begin: int, to: int) -> Question[int]:
    rows = yield (
        "SELECT began_at FROM task WHERE began_at >= ? AND began_at < ? ORDER BY began_at LIMIT 1 OFFSET ?",
        (begin, to, COUNT_TASKS_MAX),
    )
    return min(to, max(int(rows[0]["began_at"]), begin + 1)) if rows else to


def _count(sql: str, params: list[object], begin: int, end: int) -> Question[Counted]:
    rows = yield (
        f"SELECT count(*) AS tasks, coalesce(sum({OVER}), 0) AS removable, coalesce(sum(task.loose), 0) AS loose FROM task"
        f" WHERE {sql} AND task.began_at >= ? AND task.began_at < ?",
        [*params, begin, end],
    )
    row = rows[0]
    opened = row["tasks"] - row["removable"] - row["loose"]
    return Counted(tasks=row["tasks"], removable=row["removable"], open=opened, loose=row["loose"])


async def purge(database: Database, wish: Wish, actor: str, clock: Callable[[], int], tasks_max: int = CALL_TASKS_MAX) -> Purged:
    """Remove up to about `tasks_max` tasks, oldest first. Raises QueryError, StoreError; what was removed stays removed."""
    now = clock()
    sql, params = check(wish, now)
    await database.write(lambda conn: audit(conn, now, actor, "purge", wish.words(), "begun"))
    removed, walk, more = 0, Walk(), True
    try:
        while more and removed < tasks_max:
            found = await _ask(database, _page(sql, params, wish, walk))
            more = len(found) == STEP_TASKS_MAX
            if found:
                walk = found[-1]
                removed += await _remove(database, [place.task for place in found])
    finally:
        said = f"removed {removed} tasks" + ("; more remain" if more else "")
        await database.write(lambda conn: audit(conn, clock(), actor, "purge", wish.words(), said))
    return Purged(removed=removed, more=more and removed > 0)


async def _ask(database: Database, question: Question[T]) -> T:
    return await database.read(lambda conn: ask_async(conn, question))


async def _remove(database: Database, tasks: list[bytes]) -> int:
    """Whatever is over goes, also what ended by a clock that was ahead of ours."""
    return (await database.write(lambda conn: retention.remove(conn, tasks, ANY_AGE, INT_MAX))).tasks


def _page(sql: str, params: list[object], wish: Wish, walk: Walk) -> Question[list[Walk]]:
    """The next tasks that are over; a replay goes with the first task of its chain, or by itself once that is gone."""
    root = "SELECT 1 FROM replay_order o JOIN task r ON r.id = o.root WHERE o.id = task.id"
    own = f"(task.flags & {ORDER} = 0 OR NOT EXISTS ({root}))"
    rows = yield (
        f"SELECT task.began_at, task.id FROM task WHERE {sql} AND {OVER} AND {own} AND task.began_at >= ? AND task.began_at < ?"
        " AND (task.began_at, task.id) > (?, ?) ORDER BY task.began_at, task.id LIMIT ?",
        [*params, wish.from_, wish.to, walk.began_at, walk.task, STEP_TASKS_MAX],
    )
    return [Walk(began_at=row["began_at"], task=row["id"]) for row in rows]
