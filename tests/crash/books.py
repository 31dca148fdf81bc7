"""What the database holds against what was sent: nothing acknowledged missing, nothing torn, nothing counted twice.

Rules: every function reads and says in words what is wrong; none repairs. The ledger is checked cell by cell against a count
over the tasks, by SQL that shares nothing with the daemon's own.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from crash.load import BLOCK, ENDS, STATE_OF, Plan, Told
from looseends.wire import NS

STATES = ("scheduled", "running", "retrying", "succeeded", "failed", "cancelled")
IDS_MAX = 500
WORDS_MAX = 10


def missing(conn: sqlite3.Connection, told: Sequence[Told]) -> list[Told]:
    """Those of these events that the tasks in the database do not show."""
    ids = [one.task.id for one in told]
    rows: dict[bytes, sqlite3.Row] = {}
    for first in range(0, len(ids), IDS_MAX):
        some = ids[first : first + IDS_MAX]
        marks = ", ".join("?" * len(some))
        for row in conn.execute(f"SELECT id, state, started_at, ended_at FROM task WHERE id IN ({marks})", some):
            rows[row["id"]] = row
    return [one for one in told if not _shows(rows.get(one.task.id), one)]


def _shows(row: sqlite3.Row | None, told: Told) -> bool:
    if row is None or row["started_at"] != told.task.started_at:
        return False
    if not told.end:
        return True
    return STATES[row["state"]] == STATE_OF[told.task.end] and row["ended_at"] == told.task.ended_at


def states_of(batches: int) -> Counter[str]:
    """How many tasks of one plan are in which state once its first `batches` batches are in."""
    ended = max(0, batches - 1) * BLOCK
    return Counter(STATE_OF[ENDS[n % len(ENDS)] if n < ended else None] for n in range(batches * BLOCK))


def counted(conn: sqlite3.Connection) -> Counter[str]:
    """How many tasks the database has in which state."""
    return Counter({STATES[state]: count for state, count in conn.execute("SELECT state, count(*) FROM task GROUP BY state")})


_TERMS = f"""
SELECT began_at / {60 * NS} AS minute, environment, type, sum(state = 3) AS succeeded, sum(state = 4) AS failed,
       sum(state = 5) AS cancelled, sum(state < 3 AND verdict IS NULL) AS in_time, sum(state < 3 AND verdict IS NOT NULL) AS gap,
       sum(loose) AS loose
FROM task GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_LEDGER = """
SELECT minute, environment, type, succeeded, failed, cancelled, in_time, gap, loose FROM ledger
WHERE succeeded OR failed OR cancelled OR in_time OR gap OR loose ORDER BY 1, 2, 3
"""


def ledger(conn: sqlite3.Connection) -> dict[tuple[int, ...], tuple[int, ...]]:
    """(minute, environment, type) -> the six counts of that cell."""
    return {tuple(row)[:3]: tuple(row)[3:] for row in conn.execute(_LEDGER)}


def miscounted(conn: sqlite3.Connection) -> list[str]:
    """Every cell of the ledger that is not the count over its tasks, in words."""
    should = {tuple(row)[:3]: tuple(row)[3:] for row in conn.execute(_TERMS)}
    stands = ledger(conn)
    wrong = sorted(cell for cell in should.keys() | stands.keys() if should.get(cell) != stands.get(cell))
    return [f"ledger cell {cell}: {stands.get(cell)}, its tasks make {should.get(cell)}" for cell in wrong]


def loose_twice(conn: sqlite3.Connection) -> list[str]:
    """Failures that are no loose end, or were judged more than once, in words."""
    rows = conn.execute(
        "SELECT hex(id) AS id, loose, incident, (SELECT count(*) FROM judgement j WHERE j.task = task.id) AS judged"
        " FROM task WHERE state = 4 AND NOT (loose = 1 AND incident IS NOT NULL AND judged = 1)"
    )
    return [f"failed task {row['id']}: loose {row['loose']}, incident {row['incident']}, judged {row['judged']}" for row in rows]


def damage(conn: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with its file."""
    try:
        return [row[0] for row in conn.execute("PRAGMA integrity_check") if row[0] != "ok"]
    except sqlite3.DatabaseError as error:  # damaged where the check itself has to read
        return [str(error)]


def everything(conn: sqlite3.Connection, plans: Iterable[tuple[Plan, int]]) -> Iterator[str]:
    """All that is wrong once the first so many batches of each plan were acknowledged and nothing is under way."""
    yield from damage(conn)
    expected: Counter[str] = Counter()
    for plan, batches in plans:
        expected += states_of(batches)
        for batch in range(batches):
            yield from (f"missing: {one}" for one in missing(conn, plan.told(batch)))
    if counted(conn) != expected:
        yield f"the tasks are {dict(counted(conn))}, they should be {dict(expected)}"
    yield from miscounted(conn)
    yield from loose_twice(conn)


def some(found: Sequence[str]) -> str:
    """The first few of these as lines."""
    more = f"\n  and {len(found) - WORDS_MAX} more" if len(found) > WORDS_MAX else ""
    return "\n  ".join(found[:WORDS_MAX]) + more
