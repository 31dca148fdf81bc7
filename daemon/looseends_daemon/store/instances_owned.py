"""Who may speak for an instance, and what hearing or missing it does to its tasks.

Rules:

1. An instance belongs to the channel (token, socket uid, plain loopback) that first spoke for it; nobody else may.
2. Hearing an instance that counted as gone or unreachable brings it back: its open tasks are looked at again at once.
3. The end of an instance is news about its open tasks; the detector decides what it means.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from looseends.wire import SKEW_NS_MIN
from looseends_daemon.core.resources import Actor
from looseends_daemon.store.codes import interned

TOUCHABLE = ("last_seq", "backlog", "dropped", "open", "loop_lag_ms")


class OwnershipRefused(Exception):
    """This caller may not speak for that instance: another token, user or service does."""


def hear(
    conn: sqlite3.Connection,
    told: Mapping[str, Any],
    actor: Actor,
    now: int,
    *,
    skew: int = 0,
    proven: bool = False,
    heard: bool = True,
) -> sqlite3.Row:
    """The row of the instance a batch comes from, made on first sight. `heard` False: its journal speaks, not itself.

    Raises OwnershipRefused.
    """
    row = conn.execute("SELECT * FROM instance WHERE id = ?", (told["id"],)).fetchone()
    if row is None:
        return _make(conn, told, actor, now, skew, proven)
    if heard:
        _check_owner(conn, row, actor)
        if abs(skew - row["skew"]) > SKEW_NS_MIN:
            conn.execute("UPDATE instance SET skew = ? WHERE no = ?", (skew, row["no"]))
        _heard(conn, row, now)
    return _row(conn, told["id"])


def touch_instance(conn: sqlite3.Connection, instance_id: str, actor: Actor, now: int, **columns: Any) -> sqlite3.Row | None:
    """A heartbeat: note what it says (TOUCHABLE columns). None: nobody by that id was ever heard. Raises OwnershipRefused."""
    row = conn.execute("SELECT * FROM instance WHERE id = ?", (instance_id,)).fetchone()
    if row is None:
        return None
    _check_owner(conn, row, actor)
    kept = {name: value for name, value in columns.items() if name in TOUCHABLE and value is not None}
    if kept:
        names = ", ".join(f"{name} = ?" for name in kept)
        conn.execute(f"UPDATE instance SET {names} WHERE no = ?", (*kept.values(), row["no"]))
    _heard(conn, row, now)
    return _row(conn, instance_id)


def end_instance(
    conn: sqlite3.Connection,
    instance_id: str,
    *,
    state: str,
    reason: str,
    now: int,
    adopted: bool = False,
    void: Sequence[int] = (),
) -> None:
    """The instance is `gone` or `unreachable`, `reason` in words; its open tasks are looked at again at once.

    `adopted`: all it ever wrote is here. `void`: journal records that will never come; they are no backlog.
    """
    row = conn.execute("SELECT no, adopted, backlog FROM instance WHERE id = ?", (instance_id,)).fetchone()
    if row is None:
        return
    whole = adopted or bool(row["adopted"])
    backlog = 0 if whole else max(0, row["backlog"] - len(void))
    conn.execute(
        "UPDATE instance SET state = ?, reason = ?, ended_at = ?, adopted = ?, backlog = ? WHERE no = ?",
        (state, reason, now, int(whole), backlog, row["no"]),
    )
    look_again(conn, row["no"], now)


def look_again(conn: sqlite3.Connection, no: int, now: int) -> None:
    """Have the detector look at every open task of an instance."""
    conn.execute("UPDATE task SET check_at = ? WHERE instance = ? AND state < 3", (now, no))


def _row(conn: sqlite3.Connection, instance_id: str) -> sqlite3.Row:
    row: sqlite3.Row = conn.execute("SELECT * FROM instance WHERE id = ?", (instance_id,)).fetchone()
    return row


def _make(conn: sqlite3.Connection, told: Mapping[str, Any], actor: Actor, now: int, skew: int, proven: bool) -> sqlite3.Row:
    if actor.service is not None and actor.service != told["service"]:
        raise OwnershipRefused(f"this token speaks for {actor.service}, not for {told['service']}")
    conn.execute(
        "INSERT INTO instance (id, service, environment, release, host, pid, python, client, started_at, channel, proven,"
        " first_heard_at, last_heard_at, skew) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(told["id"], told["service"], told["environment"]),
            *(told.get(name) for name in ("release", "host", "pid", "python", "client", "started_at")),
            *(interned(conn, "channel", actor.channel), int(proven), now, now, skew),
        ),
    )
    return _row(conn, told["id"])


def _check_owner(conn: sqlite3.Connection, row: sqlite3.Row, actor: Actor) -> None:
    if row["channel"] != interned(conn, "channel", actor.channel):
        raise OwnershipRefused("another token, user or way in already speaks for this instance id")


def _heard(conn: sqlite3.Connection, row: sqlite3.Row, now: int) -> None:
    if row["state"] == "alive":
        conn.execute("UPDATE instance SET last_heard_at = ? WHERE no = ?", (now, row["no"]))
        return
    conn.execute(
        "UPDATE instance SET last_heard_at = ?, state = 'alive', reason = NULL, ended_at = NULL, adopted = 0 WHERE no = ?",
        (now, row["no"]),
    )
    look_again(conn, row["no"], now)
