"""Incidents in the database: what joins them, the steps that are due, and how they are read.

Rules:

1. `absorb` and `advance` run in the transaction of the judgements that caused them; a step, its reason and its notices are
   one commit. Whoever sees an open incident sees its notices too.
2. What is open and settled is counted in the task rows, never beside them.
3. The decisions are core/incidents.py; here are rows only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import aiosqlite

from looseends_daemon.core.incidents import (
    GRAVE,
    AlertRules,
    OpenGroup,
    Rule,
    Standing,
    after,
    counts_of,
    decide,
    is_ripe,
    resolution_of,
    severity_of,
    worst_problem,
    worst_severity,
)
from looseends_daemon.core.judgements import LooseChange, incident_key
from looseends_daemon.core.resources import SETTLEMENTS, STATES, VERDICTS, Incident, Page
from looseends_daemon.core.titles import Scene, scene_of, settled_title, title_of
from looseends_daemon.store import outbox
from looseends_daemon.store.codes import blob
from looseends_daemon.store.questions import Question, ask, ask_async, mark_of, page_mark
from looseends_daemon.store.samples import new_id

STEPS_MAX = 200
"""Incidents moved in one call of `advance`, so that a storm does not hold the writer; the rest is due at once."""
ANNOUNCED_MAX = 200
DETAIL_CHARS_MAX = 500
NAMED_MAX = 50
"""Loose ends among which a title looks for its words. A title with more of them counts, and needs none."""
_FAILED = STATES.index("failed")


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
    for no in touched:
        _refresh(conn, no, now, rules)


def advance(conn: sqlite3.Connection, now: int, rules: AlertRules) -> int | None:
    """Take every step that is due at `now`, with its notices. Returns when the next one is due (ns), None: none is known."""
    rows = conn.execute("SELECT no FROM incident WHERE next_at <= ? ORDER BY next_at, no LIMIT ?", (now, STEPS_MAX)).fetchall()
    for row in rows:
        _step(conn, row["no"], now, rules)
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


def _open_groups(no: int, before: str) -> Question[list[OpenGroup]]:
    """What is open, by type and problem. A loose end whose verdict fell without a good end keeps the problem it had last."""
    rows = yield _OPEN, (_FAILED, _FAILED, no)
    return [OpenGroup(service=row["service"], name=row["name"], problem=_problem(row, before), count=row["n"]) for row in rows]


def _problem(row: sqlite3.Row, before: str) -> str:
    if row["verdict"] is not None:
        return VERDICTS[row["verdict"]]
    return "failed" if row["failed"] else row["last"] or before


_OPEN = """
    SELECT ty.service, ty.name, t.verdict, t.state = ? AS failed, count(*) AS n,
        CASE WHEN t.verdict IS NULL AND t.state != ? THEN (
            SELECT j.verdict FROM judgement j WHERE j.task = t.id AND j.what IN ('verdict', 'loose') ORDER BY j.n DESC LIMIT 1
        ) END AS last
    FROM task t JOIN type ty ON ty.id = t.type WHERE t.incident = ? AND t.loose = 1 GROUP BY ty.id, t.verdict, failed, last"""


def _settled(no: int) -> Question[dict[str, int]]:
    rows = yield (
        "SELECT settled, count(*) AS n FROM task WHERE incident = ? AND settled IS NOT NULL GROUP BY settled",
        (no,),
    )
    return {SETTLEMENTS[row["settled"]]: row["n"] for row in rows}


def _row(conn: sqlite3.Connection, no: int) -> sqlite3.Row:
    row: sqlite3.Row = conn.execute("SELECT * FROM incident WHERE no = ?", (no,)).fetchone()
    return row


def _refresh(conn: sqlite3.Connection, no: int, now: int, rules: AlertRules) -> None:
    """Bring an incident up to what its task rows say, and see when the machine must look at it."""
    row = _row(conn, no)
    groups = ask(conn, _open_groups(no, row["problem"]))
    problem = worst_problem(groups, row["problem"])
    opened = sum(group.count for group in groups)
    values = {
        "problem": problem,
        "severity": worst_severity(groups, rules, row["severity"]),
        "reached": int(bool(row["reached"]) or is_ripe(groups, rules)),
        "quiet_since": None if opened else row["quiet_since"] or now,
        "title": _title(conn, row, problem, groups) if groups else row["title"],
    }
    _set(conn, no, values)
    _look(conn, no, now, rules)


_REASON = """
    SELECT j.reason FROM task t JOIN judgement j ON j.task = t.id
    WHERE t.incident = ? AND t.loose = 1 AND j.verdict = ? AND j.what IN ('verdict', 'loose') ORDER BY j.at DESC LIMIT 1"""
"""In the words of a loose end that is open now: the one that was worst before may be settled."""


def _title(conn: sqlite3.Connection, row: sqlite3.Row, problem: str, groups: list[OpenGroup]) -> str:
    few = sum(group.count for group in groups) <= NAMED_MAX
    why = conn.execute(_REASON, (row["no"], problem)).fetchone() if few else None
    scene = scene_of(problem, row["service"], groups, row["detail"] if why is None else why["reason"])
    return title_of(_with_instance(conn, scene, row["instance"]))


def _settled_title(conn: sqlite3.Connection, no: int, settled: Mapping[str, int]) -> str:
    """What it is called once nothing is open: what there was, and what became of it."""
    row, count = _row(conn, no), max(1, sum(settled.values()))
    only = conn.execute(_ONLY, (no,)).fetchone() if row["name"] is None and count == 1 else row
    name = None if only is None else only["name"]
    scene = Scene(problem=row["problem"], service=row["service"], count=count, name=name)
    return settled_title(_with_instance(conn, scene, row["instance"]), settled)


_ONLY = """
    SELECT ty.name FROM task t JOIN type ty ON ty.id = t.type
    WHERE t.incident = ? AND t.loose = 0 AND t.settled IS NOT NULL LIMIT 1"""


def _with_instance(conn: sqlite3.Connection, scene: Scene, instance: str | None) -> Scene:
    """The same with what is known of the instance whose work was lost; None: the cause is no instance."""
    found = conn.execute("SELECT host, state, ended_at FROM instance WHERE id = ?", (instance,)).fetchone()
    if found is None:
        return scene
    fields = {name: getattr(scene, name) for name in scene.__struct_fields__}
    told = {"host": found["host"], "instance_state": found["state"], "died_at": found["ended_at"]}
    return Scene(**{**fields, **told})


def _standing(conn: sqlite3.Connection, no: int, rules: AlertRules) -> Standing:
    row = _row(conn, no)
    groups = ask(conn, _open_groups(no, row["problem"]))
    return Standing(
        state=row["state"],
        opened_at=row["opened_at"],
        severity=row["severity"],
        open=sum(group.count for group in groups),
        settled=ask(conn, _settled(no)),
        arrivals=row["arrivals"],
        ripe=is_ripe(groups, rules),
        reached=bool(row["reached"]),
        grave=bool(row["grave"]),
        quiet_since=row["quiet_since"],
        told=row["told"],
        told_at=row["told_at"],
        told_severity=row["told_severity"],
    )


def _look(conn: sqlite3.Connection, no: int, now: int, rules: AlertRules) -> None:
    decision = decide(_standing(conn, no, rules), rules, now)
    _set(conn, no, {"next_at": now if decision.rule is not None else decision.look_at})


def _set(conn: sqlite3.Connection, no: int, values: dict[str, Any]) -> None:
    columns = ", ".join(f"{name} = :{name}" for name in values)
    conn.execute(f"UPDATE incident SET {columns} WHERE no = :no", {**values, "no": no})


# --- steps --------------------------------------------------------------------------------------------------------


def _step(conn: sqlite3.Connection, no: int, now: int, rules: AlertRules) -> None:
    """Take the steps of one incident that are due: at most two, since a notice moves the time of the next."""
    standing = _standing(conn, no, rules)
    decision = decide(standing, rules, now)
    while decision.rule is not None:
        _take(conn, no, standing, decision.rule, now, rules)
        standing = after(standing, decision.rule, now)
        decision = decide(standing, rules, now)
    _set(conn, no, {"next_at": decision.look_at})


def _take(conn: sqlite3.Connection, no: int, standing: Standing, rule: Rule, now: int, rules: AlertRules) -> None:
    next_standing = after(standing, rule, now)
    values: dict[str, Any] = {
        "state": rule.to,
        "reason": rule.reason,
        "told": next_standing.told,
        "told_at": next_standing.told_at,
        "told_severity": next_standing.told_severity,
    }
    if rule.to == "resolved":
        title = _settled_title(conn, no, standing.settled)
        values |= {"resolved_at": now, "resolution": resolution_of(standing.settled), "title": title}
    _set(conn, no, values)
    _why(conn, no, now, rule.to, rule.reason, rule.words)
    if rule.notice is not None:
        conn.execute("UPDATE incident SET sequence = sequence + 1 WHERE no = ?", (no,))
        counts = counts_of(standing.open, standing.settled)
        outbox.enqueue(conn, now, _row(conn, no), counts, rule.notice, rules)


def _why(conn: sqlite3.Connection, no: int, now: int, state: str, reason: str, words: str) -> None:
    conn.execute(
        "INSERT INTO incident_why (incident, n, at, state, reason, words)"
        " SELECT ?, ifnull(max(n), 0) + 1, ?, ?, ?, ? FROM incident_why WHERE incident = ?",
        (no, now, state, reason, words, no),
    )


def announce(conn: sqlite3.Connection, now: int, endpoints: Collection[str], rules: AlertRules) -> None:
    """Tell endpoints that are new of the open incidents they never heard of, as `opened`: at most ANNOUNCED_MAX, newest first.

    What is left out they hear of at its next step, which for a new listener is called `opened` as well.
    """
    if not endpoints:
        return
    rows = conn.execute("SELECT no FROM incident WHERE state = 'open' ORDER BY no DESC LIMIT ?", (ANNOUNCED_MAX,)).fetchall()
    for no in (row["no"] for row in reversed(rows)):
        unaware = outbox.unaware(conn, no, endpoints)
        if unaware:
            conn.execute("UPDATE incident SET sequence = sequence + 1 WHERE no = ?", (no,))
            standing = _standing(conn, no, rules)
            counts = counts_of(standing.open, standing.settled)
            # "repeated" is what it is to us; the outbox calls it opened where nothing was heard before.
            outbox.enqueue(conn, now, _row(conn, no), counts, "repeated", rules, only=unaware)


# --- reading ------------------------------------------------------------------------------------------------------


def incident_page(state: str | None, limit: int, cursor: str | None, base_url: str = "") -> Question[Page[Incident]]:
    """Newest first. Raises ValueError for a made-up cursor."""
    where = "" if state is None else " AND state = ?"
    rows = yield (
        f"SELECT * FROM incident WHERE no < ?{where} ORDER BY no DESC LIMIT ?",
        (page_mark(cursor), *([] if state is None else [state]), limit + 1),
    )
    items = []
    for row in rows[:limit]:
        items.append((yield from _incident(row, base_url)))
    return Page(items=items, next_cursor=mark_of(rows[limit - 1]["no"]) if len(rows) > limit else None)


def incident_one(incident_id: str, base_url: str = "") -> Question[Incident | None]:
    """One incident; None: there is none with this id."""
    rows = yield "SELECT * FROM incident WHERE id = ?", (incident_id,)
    return (yield from _incident(rows[0], base_url)) if rows else None


def _incident(row: sqlite3.Row, base_url: str) -> Question[Incident]:
    groups = yield from _open_groups(row["no"], row["problem"])
    settled = yield from _settled(row["no"])
    why = yield "SELECT at, state, reason, words FROM incident_why WHERE incident = ? ORDER BY n", (row["no"],)
    return Incident(
        id=row["id"],
        state=row["state"],
        problem=row["problem"],
        environment=row["environment"],
        service=row["service"],
        name=row["name"],
        instance=row["instance"],
        severity=row["severity"],
        title=row["title"],
        reason=row["reason"],
        opened_at=row["opened_at"],
        resolved_at=row["resolved_at"],
        resolution=row["resolution"],
        counts=counts_of(sum(group.count for group in groups), settled),
        why=[dict(one) for one in why],
        url=f"{base_url}/incidents/{row['id']}",
    )


async def incidents(
    conn: aiosqlite.Connection, state: str | None = None, limit: int = 50, cursor: str | None = None, base_url: str = ""
) -> Page[Incident]:
    """For Reader.incidents."""
    return await ask_async(conn, incident_page(state, limit, cursor, base_url))


async def incident(conn: aiosqlite.Connection, incident_id: str, base_url: str = "") -> Incident | None:
    """For Reader.incident."""
    return await ask_async(conn, incident_one(incident_id, base_url))
