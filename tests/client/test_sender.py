"""The way to the daemon, against a real HTTP server on a unix socket and on TCP."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

import looseends
from harness import wait_until
from looseends import adoption, journal, sender, trouble
from looseends.lifecycle import PROCESS
from looseends.slots import Name
from looseends.transport import Answer, Transport, parse_url


@looseends.task(name="mail.send", key="number")
def send(number: int) -> int:
    return number


@pytest.fixture
def only_a_wake(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender has sent a first task and sleeps; for an hour nothing but a wake makes it send again."""
    monkeypatch.setattr(sender, "HEARTBEAT_S", 3_600.0)
    monkeypatch.setattr(sender, "HEARTBEAT_WITH_FUNCTIONS_S", 3_600.0)
    monkeypatch.setattr(adoption, "EVERY_S", 3_600.0)
    send(0)
    receiver.wait(lambda r: r.types("mail.send") == ["started", "finished"])
    receiver.wait(lambda r: any(call[1].endswith("/heartbeat") for call in r.calls))
    wait_until(lambda: PROCESS.idle, "the sender to sleep")


def has_come(receiver: Any) -> bool:
    return any(event.get("key") == "1" for event in receiver.events)


def test_a_first_event_leaves_at_once(receiver: Any, only_a_wake: None) -> None:
    send(1)
    receiver.wait(has_come)


