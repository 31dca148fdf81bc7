"""What a form does, and the page that answers."""

from __future__ import annotations

from typing import Any

import pytest

from dashboard import shop
from dashboard.checks import check
from dashboard.fakes import Client, FakeCommands, Visit
from looseends_daemon.core.replay import CAUTION, NO_LIVE_INSTANCE, REPLAYED_BEFORE
from looseends_daemon.core.resources import CommandRefused
from looseends_daemon.core.routing import ROLES
from looseends_dashboard.routes import Addresses, Pages, routes

TASK = shop.task_id(1)


async def press(client: Client, path: str, **fields: Any) -> Any:
    form = {"csrf": "csrf-word", "idempotency_key": "key-12345678", **fields}
    return await client.post(path, data=form, allow_redirects=False)


async def test_replay_leads_to_the_replay(visit: Visit) -> None:
    commands = FakeCommands()
    client = await visit(shop.full(), commands=commands)
    answer = await press(client, f"/tasks/{TASK}/replay", note="after the deploy")
    assert (answer.status, answer.headers["Location"]) == (303, "/replays/rep_1")
    asked: dict[str, Any] = {"task": TASK, "actor": "operator token", "note": "after the deploy", "args": None, "confirm": []}
    assert commands.asked == [asked]


async def test_what_must_be_confirmed_is_shown_and_can_be_confirmed(visit: Visit) -> None:
    reasons = [f"{CAUTION}: its author says: mails the customer again", f"{REPLAYED_BEFORE}: it was replayed before"]
    commands = FakeCommands(refusal=CommandRefused(409, "This replay needs to be confirmed", reasons))
    client = await visit(shop.full(), commands=commands)
    answer = await press(client, f"/tasks/{TASK}/replay", note="n")
    assert answer.status == 409
    document = check(await answer.text())
    assert "Its author says: mails the customer again." in "".join(document.itertext())
    form = next(form for form in document.iter("form") if form.get("action") == f"/tasks/{TASK}/replay")
    hidden = [(field.get("name"), field.get("value")) for field in form.iter("input")]
    assert ("confirm", CAUTION) in hidden
    assert ("confirm", REPLAYED_BEFORE) in hidden
    assert ("note", "n") in hidden
    commands.refusal = None
    answer = await client.post(f"/tasks/{TASK}/replay", data=hidden, allow_redirects=False)
    assert answer.status == 303
    assert commands.asked[-1]["confirm"] == [CAUTION, REPLAYED_BEFORE]


async def test_what_is_blocked_shows_its_reasons_and_no_way_around(visit: Visit) -> None:
    refusal = CommandRefused(409, "This task cannot be replayed now", [f"{NO_LIVE_INSTANCE}: no instance is alive. Start one"])
    client = await visit(shop.full(), commands=FakeCommands(refusal=refusal))
    answer = await press(client, f"/tasks/{TASK}/replay")
    text = await answer.text()
    assert answer.status == 409
    document = check(text)
    assert "No instance is alive. Start one." in text
    assert not [form for form in document.iter("form") if "/replay" in (form.get("action") or "")]


async def test_arguments_given_by_hand_arrive_as_json(visit: Visit) -> None:
    commands = FakeCommands()
    client = await visit(shop.full(), commands=commands)
    await press(client, f"/tasks/{TASK}/replay", args='{"order_id": 8}')
    assert commands.asked[0]["args"] == {"order_id": 8}


@pytest.mark.parametrize(("args", "said"), [("{", "They are no JSON"), ("[1]", "Write an object"), ("[" * 100_000, "no JSON")])
async def test_arguments_that_are_no_object_are_refused_with_the_place(visit: Visit, args: str, said: str) -> None:
    commands = FakeCommands()
    client = await visit(shop.full(), commands=commands)
    answer = await press(client, f"/tasks/{TASK}/replay", args=args)
    assert answer.status == 422
    assert said in await answer.text()
    assert commands.asked == []


async def test_a_replay_of_nothing_is_a_404_page(visit: Visit) -> None:
    client = await visit(shop.full(), commands=FakeCommands(refusal=CommandRefused(404, "No such task")))
    answer = await press(client, "/tasks/nobody/replay")
    assert answer.status == 404
    check(await answer.text())


async def test_a_person_decides_an_unknown_outcome_with_a_note(visit: Visit) -> None:
    commands = FakeCommands()
    client = await visit(shop.full(), commands=commands)
    path = f"/replays/rep_2/orders/{shop.task_id(99)}/resolve"
    for wrong in ({"as": "maybe", "note": "x"}, {"as": "ran", "note": " "}):
        answer = await press(client, path, **wrong)
        assert answer.status == 422
        check(await answer.text())
    assert commands.asked == []
    answer = await press(client, path, **{"as": "ran", "note": "the mail is in the outbox"})
    assert (answer.status, answer.headers["Location"]) == (303, "/replays/rep_2")
    assert commands.asked[0]["answer"] == "ran"


async def test_a_theme_is_kept_in_a_cookie_that_scripts_cannot_read(visit: Visit) -> None:
    client = await visit(shop.full())
    answer = await press(client, "/theme", theme="dark", back="/tasks?q=is:loose")
    assert (answer.status, answer.headers["Location"]) == (303, "/tasks?q=is:loose")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert 'data-theme="dark"' in await (await client.get("/tasks")).text()


async def test_an_unknown_theme_is_refused_and_a_forged_cookie_ignored(visit: Visit) -> None:
    client = await visit(shop.full())
    assert (await press(client, "/theme", theme="<script>")).status == 422
    answer = await client.get("/", headers={"Cookie": "looseends_theme=pink"})
    assert 'data-theme="auto"' in await answer.text()


ELSEWHERE = ("//evil.example", "https://evil.example/", "/\\evil.example", "", "javascript:alert(1)", "/a\r\nX: y")


@pytest.mark.parametrize("back", ELSEWHERE)
async def test_the_theme_form_never_leads_to_another_host(visit: Visit, back: str) -> None:
    answer = await press(await visit(shop.full()), "/theme", theme="light", back=back)
    assert answer.headers["Location"] == "/"


def test_every_door_names_its_role_and_every_act_is_marked() -> None:
    pages = Pages(reader=shop.empty(), commands=FakeCommands(), clock=lambda: 0, addresses=Addresses(http_url="http://x"))
    doors = routes(pages)
    assert {door.role for door in doors} <= set(ROLES)
    assert {door.path for door in doors if door.role == "open"} == {"/static/{hash}/{name}"}
    acts = {door.path for door in doors if door.acts}
    assert acts == {"/tasks/{id}/replay", "/replays/{id}/orders/{order}/resolve"}
    assert all(door.role == "operator" for door in doors if door.acts)
