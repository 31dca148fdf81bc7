"""A plan to run many recorded tasks again: what was chosen, what was said of each, and what has changed since. Pure.

Rules:

1. A plan is frozen: the list, what was said of each task, and a seal of what it was said of: arguments, signature, and where a
   person's word is needed about them, the caution and the code. The digest covers all of it; a run names the digest it was
   shown, so nobody starts what he has not seen.
2. A plan is run once. What has changed since it was made is told, not run.
3. What a run leaves out is part of its report: nothing that was chosen is forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from looseends.wire import NOTE_CHARS_MAX, NS, canonical
from looseends_daemon.core import pace
from looseends_daemon.core.arguments import wrong_arguments
from looseends_daemon.core.pace import Rule
from looseends_daemon.core.replay import CONFIRMABLE, NO_LIVE_INSTANCE, NOT_OPTED_IN, Reason, Replayability
from looseends_daemon.core.resources import Actor, CommandRefused, Page, Replay, Value

PLAN_TASKS_MAX = 100_000
NAMED_TASKS_MAX = 500
"""Tasks that may be named one by one; more are chosen by a query."""
PLAN_S_MAX = 3_600.0
"""A plan is good for an hour: who comes back from lunch looks again."""
CHANGES_SHOWN_MAX = 20
HOLDING = (NO_LIVE_INSTANCE, NOT_OPTED_IN)
"""What passes by itself when a service is started anew: a run waits, it does not give the task up."""
ANSWERS = ("ready", "confirm", "blocked")
UNHEARD = "unheard"
"""The state of a new task of which nothing was heard yet: there is none to look at."""
UNSEALED = "since the plan was made its arguments changed, or the signature, the code or the caution of its function"


class Selection(Value, frozen=True):
    """What was chosen: by a query in a window, by name, or all loose ends of an incident. `edit`: arguments for the one task."""

    q: str | None = None
    from_: int | None = msgspec.field(default=None, name="from")
    to: int | None = None
    tasks: tuple[str, ...] = ()
    incident: str | None = None
    edit: dict[str, Any] | None = None

    def described(self) -> dict[str, Any]:
        """As it was asked for, without what was not and without the arguments."""
        given = {"q": self.q, "from_at": self.from_, "to_at": self.to, "tasks": list(self.tasks), "incident": self.incident}
        return {name: value for name, value in given.items() if value not in (None, [])}


class Wish(Value, frozen=True):
    """How a plan is to be run. `digest` is the one that was shown; `confirm`: the reasons a person waves through."""

    plan: str
    digest: str
    confirm: tuple[str, ...] = ()
    rule: Rule = Rule()
    note: str = ""


class PlanReason(Value, frozen=True):
    """One reason that was met in a plan: of how many tasks, and the words of the first of them."""

    name: str
    answer: str
    tasks: int
    words: str


class Plan(Value, frozen=True):
    """A frozen list of tasks to run again. `state` is open, expired or run; `replay` is the run that was made of it; `searched`
    says how far back its query looked, where it did not look everywhere."""

    id: str
    state: str
    made_by: str
    made_at: int
    expires_at: int
    digest: str
    selection: dict[str, Any]
    counts: dict[str, int]
    edited: bool = False
    args: Any = None
    reasons: list[PlanReason] = msgspec.field(default_factory=list)
    searched: str | None = None
    replay: str | None = None
    url: str | None = None


class PlanItem(Value, frozen=True):
    """One task of a plan and what was said of it when the plan was made."""

    n: int
    task: str
    name: str | None
    key: str | None
    began_at: int | None
    answer: str
    reasons: list[Reason] = msgspec.field(default_factory=list)


class Side(Value, frozen=True):
    """One run of the work, as a report shows it: what it was given and what came of it. `id` is the task's."""

    id: str
    state: str
    verdict: str | None = None
    args: Any = None
    result: Any = None
    error: Any = None


class RunItem(Value, frozen=True):
    """One task of a replay: the recorded one and, where an order was made, the new one beside it. `state` is the order's,
    `blocked` (with why in `detail`), `waiting` or `cancelled`."""

    n: int
    task: str
    name: str | None
    key: str | None
    state: str
    detail: str | None = None
    edited: bool = False
    old: Side | None = None
    new: Side | None = None


class Run(Value, frozen=True):
    """How a planned replay is paced and how far it is. `why`: why it is paused or waits; `remaining` in seconds, an estimate."""

    plan: str
    confirm: list[str]
    canary: int
    per_second: float
    in_flight: int
    stop_after_failures: int
    pending: int
    flying: int
    over: int
    canary_passed: bool
    why: str | None = None
    remaining: float | None = None


