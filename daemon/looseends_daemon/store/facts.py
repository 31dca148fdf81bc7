"""Folding a batch into the database: facts, view, ledger and the detector's agenda, in the caller's one transaction.

Rules:

1. What a client reported is folded by core/facts; this file only loads, stores and moves the ledger by the difference.
2. A task is put on the detector's agenda (`check_at`) with the time at which something could be wrong with it; at once where
   a judgement stands, where work failed or was dropped, and where it is an order.
3. Facts join a task only from where they may (`_may_join`): the same way in, the same service, or through a queue.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from looseends.wire import NS, Batch, Problem, skew_of
from looseends_daemon.core.detect import due_of, stall_of
from looseends_daemon.core.facts import SLOTS, UNKNOWN, Cells, View, fold, slots_of, view_of
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import FLAGS, STATES, VERDICTS, Actor, Value
from looseends_daemon.core.stats import Place, place_of
from looseends_daemon.store.cells import InstanceIds, keep_payloads, pack, payload_rows, unpack, with_payloads
from looseends_daemon.store.codes import JUDGED, ORDER, blob, code, interned, word
from looseends_daemon.store.instances_owned import OwnershipRefused as OwnershipRefused
from looseends_daemon.store.instances_owned import end_instance as end_instance
from looseends_daemon.store.instances_owned import hear
from looseends_daemon.store.instances_owned import touch_instance as touch_instance
from looseends_daemon.store.ledger import Moves

IDS_MAX = 500
LATE = 1 << FLAGS.index("late")
TWICE = 1 << FLAGS.index("ran_twice")
KEPT = LATE | TWICE | JUDGED | ORDER
"""Flags that folding never takes back: they are judgements, or say what kind of id this is."""


class Applied(Value, frozen=True):
    """What became of a batch: `rejected` are those that the store refused, beside those the wire already refused."""

    accepted: int
    duplicates: int
    rejected: tuple[Problem, ...] = ()
    orders: int = 0


class _Known:
    """One task while its batch is folded: the stored row (None: new), its cells, and which slots changed."""

    __slots__ = ("cells", "external", "full", "order", "row", "touched")

    def __init__(self, row: sqlite3.Row | None, cells: Cells) -> None:
        self.row, self.cells = row, cells
        self.full = row is None
        self.order = bool(row["flags"] & ORDER) if row else False
        self.external: str | None = None
        self.touched: set[tuple[int, str, str]] = set()


def apply_batch(
    conn: sqlite3.Connection, batch: Batch, *, actor: Actor, now: int, policy: Policy, proven: bool = False, heard: bool = True
) -> Applied:
    """Fold a checked batch. `heard` False: a journal is being adopted, its instance itself is silent.

    Raises OwnershipRefused when this caller may not speak for the batch's instance.
    """
    ids = InstanceIds(conn)
    instance, skew = "", 0
    if batch.instance is not None:
        row = hear(conn, batch.instance, actor, now, skew=skew_of(batch.sent_at, now), proven=proven, heard=heard)
        instance, skew = row["id"], row["skew"]
        ids.learn(row["no"], instance)
        if heard:
            conn.execute("UPDATE instance SET backlog = ? WHERE no = ?", (batch.backlog, row["no"]))
    tasks = _load(conn, {blob(event["task"]) for event in batch.events}, ids)
    counts = {"new": 0, "duplicates": 0}
    rejected = []
    channel = interned(conn, "channel", actor.channel)
    for index, event in zip(batch.indexes, batch.events, strict=True):
        if event["type"] == "expected":
            rejected.append(Problem(index, "/type", "expectations are not kept by this version of looseends"))
            continue
        known = tasks[blob(event["task"])]
        why = _may_join(conn, known, event, actor, channel, batch.instance)
        if why:
            rejected.append(Problem(index, "/task", why))
            continue
        new = _fold(conn, known, _shifted(event, skew, now), instance, ids)
        counts["new" if new else "duplicates"] += 1
    _store(conn, ((task, known) for task, known in tasks.items() if known.touched), ids, channel, policy, now)
    if counts["new"]:
        conn.execute("INSERT OR REPLACE INTO mark (name, value) VALUES ('last_event_at', ?)", (now,))
    return Applied(accepted=counts["new"], duplicates=counts["duplicates"], rejected=tuple(rejected))


def _shifted(event: dict[str, Any], skew: int, now: int) -> dict[str, Any]:
    """The event with its times corrected by its instance's skew; a corrected `at` never lies after its arrival."""
    if not skew:
        return event
    moved: dict[str, Any] = {name: event[name] + skew for name in ("at", "eta", "retry_at") if name in event}
    moved["at"] = min(moved["at"], now)
    return {**event, **moved}


