"""The pages of plans and runs: nothing runs unseen, nothing typed is lost, every page is whole without JavaScript."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from dashboard import shop
from dashboard.checks import check
from dashboard.fakes import OPERATOR, VIEWER, FakeCommands, FakeFront, FakeReader
from looseends_daemon.core.plans import UNHEARD, Plan, PlanItem, PlanReason, Run, RunItem, Selection, Side, Wish
from looseends_daemon.core.query import QueryError
from looseends_daemon.core.replay import Reason
from looseends_daemon.core.resources import Actor, CommandRefused, Page, Replay
from looseends_dashboard.routes import Addresses, Pages, routes

NASTY = '<script>alert(1)</script>"\x1b[31m\u202e'
HOUR = 3_600 * 10**9
PLAN = Plan(
    id="plan_1",
    state="open",
    made_by="ada",
    made_at=shop.NOW,
    expires_at=shop.NOW + HOUR,
    digest="d" * 64,
    selection={"q": f"is:loose {NASTY}", "from_at": shop.NOW - HOUR},
    counts={"total": 6, "ready": 3, "confirm": 2, "blocked": 1},
    reasons=[
        PlanReason(name="code_changed", answer="confirm", tasks=2, words=f"the code of {NASTY} has changed"),
        PlanReason(name="arguments", answer="blocked", tasks=1, words="card was redacted"),
    ],
)
ITEM = PlanItem(n=0, task=shop.task_id(1), name=NASTY, key=NASTY, began_at=shop.NOW, answer="ready")
BLOCKED = PlanItem(
    n=1,
    task=shop.task_id(2),
    name=None,
    key=None,
    began_at=None,
    answer="blocked",
    reasons=[Reason(name="arguments", words=NASTY)],
)
RUN = Run(
    plan="plan_1",
    confirm=["code_changed"],
    canary=5,
    per_second=50,
    in_flight=20,
    stop_after_failures=10,
    pending=3,
    flying=1,
    over=2,
    canary_passed=True,
    why=f"the canary: {NASTY}",
    remaining=12.5,
)
COUNTS = {"total": 6, "waiting": 3, "running": 1, "succeeded": 1, "outcome_unknown": 1}


@dataclasses.dataclass
class FakePlans:
    """Both ports of plans over one plan and one run."""

    plan_: Plan | None = PLAN
    refusal: Exception | None = None
    asked: list[Any] = dataclasses.field(default_factory=list)

    async def plan(self, plan_id: str) -> Plan | None:
        return self.plan_ if self.plan_ and plan_id == self.plan_.id else None

    async def plan_items(self, plan_id: str, **asked: Any) -> Page[PlanItem]:
        if asked["cursor"] == "made-up":
            raise ValueError("it is none of ours")
        return Page(items=[ITEM, BLOCKED], next_cursor="more")

    async def run_items(self, replay_id: str, **asked: Any) -> Page[RunItem]:
        self.asked.append(asked)
        old = Side(id=shop.task_id(1), state="running", verdict="lost", args={"n": 1})
        new = Side(id=shop.task_id(9), state="succeeded", result={"said": NASTY})
        return Page(
            items=[
                RunItem(n=0, task=shop.task_id(1), name=NASTY, key="k", state="succeeded", old=old, new=new, edited=True),
                RunItem(n=1, task=shop.task_id(2), name=None, key=None, state="outcome_unknown", detail=NASTY, new=new),
                RunItem(n=2, task=shop.task_id(3), name="x", key=None, state="blocked", detail="redacted"),
                RunItem(
                    n=3, task=shop.task_id(4), name="x", key=None, state="waiting", new=Side(id=shop.task_id(8), state=UNHEARD)
                ),
            ],
            next_cursor="more",
        )

    async def make_plan(self, selection: Selection, actor: Actor) -> Plan:
        return self._act(selection, PLAN)

    async def start_replay(self, wish: Wish, actor: Actor) -> Replay:
        return self._act(wish, Replay(id="rpl_1", state="running", requested_by="ada", requested_at=1))

    async def steer(self, replay_id: str, act: str, actor: Actor) -> Replay:
        return self._act((replay_id, act), Replay(id=replay_id, state="paused", requested_by="ada", requested_at=1))

    def _act(self, asked: Any, answer: Any) -> Any:
        self.asked.append(asked)
        if self.refusal is not None:
            raise self.refusal
        return answer


@pytest.fixture
async def visit() -> AsyncIterator[Any]:
    clients: list[TestClient[Any, Any]] = []

    async def start(fake: FakePlans, *, actor: Actor = OPERATOR, state: str = "running") -> TestClient[Any, Any]:
        warnings.filterwarnings("ignore", category=web.NotAppKeyWarning)
        replay = Replay(id="rpl_1", state=state, requested_by="ada", requested_at=shop.NOW, counts=COUNTS, run=RUN)
        reader = FakeReader(all_replays=[replay], last=shop.NOW)
        pages = Pages(
            reader=reader,
            front=FakeFront(reader),
            commands=FakeCommands(),
            clock=lambda: shop.NOW,
            addresses=Addresses(http_url="http://127.0.0.1:3637"),
            plans=fake,
            plan_acts=fake,
        )

        @web.middleware
        async def known(request: web.Request, handler: Any) -> web.StreamResponse:
            request["actor"], request["csrf"] = actor, "csrf-word"
            response: web.StreamResponse = await handler(request)
            return response

        app = web.Application(middlewares=[known])
        for route in routes(pages):
            app.router.add_route(route.method, route.path, route.handler)
        client: TestClient[Any, Any] = TestClient(TestServer(app))
        await client.start_server()
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()


async def seen(client: Any, path: str, status: int = 200) -> Any:
    answer = await client.get(path)
    assert answer.status == status, path
    return check(await answer.text())


async def press(client: Any, path: str, **fields: Any) -> Any:
    form = {"csrf": "csrf-word", "idempotency_key": "key-12345678", **fields}
    return await client.post(path, data=form, allow_redirects=False)


def words(document: Any) -> str:
    return " ".join("".join(document.find(".//main").itertext()).split())


@pytest.mark.parametrize("actor", [OPERATOR, VIEWER])
async def test_every_page_is_whole_whatever_is_in_it(visit: Any, actor: Actor) -> None:
    client = await visit(FakePlans(), actor=actor)
    for path in (
        "/replays/new",
        f"/replays/new?q=is:loose&task={shop.task_id(1)}",
        "/replays/new?incident=inc_1",
        "/plans/plan_1",
        "/plans/plan_1?answer=blocked&cursor=x",
        "/replays/rpl_1",
        "/replays/rpl_1?state=waiting",
    ):
        document = await seen(client, path)
        acting = [form for form in document.find(".//main").iter("form") if form.get("method") == "post"]
        assert bool(acting) == (actor is OPERATOR), path


async def test_what_was_chosen_becomes_a_plan_and_its_page(visit: Any) -> None:
    fake = FakePlans()
    client = await visit(fake)
    answer = await press(client, "/replays/new", q="is:loose", **{"from": "2026-11-20T14:00:00Z"}, to="")
    assert (answer.status, answer.headers["Location"]) == (303, "/plans/plan_1")
    assert fake.asked[-1].q == "is:loose" and fake.asked[-1].from_ and fake.asked[-1].to is None
    await press(client, "/replays/new", task=shop.task_id(1), args='{"order_id": 8}')
    assert fake.asked[-1] == Selection(tasks=(shop.task_id(1),), edit={"order_id": 8})
    await press(client, "/replays/new", incident="inc_1")
    assert fake.asked[-1] == Selection(incident="inc_1")


@pytest.mark.parametrize(
    ("refusal", "status", "says"),
    [
        (CommandRefused(422, "Nothing was chosen", ["no task fits"]), 422, "no task fits"),
        (QueryError("unknown word", 1, ("is:",)), 422, "unknown word"),
    ],
)
async def test_what_cannot_be_planned_is_said_where_it_was_typed(visit: Any, refusal: Exception, status: int, says: str) -> None:
    client = await visit(FakePlans(refusal=refusal))
    answer = await press(client, "/replays/new", q="colour:red")
    document = check(await answer.text())
    assert answer.status == status and says in words(document)
    assert document.find(".//input[@id='plan-q']").get("value") == "colour:red"
    answer = await press(client, "/replays/new", q="x", **{"from": "yesterday"})
    assert answer.status == 422 and "from" in await answer.text()


async def test_a_plan_says_what_stands_in_the_way_and_starts_with_what_is_ticked(visit: Any) -> None:
    fake = FakePlans()
    client = await visit(fake)
    document = await seen(client, "/plans/plan_1")
    assert "card was redacted" in words(document) and "Run 3 that are ready and what is ticked" in words(document)
    form = next(form for form in document.iter("form") if form.get("action") == "/plans/plan_1/run")
    fields = [(field.get("name"), field.get("value")) for field in form.iter("input")]
    assert ("confirm", "code_changed") in fields and ("digest", "d" * 64) in fields
    answer = await client.post("/plans/plan_1/run", data=fields, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/replays/rpl_1")
    wish = fake.asked[-1]
    assert (wish.digest, wish.confirm, wish.rule.canary, wish.rule.per_second) == ("d" * 64, ("code_changed",), 5, 10)


async def test_a_stale_plan_says_so_loses_nothing_and_can_be_made_again(visit: Any) -> None:
    fake = FakePlans(refusal=CommandRefused(409, "1 task has changed since this plan was made", ["x: it ended well already"]))
    client = await visit(fake)
    answer = await press(client, "/plans/plan_1/run", digest="d" * 64, per_second="7.5", note="why", confirm="code_changed")
    document = check(await answer.text())
    assert answer.status == 409 and "it ended well already" in words(document)
    values = {field.get("name"): field for field in document.iter("input")}
    assert (values["per_second"].get("value"), values["note"].get("value")) == ("7.5", "why")
    assert values["confirm"].get("checked") is not None
    again = next(form for form in document.iter("form") if form.get("action") == "/replays/new")
    assert {"q", "from"} <= {field.get("name") for field in again.iter("input")}
    assert (await client.get("/plans/plan_1/run", allow_redirects=False)).headers["Location"] == "/plans/plan_1"


async def test_a_number_that_is_none_is_told_what_is_allowed(visit: Any) -> None:
    client = await visit(FakePlans())
    answer = await press(client, "/plans/plan_1/run", digest="d", per_second="fast")
    assert answer.status == 422 and "per second is a number from 0.01 to 200" in await answer.text()


@pytest.mark.parametrize(("state", "says"), [("expired", "It has expired"), ("run", "This plan is run")])
async def test_a_plan_that_is_over_offers_no_run(visit: Any, state: str, says: str) -> None:
    plan = dataclasses.replace(FakePlans(), plan_=_plan(state=state, replay="rpl_1" if state == "run" else None))
    document = await seen(await visit(plan), "/plans/plan_1")
    assert says in words(document)
    assert not [form for form in document.iter("form") if form.get("action") == "/plans/plan_1/run"]


def _plan(**more: Any) -> Plan:
    return Plan(**{**{name: getattr(PLAN, name) for name in Plan.__struct_fields__}, **more})


async def test_what_a_plan_says_above_is_not_said_again_in_every_row(visit: Any) -> None:
    fake = FakePlans()
    document = await seen(await visit(fake), "/plans/plan_1")
    rows = [" ".join("".join(row.itertext()).split()) for row in document.iter("tr")]
    assert "arguments: <script>" in rows[2], "other words than above: they are shown"
    fake.plan_ = _plan(reasons=[PlanReason(name="arguments", answer="blocked", tasks=1, words=NASTY)])
    document = await seen(await visit(fake), "/plans/plan_1")
    rows = [" ".join("".join(row.itertext()).split()) for row in document.iter("tr")]
    assert rows[2].endswith("arguments")


async def test_a_plan_whose_query_did_not_look_everywhere_says_so(visit: Any) -> None:
    fake = dataclasses.replace(FakePlans(), plan_=_plan(searched="only the newest were searched"))
    assert "only the newest were searched" in words(await seen(await visit(fake), "/plans/plan_1"))


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        ({"q": "is:loose", "from_at": shop.NOW, "to_at": shop.NOW}, "Of what fits is:loose begun from"),
        ({"q": ""}, "Of all tasks."),
        ({"incident": "inc_1"}, "Of the open loose ends of this incident."),
        ({"tasks": ["x"]}, "Of one task."),
        ({"tasks": ["x", "y"]}, "Of tasks that were picked by hand."),
    ],
)
async def test_a_plan_says_what_it_was_made_of(visit: Any, selection: Any, says: str) -> None:
    fake = dataclasses.replace(FakePlans(), plan_=_plan(selection=selection))
    assert says in words(await seen(await visit(fake), "/plans/plan_1"))


async def test_a_run_shows_how_far_it_is_old_beside_new_and_can_be_steered(visit: Any) -> None:
    fake = FakePlans()
    client = await visit(fake)
    document = await seen(client, "/replays/rpl_1?state=succeeded")
    assert fake.asked[-1]["state"] == "succeeded"
    bar = document.find(".//progress")
    assert (bar.get("value"), bar.get("max")) == ("2", "6") and "about 13 s left" in words(document)
    assert "lost" in words(document) and "It did not run" in words(document)
    hrefs = [link.get("href") for link in document.iter("a")]
    assert "/api/v1/replays/rpl_1/report.csv" in hrefs and "/plans/plan_1" in hrefs
    assert f"/tasks/{shop.task_id(9)}" in hrefs and f"/tasks/{shop.task_id(8)}" not in hrefs, "nothing was heard of it: no page"
    answer = await press(client, "/replays/rpl_1/steer", act="pause")
    assert (answer.status, fake.asked[-1]) == (303, ("rpl_1", "pause"))
    answer = await press(client, "/replays/rpl_1/steer", act="explode")
    assert answer.status == 422 and "pause, resume, cancel" in await answer.text()


async def test_a_paused_run_can_be_resumed_and_one_that_is_done_cannot_be_steered(visit: Any) -> None:
    assert "Resume" in words(await seen(await visit(FakePlans(), state="paused"), "/replays/rpl_1"))
    done = await seen(await visit(FakePlans(), state="done"), "/replays/rpl_1")
    assert not [form for form in done.iter("form") if str(form.get("action")).endswith("/steer")]


@pytest.mark.parametrize(
    "path", ["/plans/plan_0", "/plans/plan_1?answer=x", "/plans/plan_1?cursor=made-up", "/replays/rpl_1?state=x"]
)
async def test_what_is_not_there_or_cannot_be_read_is_said(visit: Any, path: str) -> None:
    await seen(await visit(FakePlans()), path, 404 if path == "/plans/plan_0" else 422)