class PlanReader(Protocol):
    """The read side of plans and runs, as routes and pages see it."""

    async def plan(self, plan_id: str) -> Plan | None: ...
    async def plan_items(
        self, plan_id: str, *, answer: str | None = None, reason: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[PlanItem] | None:
        """In the order they began. None: no such plan. Raises ValueError for a made-up cursor."""
        ...

    async def run_items(
        self, replay_id: str, *, state: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[RunItem] | None:
        """Everything that was chosen, old beside new. None: no such replay. Raises ValueError for a made-up cursor."""
        ...


class PlanCommands(Protocol):
    """The acts on plans and runs. Every one is audited; all raise CommandRefused with the way out."""

    async def make_plan(self, selection: Selection, actor: Actor) -> Plan: ...
    async def start_replay(self, wish: Wish, actor: Actor) -> Replay: ...
    async def steer(self, replay_id: str, act: str, actor: Actor) -> Replay:
        """`act` is pause, resume or cancel."""
        ...


# --- what is asked for --------------------------------------------------------------------------------------------


def check_selection(asked: Selection) -> None:
    """Raises CommandRefused 422 for what cannot be chosen."""
    ways = [asked.q is not None or asked.from_ is not None or asked.to is not None, bool(asked.tasks), asked.incident is not None]
    if sum(ways) != 1:
        raise _wrong('choose by "q" with "from" and "to", or by "tasks", or by "incident": one of the three')
    if len(asked.tasks) > NAMED_TASKS_MAX:
        raise _wrong(f"at most {NAMED_TASKS_MAX} tasks can be named; choose more by a query")
    if asked.from_ is not None and asked.to is not None and asked.from_ >= asked.to:
        raise _wrong("from must lie before to")
    if asked.edit is not None and len(asked.tasks) != 1:
        raise _wrong("edit takes the arguments of one task: name that one in tasks")
    wrong = wrong_arguments(asked.edit) if asked.edit is not None else None
    if wrong is not None:
        raise _wrong(f"edit {wrong}")


def check_wish(wish: Wish) -> None:
    """Raises CommandRefused 422, with what is allowed."""
    rule = wish.rule
    for name, value, low, high in (
        ("canary", rule.canary, 0, pace.CANARY_MAX),
        ("per_second", rule.per_second, pace.PER_SECOND_MIN, pace.PER_SECOND_MAX),
        ("in_flight", rule.in_flight, 1, pace.IN_FLIGHT_MAX),
        ("stop_after_failures", rule.stop_after_failures, 0, pace.STOP_AFTER_MAX),
    ):
        if not low <= value <= high:
            raise _wrong(f"{name} is from {low} to {high}, not {value}")
    for reason in wish.confirm:
        if reason not in CONFIRMABLE:
            raise _wrong(f"confirm takes {', '.join(CONFIRMABLE)}, not {reason[:60]!r}")
    if len(wish.note) > NOTE_CHARS_MAX:
        raise _wrong(f"a note is at most {NOTE_CHARS_MAX} characters")


def _wrong(words: str) -> CommandRefused:
    return CommandRefused(422, "This cannot be planned", [words])


# --- what is frozen -----------------------------------------------------------------------------------------------


class Judged(Value, frozen=True):
    """One task with what was said of it, and the seal of what it was said of."""

    task: bytes
    answer: str
    reasons: tuple[Reason, ...]
    seal: bytes


def judged(task: bytes, verdict: Replayability, args: Any) -> Judged:
    """Freeze a verdict with the arguments it would run with."""
    return Judged(task=task, answer=verdict.answer, reasons=verdict.reasons, seal=seal(args, verdict))


def seal(args: Any, verdict: Replayability) -> bytes:
    """16 bytes that change with the arguments, the signature an order would be made for, and what the doubts rest on."""
    return hashlib.sha256(canonical([args, verdict.signature, list(verdict.rests_on)]).encode()).digest()[:16]


class Digest:
    """The digest of a plan, item by item in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"looseends replay plan 1\n")

    def add(self, item: Judged) -> None:
        """Take the next item in."""
        names = ",".join(reason.name for reason in item.reasons)
        self._hash.update(item.task + item.seal + f"{item.answer} {names}\n".encode())

    @property
    def text(self) -> str:
        """64 hexadecimal digits."""
        return self._hash.hexdigest()


class Tally:
    """How often each reason was met, with the words of the first; `counts` by answer."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("total", *ANSWERS), 0)
        self._met: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, item: Judged) -> None:
        """Count one item."""
        self.counts["total"] += 1
        self.counts[item.answer] += 1
        for reason in {reason.name: reason for reason in item.reasons}.values():
            number, words = self._met.get((item.answer, reason.name), (0, reason.words))
            self._met[item.answer, reason.name] = number + 1, words

    def reasons(self) -> list[PlanReason]:
        """What was met, what blocks last, most often first."""
        met = [
            PlanReason(name=name, answer=answer, tasks=number, words=words)
            for (answer, name), (number, words) in self._met.items()
        ]
        return sorted(met, key=lambda reason: (ANSWERS.index(reason.answer), -reason.tasks, reason.name))


# --- what it takes, and what has changed --------------------------------------------------------------------------


def takes(answer: str, reasons: Iterable[Reason], confirm: Sequence[str]) -> bool:
    """Whether a run with these confirmed reasons takes a task of which this was said."""
    return answer == "ready" or (answer == "confirm" and all(reason.name in confirm for reason in reasons))


def changed(before: Judged, after: Judged | None) -> str | None:
    """What is different about a task since its plan was made, in words; None: nothing that matters."""
    if after is None:
        return "it is no longer stored"
    if after.answer == "blocked":
        return "; ".join(reason.words for reason in after.reasons)
    new = [reason.words for reason in after.reasons if reason.name not in {known.name for known in before.reasons}]
    if new:
        return "; ".join(new)
    if after.seal != before.seal:
        return UNSEALED
    return None


def may_hold(reasons: Iterable[Reason]) -> bool:
    """Whether all that stands in the way is that nobody lives to take it, as while a service is started anew."""
    return all(reason.name in HOLDING for reason in reasons)


def expires(made_at: int) -> int:
    """Until when (ns) a plan made then can be run."""
    return made_at + int(PLAN_S_MAX * NS)


def edited_from(text: str | None) -> Mapping[str, Any] | None:
    """The stored `edit` of a plan."""
    return None if text is None else msgspec.json.decode(text.encode(), type=dict[str, Any])
