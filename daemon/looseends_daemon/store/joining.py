"""Who may add facts to which task, and which batches may be folded as one.

Rules:

1. Facts join a task from where it came: the same way in, the same service, or through a queue. Whoever claimed an order tells
   of its task, since a good end of it settles another.
2. Batches are folded as one where that says the same as one after the other: they come from the same caller, no two speak for
   the same instance, and no two tell of the same task, unless neither has an instance.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from looseends.wire import Batch, format_time
from looseends_daemon.core.facts import ENDS, UNKNOWN, Cells
from looseends_daemon.core.resources import Actor
from looseends_daemon.store.codes import EXPECTED
from looseends_daemon.store.expectations import NOT_A_TASK


class Told(NamedTuple):
    """A checked batch, who told it and when (`now`, ns). See facts.apply_batch for the rest."""

    batch: Batch
    actor: Actor
    now: int
    proven: bool = False
    heard: bool = True
    delayed: bool = False


class Known(Protocol):
    """A task as far as it is known: its stored row (None: it is new), its cells, the order that it is."""

    row: sqlite3.Row | None
    cells: Cells
    order: sqlite3.Row | None


def runs_of(told: Iterable[Told]) -> Iterator[list[Told]]:
    """The batches in their order, in runs that may be folded as one."""
    run: list[Told] = []
    instances: set[str] = set()
    tasks: dict[str, bool] = {}
    for one in told:
        instance = one.batch.instance
        told_of = {event["task"] for event in one.batch.events}
        apart = instance is None or instance["id"] not in instances
        shared = tasks.keys() & told_of
        apart = apart and (not shared or (instance is None and not any(tasks[task] for task in shared)))
        if run and not (apart and one.actor == run[0].actor and _is_plain(one) and _is_plain(run[0])):
            yield run
            run, instances, tasks = [], set(), {}
        run.append(one)
        tasks |= dict.fromkeys(told_of, instance is not None)
        if instance is not None:
            instances.add(instance["id"])
    if run:
        yield run


def _is_plain(told: Told) -> bool:
    """Whether it expects nothing: who is expected is looked for among the stored tasks."""
    return all(event["type"] != "expected" for event in told.batch.events)


def may_join(
    conn: sqlite3.Connection, known: Known, event: dict[str, Any], actor: Actor, channel: int, instance: dict[str, Any] | None
) -> str | None:
    """Why these facts may not be added to this task, or None."""
    if known.row is not None and known.row["flags"] & EXPECTED:
        return NOT_A_TASK
    if actor.service is not None and event.get("service", actor.service) != actor.service:
        return f"this token speaks for {actor.service}, not for {event['service']}"
    if actor.role == "operator":
        return None
    if known.order is not None:
        return _may_tell(known.order, channel, instance)
    if known.row is None:
        return None
    if known.row["channel"] == channel and (instance is None or actor.service is None):
        return None
    if instance is not None and _queued(known.cells):
        return None
    service = conn.execute("SELECT service FROM type WHERE id = ?", (known.row["type"],)).fetchone()[0]
    if instance is not None and channel == known.row["channel"] and service == instance["service"]:
        return None
    if instance is not None and actor.service is not None and service in (actor.service, UNKNOWN):
        return None
    if instance is not None and actor.channel.startswith("uds:"):
        return None
    return "this task was begun by another service or another way in, and not through a queue"


def _may_tell(order: sqlite3.Row, channel: int, instance: dict[str, Any] | None) -> str | None:
    """Why this caller may not tell of an order's task, or None: its good end settles another task, so not everybody may."""
    if order["fence"] == 0:
        return "this is the id of an order that nobody was given, so nobody can have run it"
    if instance is None:
        return "this is the id of an order: only the instances of its service tell of it"
    if order["queue"] is not None or order["claimant"] in (None, instance["id"]):
        return None
    theirs = (instance["service"], instance["environment"]) == (order["service"], order["environment"])
    if theirs and channel == order["claimant_channel"]:
        return None
    return "this is the id of an order that was given to another service or another way in"


def _queued(cells: Cells) -> bool:
    """The worker may be heard before the producer: either of them says that it came through a queue."""
    return any("queue" in cell[slot].body for cell in cells.values() for slot in ("scheduled", "started") if slot in cell)


def used_up(cells: Cells, event: dict[str, Any]) -> str | None:
    """Why this start cannot begin this task: somebody's own id that has ended already would hide every later run of it."""
    if event["type"] != "started" or "external_id" not in event:
        return None
    mine = [cell for (attempt, _), cell in cells.items() if attempt == event["attempt"]]
    ends = [cell[kind].at for cell in mine for kind in ENDS if kind in cell]
    if not ends or event["at"] <= max(ends):
        return None
    return f"{event['external_id']} ended {format_time(max(ends))[:16]}; use a fresh id per run"
