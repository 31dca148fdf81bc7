"""The one place where everything is wired: store, decisions, loops, doors. Start and stop in order.

Start: database, operator token, loops' bodies, doors, loops, then `ready`. Stop: the loops that judge, doors (nothing new is
taken), the loops that send, the database (what waits is written), so that every event that was answered with 200 is on disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from looseends import __version__
from looseends_daemon import config, vitals
from looseends_daemon.clock import Clock
from looseends_daemon.config import Settings
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.presence import Presence
from looseends_daemon.core.routing import Route
from looseends_daemon.core.vitals import Vitals
from looseends_daemon.http import (
    api,
    endpoints,
    incidents,
    ingest,
    instances,
    metrics,
    openapi,
    orders,
    pings,
    plans,
    purge,
    signin,
    status,
    stream,
    task_types,
)
from looseends_daemon.http.access import Access
from looseends_daemon.http.context import Context
from looseends_daemon.http.listen import Listener, listen
from looseends_daemon.http.server import make_app
from looseends_daemon.outgoing import Outgoing
from looseends_daemon.reload import changes_outgoing
from looseends_daemon.services import dispatcher
from looseends_daemon.services.acts import Acts
from looseends_daemon.services.adopter import Adopter
from looseends_daemon.services.demo_task import Demo
from looseends_daemon.services.detector import Detector
from looseends_daemon.services.endpoint_acts import EndpointCommands
from looseends_daemon.services.expecter import Expecter
from looseends_daemon.services.exporter import Exports
from looseends_daemon.services.janitor import Janitor
from looseends_daemon.services.marks import Marks, Settler
from looseends_daemon.services.meter import Meter
from looseends_daemon.services.planner import Pacer, Planner
from looseends_daemon.services.replayer import Replayer
from looseends_daemon.services.shell import Loop
from looseends_daemon.services.troubles import LOOK_S, Troubles
from looseends_daemon.services.vigil import TICK_S, Vigil
from looseends_daemon.services.watch import Watch
from looseends_daemon.store import access
from looseends_daemon.store.blind import ALIVE_EVERY_S
from looseends_daemon.store.connection import Database
from looseends_daemon.store.front import StoreFront
from looseends_daemon.store.plan_reads import StorePlans
from looseends_daemon.store.reads import StoreReader
from looseends_daemon.store.task_types import StoreTypes
from looseends_daemon.store.token_file import ensure_operator_token, token_path
from looseends_daemon.telemetry import otlp, prometheus
from looseends_dashboard.assets import version_hash
from looseends_dashboard.routes import Pages, render_error, render_sign_in
from looseends_dashboard.routes import routes as page_routes
from looseends_dashboard.snippets import Addresses

log = logging.getLogger("looseends")
DETECT_IDLE_S = 1.0
ADOPT_IDLE_S = 0.2
REPLAY_IDLE_S = 1.0
JANITOR_IDLE_S = 5.0
SETTLE_IDLE_S = 5.0
EXPECT_IDLE_S = 10.0


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
        self.detector = Detector(
            database, self.policy, lambda: self.rules, started_at=self.started_at, vigil=self.vigil, heeds_writer=True
        )
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
        self.settler = Settler(database, lambda: self.rules, lambda: self.retention.failed, self.wake)
        self.front = StoreFront(database, wall_ns=clock.wall_ns)
        self.streams = stream.Streams(self.front.now, lambda: database.commits, version_hash())
        self.expecter = Expecter(database, config.cron_rules(settings), self.policy)
        self.troubles = Troubles(database, self.policy, lambda: self.rules, self._storage_words, lambda: self.vigil.heard_since)
        self.outgoing = Outgoing(settings, self.rules, database, clock, self.not_ready)
        self.pacer = self._loop("pacer", Pacer(database).run_once, REPLAY_IDLE_S)
        names_max, export = settings.metrics.max_names, config.export_of(settings.otel, os.environ)
        self.meter = Meter(database, prometheus.render, names_max, __version__, self.not_ready, clock.wall_ns)
        self.exports = Exports(database, self.meter, export, otlp.maker(export, __version__, settings.server.instance))
        self.loops: list[Loop] = []
        self.contexts: list[Context] = []

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
            self.pacer,
            self._loop("clock", self.watch.tick, TICK_S),
            self._loop("watch", self.watch.keep, ALIVE_EVERY_S),
            self._loop("janitor", self.janitor.run_once, JANITOR_IDLE_S),
            self._loop("settler", self.settler.run_once, SETTLE_IDLE_S),
            self._loop("stream", self.streams.run_once, stream.LOOK_S),
            self._loop("expecter", self.expecter.run_once, EXPECT_IDLE_S),
            self._loop("troubles", self.troubles.run_once, LOOK_S),
            *self.outgoing.loops,
            *(self._loop(body.name, body.run_once, body.idle_s) for body in self.exports.bodies),
        ]
        self.detector.on_notices = self.troubles.on_notices = self._wake_outgoing

    def _loop(self, name: str, run_once: Callable[[int], Any], idle_s: float) -> Loop:
        return Loop(name, run_once, idle_s_max=idle_s, wall_ns=self.clock.wall_ns)

    def wake(self) -> None:
        """Something arrived that may have to be judged."""
        for loop in self.loops[:1]:
            loop.wake()

    def wake_by(self, at: int) -> None:
        """Something arrived that may have to be judged at `at` (ns)."""
        for loop in self.loops[:1]:
            loop.wake_by(at)

    def _wake_outgoing(self) -> None:
        self.outgoing.wake()  # by name each time: a reload makes another

    def hanging(self) -> list[str]:
        """The loops of which no pass has ended for too long."""
        return [loop.name for loop in self.loops if not loop.turning()]

    # --- a reload ---

    async def adopt(self, settings: Settings) -> None:
        """Go on by these settings (made by reload.merge). Raises StoreError where the storage refuses: then by the old ones."""
        before, rules = self.settings, config.alert_rules(settings)
        if changes_outgoing(before, settings):
            await self._send_anew(settings, rules)
        self.settings, self.rules = settings, rules
        self.policy, self.retention = config.policy(settings), config.retention_rules(settings)
        self.detector.policy = self.troubles.policy = self.policy
        self.adopter.take(self.policy)
        self.expecter.take(config.cron_rules(settings), self.policy)
        for context in self.contexts:
            context.settings, context.policy = settings, self.policy
        for loop in self.loops:
            loop.wake()

    async def _send_anew(self, settings: Settings, rules: AlertRules) -> None:
        """End what sends, fit the stored endpoints, begin to send by the new settings; by the old ones if that fails."""
        old = self.outgoing
        self.loops = [loop for loop in self.loops if loop not in old.loops]
        await old.close()

        def go_by_them() -> None:
            self.settings, self.rules = settings, rules

        try:
            await dispatcher.begin(self.database, rules, self.clock.wall_ns(), go_by_them)
        finally:
            self.outgoing = Outgoing(self.settings, self.rules, self.database, self.clock, self.not_ready)
            self.loops += self.outgoing.loops
            for loop in self.outgoing.loops:
                loop.start()

    def _is_settling(self) -> bool:
        """Whether what was sent while we did not hear may still be arriving."""
        now = self.clock.wall_ns()
        self.vigil.look(now)
        return self.vigil.is_settling(now)

    def _may_have_waited(self, sent_at: int | None) -> bool:
        now = self.clock.wall_ns()
        self.vigil.look(now)
        return self.vigil.may_have_waited(sent_at, now)

    def opened(self, number: int, address: str) -> None:
        """A connection was opened; this daemon is its listener's lookout."""
        self.presence.opened(number, address, self.clock.wall_ns())

    def answered(self, number: int) -> None:
        """A request on it had its answer."""
        self.presence.answered(number)

    def ended(self, number: int, by_peer: bool, unanswered: bool) -> None:
        """It ended. What did while we did not hear is noticed only now, and says nothing: its peer may have lost patience."""
        believed = by_peer and not self._is_settling()
        self.presence.ended(number, self.clock.wall_ns(), by_peer=believed, unanswered=unanswered)

    def not_ready(self) -> list[str]:
        """In words what keeps this daemon from doing its work; empty: nothing does."""
        stopped = [f"the {loop.name} has not run through lately" for loop in self.loops if not loop.healthy()]
        return [*stopped, *self._storage_words()]

    def _storage_words(self) -> list[str]:
        database = self.database
        storage = (database.full, database.checkpoints.stuck, database.trouble, database.missing)
        return [words for words in storage if words is not None]

    def notes(self) -> list[str]:
        """In words what a person should know although all is ready."""
        return [*self.troubles.notes, *self.outgoing.pulse.notes, *self.exports.notes]

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
            plans=StorePlans(self.database, self.clock.wall_ns, base),
            plan_acts=Planner(self.database, self.clock.wall_ns, self.pacer.wake, base),
            policy=self.policy,
            started_at=self.started_at,
            wake=self.wake,
            wake_by=self.wake_by,
            ready=self.not_ready,
            notes=self.notes,
            endpoints=EndpointCommands(self.database, self.clock.wall_ns, self._wake_outgoing, lambda: self.rules),
            alerts=Marks(self.database, self.clock.wall_ns, lambda: self.rules, self.wake, base_url=base),
            types=StoreTypes(self.database, lambda: self.policy),
            vitals=self.vitals,
            lose_one=Demo(self.database, self.clock.wall_ns, lambda: self.policy, self.wake).lose_one,
            presence=self.presence,
            waited=self._may_have_waited,
            storage=lambda: self.janitor.figures(self.clock.wall_ns()),
            streams=self.streams,
            meter=self.meter,
            render_sign_in=render_sign_in,
            render_error=render_error,
            now=self.clock.wall_ns,
            version=__version__,
        )

    async def vitals(self) -> Vitals:
        """How this daemon does."""
        return await vitals.gather(
            self.settings,
            version=__version__,
            started_at=self.started_at,
            addresses=self.listener.addresses if self.listener is not None else [],
            loops=self.loops,
            readers=self.streams.listening,
            wrong=self.not_ready,
            notes=self.notes,
            storage=lambda: self.janitor.figures(self.clock.wall_ns()),
        )

    def application(self) -> web.Application:
        """The HTTP application with every door."""
        context = self.context()
        self.contexts.append(context)
        return make_app(all_routes(context), context)

    async def open_doors(self) -> list[str]:
        """Listen; returns the addresses. Raises ListenError with the way out."""
        made = await self.database.write(access.has_made_tokens)
        self.listener = await listen(self.application(), list(self.settings.server.listen), made_tokens=made, lookout=self)
        for loop in self.loops:
            loop.start()
        return self.listener.addresses

    async def sign_in_code(self) -> str:
        """A one-use code that signs its bearer in as the operator."""
        now = self.clock.wall_ns()
        return await self.database.write(lambda conn: access.make_link(conn, self.operator_token, now=now))

    async def close(self) -> None:
        """Stop in order; safe to call twice. Who judges stops first: behind closed doors every silence would look like a loss."""
        self.exports.close()
        for loop in [loop for loop in self.loops if loop not in self.outgoing.loops]:
            await loop.stop()
        if self.loops:
            await self.watch.end()
        self.streams.close()
        if self.listener is not None:
            await self.listener.close(self.settings.server.shutdown_timeout)
        await self.outgoing.close()
        self.adopter.close()
        await self.database.close()


def all_routes(context: Context) -> list[Route]:
    """The whole route table: what the guard's test matrix is made from."""
    pages = Pages(
        reader=context.reader,
        front=StoreFront(context.database, wall_ns=context.now),
        commands=context.commands,
        clock=context.now,
        addresses=_addresses(context.settings),
        opened=lambda task: context.wishes.opened(task, context.now()),
        plans=context.plans,
        plan_acts=context.plan_acts,
        alerts=context.alerts,
        endpoints=context.endpoints,
        types=context.types,
        vitals=context.vitals,
        lose_one=context.lose_one,
        trace_url=context.settings.otel.trace_url,
    )
    table = [
        *ingest.routes(context),
        *instances.routes(context),
        *orders.routes(context),
        *metrics.routes(context),
        *pings.routes(context),
        *plans.routes(context),
        *api.api_routes(context),
        *incidents.routes(context),
        *purge.routes(context),
        *task_types.routes(context),
        *status.routes(context),
        *endpoints.routes(context),
        *stream.routes(context),
        *signin.routes(context),
        *page_routes(pages),
    ]
    table.append(openapi.route(table, context.version))
    return table


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
