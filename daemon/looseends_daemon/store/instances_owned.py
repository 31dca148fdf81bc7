"""Who may speak for an instance, and what hearing or missing it does to its tasks.

Rules:

1. An instance belongs to the channel (token, socket uid, plain loopback) that first spoke for it; nobody else may.
2. Hearing an instance that counted as gone or unreachable brings it back: its open tasks are looked at again at once. A gone
   one is back with a heartbeat or its last batch; what its neighbours find of a dead one always says that more is to come.
3. The end of an instance is news about its open tasks; the detector decides what it means.
4. It is heard when a word of it arrives; what it knows is known as of when it said that word (`said_at`). What waited in a socket
   or on a slow network is old when it comes, and an older word never overrules a newer one.
5. A word that comes late is no sign of a wrong clock where its instance was silent for as long, or where we had that very word
   before: it is said again when its answer was lost.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from looseends.wire import NS, SKEW_NS_MIN, Batch, skew_of
from looseends_daemon.core.clocks import said
from looseends_daemon.core.detect import BEHIND_LOOK_S_MAX, overdue_after
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.store import blind
from looseends_daemon.store.codes import WITH_PROCESS, interned

TOUCHABLE = ("dropped", "open", "loop_lag_ms")

SILENCE_NS = 30 * NS
"""Three heartbeats: longer than this between two words of an instance was a time in which it could not reach us."""
NO_NEWS = 0
"""For `told_at`: this word says nothing about its tasks, only that it lives."""
SOON_NS = NS
"""Nobody is overdue so soon after a word."""
LATE_NS = 10 * NS
"""Longer than one heartbeat: work that was due may have waited for a word of it."""


class OwnershipRefused(Exception):
    """This caller may not speak for that instance: another token, user or service does."""


def hear(
    conn: sqlite3.Connection,
    batch: Batch,
    actor: Actor,
    now: int,
    policy: Policy,
    *,
    proven: bool = False,
    heard: bool = True,
    delayed: bool = False,
) -> sqlite3.Row:
    """The row of the instance a batch comes from, made on first sight, as it was before this word but for its skew.

    `heard` False: its journal speaks, not itself. `delayed`: it may have waited for us to thaw, so that it is late says nothing
    about its clock. Raises OwnershipRefused.
    """
    told, skew = batch.instance or {}, skew_of(batch.sent_at, now)
    row: sqlite3.Row | None = conn.execute("SELECT * FROM instance WHERE id = ?", (told["id"],)).fetchone()
    if row is None:
        row = _make(conn, told, actor, now, 0 if delayed and skew > 0 else skew, proven)
    if row["started_at"] is None and told.get("started_at") is not None:
        conn.execute("UPDATE instance SET started_at = ? WHERE no = ?", (_started_at(told, row["skew"], now), row["no"]))
    if heard:
        _check_owner(conn, row, actor, proven)
        moved = skew - row["skew"]
        late = delayed or (moved > 0 and (_is_repeat(row, batch.sent_at, now) or _was_held_up(conn, row, moved, now, policy)))
        if abs(moved) > SKEW_NS_MIN and not (late and moved > 0):
            conn.execute("UPDATE instance SET skew = ?, travel = NULL WHERE no = ?", (skew, row["no"]))
            row = _row(conn, told["id"])
        newest = _heard(conn, row, now, batch.sent_at, first=not late, backlog=batch.backlog)
        if newest and (batch.backlog or row["backlog"]):
            note_backlog(conn, row["no"], batch.backlog, now)
    return row


def _was_held_up(conn: sqlite3.Connection, row: sqlite3.Row, moved: int, now: int, policy: Policy) -> bool:
    """Whether a word was late because it could not get here: its instance was overdue by then, and for as long.

    A clock that was set makes a word look late, too, but then there was no silence before it. One that is sent again, since its
    answer was lost, is a little older than the silence.
    """
    held_up = now - int(row["last_heard_at"]) + SKEW_NS_MIN
    return held_up > overdue_after(has_functions(conn, row["no"]), policy.heartbeat_every) and moved <= held_up


def _is_repeat(row: sqlite3.Row, sent_at: int | None, now: int) -> bool:
    """Whether this is the word we had last: said at the same nanosecond, as far as we knew its clock then."""
    return sent_at is not None and said(sent_at, int(row["skew"]), row["travel"], now) == row["said_at"]


def has_functions(conn: sqlite3.Connection, no: int) -> bool:
    """Whether an instance offers anything to run again, and so speaks each second."""
    return conn.execute("SELECT 1 FROM function WHERE instance = ? LIMIT 1", (no,)).fetchone() is not None


def touch_instance(
    conn: sqlite3.Connection,
    instance_id: str,
    actor: Actor,
    now: int,
    *,
    own: bool = True,
    told_at: int | None = None,
    **columns: Any,
) -> sqlite3.Row | None:
    """A heartbeat: note what it says (TOUCHABLE columns, backlog, last_seq). None: that id was never heard.

    `own` False: another process speaks for one that is gone. `told_at`: when it said so by its clock (ns); None: now. Raises
    OwnershipRefused.
    """
    row = conn.execute("SELECT * FROM instance WHERE id = ?", (instance_id,)).fetchone()
    if row is None:
        return None
    _check_owner(conn, row, actor)
    blind.note_dropped(conn, row, columns.get("dropped") or 0, now)
    kept = {name: value for name, value in columns.items() if name in TOUCHABLE}
    names = "".join(f"{name} = ?, " for name in kept)
    conn.execute(
        f"UPDATE instance SET {names} last_seq = max(last_seq, ?), lived_at = max(lived_at, ?) WHERE no = ?",
        (*kept.values(), columns.get("last_seq") or 0, now if own else 0, row["no"]),
    )
    newest = _heard(conn, row, now, told_at) if own else True
    if columns.get("backlog") is not None and newest:
        note_backlog(conn, row["no"], columns["backlog"], now)
        if columns["backlog"] == 0:
            blind.settle(conn, row["no"], now)
    return _row(conn, instance_id)


_BACKLOG = """
UPDATE instance SET backlog = :backlog,
    behind_since = CASE WHEN :backlog = 0 THEN NULL ELSE ifnull(behind_since, :now) END,
    lowest_at = CASE WHEN :backlog = 0 THEN NULL WHEN :backlog < ifnull(lowest, :backlog + 1) THEN :now ELSE lowest_at END,
    lowest = CASE WHEN :backlog = 0 THEN NULL ELSE min(:backlog, ifnull(lowest, :backlog)) END
