"""Is this task accounted for at `now`? A pure function of its facts, the world and the policy.

Rules:

1. The answer depends on nothing that happened before: same facts, same world, same `now` -> same verdict. Overruling is
   therefore no second mechanism: when the answer changes, the old verdict is overruled.
2. A verdict needs all of: its time has passed; the daemon has been up and unfrozen for `grace` (`ready_at`); and the
   instances it rests on are caught up: nothing that they know is still on its way. Who stays behind for `behind_after` is
   judged all the same, and the reason says so.
3. A client that reports its own loss (`dropped`) is believed at once.
4. The worst applicable verdict is given: lost, stuck, stalled, never_started.
5. `check_at` says when to ask again; None: only a new fact or news of an instance can change the answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from looseends.wire import NEVER, NS
from looseends_daemon.core.facts import View
from looseends_daemon.core.policy import HOUR_S, Policy
from looseends_daemon.core.resources import Value
from looseends_daemon.core.words import clock, span

RETRY_WAIT_S = HOUR_S
BEHIND_LOOK_S = 1.0
HEARTBEAT_SLACK = 1.5

DROPPED_WORDS = {
    "loop_shutdown": "its event loop was shut down before it ended",
    "collected": "it was garbage-collected before it ended: nobody held a reference",
    "exit": "its process ended before it did",
    "neighbour_raised": "an earlier background task of the same response raised, so this one was never run",
    "request_failed": "its request failed after it was scheduled, so it was never run",
    "response_replaced": "the response it was attached to was replaced, so it was never run",
    "pool_broken": "its worker pool broke",
}


class InstanceNow(Value, frozen=True):
    """What is known about an instance at `now`.

    `caught_up`: nothing it knows is still on its way (alive: heard since the daemon's start, heartbeat not overdue, backlog
    0; gone: backlog 0 or its journal adopted). `reason` says in words how its end is known.
    """

    id: str
    state: str
    reason: str = ""
    last_heard_at: int = 0
    caught_up: bool = True
    behind_since: int | None = None
    missing: int = 0


class World(Value, frozen=True):
    """Everything a verdict rests on besides the task: `ready_at` is when the daemon has been up and unfrozen for `grace`.

    `queue_caught_up`: every live instance of the environment is caught up (what a queue's task rests on).
    """

    now: int
    ready_at: int
    instances: Mapping[str, InstanceNow] = {}
    queue_caught_up: bool = True


class Finding(Value, frozen=True):
    """The answer: a verdict with its reason in words, or None; and when to ask again (ns).

    `known` False: something it rests on is not heard yet, so an earlier verdict neither falls nor is confirmed.
    """

    verdict: str | None = None
    reason: str = ""
    check_at: int | None = None
    known: bool = True


def due_of(view: View, policy: Policy) -> int | None:
    """When a running task is past its deadline, or a scheduled or retrying one must have begun; None: never."""
    if view.state == "running" and view.started_at is not None:
        limit = policy.deadline(view.service, view.name, view.opening.get("deadline"), view.declared)
        return None if limit == NEVER else view.started_at + int(limit * NS)
    if view.state == "scheduled" and view.scheduled_at is not None:
        limit = policy.starting(view.service, view.name, view.opening.get("start_within"), _waits_its_turn(view))
        first = max(view.scheduled_at, view.opening.get("eta") or 0)
        return None if limit == NEVER else first + int(limit * NS)
    if view.state == "retrying" and view.ended_at is not None:
        limit = policy.starting(view.service, view.name, view.opening.get("start_within"), _waits_its_turn(view))
        retry_at = view.end.get("retry_at") or view.ended_at + int(RETRY_WAIT_S * NS)
        return int(retry_at) + int((HOUR_S if limit == NEVER else limit) * NS)
    return None


def _waits_its_turn(view: View) -> bool:
    """Work in a queue starts when a worker is free. A hook that knows better says `start_within`."""
    return view.opening.get("queue") is not None


def judge(view: View, world: World, policy: Policy) -> Finding:
    """The verdict on a task at `world.now`, by the rules above."""
    if view.ended:
        return Finding()
    if view.dropped is not None:
        return _dropped(view)
    if world.now < world.ready_at:
        return Finding(check_at=world.ready_at, known=False)
    who = world.instances.get(view.instance) if view.instance and _bound(view) else None
    if who is not None and who.state != "alive":
        gone = _lost(view, who)
        if _settled_news(who, world, policy):
            return gone
        return Finding(check_at=world.now + int(BEHIND_LOOK_S * NS), known=False)
    return _overdue(view, who, world, policy)


def _bound(view: View) -> bool:
    """Running work is bound to its instance; scheduled or retrying work only while no queue holds it."""
    return view.state == "running" or view.opening.get("queue") is None


def _dropped(view: View) -> Finding:
    words = DROPPED_WORDS.get(view.dropped or "", view.dropped or "")
    at = f" at {clock(view.dropped_at)}" if view.dropped_at is not None else ""
    if view.started_at is None:
        return Finding(verdict="never_started", reason=f"never started: {words}{at}")
    return Finding(verdict="lost", reason=f"lost in mid-task: {words}{at}")


def _lost(view: View, who: InstanceNow) -> Finding:
    where = {"running": "", "scheduled": "; it had not started", "retrying": "; its next attempt had not begun"}[view.state]
    behind = f"; it may have ended: {who.missing} records of this instance are missing" if not who.caught_up else ""
    return Finding(verdict="lost", reason=f"{who.reason}{where}{behind}")


def _settled_news(who: InstanceNow, world: World, policy: Policy) -> bool:
    """Whether an instance has told all it knows, or has been behind for so long that we stop waiting."""
    if who.caught_up:
        return True
    return who.behind_since is not None and world.now - who.behind_since >= int(policy.behind_after * NS)


def _overdue(view: View, who: InstanceNow | None, world: World, policy: Policy) -> Finding:
    due = due_of(view, policy)
    stall = stall_of(view)
    waiting = min((at for at in (due, stall) if at is not None and at > world.now), default=None)
    passed = [at for at in (due, stall) if at is not None and at <= world.now]
    if not passed:
        return Finding(check_at=waiting)
    known = _settled_news(who, world, policy) if who is not None else _queue_known(view, world)
    if not known:
        return Finding(check_at=world.now + int(BEHIND_LOOK_S * NS), known=False)
    if due is not None and due <= world.now:
        return _past_due(view, due, who, policy)
    return Finding(verdict="stalled", reason=_stalled_words(view), check_at=waiting)


def _queue_known(view: View, world: World) -> bool:
    return world.queue_caught_up or view.opening.get("queue") is None


def stall_of(view: View) -> int | None:
    """When a running task that promised progress has made none for too long; None: it promised none."""
    within = view.opening.get("progress_within")
    if view.state != "running" or view.started_at is None or within is None or within == NEVER:
        return None
    moved = view.progress.at if view.progress is not None else view.started_at
    return max(moved, view.started_at) + int(within * NS)


def _stalled_words(view: View) -> str:
    within = span(view.opening["progress_within"])
    return f"no progress within {within}" + (f"; last at {clock(view.progress.at)}" if view.progress else " of its start")


def _past_due(view: View, due: int, who: InstanceNow | None, policy: Policy) -> Finding:
    behind = "" if who is None or who.caught_up else "; it may have ended: its instance is behind with its records"
    if view.state == "running":
        limit = span(policy.deadline(view.service, view.name, view.opening.get("deadline"), view.declared))
        alive = "its process is alive" if who is not None else "no process is known for it"
        return Finding(verdict="stuck", reason=f"no end within {limit}; {alive}{behind}")
    if view.state == "retrying":
        return Finding(verdict="never_started", reason=f"its next attempt was due by {clock(due)} and has not begun{behind}")
    return Finding(verdict="never_started", reason=f"scheduled, but had not begun by {clock(due)}{behind}")
