"""A recorded task as the rules of replay see it: read from its own row, its process, its function and its chain of orders.

Rules: everything a verdict rests on is read in one transaction. For the page that is one consistent read; for the act it is the
transaction that makes the order, so nothing can change between the verdict and the order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

import aiosqlite
import msgspec

from looseends_daemon.core.judgements import ended_well
from looseends_daemon.core.orders import shown
from looseends_daemon.core.replay import Offer, Recorded, Replayability, Sibling, decide, is_allowed
from looseends_daemon.core.resources import SETTLEMENTS, STATES, VERDICTS, Value
from looseends_daemon.core.view import View, view_of
from looseends_daemon.store.cells import InstanceIds
from looseends_daemon.store.codes import EXPECTED, text, word
from looseends_daemon.store.facts import cells_of
from looseends_daemon.store.instances import live_instances, offers
from looseends_daemon.store.questions import Question, ask, ask_async

WELL = ("finished_late", "retried", "replayed")
"""Settlements by which the work was done; a dismissal is none."""
SIBLINGS_MAX = 200


class Source(Value, frozen=True):
    """A recorded task with what an order for it must carry."""

    task: bytes
    root: bytes
    depth: int
    recorded: Recorded


# A later task of the same type and key that ended well, replays of this very chain apart (128: store/codes.py ORDER).
_KEY_DONE = """t.key IS NOT NULL AND EXISTS (SELECT 1 FROM task later WHERE later.key = t.key AND later.type = t.type
        AND later.environment = t.environment AND later.state = 3 AND later.began_at > t.began_at AND later.id != t.id
        AND NOT (later.flags & 128 AND EXISTS (SELECT 1 FROM replay_order o WHERE o.id = later.id
            AND o.root = coalesce(r.root, t.id))))"""
_AROUND = f"""
    SELECT t.id, t.verdict, t.settled, t.flags, i.state AS instance_state, i.host, i.pid, i.proven, f.name AS offered,
        f.signature, f.code, r.root, r.depth, {_KEY_DONE} AS key_done
    FROM task t JOIN type y ON y.id = t.type LEFT JOIN instance i ON i.no = t.instance
        LEFT JOIN function f ON f.instance = t.instance AND f.name = y.name
        LEFT JOIN replay_order r ON r.id = t.id
    WHERE t.id IN (?)"""


class Around:
    """What many tasks share, asked once: who offers their functions, and how many instances of their services live."""

    def __init__(self) -> None:
        self._offers: dict[tuple[str, str], list[Offer]] = {}
        self._live: dict[tuple[str, str], int] = {}

    def offers(self, name: str, environment: str) -> Question[list[Offer]]:
        """The live registrations of a name."""
        if (name, environment) not in self._offers:
            self._offers[name, environment] = yield from offers(name, environment)
        return self._offers[name, environment]

    def live(self, service: str, environment: str) -> Question[int]:
        """How many instances of a service live."""
        if (service, environment) not in self._live:
            self._live[service, environment] = yield from live_instances(service, environment)
        return self._live[service, environment]


def source(task: bytes, view: View) -> Question[Source | None]:
    """The recorded task as the rules see it; None: there is no such task. `view` is what its facts say, arguments included."""
    return (yield from sources({task: view}, Around())).get(task)


def sources(views: Mapping[bytes, View], around: Around) -> Question[dict[bytes, Source]]:
    """The same of at most 500 tasks at once; those that are there no more are left out."""
    marks = ", ".join("?" * len(views))
    rows = yield _AROUND.replace("IN (?)", f"IN ({marks})"), list(views)
    chains = yield from _chains(sorted({bytes(row["root"] or row["id"]) for row in rows}))
    found = {}
    for row in rows:
        task, view = bytes(row["id"]), views[row["id"]]
        root, depth = bytes(row["root"] or task), row["depth"] or 0
        live = yield from around.live(view.service, view.environment)
        chain = tuple(sibling for sibling in chains.get(root, ()) if sibling.order != text(task))[-SIBLINGS_MAX:]
        found[task] = Source(task=task, root=root, depth=depth, recorded=_recorded(row, view, chain, live))
    return found


def _recorded(row: sqlite3.Row, view: View, chain: tuple[Sibling, ...], live: int) -> Recorded:
    said = view.opening
    return Recorded(
        name=view.name,
        service=view.service,
        environment=view.environment,
        queue=said.get("queue"),
        state=view.state,
        verdict=word(VERDICTS, row["verdict"]),
        ended_well=ended_well(view) or word(SETTLEMENTS, row["settled"]) in WELL or _met(row),
        dropped=view.dropped is not None,
        redelivers=(said.get("tags") or {}).get("redelivery") == "possible",
        key_succeeded=bool(row["key_done"]),
        instance_state=row["instance_state"],
        where=_where(row),
        args=said.get("args"),
        not_replayable_because=said.get("not_replayable_because"),
        signature=row["signature"],
        code=said.get("code") or row["code"],
        offered=None if row["instance_state"] is None else row["offered"] is not None,
        proven=bool(row["proven"]),
        siblings=chain,
        depth=row["depth"] or 0,
        live_instances=live,
    )


def _met(row: sqlite3.Row) -> bool:
    """An expectation that was met in time after all: another task does its work."""
    return bool(row["flags"] & EXPECTED) and row["verdict"] is None


def source_now(conn: sqlite3.Connection, task: bytes) -> Source | None:
    """The same inside a writing transaction, facts and all."""
    view = view_now(conn, task)
    return None if view is None else ask(conn, source(task, view))


def view_now(conn: sqlite3.Connection, task: bytes) -> View | None:
    """What the facts of a task say, arguments included; None: there is no such task."""
    row = conn.execute("SELECT * FROM task WHERE id = ?", (task,)).fetchone()
    return None if row is None else view_of(cells_of(conn, row, InstanceIds(conn), full=True))


def went_well(conn: sqlite3.Connection, tasks: Iterable[bytes]) -> bool:
    """Whether one of these tasks ended well, itself or through a later attempt or replay."""
    for task in set(tasks):
        row = conn.execute("SELECT settled FROM task WHERE id = ?", (task,)).fetchone()
        view = view_now(conn, task) if row is not None else None
        if view is not None and (ended_well(view) or word(SETTLEMENTS, row["settled"]) in WELL):
            return True
    return False


def _where(row: sqlite3.Row) -> str:
    if row["instance_state"] is None:
        return "no process is known for it"
    host = row["host"] or "an unnamed host"
    place = host if row["pid"] is None else f"{host}, pid {row['pid']}"
    return place if row["instance_state"] == "alive" else f"{place}, {row['instance_state']}"


def _chains(roots: list[bytes]) -> Question[dict[bytes, list[Sibling]]]:
    """The orders of each of these chains that has any, oldest first."""
    marks = ", ".join("?" * len(roots))
    rows = yield (
        "SELECT o.id, o.root, o.state, t.state AS task_state, t.verdict FROM replay_order o LEFT JOIN task t ON t.id = o.id"
        f" WHERE o.root IN ({marks}) ORDER BY o.created_at",
        roots,
    )
    found: dict[bytes, list[Sibling]] = {}
    for row in rows:
        sibling = Sibling(order=text(row["id"]), state=shown_state(row), verdict=word(VERDICTS, row["verdict"]))
        found.setdefault(bytes(row["root"]), []).append(sibling)
    return found


def shown_state(row: sqlite3.Row) -> str:
    """The state people see, from a row with an order's `state` and its new task's `task_state` and `verdict`."""
    return shown(row["state"], word(STATES, row["task_state"]), word(VERDICTS, row["verdict"]))


def replayable(
    found: Source, edited: Mapping[str, Any] | None = None, without: str | None = None, around: Around | None = None
) -> Question[Replayability]:
    """May it run again now? `without`: an order of the chain that is being decided right now and is not counted. `around`: what
    was asked already of the tasks beside it."""
    task = found.recorded
    if without is not None:
        left = tuple(sibling for sibling in task.siblings if sibling.order != without)
        task = msgspec.structs.replace(task, siblings=left)
    able = yield from (around or Around()).offers(task.name, task.environment)
    return decide(task, able, edited)


def allowed(found: Source) -> Question[bool]:
    """What a notice says of it: its author allowed a replay and its arguments are whole. Whether one can run now changes."""
    return is_allowed(found.recorded, (yield from offers(found.recorded.name, found.recorded.environment)))


async def replayability(conn: aiosqlite.Connection, task: bytes, view: View) -> tuple[bool, str | None]:
    """(replayable, not_replayable_because) of a task resource. What only needs a person's word counts as replayable."""

    def question() -> Question[Replayability | None]:
        found = yield from source(task, view)
        return None if found is None else (yield from replayable(found))

    verdict = await ask_async(conn, question())
    if verdict is None:
        return False, "there is no such task"
    if verdict.answer == "blocked":
        return False, "; ".join(reason.words for reason in verdict.reasons)
    return True, None


def lineage(task: bytes) -> Question[tuple[str | None, list[str]]]:
    """(replay_of, replays) of a task: what it runs again, and the orders made for it, oldest first."""
    made = yield "SELECT task FROM replay_order WHERE id = ?", (task,)
    orders = yield "SELECT id FROM replay_order WHERE task = ? ORDER BY created_at LIMIT ?", (task, SIBLINGS_MAX)
    return (text(made[0]["task"]) if made else None), [text(row["id"]) for row in orders]
