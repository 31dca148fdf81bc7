"""A claimant that is killed or stopped at any moment: takes orders on a real database file, does them, and tells of them.

usage: doomed_claimant.py DATABASE INSTANCE LOG MODE SECONDS SHARE CALM
MODE: claim | check_then_claim; SECONDS of work for each. Once it has done SHARE orders it stays in the middle of the next one,
until the file CALM is there: then nothing takes any time.
`check_then_claim` is the planted fault: it looks first and marks afterwards, as if nobody else could be there.
The log is the receipt: one line per execution, on disk before anybody is told.
"""

from __future__ import annotations

import math
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from looseends.wire import check_batch
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.store import codes, facts, orders
from looseends_daemon.store.connection import connect
from looseends_daemon.store.questions import ask

SERVICE = Actor(name="uid 0", role="ingest", channel="uds:0", uid=0)
NOW = 1_780_000_000_000_000_000


def claim(conn: sqlite3.Connection, instance: str) -> bytes | None:
    """The daemon's claim: one transaction, committed before anything runs."""
    waiting = conn.execute("SELECT id FROM replay_order WHERE state = 'waiting' LIMIT 8").fetchall()
    for row in waiting:
        conn.execute("BEGIN IMMEDIATE")
        given = orders.claim(conn, row["id"], instance, NOW)
        conn.execute("COMMIT")
        if given.order is not None:
            return bytes(row["id"])
    return None


def check_then_claim(conn: sqlite3.Connection, instance: str) -> bytes | None:
    """The fault: between the look and the mark somebody else may have looked too."""
    waiting = ask(conn, orders.takeable(instance, NOW))
    if not waiting:
        return None
    order = bytes(waiting[0]["order_id"])
    taker = "(SELECT no FROM instance WHERE id = ?)"
    conn.execute(f"UPDATE replay_order SET state = 'claimed', fence = 1, instance = {taker} WHERE id = ?", (instance, order))
    return order


def tell(conn: sqlite3.Connection, instance: str, order: bytes) -> None:
    """The facts of the new task, folded as the daemon folds them."""
    told: dict[str, Any] = {"task": codes.text(order), "name": "f", "at": NOW}
    events = [{"type": "started", **told}, {"type": "finished", **told}]
    batch = check_batch({"instance": {"id": instance, "service": "shop"}, "events": events}, NOW)
    conn.execute("BEGIN IMMEDIATE")
    facts.apply_batch(conn, batch, actor=SERVICE, now=NOW, policy=Policy(), proven=True)
    conn.execute("COMMIT")


def work(seconds: float, calm: Path) -> None:
    """Whoever is killed or stopped in here took an order and has not done it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not calm.exists():
        time.sleep(0.1)  # hundreds of ghosts wait here


def is_over(conn: sqlite3.Connection, instance: str, calm: Path) -> bool:
    """Whether there may be nothing left for this one: until then it was only slow."""
    return calm.exists() or conn.execute("SELECT state FROM instance WHERE id = ?", (instance,)).fetchone()["state"] != "alive"


def main(path: str, instance: str, log: str, mode: str, work_s: str, share: str, calm: str) -> None:
    """Take orders until the storm is over, or one is a ghost, and nothing could be taken for half a second."""
    conn = connect(path)
    conn.execute("PRAGMA synchronous = OFF")  # what is tested is who gets it, not whether it survives a power cut
    conn.execute("PRAGMA busy_timeout = 60000")
    take = check_then_claim if mode == "check_then_claim" else claim
    print("ready", flush=True)
    sys.stdin.readline()
    idle_since = time.monotonic()
    done = 0
    receipts = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    while time.monotonic() - idle_since < 0.5 or not is_over(conn, instance, Path(calm)):
        order = take(conn, instance)
        if order is None:
            time.sleep(0.005)
            continue
        work(float(work_s) if done < int(share) else math.inf, Path(calm))
        os.write(receipts, order.hex().encode() + b"\n")
        tell(conn, instance, order)
        done += 1
        idle_since = time.monotonic()
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
