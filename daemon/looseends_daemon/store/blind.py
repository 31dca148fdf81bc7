"""Times in which something may be missing: our own absence, and records of instances that are known by number and not here.

Rules:

1. Our absence is written down when we come back: a mark says every ALIVE_EVERY_S when we last lived, so a kill is no secret.
2. A record is missing once its instance says that nothing is on its way and its number is still not here SURE_S later; at once
   when the instance has ended and its journal is here. When it comes late after all, its window closes.
3. A window is never widened or removed by anything but records that came.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from sqlite3 import Connection as Connection
from typing import Any

from looseends.wire import NS
from looseends_daemon.core.clocks import JUMPS_MAX, Jump
from looseends_daemon.core.clocks import Break as Break
from looseends_daemon.core.records import Records, gaps, pack, seen, unpack
from looseends_daemon.core.resources import BlindWindow, Page
from looseends_daemon.core.words import clock, span
from looseends_daemon.store.questions import Question, mark_of, page_mark

ALIVE_EVERY_S = 2.0
SURE_S = 60.0
SHORT_NS = NS
"""An absence shorter than this is a slow disk or a busy machine: whoever wanted to tell us something tried again."""
JUMP_NS_MIN = 2 * NS


# --- ourselves ----------------------------------------------------------------------------------------------------


def stay_alive(conn: sqlite3.Connection, now: int, boot: int, which_boot: int) -> None:
    """Note that we live: the wall clock, the time since boot, and which boot it was."""
    marks = (("alive_at", now), ("alive_boot", boot), ("which_boot", which_boot))
    conn.executemany("INSERT OR REPLACE INTO mark (name, value) VALUES (?, ?)", marks)


def resume(conn: sqlite3.Connection, now: int, boot: int, which_boot: int) -> list[Break]:
    """What happened since we last lived; nothing on a new database. To be written down with `record`."""
    marks = {row["name"]: int(row["value"]) for row in conn.execute("SELECT name, value FROM mark")}
    if "alive_at" not in marks:
        return []
    away, by = now - marks["alive_at"], 0
    if which_boot and marks.get("which_boot") == which_boot and boot >= marks["alive_boot"]:
        measured = boot - marks["alive_boot"]
        away, by = measured, away - measured
    elif away < 0:
        away, by = 0, away
    by = by if abs(by) > JUMP_NS_MIN else 0
    found = [Break(cause="clock", from_at=now - max(by, 0), to_at=now, by=by)] if by else []
    return [*found, Break(cause="down", from_at=now - away, to_at=now)]


def record(conn: sqlite3.Connection, breaks: Sequence[Break]) -> None:
    """Write down when we did not hear, and when the wall clock was set; what was counted by the old clock moves with it."""
    for one in breaks:
        if one.to_at - one.from_at >= SHORT_NS:
            conn.execute(
                "INSERT INTO blind_window (cause, from_at, to_at, sure_at) VALUES (?, ?, ?, 0)",
                (one.cause, one.from_at, one.to_at),
            )
        if one.by:
            _set_clock(conn, one)
    if breaks:
        since = max(one.to_at for one in breaks)
        conn.execute("INSERT OR REPLACE INTO mark (name, value) VALUES ('heard_since', ?)", (since,))


def _set_clock(conn: sqlite3.Connection, one: Break) -> None:
    conn.execute("INSERT INTO clock_jump (at, by) VALUES (?, ?)", (one.to_at, one.by))
    conn.execute(
        "DELETE FROM clock_jump WHERE rowid NOT IN (SELECT rowid FROM clock_jump ORDER BY rowid DESC LIMIT ?)", (JUMPS_MAX,)
    )
    limit = one.from_at if one.by > 0 else one.to_at
    for column in ("last_heard_at", "said_at"):
        old = f"{column} <= ?" if one.by > 0 else f"{column} > ?"
        conn.execute(f"UPDATE instance SET {column} = {column} + ? WHERE state = 'alive' AND {old}", (one.by, limit))
    if one.by < 0:  # set forward, everything is looked at early and put off again; set back, it must be looked at earlier
        for table in ("task", "expectation"):
            conn.execute(f"UPDATE {table} SET check_at = max(0, check_at + ?) WHERE check_at IS NOT NULL", (one.by,))


def log_was_cut(conn: sqlite3.Connection, commits: int, now: int) -> None:
    """Write down that so many of our commits are lost: they were made after the last thing that is still here."""
    marks = conn.execute("SELECT max(value) AS at FROM mark WHERE name IN ('alive_at', 'last_event_at')").fetchone()
    conn.execute(
        "INSERT INTO blind_window (cause, from_at, to_at, missing, sure_at) VALUES ('records', ?, ?, ?, 0)",
        (min(marks["at"] or now, now), now, commits),
    )


def jumps(conn: sqlite3.Connection) -> tuple[Jump, ...]:
    """When the wall clock was set: the last JUMPS_MAX times, oldest first."""
    rows = conn.execute("SELECT at, by FROM clock_jump ORDER BY rowid DESC LIMIT ?", (JUMPS_MAX,)).fetchall()
    return tuple(Jump(at=row["at"], by=row["by"]) for row in reversed(rows))


def heard_since(conn: sqlite3.Connection) -> int:
    """Since when we have heard without a break (ns); 0: since for ever."""
    row = conn.execute("SELECT value FROM mark WHERE name = 'heard_since'").fetchone()
    return 0 if row is None else int(row["value"])


# --- records of instances -----------------------------------------------------------------------------------------


def note_batch(conn: sqlite3.Connection, row: sqlite3.Row, told: Iterable[tuple[int | None, int]], now: int) -> None:
    """Note which records a batch brought: (number or None, corrected `at`) of its events. Closes what came late."""
    begun: dict[int, int] = {}
    lived_at = 0
    for number, at in told:
        lived_at = max(lived_at, at)
        if number:
            begun[number] = min(at, begun.get(number, at))
    if not lived_at:
        return
    before = unpack(row["records"])
    after = seen(before, begun) if begun else before
    conn.execute(
        "UPDATE instance SET records = ?, lived_at = max(lived_at, ?) WHERE no = ?",
        (pack(after) if begun else row["records"], min(lived_at, now), row["no"]),
    )
    if after != before and (not before.whole or row["last_seq"] > _greatest(before)):
        _keep(conn, row["no"], after, row["last_seq"], now, new=False)


def note_dropped(conn: sqlite3.Connection, row: sqlite3.Row, dropped: int, now: int) -> None:
    """A heartbeat counts more records that the instance could not keep than the one before: these will never come."""
    more = dropped - row["dropped"]
    if more > 0:
        conn.execute(
            "INSERT INTO blind_window (cause, instance, from_at, to_at, missing, sure_at) VALUES ('dropped', ?, ?, ?, ?, 0)",
            (row["no"], min(row["last_heard_at"], now), now, more),
        )


def settle(conn: sqlite3.Connection, no: int, now: int, *, sure: bool = False, void: Sequence[int] = ()) -> None:
    """Its instance says that nothing is on its way: what is not here is missing. `void`: numbers that tell of nothing."""
    row = conn.execute("SELECT records, last_seq FROM instance WHERE no = ?", (no,)).fetchone()
    records = unpack(row["records"])
    if void:
        records = seen(records, dict.fromkeys(void, 0))
        conn.execute("UPDATE instance SET records = ? WHERE no = ?", (pack(records), no))
    _keep(conn, no, records, row["last_seq"], now, new=True, sure=sure)


def _keep(conn: sqlite3.Connection, no: int, records: Records, last_seq: int, now: int, *, new: bool, sure: bool = False) -> None:
    """Make this instance's windows say what its ranges say. `new` False: only narrow and close those that are there."""
    old = conn.execute(
        "SELECT first, last, to_at, sure_at FROM blind_window WHERE instance = ? AND cause = 'records' AND first > ?",
        (no, records.floor),
    ).fetchall()
    if not old and (not new or (records.whole and last_seq <= _greatest(records))):
        return
    instance = conn.execute("SELECT started_at, first_heard_at, ended_at FROM instance WHERE no = ?", (no,)).fetchone()
    since = min(at for at in (instance["started_at"], instance["first_heard_at"]) if at is not None)
    rows = []
    for gap in gaps(records, last_seq, since=since, until=instance["ended_at"] or now):
        known = [was for was in old if was["first"] <= gap.last and gap.first <= was["last"]]
        if new or known:
            sure_at = min([0 if sure else now + int(SURE_S * NS), *(was["sure_at"] for was in known)])
            to_at = min([gap.to_at, *(was["to_at"] for was in known if gap.last == was["last"])])
            rows.append((no, min(gap.from_at, to_at), to_at, gap.first, gap.last, gap.missing, sure_at))
    conn.execute("DELETE FROM blind_window WHERE instance = ? AND cause = 'records' AND first > ?", (no, records.floor))
    conn.executemany(
        "INSERT INTO blind_window (cause, instance, from_at, to_at, first, last, missing, sure_at)"
        " VALUES ('records', ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )


def _greatest(records: Records) -> int:
    return records.spans[-1][1] if records.spans else records.floor


# --- what is shown ------------------------------------------------------------------------------------------------


def is_complete(from_: int, to: int, service: str | None, now: int) -> Question[bool]:
    """Whether nothing is known to be missing from [from, to) of a service (None: of all)."""
    only, params = "", [from_, to, now]
    if service is not None:
        only = " AND (w.instance IS NULL OR w.instance IN (SELECT no FROM instance WHERE service = ?))"
        params = [from_, to, now, service]  # type: ignore[list-item]
    rows = yield (
        f"SELECT 1 FROM blind_window w WHERE w.to_at >= ? AND w.from_at < ? AND w.sure_at <= ?{only} LIMIT 1",
        params,
    )
    return not rows


def windows(from_: int | None, to: int | None, limit: int, cursor: str | None, now: int) -> Question[Page[BlindWindow]]:
    """Newest first; those that touch [from, to). Raises ValueError for a made-up cursor."""
    rows = yield (
        "SELECT w.*, i.id AS who, i.service, i.environment FROM blind_window w LEFT JOIN instance i ON i.no = w.instance"
        " WHERE w.no < ? AND w.to_at >= ? AND w.from_at < ? AND w.sure_at <= ? ORDER BY w.no DESC LIMIT ?",
        (page_mark(cursor), from_ or 0, page_mark(None) if to is None else to, now, limit + 1),
    )
    more = mark_of(rows[limit - 1]["no"]) if len(rows) > limit else None
    return Page(items=[_shown(row) for row in rows[:limit]], next_cursor=more)


def _shown(row: sqlite3.Row) -> BlindWindow:
    return BlindWindow(
        cause=row["cause"],
        from_=row["from_at"],
        to=row["to_at"],
        instance=row["who"],
        service=row["service"],
        environment=row["environment"],
        missing=row["missing"],
        reason=words(row["cause"], row["missing"], row["from_at"], row["to_at"], ours=row["instance"] is None),
    )


def words(cause: str, missing: int, from_at: int, to_at: int, *, ours: bool = False) -> str:
    """A window in a sentence. `ours`: it is not about an instance."""
    if ours and cause == "records":
        return f"the log of the database was damaged: up to {missing} commits made after {clock(from_at)} are no longer there"
    when = f"from {clock(from_at)} to {clock(to_at)}"
    length = span(round((to_at - from_at) / NS, 1))
    records = "1 record" if missing == 1 else f"{missing} records"
    said: Mapping[str, Any] = {
        "down": f"the daemon was not running {when}, for {length}",
        "frozen": f"the daemon was stopped or this machine asleep {when}, for {length}",
        "clock": f"this machine's clock was set forward by {length} at {clock(to_at)}",
        "records": f"{records} of this instance {'is' if missing == 1 else 'are'} missing; what they tell of began {when}",
        "dropped": f"{records} of this instance could not be kept in its spool {when}",
    }
    return str(said[cause])


def of_instances(numbers: Sequence[int], now: int) -> Question[dict[int, list[sqlite3.Row]]]:
    """The windows of these instances (at most 500), by instance number."""
    marks = ", ".join("?" * len(numbers))
    rows = yield (
        f"SELECT * FROM blind_window WHERE instance IN ({marks}) AND sure_at <= ? ORDER BY from_at",
        [*numbers, now],
    )
    found: dict[int, list[sqlite3.Row]] = {}
    for row in rows:
        found.setdefault(row["instance"], []).append(row)
    return found
