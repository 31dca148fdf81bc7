"""The acts on endpoints and notices, as pages and routes reach them: core/endpoints.EndpointActs on a database.

Rules: an act returns after its commit; then the dispatchers are woken.
"""

from __future__ import annotations

from collections.abc import Callable

from looseends_daemon.core.endpoints import Endpoint, Resent
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.resources import Actor, CommandRefused, Notice
from looseends_daemon.store import endpoints, outbox, resends
from looseends_daemon.store.connection import Database
from looseends_daemon.store.endpoints import Connection
from looseends_daemon.store.questions import ask_async


class EndpointCommands:
    """See core/endpoints.EndpointActs. `rules` gives the alert rules in force, `wake` makes the dispatchers look."""

    def __init__(
        self, database: Database, now: Callable[[], int], wake: Callable[[], None], rules: Callable[[], AlertRules]
    ) -> None:
        self._database = database
        self._now = now
        self._wake = wake
        self._rules = rules

    async def endpoints(self) -> list[Endpoint]:
        """All that are configured, in the order of the configuration."""
        rules = self._rules().endpoints
        return await self._database.read(lambda conn: ask_async(conn, endpoints.endpoints(rules)))

    async def test_endpoint(self, name: str, actor: Actor) -> Notice:
        """Send it a test, tried once. Raises CommandRefused 404."""
        await self._one(name)
        now, rules = self._now(), self._rules()
        notice_id = await self._database.write(lambda conn: resends.test(conn, now, name, actor, rules))
        self._wake()
        return await self._notice(notice_id)

    async def enable_endpoint(self, name: str, actor: Actor) -> Endpoint:
        """Send to it again; it is told of what it missed. Raises CommandRefused 404."""
        await self._one(name)
        now, rules = self._now(), self._rules()

        def work(conn: Connection) -> None:
            if endpoints.enable(conn, now, name, actor):
                resends.catch_up(conn, now, name, rules)

        await self._database.write(work)
        self._wake()
        return await self._one(name)

    async def disable_endpoint(self, name: str, actor: Actor) -> Endpoint:
        """Stop sending to it. Raises CommandRefused 404."""
        await self._one(name)
        now = self._now()
        await self._database.write(lambda conn: endpoints.disable(conn, now, name, actor))
        return await self._one(name)

    async def resend_notice(self, notice_id: str, actor: Actor) -> Notice:
        """Tell its endpoint again how the incident stands. Raises CommandRefused 404, 409."""
        now, rules = self._now(), self._rules()
        made = await self._database.write(lambda conn: resends.resend(conn, now, notice_id, actor, rules))
        self._wake()
        return await self._notice(made)

    async def resend_notices(self, from_: int, to: int, endpoint: str | None, actor: Actor) -> Resent:
        """The same for what was written in [from_, to). Raises CommandRefused 404, 409."""
        if endpoint is not None:
            await self._one(endpoint)
        now, rules = self._now(), self._rules()
        done = await self._database.write(lambda conn: resends.resend_range(conn, now, from_, to, endpoint, actor, rules))
        self._wake()
        return done

    async def _one(self, name: str) -> Endpoint:
        found = await self.endpoints()
        for one in found:
            if one.name == name:
                return one
        known = ", ".join(one.name for one in found) or "none: add an [[endpoint]] to the configuration"
        raise CommandRefused(404, "No such endpoint", [f"there is no endpoint {name[:100]!r}; configured: {known}"])

    async def _notice(self, notice_id: str) -> Notice:
        found = await self._database.read(lambda conn: outbox.notice(conn, notice_id))
        assert found is not None, "it was written a moment ago, and nobody deletes notices on their way"
        return found
