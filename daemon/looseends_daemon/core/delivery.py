"""How a notice travels: its body, its signature, and what the answer to a delivery attempt means. Pure.

Rules:

1. One body is at the same time a Standard Webhooks payload and a CloudEvents 1.0 event in JSON. It is built once and never
   changes, whatever the number of delivery attempts; only headers do.
2. A body has at most BODY_BYTES_MAX bytes. What does not fit goes in this order: tracebacks and arguments, then the newest
   sample tasks. Counts are always exact, and `tasks_truncated` says how many loose ends are not listed.
3. Arguments and exception texts are in it only if the endpoint asked for them.
4. 2xx is delivered, and nothing else is. 410 disables the endpoint. Everything else is tried again: a wrong token gets
   mended, and the notice still comes. A redirect is a failure: following it would post a signed body to a stranger.
5. The waits are SCHEDULE, each moved by up to 20 %; `retry-after` counts between one and two times the step; after 429 and
   time-outs the wait is at least 60 s. After the last one the notice is exhausted.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from looseends.wire import NS, format_time
from looseends_daemon.core.resources import Value

SCHEDULE = (5, 30, 120, 300, 900, 1800, 3600, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds between a failed delivery attempt and the next: about 77 hours in all."""
JITTER = 0.2
THROTTLED_S_MIN = 60.0
BODY_BYTES_MAX = 20_000
ANSWER_BYTES_KEPT_MAX = 2_000
REASON_CHARS_MAX = 500
FAILING_AFTER = 3
"""Failed attempts in a row from which an endpoint counts as failing: then one attempt at a time."""
WORDS_CHARS_MAX = 200
DISABLED_AFTER_S = 5 * 86_400
"""An endpoint that has done nothing but fail for this long is disabled."""
WEBHOOK_TYPE = "looseends.incident."
TEST_TYPE = "looseends.endpoint.test"
FINAL = ("delivered", "exhausted", "superseded", "cancelled")


class Outcome(Value, frozen=True, kw_only=True):
    """What one delivery attempt came to. `status` None: no answer; `detail`: first bytes of the answer, or the error.

    `duration` and `retry_after` in seconds; `timed_out`: the endpoint did not answer in time; `accepted`: it said yes in a
    protocol that has no status.
    """

    status: int | None = None
    duration: float = 0.0
    detail: str = ""
    retry_after: float | None = None
    timed_out: bool = False
    accepted: bool = False

    @property
    def delivered(self) -> bool:
        """Only a 2xx answer, or a yes where there is no status, says that the notice arrived."""
        return self.accepted or (self.status is not None and 200 <= self.status < 300)

    @property
    def words(self) -> str:
        """What to tell a person of it, in one line."""
        if self.status is None:
            return self.detail[:WORDS_CHARS_MAX]
        said = " ".join(self.detail.split())[:WORDS_CHARS_MAX]
        return f"answered {self.status}" + (f": {said}" if said else "")

    @property
    def refused_for_good(self) -> bool:
        """410 Gone: this endpoint wants nothing any more."""
        return self.status == 410


class Message(Value, frozen=True, kw_only=True):
    """One delivery attempt to make: the notice's `id` and `body` (fixed), and the number of this attempt."""

    id: str
    endpoint: str
    body: bytes
    attempt: int
    notice: int = 0


def wait_after(attempt: int, outcome: Outcome, jitter: float) -> float | None:
    """Seconds until the next attempt once `attempt` (from 1) failed; None: it was the last. `jitter` lies in -1..1."""
    if attempt > len(SCHEDULE):
        return None
    step = float(SCHEDULE[attempt - 1])
    wait = step * (1 + JITTER * max(-1.0, min(1.0, jitter)))
    if outcome.retry_after is not None:
        wait = max(wait, min(max(outcome.retry_after, step), 2 * step))
    if outcome.timed_out or outcome.status == 429:
        wait = max(wait, THROTTLED_S_MIN)
    return wait


