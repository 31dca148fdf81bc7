"""Acknowledgements, silences and dismissals as pages and routes reach them, and the loop that carries dismissals out.

Rules: an act returns after its commit; then whoever waits for its effect is woken. A dismissal that is too large for one commit
is carried on here, a step at a time with pauses, also after a stop of the daemon; failures that nobody did anything about dismiss
themselves here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from looseends.wire import NEVER, NS
from looseends_daemon.core.incidents import AlertRules
from looseends_daemon.core.marks import (
    SHOWN_MAX,
    Dismissal,
    Frozen,
    Preview,
    Silence,
    checked_matchers,
    checked_window,
    digest_of,
)
from looseends_daemon.core.resources import Actor, CommandRefused, Incident, Page
from looseends_daemon.store import acks, dismissals, frozen, silences
from looseends_daemon.store.codes import blob
from looseends_daemon.store.connection import Database
from looseends_daemon.store.hidden import hidden
from looseends_daemon.store.incident_pages import incident_one
from looseends_daemon.store.questions import Question, ask, ask_async

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")
WAIT_S = 3.0
"""How long an act waits for its dismissal; a larger one is answered as `running`."""
PAUSES = 2
"""After a step the writer has this many times its duration for others."""
SWEEP_NS = 60 * NS


def _nobody() -> None:
    """There is nobody to wake."""


class Marks:
    """core/marks.Alerts on a database. `now`: wall clock (ns); `rules`: the alert rules in force; `wake` is called after acts."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], int],
        rules: Callable[[], AlertRules],
        wake: Callable[[], None] = _nobody,
        base_url: str = "",
    ) -> None:
        self._database, self._now, self._rules, self._wake, self._base = database, now, rules, wake, base_url

    async def _ask(self, question: Question[T]) -> T:
        return await self._database.read(lambda conn: ask_async(conn, question))

    async def _act(self, act: Callable[[sqlite3.Connection], T]) -> T:
        done = await self._database.write(act)
        self._wake()
        return done

    # --- acknowledgements ---

    async def acknowledge(self, incident_id: str, actor: Actor, *, note: str, expires: float | None = None) -> Incident:
        """See core/marks.AlertCommands."""
        at, rules = self._now(), self._rules()

        def act(conn: sqlite3.Connection) -> Incident:
            acks.acknowledge(conn, incident_id, actor, at, note=note, expires=expires, rules=rules)
            found = ask(conn, incident_one(incident_id, self._base, at))
            if found is None:
                raise CommandRefused(404, "No such incident", [f"there is no incident {incident_id[:100]}"])
            return found

        return await self._act(act)

    # --- silences ---

    async def silence(
        self, actor: Actor, *, matchers: Sequence[str], comment: str, ends_at: int, starts_at: int | None = None
    ) -> Silence:
        """See core/marks.AlertCommands."""
        at = self._now()
        return await self._act(
            lambda conn: silences.add(conn, actor, at, matchers=matchers, comment=comment, ends_at=ends_at, starts_at=starts_at)
        )

    async def preview_silence(self, *, matchers: Sequence[str], ends_at: int, starts_at: int | None = None) -> Preview:
        """See core/marks.AlertCommands."""
        now = self._now()
        wanted = checked_matchers(matchers)
        begin, end = checked_window(starts_at, ends_at, now)
        count, items = await self._ask(hidden(wanted, SHOWN_MAX, now, self._base))
        return Preview(matchers=[str(one) for one in wanted], starts_at=begin, ends_at=end, hides=count, items=items)

    async def end_silence(self, silence_id: str, actor: Actor) -> Silence:
        """See core/marks.AlertCommands."""
        at = self._now()
        return await self._act(lambda conn: silences.end(conn, silence_id, actor, at))

    # --- dismissals ---

    async def freeze(self, *, q: str | None = None, incident: str | None = None) -> Frozen:
        """See core/marks.AlertCommands."""
        return await self._ask(frozen.freeze(q, incident, self._now(), self._base))

    async def dismiss(
        self, actor: Actor, *, note: str, digest: str, q: str | None = None, incident: str | None = None
    ) -> Dismissal:
        """See core/marks.AlertCommands."""
        now = self._now()
        what, tasks = await self._ask(frozen.tasks_of(q, incident, now))
        found = digest_of(tasks)
        if digest != found:
            words = f"{len(tasks)} loose ends are open there by now, digest {found}; look at them, then dismiss by that"
            raise CommandRefused(409, "They are others by now", [words])
        no = await self._database.write(lambda conn: dismissals.begin(conn, tasks, actor, now, note=note, what=what))
        return await self._carried_out(no)

    async def undo_dismissal(self, dismissal_id: str, actor: Actor) -> Dismissal:
        """See core/marks.AlertCommands."""
        at = self._now()
        no = await self._database.write(lambda conn: dismissals.undo(conn, dismissal_id, actor, at))
        return await self._carried_out(no)

    async def _carried_out(self, no: int) -> Dismissal:
        """Step by step while nobody has to wait long; the loop does the rest."""
        began, rules, more = time.monotonic(), self._rules(), True
        while more and time.monotonic() - began < WAIT_S:
            more = await self._database.write(lambda conn: dismissals.step(conn, self._now(), rules, no))
        self._wake()
        return await self._ask(dismissals.dismissal_numbered(no))

    # --- reading ---

    async def silences(self, state: str | None = None, limit: int = 50, cursor: str | None = None) -> Page[Silence]:
        """See core/marks.AlertReader."""
        return await self._ask(silences.silence_page(state, limit, cursor, self._now()))

    async def silence_of(self, silence_id: str) -> Silence | None:
        """See core/marks.AlertReader."""
        return await self._ask(silences.silence_one(silence_id, self._now()))

    async def dismissals(self, limit: int = 50, cursor: str | None = None) -> Page[Dismissal]:
        """See core/marks.AlertReader."""
        return await self._ask(dismissals.dismissal_page(limit, cursor))

    async def dismissal(self, dismissal_id: str) -> Dismissal | None:
        """See core/marks.AlertReader."""
        return await self._ask(dismissals.dismissal_one(dismissal_id))

    async def dismissal_of(self, task_id: str) -> Dismissal | None:
        """See core/marks.AlertReader."""
        return await self._ask(dismissals.dismissal_of(blob(task_id)))


