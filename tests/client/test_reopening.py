"""A connection that something in between cuts is opened again at once: a daemon takes who stays away for 2 s for dead."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import looseends
from looseends import sender
from looseends.lifecycle import PROCESS
from looseends.spec import REGISTRY
from looseends.transport import Transport
from quiet.proxy import Proxy

BACK_S = 2.0
"""So long does the daemon wait for who let go of its connection."""


@pytest.fixture
def box(tcp_receiver: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """In front of the receiver, and set as LOOSEENDS_URL."""
    monkeypatch.setattr(REGISTRY, "functions", {})  # with any, it would send a heartbeat each second
    box = Proxy(int(tcp_receiver.url.rpartition(":")[2]), cut_every=0)
    monkeypatch.setenv("LOOSEENDS_URL", f"http://127.0.0.1:{box.port}")
    yield box
    PROCESS.goodbye(2.0)
    box.close()


def heartbeats(receiver: Any) -> int:
    return sum(call[1].endswith("/heartbeat") for call in receiver.calls)


def known(receiver: Any) -> None:
    """This process is known, has sent its first heartbeat, and has nothing else to say for 10 s."""
    looseends.init()
    receiver.wait(lambda r: heartbeats(r) == 1)
    time.sleep(sender.GATHER_S * 3)


def test_a_connection_that_is_cut_while_idle_is_opened_again_with_a_heartbeat(tcp_receiver: Any, box: Proxy) -> None:
    known(tcp_receiver)
    for times in (2, 3):
        box.cut_all()
        tcp_receiver.wait(lambda r, times=times: heartbeats(r) == times, BACK_S)
    assert box.opened == 3


def test_a_client_that_does_not_look_stays_away_until_its_next_heartbeat(
    tcp_receiver: Any, box: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Transport, "was_cut", lambda self: False)
    known(tcp_receiver)
    box.cut_all()
    time.sleep(BACK_S)
    assert heartbeats(tcp_receiver) == 1, "this is what the test above would see"


def test_it_is_opened_again_even_while_records_are_held(tcp_receiver: Any, box: Proxy) -> None:
    known(tcp_receiver)
    tcp_receiver.answers = [(503, {"title": "full"})] * 1_000
    with looseends.track("held"):
        tcp_receiver.wait(lambda r: len(r.answers) < 994)  # by now it backs off for seconds
        time.sleep(sender.GATHER_S * 3)
        before = heartbeats(tcp_receiver)
        box.cut_all()
        tcp_receiver.wait(lambda r: heartbeats(r) > before, BACK_S)


def test_records_that_are_held_hold_up_no_heartbeat(tcp_receiver: Any, box: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "HEARTBEAT_S", 0.5)
    known(tcp_receiver)
    tcp_receiver.answers = [(503, {"title": "full"})] * 1_000
    with looseends.track("held"):
        before = heartbeats(tcp_receiver)
        tcp_receiver.wait(lambda r: heartbeats(r) >= before + 8, 15)
    said = next(call[2] for call in reversed(tcp_receiver.calls) if call[1].endswith("/heartbeat"))
    assert said["backlog"] >= 1, "and each says that there is more to come"
    assert len(tcp_receiver.answers) > 970, "while the records are tried more and more rarely"
    tcp_receiver.answers = []


def test_a_door_that_is_shut_for_a_second_is_tried_until_it_opens(tcp_receiver: Any, box: Proxy) -> None:
    known(tcp_receiver)
    box.shut = True
    box.cut_all()
    time.sleep(1.0)
    box.shut = False
    tcp_receiver.wait(lambda r: heartbeats(r) == 2, BACK_S)


def test_how_long_nobody_answered_before_does_not_matter_once_somebody_did(tcp_receiver: Any, box: Proxy) -> None:
    known(tcp_receiver)
    found = PROCESS.sender
    assert found is not None
    found._silent_s = found._refused_s = sender.BACK_OFF_S[1]  # as after a daemon that was away for long
    box.cut_all()
    tcp_receiver.wait(lambda r: heartbeats(r) == 2, BACK_S)
    time.sleep(sender.GATHER_S * 3)
    box.shut = True
    box.cut_all()
    time.sleep(1.0)
    box.shut = False
    tcp_receiver.wait(lambda r: heartbeats(r) == 3, BACK_S)


def test_an_answer_that_is_lost_on_a_new_connection_is_asked_for_again_at_once(tcp_receiver: Any, box: Proxy) -> None:
    known(tcp_receiver)
    box.swallow = 1
    box.cut_all()
    tcp_receiver.wait(lambda r: heartbeats(r) == 3, BACK_S)
    assert box.opened == 3 and PROCESS.sender is not None and PROCESS.sender._silent_s == sender.BACK_OFF_S[0]


def test_a_heartbeat_that_nobody_answered_is_said_again_before_the_next_one_is_due(tcp_receiver: Any, box: Proxy) -> None:
    known(tcp_receiver)
    box.swallow = 4  # it is asked for again at once, and then twice more after a pause
    box.cut_all()
    tcp_receiver.wait(lambda r: heartbeats(r) == 6, 5)


def test_a_connection_that_lives_is_not_taken_for_cut(receiver: Any, tcp_receiver: Any) -> None:
    for url in (receiver.url, tcp_receiver.url):
        way = Transport(PROCESS.settings()._replace(url=url))
        assert not way.was_cut(), "nothing is open yet"
        way.request("PUT", "/instances/nobody/heartbeat", b"{}")
        assert not way.was_cut()
        way.close()
