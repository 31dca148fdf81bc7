"""One delivery attempt against real receivers that behave, misbehave, or are not there."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from looseends_daemon.core.delivery import ANSWER_BYTES_KEPT_MAX, Message
from looseends_daemon.notify.reach import Reach, reason_against, retry_after

KEY = "whsec_" + "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
MESSAGE = Message(id="msg_1", endpoint="ops", body='{"type":"looseends.incident.opened","x":"€"}'.encode(), attempt=3)


async def test_an_independent_verifier_accepts_what_arrives(receiver: Any, webhooks: Any) -> None:
    outcome = await webhooks(receiver.url).post(MESSAGE)
    assert (outcome.status, outcome.delivered, outcome.detail) == (200, True, "thanks")
    [(headers, body)] = receiver.requests
    assert body == MESSAGE.body
    assert Verifier(KEY).verify(body.decode(), headers) == json.loads(body)
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "looseends/1.2.3"
    assert (headers["webhook-id"], headers["looseends-attempt"], headers["looseends-endpoint"]) == ("msg_1", "3", "ops")
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 30
    assert headers["webhook-signature"].count("v1,") == 2


async def test_a_redirect_is_a_failure_and_is_not_followed(receivers: Any, webhooks: Any) -> None:
    first, second = await receivers(), await receivers()
    first.status, first.headers = 307, {"location": second.url}
    outcome = await webhooks(first.url).post(MESSAGE)
    assert (outcome.status, outcome.delivered) == (307, False)
    assert second.requests == []


async def test_an_error_keeps_the_beginning_of_the_answer(receiver: Any, webhooks: Any) -> None:
    receiver.status, receiver.body = 500, b"database is down " + b"x" * 50_000
    outcome = await webhooks(receiver.url).post(MESSAGE)
    assert outcome.status == 500
    assert outcome.detail.startswith("database is down")
    assert len(outcome.detail) == ANSWER_BYTES_KEPT_MAX


async def test_an_endless_answer_is_cut_off(receiver: Any, webhooks: Any) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse(status=200)
        await answer.prepare(request)
        try:
            while sent < 1 << 28:
                await answer.write(b"y" * 65_536)
                sent += 65_536
        except ConnectionError:
            receiver.release.set()
        return answer

    receiver.behave = endless
    outcome = await webhooks(receiver.url).post(MESSAGE)
    assert outcome.delivered
    await asyncio.wait_for(receiver.release.wait(), 10)
    assert sent < 1 << 26, "the connection was closed, not read to its end"


async def test_a_packed_answer_is_not_unpacked(receiver: Any, webhooks: Any) -> None:
    """A few kilobytes can unpack to gigabytes."""
    receiver.body, receiver.headers = gzip.compress(b"z" * 10_000_000), {"content-encoding": "gzip"}
    outcome = await webhooks(receiver.url).post(MESSAGE)
    assert outcome.delivered
    assert "zzz" not in outcome.detail


async def test_a_receiver_that_hangs_is_given_up(receiver: Any, webhooks: Any) -> None:
    receiver.behave = receiver.hang
    outcome = await webhooks(receiver.url, timeout=0.2).post(MESSAGE)
    assert (outcome.status, outcome.timed_out, outcome.detail) == (None, True, "no answer within 0.2 s")
    assert 0.2 <= outcome.duration < 5


async def test_a_receiver_that_drips_does_not_get_around_the_time_limit(receiver: Any, webhooks: Any) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(status=200)
        await answer.prepare(request)
        while not receiver.release.is_set():
            await answer.write(b".")
            await asyncio.sleep(0.02)
        return answer

    receiver.behave = drip
    outcome = await webhooks(receiver.url, timeout=0.3).post(MESSAGE)
    assert outcome.timed_out
    assert outcome.duration < 5
    receiver.release.set()


async def test_nobody_listening_is_an_outcome_in_words(webhooks: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        outcome = await webhooks(f"http://127.0.0.1:{taken.getsockname()[1]}/secret-path").post(MESSAGE)
    assert outcome.status is None
    assert outcome.detail.startswith("cannot connect: ")
    assert "secret-path" not in outcome.detail


async def test_a_connection_closed_without_an_answer_is_an_outcome(webhooks: Any) -> None:
    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(slam, "127.0.0.1", 0)
    outcome = await webhooks(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/").post(MESSAGE)
    server.close()
    assert outcome.status is None
    assert outcome.detail


async def test_nonsense_instead_of_http_is_an_outcome(webhooks: Any) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"\x00\xffnot http at all\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    outcome = await webhooks(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/").post(MESSAGE)
    server.close()
    assert outcome.status is None
    assert outcome.detail


async def test_a_name_that_does_not_exist_is_an_outcome(webhooks: Any) -> None:
    outcome = await webhooks("http://no-such-host.invalid/").post(MESSAGE)
    assert outcome.status is None
    assert "cannot be resolved" in outcome.detail


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f000001"])
async def test_denied_networks_are_denied_in_every_spelling(receiver: Any, webhooks: Any, host: str) -> None:
    port = receiver.url.split(":")[2].split("/")[0]
    deny = ("127.0.0.0/8", "::1/128")
    outcome = await webhooks(f"http://{host}:{port}/", deny=deny).post(MESSAGE)
    assert outcome.status is None
    assert "deny_networks forbids" in outcome.detail
    assert receiver.requests == []


async def test_private_addresses_can_be_forbidden(receiver: Any, webhooks: Any) -> None:
    outcome = await webhooks(receiver.url, allow_private=False).post(MESSAGE)
    assert outcome.detail == "not sent: 127.0.0.1 is not a public address, and [network] allow_private is false"
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("address", "ok"),
    [
        *(("93.184.216.34", True), ("10.0.0.1", False), ("100.64.0.1", False), ("192.168.1.1", False), ("224.0.0.1", False)),
        *(
            ("::1", False),
            ("fd00::1", False),
            ("2606:2800:220:1::1", True),
            ("64:ff9b::a00:1", False),
            ("::ffff:10.0.0.1", False),
        ),
    ],
)
def test_what_counts_as_public(address: str, ok: bool) -> None:
    assert (reason_against(address, Reach(allow_private=False)) is None) is ok


def test_metadata_addresses_are_denied_even_where_private_ones_are_allowed() -> None:
    reach = Reach(deny=("169.254.0.0/16", "fe80::/10"))
    for address in ("169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1%eth0"):
        assert reason_against(address, reach) is not None
    assert reason_against("10.0.0.1", reach) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120.0), ("", None), ("soon", None), ("-1", None), ("Thu, 01 Jan 1970 00:02:00 GMT", 60.0)],
)
def test_retry_after_is_a_number_or_a_date(header: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": header} if header else {}, 60.0) == seconds


async def test_retry_after_reaches_the_outcome(receiver: Any, webhooks: Any) -> None:
    receiver.status, receiver.headers = 429, {"Retry-After": "7"}
    assert (await webhooks(receiver.url).post(MESSAGE)).retry_after == 7.0


async def test_a_closed_sender_can_be_closed_again(receiver: Any, webhooks: Any) -> None:
    webhook = webhooks(receiver.url)
    await webhook.post(MESSAGE)
    await webhook.close()
    await webhook.close()
