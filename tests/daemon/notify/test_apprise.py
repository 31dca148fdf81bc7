"""Apprise with real servers: mail that arrives, and every way in which it does not, with the reason in words."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("apprise", reason='needs pip install "looseends[apprise]"')
from aiosmtpd.controller import Controller

from looseends_daemon.core.delivery import Message, plain_body
from looseends_daemon.core.delivery import test_event as event_for_a_test
from looseends_daemon.notify.apprise import MISSING, THREADS_MAX, AppriseSender
from looseends_daemon.notify.reach import Reach
from looseends_daemon.notify.webhook import Target

EVENT = event_for_a_test(message_id="msg_1", source="test", endpoint="mail", at=0, by="somebody")
MESSAGE = Message(id="msg_1", endpoint="mail", body=plain_body(EVENT), attempt=1)


class Box:
    """Takes mail; `refuse` answers with an error instead."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.refuse = ""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refuse:
            return self.refuse
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 taken"


class MailServer(Controller):
    """Closes what clients left open before it stops: aiosmtpd leaves that to the garbage collector."""

    def __init__(self, handler: Box, port: int) -> None:
        super().__init__(handler, hostname="127.0.0.1", port=port)
        self.made: list[Any] = []

    def factory(self) -> Any:
        self.made.append(super().factory())  # type: ignore[no-untyped-call]
        return self.made[-1]

    async def _hang_up(self) -> None:
        for one in self.made:
            if one.transport is not None:
                one.transport.abort()
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn of the loop

    def stop(self, no_assert: bool = False) -> None:
        asyncio.run_coroutine_threadsafe(self._hang_up(), self.loop).result(10)
        super().stop(no_assert)


@pytest.fixture
def box() -> Iterator[tuple[Box, int]]:
    """A mail server of this test's own."""
    handler = Box()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = MailServer(handler, port)
    controller.start()
    yield handler, port
    controller.stop()


def sender(url: str, timeout: float = 15.0, **reach: Any) -> AppriseSender:
    return AppriseSender(Target(name="mail", url=url, timeout=timeout), Reach(**reach))


def mail_url(port: int) -> str:
    return f"mailto://127.0.0.1:{port}?from=looseends@example.org&to=oncall@example.org&mode=insecure"


def words(mail: Any) -> str:
    """What a person reads."""
    part = mail.get_body(("plain", "html"))
    text: str = part.get_content()
    return text.replace("<br />", "\n").replace("&#x27;", "'")


async def test_mail_arrives_with_title_cause_names_and_what_to_press(living: Any, box: Any) -> None:
    handler, port = box
    daemon = await living(f'[[endpoint]]\nname = "mail"\nkind = "apprise"\nurl = "{mail_url(port)}"\n')
    task = await daemon.fail("mail.send_receipt", key="order-7")
    [notice] = await daemon.until(lambda: daemon.notices(state="delivered"))
    assert [one["detail"] for one in notice["attempts"]] == ["taken"]
    await daemon.ask("POST", f"/api/v1/tasks/{task}/dismiss", {"note": "known"})
    await daemon.until(lambda: daemon.notices(type="looseends.incident.resolved", state="delivered"))
    opened, settled = handler.mails
    assert opened["subject"] == "WARNING: mail.send_receipt of shop-web failed"
    assert opened["to"] == "oncall@example.org"
    assert "- mail.send_receipt order-7 (failed): ValueError" in words(opened)
    assert "Replay or dismiss: on test, open the dashboard" in words(opened)
    assert notice["id"] in words(opened)
    assert settled["subject"].startswith("Settled: mail.send_receipt of shop-web failed; dismissed")


async def test_a_server_that_refuses_is_named_with_its_reason(box: Any) -> None:
    handler, port = box
    handler.refuse = "554 no mail from you today"
    outcome = await sender(mail_url(port)).post(MESSAGE)
    assert not outcome.delivered
    assert "no mail from you today" in outcome.detail


async def test_nobody_there_is_said_in_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        outcome = await sender(mail_url(taken.getsockname()[1])).post(MESSAGE)
    assert not outcome.delivered
    assert "refused" in outcome.detail.lower()


async def test_the_address_that_is_connected_to_is_checked(box: Any) -> None:
    handler, port = box
    outcome = await sender(mail_url(port), deny=("127.0.0.0/8",)).post(MESSAGE)
    assert outcome.detail == "not sent: 127.0.0.1 lies in 127.0.0.0/8, which [network] deny_networks forbids"
    outcome = await sender(mail_url(port).replace("127.0.0.1", "localhost", 1), allow_private=False).post(MESSAGE)
    assert "is not a public address, and [network] allow_private is false" in outcome.detail
    assert handler.mails == []


async def test_a_redirect_to_a_denied_network_is_refused_where_it_leads(receiver: Any) -> None:
    """Apprise follows redirects; the connect that this brings is checked like the first."""
    receiver.status, receiver.headers = 307, {"location": "http://127.0.0.2:9/secret"}
    outcome = await sender(receiver.url.replace("http://", "json://"), deny=("127.0.0.2/32",)).post(MESSAGE)
    assert len(receiver.requests) == 1
    assert outcome.detail == "not sent: 127.0.0.2 lies in 127.0.0.2/32, which [network] deny_networks forbids"


async def test_other_threads_are_not_guarded_by_it(box: Any) -> None:
    _, port = box
    await sender(mail_url(port), deny=("127.0.0.0/8",)).post(MESSAGE)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as open_one:
        assert open_one.getpeername()[1] == port


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield server.getsockname()[1]
    for thread in threading.enumerate():
        if thread.name == "looseends-apprise":
            thread.join(10)  # mail gives up after some seconds by itself


async def test_a_server_that_hangs_is_given_up_and_the_loop_goes_on(silent: int) -> None:
    one = sender(mail_url(silent), timeout=0.3)
    began = time.monotonic()
    trying = asyncio.ensure_future(one.post(MESSAGE))
    steps = 0
    while not trying.done():
        await asyncio.sleep(0.01)
        steps += 1
    assert (trying.result().timed_out, trying.result().detail) == (True, "no answer within 0.3 s")
    assert time.monotonic() - began < 5
    assert steps > 5, "the loop was never held up"


async def test_attempts_that_hang_do_not_pile_up(silent: int) -> None:
    one = sender(mail_url(silent), timeout=0.2)
    before = threading.active_count()
    outcomes = await asyncio.gather(*(one.post(MESSAGE) for _ in range(THREADS_MAX + 4)))
    assert sum("earlier attempts still hang" in outcome.detail for outcome in outcomes) == 4
    assert threading.active_count() <= before + THREADS_MAX


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    outcome = await sender("mailto://127.0.0.1").post(MESSAGE)
    assert (outcome.delivered, outcome.detail) == (False, MISSING)


async def test_what_a_plugin_raises_is_an_outcome(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import apprise

    def explode(*args: Any, **more: Any) -> None:
        raise RuntimeError("plugin bug")

    one = sender(receiver.url.replace("http://", "json://"))
    monkeypatch.setattr(type(apprise.Apprise.instantiate(one._target.url)), "notify", explode)
    outcome = await one.post(MESSAGE)
    assert outcome.detail == "RuntimeError: plugin bug"


async def test_a_chat_gets_the_same_words(receiver: Any) -> None:
    outcome = await sender(receiver.url.replace("http://", "json://")).post(MESSAGE)
    assert outcome.delivered
    told = json.loads(receiver.requests[0][1])
    assert told["title"] == "Test from looseends: mail"
    assert told["message"].startswith("somebody tried whether this endpoint of looseends works.")
    assert told["type"] == "info"
