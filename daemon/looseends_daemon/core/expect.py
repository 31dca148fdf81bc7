"""Expectations: "this must begin". Which task met which of them, and whether one was missed. Pure.

Rules:

1. An expectation is no task. It is met in time by a task of its environment and name (and key, parent or trace, where it
   asks for one) that began from 5 s before its time to `within` after. Replays meet none.
2. Each task meets one expectation at most, and each expectation is met by one task. As many as possible are met; where
   there are too few tasks, the earlier expectation goes before the later. Which are met depends on the facts alone, never
   on the order in which they came: the greedy set of a matching is the same, however one augments to it.
3. A task that is left over meets late the newest expectation before it that nothing met. That one stays missed; it is
   settled once the task ended well.
4. `missed` needs all of: its time has passed; the daemon has been up and unfrozen for `grace`; every live instance of the
   environment has told all it knows. What fell into a time in which the daemon was down is judged `within` after its return.
5. A task that is told late, but began in time, takes the verdict back: nothing was missed, so nothing stays in the ledger.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from looseends.wire import NS, uuid8
from looseends_daemon.core.clocks import corrected
from looseends_daemon.core.detect import BEHIND_LOOK_S, Finding, World, within_of
from looseends_daemon.core.facts import Cells
from looseends_daemon.core.policy import AfterRule
from looseends_daemon.core.resources import Value
from looseends_daemon.core.view import View
from looseends_daemon.core.words import span

EARLY_NS = 5 * NS
ANY = ""
"""The mark that every task bears; others read "key:order-7", "parent:<id>", "trace:<id>"."""
BY = ("key", "parent", "trace")


class Expectation(Value, frozen=True):
    """One expectation: any task that bears `mark` must begin about `at` (ns), at most `within` (ns) later."""

    id: str
    at: int
    within: int
    mark: str = ANY

    @property
    def until(self) -> int:
        """The last moment at which it is met in time (ns)."""
        return self.at + self.within


class Begun(Value, frozen=True):
    """A task as expectations see it: when it began (ns) and every mark it bears."""

    id: str
    began_at: int
    marks: frozenset[str] = frozenset((ANY,))


class Meeting(Value, frozen=True):
    """The task that met an expectation; `well`: it ended well."""

    task: str
    began_at: int
    late: bool
    well: bool = False


class CronRule(Value, frozen=True):
    """One `[[expect]] cron`: a task `name` must begin within so many seconds after each due minute."""

    environment: str
    service: str
    name: str
    cron: str
    tz: str
    within: float


# --- what is expected, and what began ------------------------------------------------------------------------------


def marks_of(task: str, view: View) -> frozenset[str]:
    """Everything by which an expectation may ask for this task."""
    said = {"key": view.opening.get("key"), "parent": view.opening.get("parent"), "trace": view.opening.get("trace_id")}
    return frozenset((ANY, *(f"{by}:{value}" for by, value in said.items() if value is not None)))


def mark_of(view: View) -> str:
    """What an expectation asks for beside the name. A rule's own mark wins over the key."""
    told = view.opening.get("mark")
    if told is not None:
        return str(told)
    key = view.opening.get("key")
    return ANY if key is None else f"key:{key}"


def expectation_of(task: str, view: View) -> Expectation:
    """An expectation from what its facts say."""
    return Expectation(id=task, at=view.began_at, within=within_of(view.opening), mark=mark_of(view))


def after_started(rule: AfterRule, task: str, view: View, cells: Cells) -> tuple[str, dict[str, Any], int] | None:
    """(id, body, at in ns) of what the start of this task lets `rule` expect; None: nothing, or not yet.

    A task that only waits has not begun its work; and without the key or trace that is asked for nothing could be met.
    """
    if (rule.after, rule.environment) != (view.name, view.environment) or rule.service not in (None, view.service):
        return None
    starts = [cell["started"].at for cell in cells.values() if "started" in cell]
    value = {"key": view.opening.get("key"), "parent": task, "trace": view.opening.get("trace_id")}[rule.by]
    if not starts or value is None:
        return None
    body = {"name": rule.name, "service": view.service, "environment": rule.environment, "within": rule.within}
    body |= {"mark": f"{rule.by}:{value}", "after": rule.after, "parent": task}
    if rule.by == "key":
        body["key"] = value
    return follower_id(rule, task), body, min(starts)


def follower_id(rule: AfterRule, task: str) -> str:
    """The id of what `rule` expects after this task: one for each, however often its facts arrive."""
    return _derived_id(rule.environment, rule.after, rule.name, rule.by, task)


def at_minute(rule: CronRule, at: int) -> tuple[str, dict[str, Any]]:
    """(id, body) of what `rule` expects at a due minute (ns). The same minute has the same id, however often it is made."""
    body = {"name": rule.name, "service": rule.service, "environment": rule.environment, "within": rule.within}
    return _derived_id(rule_digest(rule), str(at)), {**body, "cron": rule.cron}


def rule_digest(rule: CronRule) -> str:
    """What makes a rule the same rule after a restart: all but its patience."""
    return _derived_id(rule.environment, rule.service, rule.name, rule.cron, rule.tz)


