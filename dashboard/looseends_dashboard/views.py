"""Rows to what a page lists: the equation, loose ends by cause, timelines, lineage and orders.

Rules: pure functions of resources; what a list leaves out is counted by whoever shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from looseends.wire import NS
from looseends_daemon.core.resources import HistoryEntry, Incident, Ledger, ReplayItem, Task, Value
from looseends_daemon.core.titles import bare_reason
from looseends_dashboard import words
from looseends_dashboard.links import href, term
from looseends_dashboard.marks import Mark, mark, problem, spoken

GROUPS_MAX = 20
WHY_LINES_MAX = 100


class Term(Value, frozen=True):
    """One number of the equation, with the tasks behind it; `settled` of them need nobody any more."""

    word: str
    value: int
    kind: str
    href: str
    settled: int = 0


class Step(Value, frozen=True):
    """One line of the timeline. `since` is the time since the line before, in seconds."""

    at: int
    judgement: bool
    title: str
    reason: str
    attempt: int
    instance: str | None
    by: str | None
    since: float | None


class Group(Value, frozen=True):
    """Loose ends of one cause, in words."""

    mark: Mark
    title: str
    cause: str
    names: str
    count: int
    first: int
    last: int
    href: str
    incident: str | None


_FACTS = {
    "scheduled": "Scheduled",
    "started": "Started",
    "progress": "Progress",
    "finished": "Finished",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "dropped": "Dropped before its end",
    "expected": "Expected",
    "verdict": "Judged",
    "overruled": "Verdict overruled",
    "settled": "Settled",
    "loose": "Became a loose end",
    "withdrawn": "Verdict withdrawn",
    "dismissed": "Dismissed",
    "restored": "Dismissal taken back",
}


def equation(ledger: Ledger, only: str = "") -> list[Term]:
    """began = succeeded + failed + cancelled + in time + unaccounted: six counted numbers, each with its tasks.

    `only` is a term that narrows all of them.
    """
    rows = (
        ("Began", ledger.tasks, "", ""),
        ("Succeeded", ledger.succeeded, "ended", "state:succeeded"),
        ("Failed", ledger.failed, "failed", "state:failed"),
        ("Cancelled", ledger.cancelled, "ended", "state:cancelled"),
        ("In time", ledger.in_time, "running", "is:open -is:gap"),
        ("Unaccounted", ledger.gap, "loose", "is:gap"),
    )
    settled = {"Failed": ledger.settled.get("failed", 0), "Unaccounted": ledger.settled.get("gap", 0)}
    return [
        Term(word=w, value=v, kind=k, href=href(f"{q} {only}".strip(), ledger.from_, ledger.to), settled=settled.get(w, 0))
        for w, v, k, q in rows
    ]


# --- needs a look -------------------------------------------------------------------------------------------------


def groups(tasks: Iterable[Task]) -> list[Group]:
    """Open loose ends by cause: what a lost process took with it, else type and problem. Worst and largest first."""
    piles: dict[tuple[str, ...], list[Task]] = {}
    for task in tasks:
        piles.setdefault(_cause_key(task), []).append(task)
    drawn = [_group(pile) for pile in piles.values()]
    return sorted(drawn, key=lambda group: (group.mark.kind != "loose", -group.count, -group.last))[:GROUPS_MAX]


def _cause_key(task: Task) -> tuple[str, ...]:
    instance = task.instance.id if task.instance is not None else ""
    if task.verdict == "lost" and instance:
        return task.environment, task.service, "lost", instance
    return task.environment, task.service, problem(task), "", task.name


def _group(pile: Sequence[Task]) -> Group:
    newest = pile[0]
    begun = [task.began_at for task in pile if task.began_at is not None] or [0]
    names = sorted({task.name for task in pile})
    same = {task.incident for task in pile}
    return Group(
        mark=mark(newest),
        title=_group_title(newest, len(pile)),
        cause=_cause(pile),
        names=", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        count=len(pile),
        first=min(begun),
        last=max(begun),
        href=f"/tasks/{quote(newest.id)}" if len(pile) == 1 else href(_group_query(newest)),
        incident=newest.incident if len(same) == 1 else None,
    )


_UNBEGUN = ("; it had not started", "; its next attempt had not begun")
"""What the reason of lost work says of the one task alone."""


def _cause(pile: Sequence[Task]) -> str:
    """What is true of all of them: where some had started and others had not, they are counted."""
    newest = pile[0]
    reason = bare_reason(newest.reason or (f"{newest.error.type}: {newest.error.message}" if newest.error else ""))
    if newest.verdict != "lost" or len({task.reason for task in pile}) == 1:
        return words.short(reason, 160)
    for said in _UNBEGUN:
        reason = reason.replace(said, "")
    waiting = sum(task.started_at is None for task in pile)
    return words.short(reason, 120) + (f"; {waiting} of {len(pile)} had not started" if waiting else "")


def _group_title(task: Task, count: int) -> str:
    if task.verdict == "lost" and task.instance is not None:
        process = f"process {task.instance.pid}" if task.instance.pid is not None else "a process"
        host = f" on {task.instance.host}" if task.instance.host else ""
        return f"{words.plural(count, 'task')} lost with {process}{host} of {task.service}"
    return f"{words.plural(count, 'task')} {spoken(problem(task))}: {task.name}"


def _group_query(task: Task) -> str:
    asked = ["is:loose", term("service", task.service)]
    asked.append(term("verdict", task.verdict) if task.verdict else term("state", task.state))
    if task.verdict == "lost" and task.instance is not None:
        asked.append(term("instance", task.instance.id))
    else:
        asked.append(term("name", task.name))
    return " ".join(word for word in asked if word)


# --- history and incidents ----------------------------------------------------------------------------------------


def timeline(history: Sequence[HistoryEntry]) -> list[Step]:
    """Facts and judgements as lines, each with the time since the one before."""
    steps: list[Step] = []
    for entry in history:
        title = _FACTS.get(entry.what, spoken(entry.what).capitalize())
        steps.append(
            Step(
                at=entry.at,
                judgement=entry.kind == "judgement",
                title=f"{title} {spoken(entry.verdict)}" if entry.what == "verdict" else title,
                reason=entry.reason or "",
                attempt=entry.attempt,
                instance=entry.instance,
                by=entry.by,
                since=(entry.at - steps[-1].at) / NS if steps else None,
            )
        )
    return steps


class WhyLine(Value, frozen=True):
    """One transition of an incident: when, what, and the reason that was stored with it."""

    at: int | None
    title: str
    detail: str


def why_lines(incident: Incident) -> list[WhyLine]:
    """The named reason of every transition, oldest first."""
    lines = []
    for entry in incident.why[-WHY_LINES_MAX:]:
        at = entry.get("at")
        title = spoken(str(entry.get("reason") or entry.get("what") or entry.get("state") or "changed"))
        lines.append(
            WhyLine(
                at=at if isinstance(at, int) else None,
                title=title[:1].upper() + title[1:],
                detail=str(entry.get("detail") or entry.get("words") or ""),
            )
        )
    return lines


class Kin(Value, frozen=True):
    """A task in the same chain of replays. `mark` is None where no fact of it is stored."""

    relation: str
    id: str
    mark: Mark | None
    at: int | None


def kin(relation: str, task_id: str, task: Task | None) -> Kin:
    """One link of the lineage."""
    if task is None:
        return Kin(relation=relation, id=task_id, mark=None, at=None)
    return Kin(relation=relation, id=task_id, mark=mark(task), at=task.began_at)


class OrderRow(Value, frozen=True):
    """One order of a replay with its mark and what its state means."""

    item: ReplayItem
    mark: Mark
    meaning: str


ORDERS = {
    "waiting": ("▹", "running", "Waits until a live instance takes it."),
    "claimed": ("▸", "running", "A live instance has taken it and will start it at once."),
    "handed_over": ("▸", "running", "It was handed to the queue it came from."),
    "running": ("▸", "running", "The new task is running."),
    "succeeded": ("✓", "ended", "The new task ended well: the recorded one is settled."),
    "ran": ("✓", "ended", "A person found that it ran."),
    "failed": ("✕", "failed", "The new task failed as well."),
    "gap": ("◌", "loose", "The new task has no end either."),
    "refused": ("✕", "failed", "The instance refused to run it."),
    "expired": ("⊘", "failed", "It was not taken, and will not be run."),
    "cancelled": ("⊘", "ended", "It was called off."),
    "did_not_run": ("✕", "failed", "A person found that it did not run."),
    "blocked": ("⊘", "failed", "Something stands in the way, so no order was made."),
    "outcome_unknown": ("◌", "loose", "Its taker is gone and the new task was never seen: it may have run or not."),
}


def order_rows(items: Iterable[ReplayItem]) -> list[OrderRow]:
    """The orders of a replay, each with its state in words."""
    rows = []
    for item in items:
        glyph, kind, meaning = ORDERS.get(item.state, ("⊘", "ended", ""))
        rows.append(OrderRow(item=item, mark=Mark(glyph=glyph, word=spoken(item.state), kind=kind), meaning=meaning))
    return rows
