"""Words as small integers and ids as 16 bytes: what the narrow row keeps instead of text."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from uuid import UUID

from looseends_daemon.core.resources import FLAGS

JUDGED = 1 << len(FLAGS)
"""Bit of task.flags: this task has rows in `judgement`."""
ORDER = JUDGED << 1
"""Bit of task.flags: this task's id is that of an order, so its end may settle another task."""
REPLAYED = JUDGED << 2
"""Bit of task.flags: orders were made for this task, so what it does from now on may be done twice."""
EXPECTED = JUDGED << 3
"""Bit of task.flags: this is an expectation that was missed. It is counted while that verdict stands, and at no other time."""

WITH_PROCESS = JUDGED << 4
"""Bit of task.flags: this loop ended with its process, as far as we know. If that lives, so does the loop."""
EXPORTED = JUDGED << 5
"""Bit of task.flags: its attempt that stands was handed to the export, as ended or as lost."""
ID_BYTES = 16
assert WITH_PROCESS == 1024, "the index task_loop says so"


def blob(task_id: str) -> bytes:
    """A task's id as the 16 bytes the database keeps. Raises ValueError when the text is no UUID."""
    found = bytes.fromhex(task_id.replace("-", ""))  # a third of the time that the class UUID takes; every event comes by here
    if len(found) != ID_BYTES:
        raise ValueError(f"no UUID: {task_id[:100]!r}")
    return found


def text(task_id: bytes) -> str:
    """The 16 bytes as the id everybody else sees."""
    return str(UUID(bytes=bytes(task_id)))


def code(words: Sequence[str], value: str | None) -> int | None:
    """The place of a word in its tuple (STATES, VERDICTS, SETTLEMENTS); None stays None."""
    return None if value is None else words.index(value)


def word(words: Sequence[str], value: int | None) -> str | None:
    """The word at a place; None stays None."""
    return None if value is None else words[value]


def flag_words(bits: int) -> list[str]:
    """The flags that are set, in the order of FLAGS."""
    return [name for n, name in enumerate(FLAGS) if bits >> n & 1]


def interned(conn: sqlite3.Connection, table: str, value: str) -> int:
    """The id of a word in `environment` or `channel`, made on first sight."""
    if table not in ("environment", "channel"):
        raise ValueError(f"no such table of words: {table}")
    row = conn.execute(f"SELECT id FROM {table} WHERE name = ?", (value,)).fetchone()
    if row is None:
        row = conn.execute(f"INSERT INTO {table} (name) VALUES (?) RETURNING id", (value,)).fetchone()
    return int(row[0])
