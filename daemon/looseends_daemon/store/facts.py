"""Folding a batch into the database: facts, view, ledger and the detector's agenda, in the caller's one transaction.

Rules:

1. What a client reported is folded by core/facts; this file only loads, stores and moves the ledger by the difference.
2. A task is put on the detector's agenda (`check_at`) with the time at which something could be wrong with it; at once where
   a judgement stands, where work failed or was dropped, where it is an order or has any, and where its instance is not alive.
3. Facts join a task only from where they may (store/joining.py): the same way in, the same service, or through a queue.
4. Batches that wait together are folded as one where that says the same: loaded once, stored once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from looseends.wire import INT_MAX, NS, Batch, Problem, is_uuid, skew_of
from looseends_daemon.core.detect import due_of, stall_of
from looseends_daemon.core.facts import ENDS, UNKNOWN, Cells, fold, slots_of
from looseends_daemon.core.overlap import is_watched
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import FLAGS, STATES, VERDICTS, Actor, Value
from looseends_daemon.core.stats import Place, place_of
from looseends_daemon.core.view import View, view_of
from looseends_daemon.store import sights
from looseends_daemon.store.blind import note_batch
from looseends_daemon.store.cells import (
    InstanceIds,
    PayloadWrites,
    pack,
    payload_rows,
    payloads_of_cell,
    unpack,
    with_payloads,
)
from looseends_daemon.store.codes import EXPECTED, JUDGED, ORDER, REPLAYED, WITH_PROCESS, blob, code, interned, word
from looseends_daemon.store.counters import Counts, tally
from looseends_daemon.store.durations import Durations
from looseends_daemon.store.expectations import NOT_A_TASK, Expecting
from looseends_daemon.store.instances_owned import OwnershipRefused as OwnershipRefused
from looseends_daemon.store.instances_owned import end_instance as end_instance
from looseends_daemon.store.instances_owned import hear
from looseends_daemon.store.instances_owned import touch_instance as touch_instance
from looseends_daemon.store.joining import Told, may_join, runs_of, used_up
from looseends_daemon.store.ledger import Moves
from looseends_daemon.store.lookups import Lookups
from looseends_daemon.store.outgoing import Outgoing
from looseends_daemon.store.overlap import OVERLAP, watch
from looseends_daemon.store.rows import Rows

IDS_MAX = 500
LATE = 1 << FLAGS.index("late")
TWICE = 1 << FLAGS.index("ran_twice")
KEPT = LATE | TWICE | OVERLAP | JUDGED | ORDER | REPLAYED
"""Flags that folding never takes back: they are judgements, or say what kind of id this is."""


class Applied(Value, frozen=True):
    """What became of a batch: `rejected` are those that the store refused, beside those the wire already refused.

    `warnings` are about events that were taken, and say what the sender may have got wrong.
    """

    accepted: int
    duplicates: int
    rejected: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    orders: int = 0


class _Known:
    """One task while its batch is folded: the stored row (None: new), its cells, and which slots changed.

    `whole`: the cells whose payloads were fetched. `order`: the replay order whose id this task has. `fresh`: slots set for the
    first time.
    """

    __slots__ = ("cells", "external", "fresh", "order", "row", "touched", "whole")

    def __init__(self, row: sqlite3.Row | None, cells: Cells) -> None:
        self.row, self.cells = row, cells
        self.whole: set[tuple[int, str]] = set()
        self.order: sqlite3.Row | None = None
        self.external: str | None = None
        self.touched: set[tuple[int, str, str]] = set()
        self.fresh: list[tuple[int, str, str]] = []


def apply_batch(
    conn: sqlite3.Connection,
    batch: Batch,
    *,
    actor: Actor,
    now: int,
    policy: Policy,
    proven: bool = False,
    heard: bool = True,
    delayed: bool = False,
) -> Applied:
    """Fold a checked batch. `heard` False: a journal is being adopted, its instance itself is silent. `delayed`: see `hear`.

    Raises OwnershipRefused when this caller may not speak for the batch's instance.
    """
    return _fold_run(conn, [Told(batch, actor, now, proven, heard, delayed)], policy)[0]


def apply_batches(conn: sqlite3.Connection, told: Sequence[Told], policy: Policy) -> list[Applied]:
    """Fold batches that wait together, as one where that says the same: what each became, in their order.

    Each costs what many events cost, whatever it holds. Raises OwnershipRefused as soon as one of them may not speak for its
    instance: then they are to be told one by one.
    """
    return [applied for run in runs_of(told) for applied in _fold_run(conn, run, policy)]


def _fold_run(conn: sqlite3.Connection, run: Sequence[Told], policy: Policy) -> list[Applied]:
    """Fold batches of one caller that do not touch each other: loaded once, stored once."""
    ids, now = InstanceIds(conn), max(told.now for told in run)
    blobs = {task: blob(task) for task in {event["task"] for told in run for event in told.batch.events}}
    loaded = _load(conn, set(blobs.values()), ids)
    tasks = {task: loaded[place] for task, place in blobs.items()}  # by its text, as every event has it
    channel = interned(conn, "channel", run[0].actor.channel)
    expecting = Expecting(conn, ids, policy, now)
    found = [_take(conn, told, tasks, ids, expecting, channel, policy) for told in run]
    _store(conn, ((task, known) for task, known in loaded.items() if known.touched), ids, channel, policy, now, expecting)
    if any(applied.accepted for applied in found):
        conn.execute("INSERT OR REPLACE INTO mark (name, value) VALUES ('last_event_at', ?)", (now,))
    sums = {
        "accepted": sum(applied.accepted for applied in found),
        "duplicate": sum(applied.duplicates for applied in found),
        "rejected": sum(len(applied.rejected) for applied in found) + sum(len(told.batch.rejected) for told in run),
    }
    tally(conn, "event", sums)
    return found


def _take(
    conn: sqlite3.Connection,
    told: Told,
    tasks: Mapping[str, _Known],
    ids: InstanceIds,
    expecting: Expecting,
    channel: int,
    policy: Policy,
) -> Applied:
    """Fold the events of one batch into the tasks; nothing is stored yet."""
    batch, actor, now, proven, heard, delayed = told
    instance, skew = "", skew_of(batch.sent_at, now)
    if batch.instance is not None:
        row = hear(conn, batch, actor, now, policy, proven=proven, heard=heard, delayed=delayed)
        instance, skew = row["id"], row["skew"]
        ids.learn(row["no"], instance)
        note_batch(conn, row, ((event.get("seq"), min(event["at"] + skew, now)) for event in batch.events), now)
    new, rejected = 0, []
    for index, event in zip(batch.indexes, batch.events, strict=True):
        known = tasks[event["task"]]
        event = _shifted(event, skew, now)
        if event["type"] == "expected":
            said, why = expecting.expect(event, instance, actor, channel, task_told=bool(known.touched))
        else:
            why = _refusal(conn, known, event, told, channel, expecting)
            said = why is None and _fold(conn, known, event, instance, ids)
        if why is not None:
            rejected.append(Problem(index, "/task", why))
        new += said
    warnings = () if batch.instance is not None else tuple(_unbegun(tasks, batch))
    taken = len(batch.events) - len(rejected)
    return Applied(accepted=new, duplicates=taken - new, rejected=tuple(rejected), warnings=warnings)


def _refusal(
    conn: sqlite3.Connection, known: _Known, event: dict[str, Any], told: Told, channel: int, expecting: Expecting
) -> str | None:
    """Why this event cannot be added to its task, or None."""
    if known.row is None and not known.touched and expecting.holds(blob(event["task"])):
        return NOT_A_TASK
    return may_join(conn, known, event, told.actor, channel, told.batch.instance) or used_up(known.cells, event)


def _unbegun(tasks: Mapping[str, _Known], batch: Batch) -> Iterator[Problem]:
    """Ends told without an instance of tasks that nobody began: most often a mistyped id, and the real one is waited for."""
    for index, event in zip(batch.indexes, batch.events, strict=True):
        known = tasks[event["task"]]
        if event["type"] not in ENDS or not known.touched:
            continue
        if not any("started" in cell or "scheduled" in cell for cell in known.cells.values()):
            yield Problem(index, "/task", "no start is known for this task yet")


def _shifted(event: dict[str, Any], skew: int, now: int) -> dict[str, Any]:
    """The event with its times corrected by its instance's skew; a corrected `at` never lies after its arrival."""
    if not skew:
        return event
    timed = (name for name in ("at", "eta", "retry_at") if name in event)
    # What a sender expects may lie anywhere; corrected it must still be a number the database can hold.
    moved: dict[str, Any] = {name: max(0, min(event[name] + skew, INT_MAX)) for name in timed}
    moved["at"] = min(moved["at"], now)
    return {**event, **moved}


