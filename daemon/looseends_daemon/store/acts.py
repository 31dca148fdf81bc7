"""The first answer to an act, by the door it came through and the sender's key, so that a repeated request acts once.

Rules: the key is taken in a commit of its own before the act runs, and the answer follows in another; a key without an answer
is an act that still runs, or one that a stopped daemon cut off. Everything is forgotten after ANSWER_S_MAX.
"""

from __future__ import annotations

import hmac
import sqlite3

from looseends.wire import NS
from looseends_daemon.core.resources import Value

ANSWER_S_MAX = 86_400


class Answer(Value, frozen=True):
    """The first answer to an act, as it is given again. `headers` are those that belong to the answer itself."""

    status: int
    headers: dict[str, str]
    body: bytes


class Seen(Value, frozen=True):
    """What is known about an idempotency key: `answer` None means that the first act still runs, or was cut off."""

    same_body: bool
    at: int
    answer: Answer | None


def begin_act(conn: sqlite3.Connection, door: str, key: str, body_hash: bytes, *, now: int) -> Seen | None:
    """Take the key for this act (None), or say what is already known about it. Older than ANSWER_S_MAX is forgotten."""
    conn.execute("DELETE FROM idempotency WHERE at <= ?", (now - ANSWER_S_MAX * NS,))
    row = conn.execute("SELECT * FROM idempotency WHERE door = ? AND key = ?", (door, key)).fetchone()
    if row is None:
        conn.execute("INSERT INTO idempotency (door, key, body_hash, at) VALUES (?, ?, ?, ?)", (door, key, body_hash, now))
        return None
    answer = None
    if row["status"] is not None:
        headers = dict(line.split(": ", 1) for line in row["headers"].splitlines())
        answer = Answer(status=row["status"], headers=headers, body=bytes(row["body"]))
    return Seen(same_body=hmac.compare_digest(bytes(row["body_hash"]), body_hash), at=row["at"], answer=answer)


def finish_act(conn: sqlite3.Connection, door: str, key: str, answer: Answer) -> None:
    """Remember the answer. Header values hold no line breaks: the server refuses to send such."""
    headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
    conn.execute(
        "UPDATE idempotency SET status = ?, headers = ?, body = ? WHERE door = ? AND key = ?",
        (answer.status, headers, answer.body, door, key),
    )


def drop_act(conn: sqlite3.Connection, door: str, key: str) -> None:
    """Forget a key whose act certainly did nothing, so that it can be tried again."""
    conn.execute("DELETE FROM idempotency WHERE door = ? AND key = ? AND status IS NULL", (door, key))
