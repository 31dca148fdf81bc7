"""Endpoints as people see and steer them: health, backlog, tests, enable and disable, matchers, limits, telling again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from looseends_daemon.core.delivery import Message, Outcome
from looseends_daemon.core.incidents import EndpointRule
from looseends_daemon.core.matchers import matcher
from looseends_daemon.core.resources import Actor
from looseends_daemon.services.dispatcher import MINUTE_NS, Pace
from looseends_daemon.store import endpoints as health
from looseends_daemon.store import outbox, resends

NS = 10**9
KEY = "whsec_" + "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="


def table(url: str, name: str = "ops", **more: Any) -> str:
    lines = [f"{key} = {value}" for key, value in more.items()]
    return "\n".join(["[[endpoint]]", f'name = "{name}"', f'url = "{url}"', f'secrets = ["{KEY}"]', *lines, ""])


def events(receiver: Any) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in receiver.requests]


async def test_a_test_goes_the_whole_way_and_verifies(living: Any, receiver: Any) -> None:
    daemon = await living(table(receiver.url))
    status, notice = await daemon.ask("POST", "/api/v1/endpoints/ops/test")
    assert (status, notice["state"], notice["type"]) == (202, "pending", "looseends.endpoint.test")
    await daemon.until(lambda: daemon.notices(id=notice["id"], state="delivered"))
    [(headers, body)] = receiver.requests
    event = Verifier(KEY).verify(body.decode(), headers)
    assert (event["type"], event["id"], event["subject"]) == ("looseends.endpoint.test", notice["id"], "ops")
    assert (await daemon.endpoint())["delivered_at"] is not None
    _, audit = await daemon.ask("GET", "/api/v1/audit")
    assert (audit["items"][0]["act"], audit["items"][0]["subject"]) == ("test_endpoint", "ops")


async def test_a_test_that_fails_is_tried_once_and_says_why(living: Any, receiver: Any) -> None:
    receiver.status, receiver.body = 503, b"down for maintenance"
    daemon = await living(table(receiver.url))
    _, notice = await daemon.ask("POST", "/api/v1/endpoints/ops/test")
    [done] = await daemon.until(lambda: daemon.notices(id=notice["id"], state="exhausted"))
    assert [(one["status"], one["detail"]) for one in done["attempts"]] == [(503, "down for maintenance")]
    shown = await daemon.endpoint()
    assert (shown["failures"], shown["detail"]) == (1, "answered 503: down for maintenance")


async def test_a_failing_endpoint_shows_its_backlog_and_a_good_test_brings_it_forward(living: Any, receiver: Any) -> None:
    receiver.status = 500
    daemon = await living(table(receiver.url))
    for n in range(3):
        await daemon.fail(f"job.{n}")

    async def failing() -> Any:
        shown = await daemon.endpoint()
        return shown if shown["state"] == "failing" else None

    shown = await daemon.until(failing)
    assert (shown["backlog"], shown["failures"]) == (3, 3)
    assert shown["oldest_at"] is not None
    receiver.status = 200
    await daemon.ask("POST", "/api/v1/endpoints/ops/test")

    async def well() -> Any:
        shown = await daemon.endpoint()
        return shown if (shown["state"], shown["backlog"]) == ("ok", 0) else None

    await daemon.until(well)  # the waits of the schedule were 5 s


async def test_disabled_by_a_person_it_hears_nothing_and_enabled_it_hears_what_it_missed(living: Any, receiver: Any) -> None:
    daemon = await living(table(receiver.url))
    heard = await daemon.fail("job.heard")
    await daemon.until(lambda: daemon.notices(state="delivered"))
    status, shown = await daemon.ask("POST", "/api/v1/endpoints/ops/disable")
    assert (status, shown["state"], shown["disabled_by"]) == (200, "disabled", "operator")
    await daemon.ask("POST", f"/api/v1/tasks/{heard}/dismiss", {"note": "known"})

    async def resolved() -> Any:
        _, page = await daemon.ask("GET", "/api/v1/incidents?state=resolved")
        return page["items"]

    await daemon.until(resolved)
    assert len(receiver.requests) == 1

    async def noted() -> Any:
        status, said = await daemon.ask("GET", "/readyz")
        assert status == 200
        return "1 of 1 endpoints is disabled" in said

    await daemon.until(noted)
    status, shown = await daemon.ask("POST", "/api/v1/endpoints/ops/enable")
    assert (status, shown["state"], shown["disabled_by"]) == (200, "ok", None)

    async def told() -> Any:
        return len(receiver.requests) == 2

    await daemon.until(told)
    assert events(receiver)[1]["type"] == "looseends.incident.resolved"


async def test_410_disables_it_and_says_so(living: Any, receiver: Any) -> None:
    receiver.status, receiver.body = 410, b"no longer here"
    daemon = await living(table(receiver.url))
    await daemon.fail("job.a")
    await daemon.until(lambda: daemon.notices(state="cancelled"))
    shown = await daemon.endpoint()
    assert (shown["state"], shown["disabled_by"], shown["detail"]) == ("disabled", None, "answered 410: no longer here")
    [notice] = await daemon.notices(state="cancelled")
    status, problem = await daemon.ask("POST", f"/api/v1/notices/{notice['id']}/resend")
    assert status == 409
    assert "POST /api/v1/endpoints/ops/enable" in problem["detail"]


async def test_a_notice_told_again_is_new_and_says_how_things_stand_now(living: Any, receiver: Any) -> None:
    daemon = await living(table(receiver.url))
    task = await daemon.fail("job.a")
    [first] = await daemon.until(lambda: daemon.notices(state="delivered"))
    await daemon.ask("POST", f"/api/v1/tasks/{task}/dismiss", {"note": "known"})
    await daemon.until(lambda: daemon.notices(type="looseends.incident.resolved", state="delivered"))
    status, again = await daemon.ask("POST", f"/api/v1/notices/{first['id']}/resend")
    assert (status, again["reason"], again["type"]) == (202, "manual_resend", "looseends.incident.resolved")
    await daemon.until(lambda: daemon.notices(id=again["id"], state="delivered"))
    opened, resolved, told = events(receiver)
    assert told["id"] not in (opened["id"], resolved["id"])
    assert told["data"]["sequence"] > resolved["data"]["sequence"] > opened["data"]["sequence"]
    assert told["data"]["incident"]["reason"] == "manual_resend"


async def test_a_notice_that_still_waits_is_brought_forward_unchanged(living: Any, receiver: Any) -> None:
    receiver.status = 500
    daemon = await living(table(receiver.url))
    await daemon.fail("job.a")

    async def tried() -> Any:
        return [one for one in await daemon.notices(state="pending") if one["attempts"]]

    [waiting] = await daemon.until(tried)
    receiver.status = 200
    status, again = await daemon.ask("POST", f"/api/v1/notices/{waiting['id']}/resend")
    assert (status, again["id"]) == (202, waiting["id"])
    await daemon.until(lambda: daemon.notices(id=waiting["id"], state="delivered"))
    assert receiver.requests[0][1] == receiver.requests[1][1]


async def test_a_range_is_told_again_once_for_each_incident(living: Any, receiver: Any) -> None:
    daemon = await living(table(receiver.url), table(receiver.url, "other"))
    await daemon.fail("job.a")
    await daemon.fail("job.b")

    async def all_told() -> Any:
        return len(await daemon.notices(state="delivered")) == 4

    await daemon.until(all_told)
    status, done = await daemon.ask("POST", "/api/v1/notices/resend", {"from": "2020-01-01T00:00:00Z", "endpoint": "ops"})
    assert (status, len(done["items"]), done["left_out"]) == (202, 2, 0)
    status, done = await daemon.ask("POST", "/api/v1/notices/resend", {"from": "2020-01-01T00:00:00Z"})
    assert (status, len(done["items"])) == (202, 4)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/v1/endpoints/opps/test", None, 404, "configured: ops"),
        ("/api/v1/endpoints/ops/test", {"x": 1}, 422, "takes no body"),
        ("/api/v1/notices/msg_none/resend", None, 404, "GET /api/v1/notices"),
        ("/api/v1/notices/resend", {}, 422, "from is a time"),
        ("/api/v1/notices/resend", {"from": "now"}, 422, "from cannot be read"),
        ("/api/v1/notices/resend", {"from": "2020-01-01T00:00:00Z", "to": "2019-01-01T00:00:00Z"}, 422, "before to"),
        ("/api/v1/notices/resend", {"from": "2020-01-01T00:00:00Z", "endpoint": "x"}, 404, "configured: ops"),
        ("/api/v1/notices/resend", {"form": 1}, 422, "did you mean from?"),
        ("/api/v1/notices/resend", [], 422, "the body is an object"),
    ],
)
async def test_a_wrong_wish_is_refused_with_the_way_out(
    living: Any, receiver: Any, path: str, body: Any, status: int, words: str
) -> None:
    daemon = await living(table(receiver.url))
    found, problem = await daemon.ask("POST", path, body)
    assert found == status
    assert words in problem["detail"]


async def test_a_test_is_not_told_again(living: Any, receiver: Any) -> None:
    daemon = await living(table(receiver.url))
    _, notice = await daemon.ask("POST", "/api/v1/endpoints/ops/test")
    status, problem = await daemon.ask("POST", f"/api/v1/notices/{notice['id']}/resend")
    assert (status, problem["title"]) == (409, "A test is not sent again")


async def test_matchers_choose_who_hears_and_whoever_heard_hears_the_end(living: Any, receivers: Any) -> None:
    shop, bank, all_of = await receivers(), await receivers(), await receivers()
    daemon = await living(
        table(shop.url, "shop", match="['service=~\"shop-.*\"']"),
        table(bank.url, "bank", match="['service=\"bank\"', 'severity!=\"info\"']"),
        table(all_of.url, "all"),
    )
    task = await daemon.fail("mail.send", service="shop-web")
    await daemon.fail("pay", service="bank")

    async def told() -> Any:
        return len(await daemon.notices(state="delivered")) == 4

    await daemon.until(told)
    assert [event["data"]["incident"]["labels"]["service"] for event in events(shop)] == ["shop-web"]
    assert [event["data"]["incident"]["labels"]["service"] for event in events(bank)] == ["bank"]
    assert len(all_of.requests) == 2
    await daemon.ask("POST", f"/api/v1/tasks/{task}/dismiss", {"note": "known"})
    await daemon.until(lambda: daemon.notices(endpoint="shop", type="looseends.incident.resolved", state="delivered"))
    assert len(bank.requests) == 1
    assert (await daemon.endpoint("bank"))["match"] == ['service="bank"', 'severity!="info"']


# --- the pace -----------------------------------------------------------------------------------------------------


def test_never_more_than_so_many_in_any_minute() -> None:
    pace, begun = Pace(3), []
    now = 0
    for _ in range(20):
        now = max(now, pace.free_at(now))
        pace.begin(now)
        begun.append(now)
        now += 7 * NS
    for at in begun:
        assert sum(at <= other < at + MINUTE_NS for other in begun) <= 3


def test_a_clock_set_back_does_not_hold_notices_for_hours() -> None:
    pace = Pace(1, [10**15])
    assert pace.free_at(10**9) == 10**9


async def test_over_the_limit_notices_wait_and_the_newest_news_take_the_place_of_older(make_post: Any) -> None:
    post = await make_post()
    post.endpoints["ops"] = EndpointRule(name="ops", fingerprint="1", max_per_minute=5)
    sent: list[bytes] = []

    async def take(message: Message) -> Outcome:
        sent.append(message.body)
        return Outcome(status=200)

    for _ in range(12):
        await post.incident()
    dispatcher = post.dispatcher("ops", take)
    due = await dispatcher.run_once(post.now)
    assert len(sent) == 5
    assert due == post.now + MINUTE_NS
    # A daemon that was started anew owes the same.
    assert await post.dispatcher("ops", take).run_once(post.now) == post.now + MINUTE_NS
    assert len(sent) == 5
    for _ in range(2):
        post.now += MINUTE_NS
        await dispatcher.run_once(post.now)
    assert len(sent) == 12
    assert {notice.state for notice in await post.notices()} == {"delivered"}


async def test_what_waits_for_the_limit_is_told_in_its_latest_state(living: Any, receiver: Any) -> None:
    daemon = await living(table(receiver.url, max_per_minute=1))
    await daemon.fail("job.first")
    await daemon.until(lambda: daemon.notices(state="delivered"))
    task = await daemon.fail("job.second")
    await daemon.until(lambda: daemon.notices(state="pending"))
    await daemon.ask("POST", f"/api/v1/tasks/{task}/dismiss", {"note": "known"})
    [waiting] = await daemon.until(lambda: daemon.notices(state="pending", type="looseends.incident.resolved"))
    assert [one["state"] for one in await daemon.notices(incident=waiting["incident"])] == ["superseded", "pending"]
    assert len(receiver.requests) == 1


async def test_five_days_of_nothing_but_failures_disable_it(make_post: Any) -> None:
    post = await make_post()

    async def fail(message: Message) -> Outcome:
        return Outcome(status=500, detail="still down")

    for _ in range(3):
        await post.incident()
    dispatcher = post.dispatcher("ops", fail)
    await dispatcher.run_once(post.now)
    for _ in range(5):
        post.now += 24 * 3600 * NS + NS
        await post.incident()
        await dispatcher.run_once(post.now)
    state, detail = await post.database.read(_state)
    assert state == "disabled"
    assert detail == "failed for 5 days; the last time: answered 500: still down"
    assert "pending" not in {notice.state for notice in await post.notices()}


async def _state(conn: Any) -> tuple[str, str]:
    [row] = await conn.execute_fetchall("SELECT state, detail FROM endpoint WHERE name = 'ops'")
    return row["state"], row["detail"]


async def test_a_disabled_endpoint_is_found_in_a_database_and_no_database_is_no_news(make_post: Any, tmp_path: Any) -> None:
    post = await make_post()
    outcome = Outcome(status=410)
    await post.database.write(lambda conn: health.failed(conn, post.now, "ops", outcome))
    assert health.disabled_in(post.database.path, ["ops"]) == [("ops", "answered 410")]
    assert health.disabled_in(str(tmp_path / "none.db"), ["ops"]) == []
    (tmp_path / "text.db").write_text("no database" * 100)
    assert health.disabled_in(str(tmp_path / "text.db"), ["ops"]) == []


async def test_an_endpoint_that_hangs_leaves_the_answers_of_others_quick(living: Any, receivers: Any) -> None:
    slow, quick = await receivers(), await receivers()
    slow.behave = slow.hang
    daemon = await living(table(slow.url, "slow"), table(quick.url, "quick"))
    await daemon.fail("job.a")
    await asyncio.wait_for(quick.arrived.wait(), 10)
    assert (await daemon.endpoint("slow"))["backlog"] == 1


def test_an_endpoint_rule_carries_its_matchers() -> None:
    rule = EndpointRule(name="x", fingerprint="", match=(matcher('service="a"'),))
    assert rule.match[0].fits({"service": "a"})


async def test_an_answer_is_shown_without_its_line_breaks(living: Any, receiver: Any) -> None:
    async def odd(request: web.Request) -> web.Response:
        return web.Response(status=500, body=b"line one\r\n\tline two\x00")

    receiver.behave = odd
    daemon = await living(table(receiver.url))
    await daemon.ask("POST", "/api/v1/endpoints/ops/test")
    await daemon.until(lambda: daemon.notices(state="exhausted"))
    assert (await daemon.endpoint())["detail"].startswith("answered 500: line one line two")


async def test_a_large_backlog_is_not_read_to_find_what_is_due(make_post: Any) -> None:
    """A plan that sorted would read the bodies of everything that waits, for every attempt."""
    post = await make_post()
    await post.incident()

    async def plan(conn: Any) -> str:
        given = {"endpoint": "ops", "now": post.now, "room": 1}
        found = []
        for query in (outbox._CUT_OFF_ONES, outbox._TESTS, outbox._DUE):
            rows = await conn.execute_fetchall(f"EXPLAIN QUERY PLAN {query}", given)
            found += [row["detail"] for row in rows]
        return "\n".join(found)

    said = await post.database.read(plan)
    assert "TEMP B-TREE" not in said, said
    for index in ("notice_flying", "notice_test", "notice_due"):
        assert f"USING INDEX {index}" in said, said


async def test_old_tests_do_not_pile_up(make_post: Any) -> None:
    post = await make_post()
    actor = Actor(name="anna", role="operator", channel="loopback")

    async def yes(message: Message) -> Outcome:
        return Outcome(status=200)

    for _ in range(3):
        await post.database.write(lambda conn: resends.test(conn, post.now, "ops", actor, post.rules))
        await post.dispatcher("ops", yes).run_once(post.now)
        post.now += (resends.TESTS_KEPT_S + 1) * NS
    assert len(await post.notices()) == 1
