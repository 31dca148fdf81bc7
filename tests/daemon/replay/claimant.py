"""A claimant as a process of its own: takes every order it can get on a real database file, and writes each one down.

usage: claimant.py DATABASE INSTANCE LOG MODE      MODE: claim | check_then_claim | claim_one_and_wait
`check_then_claim` is the planted fault: it looks first and marks afterwards, as if nobody else could be there.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time

from looseends_daemon.store import orders
from looseends_daemon.store.connection import connect
from looseends_daemon.store.questions import ask

NOW = 1_780_000_000_000_000_000


def claim(conn: sqlite3.Connection, instance: str) -> bytes | None:
    """The claim of the daemon, without the transaction that the daemon puts around it: its one UPDATE has to hold alone."""
    for row in ask(conn, orders.takeable(instance, NOW))[:4]:
        given = orders.claim(conn, row["order_id"], instance, NOW)
        if given.order is not None:
            return bytes(row["order_id"])
    return None


def check_then_claim(conn: sqlite3.Connection, instance: str) -> bytes | None:
    """The fault: between the look and the mark somebody else may have looked too."""
    waiting = ask(conn, orders.takeable(instance, NOW))
    if not waiting:
        return None
    order = bytes(waiting[0]["order_id"])
    conn.execute("UPDATE replay_order SET state = 'claimed', fence = fence + 1 WHERE id = ?", (order,))
    return order


def main(path: str, instance: str, log: str, mode: str) -> None:
    """Take orders until none is left for half a second."""
    conn = connect(path)
    conn.execute("PRAGMA synchronous = OFF")  # what is tested is who gets it, not whether it survives a power cut
    conn.execute("PRAGMA busy_timeout = 20000")
    take = check_then_claim if mode == "check_then_claim" else claim
    print("ready", flush=True)
    sys.stdin.readline()
    idle_since = time.monotonic()
    with open(log, "a", buffering=1) as file:
        while time.monotonic() - idle_since < 0.5:
            order = take(conn, instance)
            if order is None:
                time.sleep(0.005)
                continue
            file.write(order.hex() + "\n")
            os.fsync(file.fileno())
            idle_since = time.monotonic()
            if mode == "claim_one_and_wait":
                print("claimed", flush=True)
                sys.stdin.readline()
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
