"""The kinds of endpoints by name: what sends to one, and how `config check` tries it.

Rules: a kind is one file beside this one and one row in KINDS. A sender has `post` and `close`; one whose receiver forgets also
has `refresh`, which is called every `core.alerts.RESEND_S`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from looseends_daemon.core.delivery import Message, Outcome
from looseends_daemon.notify.alertmanager import Alertmanager
from looseends_daemon.notify.apprise import AppriseSender
from looseends_daemon.notify.reach import Reach
from looseends_daemon.notify.webhook import Target, Webhook


class Sender(Protocol):
    """Delivers the notices of one endpoint; never raises for what the other side does."""

    async def post(self, message: Message) -> Outcome: ...
    async def close(self) -> None: ...


def make_sender(kind: str, target: Target, reach: Reach, *, version: str, clock: Callable[[], int]) -> Sender:
    """The sender of an endpoint. Raises KeyError for a kind that the configuration would have refused."""
    return KINDS[kind](target, reach, version, clock)


KINDS: dict[str, Callable[[Target, Reach, str, Callable[[], int]], Sender]] = {
    "webhook": lambda target, reach, version, clock: Webhook(target, reach, version=version, clock=clock),
    "alertmanager": lambda target, reach, version, clock: Alertmanager(target, reach, version=version, clock=clock),
    "apprise": lambda target, reach, version, clock: AppriseSender(target, reach),
}
