"""What one sender can take of the server: time, bytes, connections, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest
from aiohttp import web

from looseends_daemon.core.routing import Route
from looseends_daemon.http.answers import Limits
from looseends_daemon.http.quiet import OnceAMinute

QUICK = Limits(idle_s_max=0.2, body_s_max=0.2)


async def read_to_end(house: Any, sent: bytes) -> bytes:
    """What comes back until the server closes, with the connection left open by us."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(*house.tcp)
        writer.write(sent)
        try:
            return await reader.read()
        finally:
            writer.close()


async def test_who_never_ends_a_header_is_closed(make_house: Any) -> None:
    house = await make_house(limits=QUICK)
    assert await read_to_end(house, b"GET /livez HTTP/1.1\r\nHost: x") == b""
    assert await read_to_end(house, b"") == b""


async def test_many_who_send_a_header_byte_by_byte_are_all_swept(make_house: Any) -> None:
    house = await make_house(limits=Limits(idle_s_max=0.5))
    slow = [await asyncio.open_connection(*house.tcp) for _ in range(200)]
    assert len(house.listener._runner.server.connections) == len(slow)
    async with asyncio.timeout(5):
        while house.listener._runner.server.connections:
            for _, writer in slow:
                if not writer.is_closing():
                    writer.write(b"G")
            await asyncio.sleep(0.05)
    for _, writer in slow:
        writer.close()


async def test_who_never_ends_a_body_gets_408(make_house: Any) -> None:
    house = await make_house(limits=QUICK)
    head = f"POST /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1:{house.tcp[1]}\r\nContent-Type: application/json\r\n"
    answer = await read_to_end(house, f"{head}Content-Length: 10\r\n\r\n[".encode())
    assert answer.startswith(b"HTTP/1.1 408 ") and b"within 0.2 s" in answer


