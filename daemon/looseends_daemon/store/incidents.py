"""Incidents in the database: what joins them, and the steps that are due.

Rules:

1. `absorb` and `advance` run in the transaction of the judgements that caused them; a step, its reason and its notices are
   one commit. Whoever sees an open incident sees its notices too.
2. What is open and settled is counted by triggers on the task rows, in the statement that changes them: nobody else does.
3. The decisions are core/incidents.py; here are rows only. How they are read is store/incident_pages.py.
4. Which silences are in force is asked anew at every step: one that begins, ends or fits no more needs no bookkeeping.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from looseends_daemon.core.incidents import (
    GRAVE,
    AlertRules,
    OpenGroup,
    Rule,
    Standing,
    after,
    counts_of,
    decide,
    is_hushed,
    is_ripe,
    resolution_of,
    severity_of,
    worst_problem,
    worst_severity,
)
from looseends_daemon.core.judgements import LooseChange, incident_key
from looseends_daemon.core.marks import InForce, labels_of, silence_over
from looseends_daemon.core.resources import Counts
from looseends_daemon.store import acks, outbox
from looseends_daemon.store.codes import blob
from looseends_daemon.store.incident_counts import open_groups, settled
from looseends_daemon.store.incident_titles import open_title, over_title
from looseends_daemon.store.questions import ask
from looseends_daemon.store.samples import new_id
from looseends_daemon.store.silences import in_force

STEPS_MAX = 200
"""Incidents moved in one call of `advance`, so that a storm does not hold the writer; the rest is due at once."""
ANNOUNCED_MAX = 200
DETAIL_CHARS_MAX = 500


def absorb(conn: sqlite3.Connection, now: int, changes: Sequence[LooseChange], rules: AlertRules) -> None:
    """Let incidents hear of loose ends that opened, changed, were settled or withdrawn at `now` (ns).

    The task rows must already say so: they are what is counted.
    """
    touched: dict[int, None] = {}
    for change in changes:
        no = _join(conn, now, change, rules) if change.what == "opened" else _incident_of(conn, change.task)
        if no is not None:
            _hear(conn, no, change)
            touched[no] = None
    recount(conn, touched, now, rules)


def recount(conn: sqlite3.Connection, incidents: Iterable[int], now: int, rules: AlertRules) -> None:
    """Bring incidents up to what their task rows say, and see when the machine must look at them."""
    silences = ask(conn, in_force(now))
    for no in incidents:
        _refresh(conn, no, now, rules, silences)


def advance(conn: sqlite3.Connection, now: int, rules: AlertRules) -> int | None:
    """Take every step that is due at `now`, with its notices. Returns when the next one is due (ns), None: none is known."""
    rows = conn.execute("SELECT no FROM incident WHERE next_at <= ? ORDER BY next_at, no LIMIT ?", (now, STEPS_MAX)).fetchall()
    silences = ask(conn, in_force(now)) if rows else []
    for row in rows:
        _step(conn, row["no"], now, rules, silences)
    return _next_at(conn)


def _next_at(conn: sqlite3.Connection) -> int | None:
    found: int | None = conn.execute("SELECT min(next_at) FROM incident WHERE next_at IS NOT NULL").fetchone()[0]
    return found


# --- joining ------------------------------------------------------------------------------------------------------


def _incident_of(conn: sqlite3.Connection, task: str) -> int | None:
    """The incident of a task while it is not resolved."""
    row = conn.execute(
        "SELECT i.no FROM task t JOIN incident i ON i.no = t.incident WHERE t.id = ? AND i.state != 'resolved'", (blob(task),)
    ).fetchone()
    return None if row is None else int(row["no"])


def _join(conn: sqlite3.Connection, now: int, change: LooseChange, rules: AlertRules) -> int:
    """The incident that a new loose end belongs to: its own if that still stands, else that of its key, else a new one."""
    no = _incident_of(conn, change.task) or _with_key(conn, change) or _begin(conn, now, change, rules)
    conn.execute("UPDATE task SET incident = ? WHERE id = ?", (no, blob(change.task)))
    conn.execute("UPDATE incident SET arrivals = arrivals + 1 WHERE no = ?", (no,))
    return no


def _with_key(conn: sqlite3.Connection, change: LooseChange) -> int | None:
    environment, service, scope, value = incident_key(change)
    row = conn.execute(
        "SELECT no FROM incident WHERE environment = ? AND service = ? AND ifnull(name, '') = ? AND ifnull(instance, '') = ?"
        " AND state != 'resolved'",
        (environment, service, value if scope == "name" else "", value if scope == "instance" else ""),
    ).fetchone()
    return None if row is None else int(row["no"])


def _begin(conn: sqlite3.Connection, now: int, change: LooseChange, rules: AlertRules) -> int:
    environment, service, scope, value = incident_key(change)
    row = conn.execute(
        "INSERT INTO incident (id, state, environment, service, name, instance, problem, severity, title, reason, detail,"
        " opened_at) VALUES (?, 'pending', ?, ?, ?, ?, ?, ?, '', 'first_loose_end', ?, ?) RETURNING no",
        (
            new_id("inc", now),
            environment,
            service,
            value if scope == "name" else None,
            value if scope == "instance" else None,
            change.problem,
            severity_of(change.problem, rules.rule(change.service, change.name)),
            change.reason[:DETAIL_CHARS_MAX],
            now,
        ),
    ).fetchone()
    no = int(row["no"])
    _why(conn, no, now, "pending", "first_loose_end", f"{change.name} of {service}: the first loose end with this cause")
    return no


def _hear(conn: sqlite3.Connection, no: int, change: LooseChange) -> None:
    """Remember of a change what no count can tell later."""
    if change.what not in ("opened", "changed"):
        return
    row = conn.execute("SELECT problem FROM incident WHERE no = ?", (no,)).fetchone()
    worst = worst_problem([OpenGroup(service="", name="", problem=p, count=1) for p in (row["problem"], change.problem)], "")
    detail = change.reason[:DETAIL_CHARS_MAX] if worst == change.problem else None
    conn.execute(
        "UPDATE incident SET grave = max(grave, ?), detail = coalesce(?, detail) WHERE no = ?",
        (change.problem in GRAVE, detail, no),
    )


# --- standing -----------------------------------------------------------------------------------------------------


def _row(conn: sqlite3.Connection, no: int) -> sqlite3.Row:
    row: sqlite3.Row = conn.execute("SELECT * FROM incident WHERE no = ?", (no,)).fetchone()
    return row


def _refresh(conn: sqlite3.Connection, no: int, now: int, rules: AlertRules, silences: list[InForce]) -> None:
    row = _row(conn, no)
    groups = ask(conn, open_groups(no, row["problem"]))
    problem = worst_problem(groups, row["problem"])
    opened = sum(group.count for group in groups)
    values = {
        "problem": problem,
        "severity": worst_severity(groups, rules, row["severity"]),
        "reached": int(bool(row["reached"]) or is_ripe(groups, rules)),
        "quiet_since": None if opened else row["quiet_since"] or now,
        "title": open_title(conn, row, problem, groups) if groups else row["title"],
    }
    _set(conn, no, values)
    decision = decide(_standing(conn, no, rules, silences), rules, now)
    due = decision.rule is not None or decision.withheld
    _set(conn, no, {"next_at": now if due else decision.look_at})


def _standing(conn: sqlite3.Connection, no: int, rules: AlertRules, silences: list[InForce]) -> Standing:
    row = _row(conn, no)
    groups = ask(conn, open_groups(no, row["problem"]))
    silence = silence_over(silences, labels_of(row, groups)) if silences else None
    return Standing(
        state=row["state"],
        opened_at=row["opened_at"],
        severity=row["severity"],
        open=sum(group.count for group in groups),
        settled=ask(conn, settled(no)),
        arrivals=row["arrivals"],
        ripe=is_ripe(groups, rules),
        reached=bool(row["reached"]),
        grave=bool(row["grave"]),
        quiet_since=row["quiet_since"],
        told=row["told"],
        told_at=row["told_at"],
        told_severity=row["told_severity"],
        taken=acks.taken(conn, no),
        silenced_until=None if silence is None else silence.ends_at,
        held=bool(row["held"]),
    )


def _set(conn: sqlite3.Connection, no: int, values: dict[str, Any]) -> None:
    columns = ", ".join(f"{name} = :{name}" for name in values)
    conn.execute(f"UPDATE incident SET {columns} WHERE no = :no", {**values, "no": no})


# --- steps --------------------------------------------------------------------------------------------------------


def _step(conn: sqlite3.Connection, no: int, now: int, rules: AlertRules, silences: list[InForce]) -> None:
    """Take the steps of one incident that are due: a few at most, since a notice moves the time of the next."""
    standing = _standing(conn, no, rules, silences)
    decision = decide(standing, rules, now)
    while decision.rule is not None:
        _take(conn, no, standing, decision.rule, now, rules)
        standing = after(standing, decision.rule, now)
        decision = decide(standing, rules, now)
    if decision.withheld and not standing.held:
        _why(conn, no, now, standing.state, "silenced", "something was to be told, and a silence held it back")
    _set(conn, no, {"next_at": decision.look_at, "held": int(standing.held or decision.withheld)})


def _take(conn: sqlite3.Connection, no: int, standing: Standing, rule: Rule, now: int, rules: AlertRules) -> None:
    then = after(standing, rule, now)
    values: dict[str, Any] = {
        **{name: getattr(then, name) for name in ("state", "told", "told_at", "told_severity", "held")},
        "reason": rule.reason,
    }
    if rule.to == "resolved":
        title = over_title(conn, _row(conn, no), standing.settled)
        values |= {"resolved_at": now, "resolution": resolution_of(standing.settled), "title": title}
    _set(conn, no, values)
    if then.taken != standing.taken:
        acks.write(conn, no, then.taken)
    hushed = is_hushed(standing, rule)
    _why(conn, no, now, rule.to, rule.reason, rule.words + ("; a silence holds the notice back" if hushed else ""))
    if rule.notice is not None and not hushed:
        _tell(conn, no, now, standing, rule.notice, rules)


def _tell(
    conn: sqlite3.Connection,
    no: int,
    now: int,
    standing: Standing,
    notice: str,
    rules: AlertRules,
    only: Collection[str] | None = None,
) -> None:
    """One notice, with a title that knows who has taken the place of a dead process meanwhile."""
    row = _row(conn, no)
    if standing.open:
        groups = ask(conn, open_groups(no, row["problem"]))
        _set(conn, no, {"title": open_title(conn, row, row["problem"], groups)})
    conn.execute("UPDATE incident SET sequence = sequence + 1 WHERE no = ?", (no,))
    counts = counts_of(standing.open, standing.settled)
    outbox.enqueue(conn, now, _row(conn, no), counts, notice, rules, only=only)


def counts_now(conn: sqlite3.Connection, no: int) -> Counts:
    """How many loose ends of an incident are open, and how the others were settled."""
    groups = ask(conn, open_groups(no, _row(conn, no)["problem"]))
    return counts_of(sum(group.count for group in groups), ask(conn, settled(no)))


def _why(conn: sqlite3.Connection, no: int, now: int, state: str, reason: str, words: str) -> None:
    conn.execute(
        "INSERT INTO incident_why (incident, n, at, state, reason, words)"
        " SELECT ?, ifnull(max(n), 0) + 1, ?, ?, ?, ? FROM incident_why WHERE incident = ?",
        (no, now, state, reason, words, no),
    )


def announce(conn: sqlite3.Connection, now: int, endpoints: Collection[str], rules: AlertRules) -> None:
    """Tell endpoints that are new of the open incidents they never heard of, as `opened`: at most ANNOUNCED_MAX, newest first.

    What is left out they hear of at its next step, which for a new listener is called `opened` as well; what is silenced, when
    that ends.
    """
    if not endpoints:
        return
    rows = conn.execute("SELECT no FROM incident WHERE state = 'open' ORDER BY no DESC LIMIT ?", (ANNOUNCED_MAX,)).fetchall()
    silences = ask(conn, in_force(now))
    for no in (row["no"] for row in reversed(rows)):
        unaware = outbox.unaware(conn, no, endpoints)
        standing = _standing(conn, no, rules, silences)
        if unaware and standing.silenced_until is not None:
            _set(conn, no, {"held": 1, "next_at": now})
        elif unaware:
            # "repeated" is what it is to us; the outbox calls it opened where nothing was heard before.
            _tell(conn, no, now, standing, "repeated", rules, only=unaware)