def test_one_that_woke_nobody_stays_where_it_is(receiver: Any, only_a_wake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: were the wake missing, the test above would wait for what does not come."""
    assert PROCESS.sender is not None
    monkeypatch.setattr(PROCESS.sender, "wake", lambda: None)
    send(1)
    with pytest.raises(AssertionError, match="waited"):
        receiver.wait(has_come, 3 * sender.LOOK_S)


def test_everything_arrives_once_and_passes_the_daemons_checks(receiver: Any) -> None:
    for number in range(3000):
        send(number)
    assert looseends.flush(20) == 0
    assert [b.rejected for b in receiver.batches if b.rejected] == []
    assert {w.detail for b in receiver.batches for w in b.warnings} == set()
    started = [event for event in receiver.events if event["type"] == "started"]
    assert sorted(event["args"]["number"] for event in started) == list(range(3000))
    assert sorted(event["seq"] for event in started) == list(range(1, 3001))
    assert len([event for event in receiver.events if event["type"] == "finished"]) == 3000
    assert max(len(batch.events) for batch in receiver.batches) <= 1000
    assert receiver.batches[-1].backlog == 0 and receiver.connections == 1


def test_times_are_wall_clock_and_in_order(receiver: Any) -> None:
    before = time.time_ns()
    send(1)
    assert looseends.flush(10) == 0
    started, finished = receiver.of("mail.send")
    assert before - 2_000_000_000 < started["at"] <= finished["at"] < time.time_ns() + 2_000_000_000


def test_over_tcp_with_a_token_only_two_parts_of_it_are_sent(tcp_receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOSEENDS_TOKEN", "tok1.secretpart.orderkeypart")
    send(1)
    assert looseends.flush(10) == 0
    assert tcp_receiver.calls[0][3]["authorization"] == "Bearer tok1.secretpart"
    assert "orderkeypart" not in repr(tcp_receiver.calls)


def test_init_makes_an_instance_known_with_an_empty_batch_first(receiver: Any) -> None:
    looseends.init(service="ignored", release="2026.11.3")
    receiver.wait(lambda r: r.batches)
    method, path, body, _ = receiver.calls[0]
    assert (method, path, body["events"], body["backlog"]) == ("POST", "/api/v1/events", [], 0)
    assert body["instance"]["service"] == "tests" and body["instance"]["release"] == "2026.11.3"
    assert body["instance"]["pid"] == os.getpid()
    receiver.wait(lambda r: any(call[1].endswith("/heartbeat") for call in r.calls))


def test_an_unknown_instance_is_answered_with_a_batch(receiver: Any) -> None:
    looseends.init()
    receiver.wait(lambda r: any(call[1].endswith("/heartbeat") for call in r.calls))
    with receiver.changed:
        receiver.known.clear()
        seen = len(receiver.batches)
    assert PROCESS.sender is not None
    PROCESS.sender._heartbeat_at = 0.0
    PROCESS.sender.wake()
    receiver.wait(lambda r: len(r.batches) > seen)


def test_a_rejected_event_is_counted_and_its_neighbours_stay(receiver: Any) -> None:
    planted = looseends.task(name="planted")(lambda: None)
    planted.__looseends__.fields["deadline"] = -5  # our own checks would refuse it
    send(1)
    planted()
    send(2)
    assert looseends.flush(10) == 0
    assert trouble.COUNTS["rejected"] == 1
    assert len(receiver.of("mail.send")) == 4 and receiver.types("planted") == ["finished"]


def test_413_halves_the_batch_until_it_fits(receiver: Any) -> None:
    receiver.answers = [(200, None), (413, None), (413, None), (413, None)]
    looseends.init()
    receiver.wait(lambda r: r.batches)
    for number in range(400):
        send(number)
    assert looseends.flush(10) == 0
    assert len([event for event in receiver.events if event["type"] == "started"]) == 400 and receiver.answers == []


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_refusal_for_now_loses_nothing(receiver: Any, status: int) -> None:
    receiver.answers = [(status, {"title": "no"})] * 2
    send(1)
    assert looseends.flush(10) == 0
    assert receiver.types("mail.send") == ["started", "finished"]


def test_a_record_refused_for_good_does_not_hold_up_the_others(receiver: Any) -> None:
    looseends.init()
    receiver.wait(lambda r: r.batches)
    receiver.answers = [(422, None)]
    send(1)
    receiver.wait(lambda r: not r.answers)
    send(2)
    assert looseends.flush(10) == 0
    assert {event.get("key") for event in receiver.events if event["type"] == "started"} >= {"2"}


def test_with_no_daemon_the_spool_holds_and_a_late_daemon_gets_it_all(
    spool: str, monkeypatch: pytest.MonkeyPatch, serving: Any, new_receiver: Any, free_port: int
) -> None:
    monkeypatch.setenv("LOOSEENDS_URL", f"http://127.0.0.1:{free_port}")
    for number in range(50):
        send(number)
    assert looseends.flush(0.3) > 0
    late = new_receiver()
    serving(late, ("127.0.0.1", free_port))
    assert looseends.flush(20) == 0
    assert len([event for event in late.events if event["type"] == "started"]) == 50
    assert "sending" not in trouble.COUNTS
    PROCESS.goodbye(2)


def test_a_daemon_that_restarts_is_found_again(
    spool: str, monkeypatch: pytest.MonkeyPatch, serving: Any, new_receiver: Any
) -> None:
    folder = tempfile.mkdtemp(prefix="le-")
    monkeypatch.setenv("LOOSEENDS_URL", f"unix:{folder}/s")
    first, second = new_receiver(), new_receiver()
    serving(first, f"{folder}/s")
    send(1)
    assert looseends.flush(10) == 0
    os.unlink(f"{folder}/s")
    assert PROCESS.sender is not None
    serving(second, f"{folder}/s")
    PROCESS.sender.transport.close()
    send(2)
    assert looseends.flush(10) == 0
    assert len(second.of("mail.send")) == 2
    PROCESS.goodbye(2)
    shutil.rmtree(folder)


def test_the_socket_in_the_state_folder_comes_before_loopback(
    spool: str, monkeypatch: pytest.MonkeyPatch, serving: Any, new_receiver: Any
) -> None:
    state = tempfile.mkdtemp(prefix="le-")
    monkeypatch.delenv("LOOSEENDS_URL")
    monkeypatch.setenv("XDG_STATE_HOME", state)
    os.mkdir(f"{state}/looseends")
    found = new_receiver()
    serving(found, f"{state}/looseends/looseends.sock")
    send(1)
    assert looseends.flush(10) == 0
    assert len(found.of("mail.send")) == 2
    PROCESS.goodbye(2)
    shutil.rmtree(state)


def test_a_goodbye_leaves_nothing_behind(receiver: Any, spool: str) -> None:
    send(1)
    assert journal.folders(spool) != []
    looseends.shutdown()
    method, _, body, _ = receiver.calls[-1]
    assert method == "DELETE" and body == {"reason": "exit", "last_seq": 1, "open": [], "void": []}
    assert journal.folders(spool) == [] and os.listdir(spool) == []


def test_heartbeats_count_what_is_open_and_what_ended(receiver: Any) -> None:
    send(1)
    with looseends.track("running"):
        assert looseends.flush(10) == 0
        assert PROCESS.sender is not None
        with receiver.changed:
            receiver.calls.clear()
        PROCESS.sender._heartbeat_at = 0.0
        PROCESS.sender.wake()
        receiver.wait(lambda r: any(call[1].endswith("/heartbeat") for call in r.calls))
    body = next(call[2] for call in receiver.calls if call[1].endswith("/heartbeat"))
    assert {k: body[k] for k in ("last_seq", "open", "ended", "dropped", "backlog")} == {
        "last_seq": 2,
        "open": 1,
        "ended": 1,
        "dropped": 0,
        "backlog": 0,
    }


def test_an_orphan_of_the_same_user_is_adopted_and_sent(receiver: Any, child: Any, spool: str) -> None:
    process = child(
        """
        import os, time, looseends
        os.environ["LOOSEENDS_URL"] = "unix:/nobody-here"
        with looseends.track("orphaned", {"n": 1}):
            print("up", flush=True)
            time.sleep(60)
        """
    )
    assert process.stdout.readline() == "up\n"
    [folder] = journal.folders(spool)
    assert journal.is_held(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not journal.is_held(folder)
    looseends.init()
    receiver.wait(lambda r: any(method == "DELETE" for method, *_ in r.calls))
    assert receiver.types("orphaned") == ["started"]
    assert next(call[2]["reason"] for call in receiver.calls if call[0] == "DELETE") == "adopted"
    PROCESS.goodbye(2)
    assert not Path(folder).exists()


def test_what_a_dead_process_left_is_sent_as_a_backlog_that_falls_until_its_end_is_told(
    receiver: Any, spool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("looseends.orphans.EVENTS_MAX", 4)
    left = journal.Journal(spool, {"id": str(uuid.uuid4()), "service": "tests"})
    number = left.name(Name("orphaned", (), "", {}))
    for _ in range(9):
        assert left.begin(number, b"", b"", 0, time.monotonic_ns()) is not None
    left.close()
    looseends.init()
    receiver.wait(lambda r: any(method == "DELETE" for method, *_ in r.calls))
    posted, who = [call[2] for call in receiver.calls if call[0] == "POST"], os.path.basename(left.folder)
    told = [body for body in posted if body["instance"]["id"] == who]
    assert [(len(body["events"]), body["backlog"]) for body in told] == [(4, 5), (4, 1), (1, 1), (0, 1)]
    PROCESS.goodbye(2)


def orphaned(spool: str, count: int) -> journal.Journal:
    """The journal of a process that is gone, with so many records."""
    left = journal.Journal(spool, {"id": str(uuid.uuid4()), "service": "tests"})
    number = left.name(Name("orphaned", (), "", {}))
    for _ in range(count):
        assert left.begin(number, b"", b"", 0, time.monotonic_ns()) is not None
    left.close()
    return left


POSTS = 4_000 // adoption.EVENTS_MAX


def said_between_its_posts(receiver: Any, who: str, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What this process says of itself after each post for the orphan `who`, up to its last.

    In the middle of each post a heartbeat of ours falls due and a task of ours runs: both wait when it is answered.
    """
    answer = receiver.answer
    between: list[set[str]] = []

    def meanwhile(method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        if method == "POST" and body["instance"]["id"] == who:
            assert PROCESS.sender is not None
            PROCESS.sender._heartbeat_at = 0.0
            send(7)
            between.append(set())
        elif between and who not in path and (path.endswith("/heartbeat") or (method == "POST" and body["events"])):
            between[-1].add(path.rpartition("/")[2])
        return answer(method, path, body, headers)

    monkeypatch.setattr(receiver, "answer", meanwhile)
    looseends.init()
    receiver.wait(lambda r: any(call[0] == "DELETE" and who in call[1] for call in r.calls))
    assert len(receiver.of("orphaned")) == 4_000
    PROCESS.goodbye(2)
    return between[:-1]


def test_our_own_records_and_heartbeats_have_their_turn_after_each_post_of_a_large_orphan(
    receiver: Any, spool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = os.path.basename(orphaned(spool, 4_000).folder)
    assert said_between_its_posts(receiver, who, monkeypatch) == [{"events", "heartbeat"}] * POSTS


def test_an_orphan_that_is_sent_in_one_go_is_seen_to_hold_up_our_own(
    receiver: Any, spool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: were it not left after each post, the test above would fail."""
    go_on = adoption.Adoption._go_on

    def all_of_it(self: adoption.Adoption) -> None:
        while self._under_way is not None:
            go_on(self)

    monkeypatch.setattr(adoption.Adoption, "_go_on", all_of_it)
    who = os.path.basename(orphaned(spool, 4_000).folder)
    assert said_between_its_posts(receiver, who, monkeypatch) == [set()] * POSTS


@pytest.mark.parametrize("answer", [{}, {"status": "ok"}, {"accepted": True}])
def test_a_dead_process_s_records_are_kept_where_an_answer_does_not_count_them(
    receiver: Any, spool: str, answer: dict[str, Any]
) -> None:
    left = orphaned(spool, 3)
    mine = journal.Journal(spool, {"id": str(uuid.uuid4()), "service": "tests"})
    held: list[Answer] = []

    class Page:
        def request(self, method: str, path: str, body: bytes) -> Answer:
            return Answer(200, answer)

    def hold(said: Answer) -> bool:
        held.append(said)
        return True

    look = adoption.Adoption(mine, Page(), hold)  # type: ignore[arg-type]
    look.look_around(100.0, may_send=True)
    while look.look_around(100.0 + adoption.ORPHAN_S, may_send=True):
        continue
    mine.close()
    assert held and os.path.exists(left.folder) and not journal.is_taken(left.folder)


def test_a_dead_process_s_record_that_is_refused_for_good_holds_up_no_other(receiver: Any, spool: str) -> None:
    left = orphaned(spool, 4)
    receiver.answers = [(200, None)] + [(422, {"title": "no"})] * 3
    looseends.init()
    receiver.wait(lambda r: any(call[0] == "DELETE" for call in r.calls))
    assert sorted(event["seq"] for event in receiver.of("orphaned")) == [2, 3, 4]
    assert trouble.COUNTS["a dead process's record was refused by the daemon"] == 1
    PROCESS.goodbye(2)
    assert not os.path.exists(left.folder)


def test_what_no_daemon_took_for_7_days_is_given_up_and_counted(spool: str) -> None:
    left = journal.Journal(spool, {"id": str(uuid.uuid4()), "service": "tests"})
    left.close()
    broken = Path(spool, str(uuid.uuid4()))
    broken.mkdir()
    for folder in (left.folder, str(broken)):
        os.utime(folder, (time.time() - 8 * 86_400,) * 2)
    fresh = journal.Journal(spool, {"id": str(uuid.uuid4()), "service": "tests"})
    fresh.close()
    mine = journal.Journal(spool, {"id": str(uuid.uuid4()), "service": "tests"})
    look = adoption.Adoption(mine, Transport(PROCESS.settings()), lambda answer: answer.status != 200)
    look.look_around(100.0, may_send=False)
    look.look_around(100.0 + adoption.ORPHAN_S, may_send=False)
    mine.close()
    assert journal.folders(spool) == sorted([fresh.folder, mine.folder])
    assert trouble.COUNTS["a dead process's records were given up after 7 days without a daemon"] == 1
    assert trouble.COUNTS["a spool folder was removed after 7 days: it could not be read"] == 1


def test_large_batches_to_another_host_are_packed(
    spool: str, monkeypatch: pytest.MonkeyPatch, serving: Any, new_receiver: Any, free_port: int
) -> None:
    monkeypatch.setenv("LOOSEENDS_URL", f"http://127.0.0.2:{free_port}")  # not one of the names for "this host"
    far = new_receiver()
    serving(far, ("127.0.0.2", free_port))
    for number in range(200):
        send(number)
    assert looseends.flush(10) == 0
    assert "gzip" in {call[3].get("content-encoding") for call in far.calls}
    assert len(far.events) == 400
    PROCESS.goodbye(2)


def test_the_end_of_a_server_says_goodbye_only_when_nothing_is_open(receiver: Any) -> None:
    with looseends.track("running"):
        PROCESS.service_ended()
        assert PROCESS.journal is not None and receiver.types("running") == ["started"]
    PROCESS.service_ended()
    assert receiver.types("running") == ["started", "finished"]
    assert receiver.calls[-1][0] == "DELETE" and PROCESS.journal is None
    send(1)
    assert looseends.flush(10) == 0
    assert len({batch.instance["id"] for batch in receiver.batches}) == 2, "work after that is another instance's"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("unix:/run/x.sock", ("unix", "/run/x.sock", 0, "")),
        ("unix:///run/x.sock", ("unix", "/run/x.sock", 0, "")),
        ("http://host:99", ("http", "host", 99, "")),
        ("https://host/base/", ("https", "host", 443, "/base")),
        ("http://[::1]:3637", ("http", "::1", 3637, "")),
    ],
)
def test_urls_are_read(url: str, address: tuple[Any, ...]) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize("url", ["", "ftp://x", "unix:relative", "unix:/" + "x" * 120, "http://", "http://a:b@c", "http://h?x=1"])
def test_a_wrong_url_names_the_forms(url: str) -> None:
    with pytest.raises(ValueError, match="https://host, http://host:port or unix:/path"):
        parse_url(url)


def test_a_wrong_port_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"[Pp]ort"):
        parse_url("http://host:99999")


def test_recording_does_not_wait_for_a_daemon_that_hangs(spool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        monkeypatch.setenv("LOOSEENDS_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        send(0)
        asked, _ = listening.accept()
        assert asked.recv(4), "it has been asked, and never answers: who waited for that would wait here"
        for number in range(1000):
            send(number)
        assert PROCESS.sender is not None and not PROCESS.sender._known and PROCESS.sender.transport.asked is False
        PROCESS.goodbye(0.2)
        asked.close()


async def test_it_works_beside_a_busy_event_loop(receiver: Any) -> None:
    async def one(number: int) -> None:
        await asyncio.sleep(0)

    tasks: list[Any] = [looseends.spawn(one(n), name="busy") for n in range(300)]
    await asyncio.gather(*tasks)
    assert await asyncio.to_thread(looseends.flush, 10) == 0
    assert sorted(receiver.types("busy")) == ["finished"] * 300 + ["scheduled"] * 300 + ["started"] * 300


def test_a_stack_that_waits_is_told_as_backlog_so_that_no_verdict_comes_before_its_place(receiver: Any) -> None:
    """Found by the quiet run: a start held up past its own deadline was judged when it came, before the place that was known."""
    release = threading.Event()

    @looseends.task(name="hung", deadline=0.2)
    def hang() -> bool:
        return release.wait(30)

    receiver.answers = [(503, {"title": "no"})] * 10_000
    worker = threading.Thread(target=hang)
    worker.start()
    wait_until(lambda: PROCESS.sender is not None and PROCESS.sender._hangs.waiting, "a stack that cannot be told yet")
    with receiver.changed:
        receiver.answers = []
        refused = len(receiver.calls)
    receiver.wait(lambda r: any(event.get("stack") for event in r.of("hung")))
    release.set()
    worker.join()
    taken = [body for method, path, body, _ in receiver.calls[refused:] if path == "/api/v1/events"]
    starts = [body for body in taken if any(event["type"] == "started" for event in body["events"])]
    assert starts[0]["backlog"] > 0
    assert [body["backlog"] for body in taken if any("stack" in event for event in body["events"])][0] == 0
