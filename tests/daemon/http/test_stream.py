"""The stream: counts to everybody at once, resumable, bounded, and honest about a listener that does not listen."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from daemon.http.conftest import House
from looseends_daemon.core.front import Now
from looseends_daemon.http import stream
from looseends_daemon.http.errors import ProblemError
from looseends_daemon.http.stream import QUEUE_MAX, Listener, Streams

WAIT_S = 10.0


@dataclass
class Standing:
    """What the streams look at: a commit is counted whether or not it changed anything."""

    commits: int = 0
    loose: int = 0
    looks: int = 0
    opened: list[Listener] = field(default_factory=list)

    async def look(self) -> Now:
        self.looks += 1
        return Now(last_event_at=5, loose=self.loose, incidents=0, acts=0, instances=1)

    def change(self) -> None:
        self.loose += 1
        self.commits += 1


@pytest.fixture
def standing() -> Standing:
    return Standing()


@pytest.fixture
def streams(standing: Standing) -> Streams:
    return Streams(standing.look, lambda: standing.commits, "abc")


def told(message: bytes) -> dict[str, Any]:
    """The data of a message."""
    data: dict[str, Any] = json.loads(message.split(b"data: ", 1)[1])
    return data


def number(message: bytes) -> str:
    return message.split(b"id: ", 1)[1].split(b"\n", 1)[0].decode()


async def tell(streams: Streams) -> None:
    """One pass of the loop, with the pause between two messages over."""
    streams._sent_at = float("-inf")
    await streams.run_once(0)


async def test_a_stream_begins_with_how_things_stand_and_goes_on_with_changes(streams: Streams, standing: Standing) -> None:
    listener = await streams.open(None, 0)
    assert told(listener.queue.get_nowait())["loose"] == 0
    standing.change()
    await tell(streams)
    message = told(listener.queue.get_nowait())
    assert (message["loose"], message["assets"], message["stamp"]) == (1, "abc", "5.1.0.0.1")


async def test_a_commit_that_changes_nothing_is_told_to_nobody(streams: Streams, standing: Standing) -> None:
    listener = await streams.open(None, 0)
    listener.queue.get_nowait()
    standing.commits += 1
    await tell(streams)
    assert listener.queue.empty()


async def test_the_database_is_left_alone_while_nobody_listens_or_nothing_was_written(
    streams: Streams, standing: Standing
) -> None:
    standing.change()
    await tell(streams)
    assert standing.looks == 0
    await streams.open(None, 0)
    for _ in range(5):
        await tell(streams)
    assert standing.looks == 1


async def test_messages_are_at_least_a_second_apart(streams: Streams, standing: Standing) -> None:
    await streams.open(None, 0)
    standing.change()
    again = await streams.run_once(0)
    assert again is not None
    assert 0.5e9 < again <= stream.SEND_S * 1e9


async def test_what_was_missed_is_told_in_order_to_who_comes_back(streams: Streams, standing: Standing) -> None:
    first = await streams.open(None, 0)
    last = number(first.queue.get_nowait())
    streams.leave(first)
    standby = await streams.open(None, 0)
    for _ in range(3):
        standing.change()
        await tell(streams)
    streams.leave(standby)
    back = await streams.open(last, 0)
    assert [told(back.queue.get_nowait())["loose"] for _ in range(back.queue.qsize())] == [1, 2, 3]
    current = await streams.open(number(streams._kept[-1][1]), 0)
    assert current.queue.empty(), "nothing was missed"


@pytest.mark.parametrize("last_id", ["other-3", "nonsense", "", "x" * 5_000, "-1", "0-" + "9" * 30])
async def test_an_id_of_another_run_or_made_up_gets_how_things_stand(streams: Streams, standing: Standing, last_id: str) -> None:
    standing.change()
    listener = await streams.open(last_id, 0)
    assert [told(listener.queue.get_nowait())["loose"]] == [1]


async def test_a_listener_that_does_not_listen_is_cut_off_and_the_others_are_not(streams: Streams, standing: Standing) -> None:
    slow, quick = await streams.open(None, 0), await streams.open(None, 0)
    for _ in range(QUEUE_MAX + 5):
        standing.change()
        await tell(streams)
        while not quick.queue.empty():
            quick.queue.get_nowait()
    assert slow.cut
    assert slow.queue.qsize() == 1, "what it did not take is let go"
    assert not quick.cut
    streams.leave(slow)
    assert streams.cut == 1


async def test_more_streams_than_there_may_be_are_refused_with_the_number(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STREAMS_MAX", 2)
    for _ in range(2):
        await streams.open(None, 0)
    with pytest.raises(ProblemError) as refused:
        await streams.open(None, 0)
    assert refused.value.status == 503
    assert "2 streams" in refused.value.detail
    assert refused.value.headers["Retry-After"] == "5"


# --- over real HTTP -----------------------------------------------------------------------------------------------

Open = Callable[..., Awaitable[asyncio.StreamReader]]


@pytest.fixture
async def listen(make_house: Any, all_routes: Any, streams: Streams) -> AsyncIterator[tuple[House, Open]]:
    """A server with this door, and a way to open streams on it."""

    def routes(context: Any) -> Any:
        return [*all_routes(context), *stream.routes(dataclasses.replace(context, streams=streams))]

    house = await make_house(routes=routes)
    token = await house.token("viewer")
    writers: list[asyncio.StreamWriter] = []

    async def opened(last_id: str | None = None) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection(*house.tcp)
        writers.append(writer)
        again = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        head = f"Host: 127.0.0.1:{house.tcp[1]}\r\nAuthorization: Bearer {token}\r\n{again}"
        writer.write(f"GET /api/v1/stream HTTP/1.1\r\n{head}\r\n".encode())
        return reader

    yield house, opened
    streams.close()
    for writer in writers:
        writer.close()


async def until(reader: asyncio.StreamReader, text: bytes) -> bytes:
    async with asyncio.timeout(WAIT_S):
        return await reader.readuntil(text)


async def test_the_door_speaks_server_sent_events_with_the_headers_of_every_answer(listen: tuple[House, Open]) -> None:
    _, opened = listen
    reader = await opened()
    head = (await until(reader, b"\r\n\r\n")).decode().lower()
    assert "200 ok" in head
    assert "content-type: text/event-stream" in head
    assert "cache-control: no-store" in head
    assert "content-security-policy: default-src 'none'" in head
    assert b"retry: 2000" in await until(reader, b"\n\n")
    assert b"event: now" in await until(reader, b"\n\n")


async def test_a_hundred_streams_hear_of_a_change(listen: tuple[House, Open], streams: Streams, standing: Standing) -> None:
    _, opened = listen
    readers = [await opened() for _ in range(100)]
    await asyncio.gather(*(until(reader, b'"loose":0,') for reader in readers))
    standing.change()
    await tell(streams)
    await asyncio.gather(*(until(reader, b'"loose":1,') for reader in readers))
    assert streams.listening == 100


async def test_a_listener_that_went_away_is_forgotten(
    listen: tuple[House, Open], streams: Streams, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "ALIVE_S", 0.05)
    house, _ = listen
    left = asyncio.Event()
    leave = streams.leave
    monkeypatch.setattr(streams, "leave", lambda listener: (leave(listener), left.set()))
    reader, writer = await asyncio.open_connection(*house.tcp)
    token = await house.token("viewer")
    writer.write(f"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    await until(reader, b"event: now")
    assert streams.listening == 1
    writer.close()
    async with asyncio.timeout(WAIT_S):
        await left.wait()
    assert streams.listening == 0


async def test_closing_ends_every_stream(listen: tuple[House, Open], streams: Streams) -> None:
    _, opened = listen
    reader = await opened()
    await until(reader, b"event: now")
    streams.close()
    async with asyncio.timeout(WAIT_S):
        rest = await until(reader, b"0\r\n\r\n")
    assert rest.endswith(b"0\r\n\r\n")


async def test_a_stranger_and_an_unknown_parameter_are_refused_before_a_stream_is_made(
    listen: tuple[House, Open], streams: Streams
) -> None:
    house, _ = listen
    assert (await house.ask("GET", "/api/v1/stream")).status == 401
    reply = await house.ask("GET", "/api/v1/stream?since=3", token=await house.token("viewer"))
    assert reply.status == 422
    assert (await house.ask("GET", "/api/v1/stream", token=await house.token("ingest", "shop"))).status in (401, 403)
    head = await house.ask("HEAD", "/api/v1/stream", token=await house.token("viewer"))
    assert head.status == 200
    assert streams.listening == 0
