"""The "Why?" box of a task: the six questions one asks when background work did not happen, answered from what was recorded.

Rules: pure functions; an answer names its evidence; `telling` marks those that explain it, at least one where anything was
recorded that does; where nothing is known it says so and does not guess.
"""

from __future__ import annotations

from collections.abc import Sequence

from looseends.wire import NS
from looseends_daemon.core.resources import HistoryEntry, Instance, Task, Value
from looseends_dashboard import words
from looseends_dashboard.marks import spoken


class Answer(Value, frozen=True):
    """One question of the diagnosis. `telling`: this is an answer that explains it. `href`: where its evidence is."""

    question: str
    answer: str
    telling: bool = False
    href: str = ""


_DROPPED = {
    "loop shutdown": "Yes: its event loop was shut down before it ended.",
    "collected": "Yes: nobody kept a reference to it, so it was garbage-collected before it ended.",
    "exit": "Yes: the program came to its end while it was still open.",
    "neighbour raised": "Yes: a background task before it in the same response raised, and the rest was dropped.",
    "request failed": "Yes: the request that had scheduled it failed, so its background work was dropped.",
    "response replaced": "Yes: the response that carried it was replaced by another one, and its background work with it.",
    "pool broken": "Yes: the pool that held it broke.",
}


def needs_answers(task: Task) -> bool:
    """Whether anything about this task has to be explained."""
    return task.loose or task.verdict is not None or task.state == "failed" or task.settled is not None


def diagnosis(task: Task, history: Sequence[HistoryEntry], instance: Instance | None = None) -> list[Answer]:
    """The six answers. `instance` is the process of its head execution, where it is stored."""
    dropped = next((entry for entry in reversed(history) if entry.what == "dropped"), None)
    return [
        _raised(task, history),
        _process(task, instance),
        _scheduled(task, history),
        _early_return(task),
        _closed(dropped),
        _worker(task),
    ]


def _raised(task: Task, history: Sequence[HistoryEntry]) -> Answer:
    question = "Did it raise?"
    if task.error is not None:
        said = f"{task.error.type}: {words.short(task.error.message)}".rstrip(": ")
        again = " It is announced to be tried again." if task.state == "retrying" else ""
        return Answer(question=question, answer=f"Yes: {said}.{again}", telling=True, href="#error")
    before = [entry for entry in history if entry.kind == "fact" and entry.what == "failed"]
    if before:
        count = words.plural(len(before), "attempt")
        return Answer(question=question, answer=f"{count} before did: {words.short(before[-1].reason or 'no error was given')}")
    return Answer(question=question, answer="No error was reported.")


def _process(task: Task, instance: Instance | None) -> Answer:
    question = "Did its process end or restart?"
    if task.instance is None:
        return Answer(question=question, answer="Not known: it was recorded without a process.")
    href = f"/instances/{task.instance.id}"
    where = f"pid {task.instance.pid}" if task.instance.pid is not None else "its process"
    where += f" on {task.instance.host}" if task.instance.host else ""
    if task.instance.alive:
        stuck = task.verdict in ("stuck", "stalled")
        return Answer(question=question, answer=f"No: {words.short(where, 80)} is alive.", telling=stuck)
    reason = f": {words.short(instance.reason, 200)}" if instance is not None and instance.reason else ""
    telling = task.verdict == "lost"
    return Answer(question=question, answer=f"Yes: {words.short(where, 80)} is gone{reason}.", telling=telling, href=href)


def _scheduled(task: Task, history: Sequence[HistoryEntry]) -> Answer:
    question = "Was it ever scheduled, and did it start?"
    if task.started_at is not None and task.scheduled_at is not None:
        waited = words.duration(max(0, task.started_at - task.scheduled_at) / NS)
        return Answer(question=question, answer=f"Yes: it was scheduled, and started {waited} later.", href="#history")
    if task.started_at is not None:
        return Answer(question=question, answer="It started at once: nothing scheduled it before.", href="#history")
    if task.scheduled_at is not None:
        queue = f" into the queue {words.short(task.queue, 60)}" if task.queue else ""
        telling = task.verdict in ("never_started", "lost")
        return Answer(question=question, answer=f"It was scheduled{queue} and never started.", telling=telling, href="#history")
    return Answer(question=question, answer="Neither was seen.", telling=task.verdict == "missed")


def _early_return(task: Task) -> Answer:
    question = "Was it skipped by an early return?"
    if task.verdict == "missed":
        return Answer(question=question, answer="Most likely: it was expected, and nothing began it.", telling=True)
    if task.scheduled_at is None and task.started_at is None:
        return Answer(question=question, answer="Not known: only its end was reported.")
    begun = f" in {words.short(task.request, 80)}" if task.request else ""
    return Answer(question=question, answer=f"No: the line that begins it was reached{begun}.")


def _closed(dropped: HistoryEntry | None) -> Answer:
    question = "Was a session, a loop or a pool closed under it?"
    if dropped is None:
        return Answer(question=question, answer="Nothing of that kind was reported.")
    said = spoken(dropped.reason)
    return Answer(question=question, answer=_DROPPED.get(said, f"Yes: {words.short(said, 80)}."), telling=True, href="#history")


def _worker(task: Task) -> Answer:
    question = "Is a worker alive that could run it?"
    if task.replayable:
        return Answer(question=question, answer="Yes: a live instance offers this function for replay.")
    if task.instance is not None and task.instance.alive and task.ended_at is None:
        return Answer(question=question, answer="Yes: its own process still holds it.")
    why = task.not_replayable_because or "no live instance offers this function"
    return Answer(question=question, answer=words.sentence(words.short(why, 300)))