def _load(conn: sqlite3.Connection, wanted: set[bytes], ids: InstanceIds) -> dict[bytes, _Known]:
    tasks: dict[bytes, _Known] = {}
    for chunk in _chunks(sorted(wanted)):
        marks = ", ".join("?" * len(chunk))
        for row in conn.execute(f"SELECT * FROM task WHERE id IN ({marks})", chunk):
            tasks[row["id"]] = _Known(row, unpack(row["facts"], ids))
        tasks.update((task, _Known(None, {})) for task in chunk if task not in tasks)
        asked = [task for task in chunk if (row := tasks[task].row) is None or row["flags"] & ORDER]
        for order in conn.execute(_ORDERS.format(marks=", ".join("?" * len(asked))), asked) if asked else ():
            tasks[order["id"]].order = order
    return tasks


_ORDERS = """
SELECT o.id, o.service, o.environment, o.queue, o.fence, i.id AS claimant, i.channel AS claimant_channel
FROM replay_order o LEFT JOIN instance i ON i.no = o.instance WHERE o.id IN ({marks})
"""


def _chunks(items: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(items), IDS_MAX):
        yield items[start : start + IDS_MAX]


def _fold(conn: sqlite3.Connection, known: _Known, event: dict[str, Any], instance: str, ids: InstanceIds) -> bool:
    """Fold one event. A fact that arrives twice is compared whole, so its payloads are fetched first (rare)."""
    key = (event["attempt"], instance)
    cell = known.cells.get(key, {})
    slots = slots_of(event)
    if len(slots) == 1 and slots[0] not in cell:  # as nearly always: nothing of it was told before
        fold(known.cells, event, instance or None)
        known.touched.add((*key, slots[0]))
        known.fresh.append((*key, slots[0]))
        known.external = event.get("external_id") or known.external
        return True
    if known.row is not None and key not in known.whole and any(slot in cell for slot in slots_of(event)):
        rows = payloads_of_cell(conn, blob(event["task"]), event["attempt"], ids.no(instance))
        known.cells.update(with_payloads({key: cell}, ids, rows))
        known.whole.add(key)
        cell = known.cells[key]
    before = {slot: cell.get(slot) for slot in slots_of(event)}
    new = fold(known.cells, event, instance or None)
    after = known.cells[event["attempt"], instance]
    known.touched |= {(event["attempt"], instance, slot) for slot in before if before[slot] != after[slot]}
    known.fresh += [(event["attempt"], instance, slot) for slot in before if before[slot] is None]
    known.external = event.get("external_id") or known.external
    return new


