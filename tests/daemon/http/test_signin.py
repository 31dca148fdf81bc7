"""Signing in and out, over raw HTTP: tokens, one-use links, cookies, form tokens."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from looseends.wire import NS
from looseends_daemon.http.signin import Failures, safe_next
from looseends_daemon.store import access
from looseends_daemon.store.schema import StoreError, migrate
from looseends_daemon.store.token_file import ensure_operator_token, token_path


def read(path: str) -> str:
    return Path(path).read_text().strip()


def make(path: str, text: str) -> None:
    Path(path).write_text(text)
    os.chmod(path, 0o600)


async def link(house: Any, name: str = "") -> str:
    token = await house.token("operator", name=name)
    return str(await house.write(lambda c: access.make_link(c, token.partition(".")[0], now=house.now)))


async def test_a_token_becomes_a_session_that_opens_pages_and_data(house: Any) -> None:
    token = await house.token("operator", name="ada")
    reply = await house.ask("POST", "/sign-in", body=f"token={token}&next=/tasks?q=is:loose")
    assert (reply.status, reply.headers["location"]) == (303, "/tasks?q=is:loose")
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith(f"looseends_session_{house.tcp[1]}=")
    assert all(words in cookie for words in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=604800"))
    assert "Secure" not in cookie and token not in cookie
    signed_in = {"Cookie": cookie.partition(";")[0]}
    assert "hello ada" in (await house.ask("GET", "/", headers=signed_in)).text
    assert (await house.ask("GET", "/api/v1/tasks", headers=signed_in)).status == 200
    again = await house.ask("GET", "/sign-in?next=/tasks", headers=signed_in)
    assert (again.status, again.headers["location"]) == (303, "/tasks")


async def test_no_secret_is_kept_in_clear_but_the_order_key(house: Any) -> None:
    token = await house.token("ingest", "shop")
    cookie, code = await house.session(), await link(house)
    kept = str([await house.rows(f"SELECT * FROM {table}") for table in ("token", "session", "signin_link", "audit")])
    token_id, secret, order_key = token.split(".")
    assert token_id in kept and order_key in kept
    assert not any(hidden in kept for hidden in (secret, code, cookie["Cookie"].partition("=")[2]))


async def test_pages_take_a_bearer_token_as_well(house: Any) -> None:
    reply = await house.ask("GET", "/", token=await house.token("viewer", name="ada"))
    assert (reply.status, reply.text) == (200, "hello ada csrf=")


async def test_a_link_signs_in_once(house: Any) -> None:
    code = await link(house)
    assert (await house.ask("HEAD", f"/sign-in/{code}")).status == 200  # a preview takes nothing
    first, second = await house.ask("GET", f"/sign-in/{code}"), await house.ask("GET", f"/sign-in/{code}")
    assert (first.status, first.headers["location"], second.status) == (303, "/", 401)
    assert "used already" in second.text and "set-cookie" not in second.headers


async def test_a_used_link_leads_on_who_is_signed_in_already(house: Any) -> None:
    code = await link(house)
    first = await house.ask("GET", f"/sign-in/{code}")
    signed_in = {"Cookie": first.headers["set-cookie"].partition(";")[0]}
    again = await house.ask("GET", f"/sign-in/{code}", headers=signed_in)
    assert (again.status, again.headers["location"]) == (303, "/")
    await house.ask("POST", "/sign-out", headers=signed_in, body=f"csrf={await house.csrf(signed_in)}")
    assert (await house.ask("GET", f"/sign-in/{code}", headers=signed_in)).status == 401


async def test_a_link_ends_after_an_hour_and_with_its_token(house: Any) -> None:
    old, gone = await link(house), await link(house, "gone")
    await house.write(lambda c: [access.revoke_token(c, t.id, now=house.now) for t in access.tokens(c) if t.name == "gone"])
    assert (await house.ask("GET", f"/sign-in/{gone}")).status == 401
    house.now += access.LINK_S_MAX * NS
    assert (await house.ask("GET", f"/sign-in/{old}")).status == 401


async def test_a_session_ends_after_a_week_and_with_its_token(house: Any) -> None:
    cookie, other = await house.session(), await house.session("viewer")
    await house.write(lambda c: [access.revoke_token(c, t.id, now=1) for t in access.tokens(c) if t.role == "viewer"])
    assert (await house.ask("GET", "/", headers=other)).status == 303
    assert (await house.ask("GET", "/", headers=cookie)).status == 200
    house.now += access.SESSION_S_MAX * NS
    assert (await house.ask("GET", "/", headers=cookie)).status == 303


async def test_signing_out_ends_the_session_on_the_server(house: Any) -> None:
    cookie = await house.session()
    csrf = await house.csrf(cookie)
    reply = await house.ask("POST", "/sign-out", headers=cookie, body=f"csrf={csrf}")
    assert (reply.status, reply.headers["location"]) == (303, "/sign-in")
    assert "Max-Age=0" in reply.headers["set-cookie"]
    assert (await house.ask("GET", "/", headers=cookie)).status == 303


@pytest.mark.parametrize("field", ["", "csrf=", "csrf=%00", "csrf=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"])
async def test_a_form_without_its_sessions_token_does_nothing(house: Any, field: str) -> None:
    cookie = await house.session()
    reply = await house.ask("POST", "/tasks/7/replay", headers=cookie, body=f"{field}&idempotency_key=12345678")
    assert (reply.status, "The form is out of date</h1>" in reply.text, house.calls) == (403, True, [])


async def test_the_form_token_of_another_session_does_not_help(house: Any) -> None:
    mine, other = await house.session(), await house.session()
    body = f"csrf={await house.csrf(other)}&idempotency_key=12345678"
    assert (await house.ask("POST", "/tasks/7/replay", headers=mine, body=body)).status == 403


async def test_who_is_signed_in_can_sign_in_as_somebody_else(house: Any) -> None:
    cookie = await house.session("viewer")
    reply = await house.ask("POST", "/sign-in", headers=cookie, body=f"token={await house.token('operator')}")
    assert reply.status == 303 and "set-cookie" in reply.headers


async def test_an_ingest_token_signs_nobody_in(house: Any) -> None:
    reply = await house.ask("POST", "/sign-in", body=f"token={await house.token('ingest', 'shop')}")
    assert (reply.status, "token of a service" in reply.text, "set-cookie" in reply.headers) == (403, True, False)


async def test_wrong_tries_are_audited_limited_and_do_not_lock_out_who_has_the_token(house: Any) -> None:
    replies = [await house.ask("POST", "/sign-in", body="token=op_1.wrong") for _ in range(12)]
    assert [reply.status for reply in replies] == [401] * 10 + [429] * 2
    assert replies[-1].headers["retry-after"] == "60"
    audited = await house.rows("SELECT actor, act FROM audit")
    assert audited == [{"actor": "127.0.0.1", "act": "sign_in_refused"}] * 10
    assert await house.session()
    house.now += 60 * NS
    assert (await house.ask("POST", "/sign-in", body="token=x")).status == 401


async def test_signing_in_and_out_is_audited_with_who_and_how(house: Any) -> None:
    token = await house.token("viewer", name="ada")
    cookie = {"Cookie": (await house.ask("POST", "/sign-in", body=f"token={token}")).headers["set-cookie"].partition(";")[0]}
    await house.ask("POST", "/sign-out", headers=cookie, body=f"csrf={await house.csrf(cookie)}")
    rows = await house.rows("SELECT actor, act, subject, detail FROM audit")
    token_id = token.partition(".")[0]
    assert rows == [
        {"actor": "ada", "act": "sign_in", "subject": token_id, "detail": "token"},
        {"actor": "ada", "act": "sign_out", "subject": token_id, "detail": ""},
    ]


async def test_behind_https_the_cookie_is_secure_and_on_loopback_it_still_works(make_house: Any) -> None:
    house = await make_house(external_url="https://ends.example.org/looseends")
    body = f"token={await house.token('viewer')}"
    published = await house.ask("POST", "/sign-in", body=body, headers={"Host": "ends.example.org"})
    assert "Secure" in published.headers["set-cookie"]
    assert "Secure" not in (await house.ask("POST", "/sign-in", body=body)).headers["set-cookie"]


async def test_over_the_unix_socket_the_cookie_has_its_own_name(house: Any) -> None:
    reply = await house.ask("POST", "/sign-in", body=f"token={await house.token('viewer')}", unix=True)
    assert reply.headers["set-cookie"].startswith("looseends_session_unix=")


@pytest.mark.parametrize(
    ("target", "safe"),
    [("/tasks?q=is:loose", True), ("/", True), ("//evil.example", False), ("/\\evil.example", False)]
    + [("https://e.example", False), ("", False), ("tasks", False), ("/a\r\nSet-Cookie: x=y", False)]
    + [("/a b", False), ("/" + "a" * 3_000, False), ("/é", False)],
)
def test_after_signing_in_nobody_is_led_elsewhere(target: str, safe: bool) -> None:
    assert safe_next(target) == (target if safe else "/")


def test_counted_addresses_are_bounded() -> None:
    failures = Failures()
    assert [failures.count("a", 0), failures.count("a", 59 * NS), failures.count("a", 60 * NS)] == [1, 2, 1]
    for number in range(5_000):
        failures.count(str(number), 0)
    assert len(failures._seen) == 1_000


async def test_the_operator_token_is_made_once_beside_the_database_for_its_user_alone(house: Any) -> None:
    path = token_path(house.database.path)
    first = await house.write(lambda c: ensure_operator_token(c, path, now=1))
    assert await house.write(lambda c: ensure_operator_token(c, path, now=2)) == first
    assert os.stat(path).st_mode & 0o777 == 0o600
    text = read(path)
    assert (await house.ask("GET", "/", token=text)).text == "hello operator csrf="


async def test_removing_the_token_file_changes_the_token(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = token_path(house.database.path)
    first = await house.write(lambda c: ensure_operator_token(c, path, now=1))
    os.unlink(path)
    second = await house.write(lambda c: ensure_operator_token(c, path, now=2))
    ended = await house.rows("SELECT id FROM token WHERE revoked_at = 2")
    assert (second != first, ended) == (True, [{"id": first}])


@pytest.mark.parametrize("what", ["open to others", "does not hold a token", "plain file", "no longer holds"])
async def test_a_token_file_that_is_not_only_ours_is_refused_with_the_way_out(house: Any, what: str, tmp_path: Any) -> None:
    path = str(tmp_path / "t")
    make(path, "nonsense" if what == "does not hold a token" else "op_1.secret")
    if what == "open to others":
        os.chmod(path, 0o644)
    if what == "plain file":
        os.symlink(path, path + "2")
        path += "2"
    if what == "no longer holds":
        token_id = await house.write(lambda c: ensure_operator_token(c, path, now=1))
        await house.write(lambda c: access.revoke_token(c, token_id, now=2))
    with pytest.raises(StoreError) as caught:
        await house.write(lambda c: ensure_operator_token(c, path, now=3))
    assert what in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint


async def test_tokens_can_be_made_on_the_file_while_the_daemon_runs(house: Any) -> None:
    with access.offline(house.database.path) as conn:
        token = access.create_token(conn, role="viewer", service=None, name="ada", now=1)
    assert (await house.ask("GET", "/", token=token)).status == 200
    with access.offline(house.database.path) as conn:
        assert [t.name for t in access.tokens(conn)] == ["ada"]
        assert access.has_made_tokens(conn)
        assert access.revoke_token(conn, token.partition(".")[0], now=2)
        assert not access.revoke_token(conn, token.partition(".")[0], now=2)
        assert not access.has_made_tokens(conn)


@pytest.mark.parametrize(
    ("role", "service", "words"),
    [("admin", None, "no role"), ("ingest", None, "one service"), ("ingest", "", "one service"), ("viewer", "s", "one service")],
)
def test_a_token_of_no_kind_is_refused(role: str, service: str | None, words: str) -> None:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    migrate(conn)
    with pytest.raises(StoreError, match=words) as caught:
        access.create_token(conn, role=role, service=service, name="", now=1)
    assert caught.value.hint
    conn.close()


@pytest.mark.parametrize("content", [None, b"", b"hello", b"SQLite format 3\0" + b"\0" * 200])
def test_offline_never_touches_a_file_that_is_not_ours(tmp_path: Any, content: bytes | None) -> None:
    path = tmp_path / "x.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError) as caught, access.offline(str(path)):
        raise AssertionError("it was opened")
    assert caught.value.hint
    assert (path.read_bytes() if path.exists() else None) == content
    assert len(list(tmp_path.iterdir())) == (content is not None)


async def test_the_audit_log_is_never_edited_or_cut(house: Any) -> None:
    await house.write(lambda c: access.audit(c, 1, "ada", "replay", "t1", "note"))
    for sql in ("UPDATE audit SET actor = 'bob'", "DELETE FROM audit"):
        with pytest.raises(Exception, match="append-only"):
            await house.write(lambda c, sql=sql: c.execute(sql))
    assert (await house.rows("SELECT actor FROM audit")) == [{"actor": "ada"}]
