"""A log that was cut by damage is told from one that ends where it ends: after a kill, a torn commit, or a new round."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from looseends_daemon.store.log_end import FRAME_BYTES, HEADER_BYTES, commits_cut_off, frames_in

PAGE = 4_096
FRAME = FRAME_BYTES + PAGE
COMMITS = 20


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What a kill leaves after 20 commits of one page each, the first of which made the table."""
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("CREATE TABLE t (a)")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for number in range(COMMITS):
            conn.execute("INSERT INTO t VALUES (?)", (number,))
        copy = tmp_path / "killed.db"
        copy.write_bytes(path.read_bytes())
        Path(f"{copy}-wal").write_bytes(Path(f"{path}-wal").read_bytes())
    return Path(f"{copy}-wal")


def seen(log: Path) -> tuple[int, int]:
    """(rows that SQLite finds, commits that we say are cut off)."""
    database = str(log).removesuffix("-wal")
    kept = log.read_bytes()
    conn = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    with contextlib.ExitStack() as afterwards, contextlib.closing(conn):
        rows = conn.execute("SELECT count(*) FROM t").fetchone()[0]
        frames = frames_in(afterwards.enter_context(open(f"{database}-shm", "rb")))
    assert frames is not None and log.read_bytes() == kept
    return rows, commits_cut_off(str(log), frames, PAGE)


def whole(raw: bytearray) -> None:
    """Nothing happened to it."""


def torn(raw: bytearray) -> None:
    """The last commit was under way."""
    raw[-100:] = b"\0" * 100


def cut_short(raw: bytearray) -> None:
    """The last commit was under way, and its frame is not even whole."""
    del raw[-100:]


def damaged(raw: bytearray) -> None:
    """The sixth frame is damaged: it and 14 more commits are not seen, and its own salts are still there."""
    at = HEADER_BYTES + 5 * FRAME + FRAME_BYTES + 1_000
    raw[at : at + 8] = b"\xff" * 8


def damaged_header(raw: bytearray) -> None:
    """Nothing of it is seen."""
    raw[16:24] = b"\xff" * 8


def new_round(raw: bytearray) -> None:
    """All of it was copied into the file, it was begun anew, and the first commit of the new round was under way."""
    other = bytearray(raw)
    other[16:20] = (int.from_bytes(raw[16:20], "big") + 1).to_bytes(4, "big")
    words = [int.from_bytes(other[n : n + 4], "little" if not other[3] & 1 else "big") for n in range(0, 24, 4)]
    one = two = 0
    for n in range(0, 6, 2):
        one = (one + words[n] + two) & 0xFFFFFFFF
        two = (two + words[n + 1] + one) & 0xFFFFFFFF
    other[24:32] = one.to_bytes(4, "big") + two.to_bytes(4, "big")
    raw[:HEADER_BYTES] = other[:HEADER_BYTES]


@pytest.mark.parametrize(
    ("change", "rows", "commits"),
    [
        (whole, COMMITS, 0),
        (torn, COMMITS - 1, 0),
        (cut_short, COMMITS - 1, 0),
        (damaged, 5, COMMITS - 5),
        (damaged_header, 0, COMMITS),
        (new_round, 0, 0),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_only_what_was_answered_and_is_no_longer_seen_counts_as_cut_off(
    log: Path, change: Callable[[bytearray], None], rows: int, commits: int
) -> None:
    raw = bytearray(log.read_bytes())
    assert len(raw) == HEADER_BYTES + COMMITS * FRAME
    change(raw)
    log.write_bytes(raw)
    assert seen(log) == (rows, commits)