def _load(conn: sqlite3.Connection, wanted: set[bytes], ids: InstanceIds) -> dict[bytes, _Known]:
    tasks: dict[bytes, _Known] = {}
    for chunk in _chunks(sorted(wanted)):
        marks = ", ".join("?" * len(chunk))
        for row in conn.execute(f"SELECT * FROM task WHERE id IN ({marks})", chunk):
            tasks[row["id"]] = _Known(row, unpack(row["facts"], ids))
        missing = [task for task in chunk if task not in tasks]
        for task in missing:
            tasks[task] = _Known(None, {})
        if missing:
            marks = ", ".join("?" * len(missing))
            for (task,) in conn.execute(f"SELECT id FROM replay_order WHERE id IN ({marks})", missing):
                tasks[task].order = True
    return tasks


def _chunks(items: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(items), IDS_MAX):
        yield items[start : start + IDS_MAX]


def _may_join(
    conn: sqlite3.Connection, known: _Known, event: dict[str, Any], actor: Actor, channel: int, instance: dict[str, Any] | None
) -> str | None:
    """Why these facts may not be added to this task, or None."""
    if actor.service is not None and event.get("service", actor.service) != actor.service:
        return f"this token speaks for {actor.service}, not for {event['service']}"
    if known.row is None or actor.role == "operator":
        return None
    if known.row["channel"] == channel and (instance is None or actor.service is None):
        return None
    if instance is not None and (_queued(known.cells) or known.order):
        return None
    service = conn.execute("SELECT service FROM type WHERE id = ?", (known.row["type"],)).fetchone()[0]
    if instance is not None and channel == known.row["channel"] and service == instance["service"]:
        return None
    if instance is not None and actor.service is not None and service in (actor.service, UNKNOWN):
        return None
    if instance is not None and actor.channel.startswith("uds:"):
        return None
    return "this task was begun by another service or another way in, and not through a queue"


def _queued(cells: Cells) -> bool:
    return any("queue" in cell["scheduled"].body for cell in cells.values() if "scheduled" in cell)


def _fold(conn: sqlite3.Connection, known: _Known, event: dict[str, Any], instance: str, ids: InstanceIds) -> bool:
    """Fold one event. A fact that arrives twice is compared whole, so its payloads are fetched first (rare)."""
    cell = known.cells.get((event["attempt"], instance), {})
    if not known.full and any(slot in cell for slot in slots_of(event)):
        known.cells = with_payloads(known.cells, ids, payload_rows(conn, blob(event["task"])))
        known.full = True
    before = {slot: cell.get(slot) for slot in slots_of(event)}
    new = fold(known.cells, event, instance or None)
    after = known.cells[event["attempt"], instance]
    known.touched |= {(event["attempt"], instance, slot) for slot in before if before[slot] != after[slot]}
    known.external = event.get("external_id") or known.external
    return new


# --- storing ------------------------------------------------------------------------------------------------------

_UPSERT = """
INSERT INTO task (id, type, environment, channel, state, verdict, settled, loose, flags, attempt, instance,
                  began_at, started_at, ended_at, due_at, check_at, key, incident, facts)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET type = excluded.type, environment = excluded.environment, state = excluded.state,
    flags = excluded.flags, attempt = excluded.attempt, instance = excluded.instance, began_at = excluded.began_at,
    started_at = excluded.started_at, ended_at = excluded.ended_at, due_at = excluded.due_at, check_at = excluded.check_at,
    key = excluded.key, facts = excluded.facts
"""


