"""Pushes notices to an Alertmanager (v2 API), and what is open once a minute, since it forgets what is not sent again.

Rules:

1. A notice is delivered when Alertmanager answered 2xx to its alert; the same outbox, schedule and log as for a webhook.
2. `refresh` sends what stands: it is no notice. Alertmanager tells equal alerts apart by their labels alone.
3. When an incident goes by other labels than before (its problem or severity changed), the alert under the old ones is ended in
   the same push. What went before is remembered for KNOWN_MAX incidents; after a restart the old alert ends by itself.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from looseends_daemon.core.alerts import alert_of, ended
from looseends_daemon.core.delivery import Message, Outcome
from looseends_daemon.notify.reach import Caller, Reach
from looseends_daemon.notify.webhook import Target

PATH = "/api/v2/alerts"
KNOWN_MAX = 10_000
ALERTS_PER_PUSH_MAX = 100


class Alertmanager:
    """A sender for one endpoint. `clock` gives unix nanoseconds. Close it with `close()`."""

    def __init__(self, target: Target, reach: Reach, *, version: str, clock: Callable[[], int] = time.time_ns) -> None:
        self._url = push_url(target.url)
        self._headers = {"content-type": "application/json", "user-agent": f"looseends/{version}"}
        self._clock = clock
        self._caller = Caller(reach, timeout=target.timeout, clock=clock)
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()

    async def close(self) -> None:
        """Close kept connections. Safe to call twice."""
        await self._caller.close()

    async def post(self, message: Message) -> Outcome:
        """Push one notice once. Returns what came of it; never raises, cancellation apart."""
        return await self._push([message.body])

    async def refresh(self, bodies: Sequence[bytes]) -> Outcome | None:
        """Send again what stands, by the bodies of the latest notices; the first failure ends it. None: there was nothing."""
        outcome = None
        for begin in range(0, len(bodies), ALERTS_PER_PUSH_MAX):
            outcome = await self._push(bodies[begin : begin + ALERTS_PER_PUSH_MAX])
            if not outcome.delivered:
                break
        return outcome

    async def _push(self, bodies: Sequence[bytes]) -> Outcome:
        now = self._clock()
        alerts: dict[str, dict[str, Any]] = {}
        told: dict[str, dict[str, Any]] = {}
        for event in map(json.loads, bodies):
            alert = alert_of(event, now)
            subject = event.get("subject")
            before = self._known.get(subject) if subject else None
            if before is not None and before["labels"] != alert["labels"]:
                _add(alerts, ended(before, now))
            _add(alerts, alert)
            if subject:
                told[subject] = alert
        body = json.dumps(list(alerts.values()), ensure_ascii=False, separators=(",", ":")).encode()
        outcome = await self._caller.request("POST", self._url, body=body, headers=self._headers)
        if outcome.delivered:
            self._remember(told)
        return outcome

    def _remember(self, told: dict[str, dict[str, Any]]) -> None:
        for subject, alert in told.items():
            self._known[subject] = alert
            self._known.move_to_end(subject)
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)


def _add(alerts: dict[str, dict[str, Any]], alert: dict[str, Any]) -> None:
    """One alert for each set of labels, the one that lasts longest: an old incident's end must not end a new one of its kind."""
    identity = json.dumps(alert["labels"], sort_keys=True)
    if identity not in alerts or alerts[identity]["endsAt"] < alert["endsAt"]:
        alerts[identity] = alert


def push_url(url: str) -> str:
    """Where alerts are posted to: `url` may be Alertmanager's own address or already the whole path."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(PATH) else path + PATH).geturl()
