"""The one fact that the daemon adds: a loop ended with its process. Stored like any other, taken back when the process lives."""

from __future__ import annotations

import sqlite3

from looseends_daemon.core.detect import due_of
from looseends_daemon.core.facts import Cells
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import STATES
from looseends_daemon.core.view import View, end_with_process, take_back_end, view_of
from looseends_daemon.store.cells import InstanceIds, pack
from looseends_daemon.store.codes import WITH_PROCESS, code
from looseends_daemon.store.counters import loop_ended
from looseends_daemon.store.facts import place_of_row
from looseends_daemon.store.ledger import Moves


def rewrite(
    conn: sqlite3.Connection, row: sqlite3.Row, cells: Cells, ids: InstanceIds, moves: Moves, policy: Policy, ends_at: int | None
) -> tuple[sqlite3.Row, View]:
    """Add the daemon's own fact that this loop ended at `ends_at` (ns), or take it back (None); its row and view afterwards."""
    if ends_at is None:
        take_back_end(cells)
    else:
        end_with_process(cells, view_of(cells), ends_at)
        loop_ended(conn, row["environment"], row["type"])
    view = view_of(cells)
    flags = row["flags"] | WITH_PROCESS if view.with_process else row["flags"] & ~WITH_PROCESS
    moves.add(place_of_row(row), row["environment"], row["type"], -1)
    conn.execute(
        "UPDATE task SET state = ?, ended_at = ?, due_at = ?, flags = ?, facts = ? WHERE id = ?",
        (
            *(code(STATES, view.state), view.ended_at, due_of(view, policy), flags),
            *(pack(cells, ids, ids.home(row["type"], row["environment"])), row["id"]),
        ),
    )
    new: sqlite3.Row = conn.execute("SELECT * FROM task WHERE id = ?", (row["id"],)).fetchone()
    moves.add(place_of_row(new), new["environment"], new["type"])
    return new, view
