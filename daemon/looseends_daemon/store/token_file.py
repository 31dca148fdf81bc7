"""The operator token beside the database: made at the first start, 0600, read by the command line of the same user.

Rules: a file that others can read or that is a link is refused, not mended, since its secret may be known already; removing
the file is how an operator changes the token.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat

from looseends_daemon.store.access import TOKEN_BYTES_MAX, insert_token, matches, new_secret, revoke_token, split_token
from looseends_daemon.store.schema import StoreError

FILE_NAME = "operator"
"""Name, in the audit log, of who uses the token file."""


def token_path(database_path: str) -> str:
    """Where the operator token of a database lies."""
    return f"{database_path}.token"


def ensure_operator_token(conn: sqlite3.Connection, path: str, *, now: int) -> str:
    """The operator token beside the database, made (0600) at the first start; returns its id.

    A file that was removed makes a new token, and the old one ends. Raises StoreError when the file is not only ours.
    """
    text = _read_token_file(path) or _make_token_file(path)
    parts = split_token(text)
    if parts is None:
        raise StoreError(f"{path} does not hold a token", hint="remove it; the next start makes a new one")
    token_id, secret = parts
    row = conn.execute("SELECT * FROM token WHERE id = ?", (token_id,)).fetchone()
    if row is None:
        insert_token(conn, token_id, "operator", None, FILE_NAME, "file", secret, None, now)
    elif row["revoked_at"] is not None or matches(row, secret) is None:
        raise StoreError(f"the token in {path} no longer holds", hint="remove it; the next start makes a new one")
    _end_others(conn, token_id, now)
    return token_id


def _end_others(conn: sqlite3.Connection, token_id: str, now: int) -> None:
    others = "SELECT id FROM token WHERE kind = 'file' AND id != ? AND revoked_at IS NULL"
    for (other,) in conn.execute(others, (token_id,)).fetchall():
        revoke_token(conn, other, now=now)


def _read_token_file(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}", hint="it must be a plain file of this user") from None
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode):
        os.close(fd)
        raise StoreError(f"{path} cannot be read: it is no regular file", hint="remove it; the next start makes a new one")
    with os.fdopen(fd, "rb") as file:
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise StoreError(f"{path} is open to others", hint=f"chown it to this user and chmod 600 {path}")
        text = file.read(TOKEN_BYTES_MAX + 1)
    # A crash between making and writing leaves an empty file, which nobody has ever been given.
    if not text.strip():
        os.unlink(path)
        return None
    return text.decode("ascii", "replace").strip()


def _make_token_file(path: str) -> str:
    text = f"op_{secrets.token_hex(5)}.{new_secret()}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be made: {error.strerror}", hint="make its folder writable, or move --db") from None
    with os.fdopen(fd, "wb") as file:
        file.write(f"{text}\n".encode())
        file.flush()
        os.fsync(fd)
    return text
