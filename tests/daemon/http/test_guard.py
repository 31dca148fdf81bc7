"""Who may pass which door: a matrix over every route, every method and every way of not being allowed."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from looseends_daemon import app
from looseends_daemon.config.settings import Server
from looseends_daemon.core.routing import Route
from looseends_daemon.http import guard
from looseends_daemon.http.answers import Limits
from looseends_daemon.http.errors import ProblemError
from looseends_daemon.http.guard import GuardRules, check_host, check_site, is_loopback, name_of
from looseends_daemon.http.server import make_app

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
EVIL = "evil.example"
FROM_A_SITE = {
    "cross-site fetch": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"},
    "cross-site image": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    "cross-site frame": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    "fetch from another port": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    "fetch of an unknown kind": {"Sec-Fetch-Site": "sibling", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    "old browser's form": {"Origin": f"http://{EVIL}"},
    "form without a referrer": {"Origin": "null"},
    "form from another port": {"Origin": "http://127.0.0.1:1"},
}
CROSS_SITE_FORM = {
    "Sec-Fetch-Site": "cross-site",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Origin": f"http://{EVIL}",
}
WRONG_ROLES = {"viewer": ("ingest",), "operator": ("viewer", "ingest"), "ingest": ("viewer", "operator")}
OPEN = {"/livez", "/readyz", "/sign-in", "/sign-in/{code}", "/static/{hash}/{name}"}
"""The doors that stand open to everybody on this machine. A new one has to be written down here."""
ANY_HOST = {"/livez", "/readyz"}


def path_of(route: Route) -> str:
    return re.sub(r"\{\w+\}", lambda _: str(uuid.uuid4()), route.path)


def refused(reply: Any) -> bool:
    """Whether the guard asked for a right: not allowed, or sent to the sign-in page."""
    to_sign_in = reply.status == 303 and reply.headers.get("location", "").startswith("/sign-in")
    return reply.status in (401, 403) or to_sign_in


async def credentials(house: Any, route: Route) -> dict[str, str]:
    """The best this route could wish for, so that only the attack can be the reason of a refusal."""
    if route.page:
        cookie: dict[str, str] = await house.session()
        return cookie
    role = "ingest" if route.role == "ingest" else "operator"
    return {"Authorization": f"Bearer {await house.token(role, 'shop' if role == 'ingest' else None)}"}


def attacks(route: Route, port: int) -> Iterator[tuple[str, str, dict[str, str], int]]:
    """(name, method, headers, the one right answer) of everything another site could send through a browser.

    A method that a path does not have is refused for the same reason as the others, before anybody looks whether it exists.
    """
    for method in METHODS:
        if route.path not in ANY_HOST:
            yield "bad Host", method, {"Host": EVIL}, 421
            yield "no Host", method, {"Host": ""}, 421
            same = {"Host": f"{EVIL}:{port}", "Origin": f"http://{EVIL}:{port}", "Sec-Fetch-Site": "same-origin"}
            yield "rebinding", method, same, 421
        for name, headers in FROM_A_SITE.items():
            yield name, method, headers, 403
        if method != "GET" or not route.page:
            yield "cross-site navigation", method, CROSS_SITE_FORM, 403


async def breaches(house: Any, routes: list[Route]) -> list[str]:
    """Every door that let somebody pass who should not have."""
    found = []
    for route in routes:
        path, good = path_of(route), await credentials(house, route)
        for name, method, headers, right in attacks(route, house.tcp[1]):
            reply = await house.ask(method, path, headers={**good, **headers})
            if reply.status != right:
                found.append(f"{method} {route.path}: {name} got {reply.status}")
        async for name, headers in _without_right(house, route):
            reply = await house.ask(route.method, path, headers=headers)
            if not refused(reply):
                found.append(f"{route.method} {route.path}: {name} got {reply.status}")
    return found


async def _without_right(house: Any, route: Route) -> Any:
    """(name, headers) of callers that lack the role, from this machine and this site."""
    if route.path in OPEN:
        return
    yield "a wrong token", {"Authorization": "Bearer op_0000000000.wrong"}
    yield "another scheme", {"Authorization": "Basic b3A6b3A="}
    yield "a made-up session", {"Cookie": f"looseends_session_{house.tcp[1]}=made-up"} if route.role != "ingest" else {"Via": "x"}
    for header in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-FORWARDED-PROTO", "Via", "X-Real-IP"):
        yield f"forwarded by {header}", {header: "for=127.0.0.1"}
    for role in WRONG_ROLES.get(route.role, ("viewer",)):
        token = await house.token(role, "shop" if role == "ingest" else None)
        yield f"the role {role}", {"Authorization": f"Bearer {token}"}
    if route.role != "ingest" and not route.local:
        yield "no token", {}


def served(house: Any) -> list[Route]:
    """The route table this server was made from."""
    routes: list[Route] = house.routes
    return routes


async def test_every_door_refuses_everybody_it_should(make_house: Any) -> None:
    house = await make_house(routes=app.all_routes)
    assert len(served(house)) > 30
    assert await breaches(house, served(house)) == []


async def test_the_doors_that_stand_open_are_those_written_down(make_house: Any) -> None:
    house = await make_house(routes=app.all_routes)
    assert {route.path for route in served(house) if route.role == "open"} == OPEN


async def test_without_a_token_loopback_sends_events_and_nothing_else(house: Any) -> None:
    passed = {
        f"{route.method} {route.path}" for route in served(house) if not refused(await house.ask(route.method, path_of(route)))
    }
    ingest = {f"{route.method} {route.path}" for route in served(house) if route.role == "ingest"}
    assert ingest <= passed
    assert passed - ingest == {"GET /livez", "GET /readyz", "GET /sign-in", "POST /sign-in"}


async def test_closed_loopback_asks_for_a_token_everywhere(make_house: Any) -> None:
    house = await make_house(loopback_ingest="token")
    for route in served(house):
        if route.role == "ingest":
            assert (await house.ask(route.method, path_of(route))).status == 401
    assert (await house.ask("POST", "/api/v1/events", token=await house.token("ingest", "s"), body=[])).status == 200
    assert (await house.ask("POST", "/api/v1/events", body=[], unix=True)).status == 200


async def test_a_planted_open_door_fails_the_matrix(make_house: Any, all_routes: Any) -> None:
    async def leak(request: web.Request) -> web.Response:
        return web.json_response({"secret": 1})

    planted = Route(method="GET", path="/api/v1/secret", role="open", handler=leak)
    house = await make_house(routes=lambda context: [*all_routes(context), planted])
    found = await breaches(house, [planted])
    assert any("no token" in line for line in found) and any("a wrong token" in line for line in found)


async def test_a_guard_that_forgets_one_method_fails_the_matrix(make_house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = check_site

    def forgetful(method: str, *rest: Any) -> None:
        if method != "DELETE":
            real(method, *rest)

    monkeypatch.setattr(guard, "check_site", forgetful)
    house = await make_house()
    found = await breaches(house, [route for route in served(house) if route.method == "DELETE"])
    assert found and all(line.startswith("DELETE") for line in found)


async def test_a_guard_that_forgets_the_host_fails_the_matrix(make_house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "check_host", lambda *_: None)
    house = await make_house()
    found = await breaches(house, [route for route in served(house) if route.path == "/api/v1/tasks"])
    assert any("rebinding" in line for line in found)


def test_a_route_without_a_known_role_cannot_be_served() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response()

    with pytest.raises(TypeError, match="role"):
        Route(method="GET", path="/x", handler=handler)  # type: ignore[call-arg]
    context: Any = SimpleNamespace(limits=Limits())
    with pytest.raises(ValueError, match="roles are open, ingest, viewer, operator"):
        make_app([Route(method="GET", path="/x", role="everyone", handler=handler)], context)


async def test_a_link_in_a_message_opens_a_page_but_no_data(house: Any) -> None:
    cookie = await house.session()
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert (await house.ask("GET", "/", headers={**cookie, **link})).status == 200
    assert (await house.ask("GET", "/api/v1/tasks", headers={**cookie, **link})).status == 403
    assert (await house.ask("HEAD", "/", headers={**cookie, **link})).status == 403


async def test_another_services_token_may_not_touch_an_instance(house: Any) -> None:
    shop, bank = await house.token("ingest", "shop"), await house.token("ingest", "bank")
    batch: dict[str, Any] = {"instance": {"id": "i-1", "service": "shop"}, "events": []}
    assert (await house.ask("POST", "/api/v1/events", token=shop, body=batch)).status == 200
    checked = 0
    for route in served(house):
        if route.role == "ingest" and "/instances/{id}" in route.path:
            path = route.path.replace("{id}", "i-1")
            reply = await house.ask(route.method, path, token=bank, body={} if route.method != "GET" else None)
            assert reply.status in (403, 422), (path, reply.text)
            checked += 1
    assert (await house.ask("POST", "/api/v1/events", token=bank, body=batch)).status == 403
    assert checked >= 3


async def test_a_revoked_token_opens_nothing_a_second_later(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from looseends_daemon.http import access as http_access
    from looseends_daemon.store.access import revoke_token

    token = await house.token("viewer")
    assert (await house.ask("GET", "/api/v1/tasks", token=token)).status == 200
    await house.write(lambda conn: revoke_token(conn, token.partition(".")[0], now=house.now))
    monkeypatch.setattr(http_access, "TOKEN_S_MAX", 0.0)  # what a second does to the kept answer
    assert (await house.ask("GET", "/api/v1/tasks", token=token)).status == 401


async def test_the_order_key_is_no_part_of_the_proof(house: Any) -> None:
    token = await house.token("ingest", "shop")
    first_two = token.rpartition(".")[0]
    assert (await house.ask("POST", "/api/v1/events", token=first_two, body=[])).status == 200


async def test_a_wrong_token_is_said_and_not_replaced_by_what_loopback_may_do(house: Any) -> None:
    reply = await house.ask("POST", "/api/v1/events", token="in_0000000000.wrong", body=[])
    assert (reply.status, "is not valid" in reply.json["detail"]) == (401, True)
    assert "looseends token create" in reply.json["detail"] and "<database>.token" in reply.json["detail"]
    assert reply.headers["www-authenticate"].startswith("Bearer")


async def test_a_visitor_without_a_session_is_led_to_the_sign_in_page_and_back(house: Any) -> None:
    reply = await house.ask("GET", "/?q=is:loose&x=1")
    assert (reply.status, reply.headers["location"]) == (303, "/sign-in?next=/%3Fq%3Dis%3Aloose%26x%3D1")
    act = await house.ask("POST", "/tasks/7/replay", body="a=b")
    assert (act.status, act.headers["location"]) == (303, "/sign-in?next=/")


async def test_every_answer_carries_the_security_headers(house: Any) -> None:
    page, data = await house.ask("GET", "/", headers=await house.session()), await house.ask("GET", "/api/v1/tasks")
    nothing, broken = await house.ask("GET", "/nowhere"), await house.raw(b"\x16\x03\x01 no http\r\n\r\n")
    for reply in (page, data, nothing, broken):
        assert reply.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert reply.headers["cross-origin-opener-policy"] == "same-origin"
        assert reply.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in reply.headers
        assert "aiohttp" not in reply.headers.get("server", "").lower()
    assert (page.headers["referrer-policy"], data.headers["referrer-policy"]) == ("same-origin", "no-referrer")


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        *((name, True) for name in ("localhost", "LOCALHOST:3637", "127.0.0.1", "[::1]:3637", "localhost.", "10.1.2.3:80")),
        *((name, True) for name in ("ends.example.org", "looseends.lan:8080")),
        *((name, False) for name in ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "0.0.0.0", "", "10.1.2.4")),
        *((name, False) for name in ("localhost:x", "[::1", "127.0.0.1, evil.example", "a@localhost", "ends.example.org.evil")),
    ],
)
def test_the_host_must_be_a_name_of_ours(host: str, passes: bool) -> None:
    rules = GuardRules.of(Server(allowed_hosts=("Looseends.lan",), external_url="https://ends.example.org/x"))
    try:
        check_host(host, "/api/v1/tasks", "10.1.2.3", rules)
    except ProblemError as problem:
        assert (problem.status, passes, "allowed_hosts in [server]" in problem.detail) == (421, False, True)
    else:
        assert passes


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "http://127.0.0.1:3637", "Host": "127.0.0.1:3637"}, True),
        ({"Origin": "https://ends.example.org", "Host": "127.0.0.1:3637"}, True),
        ({"Origin": "https://ends.example.org.evil", "Host": "127.0.0.1:3637"}, False),
        ({"Origin": "ftp://127.0.0.1:3637", "Host": "127.0.0.1:3637"}, False),
        ({"Origin": "null", "Host": "null"}, False),
        ({"Origin": "", "Host": ""}, False),
        ({"Sec-Fetch-Site": "Same-Origin"}, False),
        ({"Sec-Fetch-Site": ""}, False),
    ],
)
def test_another_site_is_known_by_what_the_browser_says(headers: dict[str, str], passes: bool) -> None:
    rules = GuardRules.of(Server(external_url="https://ends.example.org"))
    try:
        check_site("POST", headers, True, rules)
    except ProblemError as problem:
        assert (problem.status, passes) == (403, False)
    else:
        assert passes


@pytest.mark.parametrize(
    ("address", "answer"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("fe80::1%lo", False)]
    + [("10.0.0.1", False), ("0.0.0.0", False), ("::", False), ("localhost", False), ("", False)],
)
def test_loopback_is_an_address_and_not_a_name(address: str, answer: bool) -> None:
    assert is_loopback(address) is answer


def test_a_host_header_is_one_name() -> None:
    names: dict[str, str] = {"A.example:1": "a.example", "[::1]": "::1", "[fe80::1]:80": "fe80::1", "a:b:c": "a:b:c", " x ": "x"}
    assert {host: name_of(host) for host in names} == names


async def test_an_absolute_request_target_is_refused(house: Any) -> None:
    port = house.tcp[1]
    sent = f"GET http://{EVIL}/livez HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    assert (await house.raw(sent.encode())).status == 400
