"""The one place where everything is wired: store, decisions, loops, doors. Start and stop in order.

Start: database, operator token, loops' bodies, doors, loops, then `ready`. Stop: the loops that judge, doors (nothing new is
taken), the loops that send, the database (what waits is written), so that every event that was answered with 200 is on disk.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import Any

from aiohttp import web

from looseends_daemon import config
from looseends_daemon.clock import Clock
from looseends_daemon.config import Settings
from looseends_daemon.core.presence import Presence
from looseends_daemon.core.routing import Route
from looseends_daemon.http import api, ingest, instances, orders, purge, signin
from looseends_daemon.http.access import Access
from looseends_daemon.http.context import Context
from looseends_daemon.http.listen import Listener, listen
from looseends_daemon.http.server import make_app
from looseends_daemon.notify.webhook import Reach, Target, Webhook
from looseends_daemon.services import dispatcher
from looseends_daemon.services.acts import Acts
from looseends_daemon.services.adopter import Adopter
from looseends_daemon.services.detector import Detector
from looseends_daemon.services.dispatcher import Dispatcher
from looseends_daemon.services.expecter import Expecter
from looseends_daemon.services.janitor import Janitor
from looseends_daemon.services.replayer import Replayer
from looseends_daemon.services.shell import Loop
from looseends_daemon.services.vigil import TICK_S, Vigil
from looseends_daemon.services.watch import Watch
from looseends_daemon.store import access
from looseends_daemon.store.blind import ALIVE_EVERY_S
from looseends_daemon.store.connection import Database
from looseends_daemon.store.reads import StoreReader
from looseends_daemon.store.token_file import ensure_operator_token, token_path
from looseends_dashboard.routes import Pages, render_error, render_sign_in
from looseends_dashboard.routes import routes as page_routes
from looseends_dashboard.snippets import Addresses

log = logging.getLogger("looseends")
DETECT_IDLE_S = 1.0
ADOPT_IDLE_S = 0.2
REPLAY_IDLE_S = 1.0
JANITOR_IDLE_S = 5.0
EXPECT_IDLE_S = 10.0
DISPATCH_IDLE_S = 30.0
"""A pass may wait for an endpoint that hangs, up to its timeout beyond this; the loop counts as healthy meanwhile."""


class Daemon:
    """A running daemon. Make it with `running(settings)`."""

    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        self.settings, self.database, self.clock = settings, database, clock
        self.started_at = clock.wall_ns()
        self.policy = config.policy(settings)
        self.rules = config.alert_rules(settings)
        self.operator_token = ""
        self.listener: Listener | None = None
        self.vigil = Vigil(started_at=self.started_at, grace_s=self.policy.grace, boot_ns=clock.boot_ns)
        self.watch = Watch(database, self.vigil, clock)
        self.presence = Presence()
        self.detector = Detector(database, self.policy, lambda: self.rules, started_at=self.started_at, vigil=self.vigil)
        self.adopter = Adopter(
            database,
            settings.detect.spools,
            self.policy,
            self.wake,
            payload_bytes_max=settings.storage.max_payload,
            vigil=self.vigil,
            presence=self.presence,
        )
        self.retention = config.retention_rules(settings)
        self.janitor = Janitor(database, lambda: self.retention)
        self.expecter = Expecter(database, config.cron_rules(settings), self.policy)
        self.webhooks: list[Webhook] = []
        self.dispatchers: list[tuple[Dispatcher, Loop]] = []
        self.loops: list[Loop] = []

    # --- making ---

    async def prepare(self) -> None:
        """What must be there before anybody may come in."""
        path = token_path(self.database.path)
        self.operator_token = await self.database.write(lambda conn: ensure_operator_token(conn, path, now=self.started_at))
        if self.database.missing is not None:
            log.error("%s", self.database.missing)
        await self.watch.begin(self.started_at)
        await dispatcher.begin(self.database, self.rules, self.started_at)
        self.loops = [
            self._loop("detector", self.detector.run_once, DETECT_IDLE_S),
            self._loop("adopter", self.adopter.run_once, ADOPT_IDLE_S),
            self._loop("replayer", Replayer(self.database).run_once, REPLAY_IDLE_S),
            self._loop("clock", self.watch.tick, TICK_S),
            self._loop("watch", self.watch.keep, ALIVE_EVERY_S),
            self._loop("janitor", self.janitor.run_once, JANITOR_IDLE_S),
            self._loop("expecter", self.expecter.run_once, EXPECT_IDLE_S),
            *self._dispatch_loops(),
        ]
        self.detector.on_notices = self._wake_dispatchers

    def _loop(self, name: str, run_once: Callable[[int], Any], idle_s: float) -> Loop:
        return Loop(name, run_once, idle_s_max=idle_s, wall_ns=self.clock.wall_ns)

    def _dispatch_loops(self) -> list[Loop]:
        network = self.settings.network
        reach = Reach(allow_private=network.allow_private, deny=network.deny_networks)
        for endpoint, rule in zip(self.settings.endpoints, self.rules.endpoints, strict=True):
            target = Target(name=endpoint.name, url=endpoint.url, secrets=endpoint.secrets, timeout=endpoint.timeout)
            webhook = Webhook(target, reach, version=version("looseends"), clock=self.clock.wall_ns)
            body = Dispatcher(self.database, rule, webhook.post, self.clock.wall_ns)
            self.webhooks.append(webhook)
            self.dispatchers.append((body, self._loop(body.name, body.run_once, DISPATCH_IDLE_S)))
        return [loop for _, loop in self.dispatchers]

    def wake(self) -> None:
        """Something arrived that may have to be judged."""
        for loop in self.loops[:1]:
            loop.wake()

    def _is_settling(self) -> bool:
        """Whether what was sent while we did not hear may still be arriving."""
        now = self.clock.wall_ns()
        self.vigil.look(now)
        return self.vigil.is_settling(now)

    def _may_have_waited(self, sent_at: int | None) -> bool:
        now = self.clock.wall_ns()
        self.vigil.look(now)
        return self.vigil.may_have_waited(sent_at, now)

    def _connection_ended(self, number: int, by_peer: bool, unanswered: bool) -> None:
        # What ended while we did not hear is noticed only now, and says nothing: its peer may have lost patience.
        believed = by_peer and not self._is_settling()
        self.presence.ended(number, self.clock.wall_ns(), by_peer=believed, unanswered=unanswered)

    def _wake_dispatchers(self) -> None:
        for body, loop in self.dispatchers:
            body.wake()
            loop.wake()

    def not_ready(self) -> list[str]:
        """In words what keeps this daemon from doing its work; empty: nothing does."""
        stopped = [f"the {loop.name} has not run through lately" for loop in self.loops if not loop.healthy()]
        database = self.database
        storage = (database.full, database.checkpoints.stuck, database.trouble, database.missing)
        return [*stopped, *(words for words in storage if words is not None)]

    # --- the doors ---

    def context(self) -> Context:
        """What the handlers may reach."""
        base = self.settings.server.external_url or ""
        return Context(
            database=self.database,
            reader=StoreReader(self.database, base_url=base, wall_ns=self.clock.wall_ns),
            commands=Acts(self.database, self.clock.wall_ns, self.wake, lambda: self.rules, base_url=base),
            settings=self.settings,
            access=Access(self.database),
            policy=self.policy,
            started_at=self.started_at,
            wake=self.wake,
            ready=self.not_ready,
            presence=self.presence,
            waited=self._may_have_waited,
            storage=lambda: self.janitor.figures(self.clock.wall_ns()),
            render_sign_in=render_sign_in,
            render_error=render_error,
            now=self.clock.wall_ns,
            version=version("looseends"),
        )

    def application(self) -> web.Application:
        """The HTTP application with every door."""
        context = self.context()
        return make_app(all_routes(context), context)

    async def open_doors(self) -> list[str]:
        """Listen; returns the addresses. Raises ListenError with the way out."""
        made = await self.database.write(access.has_made_tokens)
        self.listener = await listen(
            self.application(), list(self.settings.server.listen), made_tokens=made, on_end=self._connection_ended
        )
        for loop in self.loops:
            loop.start()
        return self.listener.addresses

    async def sign_in_code(self) -> str:
        """A one-use code that signs its bearer in as the operator."""
        now = self.clock.wall_ns()
        return await self.database.write(lambda conn: access.make_link(conn, self.operator_token, now=now))

    async def close(self) -> None:
        """Stop in order; safe to call twice. Who judges stops first: behind closed doors every silence would look like a loss."""
        sending = [loop for _, loop in self.dispatchers]
        for loop in [loop for loop in self.loops if loop not in sending]:
            await loop.stop()
        if self.loops:
            await self.watch.end()
        if self.listener is not None:
            await self.listener.close(self.settings.server.shutdown_timeout)
        for loop in sending:
            await loop.stop()
        self.adopter.close()
        for webhook in self.webhooks:
            await webhook.close()
        await self.database.close()


def all_routes(context: Context) -> list[Route]:
    """The whole route table: what the guard's test matrix is made from."""
    pages = Pages(
        reader=context.reader,
        commands=context.commands,
        clock=context.now,
        addresses=_addresses(context.settings),
    )
    return [
        *ingest.routes(context),
        *instances.routes(context),
        *orders.routes(context),
        *api.api_routes(context),
        *purge.routes(context),
        *signin.routes(context),
        *page_routes(pages),
    ]


def _addresses(settings: Settings) -> Addresses:
    """Where the setup page tells people to send events."""
    listening = settings.server.listen
    http = next((f"http://{address}" for address in listening if not address.startswith("unix:")), "")
    sock = next((address.removeprefix("unix:") for address in listening if address.startswith("unix:")), None)
    needed = settings.server.loopback_ingest == "token"
    return Addresses(
        http_url=settings.server.external_url or http,
        socket=sock,
        token_needed=needed,
        token_file=token_path(settings.storage.path),
    )


@contextlib.asynccontextmanager
async def running(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Daemon]:
    """A daemon with open doors; closed in order at the end. Raises StoreError and ListenError with a hint."""
    database = await Database.open(settings.storage.path)
    daemon = Daemon(settings, database, clock or Clock())
    try:
        await daemon.prepare()
        await daemon.open_doors()
        yield daemon
    finally:
        await daemon.close()