# --- storing ------------------------------------------------------------------------------------------------------


def _store(
    conn: sqlite3.Connection,
    tasks: Iterable[tuple[bytes, _Known]],
    ids: InstanceIds,
    channel: int,
    policy: Policy,
    now: int,
    expecting: Expecting,
) -> None:
    moves, took, payloads, counts, outgoing = Moves(), Durations(), PayloadWrites(), Counts(), Outgoing(policy, now)
    lookups = Lookups(conn, ids)
    watched: list[tuple[bytes, View, int, int]] = []
    rows = Rows()
    for task, known in tasks:
        view = view_of(known.cells)
        old = known.row
        type_, environment = lookups.type(view), lookups.environment(view)
        if old is not None:
            moves.add(place_of_row(old), old["environment"], old["type"], -1)
            took.add(old, -1)
        flags = _flags(view) | (old["flags"] & KEPT if old else 0) | (0 if known.order is None else ORDER)
        flags |= outgoing.facts(task, view, old)
        counts.facts(known.cells, known.fresh, environment, type_)
        verdict = old["verdict"] if old else None
        settled, loose = (old["settled"], old["loose"]) if old else (None, 0)
        place = place_of(view.began_at, view.state, word(VERDICTS, verdict), settled=settled is not None, loose=bool(loose))
        moves.add(place, environment, type_)
        if view.state == "succeeded":
            took.count(view.began_at, view.started_at, view.ended_at, environment, type_)
        rows.add(
            (
                *(task, type_, environment, old["channel"] if old else channel),
                *(code(STATES, view.state), verdict, settled, loose),
                *(flags, view.attempt, ids.no(view.instance) if view.instance else None, view.began_at, view.started_at),
                *(view.ended_at, due_of(view, policy), now if lookups.is_gone(view) else agenda(view, flags, policy, now)),
                view.opening.get("key"),
                *(old["incident"] if old else None, pack(known.cells, ids, ids.home(type_, environment))),
            ),
            old,
        )
        payloads.keep(task, known.cells, ids, known.touched, known.whole)
        _relate(conn, task, known, view)
        sights.note(conn, view, type_, ids.no(view.instance or ""))
        moved = old is not None and (old["type"], old["environment"]) != (type_, environment)
        expecting.note(task, view, known.cells, order=known.order is not None, moved=moved)
        if is_watched(view, policy):
            watched.append((task, view, type_, environment))
    rows.write(conn)
    payloads.write(conn)
    for one in watched:
        watch(conn, *one)
    moves.write(conn)
    took.write(conn)
    counts.write(conn)
    outgoing.write(conn)


