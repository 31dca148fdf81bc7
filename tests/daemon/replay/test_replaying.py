"""From the press of the button to the end of the new task, over a real database."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from looseends.wire import NS
from looseends_daemon.core.orders import HANDED_OVER_S_MAX, UNANSWERED_S_MAX, UNCLAIMED_S_MAX
from looseends_daemon.core.resources import CommandRefused, Replay
from looseends_daemon.store import codes, instances, orders, replays, sources
from looseends_daemon.store.questions import ask, ask_async

SEND = {"name": "mail.send", "signature": "(order_id)", "code": "abc"}


async def press(world: Any, task: str, **how: Any) -> Replay:
    replay: Replay = await world.commands.replay_task(task, world.operator, **how)
    return replay


async def claim(world: Any, order: str, instance: dict[str, Any]) -> orders.Claim:
    given: orders.Claim = await world.database.write(
        lambda conn: orders.claim(conn, codes.blob(order), instance["id"], world.now)
    )
    return given


async def answer(world: Any, order: str, fence: int, outcome: str) -> orders.Answered:
    said: orders.Answered = await world.database.write(
        lambda conn: orders.answer(conn, codes.blob(order), fence, outcome, "because")
    )
    return said


async def state(world: Any, replay: Replay) -> str:
    shown = await world.database.read(lambda conn: replays.replay(conn, replay.id))
    (item,) = shown.items
    assert shown.counts[item.state] == 1 == shown.counts["total"]
    return str(item.state)


async def waiting(world: Any, instance: dict[str, Any]) -> int:
    number: int = await world.database.write(lambda conn: ask(conn, orders.waiting_for(instance["id"], world.now)))
    return number


async def test_a_lost_task_runs_again_as_a_new_task_with_its_arguments(world: Any) -> None:
    task = await world.lost(SEND)
    alive = await world.instance(SEND)
    replay = await press(world, task, note="customer called")
    assert await waiting(world, alive) == 1
    given = await claim(world, replay.items[0].id, alive)
    assert given.order == {
        "id": replay.items[0].id,
        "name": "mail.send",
        "args": {"order_id": 7},
        "replay_of": task,
        "idempotency_key": task,
        "signature": "(order_id)",
    }
    assert await state(world, replay) == "claimed"
    await world.tell(alive, {"type": "started", "task": given.order["id"], "name": "mail.send", "at": world.later(1)})
    assert await state(world, replay) == "running"
    await world.ended(alive, given.order["id"])
    assert await state(world, replay) == "succeeded"
    assert (await world.database.read(lambda conn: replays.replay(conn, replay.id))).state == "done"
    assert await world.replayer.run_once(world.later(1)) is None


async def test_the_page_shows_lineage_both_ways(world: Any) -> None:
    task = await world.lost(SEND)
    await world.instance(SEND)
    order = (await press(world, task)).items[0].id
    assert await world.database.write(lambda conn: ask(conn, sources.lineage(codes.blob(task)))) == (None, [order])
    assert await world.database.write(lambda conn: ask(conn, sources.lineage(codes.blob(order)))) == (task, [])


async def test_two_presses_at_once_make_one_order(world: Any) -> None:
    task = await world.lost(SEND)
    await world.instance(SEND)
    outcomes = await asyncio.gather(*(press(world, task) for _ in range(8)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, CommandRefused)]
    assert len(refused) == 7 and {r.status for r in refused} == {409}
    assert all(reason.startswith("order_open: ") for r in refused for reason in r.reasons)
    assert len(await world.rows("SELECT 1 FROM replay_order")) == 1 == len(await world.rows("SELECT 1 FROM replay"))
    assert len(await world.rows("SELECT 1 FROM audit WHERE act = 'replay_task'")) == 1


async def test_the_database_itself_holds_one_waiting_order_per_chain(world: Any) -> None:
    task = await world.lost(SEND)
    await world.instance(SEND)
    await press(world, task)

    def second(conn: Any) -> None:
        found = sources.source_now(conn, codes.blob(task))
        assert found is not None
        replays.insert_order(conn, 1, found, {}, False, None, world.now)

    with pytest.raises(Exception, match="UNIQUE"):
        await world.database.write(second)


async def test_a_refusal_leaves_nothing_behind(world: Any) -> None:
    task = await world.lost(SEND)
    with pytest.raises(CommandRefused) as refused:
        await press(world, task)
    assert refused.value.status == 409 and refused.value.reasons[0].startswith("no_live_instance: ")
    for table in ("replay", "replay_order", "audit"):
        assert await world.rows(f"SELECT 1 FROM {table}") == []


@pytest.mark.parametrize(
    ("how", "status", "says"),
    [
        ({"confirm": ["looks_fine"]}, 422, "ask, caution, code_changed"),
        ({"args": [1]}, 422, "by name"),
        ({"note": "x" * 501}, 422, "500"),
    ],
)
async def test_a_wrong_request_is_told_what_is_allowed(world: Any, how: Any, status: int, says: str) -> None:
    task = await world.lost(SEND)
    with pytest.raises(CommandRefused) as refused:
        await press(world, task, **how)
    assert refused.value.status == status and says in refused.value.reasons[0]


@pytest.mark.parametrize("task", ["00000000-0000-8000-8000-00000000ffff", "no-uuid"])
async def test_an_unknown_task_is_said_to_be_unknown(world: Any, task: str) -> None:
    with pytest.raises(CommandRefused) as refused:
        await press(world, task)
    assert refused.value.status == 404


async def test_the_authors_caution_is_asked_for_and_its_confirmation_is_audited(world: Any) -> None:
    ask_me = {**SEND, "replay": "ask", "caution": "mails the customer again"}
    task = await world.lost(ask_me)
    await world.instance(ask_me)
    with pytest.raises(CommandRefused) as refused:
        await press(world, task)
    assert refused.value.reasons == ["caution: its author says: mails the customer again"]
    replay = await press(world, task, confirm=["caution"])
    (row,) = await world.rows("SELECT actor, subject, detail FROM audit")
    assert tuple(row) == ("ada", task, f"order {replay.items[0].id}; confirmed caution")


async def test_signature_and_code_are_those_its_dead_instance_had_registered(world: Any) -> None:
    task = await world.lost(SEND)
    await world.instance({**SEND, "code": "def"})
    with pytest.raises(CommandRefused) as refused:
        await press(world, task)
    assert refused.value.reasons[0].startswith("code_changed: ")
    other = await world.lost({**SEND, "signature": "(order_id, lang)"})
    with pytest.raises(CommandRefused) as refused:
        await press(world, other)
    assert refused.value.reasons[0].startswith("signature: ")


async def test_a_task_whose_process_lives_is_not_run_beside_itself(world: Any) -> None:
    alive = await world.instance(SEND)
    task = await world.started(alive)
    with pytest.raises(CommandRefused) as refused:
        await press(world, task)
    assert refused.value.reasons[0].startswith("still_running: ")
    await world.ended(alive, task, "failed", error={"type": "OSError"})
    await press(world, task)


async def test_work_that_its_client_saw_dropped_is_ready_though_its_process_lives(world: Any) -> None:
    alive = await world.instance(SEND)
    task = await world.started(alive)
    await world.tell(alive, {"type": "dropped", "task": task, "at": world.now, "reason": "loop_shutdown"})
    await press(world, task)


async def test_edited_arguments_run_under_a_key_of_their_own(world: Any) -> None:
    task = await world.lost(SEND)
    alive = await world.instance(SEND)
    replay = await press(world, task, args={"order_id": 8})
    given = await claim(world, replay.items[0].id, alive)
    assert given.order is not None
    assert (given.order["args"], given.order["idempotency_key"]) == ({"order_id": 8}, given.order["id"])
    (row,) = await world.rows("SELECT detail FROM audit")
    assert "arguments edited" in row["detail"]


async def test_a_replay_of_a_replay_keeps_its_root(world: Any) -> None:
    task = await world.lost(SEND)
    alive = await world.instance(SEND)
    first = (await press(world, task)).items[0].id
    await claim(world, first, alive)
    await world.tell(alive, {"type": "started", "task": first, "name": "mail.send", "at": world.now, "args": {"order_id": 7}})
    await world.ended(alive, first, "failed", error={"type": "OSError"})
    second = (await press(world, first)).items[0].id
    given = await claim(world, second, alive)
    assert given.order is not None
    assert (given.order["replay_of"], given.order["idempotency_key"]) == (first, task)


# --- who may take it ----------------------------------------------------------------------------------------------


async def test_only_a_proven_live_instance_of_that_service_with_that_signature_gets_it(world: Any) -> None:
    task = await world.lost(SEND)
    alive = await world.instance(SEND)
    order = (await press(world, task)).items[0].id
    dead = await world.instance(SEND)
    await world.gone(dead)
    others = [
        dead,
        await world.instance(SEND, proven=False),
        await world.instance(SEND, service="warehouse"),
        await world.instance({**SEND, "via": "celery"}, service="warehouse"),
        await world.instance(SEND, environment="staging"),
        await world.instance({**SEND, "signature": "(order_id, lang)"}),
        await world.instance(),
    ]
    for other in others:
        assert await waiting(world, other) == 0
        refused = await claim(world, order, other)
        assert refused.order is None and "signature" in refused.reason
    assert (await claim(world, order, alive)).fence == 1


async def test_a_queue_task_may_be_handed_over_by_any_service_that_knows_the_queue(world: Any) -> None:
    task = await world.lost({**SEND, "via": "celery"}, queue="mails")
    web = await world.instance({**SEND, "via": "celery"}, service="frontend")
    replay = await press(world, task)
    given = await claim(world, replay.items[0].id, web)
    assert (await answer(world, replay.items[0].id, given.fence, "handed_over")).state == "handed_over"
    await world.gone(web)
    await world.replayer.run_once(world.later(60))
    assert await state(world, replay) == "claimed"
    await world.replayer.run_once(world.later(HANDED_OVER_S_MAX))
    assert await state(world, replay) == "outcome_unknown"


async def test_an_order_is_claimed_once_and_a_second_claim_is_told_so(world: Any) -> None:
    task = await world.lost(SEND)
    one, two = await world.instance(SEND), await world.instance(SEND)
    order = (await press(world, task)).items[0].id
    assert (await claim(world, order, one)).order is not None
    for again in (one, two):
        refused = await claim(world, order, again)
        assert (refused.order, refused.reason) == (None, "it is claimed already")


async def test_an_order_whose_original_ended_well_meanwhile_expires_at_the_claim(world: Any) -> None:
    task = await world.lost(SEND)
    alive = await world.instance(SEND)
    replay = await press(world, task)
    await world.ended({"id": "a1", "service": "shop"}, task, "finished")
    refused = await claim(world, replay.items[0].id, alive)
    assert refused.order is None and "ended well" in refused.reason
    assert await state(world, replay) == "expired"


async def test_a_cancellation_that_nobody_asked_for_is_no_good_end(world: Any) -> None:
    task = await world.lost(SEND)
    alive = await world.instance(SEND)
    order = (await press(world, task)).items[0].id
    await world.ended({"id": "a1", "service": "shop"}, task, "cancelled", reason="timeout")
    assert (await claim(world, order, alive)).order is not None


async def test_a_task_that_had_ended_well_before_the_press_is_run_again_all_the_same(world: Any) -> None:
    alive = await world.instance(SEND)
    task = await world.started(alive)
    await world.ended(alive, task)
    with pytest.raises(CommandRefused) as refused:
        await press(world, task)
    assert refused.value.reasons[0].startswith("ended_well: ")
    order = (await press(world, task, confirm=["ended_well"])).items[0].id
    assert (await claim(world, order, alive)).order is not None


# --- what becomes of it -------------------------------------------------------------------------------------------


async def test_an_order_that_nobody_takes_expires_and_is_never_given_out_late(world: Any) -> None:
    task = await world.lost(SEND)
    alive = await world.instance(SEND)
    replay = await press(world, task)
    due = await world.replayer.run_once(world.now)
    assert due == world.now + int(UNCLAIMED_S_MAX * NS)
    world.now = due
    assert await waiting(world, alive) == 0
    assert (await claim(world, replay.items[0].id, alive)).order is None
    await world.replayer.run_once(world.now)
    assert await state(world, replay) == "expired"
    await press(world, task)


async def test_a_claimant_that_dies_leaves_an_unknown_outcome_and_its_events_overrule_that(world: Any) -> None:
    task = await world.lost(SEND)
    alive = await world.instance(SEND)
    replay = await press(world, task)
    order = replay.items[0].id
    await claim(world, order, alive)
    due = await world.replayer.run_once(world.now)
    assert due == world.now + NS
    await world.gone(alive)
    assert await world.replayer.run_once(due) is None
    assert await state(world, replay) == "outcome_unknown"
    await world.instance(SEND)
    with pytest.raises(CommandRefused) as refused:
        await press(world, task)
    assert refused.value.reasons[0].startswith("outcome_unknown: ")
    await world.tell(alive, {"type": "finished", "task": order, "name": "mail.send", "at": world.now})
    assert await state(world, replay) == "succeeded"


async def test_a_live_claimant_that_never_answers_did_not_get_our_answer(world: Any) -> None:
    task = await world.lost(SEND)
    alive = await world.instance(SEND)
    replay = await press(world, task)
    await claim(world, replay.items[0].id, alive)
    await world.replayer.run_once(world.later(UNANSWERED_S_MAX))
    assert await state(world, replay) == "outcome_unknown"


async def test_a_stale_fence_changes_nothing(world: Any) -> None:
    task = await world.lost(SEND)
    alive = await world.instance(SEND)
    replay = await press(world, task)
    order = replay.items[0].id
    assert not (await answer(world, order, 0, "refused")).counted  # nobody has claimed it
    fence = (await claim(world, order, alive)).fence
    for stale in (0, fence + 1):
        assert not (await answer(world, order, stale, "refused")).counted
        assert await state(world, replay) == "claimed"
    assert (await answer(world, order, fence, "refused")).counted
    assert await state(world, replay) == "refused"
    assert not (await answer(world, order, fence, "started")).counted


async def test_a_late_answer_with_the_right_fence_counts_until_a_person_has_decided(world: Any) -> None:
    task = await world.lost(SEND)
    alive = await world.instance(SEND)
    replay = await press(world, task)
    order = replay.items[0].id
    fence = (await claim(world, order, alive)).fence
    await world.gone(alive, "unreachable")
    await world.replayer.run_once(world.later(1))
    assert await state(world, replay) == "outcome_unknown"
    assert (await answer(world, order, fence, "refused")).counted
    assert await state(world, replay) == "refused"


async def unknown(world: Any) -> tuple[str, Replay]:
    """A task whose replay was claimed by an instance that died."""
    task = await world.lost(SEND)
    claimant = await world.instance(SEND)
    replay = await press(world, task)
    await claim(world, replay.items[0].id, claimant)
    await world.gone(claimant)
    await world.replayer.run_once(world.later(1))
    return task, replay


@pytest.mark.parametrize("decided", ["ran", "did_not_run"])
async def test_a_person_decides_an_unknown_outcome_once(world: Any, decided: str) -> None:
    task, replay = await unknown(world)
    order = replay.items[0].id
    await world.commands.resolve_order(order, world.operator, answer=decided, note="looked into the mailbox")
    assert await state(world, replay) == decided
    (row,) = await world.rows("SELECT check_at FROM task WHERE id = ?", codes.blob(task))
    assert row["check_at"] == world.now, "the detector must look at the root at once"
    (audit,) = await world.rows("SELECT actor, detail FROM audit WHERE act = 'resolve_order'")
    assert tuple(audit) == ("ada", f"{decided}; looked into the mailbox")
    with pytest.raises(CommandRefused) as refused:
        await world.commands.resolve_order(order, world.operator, answer="ran", note="")
    assert refused.value.status == 409 and decided in refused.value.reasons[0]


async def test_running_it_again_makes_a_second_order_in_the_same_replay(world: Any) -> None:
    task, replay = await unknown(world)
    alive = await world.instance(SEND)
    again = await world.commands.resolve_order(replay.items[0].id, world.operator, answer="run_again", note="")
    assert again.id == replay.id and [item.state for item in again.items] == ["cancelled", "waiting"]
    given = await claim(world, again.items[1].id, alive)
    assert given.order is not None and given.order["replay_of"] == task and given.order["id"] != replay.items[0].id


async def test_running_it_again_is_refused_while_nobody_could_take_it(world: Any) -> None:
    _, replay = await unknown(world)
    with pytest.raises(CommandRefused) as refused:
        await world.commands.resolve_order(replay.items[0].id, world.operator, answer="run_again", note="")
    assert refused.value.reasons[0].startswith("no_live_instance: ")
    assert await state(world, replay) == "outcome_unknown"


@pytest.mark.parametrize(
    ("order", "answer_", "status"),
    [("00000000-0000-8000-8000-00000000ffff", "ran", 404), ("nonsense", "ran", 404), (None, "perhaps", 422)],
)
async def test_a_decision_about_nothing_is_refused_in_words(world: Any, order: str | None, answer_: str, status: int) -> None:
    with pytest.raises(CommandRefused) as refused:
        await world.commands.resolve_order(order or "x", world.operator, answer=answer_, note="")
    assert refused.value.status == status and refused.value.reasons


# --- pages --------------------------------------------------------------------------------------------------------


async def test_replays_are_listed_newest_first_page_by_page(world: Any) -> None:
    await world.instance(SEND)
    made = [(await press(world, await world.lost(SEND))).id for _ in range(5)]
    seen, cursor = [], None
    while True:
        page = await world.database.read(lambda conn, at=cursor: replays.replays(conn, 2, at))
        seen += [item.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == made[::-1]
    with pytest.raises(ValueError, match="next_cursor"):
        await world.database.read(lambda conn: replays.replays(conn, 2, "%"))


async def test_the_task_page_says_whether_and_why_not(world: Any) -> None:
    task = await world.lost(SEND)

    async def page(conn: Any) -> Any:
        return await sources.replayability(conn, codes.blob(task), view)

    view = await world.database.write(lambda conn: sources.view_now(conn, codes.blob(task)))
    replayable, why = await world.database.read(page)
    assert not replayable and "no instance of shop is alive in production" in why
    await world.instance(SEND)
    assert await world.database.read(page) == (True, None)


async def test_new_task_ids_sort_by_the_time_they_were_made_at() -> None:
    ids = [replays.new_task_id(at * 1_000_000) for at in range(1_780_000_000_000, 1_780_000_000_050)]
    assert ids == sorted(ids) and len(set(ids)) == 50 and all(item[14] == "8" for item in ids)


async def test_a_question_gives_both_kinds_of_connection_the_same_answer(world: Any) -> None:
    await world.instance(SEND)
    question = instances.offers
    there = await world.database.read(lambda conn: ask_async(conn, question("mail.send", "production")))
    here = await world.database.write(lambda conn: ask(conn, question("mail.send", "production")))
    assert there == here and len(here) == 1


async def test_the_clock_and_the_heartbeat_find_their_orders_by_index(world: Any) -> None:
    plans = {
        "expiry": orders.next_expiry(),
        "watched": orders.unmet(),
        "waiting": orders.takeable("x", 1),
    }
    for index, question in plans.items():
        sql, params = next(question)
        plan = json.dumps([tuple(row) for row in await world.rows(f"EXPLAIN QUERY PLAN {sql}", *params)])
        assert f"replay_order_{index}" in plan or (index == "waiting" and "replay_order_expiry" in plan), plan
        assert "SCAN task" not in plan and "SCAN f" not in plan, plan
