"""A person decides that nothing is to be done about loose ends: judgements, ledger, incidents and audit together, and back again.

Rules:

1. Only an open loose end can be dismissed, and only with a note, which becomes the judgement's reason. Facts stay as they are.
2. What shall go is frozen as a list first, with a digest; the act names that digest, so nobody dismisses what nobody has seen.
3. The decision is one row in one transaction. It is carried out STEP_TASKS_MAX tasks a commit, so that no writer waits for it,
   and goes on after a stop of the daemon where it was. A small one is done in the transaction of the decision.
4. A dismissal stands: what is told of the task later makes it no loose end again. Only taking it back does, for UNDO_S: then it
   is as if it had not been, and whatever was told meanwhile counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from looseends.wire import NS
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.judgements import DISMISSED, RESTORED, Judgement, LooseChange, standing_of
from looseends_daemon.core.marks import UNDO_S, Dismissal, checked_text, digest_of
from looseends_daemon.core.resources import SETTLEMENTS, STATES, VERDICTS, Actor, CommandRefused, Page, Task
from looseends_daemon.core.words import span
from looseends_daemon.store import shown
from looseends_daemon.store.access import audit
from looseends_daemon.store.codes import ID_BYTES, JUDGED, blob, code, text, word
from looseends_daemon.store.facts import place_of_row
from looseends_daemon.store.incidents import absorb, recount
from looseends_daemon.store.judgements import append, judgements_of
from looseends_daemon.store.ledger import Moves
from looseends_daemon.store.questions import Question, ask, mark_of, page_mark
from looseends_daemon.store.samples import new_id

STEP_TASKS_MAX = 200
"""Tasks in one commit: about 12 ms of the writer, 25 ms when they are taken back."""
FORGET_MAX = 2_000
ITSELF = "looseends"
"""Who dismisses what nobody did."""
NOTE_WHY = "say in a note why nothing is to be done: it is kept with the decision"


def dismiss(
    conn: sqlite3.Connection, task_id: str, actor: Actor, now: int, *, note: str, rules: AlertRules, base_url: str = ""
) -> Task:
    """Settle one open loose end as dismissed; returns the task as it stands then. `note`: 1 to 500 characters.

    Raises CommandRefused: 404 no such task, 409 it is no open loose end, 422 the note.
    """
    words = checked_text(note, NOTE_WHY)
    row = _loose(conn, task_id)
    no = begin(conn, [row["id"]], actor, now, note=words, what=f"task {text(row['id'])}", act="dismiss_task")
    _go_on(conn, no, now, rules)
    after = _row(conn, row["id"])
    return ask(conn, shown.full(after, ask(conn, shown.neighbours([after])), base_url))


def begin(
    conn: sqlite3.Connection, tasks: Sequence[bytes], actor: Actor, now: int, *, note: str, what: str, act: str = "dismiss"
) -> int:
    """Write the decision about a frozen list; `step` carries it out. Its number. Raises CommandRefused: 422 the note."""
    words = checked_text(note, NOTE_WHY)
    row = conn.execute(
        "INSERT INTO dismissal (id, state, at, by, note, what, digest, total) VALUES (?, 'running', ?, ?, ?, ?, ?, ?)"
        " RETURNING no, id",
        (new_id("dis", now), now, actor.name, words, what, digest_of(tasks), len(tasks)),
    ).fetchone()
    conn.execute("INSERT INTO dismissal_list (dismissal, tasks) VALUES (?, ?)", (row["no"], b"".join(tasks)))
    single = act == "dismiss_task"
    subject, detail = (text(tasks[0]), words) if single else (row["id"], f"{len(tasks)} loose ends of {what}: {words}")
    audit(conn, now, actor.name, act, subject, detail)
    return int(row["no"])


def step(conn: sqlite3.Connection, now: int, rules: AlertRules, no: int | None = None) -> bool:
    """Carry on with the dismissal `no` (None: the oldest that is not done) by STEP_TASKS_MAX tasks. Whether any of it is left."""
    row = conn.execute(
        "SELECT no, state FROM dismissal WHERE state IN ('running', 'undoing') AND no = ifnull(?, no) ORDER BY no LIMIT 1", (no,)
    ).fetchone()
    if row is None:
        return False
    go_on = _go_on if row["state"] == "running" else _go_back
    go_on(conn, row["no"], now, rules)
    state = conn.execute("SELECT state FROM dismissal WHERE no = ?", (row["no"],)).fetchone()["state"]
    return state in ("running", "undoing")


def undo(conn: sqlite3.Connection, dismissal_id: str, actor: Actor, now: int) -> int:
    """Begin to take one back; `step` carries it out. Its number. Raises CommandRefused: 404, 409 too late or done already."""
    row = conn.execute("SELECT * FROM dismissal WHERE id = ?", (dismissal_id,)).fetchone()
    if row is None:
        raise CommandRefused(404, "No such dismissal", [f"there is no dismissal {dismissal_id[:100]}"])
    if row["state"] in ("undoing", "undone"):
        raise CommandRefused(409, "Taken back already", ["its loose ends are open again"])
    if now > row["at"] + UNDO_S * NS:
        words = f"a dismissal can be taken back for {span(UNDO_S)}; replay or look at its tasks one by one instead"
        raise CommandRefused(409, "Too late", [words])
    conn.execute("UPDATE dismissal SET state = 'undoing', place = 0 WHERE no = ?", (row["no"],))
    audit(conn, now, actor.name, "undo_dismissal", row["id"], f"{row['done']} loose ends of {row['what']}")
    return int(row["no"])


# --- what may be dismissed ----------------------------------------------------------------------------------------


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


# --- there --------------------------------------------------------------------------------------------------------


def _go_on(conn: sqlite3.Connection, no: int, now: int, rules: AlertRules) -> None:
    row = conn.execute(
        "SELECT by, note, total, place, substr(tasks, 1 + place * ?, ?) AS some"
        " FROM dismissal JOIN dismissal_list ON dismissal = no WHERE no = ?",
        (ID_BYTES, STEP_TASKS_MAX * ID_BYTES, no),
    ).fetchone()
    some = bytes(row["some"])
    tasks = [some[at : at + ID_BYTES] for at in range(0, len(some), ID_BYTES)]
    settled = settle(conn, tasks, now, by=row["by"], words=row["note"], rules=rules)
    conn.executemany("INSERT OR REPLACE INTO dismissed (task, dismissal) VALUES (?, ?)", [(task, no) for task in settled])
    place = row["place"] + len(tasks)
    state = "done" if place >= row["total"] else "running"
    conn.execute("UPDATE dismissal SET place = ?, done = done + ?, state = ? WHERE no = ?", (place, len(settled), state, no))


def settle(conn: sqlite3.Connection, tasks: Sequence[bytes], now: int, *, by: str, words: str, rules: AlertRules) -> list[bytes]:
    """Settle those of these tasks (STEP_TASKS_MAX at most) that are open loose ends as dismissed; which they were."""
    marks = ", ".join("?" * len(tasks))
    rows = conn.execute(f"SELECT * FROM task WHERE id IN ({marks}) AND loose = 1", list(tasks)).fetchall()
    _mark(
        conn,
        [row["id"] for row in rows],
        rows,
        "loose = 0, settled = ?, flags = flags | ?",
        (code(SETTLEMENTS, DISMISSED), JUDGED),
    )
    for row in rows:
        said = Judgement(at=now, what=DISMISSED, reason=words, verdict=DISMISSED, attempt=row["attempt"], by=by)
        append(conn, row["id"], [said])
    recount(conn, sorted({row["incident"] for row in rows if row["incident"] is not None}), now, rules)
    return [row["id"] for row in rows]


def _mark(
    conn: sqlite3.Connection, tasks: Sequence[bytes], rows: Sequence[sqlite3.Row], changes: str, values: tuple[object, ...]
) -> None:
    """Change the rows, and move their places in the ledger by the difference."""
    moves = Moves()
    for row in rows:
        moves.add(place_of_row(row), row["environment"], row["type"], -1)
    conn.executemany(f"UPDATE task SET {changes} WHERE id = ?", [(*values, task) for task in tasks])
    for task in tasks:
        row = _row(conn, task)
        moves.add(place_of_row(row), row["environment"], row["type"])
    moves.write(conn)


# --- and back -----------------------------------------------------------------------------------------------------


def _go_back(conn: sqlite3.Connection, no: int, now: int, rules: AlertRules) -> None:
    """Take back the next of those that this dismissal settled."""
    some = conn.execute("SELECT task FROM dismissed WHERE dismissal = ? LIMIT ?", (no, STEP_TASKS_MAX)).fetchall()
    by = conn.execute("SELECT by FROM dismissal WHERE no = ?", (no,)).fetchone()["by"]
    changes: list[LooseChange] = []
    for task in (bytes(row["task"]) for row in some):
        conn.execute("DELETE FROM dismissed WHERE task = ?", (task,))
        changes += _restore(conn, task, now, f"{by}'s dismissal of it was taken back")
    absorb(conn, now, changes, rules)
    state = "undoing" if len(some) == STEP_TASKS_MAX else "undone"
    conn.execute("UPDATE dismissal SET undone = undone + ?, state = ? WHERE no = ?", (len(some), state, no))


def _restore(conn: sqlite3.Connection, task: bytes, now: int, words: str) -> list[LooseChange]:
    """As if it had not been dismissed; the detector looks at it at once, since it may have ended meanwhile."""
    row = _row(conn, task)
    if row is None or word(SETTLEMENTS, row["settled"]) != DISMISSED:
        return []
    append(conn, task, [Judgement(at=now, what=RESTORED, reason=words, attempt=row["attempt"])])
    standing = standing_of(judgements_of(conn, task))
    _mark(conn, [task], [row], "loose = ?, settled = NULL, check_at = ?", (int(standing.loose), now))
    if not standing.loose:
        return []
    there = conn.execute("SELECT 1 FROM incident WHERE no = ? AND state != 'resolved'", (row["incident"],)).fetchone()
    return [_change(conn, task, now, "changed" if there else "opened", standing.problem or "failed", words)]


_PLACE = """
    SELECT ty.service, ty.name, e.name AS environment, i.id AS instance
    FROM task t JOIN type ty ON ty.id = t.type JOIN environment e ON e.id = t.environment
        LEFT JOIN instance i ON i.no = t.instance
    WHERE t.id = ?"""


def _change(conn: sqlite3.Connection, task: bytes, now: int, what: str, problem: str, words: str) -> LooseChange:
    place = conn.execute(_PLACE, (task,)).fetchone()
    return LooseChange(
        task=text(task),
        at=now,
        what=what,
        environment=place["environment"],
        service=place["service"],
        name=place["name"],
        instance=place["instance"],
        problem=problem,
        reason=words,
    )


# --- by itself ----------------------------------------------------------------------------------------------------

Place = tuple[int, bytes]
START: Place = (-1, b"")


def settle_old_failures(conn: sqlite3.Connection, now: int, rules: AlertRules, place: Place) -> Place | None:
    """Dismiss failures that were loose for `settle_failed_after`, among the next STEP_TASKS_MAX that ended before that.

    Where to go on; None: that was the last of them. The time counts from the last word about a task: nobody can look at what
    was never told.
    """
    until = now - round(rules.settle_failed_after * NS)
    rows = conn.execute(
        "SELECT t.id, t.ended_at, (SELECT max(at) FROM judgement j WHERE j.task = t.id) AS said_at FROM task t"
        " WHERE loose = 1 AND state = 4 AND (ended_at, id) > (?, ?) AND ended_at <= ? ORDER BY ended_at, id LIMIT ?",
        (*place, until, STEP_TASKS_MAX),
    ).fetchall()
    old = [row["id"] for row in rows if row["said_at"] is not None and row["said_at"] <= until]
    words = f"nobody did anything about this failure for {span(rules.settle_failed_after)} ([detect] settle_failed_after)"
    if old:
        settle(conn, old, now, by=ITSELF, words=words, rules=rules)
    return (rows[-1]["ended_at"], bytes(rows[-1]["id"])) if len(rows) == STEP_TASKS_MAX else None


def forget(conn: sqlite3.Connection, now: int, until: int) -> bool:
    """Let go of lists that cannot be taken back any more, and of dismissals from before `until` (ns). Whether more is left."""
    over = now - round(UNDO_S * NS)
    row = conn.execute(f"SELECT no {_LISTED} LIMIT 1", (over,)).fetchone()
    conn.execute(f"DELETE FROM dismissal WHERE no IN (SELECT no {_UNLISTED} LIMIT 200)", (until,))
    if row is None:
        return False
    some = "SELECT task FROM dismissed WHERE dismissal = ? LIMIT ?"
    gone = conn.execute(f"DELETE FROM dismissed WHERE task IN ({some})", (row["no"], FORGET_MAX)).rowcount
    if gone < FORGET_MAX:
        conn.execute("DELETE FROM dismissal_list WHERE dismissal = ?", (row["no"],))
    return True


_LISTED = "FROM dismissal_list JOIN dismissal ON no = dismissal WHERE at < ? AND state IN ('done', 'undone')"
_UNLISTED = "FROM dismissal WHERE at < ? AND no NOT IN (SELECT dismissal FROM dismissal_list)"


# --- reading ------------------------------------------------------------------------------------------------------


def dismissal_page(limit: int, cursor: str | None) -> Question[Page[Dismissal]]:
    """Newest first. Raises ValueError for a made-up cursor."""
    rows = yield f"{_COLUMNS} WHERE no < ? ORDER BY no DESC LIMIT ?", (page_mark(cursor), limit + 1)
    items = [_shown(row) for row in rows[:limit]]
    return Page(items=items, next_cursor=mark_of(rows[limit - 1]["no"]) if len(rows) > limit else None)


def dismissal_one(dismissal_id: str) -> Question[Dismissal | None]:
    """One of them; None: there is none with this id."""
    rows = yield f"{_COLUMNS} WHERE id = ?", (dismissal_id,)
    return _shown(rows[0]) if rows else None


def dismissal_numbered(no: int) -> Question[Dismissal]:
    """The one with this number, which there is."""
    rows = yield f"{_COLUMNS} WHERE no = ?", (no,)
    return _shown(rows[0])


def is_busy() -> Question[bool]:
    """Whether one is not carried out yet."""
    return bool((yield "SELECT 1 FROM dismissal WHERE state IN ('running', 'undoing') LIMIT 1", ()))


def is_due(now: int, until: int, failed: int) -> Question[bool]:
    """Whether there is anything to sweep: failures that ended before `failed`, or rows of which the time has passed (ns)."""
    rows = yield _DUE, (failed, now - round(UNDO_S * NS), until, until)
    return bool(rows[0]["due"])


_DUE = f"""
    SELECT EXISTS (SELECT 1 FROM task WHERE loose = 1 AND state = 4 AND ended_at <= ?)
        OR EXISTS (SELECT 1 {_LISTED}) OR EXISTS (SELECT 1 {_UNLISTED})
        OR EXISTS (SELECT 1 FROM silence WHERE ends_at < ?) AS due"""


def dismissal_of(task: bytes) -> Question[Dismissal | None]:
    """The one that settled this task, while it can be taken back."""
    rows = yield f"{_COLUMNS} WHERE no = (SELECT dismissal FROM dismissed WHERE task = ?)", (task,)
    return _shown(rows[0]) if rows else None


_COLUMNS = "SELECT no, id, state, at, by, note, what, digest, total, done, undone FROM dismissal"


def _shown(row: sqlite3.Row) -> Dismissal:
    names = ("id", "state", "at", "by", "note", "what", "digest", "total", "undone")
    return Dismissal(**{name: row[name] for name in names}, dismissed=row["done"], undo_until_at=row["at"] + round(UNDO_S * NS))