@pytest.fixture
def large(all_routes: Any) -> Any:
    """The usual routes and one with an answer larger than any buffer on the way."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * (32 << 20))

    return lambda context: [*all_routes(context), Route(method="GET", path="/large", role="open", handler=answer)]


async def test_who_takes_nothing_of_an_answer_is_hung_up_on(make_house: Any, large: Any) -> None:
    house = await make_house(limits=QUICK, routes=large)
    server = house.listener._runner.server
    with socket.create_connection(house.tcp) as slow:
        slow.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(slow, b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(5):
            while not server.requests_count or server.connections:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)


async def test_who_takes_an_answer_slowly_gets_all_of_it(make_house: Any, large: Any) -> None:
    house = await make_house(limits=QUICK, routes=large)
    taken = 0
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*house.tcp, limit=1 << 16)
        writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while data := await reader.read(1 << 20):
            taken += len(data)
            await asyncio.sleep(0.01 if taken > 4 << 20 else 0.02)  # in all well over idle_s_max
        writer.close()
    assert taken > 32 << 20


async def test_of_bodies_that_take_too_much_room_the_slowest_is_cut_off(make_house: Any) -> None:
    house = await make_house(limits=Limits(arriving_bytes_max=1_000))
    head = f"POST /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1:{house.tcp[1]}\r\nContent-Type: application/json\r\n"
    head += "Connection: close\r\nContent-Length: 600\r\n\r\n["
    async with asyncio.timeout(5):
        slow, fast = [await asyncio.open_connection(*house.tcp) for _ in range(2)]
        for _, writer in (slow, fast):
            writer.write(head.encode())
            await asyncio.sleep(0.05)
        answer = await slow[0].read()
        assert answer.startswith(b"HTTP/1.1 408 ") and b"others needed its room" in answer
        fast[1].write(b"]" + b" " * 598)
        assert (await fast[0].read()).startswith(b"HTTP/1.1 200 ")
        for _, writer in (slow, fast):
            writer.close()


async def test_a_body_without_an_announced_length_is_cut_at_the_limit(house: Any) -> None:
    head = f"POST /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1:{house.tcp[1]}\r\nContent-Type: application/json\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = f"{head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunk * 20 + b"0\r\n\r\n"
    assert (await house.raw(sent)).status == 413


async def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order(house: Any) -> None:
    host = f"Host: 127.0.0.1:{house.tcp[1]}\r\n"
    sent = f"GET /livez HTTP/1.1\r\n{host}\r\nGET /nothing HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
    answer = await read_to_end(house, sent.encode())
    assert [line.split(b" ")[1] for line in answer.split(b"HTTP/1.1")[1:]] == [b"200", b"404"]


async def test_a_connection_too_many_is_told_so_and_the_others_go_on(make_house: Any) -> None:
    house = await make_house(limits=Limits(connections_max=2))
    kept = [await asyncio.open_connection(*house.tcp) for _ in range(2)]
    # The server counts a connection once it was asked something on it.
    for reader, writer in kept:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    answer = await read_to_end(house, b"")
    assert answer.startswith(b"HTTP/1.1 503 ") and answer.endswith(b'"detail":"try again in a second"}')
    kept[0][1].write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    for _, writer in kept:
        writer.close()


NO_REQUESTS = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a header of 9 kB": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9_000 + b"\r\n\r\n",
    "a path of 9 kB": b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "500 headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: local\0host\r\n\r\n",
    "two hosts": b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_REQUESTS)
async def test_bytes_that_are_no_request_get_a_problem_and_never_500(house: Any, name: str, caplog: Any) -> None:
    reply = await house.raw(NO_REQUESTS[name])
    assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json"), reply.text
    assert "x-content-type-options" in reply.headers
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("path", ["/api/v1/events", "/nothing"])
async def test_an_expectation_nobody_knows_is_refused_like_everything_else(house: Any, path: str) -> None:
    reply = await house.ask("POST", path, body=[], headers={"Expect": "200-maybe"})
    assert (reply.status, reply.json["status"], "100-continue" in reply.json["detail"]) == (417, 417, True)
    assert (reply.headers["content-type"], reply.headers["x-content-type-options"]) == ("application/problem+json", "nosniff")


async def test_who_waits_for_100_continue_is_told_to_go_on(house: Any) -> None:
    head = f"POST /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1:{house.tcp[1]}\r\nContent-Type: application/json\r\n"
    sent = f"{head}Connection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n[]"
    answer = await read_to_end(house, sent.encode())
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


async def test_a_broken_body_that_nobody_reads_is_no_accident_of_the_daemon(house: Any, caplog: Any) -> None:
    sent = {"Content-Encoding": "gzip", "Connection": "keep-alive"}
    reply = await house.ask("POST", "/nothing", body=b"this is not gzip", headers=sent)
    assert reply.status == 404
    assert not [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"]


HEADERS = ("Host", "Origin", "Sec-Fetch-Site", "Authorization", "Cookie", "Content-Type", "Content-Encoding", "Idempotency-Key")


NO_TEXT = (b"\xff\xfe", "\u202eé".encode(), b"Bearer \xff.\xff", b"%ed%a0%80", b'=;=\xff; a="')


@pytest.mark.parametrize("value", NO_TEXT)
async def test_bytes_that_are_no_text_in_headers_and_paths_never_cause_500(house: Any, value: bytes) -> None:
    host = f"Host: 127.0.0.1:{house.tcp[1]}\r\n".encode()
    token = f"Authorization: Bearer {await house.token('operator')}\r\n".encode()
    seen = set()
    for name in HEADERS:
        for start in (b"POST /api/v1/events", b"GET /", b"POST /sign-in", b"POST /api/v1/tasks/x/replay"):
            lines = b"" if name == "Host" else host
            lines += b"" if name == "Authorization" or start.endswith(b"events") else token
            lines += name.encode() + b": " + value + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
            seen.add((await house.raw(start + b" HTTP/1.1\r\n" + lines)).status)
    for path in (b"/", b"/api/v1/tasks/", b"/api/v1/tasks?q=", b"/api/v1/incidents/", b"/sign-in/", b"/sign-in?next="):
        tail = value.replace(b" ", b"") + b" HTTP/1.1\r\n" + host + token + b"Connection: close\r\n\r\n"
        seen.add((await house.raw(b"GET " + path + tail)).status)
    assert seen and max(seen) < 500


async def test_a_thousand_accidents_of_a_kind_are_one_line_in_the_log(house: Any, caplog: Any) -> None:
    for _ in range(20):
        await house.raw(NO_REQUESTS["TLS"])
    assert len([record for record in caplog.records if "could not be read" in record.getMessage()]) <= 1


def test_what_was_left_out_of_the_log_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("looseends_daemon.http.quiet.time.monotonic", lambda: now)
    quiet = OnceAMinute()

    def record() -> logging.LogRecord:
        return logging.LogRecord("x", logging.ERROR, "", 1, "it %s", ("broke",), None)

    assert [quiet.filter(record()) for _ in range(3)] == [True, False, False]
    now += 60.0
    last = record()
    assert quiet.filter(last)
    assert last.getMessage() == "it broke (2 more like this since the last one)"


async def test_closing_lets_what_runs_finish_and_takes_nothing_new(make_house: Any) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await go_on.wait()
        return web.Response(text="done")

    house = await make_house(routes=lambda context: [Route(method="GET", path="/slow", role="open", handler=slow)])
    running = asyncio.ensure_future(house.ask("GET", "/slow"))
    await entered.wait()
    closing = asyncio.ensure_future(house.listener.close(5.0))
    await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*house.tcp)
    go_on.set()
    assert (await running).text == "done"
    await closing
    await house.listener.close()


async def test_closing_cuts_what_does_not_finish_in_time(make_house: Any) -> None:
    entered = asyncio.Event()

    async def endless(request: web.Request) -> web.Response:
        entered.set()
        await asyncio.Event().wait()
        return web.Response()

    house = await make_house(routes=lambda context: [Route(method="GET", path="/x", role="open", handler=endless)])
    running = asyncio.ensure_future(read_to_end(house, f"GET /x HTTP/1.1\r\nHost: 127.0.0.1:{house.tcp[1]}\r\n\r\n".encode()))
    await entered.wait()
    async with asyncio.timeout(3):
        await house.listener.close(0.1)
        assert await running == b""