def sign(secrets: Iterable[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one `v1,...` for every key (`whsec_...`). `timestamp` in unix seconds."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.new(_key(secret), signed, hashlib.sha256).digest()).decode() for secret in secrets
    )


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))


def envelope(*, message_id: str, source: str, type_: str, at: int, sequence: int, incident: Mapping[str, Any]) -> dict[str, Any]:
    """The event without its tasks. `incident` holds the plain JSON of section `data.incident`; `at` in ns."""
    time = format_time(at)
    return {
        "specversion": "1.0",
        "id": message_id,
        "source": f"/looseends/{source}",
        "type": WEBHOOK_TYPE + type_,
        "subject": incident["id"],
        "time": time,
        "timestamp": time,
        "datacontenttype": "application/json",
        "data": {"schema": 1, "sequence": sequence, "incident": dict(incident), "tasks": [], "tasks_truncated": 0},
    }


def test_event(*, message_id: str, source: str, endpoint: str, at: int, by: str) -> dict[str, Any]:
    """The event that tries an endpoint; it is about no incident. `at` in ns."""
    time = format_time(at)
    words = f"{by} tried whether this endpoint of looseends works. It does; nothing is wrong, and nothing is to be done."
    return {
        "specversion": "1.0",
        "id": message_id,
        "source": f"/looseends/{source}",
        "type": TEST_TYPE,
        "subject": endpoint,
        "time": time,
        "timestamp": time,
        "datacontenttype": "application/json",
        "data": {"schema": 1, "endpoint": endpoint, "words": words},
    }


def plain_body(event: Mapping[str, Any]) -> bytes:
    """The bytes of an event that lists no tasks."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def body_of(event: dict[str, Any], tasks: Sequence[Mapping[str, Any]], total: int) -> bytes:
    """The bytes to send: `event` with as many of its sample `tasks` (oldest first) as fit; `total` loose ends exist."""
    samples = [dict(task) for task in tasks]
    data = event["data"]
    while True:
        filled = {**event, "data": {**data, "tasks": samples, "tasks_truncated": max(0, total - len(samples))}}
        body = json.dumps(filled, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        if len(body) <= BODY_BYTES_MAX or not samples:
            return body
        if not _shorten(samples):
            samples.pop()


def _shorten(samples: list[dict[str, Any]]) -> bool:
    """Leave out the largest argument or traceback that is still in; False: nothing is left to leave out."""
    parts = [(len(json.dumps(task["args"])), n, "args") for n, task in enumerate(samples) if task.get("args")]
    parts += [(len(_traceback(task)), n, "traceback") for n, task in enumerate(samples) if _traceback(task)]
    if not parts:
        return False
    _, n, part = max(parts)
    task = samples[n]
    samples[n] = {
        **task,
        **({"args": None} if part == "args" else {"error": {**task["error"], "traceback": None}}),
        "left_out": [*task.get("left_out", []), part],
    }
    return True


def _traceback(task: Mapping[str, Any]) -> str:
    return str((task.get("error") or {}).get("traceback") or "")


def as_first(body: bytes) -> bytes:
    """The same notice as the first one that a receiver gets to see. Only for a body that was never sent."""
    event = json.loads(body)
    event["type"] = WEBHOOK_TYPE + "opened"
    event["data"]["incident"]["reason"] = "first_notification"
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def links(ident: str, external_url: str | None, host: str, command: str | None) -> dict[str, Any]:
    """Where to look at an incident: a link where people can reach this daemon, else the host and what to type there.

    A loopback link would open somebody else's daemon, or none, on the phone that shows it.
    """
    if external_url is not None:
        return {"url": f"{external_url}/incidents/{ident}"}
    return {"url": None, "host": host, "command": command and f"{command}/api/v1/incidents/{ident}"}


def due_after(now: int, wait: float) -> int:
    """Nanoseconds at which the next attempt is due."""
    return now + round(wait * NS)
