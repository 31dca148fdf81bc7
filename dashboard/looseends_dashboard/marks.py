"""Marks: the state of a thing at a glance.

Rules: a mark is always glyph, word and colour together, never colour alone; only what is loose wears the loose colour.
"""

from __future__ import annotations

from looseends_daemon.core.endpoints import Endpoint
from looseends_daemon.core.resources import Incident, Instance, Notice, Task, Value


class Mark(Value, frozen=True):
    """Glyph, word and colour class of a state."""

    glyph: str
    word: str
    kind: str


_STATES = {
    "scheduled": Mark(glyph="▹", word="scheduled", kind="running"),
    "running": Mark(glyph="▸", word="running", kind="running"),
    "retrying": Mark(glyph="▸", word="retrying", kind="running"),
    "succeeded": Mark(glyph="✓", word="succeeded", kind="ended"),
    "failed": Mark(glyph="✕", word="failed", kind="failed"),
    "cancelled": Mark(glyph="⊘", word="cancelled", kind="ended"),
    "replayed": Mark(glyph="↻", word="replayed", kind="ended"),
    "dismissed": Mark(glyph="✎", word="dismissed", kind="ended"),
    "met": Mark(glyph="✓", word="met in time", kind="ended"),
    "met late": Mark(glyph="✓", word="met late", kind="ended"),
}


def spoken(word: str | None) -> str:
    """A word of the wire as one says it: never_started -> never started."""
    return (word or "").replace("_", " ")


def mark(task: Task) -> Mark:
    """The state of a task at a glance: an open verdict first, then how it was settled, then what the facts say."""
    if task.verdict is not None and task.settled is None:
        return Mark(glyph="◌", word=spoken(task.verdict), kind="loose")
    if task.settled in ("replayed", "dismissed"):
        return _STATES[task.settled]
    if task.expected is not None:
        return _STATES["met late" if task.verdict is not None else "met"]
    return _STATES.get(task.state, Mark(glyph="?", word=spoken(task.state), kind="ended"))


def problem(task: Task) -> str:
    """The word a loose end goes by: its verdict, else how it ended."""
    return task.verdict or task.state


def incident_mark(incident: Incident) -> Mark:
    """The state of an incident at a glance."""
    if incident.state == "resolved":
        return Mark(glyph="✓", word="resolved", kind="ended")
    if incident.acknowledged is not None:
        return Mark(glyph="✎", word="acknowledged", kind="running")
    return Mark(glyph="◌", word=incident.state, kind="loose")


def instance_mark(instance: Instance) -> Mark:
    """Whether a process lives, as far as the daemon knows."""
    glyph, kind = {"alive": ("▸", "running"), "gone": ("⊘", "ended")}.get(instance.state, ("◌", "loose"))
    return Mark(glyph=glyph, word=spoken(instance.state), kind=kind)


def endpoint_mark(endpoint: Endpoint) -> Mark:
    """How deliveries to an endpoint go."""
    glyph, kind = {"ok": ("✓", "ended"), "failing": ("✕", "failed")}.get(endpoint.state, ("⊘", "ended"))
    return Mark(glyph=glyph, word=spoken(endpoint.state), kind=kind)


_NOTICES = {
    "delivered": ("✓", "ended"),
    "pending": ("▹", "running"),
    "retrying": ("▸", "running"),
    "delivering": ("▸", "running"),
    "exhausted": ("✕", "failed"),
}


def notice_mark(notice: Notice) -> Mark:
    """Whether a message has arrived."""
    state = "retrying" if notice.state == "pending" and notice.attempts else notice.state
    glyph, kind = _NOTICES.get(state, ("⊘", "ended"))
    return Mark(glyph=glyph, word=spoken(state), kind=kind)
