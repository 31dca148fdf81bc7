"""Migrations: the change and the record of it in one transaction, so that an upgrade cannot half-happen.

`PRAGMA user_version` counts the migrations a file has seen; a file of a newer looseends is refused, never guessed at.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib import resources

from looseends.errors import LooseEndsError

APPLICATION_ID = 0x4C4F4F53  # "LOOS"


class StoreError(LooseEndsError):
    """The database cannot be used; the message names the file, the hint says what to do."""


def migrations() -> list[tuple[str, str]]:
    """(name, SQL) of every migration in order."""
    folder = resources.files("looseends_daemon.store").joinpath("migrations")
    found = sorted((entry.name, entry.read_text("utf-8")) for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(name.removesuffix(".sql"), text) for name, text in found]


def statements(script: str) -> Iterator[str]:
    """The single statements of a script. `executescript` would commit before it begins."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def migrate(conn: sqlite3.Connection, *, path: str = ":memory:", now: int = 0) -> int:
    """Bring a database up to date; returns how many migrations ran. Raises StoreError for a newer file."""
    known = migrations()
    version = int(conn.execute("PRAGMA user_version").fetchone()[0])
    if version > len(known):
        raise StoreError(
            f"{path} was written by a newer looseends (schema {version}, this one knows {len(known)})",
            hint="upgrade looseends, or restore a backup made before the upgrade",
        )
    for number, (name, script) in enumerate(known[version:], start=version + 1):
        _apply(conn, number, name, script, now)
    return len(known) - version


def _apply(conn: sqlite3.Connection, number: int, name: str, script: str, now: int) -> None:
    conn.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements(script):
            conn.execute(statement)
        conn.execute("CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY, applied_at INTEGER NOT NULL)")
        conn.execute("INSERT INTO migration (name, applied_at) VALUES (?, ?)", (name, now))
        conn.execute(f"PRAGMA user_version = {number}")
        conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    except BaseException:
        conn.execute("ROLLBACK")
        raise
    conn.execute("COMMIT")
