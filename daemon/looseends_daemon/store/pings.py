"""Pings folded like any event, and the starts without a `rid` that an end without one may belong to.

Rules: what a ping says and which start it ends are one transaction. A start that was never ended stays to be found (its task is
stuck at its deadline); at most RUNS_MAX such starts of one slug are remembered, the newest.
"""

from __future__ import annotations

import sqlite3

from looseends.wire import check_batch
from looseends_daemon.core.payloads import within
from looseends_daemon.core.pings import SERVICE, Ping, event_of, task_of
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.store.codes import blob, interned, text
from looseends_daemon.store.facts import Applied, apply_batch

RUNS_MAX = 100


def apply_ping(
    conn: sqlite3.Connection, ping: Ping, fresh: str, *, actor: Actor, now: int, policy: Policy, payload_bytes_max: int
) -> Applied | None:
    """Fold one ping. `fresh`: the id of a task that begins with it. None: it was a log line of nothing that runs."""
    service = actor.service or SERVICE
    channel = interned(conn, "channel", actor.channel)
    task = task_of(ping) if ping.rid else _run(conn, ping, fresh, service, channel, now)
    if task is None:
        return None
    batch = within(check_batch([event_of(ping, task, service, policy)], now), payload_bytes_max)
    return apply_batch(conn, batch, actor=actor, now=now, policy=policy)


def _run(conn: sqlite3.Connection, ping: Ping, fresh: str, service: str, channel: int, now: int) -> str | None:
    """The task that a ping without `rid` is about."""
    place = (channel, service, ping.slug)
    if ping.kind == "start":
        conn.execute("INSERT INTO ping_run (channel, service, slug, at, task) VALUES (?, ?, ?, ?, ?)", (*place, now, blob(fresh)))
        conn.execute(_KEEP_NEWEST, (*place, *place, RUNS_MAX))
        return fresh
    row = conn.execute(_NEWEST, place).fetchone()
    if row is None:
        return None if ping.kind == "log" else fresh
    if ping.kind != "log":
        conn.execute("DELETE FROM ping_run WHERE task = ?", (row["task"],))
    return text(row["task"])


_NEWEST = "SELECT task FROM ping_run WHERE channel = ? AND service = ? AND slug = ? ORDER BY at DESC, task DESC LIMIT 1"
_KEEP_NEWEST = """
    DELETE FROM ping_run WHERE channel = ? AND service = ? AND slug = ? AND task NOT IN (
        SELECT task FROM ping_run WHERE channel = ? AND service = ? AND slug = ? ORDER BY at DESC, task DESC LIMIT ?)"""