def place_of_row(row: sqlite3.Row) -> Place:
    """Where a stored task is counted now."""
    state, verdict = STATES[row["state"]], word(VERDICTS, row["verdict"])
    expected, settled = bool(row["flags"] & EXPECTED), row["settled"] is not None
    return place_of(row["began_at"], state, verdict, settled=settled, loose=bool(row["loose"]), expected=expected)


def agenda(view: View, flags: int, policy: Policy, now: int) -> int | None:
    """When the detector must look at this task; None: nothing can be wrong with it until something new is heard."""
    if view.name == UNKNOWN and view.ended:
        return now + int(policy.grace * NS)
    if view.with_process:
        return now
    if flags & (JUDGED | ORDER | REPLAYED) or view.state == "failed" or (view.dropped is not None and not view.ended):
        return now
    if view.ended:
        return None
    return min((at for at in (due_of(view, policy), stall_of(view)) if at is not None), default=None)


def _flags(view: View) -> int:
    names = ("contradiction", "no_start", "redelivered", "ran_twice")
    return sum(1 << FLAGS.index(name) for name in names if getattr(view, name)) | (WITH_PROCESS if view.with_process else 0)


def _relate(conn: sqlite3.Connection, task: bytes, known: _Known, view: View) -> None:
    """Keep what does not fit the narrow row: the user's own id, the parent, and the root that an order may settle."""
    if known.external is not None:
        conn.execute("INSERT OR IGNORE INTO external (task, text) VALUES (?, ?)", (task, known.external))
    parent = view.opening.get("parent")
    if parent is not None and is_uuid(parent):
        conn.execute("INSERT OR IGNORE INTO child (parent, task) VALUES (?, ?)", (blob(parent), task))


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
