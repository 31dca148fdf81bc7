"""Pings in Healthchecks' form as events: `/ping/{slug}[/start|/fail|/log|/{exit}]?rid=`. Pure.

Rules:

1. Each `rid` is a task of its own, so that runs which overlap are kept apart. A UUID is the task's id itself, any other text is
   an id of the slug.
2. Without a `rid` a start is a new task, and an end ends the newest such start of its slug that has not ended; where there is
   none it is a task of its own. `/log` says something about that start, or about nothing.
3. A ping has no deadline of its own: one hour, as Healthchecks' grace, unless a `[[task]]` says otherwise for its type.
4. What stands in the body is kept from its end, since that is where a script says what went wrong.
"""

from __future__ import annotations

import re
from typing import Any

from looseends.wire import TEXT_CHARS_MAX, is_uuid
from looseends_daemon.core.policy import HOUR_S, Policy
from looseends_daemon.core.resources import Value

SERVICE = "ping"
"""The service of pings that come without a key."""
BODY_KEPT_BYTES_MAX = 10_000
RID_CHARS_MAX = 90
DEADLINE_S = HOUR_S
_SLUG = re.compile(r"[a-z0-9_-]{1,100}", re.ASCII)
_EXIT = re.compile(r"\d{1,3}", re.ASCII)
_NO_REPLAY = "a ping only tells of work that runs elsewhere"


class Ping(Value, frozen=True):
    """One ping, understood. `kind`: start, success, fail or log; `exit` the status it told; `rid` "" where it has none."""

    slug: str
    kind: str
    exit: int | None = None
    rid: str = ""
    body: str = ""


def read_ping(slug: str, action: str, rid: str, body: bytes) -> Ping:
    """The parts of a ping's address and the end of its body as a value. Raises ValueError in words."""
    if _SLUG.fullmatch(slug) is None:
        raise ValueError("a slug is 1 to 100 of a-z, 0-9, - and _; a key, which holds a dot, stands before it")
    if len(rid) > RID_CHARS_MAX or not rid.isprintable():
        raise ValueError(f"rid is at most {RID_CHARS_MAX} printable characters, best a UUID")
    kind, status = _kind(action)
    return Ping(slug=slug, kind=kind, exit=status, rid=rid, body=text_of(body))


def _kind(action: str) -> tuple[str, int | None]:
    if action in ("", "start", "fail", "log"):
        return action or "success", None
    if _EXIT.fullmatch(action) is not None and int(action) <= 255:
        return "fail" if int(action) else "success", int(action)
    raise ValueError("after the slug comes nothing, start, fail, log, or an exit status from 0 to 255")


def text_of(body: bytes) -> str:
    """The end of a body as text, whatever it holds."""
    return body[-BODY_KEPT_BYTES_MAX:].decode("utf-8", "replace").replace("\0", "\ufffd")


def task_of(ping: Ping) -> str:
    """The task's id as it stands in an event, where the ping has a `rid`."""
    return ping.rid if is_uuid(ping.rid) else f"{ping.slug}:{ping.rid}"


def event_of(ping: Ping, task: str, service: str, policy: Policy) -> dict[str, Any]:
    """The one event of the wire that a ping is."""
    event: dict[str, Any] = {"task": task, "name": ping.slug, "service": service}
    if ping.kind == "start":
        rule = policy.rule(service, ping.slug)
        deadline = {} if rule is not None and rule.deadline is not None else {"deadline": DEADLINE_S}
        said = {"args": {"body": ping.body}} if ping.body else {}
        return {**event, "type": "started", "source": "ping", "not_replayable_because": _NO_REPLAY, **deadline, **said}
    if ping.kind == "log":
        return {**event, "type": "progress", "note": ping.body[-TEXT_CHARS_MAX:].strip()[-500:] or "log"}
    if ping.kind == "success":
        return {**event, "type": "finished", **({"result": {"output": ping.body}} if ping.body else {})}
    return {**event, "type": "failed", "error": _error(ping)}


def _error(ping: Ping) -> dict[str, str]:
    """What a failure says: its exit status, and the last line it wrote."""
    lines = ping.body.strip().splitlines()
    last = lines[-1].strip() if lines else ""
    if ping.exit is None:
        kind, message = "Failed", last or "the job reported that it failed"
    else:
        kind, message = "ExitStatus", f"exit status {ping.exit}" + (f": {last}" if last else "")
    return {"type": kind, "message": message, **({"traceback": ping.body} if ping.body else {})}
