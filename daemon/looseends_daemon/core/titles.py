"""What an incident is called: one line that a tired person reads on a phone, and that never holds an exception's text.

Rules: the worst problem that is open gives the sentence; a single task is named, more are counted; where a process died the
process is the story. Where problems differ each is counted beside its word: "2 lost, 1 failed". Once all is settled the title
says what was and what became of it, never that it still is. Times are UTC and say so. Exception texts stay out: a title goes to
every endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

from looseends.wire import format_time
from looseends_daemon.core.incidents import DETAIL_CHARS_MAX, OpenGroup
from looseends_daemon.core.resources import PROBLEMS, Value

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
WAS = {
    "stuck": "was stuck",
    "stalled": "had stalled",
    "never_started": "had not started",
    "missed": "was missed",
    "failed": "failed",
    "lost": "was lost",
}
BECAME = {
    "finished_late": "ended late",
    "retried": "retried",
    "replayed": "replayed",
    "dismissed": "dismissed",
}
_REPEATED = ("never started: ", "lost in mid-task: ", "failed for good: ")
"""Beginnings of reasons that would say the problem a second time."""
_REPEATED_IN = ("stuck in ", "stalled in ")
"""The same before a place: `stuck in mail.py:88 send` is what a program reads, `Stuck: mail.py:88 send` a person."""


class Scene(Value, frozen=True, kw_only=True):
    """What a title is made of: `count` loose ends have the `problem`; `others` have another, counted worst first.

    `name` is theirs if all of them share one. `host`, `died_at` and `instance_state` tell of the instance that lost work ran
    in, `releases` of its release and of the one that took its place. `detail` is the reason of one of them, in words.
    """

    problem: str
    service: str
    count: int
    others: tuple[tuple[str, int], ...] = ()
    name: str | None = None
    host: str | None = None
    instance_state: str | None = None
    died_at: int | None = None
    releases: tuple[str | None, str | None] | None = None
    detail: str = ""


def scene_of(problem: str, service: str, groups: list[OpenGroup], detail: str) -> Scene:
    """The scene of what is open now: at least one group, of which one has the problem."""
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.problem] = counts.get(group.problem, 0) + group.count
    names = {group.name for group in groups}
    count = counts.pop(problem, 0)
    others = tuple(sorted(counts.items(), key=lambda one: PROBLEMS.index(one[0]), reverse=True))
    name = names.pop() if len(names) == 1 else None
    return Scene(problem=problem, service=service, count=count, others=others, name=name, detail=detail)


def title_of(scene: Scene) -> str:
    """The title of an open incident, at most TITLE_CHARS_MAX characters."""
    died = _death(scene)
    rest = "".join(f", {count} {_word(problem)}" for problem, count in scene.others)
    if died:
        return _clipped(f"{_what(scene, plain=True)} {died}{rest}", TITLE_CHARS_MAX)
    if scene.others:
        return _clipped(f"{_whose(scene)}: {scene.count} {_word(scene.problem)}{rest}", TITLE_CHARS_MAX)
    if scene.count == 1 and scene.name is not None:
        return _clipped(f"{_whose(scene)} {ONE[scene.problem]}{_because(scene)}", TITLE_CHARS_MAX)
    words = ONE if scene.count == 1 else MANY
    return _clipped(f"{_what(scene)} of {scene.service} {words[scene.problem]}", TITLE_CHARS_MAX)


def settled_title(scene: Scene, settled: Mapping[str, int]) -> str:
    """The title once nothing is open. `scene.count` loose ends there were, `settled` counts them by word (none: withdrawn)."""
    became = _became(settled)
    died = _death(scene)
    if died:
        told = f"{_what(scene, plain=True)} {died}; {became}"
    elif scene.count > 1:
        told = f"{_what(scene)} of {scene.service}, {_word(scene.problem)} at worst; {became}"
    elif became == BECAME["finished_late"]:
        told = f"{_whose(scene)} {became} ({WAS[scene.problem]})"
    else:
        told = f"{_whose(scene)} {WAS[scene.problem]}; {became}"
    return _clipped(f"Settled: {told}", TITLE_CHARS_MAX)


def bare_reason(reason: str, *, whole_places: bool = False) -> str:
    """A reason without the problem at its beginning, for where that stands before it already."""
    for beginning in _REPEATED if whole_places else (*_REPEATED, *_REPEATED_IN):
        reason = reason.removeprefix(beginning)
    return reason


def _became(settled: Mapping[str, int]) -> str:
    ways = [(word, count) for word, count in settled.items() if count]
    if not ways:
        return "that was withdrawn"
    if len(ways) > 1:
        return ", ".join(f"{count} {BECAME[word]}" for word, count in ways)
    word, count = ways[0]
    return BECAME[word] if count == 1 else f"all {BECAME[word]}"


def _death(scene: Scene) -> str:
    """How the process of lost work went; "" where no process is the story."""
    if scene.problem != "lost" or scene.instance_state not in ("gone", "unreachable"):
        return ""
    where = f"{scene.service} on {scene.host}" if scene.host else scene.service
    at = f" at {_minute(scene.died_at)}" if scene.died_at is not None else ""
    release = f" (release {scene.releases[0]} -> {scene.releases[1]})" if scene.releases else ""
    return f"lost when {where} {'died' if scene.instance_state == 'gone' else 'went silent'}{at}{release}"


def _whose(scene: Scene) -> str:
    if scene.name is None:
        return scene.service if scene.others else f"1 task of {scene.service}"
    return f"{scene.name} of {scene.service}"


def _what(scene: Scene, *, plain: bool = False) -> str:
    """The tasks that are counted. `plain`: many are not named, because the rest of the sentence is long."""
    if scene.count == 1:
        return scene.name or "1 task"
    return f"{scene.count} {scene.name} tasks" if scene.name and not plain else f"{scene.count} tasks"


def _word(problem: str) -> str:
    return problem.replace("_", " ")


def _because(scene: Scene) -> str:
    detail = bare_reason(scene.detail)
    return f": {_clipped(detail, DETAIL_CHARS_MAX)}" if detail and scene.problem != "failed" else ""


def _minute(at: int) -> str:
    return format_time(at)[11:16] + " UTC"


def _clipped(text: str, chars_max: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= chars_max else line[: chars_max - 3] + "..."
