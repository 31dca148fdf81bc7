"""Plans and their runs: made, begun and steered by people, and the clock that releases orders at their pace.

Rules:

1. A plan is made, and looked through before it begins, step by step: no step holds the writer, a reader or the loop for long.
2. An act returns after its commit; then whoever waits for it is woken.
3. What fails in the middle leaves nothing that anybody could run: a plan without a digest is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from looseends_daemon.core.plans import (
    CHANGES_SHOWN_MAX,
    PLAN_TASKS_MAX,
    Judged,
    Plan,
    Selection,
    Wish,
    check_selection,
    check_wish,
)
from looseends_daemon.core.resources import Actor, CommandRefused, Replay
from looseends_daemon.store import plans, runs
from looseends_daemon.store.connection import Database
from looseends_daemon.store.questions import Question, ask_async
from looseends_daemon.store.sources import Around

T = TypeVar("T")
WRITTEN_ITEMS = 2_000
"""Items written in one transaction while a plan is made."""


class Planner:
    """core/plans.PlanCommands on a database. `now`: wall clock (ns); `wake`: called when there is something to release."""

    def __init__(self, database: Database, now: Callable[[], int], wake: Callable[[], None], base_url: str = "") -> None:
        self._database, self._now, self._wake, self._base = database, now, wake, base_url

    async def _read(self, question: Question[T]) -> T:
        return await self._database.read(lambda conn: ask_async(conn, question))

    async def make_plan(self, selection: Selection, actor: Actor) -> Plan:
        """Freeze what is chosen with what can be said of each. Raises CommandRefused (404, 422), QueryError."""
        check_selection(selection)
        at = self._now()
        await self._read(plans.check_named(selection))
        made = await self._database.write(lambda conn: plans.begin_plan(conn, selection, actor, at))
        try:
            await self._fill(made, selection, at)
            if not made.total:
                raise CommandRefused(422, "Nothing was chosen", ["no task fits this selection: widen it, or look for is:loose"])
        except BaseException:
            await self._database.write(lambda conn: plans.drop_plan(conn, made))
            raise
        plan_id = await self._database.write(lambda conn: plans.finish_plan(conn, made, actor, self._now()))
        found = await self._read(plans.plan_one(plan_id, self._now(), self._base))
        assert found is not None, "a plan that was just made is there"
        return found

    async def _fill(self, made: plans.Making, asked: Selection, at: int) -> None:
        around, place, seen = Around(), plans.Place(), 0
        unwritten: list[Judged] = []
        while True:
            rows, said = await self._read(plans.step(asked, place, at, around))
            unwritten += said
            seen += len(rows)
            if seen > PLAN_TASKS_MAX:
                words = f"more than {PLAN_TASKS_MAX:,} tasks fit: narrow the query or the window, and plan the rest after it"
                raise CommandRefused(422, "Too much was chosen", [words])
            done = len(rows) < plans.STEP_TASKS
            if len(unwritten) >= WRITTEN_ITEMS or done:
                await self._write(made, unwritten)
                unwritten = []
            if done:
                return
            place = plans.Place(began_at=rows[-1]["began_at"], task=rows[-1]["id"])

    async def _write(self, made: plans.Making, said: Sequence[Judged]) -> None:
        await self._database.write(lambda conn: plans.add_items(conn, made, said))

    async def start_replay(self, wish: Wish, actor: Actor) -> Replay:
        """Begin a plan's one run. Raises CommandRefused 404, 409 (run before, another list, changed since: what), 410, 422."""
        check_wish(wish)
        plan = await self._read(runs.ready_plan(wish, self._now()))
        around, changes, number = Around(), list[tuple[str, str]](), 0
        after: int | None = -1
        while after is not None:
            step = await self._read(runs.check_step(plan, wish, after, around))
            changes += step.changes[: CHANGES_SHOWN_MAX - len(changes)]
            number, after = number + len(step.changes), step.after
        if changes:
            raise _stale(changes, number)
        replay = await self._database.write(lambda conn: runs.begin(conn, wish, actor, self._now(), self._base))
        self._wake()
        return replay

    async def steer(self, replay_id: str, act: str, actor: Actor) -> Replay:
        """Pause, resume or cancel a replay. Raises CommandRefused 404, 409."""
        at = self._now()
        replay = await self._database.write(lambda conn: runs.steer(conn, replay_id, act, actor, at, self._base))
        self._wake()
        return replay


def _stale(changes: Sequence[tuple[str, str]], number: int) -> CommandRefused:
    reasons = [f"{task}: {what}" for task, what in changes]
    if number > len(changes):
        reasons.append(f"and {number - len(changes):,} more")
    word = "task has" if number == 1 else "tasks have"
    return CommandRefused(409, f"{number:,} {word} changed since this plan was made: make it again and look again", reasons)


class Pacer:
    """The clock of runs: `run_once(now)` for the supervised loop."""

    def __init__(self, database: Database) -> None:
        self._database, self._first = database, True

    async def run_once(self, now: int) -> int | None:
        """Release what the pace of each run allows; when to look again (ns), None: no run moves."""
        first, self._first = self._first, False
        if not await self._database.read(lambda conn: ask_async(conn, runs.moving())):
            return None
        if first:
            await self._database.write(runs.awake)
        return await self._database.write(lambda conn: runs.turn(conn, now))
