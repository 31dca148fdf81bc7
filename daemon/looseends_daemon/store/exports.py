"""What waits to be exported, with all that its records say: one read of a bounded number of tasks.

Rules: a task that retention took meanwhile has no record any more; its rows are named in `gone`. Parents are followed PARENTS_MAX
generations up to find the trace; deeper down a trace of their own begins.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from looseends_daemon.core.resources import Value
from looseends_daemon.core.spans import Ids, Known, Log, Span, log_of, parent_id, span_id, span_of, told_ids, trace_of
from looseends_daemon.core.view import View, view_of
from looseends_daemon.store.cells import InstanceIds, numbers, unpack, with_payloads
from looseends_daemon.store.codes import ORDER, blob, text
from looseends_daemon.store.outgoing import OWN_SPAN
from looseends_daemon.store.packed import learnt
from looseends_daemon.store.questions import Question

PARENTS_MAX = 16


class Waiting(Value, frozen=True):
    """The next records of a signal, each with the number of its row; `gone`: rows that cannot be told any more."""

    records: tuple[tuple[int, Span | Log], ...] = ()
    gone: tuple[int, ...] = ()


class _Row(Value, frozen=True):
    id: str
    views: dict[int, View]
    attempt: int
    order: bool


def waiting(signal: str, now: int, limit: int) -> Question[Waiting]:
    """What of a signal (span or log) is due, the oldest first."""
    rows = yield _DUE, (signal, now, limit)
    wanted = {row["task"]: row["attempt"] for row in rows}
    ids = InstanceIds()
    found = yield from _tasks(set(wanted), ids, errors=True)
    orders = yield from _originals([task for task, row in found.items() if row.order])
    above = yield from _ancestors({**found, **dict(orders.values())}, ids)
    known = {**above, **dict(orders.values()), **found}
    instances = yield from _instances(ids)
    records: list[tuple[int, Span | Log]] = []
    gone = []
    for row in rows:
        task = found.get(row["task"])
        if task is None:
            gone.append(row["n"])
            continue
        original = orders.get(row["task"])
        view = task.views.get(row["attempt"]) or task.views[task.attempt]
        told = Known(
            id=task.id,
            view=view,
            parent=_parent(view, task.id, known),
            replays=None if original is None else _own(original[1], known),
            instance=instances.get(view.instance or "", {}),
        )
        made = (
            span_of(told, row["at"], row["detail"]) if signal == "span" else log_of(told, row["kind"], row["at"], row["detail"])
        )
        records.append((row["n"], made))
    return Waiting(records=tuple(records), gone=tuple(gone))


_DUE = "SELECT n, task, attempt, kind, at, detail FROM outgoing WHERE signal = ? AND due_at <= ? ORDER BY n LIMIT ?"


def _tasks(wanted: set[bytes], ids: InstanceIds, *, errors: bool = False) -> Question[dict[bytes, _Row]]:
    marks = ", ".join("?" * len(wanted))
    rows = yield f"SELECT id, attempt, flags, facts FROM task WHERE id IN ({marks})", tuple(wanted)
    yield from learnt(ids, (row["facts"] for row in rows))
    unknown = {no for row in rows for no in numbers(row["facts"])}
    if unknown:
        named = yield f"SELECT no, id FROM instance WHERE no IN ({', '.join('?' * len(unknown))})", tuple(unknown)
        for one in named:
            ids.learn(one["no"], one["id"])
    said: dict[bytes, list[tuple[str, bytes]]] = {}
    if errors and wanted:
        payloads = yield f"SELECT task, slot, data FROM payload WHERE task IN ({marks}) AND slot LIKE '%/failed'", tuple(wanted)
        for one in payloads:
            said.setdefault(one["task"], []).append((one["slot"], one["data"]))
    return {row["id"]: _row(row, ids, said.get(row["id"], [])) for row in rows}


def _row(row: sqlite3.Row, ids: InstanceIds, payloads: list[tuple[str, bytes]]) -> _Row:
    """Each attempt as it stood: a later one says nothing about the span of an earlier one."""
    cells = with_payloads(unpack(row["facts"], ids), ids, payloads)
    attempts = sorted({number for number, _ in cells})
    views = {n: view_of({key: cell for key, cell in cells.items() if key[0] <= n}) for n in attempts}
    return _Row(id=text(row["id"]), views=views, attempt=row["attempt"], order=bool(row["flags"] & ORDER))


def _originals(replays: list[bytes]) -> Question[dict[bytes, tuple[bytes, _Row]]]:
    """Of each replay what it runs again: its id and row."""
    if not replays:
        return {}
    rows = yield f"SELECT id, task FROM replay_order WHERE id IN ({', '.join('?' * len(replays))})", tuple(replays)
    found = yield from _tasks({row["task"] for row in rows}, InstanceIds())
    return {row["id"]: (row["task"], found[row["task"]]) for row in rows if row["task"] in found}


def _ancestors(known: dict[bytes, _Row], ids: InstanceIds) -> Question[dict[bytes, _Row]]:
    """The tasks above these that place them in a trace."""
    found: dict[bytes, _Row] = {}
    looking = known
    for _ in range(PARENTS_MAX):
        parents = {blob(p) for row in looking.values() for view in row.views.values() if (p := parent_id(view.opening))}
        wanted = parents - known.keys() - found.keys()
        if not wanted:
            break
        looking = yield from _tasks(wanted, ids)
        found.update(looking)
    return found


def _parent(view: View, task: str, known: dict[bytes, _Row], depth: int = 0) -> Ids:
    """The span that a task was begun in: (trace, span), span 0 where it begins its trace."""
    told = told_ids(view.opening)
    if told is not None:
        return told
    above = parent_id(view.opening)
    row = known.get(blob(above)) if above is not None and depth < PARENTS_MAX else None
    return (trace_of(task), 0) if row is None else _own(row, known, depth + 1)


def _own(row: _Row, known: dict[bytes, _Row], depth: int = 0) -> Ids:
    """The span of a task itself."""
    view = row.views[max(row.views)]
    told = told_ids(view.opening)
    if view.opening.get("source") == OWN_SPAN and told is not None:
        return told
    return _parent(view, row.id, known, depth)[0], span_id(row.id, row.attempt)


def _instances(ids: InstanceIds) -> Question[dict[str, dict[str, Any]]]:
    wanted = [name for name in ids.known() if name]
    if not wanted:
        return {}
    rows = yield f"SELECT id, release, host, pid FROM instance WHERE id IN ({', '.join('?' * len(wanted))})", tuple(wanted)
    return {row["id"]: dict(row) for row in rows}
