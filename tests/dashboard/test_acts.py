"""What a form does, and the page that answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dashboard import shop
from dashboard.checks import check
from dashboard.fakes import OPERATOR, VIEWER, Client, FakeCommands, FakeFront, Visit
from looseends_daemon.core.replay import CAUTION, NO_LIVE_INSTANCE, REPLAYED_BEFORE, SIGNATURE
from looseends_daemon.core.resources import Actor, CommandRefused
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


def _field(document: Any, name: str, action: str) -> Any:
    """What stands in a field of the form that leads there: its text or its value."""
    form = next(form for form in document.iter("form") if form.get("action") == action)
    field = next(field for field in form.iter() if field.get("name") == name)
    return field.text if field.tag == "textarea" else field.get("value")


@pytest.mark.parametrize(
    ("typed", "refusal"),
    [
        ('{"order_id":', None),
        ('{"oder_id": 8}', CommandRefused(409, "Blocked", [f"{SIGNATURE}: order_id is missing, and it takes no oder_id"])),
        ('{"a": 1}', CommandRefused(409, "Blocked", [f"{NO_LIVE_INSTANCE}: no instance is alive"])),
    ],
)
async def test_a_refused_replay_gives_back_what_was_typed(visit: Visit, typed: str, refusal: CommandRefused | None) -> None:
    client = await visit(shop.full(), commands=FakeCommands(refusal=refusal))
    path = f"/tasks/{TASK}/replay"
    answer = await press(client, path, args=typed, note="the typo")
    document = check(await answer.text())
    assert answer.status in (409, 422)
    assert (_field(document, "args", path), _field(document, "note", path)) == (typed, "the typo")


async def test_typed_arguments_survive_a_confirmation_character_by_character(visit: Visit) -> None:
    commands = FakeCommands(refusal=CommandRefused(409, "Confirm", [f"{CAUTION}: its author says: mind"]))
    client = await visit(shop.full(), commands=commands)
    path, typed = f"/tasks/{TASK}/replay", {"to": "\u200fada\u202e"}
    document = check(await (await press(client, path, args=json.dumps(typed, ensure_ascii=False))).text())
    await press(client, path, args=_field(document, "args", path), confirm=CAUTION)
    assert commands.asked[-1]["args"] == typed


@pytest.mark.parametrize("act", ["replay", "dismiss"])
async def test_the_address_of_a_form_leads_back_to_its_task(visit: Visit, act: str) -> None:
    client = await visit(shop.full())
    answer = await client.get(f"/tasks/{TASK}/{act}", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, f"/tasks/{TASK}")


async def test_a_loose_end_is_dismissed_from_its_page_with_a_note(visit: Visit) -> None:
    commands = FakeCommands()
    client = await visit(shop.full(), commands=commands)
    path = f"/tasks/{TASK}/dismiss"
    document = check(await (await client.get(f"/tasks/{TASK}")).text())
    form = next(form for form in document.iter("form") if form.get("action") == path)
    note = next(field for field in form.iter("input") if field.get("name") == "note")
    assert note.get("required") is not None
    answer = await press(client, path, note="known since Monday")
    assert (answer.status, answer.headers["Location"]) == (303, f"/tasks/{TASK}")
    assert commands.asked == [{"dismissed": TASK, "actor": "operator token", "note": "known since Monday"}]


async def test_a_refused_dismissal_says_why_and_keeps_the_note(visit: Visit) -> None:
    refusal = CommandRefused(422, "Note too long", ["a note is at most 500 characters"])
    client = await visit(shop.full(), commands=FakeCommands(refusal=refusal))
    path = f"/tasks/{TASK}/dismiss"
    answer = await press(client, path, note="x" * 501)
    text = await answer.text()
    assert answer.status == 422
    document = check(text)
    assert "a note is at most 500 characters" in text
    assert _field(document, "note", path) == "x" * 501


@pytest.mark.parametrize(("number", "actor"), [(1, VIEWER), (8, OPERATOR), (20, OPERATOR)])
async def test_dismissing_is_offered_to_operators_for_open_loose_ends_only(visit: Visit, number: int, actor: Actor) -> None:
    client = await visit(shop.full(), actor=actor)
    assert "/dismiss" not in await (await client.get(f"/tasks/{shop.task_id(number)}")).text()


async def test_a_dismissal_of_nothing_is_a_404_page(visit: Visit) -> None:
    client = await visit(shop.full(), commands=FakeCommands(refusal=CommandRefused(404, "No such task")))
    assert (await press(client, "/tasks/nobody/dismiss", note="x")).status == 404


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
    reader = shop.empty()
    addresses = Addresses(http_url="http://x")
    pages = Pages(reader=reader, front=FakeFront(reader), commands=FakeCommands(), clock=lambda: 0, addresses=addresses)
    doors = routes(pages)
    assert {door.role for door in doors} <= set(ROLES)
    assert {door.path for door in doors if door.role == "open"} == {"/static/{hash}/{name}"}
    acts = {door.path for door in doors if door.acts}
    assert acts == {
        *("/tasks/{id}/replay", "/tasks/{id}/dismiss", "/replays/{id}/orders/{order}/resolve"),
        *("/incidents/{id}/acknowledge", "/incidents/{id}/dismiss", "/dismissals/{id}/undo"),
        *("/silences", "/silences/{id}/end", "/endpoints/{name}/{act}", "/notices/{id}/resend", "/setup/lose"),
    }
    assert all(door.role == "operator" for door in doors if door.acts)
