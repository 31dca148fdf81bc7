"""When the daemon does not answer: what is said, what is kept, and who is not asked instead."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

import looseends
from looseends import silence, transport, trouble
from looseends.lifecycle import PROCESS


@looseends.task(name="mail.send", key="number")
def send(number: int) -> int:
    return number


@pytest.fixture
def state(spool: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A state folder short enough for a socket, found by the default search."""
    folder = tempfile.mkdtemp(prefix="le-")
    os.mkdir(f"{folder}/looseends")
    monkeypatch.delenv("LOOSEENDS_URL")
    monkeypatch.setenv("XDG_STATE_HOME", folder)
    yield f"{folder}/looseends"
    PROCESS.goodbye(0.5)
    shutil.rmtree(folder)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the client has said of daemons that answer or do not."""
    return [one.getMessage() for one in caplog.records if one.name == "looseends" and "daemon answers" in one.getMessage()]


def test_a_silence_is_said_once_with_the_place_of_the_records_and_its_end_too(
    spool: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    serving: Any,
    new_receiver: Any,
    free_port: int,
) -> None:
    monkeypatch.setattr(silence, "SAY_AFTER_S", 0.3)
    monkeypatch.setenv("LOOSEENDS_URL", f"http://127.0.0.1:{free_port}")
    send(1)
    assert looseends.flush(1.0) > 0
    [line] = lines(caplog)
    assert f"no daemon answers at http://127.0.0.1:{free_port}; records are kept in {spool}" in line
    assert trouble.COUNTS["no answer"] > 1, "each try counts; one in a minute is said"
    late = new_receiver()
    serving(late, ("127.0.0.1", free_port))
    assert looseends.flush(20) == 0
    assert f"a daemon answers at http://127.0.0.1:{free_port}" in lines(caplog)[1]
    assert {one.levelno for one in caplog.records if one.name == "looseends"} == {logging.WARNING}
    PROCESS.goodbye(2)


def test_a_short_silence_is_nobodys_trouble(caplog: pytest.LogCaptureFixture, spool: str) -> None:
    short = silence.Silence(spool)
    short.go_on("here", "refused")
    assert 0 < short.next_s() <= silence.SAY_AFTER_S
    short.end("here")
    assert lines(caplog) == [] and short.next_s() == float("inf")


def test_a_flapping_daemon_is_spoken_of_once_a_minute(
    caplog: pytest.LogCaptureFixture, spool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "SAY_AFTER_S", 0.0)
    flapping = silence.Silence(spool)
    for _ in range(5):
        flapping.go_on("here", "refused")
        flapping.end("here")
    assert len(lines(caplog)) == 2 and trouble.COUNTS["no answer"] == 5


def test_a_process_that_reached_the_socket_hands_nothing_to_whoever_takes_the_port(
    state: str, monkeypatch: pytest.MonkeyPatch, serving: Any, new_receiver: Any, free_port: int
) -> None:
    monkeypatch.setattr(transport, "DEFAULT_PORT", free_port)
    ours, stranger = new_receiver(), new_receiver()
    serving(ours, f"{state}/looseends.sock")
    send(1)
    assert looseends.flush(10) == 0
    serving(stranger, ("127.0.0.1", free_port))
    os.unlink(f"{state}/looseends.sock")
    assert PROCESS.sender is not None
    PROCESS.sender.transport.close()
    send(2)
    assert looseends.flush(0.5) > 0, "the spool holds it"
    again = new_receiver()
    serving(again, f"{state}/looseends.sock")
    assert looseends.flush(20) == 0
    assert len(again.of("mail.send")) == 2 and stranger.calls == []
    PROCESS.goodbye(2)


def test_without_a_socket_the_port_is_asked(
    state: str, monkeypatch: pytest.MonkeyPatch, serving: Any, new_receiver: Any, free_port: int
) -> None:
    monkeypatch.setattr(transport, "DEFAULT_PORT", free_port)
    found = new_receiver()
    serving(found, ("127.0.0.1", free_port))
    send(1)
    assert looseends.flush(10) == 0
    assert len(found.of("mail.send")) == 2
    PROCESS.goodbye(2)


def test_a_fork_stays_with_the_socket_of_its_parent(state: str) -> None:
    before, PROCESS.reached = PROCESS.reached, f"{state}/looseends.sock"
    try:
        PROCESS.after_fork()
        assert transport.Transport(PROCESS.settings()).where() == f"unix:{state}/looseends.sock"
    finally:
        PROCESS.reached = before


@pytest.mark.parametrize("url", ["unix:/run/x.sock", "http://host:99", "https://host:443/base", "http://[::1]:3637"])
def test_an_address_reads_as_it_is_written(url: str) -> None:
    assert str(transport.parse_url(url)) == url


def test_a_body_of_which_every_event_was_rejected_is_answered_for(receiver: Any) -> None:
    rejected = [{"index": 0, "pointer": "/events/0/name", "detail": "is empty"}]
    looseends.init()
    receiver.wait(lambda r: r.batches)
    receiver.answers = [(422, {"accepted": 0, "duplicates": 0, "warnings": [], "rejected": rejected, "orders": 0})]
    for number in range(20):
        send(number)
    receiver.wait(lambda r: not r.answers)
    assert looseends.flush(10) == 0
    assert trouble.COUNTS["rejected"] == 1
    assert PROCESS.journal is not None and PROCESS.journal.dropped == 0, "it was read: nothing is halved and given up"


def test_a_detail_that_cannot_be_made_into_text_is_named_by_its_class() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert trouble.note("a broken detail", Broken()) and trouble.text_of(Broken()) == "Broken"


def test_a_fork_while_an_answer_is_awaited_does_not_hang_the_child(spool: str, child: Any) -> None:
    process = child(
        """
        import os, signal, socket, sys, tempfile, looseends
        listening = socket.socket(socket.AF_UNIX)
        path = tempfile.mkdtemp(prefix="le-") + "/s"
        listening.bind(path)
        listening.listen()
        os.environ["LOOSEENDS_URL"] = "unix:" + path
        looseends.init()
        connection, _ = listening.accept()
        while b"events" not in connection.recv(65536):
            pass
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\n")  # it reads on, and holds a lock
        signal.sigtimedwait([], 0.2)
        number = os.fork()
        if number == 0:
            with looseends.track("in the child"):
                pass
            os._exit(0)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(number, signal.SIGKILL))
        signal.alarm(10)
        print("child ended with", os.waitpid(number, 0)[1], flush=True)
        os._exit(0)
        """
    )
    assert process.stdout.readline() == "child ended with 0\n"
