"""The reading side of the API and the acts on a task: parameters, refusals, idempotency."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from looseends.wire import NS
from looseends_daemon.core.resources import CommandRefused, Instance, Page, Task

TASK = "01890000-0000-8000-8000-000000000001"
REPLAY = f"/api/v1/tasks/{TASK}/replay"
DAY = 86_400 * NS


@pytest.fixture
async def viewer(house: Any) -> str:
    token: str = await house.token("viewer", name="ada")
    return token


@pytest.fixture
async def operator(house: Any) -> str:
    token: str = await house.token("operator", name="grace")
    return token


async def test_a_task_is_shown_with_every_field_and_rfc_3339_times(house: Any, viewer: str) -> None:
    house.tasks[TASK] = Task(id=TASK, name="n", service="s", environment="e", state="running", began_at=NS)
    reply = await house.ask("GET", f"/api/v1/tasks/{TASK.upper().replace('-', '')}", token=viewer)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json["began_at"] == "1970-01-01T00:00:01.000000Z"
    assert reply.json["verdict"] is None and "children" in reply.json


async def test_lists_are_items_and_a_cursor(house: Any, viewer: str) -> None:
    for path in ("tasks", "incidents", "notices", "replays", "instances", "audit"):
        reply = await house.ask("GET", f"/api/v1/{path}", token=viewer)
        assert (reply.status, reply.json) == (200, {"items": [], "next_cursor": None})


async def test_parameters_reach_the_reader_as_values(house: Any, viewer: str) -> None:
    path = "/api/v1/tasks?q=is:loose&from=1970-01-01T00:00:01%2B00:00&to=2000000000&limit=7&cursor=abc"
    assert (await house.ask("GET", path, token=viewer)).status == 200
    assert house.asked == [{"q": "is:loose", "from_": NS, "to": 2 * NS, "limit": 7, "cursor": "abc"}]


async def test_a_ledger_without_a_window_is_the_last_day(house: Any, viewer: str) -> None:
    await house.ask("GET", "/api/v1/ledger?bucket=1h&service=shop", token=viewer)
    assert house.asked == [{"what": "ledger", "args": (house.now - DAY, house.now, 3600.0, "shop")}]


MISTAKES = {
    "/api/v1/tasks?qq=x": "did you mean q?",
    "/api/v1/tasks?limit=0": "from 1 to 500",
    "/api/v1/tasks?limit=501": "from 1 to 500",
    "/api/v1/tasks?limit=%D9%A3": "from 1 to 500",
    "/api/v1/tasks?limit=1&limit=2": "more than once",
    "/api/v1/tasks?from=yesterday": "RFC 3339",
    "/api/v1/tasks?to=99999999999999999999": "RFC 3339",
    "/api/v1/tasks?q=nmae:x": "did you mean name:?",
    "/api/v1/tasks?q=name:%00": "control characters",
    "/api/v1/tasks?cursor=made-up": "none of ours",
    f"/api/v1/tasks/{TASK}?verbose=1": "unknown parameter",
    "/api/v1/ledger?bucket=5m": "one of 1m, 10m, 1h, 1d",
    "/api/v1/ledger?from=2000000000&to=1000000000": "before to",
    "/api/v1/ledger?from=1970-01-01T00:00:00Z&bucket=1m": "more than 1500 buckets",
    "/api/v1/incidents?state=close": "one of pending, open, resolved",
    "/api/v1?x=1": "unknown parameter",
}


@pytest.mark.parametrize("path", MISTAKES)
async def test_a_mistake_in_a_question_is_422_with_the_way_out(house: Any, viewer: str, path: str) -> None:
    reply = await house.ask("GET", path, token=viewer)
    assert (reply.status, reply.headers["content-type"]) == (422, "application/problem+json")
    assert MISTAKES[path] in reply.json["detail"]
    assert reply.json["errors"][0]["pointer"].startswith("/")


async def test_a_query_error_names_column_and_allowed_words(house: Any, viewer: str) -> None:
    entry = (await house.ask("GET", "/api/v1/tasks?q=is:open%20state:x", token=viewer)).json["errors"][0]
    assert (entry["pointer"], entry["column"], entry["allowed"][0]) == ("/q", 15, "scheduled")


MISSING = ["tasks/nonsense", f"tasks/{TASK}", f"tasks/{TASK}/history", "incidents/x", "notices/%00", "replays/x"]


@pytest.mark.parametrize("path", MISSING)
async def test_what_does_not_exist_is_404_in_words(house: Any, viewer: str, path: str) -> None:
    reply = await house.ask("GET", f"/api/v1/{path}", token=viewer)
    assert (reply.status, reply.json["status"], bool(reply.json["detail"])) == (404, 404, True)


async def test_unknown_paths_and_methods_are_problems_and_for_browsers_a_page(house: Any) -> None:
    nothing = await house.ask("GET", "/api/v1/nothing")
    assert (nothing.status, nothing.headers["content-type"]) == (404, "application/problem+json")
    method = await house.ask("DELETE", "/api/v1/tasks")
    assert (method.status, method.headers["allow"], method.json["status"]) == (405, "GET,HEAD", 405)
    page = await house.ask("GET", "/<b>", headers={"Accept": "text/html"})
    assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "/&lt;b&gt;" in page.text or "/%3Cb%3E" in page.text
    assert "<b>" not in page.text


async def test_the_root_lists_the_routes(house: Any, viewer: str) -> None:
    listed = (await house.ask("GET", "/api/v1", token=viewer)).json
    assert {"method": "GET", "path": "/api/v1/ledger", "role": "viewer"} in listed["routes"]


async def test_probes_answer_any_host_and_say_what_is_not_ready(house: Any) -> None:
    anywhere = {"Host": "10.0.0.9:80"}
    assert (await house.ask("GET", "/livez", headers=anywhere)).text == "ok\n"
    assert (await house.ask("GET", "/readyz", headers=anywhere)).status == 200
    house.not_ready = ["the detector has not run yet"]
    reply = await house.ask("GET", "/readyz", headers=anywhere)
    assert (reply.status, reply.text) == (503, "the detector has not run yet\n")


# --- acts ---------------------------------------------------------------------------------------------------------


async def replay(house: Any, operator: str, key: str | None = "key-0001", body: Any = None, path: str = REPLAY) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await house.ask("POST", path, token=operator, headers=headers, body=body)


async def test_a_replay_is_202_with_its_place(house: Any, operator: str) -> None:
    reply = await replay(house, operator, body={"note": "again", "args": {"a": 1}, "confirm": ["ran_before"]})
    assert (reply.status, reply.headers["location"], reply.json["id"]) == (202, "/api/v1/replays/rpl_1", "rpl_1")
    task_id, actor, wish = house.calls[0]
    assert (task_id, actor.name, actor.role) == (TASK, "grace", "operator")
    assert wish == {"note": "again", "args": {"a": 1}, "confirm": ["ran_before"]}


async def test_the_same_key_and_body_get_the_first_answer_and_act_once(house: Any, operator: str) -> None:
    first, second = await replay(house, operator), await replay(house, operator)
    assert (second.status, second.json, second.headers["location"]) == (202, first.json, first.headers["location"])
    assert second.headers["idempotency-replayed"] == "true" and "idempotency-replayed" not in first.headers
    assert len(house.calls) == 1


async def test_a_key_is_remembered_per_path_and_for_a_day(house: Any, operator: str) -> None:
    await replay(house, operator)
    await replay(house, operator, path=REPLAY.replace("0001", "0002"))
    assert len(house.calls) == 2
    house.now += DAY - 1
    await replay(house, operator)
    assert len(house.calls) == 2
    house.now += 1
    await replay(house, operator)
    assert len(house.calls) == 3


async def test_the_same_key_with_another_body_is_422(house: Any, operator: str) -> None:
    await replay(house, operator)
    reply = await replay(house, operator, body={"note": "other"})
    assert (reply.status, "another body" in reply.json["detail"], len(house.calls)) == (422, True, 1)


@pytest.mark.parametrize("key", [None, "", "short", "x" * 201, "with blank here", "é" * 9])
async def test_a_missing_or_misshapen_key_is_400(house: Any, operator: str, key: str | None) -> None:
    reply = await replay(house, operator, key=key)
    assert (reply.status, "8 to 200 visible characters" in reply.json["detail"], house.calls) == (400, True, [])


async def test_a_first_act_that_still_runs_is_409(house: Any, operator: str) -> None:
    house.hold = asyncio.Event()
    first = asyncio.ensure_future(replay(house, operator))
    async with asyncio.timeout(5):
        await house.reached.wait()
    reply = await replay(house, operator)
    assert (reply.status, reply.headers["retry-after"]) == (409, "1")
    house.hold.set()
    assert (await first).status == 202
    assert (await replay(house, operator)).status == 202
    assert len(house.calls) == 1


async def test_an_act_that_a_stop_cut_off_is_never_run_again_by_itself(house: Any, operator: str) -> None:
    import hashlib

    from looseends_daemon.store import acts

    nothing = hashlib.sha256(b"").digest()
    await house.write(lambda c: acts.begin_act(c, f"POST {REPLAY}", "key-0001", nothing, now=house.now - 1))
    reply = await replay(house, operator)
    assert (reply.status, "look whether it took effect" in reply.json["detail"], house.calls) == (409, True, [])


async def test_a_refusal_is_remembered_too(house: Any, operator: str) -> None:
    house.refusal = CommandRefused(409, "Not replayable now", ["nobody live registers it", "confirm ran_before"])
    first = await replay(house, operator)
    assert (first.status, first.json["title"]) == (409, "Not replayable now")
    assert [entry["detail"] for entry in first.json["errors"]] == house.refusal.reasons
    house.refusal = None
    assert (await replay(house, operator)).status == 409
    assert (await replay(house, operator, key="key-0002")).status == 202


async def test_a_busy_store_leaves_the_key_free(house: Any, operator: str) -> None:
    from looseends_daemon.store.connection import StoreBusy

    house.refusal = StoreBusy("full", hint="send it again")
    assert (await replay(house, operator)).status == 503
    house.refusal = None
    assert (await replay(house, operator)).status == 202


async def test_an_accident_inside_is_500_without_a_word_about_the_inside(house: Any, operator: str, caplog: Any) -> None:
    house.refusal = RuntimeError("SELECT secret FROM /var/lib")
    replies = [await replay(house, operator, key=f"key-000{n}") for n in range(3)]
    assert [reply.status for reply in replies] == [500] * 3
    assert all("secret" not in reply.text and "Traceback" not in reply.text for reply in replies)
    assert sum("secret" in (record.exc_text or str(record.exc_info)) for record in caplog.records) <= 1


BODIES = {
    '{"nte": "x"}': (422, "did you mean note?"),
    "[1]": (422, "is an object"),
    '{"note": 5}': (422, "/note"),
    '{"confirm": "x"}': (422, "/confirm"),
    '{"args": [1]}': (422, "/args"),
    '{"args": {"x": "' + "y" * 70_000 + '"}}': (422, "at most 65536"),
    '{"args": {"x": ' + "[" * 100 + "]" * 100 + "}}": (422, "deeper than"),
    "{": (400, "byte 1"),
}


@pytest.mark.parametrize("body", BODIES)
async def test_a_wish_that_cannot_be_read_is_refused_with_its_place(house: Any, operator: str, body: str) -> None:
    status, words = BODIES[body]
    reply = await replay(house, operator, body=body.encode())
    assert (reply.status, words in reply.text, house.calls) == (status, True, [])


async def test_a_form_acts_once_however_often_it_is_sent(house: Any) -> None:
    cookie = await house.session()
    body = f"csrf={await house.csrf(cookie)}&idempotency_key=form-key-1&note=hi"
    replies = [await house.ask("POST", "/tasks/7/replay", headers=cookie, body=body) for _ in range(2)]
    assert [(reply.status, reply.headers["location"]) for reply in replies] == [(303, "/tasks/done")] * 2
    assert [wish["note"] for _, _, wish in house.calls] == ["hi"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ("csrf={csrf}", "application/x-www-form-urlencoded", 400),
        ("csrf={csrf}&idempotency_key=12345678&note=%ff", "application/x-www-form-urlencoded", 303),
        ("csrf={csrf}&idempotency_key=12345678" + "&a=b" * 200, "application/x-www-form-urlencoded", 400),
        ("csrf={csrf}&idempotency_key=12345678", "application/x-www-form-urlencoded; charset=utf-7", 415),
        ("csrf={csrf}&idempotency_key=12345678", "application/x-www-form-urlencoded; charset=nonsense", 415),
        ("csrf={csrf}&idempotency_key=12345678", "text/plain", 415),
        ("csrf={csrf}&idempotency_key=12345678", "multipart/form-data; boundary=x", 415),
    ],
)
async def test_a_form_is_taken_in_one_shape(house: Any, body: str, kind: str, status: int) -> None:
    cookie = await house.session()
    body = body.replace("{csrf}", await house.csrf(cookie))
    reply = await house.ask("POST", "/tasks/7/replay", headers={**cookie, "Content-Type": kind}, body=body)
    assert reply.status == status, reply.text


DISMISS = f"/api/v1/tasks/{TASK}/dismiss"


async def test_a_dismissal_reaches_the_command_with_its_note_and_answers_with_the_task(house: Any, operator: str) -> None:
    key = {"Idempotency-Key": "dismiss-1"}
    reply = await house.ask("POST", DISMISS, token=operator, headers=key, body={"note": "known since Monday"})
    assert (reply.status, reply.json["id"], reply.json["settled"]) == (200, TASK, "dismissed")
    again = await house.ask("POST", DISMISS, token=operator, headers=key, body={"note": "known since Monday"})
    assert again.headers["idempotency-replayed"] == "true"
    [(task, actor, said)] = house.calls
    assert (task, actor.name, said) == (TASK, "grace", {"note": "known since Monday"})


async def test_a_dismissal_needs_an_operator_and_an_idempotency_key(house: Any, viewer: str, operator: str) -> None:
    assert (await house.ask("POST", DISMISS, token=viewer, body={"note": "x"})).status == 403
    assert (await house.ask("POST", DISMISS, token=operator, body={"note": "x"})).status == 400
    assert house.calls == []


@pytest.mark.parametrize(
    ("body", "pointer"), [({"note": 7}, "/note"), ({"nota": "x"}, "/nota"), ([], ""), ({"note": "a\0"}, "/note")]
)
async def test_a_dismissal_that_cannot_be_read_is_422_with_the_place(house: Any, operator: str, body: Any, pointer: str) -> None:
    reply = await house.ask("POST", DISMISS, token=operator, headers={"Idempotency-Key": "dismiss-1"}, body=body)
    assert (reply.status, reply.json["errors"][0]["pointer"]) == (422, pointer)


async def test_a_refused_dismissal_says_why(house: Any, operator: str) -> None:
    house.refusal = CommandRefused(409, "Nothing to dismiss", ["it is settled already: replayed"])
    reply = await house.ask("POST", DISMISS, token=operator, headers={"Idempotency-Key": "dismiss-1"}, body={"note": "x"})
    assert (reply.status, reply.json["detail"]) == (409, "it is settled already: replayed")


async def test_a_list_of_instances_does_not_pretend_that_they_offer_nothing(
    house: Any, viewer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Instance(id="i-1", service="shop", environment="production", state="alive")

    async def instances(**place: Any) -> Page[Instance]:
        return Page(items=[found])

    monkeypatch.setattr(type(house.context.reader), "instances", staticmethod(instances), raising=False)
    [item] = (await house.ask("GET", "/api/v1/instances", token=viewer)).json["items"]
    assert item["id"] == "i-1" and "functions" not in item


async def test_a_missing_page_is_told_to_a_person_without_a_word_of_the_api(house: Any) -> None:
    browser = {"Accept": "text/html"}
    for method, path, status in (("GET", "/taks", 404), ("PUT", "/sign-in", 405)):
        reply = await house.ask(method, path, headers=browser)
        assert (reply.status, "/api/" in reply.text) == (status, False), reply.text
    assert "GET /api/v1 lists what is" in (await house.ask("GET", "/taks")).json["detail"]
