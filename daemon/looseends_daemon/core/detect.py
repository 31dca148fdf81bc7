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

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from looseends.wire import INT_MAX, NEVER, NS
from looseends_daemon.core.clocks import Jump, corrected
from looseends_daemon.core.loops import is_loop
from looseends_daemon.core.policy import HOUR_S, Policy
from looseends_daemon.core.resources import Value
from looseends_daemon.core.view import View
from looseends_daemon.core.words import clock, span

RETRY_WAIT_S = HOUR_S
EXPECTED_WITHIN_S = 60.0
"""Where an `expected` event does not say `within`."""
BEHIND_LOOK_S = 1.0
BEHIND_LOOK_S_MAX = 60.0
"""How often to look at work whose instance has not told all it knows: the longer it has been due, the more rarely. Whoever
hears of the instance has it looked at again at once."""
HEARTBEAT_WITH_FUNCTIONS_S = 1.0
"""How often an instance speaks that can run something again: it is told of orders in the answers."""
SEEN_S = 10.0
"""A look at where a task hangs that is older than this is told with its time."""
LOOP_LAG_MS = 1_000.0
"""An event loop that took this long to turn may be why what waits in it is late."""
HEARTBEAT_SLACK = 1.5
TRAVEL_S = 0.5
CATCH_UP_S = 0.25
"""How long those whom we kept waiting may take to tell what happened meanwhile."""

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

    `caught_up`: nothing it knows is still on its way (alive: what it said last was said since the daemon's start,
    heartbeat not overdue, backlog 0; gone: backlog 0 or its journal adopted). `reason` says in words how its end is known.
    `back_at`: when it spoke again after it had been overdue (ns); 0: it never was.
    """

    id: str
    state: str
    reason: str = ""
    last_heard_at: int = 0
    started_at: int | None = None
    ended_at: int | None = None
    caught_up: bool = True
    back_at: int = 0
    behind_since: int | None = None
    missing: int = 0
    loop_lag_ms: float | None = None


def overdue_after(has_functions: bool, heartbeat_every: float) -> int:
    """How long after its last word an instance is overdue with the next (ns), by its own rhythm."""
    rhythm = min(HEARTBEAT_WITH_FUNCTIONS_S, heartbeat_every) if has_functions else heartbeat_every
    return int((rhythm * HEARTBEAT_SLACK + TRAVEL_S) * NS)


class World(Value, frozen=True):
    """Everything a verdict rests on besides the task: `ready_at` is when the daemon has been up and unfrozen for `grace`.

    `queue_caught_up`: every live instance of the environment is caught up (what a queue's task rests on, and an expectation).
    `blind`: from and to of the times in which the daemon did not hear, in order. `jumps`: when the wall clock was set.
    `held_up`: from and to of the latest time in which whoever spoke to us had to wait for an answer, as for a slow disk.
    `ends_alone`: the type of this task was seen to finish by itself, so it is no loop.
    """

    now: int
    ready_at: int
    instances: Mapping[str, InstanceNow] = {}
    queue_caught_up: bool = True
    blind: tuple[tuple[int, int], ...] = ()
    jumps: tuple[Jump, ...] = ()
    held_up: tuple[int, int] | None = None
    ends_alone: bool = True


class Belied(Value, frozen=True):
    """What a verdict waited for happened in time after all: when (ns), and what it was in words."""

    at: int
    words: str


class Finding(Value, frozen=True):
    """The answer: a verdict with its reason in words, or None; and when to ask again (ns).

    `known` False: something it rests on is not heard yet, so an earlier verdict neither falls nor is confirmed. `settles`: in
    words, why a verdict that stands needs nobody any more (of expectations only: what was expected began late and ended well).
    `ends_at`: a loop ended with its process then, which is a fact to be added; `lives_on`: its process lives, take that back.
    `belied`: the verdicts that its facts contradict by now, whoever gave them: what they waited for had happened in time.
    """

    verdict: str | None = None
    reason: str = ""
    check_at: int | None = None
    known: bool = True
    settles: str = ""
    ends_at: int | None = None
    lives_on: bool = False
    belied: Mapping[str, Belied] = {}


def due_of(view: View, policy: Policy) -> int | None:
    """When a running task is past its deadline, or a scheduled or retrying one must have begun; None: never."""
    due = _due(view, policy)
    return None if due is None else min(due, INT_MAX)


def _due(view: View, policy: Policy) -> int | None:
    if view.state == "running":
        return _end_due(view, policy)
    if view.state == "scheduled" and view.scheduled_at is not None:
        return _start_due(view, policy, view.scheduled_at)
    if view.state == "retrying" and view.ended_at is not None:
        limit = policy.starting(view.service, view.name, view.opening.get("start_within"), _waits_its_turn(view))
        retry_at = view.end.get("retry_at") or view.ended_at + int(RETRY_WAIT_S * NS)
        return int(retry_at) + int((HOUR_S if limit == NEVER else limit) * NS)
    if view.expected:
        return view.began_at + within_of(view.opening)
    return None


def _end_due(view: View, policy: Policy) -> int | None:
    limit = policy.deadline(view.service, view.name, view.opening.get("deadline"), view.declared)
    return None if limit == NEVER else _running_since(view) + int(limit * NS)


def _start_due(view: View, policy: Policy, scheduled_at: int) -> int | None:
    limit = policy.starting(view.service, view.name, view.opening.get("start_within"), _waits_its_turn(view))
    return None if limit == NEVER else max(scheduled_at, view.opening.get("eta") or 0) + int(limit * NS)


def within_of(body: Mapping[str, Any]) -> int:
    """How long after its time what is expected may begin (ns)."""
    return int(body.get("within", EXPECTED_WITHIN_S) * NS)


def _running_since(view: View) -> int:
    """Its start; where that is not here, the latest word of it, so that nothing is waited for for ever."""
    if view.started_at is not None:
        return view.started_at
    return max((fact.at for fact in (view.progress, view.stack) if fact is not None), default=view.began_at)


def _waits_its_turn(view: View) -> bool:
    """Work in a queue starts when a worker is free. A hook that knows better says `start_within`."""
    return view.opening.get("queue") is not None


def judge(view: View, world: World, policy: Policy) -> Finding:
    """The verdict on a task at `world.now`, by the rules above, and which verdicts its facts belie."""
    found, belied = _judge(view, world, policy), dict(_belied(view, world, policy))
    return msgspec.structs.replace(found, belied=belied) if belied else found


def _belied(view: View, world: World, policy: Policy) -> Iterator[tuple[str, Belied]]:
    """Rests on the facts of the head alone, so it does not matter when they were told."""
    if view.started_at is None:
        return
    began, ended = view.started_at, None if view.with_process else view.ended_at
    if view.scheduled_at is not None and _is_by(began, _start_due(view, policy, view.scheduled_at), view.scheduled_at, world):
        yield "never_started", Belied(at=began, words="begun")
    if ended is not None and _is_by(ended, _end_due(view, policy), began, world):
        yield "stuck", Belied(at=ended, words="ended")
    moved = None if view.progress is None else view.progress.at
    first, last = _stall_due(view, began), _stall_due(view, began if moved is None else max(moved, began))
    if first is None or (moved is not None and not _is_by(moved, first, began, world)):
        return  # which progress it made in between is not kept
    if ended is not None and _is_by(ended, last, began, world):
        yield "stalled", Belied(at=ended, words="ended")
    elif view.ended_at is None and moved is not None and _is_by(world.now + 1, last, moved, world):
        yield "stalled", Belied(at=moved, words="made progress")


def _is_by(at: int, due: int | None, told_at: int, world: World) -> bool:
    due = corrected(due, told_at, world.now, world.jumps)
    return due is None or at <= due


def _judge(view: View, world: World, policy: Policy) -> Finding:
    who = world.instances.get(view.instance) if view.instance and _bound(view) else None
    if view.ended:
        return Finding(lives_on=view.with_process and view.dropped is None and who is not None and who.state == "alive")
    if view.dropped is not None:
        return Finding(ends_at=view.dropped_at) if _is_loop(view, world) else _dropped(view)
    if world.now < world.ready_at:
        return Finding(check_at=world.ready_at, known=False)
    if who is None or who.state == "alive":
        return _overdue(view, who, world, policy)
    ended_at = world.now if who.ended_at is None else who.ended_at
    if not _settled_news(who, world, policy):
        return _not_yet(ended_at, world)
    return Finding(ends_at=ended_at) if _is_loop(view, world) else _lost(view, who)


def _is_loop(view: View, world: World) -> bool:
    who = world.instances.get(view.instance) if view.instance else None
    return who is not None and is_loop(view, process_started_at=who.started_at, ends_alone=world.ends_alone)


def _not_yet(since: int, world: World) -> Finding:
    """What it rests on has not told all it knows."""
    pause = min(max((world.now - since) // 4, int(BEHIND_LOOK_S * NS)), int(BEHIND_LOOK_S_MAX * NS))
    return Finding(check_at=world.now + pause, known=False)


def _bound(view: View) -> bool:
    """Running work is bound to its instance, and a loop that ended with it; other work only while no queue holds it."""
    return view.state == "running" or view.with_process or view.opening.get("queue") is None


def _dropped(view: View) -> Finding:
    words = DROPPED_WORDS.get(view.dropped or "", view.dropped or "")
    at = f"; seen at {clock(view.dropped_at)}" if view.dropped_at is not None else ""
    if view.state == "scheduled":
        return Finding(verdict="never_started", reason=f"never started: {words}{at}")
    return Finding(verdict="lost", reason=f"lost in mid-task: {words}{at}")


def _lost(view: View, who: InstanceNow) -> Finding:
    where = {"running": "", "scheduled": "; it had not started", "retrying": "; its next attempt had not begun"}[view.state]
    return Finding(verdict="lost", reason=f"{who.reason}{where}{_behind(who)}{_redelivery(view)}")


def _redelivery(view: View) -> str:
    """Some brokers keep a message until its task has ended; the hook that knows says so by a tag."""
    tags = view.opening.get("tags") or {}
    return "; the broker may still redeliver it" if tags.get("redelivery") == "possible" else ""


def _behind(who: InstanceNow | None) -> str:
    """What to say of an instance that was judged although it has not told all it knows."""
    if who is None or who.caught_up:
        return ""
    if who.missing:
        records = "1 record of this instance is" if who.missing == 1 else f"{who.missing} records of this instance are"
        return f"; it may have ended: {records} missing"
    return f"; it may have ended: its instance was last heard {clock(who.last_heard_at)}"


def _settled_news(who: InstanceNow, world: World, policy: Policy) -> bool:
    """Whether an instance has told all it knows, or has been behind for so long that we stop waiting."""
    if who.caught_up:
        return True
    return who.behind_since is not None and world.now - who.behind_since >= int(policy.behind_after * NS)


def _overdue(view: View, who: InstanceNow | None, world: World, policy: Policy) -> Finding:
    due = corrected(due_of(view, policy), _told_at(view), world.now, world.jumps)
    stall = corrected(stall_of(view), view.progress.at if view.progress else view.started_at, world.now, world.jumps)
    waiting = min((at for at in (due, stall) if at is not None and at > world.now), default=None)
    passed = [at for at in (due, stall) if at is not None and at <= world.now]
    if not passed:
        return Finding(check_at=waiting)
    known = _settled_news(who, world, policy) if who is not None else _queue_known(view, world)
    if not known:
        return _not_yet(min(passed), world)
    if world.held_up is not None and _is_held_up(min(passed), world.held_up, world.now):
        return Finding(check_at=world.held_up[1] + int(CATCH_UP_S * NS), known=False)
    if who is not None and _is_just_back(who, min(passed), world, policy):
        return Finding(check_at=who.back_at + int(policy.grace * NS), known=False)
    if due is not None and due <= world.now:
        return _past_due(view, due, who, policy, world.now)
    return Finding(verdict="stalled", reason=_stalled_words(view, world.now), check_at=waiting)


def _is_held_up(due: int, held_up: tuple[int, int], now: int) -> bool:
    """Whether its end may wait behind a request that we were slow to answer: an instance has one under way at a time."""
    wait = int(CATCH_UP_S * NS)
    return due > held_up[0] - wait and now < held_up[1] + wait


def _is_just_back(who: InstanceNow, due: int, world: World, policy: Policy) -> bool:
    """Whether its instance stood still (a stopped process, a machine far too busy) and had no time since to end what was due.

    Its first word comes from a thread of its own, and may be faster than the end of the work that was held up with it. Who
    stands still again and again is judged all the same once the work has been due for `behind_after`.
    """
    return world.now < who.back_at + int(policy.grace * NS) and world.now - due < int(policy.behind_after * NS)


def _told_at(view: View) -> int | None:
    """When what its due time counts from was told, by the clock of that day."""
    if view.state == "running":
        return _running_since(view)
    return view.scheduled_at if view.state == "scheduled" else view.ended_at


def _queue_known(view: View, world: World) -> bool:
    return world.queue_caught_up or view.opening.get("queue") is None


def stall_of(view: View) -> int | None:
    """When a running task that promised progress has made none for too long; None: it promised none."""
    if view.state != "running" or view.started_at is None:
        return None
    moved = view.progress.at if view.progress is not None else view.started_at
    return _stall_due(view, max(moved, view.started_at))


def _stall_due(view: View, moved: int) -> int | None:
    within = view.opening.get("progress_within")
    return None if within is None or within == NEVER else moved + int(within * NS)


def _stalled_words(view: View, now: int) -> str:
    within = span(view.opening["progress_within"])
    last = f"; last at {clock(view.progress.at)}" if view.progress else " of its start"
    return f"{_where(view, 'stalled', now)}no progress within {within}{last}"


def _where(view: View, verdict: str, now: int) -> str:
    """Where it hung when it was looked at last: `stuck in mail.py:88 send -> httpx read; `. Nothing where nobody could look."""
    where = view.stack.body.get("where") if view.stack is not None else None
    if view.stack is None or where is None:
        return ""
    seen = f" (seen at {clock(view.stack.at)})" if now - view.stack.at > int(SEEN_S * NS) else ""
    return f"{verdict} in {where}{seen}; "


def _held_up(who: InstanceNow | None, where: str) -> str:
    """What the lag of its event loop adds, where the stack did not say it better."""
    if who is None or who.loop_lag_ms is None or who.loop_lag_ms < LOOP_LAG_MS or "event loop" in where:
        return ""
    return f"; its event loop was held up for {span(who.loop_lag_ms / 1000)}"


def _past_due(view: View, due: int, who: InstanceNow | None, policy: Policy, now: int) -> Finding:
    where = _where(view, "stuck", now)
    behind = _held_up(who, where) + _behind(who)
    if view.state == "running":
        limit = span(policy.deadline(view.service, view.name, view.opening.get("deadline"), view.declared))
        alive = "its process is alive" if who is not None else "no process is known for it"
        return Finding(verdict="stuck", reason=f"{where}no end within {limit}; {alive}{behind}")
    if view.state == "retrying":
        return Finding(verdict="never_started", reason=f"its next attempt was due by {clock(due)} and has not begun{behind}")
    return Finding(verdict="never_started", reason=f"scheduled, but had not begun by {clock(due)}{behind}")
