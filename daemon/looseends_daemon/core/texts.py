"""A notice as a person reads it on a phone: title, cause, the tasks by name, and what to press. Pure.

Rules:

1. Made from the stored event alone (core/delivery.py `envelope`), so that what a chat shows is what a webhook was told, and
   nothing is in it that the endpoint may not see.
2. The title comes first and stands alone: a lock screen shows one line. The severity is its first word while something is
   open; once all is settled the first word says so.
3. Plain text of at most TEXT_CHARS_MAX characters; names of tasks are given as they are, control characters apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from looseends_daemon.core.resources import Value

TITLE_CHARS_MAX = 200
TEXT_CHARS_MAX = 3_000
LINE_CHARS_MAX = 240
TASKS_SHOWN_MAX = 5
REASONS = {
    "new_tasks": "More loose ends joined it.",
    "severity": "It became more severe.",
    "repeat_interval": "Still open; nobody has settled it.",
    "silence_ended": "The silence that held this back has ended.",
    "manual_resend": "Sent again by hand; this is how it stands now.",
}
"""Why somebody is told again; the first time needs no explanation."""


class Text(Value, frozen=True):
    """`title` is one line, `body` several; neither holds markup."""

    title: str
    body: str


def text_of(event: Mapping[str, Any]) -> Text:
    """The words of a notice. `event` is the parsed body."""
    data = event["data"]
    incident = data.get("incident")
    if incident is None:
        return Text(title=_line(f"Test from looseends: {data['endpoint']}", TITLE_CHARS_MAX), body=_line(data["words"]))
    lines = [*_cause(incident), *_tasks(data), "", *_what_to_press(incident)]
    return Text(title=_title(incident), body="\n".join(lines)[:TEXT_CHARS_MAX].strip())


def _title(incident: Mapping[str, Any]) -> str:
    words = incident["title"] if incident["state"] == "resolved" else f"{str(incident['severity']).upper()}: {incident['title']}"
    return _line(words, TITLE_CHARS_MAX)


def _cause(incident: Mapping[str, Any]) -> Iterator[str]:
    """Why this is sent, and where it is."""
    acknowledged = incident.get("acknowledged")
    if incident["reason"] == "acknowledged" and acknowledged:
        note = f": {acknowledged['note']}" if acknowledged.get("note") else ""
        yield _line(f"Acknowledged by {acknowledged.get('by') or 'somebody'}{note}")
    elif incident["reason"] in REASONS:
        yield REASONS[incident["reason"]]
    if incident.get("detail"):
        yield _line(str(incident["detail"]))
    labels, counts = incident["labels"], incident["counts"]
    yield _line(f"{labels['service']}, {labels['environment']}")
    if counts["total"] and incident["state"] != "resolved":
        yield f"{counts['open']} open of {counts['total']}"


def _tasks(data: Mapping[str, Any]) -> Iterator[str]:
    """The oldest loose ends, one line each, and how many more there are."""
    tasks = data["tasks"]
    for task in tasks[:TASKS_SHOWN_MAX]:
        key = f" {task['key']}" if task.get("key") else ""
        state = task.get("settled") or task.get("verdict") or task["state"]
        reason = f": {task['reason']}" if task.get("reason") else ""
        yield _line(f"- {task['name']}{key} ({str(state).replace('_', ' ')}){reason}")
    more = max(0, len(tasks) - TASKS_SHOWN_MAX) + data["tasks_truncated"]
    if more:
        yield f"and {more} more"


def _what_to_press(incident: Mapping[str, Any]) -> Iterator[str]:
    """Where to go and what to do there: a link, or the host and a command where no link would work."""
    done = incident["state"] == "resolved"
    about_tasks = bool(incident["counts"]["total"])
    what = "What happened" if done else "Replay or dismiss" if about_tasks else "Look"
    if incident.get("url"):
        yield f"{what}: {incident['url']}"
    elif incident.get("host"):
        yield _line(f"{what}: on {incident['host']}, {incident.get('command') or 'open the dashboard'}", TEXT_CHARS_MAX)


def _line(text: str, chars_max: int = LINE_CHARS_MAX) -> str:
    """One line without control characters: nothing in a name may break out of its place."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= chars_max else line[: chars_max - 3] + "..."
