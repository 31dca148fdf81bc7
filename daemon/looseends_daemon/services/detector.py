"""The detector: judges what is due, hands what became of it to incidents, and says when to look again.

Honest limits: a verdict is at most as early as its rules allow (core/detect) and as late as one commit; after a start or a
freeze of the daemon nothing is judged for `grace`, so that nobody is called stuck whose end is still on its way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from looseends.wire import NS
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.policy import Policy
from looseends_daemon.services.vigil import Vigil
from looseends_daemon.store import judgements
from looseends_daemon.store.connection import Database
from looseends_daemon.store.incidents import absorb, advance
from looseends_daemon.store.judgements import Times

if TYPE_CHECKING:
    import sqlite3

PASSES_MAX = 40
SETTLING_NS = NS // 5
"""How long to wait between two passes while nothing may be judged: there may be a hundred thousand tasks to put off."""


class Detector:
    """Judges tasks on a database. `rules` gives the alert rules in force; `notices` is called when notices may wait.

    `vigil`: since when we hear; without one, this detector keeps its own.
    """

    def __init__(
        self,
        database: Database,
        policy: Policy,
        rules: Callable[[], AlertRules],
        *,
        started_at: int,
        vigil: Vigil | None = None,
        heeds_writer: bool = False,
    ) -> None:
        """`heeds_writer`: what falls due while the writer is slow waits a moment for the news that waited with it."""
        self._database = database
        self.policy = policy
        self._rules = rules
        self._heeds_writer = heeds_writer
        self._vigil = vigil or Vigil(started_at=started_at, grace_s=policy.grace)
        self.on_notices: Callable[[], None] = lambda: None

    async def run_once(self, now: int) -> int | None:
        """Judge everything due at `now`; returns when the next task or incident is due (ns)."""
        vigil = self._vigil
        vigil.look(now)
        times = Times(now=now, heard_since=vigil.heard_since, ready_at=vigil.ready_at, blind=vigil.blind, jumps=vigil.jumps)
        settling = vigil.is_settling(now)
        due: int | None = None
        began = time.monotonic()
        for _ in range(1 if settling else PASSES_MAX):
            more, due, changed = await self._database.write(lambda conn: self._pass(conn, self._at_last(times, began)))
            if changed:
                self.on_notices()
            if not more:
                break
        return max(due, now + SETTLING_NS) if settling and due is not None else due

    def _at_last(self, times: Times, began: float) -> Times:
        """The same times in this transaction, which may have waited for a slow one; `began`: when it was asked for."""
        slow = self._database.slow if self._heeds_writer else None
        if slow is None:
            return times
        held_up = (times.now + int((slow[0] - began) * NS), times.now + int((slow[1] - began) * NS))
        now = times.now + int((time.monotonic() - began) * NS)
        return msgspec.structs.replace(times, held_up=held_up if now < held_up[1] + NS else None)

    def _pass(self, conn: sqlite3.Connection, times: Times) -> tuple[bool, int | None, bool]:
        """Judgements, incidents and their notices: one transaction. (more to do, when next, whether anything was written)"""
        rules, before = self._rules(), conn.total_changes
        judged = judgements.judge_due(conn, times, self.policy)
        absorb(conn, times.now, list(judged.changes), rules)
        next_incident = advance(conn, times.now, rules)
        due = [at for at in (judgements.next_check(conn), next_incident) if at is not None]
        return judged.more, min(due, default=None), conn.total_changes != before
