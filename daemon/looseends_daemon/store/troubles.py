"""Incidents about the daemon itself in the database: opened, told again, resolved, in the transaction that finds them.

Rules:

1. Such an incident has no loose ends, so the machine of store/incidents.py never looks at it: its `next_at` stays NULL. It opens
   and resolves here, with notices and named reasons like any other.
2. One is told again after `repeat_interval`, unless somebody acknowledged it. Its title changes with what is wrong; that alone is
   told to nobody.
3. The endpoint that fails is not told of its own failing: the others are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from looseends.wire import NEVER, NS
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import Counts
from looseends_daemon.core.troubles import SUBJECTS_MAX, TROUBLES, Behind, Trouble
from looseends_daemon.store import outbox
from looseends_daemon.store.questions import Question
from looseends_daemon.store.samples import new_id

_OPEN = f"SELECT * FROM incident WHERE state = 'open' AND problem IN ({', '.join(repr(one) for one in TROUBLES)})"
_ENDED = {
    "endpoint_failing": "The endpoint {subject} works again, is disabled by a person, or is gone from the configuration",
    "storage": "The storage of looseends is well again",
    "blind_window": "Nothing more can be learnt about this time: the missing came, or an hour has passed",
    "not_draining": "The instance has caught up, or has ended",
}


def absorb(conn: sqlite3.Connection, now: int, found: Sequence[Trouble], rules: AlertRules) -> bool:
    """Bring the incidents about the daemon up to `found`, all that is wrong at `now` (ns). Returns whether one was told."""
    standing = {(row["name"], row["instance"]): row for row in conn.execute(_OPEN).fetchall()}
    told = False
    for trouble in found:
        row = standing.pop(trouble.key, None)
        told |= _open(conn, now, trouble, rules) if row is None else _go_on(conn, now, row, trouble, rules)
    for row in standing.values():
        told |= _resolve(conn, now, row, rules)
    return told


def differs(found: Sequence[Trouble], now: int, rules: AlertRules) -> Question[bool]:
    """Whether `absorb` would have anything to do: asked on a reading connection, so that a quiet daemon does not write."""
    rows = yield _OPEN, ()
    titles = {(row["name"], row["instance"]): row["title"] for row in rows}
    if titles != {trouble.key: trouble.title for trouble in found}:
        return True
    return any(_is_due(row, now, rules) for row in rows)


def _is_due(row: sqlite3.Row, now: int, rules: AlertRules) -> bool:
    return rules.repeat_interval != NEVER and bool(now >= row["told_at"] + round(rules.repeat_interval * NS))


def _open(conn: sqlite3.Connection, now: int, trouble: Trouble, rules: AlertRules) -> bool:
    no = int(
        conn.execute(
            "INSERT INTO incident (id, state, environment, service, name, instance, problem, severity, title, reason, detail,"
            " opened_at, told_at, told_severity) VALUES (?, 'open', ?, ?, ?, ?, ?, ?, ?, 'first_notification', '', ?, ?, ?)"
            " RETURNING no",
            (
                *(new_id("inc", now), trouble.environment, trouble.service, trouble.problem, trouble.subject),
                *(trouble.problem, trouble.severity, trouble.title, now, now, trouble.severity),
            ),
        ).fetchone()["no"]
    )
    _why(conn, no, now, "open", "first_notification", "something is wrong with looseends itself")
    return _tell(conn, now, no, "opened", rules)


def _go_on(conn: sqlite3.Connection, now: int, row: sqlite3.Row, trouble: Trouble, rules: AlertRules) -> bool:
    if row["title"] != trouble.title:
        conn.execute("UPDATE incident SET title = ? WHERE no = ?", (trouble.title, row["no"]))
    if not _is_due(row, now, rules) or _is_acknowledged(conn, row["no"], now):
        return False
    conn.execute("UPDATE incident SET reason = 'repeat_interval', told_at = ? WHERE no = ?", (now, row["no"]))
    _why(conn, row["no"], now, "open", "repeat_interval", "it is still wrong and nothing was said about it for a while")
    return _tell(conn, now, row["no"], "repeated", rules)


def _resolve(conn: sqlite3.Connection, now: int, row: sqlite3.Row, rules: AlertRules) -> bool:
    title = _ENDED[row["problem"]].format(subject=row["instance"])
    conn.execute(
        "UPDATE incident SET state = 'resolved', reason = 'all_settled', resolved_at = ?, resolution = 'ended', title = ?,"
        " next_at = NULL WHERE no = ?",
        (now, f"Settled: {title[0].lower()}{title[1:]} (was: {row['title']})"[:300], row["no"]),
    )
    _why(conn, row["no"], now, "resolved", "all_settled", "the trouble ended")
    return _tell(conn, now, row["no"], "resolved", rules)


def _tell(conn: sqlite3.Connection, now: int, no: int, type_: str, rules: AlertRules) -> bool:
    conn.execute("UPDATE incident SET sequence = sequence + 1 WHERE no = ?", (no,))
    row = conn.execute("SELECT * FROM incident WHERE no = ?", (no,)).fetchone()
    itself = row["instance"] if row["problem"] == "endpoint_failing" else None
    others = [rule.name for rule in rules.endpoints if rule.name != itself]
    return bool(outbox.enqueue(conn, now, row, Counts(), type_, rules, only=others))


def _is_acknowledged(conn: sqlite3.Connection, no: int, now: int) -> bool:
    return conn.execute("SELECT 1 FROM acknowledgement WHERE incident = ? AND until > ?", (no, now)).fetchone() is not None


def _why(conn: sqlite3.Connection, no: int, now: int, state: str, reason: str, words: str) -> None:
    conn.execute(
        "INSERT INTO incident_why (incident, n, at, state, reason, words)"
        " SELECT ?, ifnull(max(n), 0) + 1, ?, ?, ?, ? FROM incident_why WHERE incident = ?",
        (no, now, state, reason, words, no),
    )


def behind(now: int, heard_since: int, policy: Policy) -> Question[list[Behind]]:
    """The live instances that have been behind without getting on for too long, as the detector counts it."""
    rows = yield (
        "SELECT id, service, environment, host, backlog, behind_since, lowest_at FROM instance"
        " WHERE state = 'alive' AND behind_since IS NOT NULL ORDER BY behind_since LIMIT ?",
        (SUBJECTS_MAX,),
    )
    allowance = round((policy.draining_for - policy.behind_after) * NS)
    patience = round(policy.behind_after * NS)
    found = []
    for row in rows:
        stands_since = max(min(row["lowest_at"] or row["behind_since"], row["behind_since"] + allowance), heard_since)
        if now - stands_since >= patience:
            found.append(
                Behind(
                    instance=row["id"],
                    service=row["service"],
                    environment=row["environment"],
                    host=row["host"],
                    since=row["behind_since"],
                    records=row["backlog"],
                )
            )
    return found