def _store(
    conn: sqlite3.Connection, tasks: Iterable[tuple[bytes, _Known]], ids: InstanceIds, channel: int, policy: Policy, now: int
) -> None:
    moves = Moves()
    types: dict[tuple[str, str], int] = {}
    rows = []
    for task, known in tasks:
        view = view_of(known.cells)
        old = known.row
        type_ = _type(conn, types, view)
        environment = interned(conn, "environment", view.environment)
        if old is not None:
            moves.add(place_of_row(old), old["environment"], old["type"], -1)
        flags = _flags(view) | (old["flags"] & KEPT if old else 0) | (ORDER if known.order else 0)
        verdict = old["verdict"] if old else None
        settled, loose = (old["settled"], old["loose"]) if old else (None, 0)
        place = place_of(view.began_at, view.state, word(VERDICTS, verdict), settled=settled is not None, loose=bool(loose))
        moves.add(place, environment, type_)
        rows.append(
            (
                *(task, type_, environment, old["channel"] if old else channel),
                *(code(STATES, view.state), verdict, settled, loose),
                *(flags, view.attempt, ids.no(view.instance) if view.instance else None, view.began_at, view.started_at),
                *(view.ended_at, due_of(view, policy), agenda(view, flags, policy, now), view.opening.get("key")),
                *(old["incident"] if old else None, pack(known.cells, ids)),
            )
        )
        keep_payloads(conn, task, known.cells, ids, known.touched)
        _relate(conn, task, known, view)
    conn.executemany(_UPSERT, rows)
    moves.write(conn)


def place_of_row(row: sqlite3.Row) -> Place:
    """Where a stored task is counted now."""
    state, verdict = STATES[row["state"]], word(VERDICTS, row["verdict"])
    return place_of(row["began_at"], state, verdict, settled=row["settled"] is not None, loose=bool(row["loose"]))


def agenda(view: View, flags: int, policy: Policy, now: int) -> int | None:
    """When the detector must look at this task; None: nothing can be wrong with it until something new is heard."""
    if view.name == UNKNOWN and view.ended:
        return now + int(policy.grace * NS)
    if flags & (JUDGED | ORDER) or view.state == "failed" or (view.dropped is not None and not view.ended):
        return now
    if view.ended:
        return None
    return min((at for at in (due_of(view, policy), stall_of(view)) if at is not None), default=None)


def _flags(view: View) -> int:
    names = ("contradiction", "no_start", "redelivered", "ran_twice")
    return sum(1 << FLAGS.index(name) for name in names if getattr(view, name))


def _type(conn: sqlite3.Connection, known: dict[tuple[str, str], int], view: View) -> int:
    key = (view.service, view.name)
    if key not in known:
        conn.execute("INSERT OR IGNORE INTO type (service, name) VALUES (?, ?)", key)
        known[key] = int(conn.execute("SELECT id FROM type WHERE service = ? AND name = ?", key).fetchone()[0])
    return known[key]


def _relate(conn: sqlite3.Connection, task: bytes, known: _Known, view: View) -> None:
    """Keep what does not fit the narrow row: the user's own id, the parent, and the root that an order may settle."""
    if known.external is not None:
        conn.execute("INSERT OR IGNORE INTO external (task, text) VALUES (?, ?)", (task, known.external))
    parent = view.opening.get("parent")
    if parent is not None and _is_id(parent):
        conn.execute("INSERT OR IGNORE INTO child (parent, task) VALUES (?, ?)", (blob(parent), task))


def _is_id(value: str) -> bool:
    return len(value) == 36 and value.count("-") == 4


def cells_of(conn: sqlite3.Connection, row: sqlite3.Row, ids: InstanceIds, *, full: bool) -> Cells:
    """The cells of a stored task; `full` with arguments, results, errors and stacks."""
    cells = unpack(row["facts"], ids)
    return with_payloads(cells, ids, payload_rows(conn, row["id"])) if full else cells


def recorded_body(conn: sqlite3.Connection, task: bytes) -> dict[str, Any] | None:
    """What scheduled and started said about a task, merged, arguments included; plus name, service, environment, state.

    None: no such task.
    """
    row = conn.execute("SELECT * FROM task WHERE id = ?", (task,)).fetchone()
    if row is None:
        return None
    view = view_of(cells_of(conn, row, InstanceIds(conn), full=True))
    named = {"name": view.name, "service": view.service, "environment": view.environment}
    return {**view.opening, **named, "state": view.state, "instance": view.instance, "attempt": view.attempt}


assert len(SLOTS) < 128, "slots are small integers in the blob"