def _derived_id(*parts: str) -> str:
    # NUL parts the texts: none of them may hold it, and no client can send it, so nobody else can make this id of words.
    return uuid8(sha256("\0".join(("expected", *parts)).encode()).digest())


# --- pairing ------------------------------------------------------------------------------------------------------


def pair_in_time(expectations: Iterable[Expectation], tasks: Iterable[Begun]) -> dict[str, str]:
    """Expectation -> the task that met it in time (rules 1 and 2). Pairs go in order of time where there is a choice."""
    begun = sorted(tasks, key=lambda task: (task.began_at, task.id))
    times = [task.began_at for task in begun]
    wanted = sorted(expectations, key=lambda one: (one.at, one.id))
    fitting: dict[str, list[str]] = {}
    met: dict[str, str] = {}
    holder: dict[str, str] = {}
    for one in wanted:
        near = begun[bisect_left(times, one.at - EARLY_NS) : bisect_right(times, one.until)]
        fitting[one.id] = [task.id for task in near if one.mark in task.marks]
        _augment(one.id, fitting, met, holder)
    return met


def _augment(start: str, fitting: Mapping[str, Sequence[str]], met: dict[str, str], holder: dict[str, str]) -> None:
    """Find `start` a task, asking those who hold one to take another; whoever is met once stays met."""
    asked = deque([start])
    came: dict[str, str] = {}
    while asked:
        one = asked.popleft()
        for task in fitting[one]:
            if task in came:
                continue
            came[task] = one
            if task in holder:
                asked.append(holder[task])
                continue
            _hand_over(start, task, came, met, holder)
            return


def _hand_over(start: str, task: str, came: Mapping[str, str], met: dict[str, str], holder: dict[str, str]) -> None:
    while True:
        one = came[task]
        given_up = met.get(one)
        met[one], holder[task] = task, one
        if one == start or given_up is None:
            return
        task = given_up


def pair_late(unmet: Iterable[Expectation], left_over: Iterable[Begun]) -> dict[str, str]:
    """Expectation -> the task that met it late (rule 3); both have no partner in time."""
    waiting = sorted(unmet, key=lambda one: (one.at, one.id))
    met: dict[str, str] = {}
    for task in sorted(left_over, key=lambda task: (task.began_at, task.id)):
        fits = [one for one in waiting if one.until < task.began_at and one.mark in task.marks]
        if fits:
            met[fits[-1].id] = task.id
            waiting.remove(fits[-1])
    return met


# --- judging ------------------------------------------------------------------------------------------------------


def due_at(one: Expectation, world: World) -> int:
    """When it may be called missed (ns): after its time, and `within` after every blind time that it fell into meanwhile."""
    due = until_by_todays_clock(one, world)
    for down, back in world.blind:
        if down <= due and one.at - EARLY_NS <= back:
            due = max(due, back + one.within)
    return due


def until_by_todays_clock(one: Expectation, world: World) -> int:
    """The last moment in time, where the wall clock may have been set since it was expected (ns)."""
    return corrected(one.until, one.at, world.now, world.jumps) or one.until


def find(one: Expectation, view: View, meeting: Meeting | None, world: World, *, void: str = "") -> Finding:
    """Is it missed at `world.now`? `void`: in words, why nothing was expected after all."""
    if void:
        return Finding(reason=f"nothing was expected: {void}")
    until = until_by_todays_clock(one, world)
    if meeting is not None and (not meeting.late or meeting.began_at <= until):
        words = f"it began in time after all, at {moment(meeting.began_at)}, and was told late: task {meeting.task}"
        return Finding(reason=words)
    if world.now < until:
        return Finding(reason=f"it is expected until {moment(until)} now", check_at=until)
    due = max(due_at(one, world), world.ready_at)
    if world.now < due:
        return Finding(check_at=due, known=False)
    if not world.queue_caught_up:
        return Finding(check_at=world.now + int(BEHIND_LOOK_S * NS), known=False)
    return Finding(verdict="missed", reason=_missed(one, view, meeting), settles=_settles(meeting))


def _missed(one: Expectation, view: View, meeting: Meeting | None) -> str:
    after = f", after {view.opening['after']}," if "after" in view.opening else ""
    seen = "never seen" if meeting is None else f"it began too late, at {moment(meeting.began_at)}"
    return f"expected at {moment(one.at)}{after} within {span(one.within / NS)}, {seen}"


def _settles(meeting: Meeting | None) -> str:
    if meeting is None or not meeting.well:
        return ""
    return f"it began late, at {moment(meeting.began_at)}, and ended well: task {meeting.task}"


def moment(at: int) -> str:
    """Nanoseconds -> "02:00" (UTC), with seconds only where there are any: what is due by cron is due on the minute."""
    seconds = at // NS
    hour, minute, second = seconds // 3600 % 24, seconds // 60 % 60, seconds % 60
    return f"{hour:02d}:{minute:02d}" + (f":{second:02d}" if second else "")