class Settler:
    """`run_once(now)` for the supervised loop. `keep_ns`: how long ended silences and dismissals are remembered."""

    def __init__(
        self,
        database: Database,
        rules: Callable[[], AlertRules],
        keep_ns: Callable[[], int],
        wake: Callable[[], None] = _nobody,
    ) -> None:
        self._database, self._rules, self._keep_ns, self._wake = database, rules, keep_ns, wake
        self._sweep_at = 0
        self._place: dismissals.Place | None = None

    async def run_once(self, now: int) -> int | None:
        """One step of a dismissal, or of the sweep for old failures and old rows; when to take the next (ns)."""
        began = time.perf_counter()
        rules = self._rules()
        if await self._ask(dismissals.is_busy()):
            more = await self._database.write(lambda conn: dismissals.step(conn, now, rules))
            if not more:
                self._wake()
        elif now >= self._sweep_at:
            more = await self._sweep(now, rules)
        else:
            return self._sweep_at
        pause = PAUSES * (time.perf_counter() - began)
        return now + int(pause * NS) if more else self._sweep_at

    async def _ask(self, question: Question[T]) -> T:
        return await self._database.read(lambda conn: ask_async(conn, question))

    async def _sweep(self, now: int, rules: AlertRules) -> bool:
        """Old failures, a few at a time; at their end the rows that nobody needs any more. Whether there is more."""
        until, after = now - self._keep_ns(), rules.settle_failed_after
        failed = -1 if after == NEVER else now - round(after * NS)
        if not await self._ask(dismissals.is_due(now, until, failed)):
            self._sweep_at = now + SWEEP_NS
            return False
        if after != NEVER:
            place = self._place or dismissals.START
            self._place = await self._database.write(lambda conn: dismissals.settle_old_failures(conn, now, rules, place))
            if self._place is not None:
                return True
            self._wake()
        more = await self._database.write(lambda conn: dismissals.forget(conn, now, until))
        await self._database.write(lambda conn: silences.forget(conn, until))
        if not more:
            self._sweep_at = now + SWEEP_NS
        return more
