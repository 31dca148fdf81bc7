"""Endpoints as they are shown, and the acts on them and on notices, as routes and pages reach them."""

from __future__ import annotations

from typing import Protocol

import msgspec

from looseends_daemon.core.resources import Actor, CommandRefused, Notice, Value

STATES = ("ok", "failing", "disabled")
RESENT_MAX = 500
"""Notices that one act sends again."""


class Endpoint(Value, frozen=True):
    """Who is told about incidents, and how that goes. Times in ns, `timeout` in seconds. Its address is a secret: it is not here.

    `failures` in a row, and `detail` the last of them in words; `changed_at` when it got into this state; `disabled_by` a person
    (None: nobody, or its own 410). `backlog`: notices that wait or are under way, `oldest_at` the oldest of them,
    `next_attempt_at` when one is tried. `delivered_at`: its latest yes.
    """

    name: str
    kind: str
    state: str
    changed_at: int | None = None
    detail: str | None = None
    disabled_by: str | None = None
    failures: int = 0
    backlog: int = 0
    oldest_at: int | None = None
    next_attempt_at: int | None = None
    delivered_at: int | None = None
    min_severity: str = "info"
    match: list[str] = msgspec.field(default_factory=list)
    max_per_minute: int = 60
    timeout: float = 15.0
    include_args: bool = False


class Resent(Value, frozen=True):
    """What a resend by hand came to: the notices now on their way (`items`), and how many more there were than one act takes."""

    items: list[str]
    left_out: int = 0


class EndpointActs(Protocol):
    """Every act is audited in the transaction that does it. All raise CommandRefused: 404 unknown, 409 with the way out."""

    async def endpoints(self) -> list[Endpoint]:
        """All that are configured, in the order of the configuration."""
        ...

    async def test_endpoint(self, name: str, actor: Actor) -> Notice:
        """Send it a notice of type `looseends.endpoint.test`, tried once; also to one that is failing or disabled."""
        ...

    async def enable_endpoint(self, name: str, actor: Actor) -> Endpoint:
        """Send to it again; it is told of what it missed meanwhile."""
        ...

    async def disable_endpoint(self, name: str, actor: Actor) -> Endpoint:
        """Stop sending to it; what waits for it is cancelled."""
        ...

    async def resend_notice(self, notice_id: str, actor: Actor) -> Notice:
        """Tell its endpoint again about its incident, as that stands now: a new notice, reason `manual_resend`.

        One that still waits is brought forward instead, unchanged.
        """
        ...

    async def resend_notices(self, from_: int, to: int, endpoint: str | None, actor: Actor) -> Resent:
        """The same for what was written in [from_, to): once per incident and endpoint, at most RESENT_MAX of them."""
        ...


class _None:
    """Where nobody brought endpoints: there are none, and every act says so."""

    async def endpoints(self) -> list[Endpoint]:
        return []

    async def test_endpoint(self, name: str, actor: Actor) -> Notice:
        raise _unknown(name)

    async def enable_endpoint(self, name: str, actor: Actor) -> Endpoint:
        raise _unknown(name)

    async def disable_endpoint(self, name: str, actor: Actor) -> Endpoint:
        raise _unknown(name)

    async def resend_notice(self, notice_id: str, actor: Actor) -> Notice:
        raise _unknown(notice_id)

    async def resend_notices(self, from_: int, to: int, endpoint: str | None, actor: Actor) -> Resent:
        return Resent(items=[])


def _unknown(name: str) -> CommandRefused:
    return CommandRefused(404, "No such endpoint", [f"there is no endpoint or notice {name[:100]!r}"])


NO_ENDPOINTS: EndpointActs = _None()
