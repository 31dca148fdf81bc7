"""What an incident is called: one line that a tired person reads on a phone, and that never holds an exception's text.

Rules: the worst problem that is open gives the sentence; a single task is named, more are counted; where a process died the
process is the story. Times are UTC and say so. Exception texts stay out: a title goes to every endpoint.
"""

from __future__ import annotations

from looseends.wire import format_time
from looseends_daemon.core.incidents import DETAIL_CHARS_MAX, OpenGroup
from looseends_daemon.core.resources import Value

TITLE_CHARS_MAX = 300
ONE = {
    "stuck": "is stuck",
    "stalled": "has stalled",
    "never_started": "never started",
    "missed": "was expected and not seen",
    "failed": "failed",
    "lost": "is lost",
}
MANY = {
    "stuck": "are stuck",
    "stalled": "have stalled",
    "never_started": "never started",
    "missed": "were expected and not seen",
    "failed": "failed",
    "lost": "are lost",
}
_REPEATED = ("never started: ", "lost in mid-task: ", "failed for good: ")
"""Beginnings of reasons that would say the problem a second time."""


class Scene(Value, frozen=True, kw_only=True):
    """What a title is made of: `count` loose ends have the `problem`, `rest` others are open beside them.

    `name` is theirs if they share one. `host`, `died_at` and `instance_state` tell of the instance that lost work ran in.
    `detail` is the reason of one of them, in words.
    """

    problem: str
    service: str
    count: int
    rest: int = 0
    name: str | None = None
    host: str | None = None
    instance_state: str | None = None
    died_at: int | None = None
    detail: str = ""


def scene_of(problem: str, service: str, groups: list[OpenGroup], total: int, name: str | None, detail: str) -> Scene:
    """The scene of what is open now; with nothing open, of all there was."""
    worst = [group for group in groups if group.problem == problem] or groups
    names: set[str | None] = {group.name for group in worst} or {name}
    opened = sum(group.count for group in groups)
    count = sum(group.count for group in worst) if groups else total
    shared = names.pop() if len(names) == 1 else None
    return Scene(problem=problem, service=service, count=count, rest=opened - count if groups else 0, name=shared, detail=detail)


def title_of(scene: Scene) -> str:
    """The title of an open incident, at most TITLE_CHARS_MAX characters."""
    rest = f", and {scene.rest} more" if scene.rest else ""
    return _clipped(_sentence(scene) + rest, TITLE_CHARS_MAX)


def settled_title(title: str) -> str:
    """The title once all is settled."""
    return _clipped(f"Settled: {title}", TITLE_CHARS_MAX)


def _sentence(scene: Scene) -> str:
    where = f"{scene.service} on {scene.host}" if scene.host else scene.service
    if scene.problem == "lost" and scene.instance_state in ("gone", "unreachable"):
        at = f" at {_minute(scene.died_at)}" if scene.died_at is not None else ""
        how = f"died{at}" if scene.instance_state == "gone" else f"went silent{at}"
        return f"{_what(scene)} lost when {where} {how}"
    if scene.count == 1 and scene.name is not None:
        return f"{scene.name} of {scene.service} {ONE[scene.problem]}{_because(scene)}"
    words = ONE if scene.count == 1 else MANY
    return f"{_what(scene)} of {scene.service} {words[scene.problem]}"


def _what(scene: Scene) -> str:
    if scene.count == 1:
        return scene.name or "1 task"
    kind = f"{scene.name} tasks" if scene.name and scene.problem != "lost" else "tasks"
    return f"{scene.count} {kind}"


def _because(scene: Scene) -> str:
    detail = scene.detail
    for beginning in _REPEATED:
        detail = detail.removeprefix(beginning)
    return f": {_clipped(detail, DETAIL_CHARS_MAX)}" if detail and scene.problem != "failed" else ""


def _minute(at: int) -> str:
    return format_time(at)[11:16] + " UTC"


def _clipped(text: str, chars_max: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= chars_max else line[: chars_max - 3] + "..."
