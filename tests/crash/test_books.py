"""The books that the kills are judged by: what they look for is planted in good databases, and found."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import harness
from crash import books
from crash.daemons import Daemon
from crash.load import Plan
from crash.storm import Storm

ANSWERS = 60
JUDGE_AGAIN = "INSERT INTO judgement SELECT task, n + 1, at, what, verdict, attempt, reason, by FROM judgement"
ONE = "id = (SELECT min(id) FROM task WHERE state = {})"

PLANTED = {
    "a task is gone": (f"DELETE FROM task WHERE {ONE.format(3)}", "missing: "),
    "an end is gone": (f"UPDATE task SET state = 1, ended_at = NULL WHERE {ONE.format(3)}", "missing: "),
    "an end is another's": (f"UPDATE task SET ended_at = ended_at + 1 WHERE {ONE.format(3)}", "missing: "),
    "a running task ended": (f"UPDATE task SET state = 3 WHERE {ONE.format(1)}", "the tasks are "),
    "a cell counts one too many": ("UPDATE ledger SET failed = failed + 1", "ledger cell "),
    "a cell is gone": ("DELETE FROM ledger WHERE minute = (SELECT min(minute) FROM ledger)", "ledger cell "),
    "a failure is no loose end": (f"UPDATE task SET loose = 0 WHERE {ONE.format(4)}", "failed task "),
    "a failure is judged twice": (JUDGE_AGAIN, "failed task "),
}
"""What is done to the database, and how the words begin that must be said of it."""


def filled(daemon: Daemon, seed: int) -> list[tuple[Plan, int]]:
    """Some load on a daemon that nobody kills; what was acknowledged. It is stopped at the end."""
    storm = Storm(daemon, seed)
    storm.begin()
    daemon.wait_until(lambda: storm.answers() >= ANSWERS, "some answers")
    storm.end()
    assert daemon.stop() == 0
    assert not storm.figures.wrong, books.some(storm.figures.wrong)
    return [(writer.plan, len(writer.answered)) for writer in storm.writers]


def found(path: Path, plans: list[tuple[Plan, int]], sql: str = "") -> list[str]:
    """What the books say of this file after `sql`."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.row_factory = sqlite3.Row
        conn.execute(sql)
        return list(books.everything(conn, plans))


def scratch(path: Path) -> None:
    """Zeros over the end of an index's first page, where its newest entries are."""
    with contextlib.closing(sqlite3.connect(path)) as conn:
        size = conn.execute("PRAGMA page_size").fetchone()[0]
        page = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'task_newest'").fetchone()[0]
    with path.open("r+b") as file:
        file.seek(page * size - 64)
        file.write(bytes(64))


def test_the_books_find_what_is_planted_in_them(
    processes: harness.Processes, state_dir: Path, port: int, seed: int, tmp_path: Path
) -> None:
    daemon = Daemon(processes, state_dir / "looseends", port)
    plans, copy = filled(daemon, seed), tmp_path / "copy.db"
    for fault, (sql, words) in PLANTED.items():
        shutil.copyfile(daemon.database, copy)
        assert any(said.startswith(words) for said in found(copy, plans, sql)), fault
    shutil.copyfile(daemon.database, copy)
    assert not found(copy, plans), "nothing is planted here"
    scratch(copy)
    assert any("task_newest" in said or "malformed" in said for said in found(copy, plans)), "bytes were written over"
