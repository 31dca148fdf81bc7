"""The dispatcher over a real database and real receivers: order, independence, and what a crash costs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from looseends_daemon.core.delivery import Message, Outcome
from looseends_daemon.services.dispatcher import IN_FLIGHT_MAX, PASS_S_MAX
from looseends_daemon.store.schema import StoreError

NS = 10**9


async def test_everything_due_is_sent_and_marked(make_post: Any, receiver: Any, webhooks: Any) -> None:
    post = await make_post()
    for _ in range(20):
        await post.incident()
    due = await post.dispatcher("ops", webhooks(receiver.url).post).run_once(post.now)
    assert due is None
    assert len(receiver.requests) == 20
    assert {notice.state for notice in await post.notices()} == {"delivered"}


async def test_a_failed_notice_is_due_again_by_the_schedule(make_post: Any, receiver: Any, webhooks: Any) -> None:
    post = await make_post()
    await post.incident()
    receiver.status = 503
    dispatcher = post.dispatcher("ops", webhooks(receiver.url).post)
    assert await dispatcher.run_once(post.now) == post.now + 5 * NS
    receiver.status = 200
    post.now += 5 * NS
    assert await dispatcher.run_once(post.now) is None
    (first, first_body), (second, second_body) = receiver.requests
    assert first["webhook-id"] == second["webhook-id"]
    assert first_body == second_body
    assert (first["looseends-attempt"], second["looseends-attempt"]) == ("1", "2")
    [notice] = await post.notices()
    assert [attempt.status for attempt in notice.attempts] == [503, 200]


async def test_an_endpoint_that_hangs_delays_nobody_else(make_post: Any, receivers: Any, webhooks: Any) -> None:
    post = await make_post("slow", "ops")
    slow, quick = await receivers(), await receivers()
    slow.behave = slow.hang
    await post.incident()
    hanging = asyncio.ensure_future(post.dispatcher("slow", webhooks(slow.url, name="slow").post).run_once(post.now))
    await slow.arrived.wait()
    await post.dispatcher("ops", webhooks(quick.url).post).run_once(post.now)
    assert len(quick.requests) == 1
    assert not hanging.done()
    slow.release.set()
    await hanging
    assert [notice.state for notice in await post.notices("slow")] == ["delivered"]


async def test_a_notice_that_hangs_does_not_hold_up_a_newer_one_beside_it(make_post: Any, receiver: Any, webhooks: Any) -> None:
    post = await make_post()
    await post.incident()
    receiver.behave = receiver.hang
    dispatcher = post.dispatcher("ops", webhooks(receiver.url).post)
    running = asyncio.ensure_future(dispatcher.run_once(post.now))
    await receiver.arrived.wait()
    receiver.arrived.clear()
    receiver.behave = None
    await post.incident()
    dispatcher.wake()
    await asyncio.wait_for(receiver.arrived.wait(), 10)
    assert not running.done()
    receiver.release.set()
    await running
    assert [notice.state for notice in await post.notices()] == ["delivered", "delivered"]


async def test_a_daemon_that_dies_between_answer_and_mark_sends_the_same_again(
    make_post: Any, receiver: Any, webhooks: Any
) -> None:
    post = await make_post()
    await post.incident()
    webhook = webhooks(receiver.url)

    async def die_after(message: Message) -> Outcome:
        await webhook.post(message)
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await post.dispatcher("ops", die_after).run_once(post.now)
    assert [notice.state for notice in await post.notices()] == ["delivering"]
    await post.begin()
    await post.dispatcher("ops", webhook.post).run_once(post.now)
    (first, first_body), (second, second_body) = receiver.requests
    assert first["webhook-id"] == second["webhook-id"]
    assert first_body == second_body
    assert [notice.state for notice in await post.notices()] == ["delivered"]


async def test_at_most_so_many_are_under_way_at_once(make_post: Any) -> None:
    post = await make_post()
    flying, most = 0, 0
    gate = asyncio.Event()

    async def count(message: Message) -> Outcome:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        if flying == IN_FLIGHT_MAX:
            gate.set()
        await gate.wait()
        flying -= 1
        return Outcome(status=200)

    for _ in range(IN_FLIGHT_MAX * 3):
        await post.incident()
    await post.dispatcher("ops", count).run_once(post.now)
    assert most == IN_FLIGHT_MAX
    assert {notice.state for notice in await post.notices()} == {"delivered"}


async def test_nothing_due_costs_nothing_and_says_so(make_post: Any) -> None:
    post = await make_post()

    async def never(message: Message) -> Outcome:
        raise AssertionError("nothing was due")

    assert await post.dispatcher("ops", never).run_once(post.now) is None


async def test_410_ends_it_for_this_endpoint_alone(make_post: Any, receivers: Any, webhooks: Any) -> None:
    post = await make_post("gone", "ops")
    gone, here = await receivers(), await receivers()
    gone.status = 410
    await post.incident()
    await post.dispatcher("gone", webhooks(gone.url).post).run_once(post.now)
    await post.incident()
    await post.dispatcher("gone", webhooks(gone.url).post).run_once(post.now)
    await post.dispatcher("ops", webhooks(here.url).post).run_once(post.now)
    assert (len(gone.requests), len(here.requests)) == (1, 2)
    assert [notice.state for notice in await post.notices("gone")] == ["cancelled"]


async def test_a_mark_that_fails_is_raised_after_the_others_are_finished(make_post: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    post = await make_post()
    for _ in range(3):
        await post.incident()
    write, broken = post.database.write, []

    async def fail_once(fn: Any, **more: Any) -> Any:
        if not broken and "mark" in fn.__qualname__:
            broken.append(fn)
            raise StoreError("the disk is full")
        return await write(fn, **more)

    async def ok(message: Message) -> Outcome:
        return Outcome(status=200)

    monkeypatch.setattr(post.database, "write", fail_once)
    with pytest.raises(StoreError, match="the disk is full"):
        await post.dispatcher("ops", ok).run_once(post.now)
    assert sorted(notice.state for notice in await post.notices()) == ["delivered", "delivered", "delivering"]


async def test_a_busy_pass_ends_so_that_the_loop_is_seen_to_move(make_post: Any) -> None:
    post = await make_post()
    sent = []

    async def slow(message: Message) -> Outcome:
        sent.append(json.loads(message.body)["id"])
        post.now += PASS_S_MAX * NS
        await post.incident()
        return Outcome(status=200)

    await post.incident()
    due = await post.dispatcher("ops", slow).run_once(post.now)
    assert len(sent) < 4
    assert due is not None
    assert due <= post.now
