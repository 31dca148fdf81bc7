"""A run of a plan over a real database: its canary, its pace, its stops, and what a killed daemon goes on with."""

from __future__ import annotations

from typing import Any

import pytest

from looseends.wire import NS
from looseends_daemon.core.orders import UNCLAIMED_S_MAX
from looseends_daemon.core.pace import HELD_NS_MAX, Rule
from looseends_daemon.core.plans import Selection, Wish
from looseends_daemon.core.resources import CommandRefused, Replay
from looseends_daemon.services.planner import Pacer, Planner
from looseends_daemon.services.replayer import Replayer
from looseends_daemon.store import codes, orders, plan_reads, replays, reports, retention
from looseends_daemon.store.plans import forget_plans

SEND = {"name": "mail.send", "signature": "(order_id)", "code": "abc"}


class Runner:
    """A world with a plan over `count` lost tasks, and the instance that takes its orders."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.planner = Planner(world.database, lambda: world.now, lambda: None)
        self.pacer = Pacer(world.database)
        self.reader = plan_reads.StorePlans(world.database, lambda: world.now)
        self.alive: dict[str, Any] = {}
        self.tasks: list[str] = []
        self.id = ""

    async def begin(self, count: int, *confirm: str, **rule: Any) -> Replay:
        dead = await self.world.instance(SEND)
        for _ in range(count):
            self.tasks.append(await self.world.started(dead))
        await self.world.gone(dead)
        self.alive = await self.world.instance(SEND)
        plan = await self.planner.make_plan(Selection(q="is:open"), self.world.operator)
        wish = Wish(plan=plan.id, digest=plan.digest, confirm=confirm, rule=Rule(**rule))
        replay = await self.planner.start_replay(wish, self.world.operator)
        self.id = replay.id
        return replay

    async def pass_(self, seconds: float = 0.0) -> None:
        self.world.later(seconds)
        await self.pacer.run_once(self.world.now)

    async def steer(self, act: str) -> Replay:
        return await self.planner.steer(self.id, act, self.world.operator)

    async def shown(self) -> Replay:
        found = await self.world.database.read(lambda conn: replays.replay(conn, self.id, now=self.world.now))
        assert found is not None
        return found

    async def count(self, state: str) -> int:
        return (await self.shown()).counts[state]

    async def waiting(self) -> list[str]:
        rows = await self.world.rows("SELECT id FROM replay_order WHERE state = 'waiting' ORDER BY item")
        return [codes.text(row["id"]) for row in rows]

    async def take(self, order: str) -> orders.Claim:
        given: orders.Claim = await self.world.database.write(
            lambda conn: orders.claim(conn, codes.blob(order), self.alive["id"], self.world.now)
        )
        return given

    async def do(self, kind: str = "finished", count: int | None = None) -> int:
        """The instance takes what waits, and ends it."""
        done = (await self.waiting())[:count]
        for order in done:
            assert (await self.take(order)).order is not None
            await self.world.tell(self.alive, {"type": "started", "task": order, "name": "mail.send", "at": self.world.now})
            error = {"error": {"type": "E", "message": "m"}} if kind == "failed" else {}
            await self.world.ended(self.alive, order, kind, **error)
        return len(done)


@pytest.fixture
def runner(world: Any) -> Runner:
    return Runner(world)


async def test_a_run_does_every_task_once_canary_first(runner: Runner) -> None:
    await runner.begin(12, canary=3, per_second=100, in_flight=5)
    await runner.pass_()
    await runner.pass_(1)
    assert len(await runner.waiting()) == 3, "the rest waits for the canary"
    await runner.do(count=2)
    await runner.pass_(1)
    assert len(await runner.waiting()) == 1, "until all of it has ended"
    await runner.do()
    sizes = []
    for _ in range(10):
        await runner.pass_(1)
        sizes.append(await runner.do())
    assert max(sizes) == 5 and sum(sizes) == 9
    shown = await runner.shown()
    assert shown.state == "done" and shown.counts["succeeded"] == 12 == shown.counts["total"]
    assert len(await runner.world.rows("SELECT DISTINCT task FROM replay_order")) == 12
    assert await runner.pacer.run_once(runner.world.later(1)) is None


async def test_a_failed_canary_stops_the_run_and_a_person_lets_it_go_on(runner: Runner) -> None:
    await runner.begin(6, canary=2, per_second=100)
    await runner.pass_(1)
    await runner.do("failed", 1)
    await runner.do()
    await runner.pass_(1)
    shown = await runner.shown()
    assert shown.state == "paused" and "1 of the first 2" in shown.run.why
    await runner.pass_(60)
    assert await runner.waiting() == []
    await runner.steer("resume")
    await runner.pass_(1)
    assert len(await runner.waiting()) == 4, "who looked at the canary need not look again"
    assert (await runner.shown()).run.why is None


async def test_a_run_stops_after_its_failures_and_counts_anew_when_resumed(runner: Runner) -> None:
    await runner.begin(9, canary=0, per_second=100, in_flight=3, stop_after_failures=2)
    await runner.pass_()
    await runner.pass_(1)
    await runner.do("failed")
    await runner.pass_(1)
    assert (await runner.shown()).state == "paused"
    await runner.steer("resume")
    await runner.pass_(1)
    await runner.do("failed", 1)
    await runner.do()
    await runner.pass_(1)
    assert (await runner.shown()).state == "running"


async def test_what_was_forgiven_and_then_ended_well_is_no_credit_for_other_failures(runner: Runner) -> None:
    await runner.begin(9, canary=0, per_second=100, in_flight=2, stop_after_failures=2)
    await runner.pass_(1)
    orders_ = await runner.waiting()
    for order in orders_:
        await runner.take(order)
    await runner.world.gone(runner.alive)
    await Replayer(runner.world.database).run_once(runner.world.now)
    first, runner.alive = runner.alive, await runner.world.instance(SEND)
    await runner.pass_(1)
    assert (await runner.shown()).state == "paused"
    await runner.steer("resume")
    for order in orders_:
        await runner.world.tell(first, {"type": "started", "task": order, "name": "mail.send", "at": runner.world.now})
        await runner.world.ended(first, order)
    assert await runner.count("succeeded") == 2
    await runner.pass_(1)
    await runner.do("failed")
    await runner.pass_(1)
    shown = await runner.shown()
    assert shown.state == "paused" and shown.counts["failed"] == 2 and "it was to stop after 2" in shown.run.why


async def test_a_paused_run_of_which_nothing_is_left_is_done(runner: Runner) -> None:
    await runner.begin(2, canary=0, per_second=100)
    await runner.pass_(1)
    (first, second) = await runner.waiting()
    await runner.take(first)
    await runner.take(second)
    assert (await runner.steer("pause")).state == "paused"
    for order in (first, second):
        await runner.world.tell(runner.alive, {"type": "started", "task": order, "name": "mail.send", "at": runner.world.now})
        await runner.world.ended(runner.alive, order)
    assert (await runner.shown()).state == "done"
    with pytest.raises(CommandRefused) as refused:
        await runner.steer("resume")
    assert "it is done" in refused.value.reasons[0]


async def test_what_waits_behind_long_work_of_its_replay_does_not_expire(runner: Runner) -> None:
    await runner.begin(3, canary=0, per_second=100)
    await runner.pass_(1)
    (first, *rest) = await runner.waiting()
    await runner.take(first)
    started = {"type": "started", "task": first, "name": "mail.send", "at": runner.world.now, "deadline": "never"}
    await runner.world.tell(runner.alive, started)
    clock = Replayer(runner.world.database)
    for _ in range(3):
        await clock.run_once(runner.world.later(UNCLAIMED_S_MAX + 1))
        assert await runner.waiting() == rest
    await runner.world.ended(runner.alive, first)
    await clock.run_once(runner.world.later(UNCLAIMED_S_MAX + 1))
    assert await runner.waiting() == [] and await runner.count("expired") == 2


async def test_what_waits_behind_work_whose_process_died_does_expire(runner: Runner) -> None:
    await runner.begin(2, canary=0, per_second=100)
    await runner.pass_(1)
    (first, _) = await runner.waiting()
    await runner.take(first)
    await runner.world.tell(runner.alive, {"type": "started", "task": first, "name": "mail.send", "at": runner.world.now})
    await runner.world.gone(runner.alive)
    await Replayer(runner.world.database).run_once(runner.world.later(UNCLAIMED_S_MAX + 1))
    assert await runner.count("expired") == 1


async def test_a_paused_run_gives_out_nothing_not_even_what_waits(runner: Runner) -> None:
    await runner.begin(6, canary=0, per_second=100, in_flight=3)
    await runner.pass_(1)
    (first, *rest) = await runner.waiting()
    assert (await runner.take(first)).order is not None
    await runner.steer("pause")
    refused = await runner.take(rest[0])
    assert refused.order is None and "paused" in refused.reason
    await runner.pass_(UNCLAIMED_S_MAX + 1)
    await Replayer(runner.world.database).run_once(runner.world.now)
    assert await runner.waiting() == rest, "time does not run against what nobody may take"
    await runner.steer("resume")
    await Replayer(runner.world.database).run_once(runner.world.later(1))
    assert (await runner.take(rest[0])).order is not None


async def test_a_cancelled_run_never_begins_again(runner: Runner) -> None:
    await runner.begin(6, canary=0, per_second=100, in_flight=3)
    await runner.pass_(1)
    (first, second, _) = await runner.waiting()
    await runner.take(first)
    shown = await runner.steer("cancel")
    assert shown.state == "cancelled" and shown.counts["cancelled"] == 5 and shown.counts["claimed"] == 1
    assert (await runner.take(second)).order is None
    await runner.pass_(60)
    assert await runner.waiting() == []
    for act in ("pause", "resume", "cancel"):
        with pytest.raises(CommandRefused) as refused:
            await runner.steer(act)
        assert refused.value.status == 409 and "it is cancelled" in refused.value.reasons[0]


async def test_a_daemon_that_is_started_anew_goes_on_where_it_was(runner: Runner) -> None:
    await runner.begin(10, canary=2, per_second=100, in_flight=4)
    for n in range(12):
        if n == 2:
            await runner.steer("pause")
            runner.pacer = Pacer(runner.world.database)
            await runner.pass_(600)
            await runner.steer("resume")
        await runner.pass_(1)
        runner.pacer = Pacer(runner.world.database)
        await runner.do()
    rows = await runner.world.rows("SELECT task, count(*) AS n FROM replay_order GROUP BY 1")
    assert len(rows) == 10 and {row["n"] for row in rows} == {1}
    assert (await runner.shown()).counts["succeeded"] == 10


async def test_what_ended_well_by_the_time_of_its_turn_is_not_run(runner: Runner) -> None:
    await runner.begin(3, canary=1, per_second=100)
    await runner.pass_()
    rows = await runner.world.rows("SELECT i.id FROM instance i ORDER BY i.no LIMIT 1")
    await runner.world.adopted({"id": rows[0]["id"], "service": "shop"}, runner.tasks[2])
    await runner.do()
    await runner.pass_(1)
    await runner.pass_(1)
    await runner.do()
    shown = await runner.shown()
    assert (shown.counts["succeeded"], shown.counts["blocked"], shown.state) == (2, 1, "done")
    blocked = (await runner.reader.run_items(runner.id, state="blocked")).items  # type: ignore[union-attr]
    assert [item.task for item in blocked] == [runner.tasks[2]] and "ended well already" in str(blocked[0].detail)


async def test_a_run_waits_for_a_service_that_is_started_anew(runner: Runner) -> None:
    await runner.begin(4, canary=0, per_second=100, in_flight=2)
    await runner.pass_(1)
    await runner.do()
    await runner.world.gone(runner.alive)
    await runner.pass_(1)
    shown = await runner.shown()
    assert shown.state == "running" and shown.counts["blocked"] == 0 and "no instance of shop is alive" in shown.run.why
    runner.alive = await runner.world.instance(SEND)
    await runner.pass_(1)
    assert await runner.do() == 2 and (await runner.shown()).run.why is None


async def test_but_not_for_ever(runner: Runner) -> None:
    await runner.begin(2, canary=0, per_second=100)
    await runner.world.gone(runner.alive)
    await runner.pass_(1)
    await runner.pass_(HELD_NS_MAX / NS + 1)
    shown = await runner.shown()
    assert shown.state == "paused" and "for ten minutes" in shown.run.why


async def test_time_in_which_the_daemon_was_down_is_no_wait_for_a_service(runner: Runner) -> None:
    await runner.begin(2, canary=0, per_second=100)
    await runner.world.gone(runner.alive)
    await runner.pass_(1)
    runner.world.later(HELD_NS_MAX / NS + 1)
    runner.pacer = Pacer(runner.world.database)
    await runner.pass_()
    assert (await runner.shown()).state == "running"
    runner.alive = await runner.world.instance(SEND)
    await runner.pass_(1)
    assert await runner.do() == 2


@pytest.mark.parametrize(
    ("reason", "then"), [("code_changed", {"code": "newest"}), ("caution", {"code": "abc", "caution": "charges a card"})]
)
async def test_what_was_confirmed_of_other_code_or_another_caution_is_not_run(runner: Runner, reason: str, then: Any) -> None:
    shown = {"code_changed": {**SEND, "code": "newer"}, "caution": {**SEND, "caution": "sends a mail"}}[reason]
    for _ in range(4):
        runner.tasks.append(await runner.world.lost(SEND))
    runner.alive = await runner.world.instance(shown)
    plan = await runner.planner.make_plan(Selection(q="is:open"), runner.world.operator)
    assert plan.counts["confirm"] == 4
    await runner.world.offer(runner.alive, {**shown, **then})
    wish = Wish(plan=plan.id, digest=plan.digest, confirm=(reason,), rule=Rule(canary=0, per_second=100, in_flight=2))
    with pytest.raises(CommandRefused) as refused:
        await runner.planner.start_replay(wish, runner.world.operator)
    assert "4 tasks have changed" in refused.value.title and "the code or the caution" in refused.value.reasons[0]
    await runner.world.offer(runner.alive, shown)
    runner.id = (await runner.planner.start_replay(wish, runner.world.operator)).id
    await runner.pass_(1)
    assert await runner.do() == 2
    await runner.world.offer(runner.alive, {**shown, **then})
    await runner.pass_(1)
    assert await runner.waiting() == [] and await runner.count("blocked") == 2


async def test_a_function_that_changes_in_the_middle_stops_what_was_not_planned_so(runner: Runner) -> None:
    await runner.begin(4, canary=0, per_second=100, in_flight=2)
    await runner.pass_(1)
    await runner.world.offer(runner.alive, {**SEND, "code": "newer"})
    await runner.do()
    await runner.pass_(1)
    shown = await runner.shown()
    assert shown.counts["blocked"] == 2 and shown.counts["succeeded"] == 2
    items = (await runner.reader.run_items(runner.id)).items  # type: ignore[union-attr]
    assert [item.state for item in items] == ["succeeded"] * 2 + ["blocked"] * 2
    assert str(items[3].detail).startswith("code_changed: ")


async def test_a_late_word_about_an_order_that_was_over_is_counted(runner: Runner) -> None:
    await runner.begin(2, canary=0, per_second=100)
    await runner.pass_(1)
    (first, _) = await runner.waiting()
    await runner.do()
    await runner.world.database.write(lambda conn: conn.execute("UPDATE replay_run SET pending = 1"))
    await runner.pass_(1)
    assert len(await runner.world.rows("SELECT 1 FROM replay_order WHERE over = 'succeeded'")) == 2
    await runner.world.ended(runner.alive, first, "failed", error={"type": "E", "message": "late"})
    assert await runner.count("failed") == 1 and await runner.count("succeeded") == 1


async def test_the_report_shows_old_beside_new_and_what_was_left_out(runner: Runner) -> None:
    old = await runner.world.lost({**SEND, "code": "older"})
    await runner.begin(2, canary=0, per_second=100)
    await runner.pass_(1)
    await runner.do()
    items = (await runner.reader.run_items(runner.id)).items  # type: ignore[union-attr]
    assert [item.task for item in items] == [old, *runner.tasks]
    assert items[0].state == "blocked" and "has changed" in str(items[0].detail) and items[0].new is None
    assert items[1].old is not None and items[1].old.state == "running" and items[1].old.args == {"order_id": 7}
    assert items[1].new is not None and items[1].new.state == "succeeded"
    pages, cursor = [], None
    for _ in range(3):
        page = await runner.reader.run_items(runner.id, limit=1, cursor=cursor)
        assert page is not None
        pages += [item.task for item in page.items]
        cursor = page.next_cursor
    assert pages == [old, *runner.tasks] and cursor is None


async def test_what_has_one_state_is_on_the_first_page_wherever_it_stands(runner: Runner, monkeypatch: Any) -> None:
    monkeypatch.setattr(reports, "LOOKED_AT_MAX", 3)
    old = [await runner.world.lost({**SEND, "code": "older"}) for _ in range(2)]
    await runner.begin(20, canary=0, per_second=100, in_flight=8)
    await runner.pass_(1)
    await runner.do(count=6)
    await runner.do("failed", 1)
    await runner.pass_(1)

    async def found(state: str) -> list[str]:
        tasks, cursor = [], None
        while True:
            page = await runner.reader.run_items(runner.id, state=state, limit=4, cursor=cursor)
            assert page is not None and (page.items or tasks or page.next_cursor is None), "the first page is not empty"
            tasks += [item.task for item in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return tasks

    assert await found("blocked") == old
    assert await found("failed") == [runner.tasks[6]]
    assert await found("succeeded") == runner.tasks[:6]
    assert await found("waiting") == runner.tasks[7:]
    await runner.steer("cancel")
    assert await found("cancelled") == runner.tasks[7:] and await found("waiting") == []


async def test_run_again_stands_beside_the_order_it_follows(runner: Runner) -> None:
    await runner.begin(1, canary=0, per_second=100)
    await runner.pass_(1)
    (order,) = await runner.waiting()
    await runner.take(order)
    await runner.world.gone(runner.alive)
    await Replayer(runner.world.database).run_once(runner.world.now)
    assert await runner.count("outcome_unknown") == 1
    runner.alive = await runner.world.instance(SEND)
    runner.world.later(1)
    await runner.world.commands.resolve_order(order, runner.world.operator, answer="run_again", note="looked")
    items = (await runner.reader.run_items(runner.id)).items  # type: ignore[union-attr]
    assert [item.state for item in items] == ["cancelled", "waiting"] and items[0].task == items[1].task


async def test_plans_are_forgotten_in_their_time_and_runs_with_their_replay(runner: Runner) -> None:
    await runner.begin(1, canary=0, per_second=100)
    await runner.planner.make_plan(Selection(q=""), runner.world.operator)
    later = runner.world.now + 3 * 86_400 * NS
    await runner.world.database.write(lambda conn: forget_plans(conn, later))
    assert len(await runner.world.rows("SELECT 1 FROM replay_plan")) == 1
    await runner.world.database.write(lambda conn: conn.execute("DELETE FROM replay"))
    await runner.world.database.write(lambda conn: retention.forget_visits(conn, later, 0))
    for table in ("replay_plan", "replay_plan_item", "replay_plan_why", "replay_run"):
        assert await runner.world.rows(f"SELECT 1 FROM {table}") == [], table
