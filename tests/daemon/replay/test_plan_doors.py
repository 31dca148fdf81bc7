"""Plans and runs over a real server: one replay however often it is asked for, and every mistake told with the way out."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Any

import aiohttp
import pytest

from daemon.replay.behind_doors import SEND, Served
from looseends_daemon.http.plans import COLUMNS
from looseends_daemon.services.planner import Pacer


class Desk:
    """An operator with a plan over three lost tasks."""

    def __init__(self, served: Served, token: str, plan: dict[str, Any]) -> None:
        self.served, self.token, self.plan = served, token, plan

    @property
    def wish(self) -> dict[str, Any]:
        return {"plan": self.plan["id"], "digest": self.plan["digest"], "canary": 0, "per_second": 100}

    async def post(self, path: str, body: Any, key: str | None = "press-number-1", token: str | None = None) -> tuple[int, Any]:
        return await self.served.call("POST", path, body, token=token or self.token, key=key)

    async def get(self, path: str) -> tuple[int, Any]:
        return await self.served.call("GET", path, token=self.token)


@pytest.fixture
async def desk(served: Served) -> Desk:
    world = served.world
    dead = await world.instance(SEND)
    for n in range(3):
        await world.started(dead, key=f"=order-{n}")
    await world.gone(dead)
    await world.instance(SEND)
    token = await served.token("operator")
    status, plan = await served.call("POST", "/replay-plans", {"q": "is:open"}, token=token, key="plan-number-1")
    assert status == 201 and plan["counts"] == {"total": 3, "ready": 3, "confirm": 0, "blocked": 0}
    return Desk(served, token, plan)


async def replays(served: Served) -> int:
    return len(await served.world.rows("SELECT 1 FROM replay"))


async def test_a_double_click_is_one_replay_with_one_answer(desk: Desk) -> None:
    answers = [await desk.post("/replays", desk.wish) for _ in range(3)]
    assert [status for status, _ in answers] == [202] * 3 and len({answer["id"] for _, answer in answers}) == 1
    assert await replays(desk.served) == 1


async def test_a_post_that_is_sent_again_at_the_same_moment_is_one_replay(desk: Desk) -> None:
    answers = await asyncio.gather(*(desk.post("/replays", desk.wish) for _ in range(6)))
    assert {status for status, _ in answers} <= {202, 409} and await replays(desk.served) == 1
    assert (await desk.post("/replays", desk.wish))[0] == 202


async def test_two_windows_and_two_people_make_one_replay(desk: Desk) -> None:
    other = await desk.served.token("operator")
    answers = await asyncio.gather(
        desk.post("/replays", desk.wish, "window-number-1"),
        desk.post("/replays", desk.wish, "window-number-2"),
        desk.post("/replays", desk.wish, "window-number-3", other),
    )
    made = [answer for status, answer in answers if status == 202]
    refused = [answer for status, answer in answers if status == 409]
    assert len(made) == 1 and len(refused) == 2 and await replays(desk.served) == 1
    assert all(made[0]["id"] in answer["errors"][0]["detail"] for answer in refused)


async def test_two_people_with_a_plan_each_run_every_task_once(desk: Desk) -> None:
    _, second = await desk.post("/replay-plans", {"q": "is:open"}, "plan-number-2")
    wish = {**desk.wish, "plan": second["id"], "digest": second["digest"]}
    answers = await asyncio.gather(desk.post("/replays", desk.wish, "person-one"), desk.post("/replays", wish, "person-two"))
    assert {status for status, _ in answers} == {202}
    await Pacer(desk.served.world.database).run_once(desk.served.world.later(1))
    rows = await desk.served.world.rows("SELECT task FROM replay_order")
    assert len(rows) == 3 == len({row["task"] for row in rows})
    blocked = [(await desk.get(f"/replays/{answer['id']}"))[1]["counts"]["blocked"] for _, answer in answers]
    assert sorted(blocked) == [0, 3]


BAD: list[tuple[str, Any, str | None, int, str]] = [
    ("/replay-plans", {"q": ""}, None, 400, "Idempotency-Key"),
    ("/replay-plans", {}, "wrong-number-1", 422, "one of the three"),
    ("/replay-plans", {"query": "is:loose"}, "wrong-number-1", 422, "is unknown"),
    ("/replay-plans", {"q": "colour:red"}, "wrong-number-1", 422, "colour"),
    ("/replay-plans", {"q": "name:nobody"}, "wrong-number-1", 422, "no task fits"),
    ("/replay-plans", {"tasks": ["x"] * 501}, "wrong-number-1", 422, "at most 500"),
    ("/replay-plans", {"incident": "inc_0"}, "wrong-number-1", 404, "no incident"),
    ("/replay-plans", {"q": "", "from": "yesterday"}, "wrong-number-1", 422, "/from"),
    ("/replays", {"plan": "plan_0", "digest": "0"}, "wrong-number-1", 404, "no plan"),
    ("/replays", {"digest": "0"}, "wrong-number-1", 422, "/plan is missing"),
    ("/replays", {"plan": "plan_0", "digest": "0", "in_flight": 0}, "wrong-number-1", 422, "in_flight is from 1 to 200"),
    ("/replays", {"plan": "plan_0", "digest": "0", "canary": "five"}, "wrong-number-1", 422, "/canary must be a whole number"),
    ("/replays", {"plan": "plan_0", "digest": "0", "speed": 9}, "wrong-number-1", 422, "is unknown"),
    ("/replays", [], "wrong-number-1", 422, "must be a JSON object"),
    ("/replays/rpl_0/pause", {}, "wrong-number-1", 404, "no replay"),
]


@pytest.mark.parametrize(("path", "body", "key", "status", "says"), BAD)
async def test_what_is_wrong_is_told_with_its_place(
    desk: Desk, path: str, body: Any, key: str | None, status: int, says: str
) -> None:
    answered, problem = await desk.post(path, body, key)
    assert answered == status and says in str(problem) and {"type", "title", "status", "detail"} <= set(problem)
    assert await replays(desk.served) == 0


async def test_the_key_of_another_press_and_the_token_of_another_role_are_refused(desk: Desk) -> None:
    assert (await desk.post("/replays", desk.wish))[0] == 202
    assert (await desk.post("/replays", {**desk.wish, "canary": 1}))[0] == 422
    viewer = await desk.served.token("viewer")
    for path in ("/replay-plans", "/replays", "/replays/rpl_0/cancel"):
        assert (await desk.post(path, desk.wish, token=viewer))[0] == 403
    for path in (f"/replay-plans/{desk.plan['id']}", f"/replay-plans/{desk.plan['id']}/items"):
        assert (await desk.served.call("GET", path, token=viewer))[0] == 200


async def test_an_expired_plan_and_a_changed_list_say_what_to_do(desk: Desk) -> None:
    status, problem = await desk.post("/replays", {**desk.wish, "digest": "0" * 64}, "list-changed")
    assert status == 409 and "look at the plan again" in str(problem)
    desk.served.world.later(3_601)
    status, problem = await desk.post("/replays", desk.wish, "plan-expired")
    assert status == 410 and "make it again" in str(problem)


async def test_a_run_is_steered_and_listed_and_its_report_is_the_same_in_json_and_csv(desk: Desk) -> None:
    replay = (await desk.post("/replays", desk.wish))[1]["id"]
    await Pacer(desk.served.world.database).run_once(desk.served.world.later(1))
    for n, (act, state) in enumerate((("pause", "paused"), ("resume", "running"), ("cancel", "cancelled"))):
        status, shown = await desk.post(f"/replays/{replay}/{act}", None, f"steer-number-{n}")
        assert (status, shown["state"]) == (200, state)
    status, problem = await desk.post(f"/replays/{replay}/pause", None, "steer-number-9")
    assert status == 409 and "it is cancelled" in str(problem)
    _, listed = await desk.get(f"/replays/{replay}/items?state=cancelled&limit=2")
    assert len(listed["items"]) == 2 and listed["next_cursor"] is not None
    _, rest = await desk.get(f"/replays/{replay}/items?state=cancelled&limit=2&cursor={listed['next_cursor']}")
    assert len(rest["items"]) == 1 and rest["next_cursor"] is None
    _, report = await desk.get(f"/replays/{replay}/report")
    assert report["replay"]["id"] == replay and len(report["items"]) == 3
    rows = list(csv.DictReader(io.StringIO(await text(desk, f"/replays/{replay}/report.csv"))))
    assert tuple(rows[0]) == COLUMNS and [row["task"] for row in rows] == [item["task"] for item in report["items"]]
    assert rows[0]["key"] == "'=order-0", "no cell is a formula"


async def text(desk: Desk, path: str) -> str:
    headers = {"Authorization": f"Bearer {desk.token}"}
    async with aiohttp.ClientSession(desk.served._tcp, headers=headers) as web, web.get(f"/api/v1{path}") as answer:
        assert answer.status == 200 and "attachment" in answer.headers["Content-Disposition"]
        return await answer.text()


@pytest.mark.parametrize("query", ["cursor=made-up", "answer=maybe", "reason=tired", "limit=0", "colour=red"])
async def test_a_list_refuses_what_it_cannot_read(desk: Desk, query: str) -> None:
    assert (await desk.get(f"/replay-plans/{desk.plan['id']}/items?{query}"))[0] == 422
