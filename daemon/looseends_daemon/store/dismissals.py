"""A person decides that nothing is to be done about a loose end: judgement, ledger, incident and audit in one transaction.

Rules: only an open loose end can be dismissed, and only with a note, which becomes the judgement's reason. A dismissal stands:
what is told of the task later is kept and counted, and makes it no loose end again. The facts stay as they are.
"""

from __future__ import annotations

import sqlite3

from looseends.wire import NOTE_CHARS_MAX
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.judgements import Judgement, LooseChange, standing_of
from looseends_daemon.core.resources import SETTLEMENTS, STATES, VERDICTS, Actor, CommandRefused, Task
from looseends_daemon.store import shown
from looseends_daemon.store.access import audit
from looseends_daemon.store.codes import JUDGED, blob, code, text, word
from looseends_daemon.store.facts import place_of_row
from looseends_daemon.store.incidents import absorb
from looseends_daemon.store.judgements import append, judgements_of
from looseends_daemon.store.ledger import Moves
from looseends_daemon.store.questions import ask

DISMISSED = "dismissed"


def dismiss(
    conn: sqlite3.Connection, task_id: str, actor: Actor, now: int, *, note: str, rules: AlertRules, base_url: str = ""
) -> Task:
    """Settle one open loose end as dismissed; returns the task as it stands then. `note`: 1 to NOTE_CHARS_MAX characters.

    Raises CommandRefused: 404 no such task, 409 it is no open loose end, 422 the note.
    """
    words = _checked(note)
    row = _loose(conn, task_id)
    change = _change(conn, row, now, words)
    _settle(conn, row)
    said = Judgement(at=now, what=DISMISSED, reason=words, verdict=DISMISSED, attempt=row["attempt"], by=actor.name)
    append(conn, row["id"], [said])
    absorb(conn, now, [change], rules)
    audit(conn, now, actor.name, "dismiss_task", text(row["id"]), words)
    after = _row(conn, row["id"])
    return ask(conn, shown.full(after, ask(conn, shown.neighbours([after])), base_url))


def _checked(note: str) -> str:
    words = note.strip()
    if not words:
        raise CommandRefused(422, "A note is needed", ["say in a note why nothing is to be done: it is kept with the decision"])
    if len(words) > NOTE_CHARS_MAX:
        raise CommandRefused(422, "Note too long", [f"a note is at most {NOTE_CHARS_MAX} characters"])
    return words


def _loose(conn: sqlite3.Connection, task_id: str) -> sqlite3.Row:
    try:
        row = _row(conn, blob(task_id))
    except ValueError:
        raise CommandRefused(404, "No such task", ["the id of a task is a UUID"]) from None
    if row is None:
        raise CommandRefused(404, "No such task", [f"there is no task {task_id}"])
    if not row["loose"]:
        raise CommandRefused(409, "Nothing to dismiss", [_why_not(row)])
    return row


def _row(conn: sqlite3.Connection, task: bytes) -> sqlite3.Row:
    found: sqlite3.Row = conn.execute("SELECT * FROM task WHERE id = ?", (task,)).fetchone()
    return found


def _why_not(row: sqlite3.Row) -> str:
    settled, verdict = word(SETTLEMENTS, row["settled"]), word(VERDICTS, row["verdict"])
    if settled is not None:
        return f"it is settled already: {settled.replace('_', ' ')}. The first settlement stands"
    if verdict is not None:
        return f"it is {verdict.replace('_', ' ')}, but no loose end of its own: dismiss the task that it replays"
    return f"it is no loose end: its state is {STATES[row['state']]}, and nobody has to look at it"


def _settle(conn: sqlite3.Connection, row: sqlite3.Row) -> None:
    """The row, and its place in the ledger moved by the difference."""
    moves = Moves()
    moves.add(place_of_row(row), row["environment"], row["type"], -1)
    conn.execute(
        "UPDATE task SET loose = 0, settled = ?, flags = flags | ? WHERE id = ?",
        (code(SETTLEMENTS, DISMISSED), JUDGED, row["id"]),
    )
    moves.add(place_of_row(_row(conn, row["id"])), row["environment"], row["type"])
    moves.write(conn)


_PLACE = """
    SELECT ty.service, ty.name, e.name AS environment, i.id AS instance
    FROM task t JOIN type ty ON ty.id = t.type JOIN environment e ON e.id = t.environment
        LEFT JOIN instance i ON i.no = t.instance
    WHERE t.id = ?"""


def _change(conn: sqlite3.Connection, row: sqlite3.Row, now: int, words: str) -> LooseChange:
    place = conn.execute(_PLACE, (row["id"],)).fetchone()
    standing = standing_of(judgements_of(conn, row["id"]))
    return LooseChange(
        task=text(row["id"]),
        at=now,
        what="settled",
        environment=place["environment"],
        service=place["service"],
        name=place["name"],
        instance=place["instance"],
        problem=standing.problem or "failed",
        reason=words,
        settled=DISMISSED,
    )
