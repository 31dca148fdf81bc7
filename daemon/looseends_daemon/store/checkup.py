"""What a database says about itself, for `looseends doctor`: whole, indexed, its clocks, its tokens, and who runs what.

Rules: reads only, on a connection of `store/backup.reading`; findings are values, the words are the command's.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

from looseends.wire import NS, SKEW_NS_MIN
from looseends_daemon.core.resources import Value
from looseends_daemon.core.retention import Growth, Sizes
from looseends_daemon.store import retention
from looseends_daemon.store.questions import ask
from looseends_daemon.store.schema import migrate, migrations

SHOWN_MAX = 20

PLANS = (
    ("the newest tasks", "SELECT * FROM task ORDER BY began_at DESC, id DESC LIMIT 50", "task_newest"),
    ("what is due", "SELECT * FROM task WHERE check_at IS NOT NULL AND check_at <= 1 ORDER BY check_at LIMIT 500", "task_check"),
    ("open loose ends", "SELECT * FROM task WHERE loose = 1 ORDER BY began_at DESC LIMIT 50", "task_loose"),
    ("open tasks of an instance", "SELECT * FROM task WHERE instance = 1 AND state < 3", "task_open"),
    ("an incident's tasks", "SELECT count(*) FROM task WHERE incident = 1 AND loose = 1", "task_incident"),
    ("the ledger of a window", "SELECT * FROM ledger WHERE minute >= 1 AND minute < 2", "PRIMARY KEY"),
    ("what may go", "SELECT * FROM task WHERE (began_at, id) > (1, x'00') AND began_at < 2 ORDER BY began_at, id", "task_newest"),
)  # fmt: skip
"""Questions whose price grows with the file unless their index is there: (in words, SQL, the index)."""


class Running(Value, frozen=True):
    """A live instance and what it runs. `skew` in seconds."""

    id: str
    service: str
    environment: str
    host: str | None
    pid: int | None
    release: str | None
    client: str | None
    python: str | None
    skew: float


def schema_version(conn: sqlite3.Connection) -> tuple[int, int]:
    """(of the file, known here)."""
    return int(conn.execute("PRAGMA user_version").fetchone()[0]), len(migrations())


def damage(conn: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with the file; empty: nothing. Reads all of it."""
    said = [str(row[0]) for row in conn.execute("PRAGMA quick_check(5)")]
    return [] if said == ["ok"] else said


def missing_schema(conn: sqlite3.Connection) -> list[str]:
    """Tables, indexes and triggers that a fresh database has and this one has not, or has otherwise."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        migrate(fresh)
        wanted = _schema(fresh)
    there = _schema(conn)
    return sorted(name for name, sql in wanted.items() if there.get(name) != sql)


def _schema(conn: sqlite3.Connection) -> dict[str, str]:
    rows = conn.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    return {row[0]: " ".join(row[1].split()) for row in rows}


def slow_plans(conn: sqlite3.Connection) -> list[str]:
    """The questions (in words) that SQLite would not answer by their index."""
    slow = []
    for words, sql, index in PLANS:
        plan = " ".join(str(row[3]) for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}"))
        if index not in plan or "TEMP B-TREE" in plan:
            slow.append(words)
    return slow


def newest_event_at(conn: sqlite3.Connection) -> int | None:
    """When the newest event arrived (ns)."""
    row = conn.execute("SELECT value FROM mark WHERE name = 'last_event_at'").fetchone()
    return None if row is None else int(row[0])


def running(conn: sqlite3.Connection) -> list[Running]:
    """Live instances, by service."""
    rows = conn.execute("SELECT * FROM instance WHERE state = 'alive' ORDER BY service, environment, no")
    names = [name for name in Running.__struct_fields__ if name != "skew"]
    return [Running(skew=row["skew"] / NS, **{name: row[name] for name in names}) for row in rows]


def skewed(instances: list[Running]) -> list[Running]:
    """Those whose clock is off by more than is left alone."""
    return [one for one in instances if abs(one.skew) * NS > SKEW_NS_MIN]


def token_counts(conn: sqlite3.Connection) -> dict[str, int]:
    """How many tokens hold, by role."""
    rows = conn.execute("SELECT role, count(*) AS n FROM token WHERE revoked_at IS NULL GROUP BY role ORDER BY role")
    return {row["role"]: row["n"] for row in rows}


def sizes(conn: sqlite3.Connection, path: str) -> Sizes:
    """What the storage takes. Raises OSError."""
    return retention.sizes_of(path, *ask(conn, retention.pages()))


def growth(conn: sqlite3.Connection, now: int) -> Growth:
    """How fast it grows."""
    return ask(conn, retention.growth(now))


def as_dict(value: Value) -> dict[str, Any]:
    """A value's fields, for the JSON output."""
    return {name: getattr(value, name) for name in value.__struct_fields__}
