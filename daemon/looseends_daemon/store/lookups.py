"""What the tasks of one batch ask of other tables, each question put once: numbers of words, and which instances are gone."""

from __future__ import annotations

import sqlite3

from looseends_daemon.core.view import View
from looseends_daemon.store.codes import interned
from looseends_daemon.store.packed import InstanceIds


class Lookups:
    """The answers of one batch. They hold for its transaction only."""

    def __init__(self, conn: sqlite3.Connection, ids: InstanceIds) -> None:
        self._conn, self._ids = conn, ids
        self._types: dict[tuple[str, str], int] = {}
        self._environments: dict[str, int] = {}
        self._gone: dict[str, bool] = {}

    def type(self, view: View) -> int:
        """The number of its type, made on first sight."""
        key = (view.service, view.name)
        if key not in self._types:
            asked = "SELECT id FROM type WHERE service = ? AND name = ?"
            found = self._conn.execute(asked, key).fetchone()
            if found is None:
                found = self._conn.execute("INSERT INTO type (service, name) VALUES (?, ?) RETURNING id", key).fetchone()
            self._types[key] = int(found[0])
            self._ids.learn_type(found[0], *key)
        return self._types[key]

    def environment(self, view: View) -> int:
        """The number of its environment, made on first sight."""
        if view.environment not in self._environments:
            no = interned(self._conn, "environment", view.environment)
            self._environments[view.environment] = no
            self._ids.learn_environment(no, view.environment)
        return self._environments[view.environment]

    def is_gone(self, view: View) -> bool:
        """Whether an open task belongs to an instance that is not alive.

        Such a task has a look coming, or waits for the rest of a journal; news from elsewhere must not put it off.
        """
        if view.instance is None or view.ended:
            return False
        if view.instance not in self._gone:
            row = self._conn.execute("SELECT state FROM instance WHERE id = ?", (view.instance,)).fetchone()
            self._gone[view.instance] = row is not None and row["state"] != "alive"
        return self._gone[view.instance]
