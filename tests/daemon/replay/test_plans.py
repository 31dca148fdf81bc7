"""A plan over many tasks: frozen, judged one by one, told when it is stale, run once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from looseends_daemon.core.pace import Rule
from looseends_daemon.core.plans import Plan, Selection, Wish
from looseends_daemon.core.query import QueryError
from looseends_daemon.core.resources import CommandRefused
from looseends_daemon.core.view import view_of
from looseends_daemon.services.planner import Pacer, Planner
from looseends_daemon.store import codes, plan_reads, plans, sources
from looseends_daemon.store.cells import InstanceIds
from looseends_daemon.store.facts import cells_of
from looseends_daemon.store.questions import ask

SEND = {"name": "mail.send", "signature": "(order_id)", "code": "abc"}
EVERYTHING = Selection(q="")


@pytest.fixture
def planner(world: Any) -> Planner:
    return Planner(world.database, lambda: world.now, lambda: None)


@pytest.fixture
def reader(world: Any) -> plan_reads.StorePlans:
    return plan_reads.StorePlans(world.database, lambda: world.now)


async def lost(world: Any, count: int, *functions: dict[str, Any], **fields: Any) -> list[str]:
    """Tasks of one process that was killed, begun a second apart."""
    dead = await world.instance(*functions)
    found = []
    for _ in range(count):
        found.append(await world.started(dead, **fields))
        world.later(1)
    await world.gone(dead)
    return found


def wish(plan: Plan, *confirm: str, digest: str | None = None, **rule: Any) -> Wish:
    return Wish(plan=plan.id, digest=digest or plan.digest, confirm=confirm, rule=Rule(**rule))


async def release(world: Any) -> int | None:
    """One pass of the clock of runs."""
    return await Pacer(world.database).run_once(world.now)


async def test_a_plan_says_of_every_task_what_stands_in_its_way(world: Any, planner: Planner, reader: Any) -> None:
    ready = await lost(world, 3, SEND)
    changed = await lost(world, 2, {**SEND, "code": "older"})
    other = await lost(world, 1, {"name": "mail.other", "signature": "(n)"}, name="mail.other")
    (refused,) = await lost(world, 1, SEND, not_replayable_because="card was redacted")
    await world.instance(SEND)
    plan = await planner.make_plan(EVERYTHING, world.operator)
    assert plan.counts == {"total": 7, "ready": 3, "confirm": 2, "blocked": 2} and plan.state == "open"
    met = {(reason.answer, reason.name): reason.tasks for reason in plan.reasons}
    assert met == {("confirm", "code_changed"): 2, ("blocked", "not_opted_in"): 1, ("blocked", "arguments"): 1}
    page = await reader.plan_items(plan.id)
    assert [item.task for item in page.items] == [*ready, *changed, *other, refused]
    assert [item.answer for item in page.items] == ["ready"] * 3 + ["confirm"] * 2 + ["blocked"] * 2
    assert "card was redacted" in page.items[-1].reasons[0].words
    only = await reader.plan_items(plan.id, reason="code_changed")
    assert [item.task for item in only.items] == changed


async def test_what_is_said_of_many_is_what_is_said_of_one(world: Any, planner: Planner) -> None:
    tasks = [
        *await lost(world, 2, SEND, key="order-7"),
        *await lost(world, 1, {**SEND, "code": "older"}, queue="mail", tags={"redelivery": "possible"}),
        *await lost(world, 1, {**SEND, "signature": "(other)"}),
    ]
    alive = await world.instance({**SEND, "replay": "ask", "caution": "mails again"})
    done = await world.started(alive, key="order-7")
    await world.ended(alive, done)
    tasks += [done, await world.started(alive)]
    await world.commands.replay_task(tasks[0], world.operator, confirm=["caution", "key_succeeded"])

    def both(conn: Any) -> tuple[list[Any], list[Any]]:
        rows = [conn.execute("SELECT * FROM task WHERE id = ?", (codes.blob(task),)).fetchone() for task in tasks]
        views = {row["id"]: view_of(cells_of(conn, row, InstanceIds(conn), full=True)) for row in rows}
        many = ask(conn, sources.sources(views, sources.Around()))
        ones = [sources.source_now(conn, codes.blob(task)) for task in tasks]
        return [many[codes.blob(task)] for task in tasks], ones

    many, ones = await world.database.write(both)
    assert many == ones and many[0].recorded.key_succeeded and many[2].recorded.redelivers


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        (Selection(), 422, "one of the three"),
        (Selection(q="is:loose", incident="inc_1"), 422, "one of the three"),
        (Selection(q="name:nobody"), 422, "no task fits"),
        (Selection(incident="inc_1"), 404, "no incident"),
        (Selection(tasks=("00000000-0000-8000-8000-00000000ffff",)), 404, "there is no task"),
        (Selection(tasks=("no-uuid",)), 404, "is a UUID"),
        (Selection(q="", edit={"order_id": 1}), 422, "of one task"),
        (Selection(q="", from_=2, to=1), 422, "before to"),
    ],
)
async def test_a_wrong_selection_is_told_what_is_wrong(
    world: Any, planner: Planner, asked: Selection, status: int, says: str
) -> None:
    await lost(world, 1, SEND)
    with pytest.raises(CommandRefused) as refused:
        await planner.make_plan(asked, world.operator)
    assert refused.value.status == status and says in refused.value.reasons[0]
    assert await world.rows("SELECT 1 FROM replay_plan") == [] == await world.rows("SELECT 1 FROM replay_plan_item")


async def test_a_query_that_cannot_be_read_leaves_no_plan(world: Any, planner: Planner) -> None:
    with pytest.raises(QueryError):
        await planner.make_plan(Selection(q="colour:red"), world.operator)
    assert await world.rows("SELECT 1 FROM replay_plan") == []


async def test_a_run_takes_what_is_ready_and_what_was_confirmed(world: Any, planner: Planner) -> None:
    await lost(world, 3, SEND)
    await lost(world, 2, {**SEND, "code": "older"})
    await world.instance(SEND)
    plan = await planner.make_plan(EVERYTHING, world.operator)
    run = (await planner.start_replay(wish(plan), world.operator)).counts
    assert (run["total"], run["waiting"], run["blocked"]) == (5, 3, 2)
    again = await planner.make_plan(EVERYTHING, world.operator)
    run = (await planner.start_replay(wish(again, "code_changed"), world.operator)).counts
    assert (run["total"], run["waiting"], run["blocked"]) == (5, 5, 0)


async def test_of_many_presses_one_begins_the_run(world: Any, planner: Planner) -> None:
    await lost(world, 3, SEND)
    await world.instance(SEND)
    plan = await planner.make_plan(EVERYTHING, world.operator)
    outcomes = await asyncio.gather(*(planner.start_replay(wish(plan), world.operator) for _ in range(6)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, CommandRefused)]
    assert len(refused) == 5 and {refusal.status for refusal in refused} == {409}
    (row,) = await world.rows("SELECT id FROM replay")
    assert all(row["id"] in refusal.reasons[0] for refusal in refused)


@pytest.mark.parametrize(
    ("how", "status", "says"),
    [
        ({"digest": "0" * 64}, 409, "look at the plan again"),
        ({"confirm": ("looks_fine",)}, 422, "confirm takes"),
        ({"rule": Rule(per_second=0)}, 422, "per_second is from 0.01 to 200"),
        ({"rule": Rule(in_flight=201)}, 422, "in_flight is from 1 to 200"),
        ({"plan": "plan_0"}, 404, "there is no plan"),
    ],
)
async def test_a_wrong_wish_is_told_what_is_allowed(
    world: Any, planner: Planner, how: dict[str, Any], status: int, says: str
) -> None:
    await lost(world, 1, SEND)
    await world.instance(SEND)
    plan = await planner.make_plan(EVERYTHING, world.operator)
    with pytest.raises(CommandRefused) as refused:
        await planner.start_replay(Wish(**{"plan": plan.id, "digest": plan.digest, **how}), world.operator)
    assert refused.value.status == status and says in refused.value.reasons[0]


async def test_a_plan_of_an_hour_ago_has_expired(world: Any, planner: Planner, reader: Any) -> None:
    await lost(world, 1, SEND)
    await world.instance(SEND)
    plan = await planner.make_plan(EVERYTHING, world.operator)
    world.later(3_600)
    with pytest.raises(CommandRefused) as refused:
        await planner.start_replay(wish(plan), world.operator)
    assert refused.value.status == 410 and "make it again" in refused.value.reasons[0]
    assert (await reader.plan(plan.id)).state == "expired"


async def test_a_plan_of_which_a_task_ended_meanwhile_says_which_and_how(world: Any, planner: Planner) -> None:
    dead = await world.instance(SEND)
    tasks = [await world.started(dead), await world.started(dead)]
    await world.gone(dead)
    await world.instance(SEND)
    plan = await planner.make_plan(EVERYTHING, world.operator)
    await world.adopted(dead, tasks[1])
    with pytest.raises(CommandRefused) as refused:
        await planner.start_replay(wish(plan), world.operator)
    assert refused.value.status == 409 and refused.value.title.startswith("1 task has changed since")
    assert refused.value.reasons == [f"{tasks[1]}: it ended well already: this does the work a second time"]
    assert await world.rows("SELECT 1 FROM replay") == []


async def test_a_plan_whose_service_was_deployed_anew_is_stale(world: Any, planner: Planner) -> None:
    await lost(world, 1, SEND)
    alive = await world.instance(SEND)
    plan = await planner.make_plan(EVERYTHING, world.operator)
    await world.offer(alive, {**SEND, "signature": "(order_id, currency)"})
    with pytest.raises(CommandRefused) as refused:
        await planner.start_replay(wish(plan), world.operator)
    assert "is now (order_id, currency)" in refused.value.reasons[0]


async def test_a_plan_that_takes_nothing_says_why(world: Any, planner: Planner) -> None:
    await lost(world, 2, {**SEND, "code": "older"})
    await world.instance(SEND)
    plan = await planner.make_plan(EVERYTHING, world.operator)
    with pytest.raises(CommandRefused) as refused:
        await planner.start_replay(wish(plan), world.operator)
    assert refused.value.status == 409 and refused.value.reasons[0].startswith("code_changed: ")


async def test_edited_arguments_of_one_task_are_checked_and_both_are_kept(world: Any, planner: Planner, reader: Any) -> None:
    (task,) = await lost(world, 1, SEND)
    await world.instance(SEND)
    wrong = await planner.make_plan(Selection(tasks=(task,), edit={"order": 8}), world.operator)
    assert wrong.counts["blocked"] == 1 and "order_id is missing" in wrong.reasons[0].words
    plan = await planner.make_plan(Selection(tasks=(task,), edit={"order_id": 8}), world.operator)
    assert plan.edited and plan.args == {"order_id": 8} and plan.counts["ready"] == 1
    replay = await planner.start_replay(wish(plan), world.operator)
    await release(world)
    (item,) = (await reader.run_items(replay.id)).items
    assert item.edited and item.old.args == {"order_id": 7} and item.new.args == {"order_id": 8}
    acts = [(row["actor"], row["act"]) for row in await world.rows("SELECT actor, act FROM audit ORDER BY n DESC LIMIT 2")]
    assert acts == [("ada", "start_replay"), ("ada", "make_plan")]


async def test_a_plan_says_where_its_query_did_not_look(world: Any, planner: Planner, reader: Any) -> None:
    await lost(world, 1, SEND)
    for q, is_searched in (("args.order_id:7", True), ("is:open", False), ("name:mail.*", False)):
        plan = await planner.make_plan(Selection(q=q), world.operator)
        assert (plan.searched is not None) is is_searched, q
        assert (await reader.plan(plan.id)).searched == plan.searched and plan.selection == {"q": q}
    assert (
        "the newest 100,000 tasks of the window"
        in (await planner.make_plan(Selection(q="args.order_id:7"), world.operator)).searched
    )


async def test_no_more_plans_and_items_are_kept_than_their_limits(world: Any, planner: Planner, monkeypatch: Any) -> None:
    await lost(world, 4, SEND)
    monkeypatch.setattr(plans, "PLANS_MAX", 3)
    made = [(await planner.make_plan(EVERYTHING, world.operator)).id for _ in range(4)]
    assert [row["id"] for row in await world.rows("SELECT id FROM replay_plan ORDER BY no")] == made[1:]
    monkeypatch.setattr(plans, "ITEMS_MAX", plans.PLAN_TASKS_MAX + 5)
    newest = (await planner.make_plan(EVERYTHING, world.operator)).id
    assert [row["id"] for row in await world.rows("SELECT id FROM replay_plan ORDER BY no")] == [made[-1], newest]
    (row,) = await world.rows("SELECT count(*) AS n FROM replay_plan_item")
    assert row["n"] == 8
