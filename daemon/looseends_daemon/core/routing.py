"""One row of the route table, shared by API and pages, so that the guard and its test matrix see every door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from looseends_daemon.core.resources import Value

ROLES = ("open", "ingest", "viewer", "operator")


class Route(Value, frozen=True):
    """A door: method and path (aiohttp syntax), the role it asks for, and who answers.

    `role` has no default: a route without one cannot be written down. `page` marks HTML: a visitor without a session is
    sent to the sign-in page instead of 401, and a top-level cross-site GET (a link in a webhook) may open it.
    `acts` marks what changes something for a person: it needs a CSRF token (form) or an Idempotency-Key (API).
    `raw`: its handler reads the body itself, of any type. `local`: a reader on this host needs no token, where events need none.
    """

    method: str
    path: str
    role: str
    handler: Callable[[Any], Awaitable[Any]]
    page: bool = False
    acts: bool = False
    raw: bool = False
    local: bool = False
