"""The limit of ingest: SQLite alone, writing the very rows that the daemon writes for the same events.

    python bench/raw.py FOLDER --batch 100 --group 800 --events 20000     a line of JSON for each line of its standard input

Each round folds new batches with the daemon's own code into a scratch database, noting every statement that writes and its rows.
Then, timed, another database of the same schema gets these rows and nothing else: in commits of `group` events, like statements
of a commit gathered in one executemany, WAL and synchronous=FULL as the daemon has them. No HTTP, no decoding, no question asked.
A line of input is the number of events in a commit.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from load import bodies

from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Actor
from looseends_daemon.http.ingest import read_batch
from looseends_daemon.store.facts import apply_batch
from looseends_daemon.store.files import open_file

SERVICE = Actor(name="uid 0", role="ingest", channel="uds:0", uid=0)
WAL_EVERY_S = 0.5
Statement = tuple[str, list[Any]]


class Recorder:
    """A connection that notes what is written through it."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self.noted: list[Statement] = []

    def execute(self, sql: str, rows: Any = ()) -> sqlite3.Cursor:
        """As the connection's own."""
        if not sql.lstrip().startswith("SELECT"):
            self.noted.append((sql, [rows]))
        return self._conn.execute(sql, rows)

    def executemany(self, sql: str, rows: Iterable[Any]) -> sqlite3.Cursor:
        """As the connection's own."""
        kept = list(rows)
        self.noted.append((sql, kept))
        return self._conn.executemany(sql, kept)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)


def open_new(path: Path) -> sqlite3.Connection:
    """A database of the daemon's schema, as its writer holds it."""
    conn, _, _ = open_file(str(path))
    conn.execute("PRAGMA wal_autocheckpoint = 0")
    return conn


def record(scratch: sqlite3.Connection, made: list[bytes]) -> list[tuple[int, list[Statement]]]:
    """For each body: how many events it held, and what was written for it."""
    found = []
    now = time.time_ns()
    for body in made:
        recorder: Any = Recorder(scratch)
        batch = read_batch(body, "application/json", now)
        scratch.execute("BEGIN")
        done = apply_batch(recorder, batch, actor=SERVICE, now=now, policy=Policy(), proven=True)
        scratch.execute("COMMIT")
        if done.rejected or done.duplicates:
            raise SystemExit(f"a batch was not taken whole: {done}")
        found.append((len(batch.events), recorder.noted))
    return found


def grouped(written: list[tuple[int, list[Statement]]], group: int) -> list[list[Statement]]:
    """The same statements in commits of about `group` events; like ones of a commit together."""
    commits: list[dict[str, list[Any]]] = [{}]
    count = 0
    for events, statements in written:
        if count >= group:
            commits.append({})
            count = 0
        count += events
        for sql, rows in statements:
            commits[-1].setdefault(sql, []).extend(rows)
    return [list(commit.items()) for commit in commits]


def replay(conn: sqlite3.Connection, commits: list[list[Statement]]) -> tuple[float, float]:
    """Write it all: wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.thread_time()
    for commit in commits:
        conn.execute("BEGIN IMMEDIATE")
        for sql, rows in commit:
            conn.executemany(sql, rows)
        conn.execute("COMMIT")
    return time.perf_counter() - wall, time.thread_time() - cpu


def checkpointing(path: Path) -> None:
    """The log is copied beside the writer, as in the daemon."""

    def run() -> None:
        conn = sqlite3.connect(path)
        while True:
            time.sleep(WAL_EVERY_S)
            conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    threading.Thread(target=run, daemon=True).start()


def main() -> int:
    """A round for each line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--events", type=int, default=20_000)
    given = parser.parse_args()
    scratch, limit = open_new(given.folder / "scratch.db"), open_new(given.folder / "limit.db")
    scratch.execute("PRAGMA synchronous = OFF")
    checkpointing(given.folder / "limit.db")
    print("ready", flush=True)
    for round_, line in enumerate(sys.stdin, 1):
        written = record(scratch, bodies(given.events // given.batch, given.batch, first=round_ * 10_000_000))
        commits = grouped(written, int(line))
        wall, cpu = replay(limit, commits)
        events = sum(count for count, _ in written)
        print(json.dumps({"events": events, "seconds": wall, "cpu": cpu, "commits": len(commits)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
