"""A task's standing in words: what is so, what it means, what to press, and why it came to this.

Rules: pure functions of a task, its history and `now`; every verdict says what it means and what to do next; where nothing
is known, the page says so and does not guess. Why it came to this is in why.py.
"""

from __future__ import annotations

from looseends.wire import NS
from looseends_daemon.core.resources import Task, Value
from looseends_daemon.core.titles import bare_reason
from looseends_dashboard import words
from looseends_dashboard.marks import mark, problem, spoken


class Headline(Value, frozen=True):
    """The top of a task page: the verdict in words, what it means and what to do."""

    kind: str
    text: str
    meaning: str
    advice: str


_MEANINGS = {
    "lost": (
        "The process that held it is gone and no end was reported. Whether its work was done, half done or not begun "
        "is not known."
    ),
    "stuck": (
        "It is past its deadline and its process still lives. It may still end: then this verdict is overruled, and "
        "both stay in the history."
    ),
    "stalled": "Its process lives, but it has reported no progress for longer than it promised.",
    "never_started": "It was scheduled and its start never came: nothing of it has run.",
    "missed": "It was expected to begin and never seen: most often an early return before the line that starts it.",
    "failed": "It ended with an error and will not be tried again by itself.",
}
_NEVER_BEGUN = "The process that held it is gone, and it had not started: its work never began."
_NO_PROCESS = (
    "It is past its deadline, and no process is known for it: it was reported without one. It may still end: then this "
    "verdict is overruled."
)
_SETTLED = {
    "finished_late": "It ended well after all, later than it should have. Nothing is left to do.",
    "retried": "A later attempt ended well. Nothing is left to do.",
    "replayed": "A replay of it ended well. Nothing is left to do; this record stays as it was.",
    "dismissed": "A person decided that nothing is to be done. The history below says who, and why.",
}
_QUIET = {
    "met": "It was expected, and another task began in time for it: nothing is missing.",
    "scheduled": "It waits for its turn and is in time.",
    "running": "It is running and in time.",
    "retrying": "An attempt failed and another one is announced; it is in time.",
    "succeeded": "It began and ended well.",
    "failed": "It ended with an error that counts as handled or expected, so nobody was told.",
    "cancelled": "It was cancelled, and said so.",
}


def headline(task: Task, now: int) -> Headline:
    """The verdict in words, what it means, and what to press."""
    seen = mark(task)
    meaning = _SETTLED.get(task.settled or "") or _meaning(task)
    return Headline(
        kind=seen.kind,
        text=_headline_text(task, now),
        meaning=meaning or _QUIET.get("met" if task.expected else task.state, ""),
        advice=_advice(task) if task.loose else "",
    )


_SETTLED_BY = {"replayed": "Replayed", "dismissed": "Dismissed", "retried": "Retried", "finished_late": "Finished late"}


def _headline_text(task: Task, now: int) -> str:
    text = _standing_text(task, now)
    by = _SETTLED_BY.get(task.settled or "")
    return f"{by}. Before that, {text[:1].lower()}{text[1:]}" if by and task.state != "succeeded" else text


def _standing_text(task: Task, now: int) -> str:
    if task.verdict is not None:
        return f"{spoken(task.verdict).capitalize()}: {bare_reason(task.reason or 'no end was reported in time')}"
    if task.state == "failed":
        error = f"{task.error.type}: {words.short(task.error.message)}" if task.error else task.reason or "no error was given"
        return f"Failed: {error.rstrip(': ')}"
    took = f" in {words.duration(task.duration)}" if task.duration is not None else ""
    if task.state == "succeeded":
        return f"Succeeded{took}" + (", after it had been given up" if "late" in task.flags else "")
    if task.state == "running" and task.started_at is not None:
        due = f", due {words.ago(task.due_at, now)}" if task.due_at is not None else ""
        return f"Running for {words.coarse(max(0, now - task.started_at) / NS)}{due}"
    return f"{spoken(task.state).capitalize()}" + (f": {task.reason}" if task.reason else "")


def _meaning(task: Task) -> str | None:
    word = problem(task) if task.loose else task.verdict or ""
    if word == "lost" and task.started_at is None:
        return _NEVER_BEGUN
    return _NO_PROCESS if word == "stuck" and task.instance is None else _MEANINGS.get(word)


def _advice(task: Task) -> str:
    if task.verdict == "stuck" and task.instance is None:
        return "If it ended, report its end late; if not, mend the cause and run it again."
    if task.verdict in ("stuck", "stalled"):
        where = "See below where it hangs. " if task.progress and task.progress.stack else ""
        then = "Replay runs a second one beside it." if task.replayable else "then it can be replayed."
        return f"{where}If it will not end by itself, end its process; {then}"
    if not task.replayable:
        mended = "What stands against a replay is said below; once that is mended, Replay is offered here."
        return f"{mended} Where nothing is to be done, dismiss it."
    if task.verdict in ("never_started", "missed") or (task.verdict == "lost" and task.started_at is None):
        return f"Press Replay: a live instance of {task.service} runs it as a new task with the same arguments."
    return (
        f"Press Replay: a live instance of {task.service} runs it again as a new task with the same arguments. If it may "
        "have had its effect already, look there first."
    )
