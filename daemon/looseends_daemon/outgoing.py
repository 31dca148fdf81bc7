"""What leaves the daemon: one sender and one loop for each endpoint, one more where a receiver forgets, and the heartbeat.

Apart from app.py for its length. Rules: endpoints share nothing, so that none waits for another; they stop together, beginning
nothing more, and what is then cut off is sent again by the daemon that comes next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from looseends import __version__
from looseends_daemon.clock import Clock
from looseends_daemon.config import Settings
from looseends_daemon.core.alerts import RESEND_S
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.notify.alertmanager import Alertmanager
from looseends_daemon.notify.heartbeat import Heartbeat
from looseends_daemon.notify.reach import Reach
from looseends_daemon.notify.senders import Sender, make_sender
from looseends_daemon.notify.webhook import Target
from looseends_daemon.services.dispatcher import Dispatcher
from looseends_daemon.services.pulse import Pulse
from looseends_daemon.services.refresher import Refresher
from looseends_daemon.services.shell import Loop
from looseends_daemon.store.connection import Database

DISPATCH_IDLE_S = 30.0
"""A pass may wait for an endpoint that hangs, up to its timeout beyond this; the loop counts as healthy meanwhile."""


class Outgoing:
    """Makes the loops; whoever owns this starts them. `troubled` names what does not work: then the heartbeat is silent."""

    def __init__(
        self, settings: Settings, rules: AlertRules, database: Database, clock: Clock, troubled: Callable[[], Sequence[str]]
    ) -> None:
        self._database, self._clock = database, clock
        self._reach = Reach(allow_private=settings.network.allow_private, deny=settings.network.deny_networks)
        self._senders: list[Sender] = []
        self._dispatchers: list[tuple[Dispatcher, Loop]] = []
        self.loops: list[Loop] = []
        for endpoint, rule in zip(settings.endpoints, rules.endpoints, strict=True):
            target = Target(name=endpoint.name, url=endpoint.url, secrets=endpoint.secrets, timeout=endpoint.timeout)
            sender = make_sender(endpoint.kind, target, self._reach, version=__version__, clock=clock.wall_ns)
            body = Dispatcher(database, rule, sender.post, clock.wall_ns)
            self._senders.append(sender)
            self._dispatchers.append((body, self._loop(body.name, body.run_once, DISPATCH_IDLE_S)))
            if isinstance(sender, Alertmanager):
                refresher = Refresher(database, endpoint.name, sender.refresh, clock.wall_ns)
                self._loop(refresher.name, refresher.run_once, RESEND_S)
        self._heartbeat = Heartbeat(settings.heartbeat.url, self._reach, version=__version__)
        self.pulse = Pulse(self._heartbeat.beat, settings.heartbeat.every, troubled)
        if settings.heartbeat.url is not None:
            self._loop("heartbeat", self.pulse.run_once, settings.heartbeat.every)

    def _loop(self, name: str, run_once: Callable[[int], Any], idle_s: float) -> Loop:
        self.loops.append(Loop(name, run_once, idle_s_max=idle_s, wall_ns=self._clock.wall_ns))
        return self.loops[-1]

    def wake(self) -> None:
        """There may be notices to send."""
        for body, loop in self._dispatchers:
            body.wake()
            loop.wake()

    async def close(self) -> None:
        """Stop the loops together and close what is kept open. Safe to call twice."""
        for body, _ in self._dispatchers:
            body.finish()
        await asyncio.gather(*(loop.stop() for loop in self.loops))
        for sender in self._senders:
            await sender.close()
        await self._heartbeat.close()
