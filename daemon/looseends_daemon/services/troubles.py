"""Looks for what is wrong with the daemon itself, and lets incidents say so.

Rules: everything is read first; the writer is asked only when something begins, changes or ends. What storage says in words is
handed in, since it lives in memory. `on_notices` is called when somebody is to be told. `notes` holds what a person should know
although all is ready, for the readiness probe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from looseends_daemon.core.endpoints import Endpoint
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import BlindWindow
from looseends_daemon.core.troubles import SHOWN_S, SUBJECTS_MAX, Behind, troubles
from looseends_daemon.services.shell import NS
from looseends_daemon.store import blind, endpoints
from looseends_daemon.store import troubles as store
from looseends_daemon.store.connection import Database
from looseends_daemon.store.questions import Question, ask_async

LOOK_S = 5.0


class Troubles:
    """The loop body. `rules`, `storage` and `heard_since` (ns) are asked anew in each pass."""

    def __init__(
        self,
        database: Database,
        policy: Policy,
        rules: Callable[[], AlertRules],
        storage: Callable[[], Sequence[str]],
        heard_since: Callable[[], int],
    ) -> None:
        self._database = database
        self.policy = policy
        self._rules = rules
        self._storage = storage
        self._heard_since = heard_since
        self.on_notices: Callable[[], None] = lambda: None
        self.notes: list[str] = []

    async def run_once(self, now: int) -> int | None:
        """Look once. Returns when to look again (ns). Raises StoreError."""
        rules, since = self._rules(), self._heard_since()
        shown, windows, behind = await self._database.read(lambda conn: ask_async(conn, _facts(rules, now, since, self.policy)))
        self.notes = _notes(shown)
        found = troubles(now=now, endpoints=shown, storage=list(self._storage()), windows=windows, behind=behind)
        differs = await self._database.read(lambda conn: ask_async(conn, store.differs(found, now, rules)))
        if differs and await self._database.write(lambda conn: store.absorb(conn, now, found, rules)):
            self.on_notices()
        return now + round(LOOK_S * NS)


def _facts(
    rules: AlertRules, now: int, since: int, policy: Policy
) -> Question[tuple[list[Endpoint], list[BlindWindow], list[Behind]]]:
    shown = yield from endpoints.endpoints(rules.endpoints)
    page = yield from blind.windows(now - round(SHOWN_S * NS), None, 5 * SUBJECTS_MAX, None, now)
    behind = yield from store.behind(now, since, policy)
    return shown, list(page.items), behind


def _notes(shown: Sequence[Endpoint]) -> list[str]:
    """No names: the probe answers everybody."""
    counts = {state: sum(one.state == state for one in shown) for state in ("disabled", "failing")}
    return [
        f"{count} of {len(shown)} endpoints {'is' if count == 1 else 'are'} {state}; GET /api/v1/endpoints says why"
        for state, count in counts.items()
        if count
    ]
