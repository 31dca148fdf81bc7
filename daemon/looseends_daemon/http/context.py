"""What every handler may reach: one value, made by `app.py`, handed to each list of routes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from html import escape
from typing import Any

from looseends_daemon.config.settings import Settings
from looseends_daemon.core.endpoints import NO_ENDPOINTS, EndpointActs
from looseends_daemon.core.marks import Alerts
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.presence import Presence
from looseends_daemon.core.resources import Actor, Commands, Reader
from looseends_daemon.core.task_types import Types
from looseends_daemon.core.vitals import Vitals, no_vitals
from looseends_daemon.core.wishes import Wishes
from looseends_daemon.http.access import Access
from looseends_daemon.http.answers import Limits
from looseends_daemon.store.connection import Database


def _bare_error(status: int, title: str, detail: str) -> str:
    """The page of a refusal where nobody brought a better one."""
    return f"<!doctype html><title>{escape(title)}</title><h1>{status} {escape(title)}</h1><p>{escape(detail)}</p>"


async def _no_figures() -> dict[str, Any]:
    """The storage where nobody keeps count of it."""
    return {}


@dataclass(kw_only=True, slots=True)
class Context:
    """The daemon as the HTTP side sees it. Times are ns.

    `presence` knows who is connected, `wishes` whose stacks are wanted; `waited(sent_at)`: what was sent then may have waited
    for us to thaw.
    `settings` and `policy` are those in force: a reload replaces them here, and nothing else.
    `wake()` is called where something has to be judged at once, `wake_by(at)` after every stored batch with the time at which
    something may have to be (without one, `wake()` is); `ready()` names in words what is not ready (empty: all is);
    `notes()` names what a person should know although all is ready; `endpoints` are the acts on endpoints and notices;
    `types` reads types, `vitals()` tells how the daemon does, `lose_one` begins a task that nobody ends;
    `storage()` gives the figures of the storage; `render_sign_in(error, next_path)` makes the sign-in page, and
    `render_error(status, title, detail)` that of a refusal.
    """

    database: Database
    reader: Reader
    commands: Commands
    settings: Settings
    access: Access
    policy: Policy
    started_at: int
    wake: Callable[[], None]
    ready: Callable[[], list[str]]
    render_sign_in: Callable[[str | None, str], str]
    render_error: Callable[[int, str, str], str] = _bare_error
    notes: Callable[[], list[str]] = list
    endpoints: EndpointActs = NO_ENDPOINTS
    instances: Any = None
    alerts: Alerts | None = None
    wake_by: Callable[[int], None] | None = None
    types: Types | None = None
    vitals: Callable[[], Awaitable[Vitals]] = no_vitals
    lose_one: Callable[[Actor], Awaitable[str]] | None = None
    streams: Any = None
    meter: Any = None
    plans: Any = None
    plan_acts: Any = None
    presence: Presence = field(default_factory=Presence)
    wishes: Wishes = field(default_factory=Wishes)
    waited: Callable[[int | None], bool] = lambda sent_at: False
    storage: Callable[[], Awaitable[Any]] = _no_figures
    now: Callable[[], int] = time.time_ns
    limits: Limits = field(default_factory=Limits)
    version: str = ""