WHERE no = :no
"""


def note_backlog(conn: sqlite3.Connection, no: int, backlog: int, now: int) -> None:
    """How many records it still has to send; and since when it is behind, and when that was last less than ever before."""
    before = conn.execute("SELECT backlog FROM instance WHERE no = ?", (no,)).fetchone()
    conn.execute(_BACKLOG, {"no": no, "backlog": backlog, "now": now})
    if before["backlog"] and not backlog:
        _look_at_waiting(conn, no, now)


def end_instance(
    conn: sqlite3.Connection,
    instance_id: str,
    *,
    state: str,
    reason: str,
    now: int,
    adopted: bool = False,
    void: Sequence[int] = (),
    dropped: int = 0,
) -> None:
    """The instance is `gone` or `unreachable`, `reason` in words; its open tasks are looked at again at once.

    `adopted`: all it ever wrote is here. `void`: journal records that will never come; they are no backlog. `dropped`: how many
    records it could not keep, by what it left; 0 where that is not known.
    """
    row = conn.execute(
        "SELECT no, adopted, backlog, dropped, last_heard_at FROM instance WHERE id = ?", (instance_id,)
    ).fetchone()
    if row is None:
        return
    if dropped > row["dropped"]:
        blind.note_dropped(conn, row, dropped, now)
        conn.execute("UPDATE instance SET dropped = ? WHERE no = ?", (dropped, row["no"]))
    whole = adopted or bool(row["adopted"])
    backlog = 0 if whole else max(0, row["backlog"] - len(void))
    conn.execute(
        "UPDATE instance SET state = ?, reason = ?, ended_at = ifnull(ended_at, ?), adopted = ?, backlog = ? WHERE no = ?",
        (state, reason, now, int(whole), backlog, row["no"]),
    )
    if state == "gone" and backlog == 0:
        blind.settle(conn, row["no"], now, sure=True, void=void)
    look_again(conn, row["no"], now)


def look_again(conn: sqlite3.Connection, no: int, now: int) -> None:
    """Have the detector look at every open task of an instance, and at loops that ended with it."""
    conn.execute("UPDATE task SET check_at = ? WHERE instance = ? AND state < 3", (now, no))
    conn.execute(f"UPDATE task SET check_at = ? WHERE instance = ? AND flags & {WITH_PROCESS}", (now, no))


def _look_at_waiting(conn: sqlite3.Connection, no: int, now: int) -> None:
    """It has told all it knows: what was due and waited for that is judged now (see detect.BEHIND_LOOK_S_MAX)."""
    soon = now + int(BEHIND_LOOK_S_MAX * NS)
    conn.execute("UPDATE task SET check_at = ? WHERE instance = ? AND state < 3 AND check_at <= ?", (now, no, soon))


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
            *(told.get(name) for name in ("release", "host", "pid", "python", "client")),
            _started_at(told, skew, now),
            *(interned(conn, "channel", actor.channel), int(proven), now, now, skew),
        ),
    )
    return _row(conn, told["id"])


def _started_at(told: Mapping[str, Any], skew: int, now: int) -> int | None:
    """When its process started, by our clock (ns); never after we heard of it."""
    return None if told.get("started_at") is None else max(0, min(told["started_at"] + skew, now))


def _check_owner(conn: sqlite3.Connection, row: sqlite3.Row, actor: Actor, proven: bool = False) -> None:
    channel = interned(conn, "channel", actor.channel)
    if row["channel"] == channel:
        return
    if not _may_take_over(conn, row, actor):
        raise OwnershipRefused("another token, user or way in already speaks for this instance id")
    conn.execute("UPDATE instance SET channel = ?, proven = max(proven, ?) WHERE no = ?", (channel, int(proven), row["no"]))


def _may_take_over(conn: sqlite3.Connection, row: sqlite3.Row, actor: Actor) -> bool:
    """Plain loopback owns nothing: a service that found the unix socket, or was given a token, later than its first word may
    go on speaking for itself there, and for nobody else from then on."""
    before = conn.execute("SELECT name FROM channel WHERE id = ?", (row["channel"],)).fetchone()[0]
    owning = actor.channel.startswith(("uds:", "token:"))
    return before == "loopback" and owning and actor.service in (None, row["service"])


def _heard(
    conn: sqlite3.Connection, row: sqlite3.Row, now: int, told_at: int | None, *, first: bool = False, backlog: int = 0
) -> bool:
    """Note a word; whether none that was said later came before it. `first`: it may tell how long words take at least.

    A batch with a backlog does not bring back one that is gone: another process may be sending what the dead one left.
    """
    travel, newest = row["travel"], True
    said_at = now
    if told_at is not None:
        took = now - told_at - int(row["skew"])
        travel = took if travel is None and first else travel if travel is None else min(took, travel)
        said_at = said(told_at, int(row["skew"]), travel, now)
        newest = said_at >= row["said_at"]
        _note_return(conn, row, said_at)
    conn.execute(
        "UPDATE instance SET last_heard_at = ?, said_at = max(said_at, ?), travel = ? WHERE no = ?",
        (now, said_at, travel, row["no"]),
    )
    if row["state"] != "gone" or not backlog:
        _lives(conn, row, now, said_at)
    return newest


def _note_return(conn: sqlite3.Connection, row: sqlite3.Row, said_at: int) -> None:
    """Note it where an instance that had been overdue, while we heard, speaks again: see core/detect.InstanceNow."""
    if not 0 < row["said_at"] < said_at - SOON_NS:
        return
    silent = said_at - max(row["said_at"], blind.heard_since(conn))
    if silent > overdue_after(has_functions(conn, row["no"]), Policy().heartbeat_every):
        conn.execute("UPDATE instance SET back_at = ? WHERE no = ?", (said_at, row["no"]))


def _lives(conn: sqlite3.Connection, row: sqlite3.Row, now: int, said_at: int) -> None:
    if now - row["last_heard_at"] > SILENCE_NS:
        # Who could not reach us has gathered records meanwhile: the time for sending them begins now.
        conn.execute("UPDATE instance SET behind_since = NULL, lowest = NULL, lowest_at = NULL WHERE no = ?", (row["no"],))
    if row["state"] == "alive":
        if now - row["last_heard_at"] > LATE_NS or row["said_at"] < blind.heard_since(conn) <= said_at:
            _look_at_waiting(conn, row["no"], now)
        return
    conn.execute("UPDATE instance SET state = 'alive', reason = NULL, ended_at = NULL, adopted = 0 WHERE no = ?", (row["no"],))
    look_again(conn, row["no"], now)
