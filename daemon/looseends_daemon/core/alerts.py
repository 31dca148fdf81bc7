"""A notice as an alert of Alertmanager's v2 API: labels that identify it, annotations that change. Pure.

Rules:

1. Labels are identity: `alertname` (LooseEnds and the problem), service, name, instance, environment, problem, severity, and the
   daemon as `looseends`. Counts and titles stand in annotations, or each new task would be a new alert.
2. An incident whose problem or severity changes is another alert: the old one must be ended by whoever sends the new one.
3. Alertmanager forgets what is not sent again: an open alert ends by itself ENDS_AFTER_S after it was last sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from looseends.wire import NS, format_time, parse_time
from looseends_daemon.core.texts import text_of

RESEND_S = 60.0
ENDS_AFTER_S = 4 * RESEND_S
RESOLVED_FOR_S = 300.0
"""How long a resolved alert is sent again, since Alertmanager keeps no promise of its own to remember it."""
TEST_ENDS_AFTER_S = 60.0
_LABELS = ("service", "name", "instance", "environment")


def alert_of(event: Mapping[str, Any], now: int) -> dict[str, Any]:
    """The alert that this event stands for, sent at `now` (ns)."""
    incident = event["data"].get("incident")
    text = text_of(event)
    annotations = {"summary": text.title, "description": text.body}
    if incident is None:
        labels = {"alertname": "LooseEndsTest", "looseends": _daemon(event), "endpoint": str(event["data"]["endpoint"])}
        return _alert(labels, annotations, str(event["time"]), now + round(TEST_ENDS_AFTER_S * NS), None)
    counts = incident["counts"]
    annotations |= {"incident": str(incident["id"]), "open": str(counts["open"]), "total": str(counts["total"])}
    over = incident["state"] == "resolved"
    ends = parse_time(incident["resolved_at"]) if over else now + round(ENDS_AFTER_S * NS)
    return _alert(labels_of(event), annotations, incident["opened_at"], ends, incident.get("url"))


def labels_of(event: Mapping[str, Any]) -> dict[str, str]:
    """The identity of an incident's alert; a label without a value is left out, as Alertmanager does."""
    incident = event["data"]["incident"]
    problem = str(incident["problem"])
    labels = {name: incident["labels"][name] for name in _LABELS}
    labels |= {"problem": problem, "severity": incident["severity"], "looseends": _daemon(event)}
    camel = "".join(part.capitalize() for part in problem.split("_"))
    return {"alertname": f"LooseEnds{camel}", **{name: str(value) for name, value in labels.items() if value}}


def ended(alert: Mapping[str, Any], now: int) -> dict[str, Any]:
    """The same alert, over at `now` (ns): its incident goes by other labels from then on."""
    return {**alert, "endsAt": format_time(now)}


def _daemon(event: Mapping[str, Any]) -> str:
    return str(event["source"]).removeprefix("/looseends/")


def _alert(labels: dict[str, str], annotations: dict[str, str], starts: str, ends: int, url: str | None) -> dict[str, Any]:
    told = {"labels": labels, "annotations": annotations, "startsAt": starts, "endsAt": format_time(ends)}
    return {**told, "generatorURL": url} if url else told
