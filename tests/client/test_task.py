"""What `task`, `track`, `spawn` and `current` record, read back from the journal as an adopter would."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest

import looseends
from looseends import UsageError, trouble
from looseends.lifecycle import PROCESS

Recorded = Callable[[], list[dict[str, Any]]]


def shown(events: list[dict[str, Any]], name: str) -> list[str]:
    return [event["type"] for event in events if event["name"].endswith(name)]


@looseends.task(name="mail.send", key="order_id", deadline="30s", progress_within=10, tags={"tier": "gold"})
def send(order_id: int, subject: str = "hello", *, urgent: bool = False) -> str:
    return f"{order_id}/{subject}/{urgent}"


@looseends.task
async def fetch(number: int) -> int:
    await asyncio.sleep(0)
    if number < 0:
        raise ValueError(f"no {number}")
    return number * 2


def test_a_call_is_one_task_with_its_options(recorded: Recorded) -> None:
    assert send(7, "hi", urgent=True) == "7/hi/True"
    started, finished = recorded()
    assert started | {"task": 0, "at": 0, "code": 0} == {
        "type": "started",
        "task": 0,
        "name": "mail.send",
        "attempt": 1,
        "seq": 1,
        "at": 0,
        "declared": True,
        "source": "task",
        "deadline": 30.0,
        "progress_within": 10.0,
        "tags": {"tier": "gold"},
        "code": 0,
        "args": {"order_id": 7, "subject": "hi", "urgent": True},
        "key": "7",
    }
    assert finished["type"] == "finished" and finished["task"] == started["task"] and finished["duration"] >= 0


def test_a_decorated_function_stays_what_it_was() -> None:
    assert inspect.iscoroutinefunction(fetch) and not inspect.iscoroutinefunction(send)
    assert str(inspect.signature(send)) == "(order_id: 'int', subject: 'str' = 'hello', *, urgent: 'bool' = False) -> 'str'"
    assert send.__name__ == "send" and send.__wrapped__ is not send  # type: ignore[attr-defined]


async def test_a_coroutine_that_raises_failed_and_the_exception_goes_on(recorded: Recorded) -> None:
    assert await fetch(2) == 4
    with pytest.raises(ValueError, match="no -1"):
        await fetch(-1)
    events = recorded()
    assert shown(events, "fetch") == ["started", "finished", "started", "failed"]
    error = events[-1]["error"]
    assert error["type"] == "ValueError" and error["message"] == "no -1"
    assert "in fetch" in error["traceback"] and "looseends_task" not in error["traceback"]


def test_a_method_keeps_its_self_and_is_not_replayable(recorded: Recorded) -> None:
    class Mailer:
        @looseends.task(name="mailer.send")
        def send(self, number: int) -> int:
            return number

    assert Mailer().send(3) == 3
    started = recorded()[0]
    assert started["args"]["number"] == 3 and started["args"]["self"]["$t"] == "opaque"
    assert started["not_replayable_because"].startswith("argument self is ")


def test_a_nested_call_is_a_child_of_the_running_task(recorded: Recorded) -> None:
    with looseends.track("outer") as outer:
        assert looseends.current() is outer
        send(1)
        assert looseends.current() is outer
    assert looseends.current() is None
    events = recorded()
    inner = next(event for event in events if event["name"] == "mail.send")
    assert inner["parent"] == outer.id and events[0]["task"] == outer.id and "parent" not in events[0]


def test_progress_keeps_the_latest(recorded: Recorded) -> None:
    with looseends.track("report", {"day": "2026-11-20"}, deadline="2h", key="r-1") as task:
        for step in range(50):
            task.progress(step / 50, f"step {step}")
        task.progress(2.0, "x" * 900)
    started, progress, finished = recorded()
    assert started["deadline"] == 7200.0 and started["args"] == {"day": "2026-11-20"} and started["key"] == "r-1"
    assert progress["done"] == 1.0 and progress["note"] == "x" * 500
    assert started["at"] <= progress["at"] <= finished["at"]


def test_track_records_a_failure_and_lets_it_through(recorded: Recorded) -> None:
    with pytest.raises(KeyError), looseends.track("broken"):
        raise KeyError("gone")
    assert [event["type"] for event in recorded()] == ["started", "failed"]


async def test_track_works_with_async_with(recorded: Recorded) -> None:
    async with looseends.track("outer") as task:
        await asyncio.sleep(0)
        assert looseends.current() is task
    assert shown(recorded(), "outer") == ["started", "finished"]


def test_sys_exit_zero_is_a_good_end_and_sys_exit_one_is_not(recorded: Recorded) -> None:
    for code in (0, 1):
        with pytest.raises(SystemExit), looseends.track(f"exit{code}"):
            raise SystemExit(code)
    events = recorded()
    assert shown(events, "exit0") == ["started", "finished"] and shown(events, "exit1") == ["started", "failed"]


async def test_a_cancelled_task_is_cancelled_as_requested(recorded: Recorded) -> None:
    begun = asyncio.Event()

    @looseends.task(name="waits")
    async def waits() -> None:
        begun.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(waits())
    await begun.wait()
    running.cancel()
    await asyncio.wait([running])
    end = recorded()[-1]
    assert (end["type"], end["reason"]) == ("cancelled", "requested")


def test_work_cut_off_by_the_end_of_the_loop_is_dropped(recorded: Recorded) -> None:
    async def main() -> None:
        looseends.spawn(fetch(1))
        looseends.spawn(forever(1))
        looseends.spawn(forever(2))
        await asyncio.sleep(0.01)

    asyncio.run(main())
    events = recorded()
    assert shown(events, "fetch") == ["scheduled", "started", "finished"]
    ends = [(e["type"], e["reason"]) for e in events if e["name"].endswith("forever") and "reason" in e]
    assert ends == [("dropped", "loop_shutdown")] * 2


async def forever(number: int) -> None:
    await asyncio.Event().wait()


async def test_a_task_that_python_collects_is_dropped_as_collected(recorded: Recorded) -> None:
    @looseends.task(name="lost")
    async def lost() -> None:
        await asyncio.get_running_loop().create_future()

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    asyncio.create_task(lost())  # noqa: RUF006 - the bug of the articles: nobody holds it
    await asyncio.sleep(0)
    gc.collect()
    end = recorded()[-1]
    assert (end["type"], end["reason"]) == ("dropped", "collected")


async def test_spawn_of_an_audited_coroutine_is_one_task(recorded: Recorded) -> None:
    assert await looseends.spawn(fetch(4)) == 8
    events = recorded()
    assert [event["type"] for event in events] == ["scheduled", "started", "finished"]
    assert len({event["task"] for event in events}) == 1 and events[0]["source"] == "spawn"
    assert events[0]["args"] == {"number": 4}


async def test_spawn_of_a_plain_coroutine_records_its_arguments(recorded: Recorded) -> None:
    async def plain(number: int, password: str) -> int:
        return number

    assert await looseends.spawn(plain(5, "hunter2"), deadline="5s", key="k") == 5
    scheduled, started, _ = recorded()
    assert scheduled["args"] == {"number": 5, "password": {"$t": "redacted"}} and scheduled["deadline"] == 5.0
    assert scheduled["name"].endswith("plain") and started["type"] == "started" and scheduled["key"] == "k"


async def test_spawn_cancelled_before_its_first_step_never_began(recorded: Recorded) -> None:
    async def plain() -> None: ...

    for coroutine in (plain(), fetch(1)):
        running = looseends.spawn(coroutine)
        running.cancel()
        await asyncio.wait([running])
    assert [event["type"] for event in recorded()] == ["scheduled", "cancelled"] * 2


async def test_spawn_holds_its_task_and_lets_go_of_it_afterwards(spool: str) -> None:
    gate = asyncio.Event()

    async def waits() -> None:
        await gate.wait()

    looseends.spawn(waits())
    gc.collect()
    assert len(PROCESS.spawned) == 1
    gate.set()
    await asyncio.wait(list(PROCESS.spawned))
    await asyncio.sleep(0)
    assert not PROCESS.spawned


async def test_shutdown_drains_what_was_spawned(recorded: Recorded) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.05)

    looseends.spawn(slow())
    draining = looseends.shutdown(timeout=5)
    assert draining is not None
    await draining
    assert shown(recorded(), "slow") == ["scheduled", "started", "finished"]


async def test_shutdown_reports_what_does_not_end_as_dropped(recorded: Recorded) -> None:
    running = looseends.spawn(forever(1))
    draining = looseends.shutdown(timeout=0.05)
    assert draining is not None
    await draining
    running.cancel()
    await asyncio.wait([running])
    end = recorded()[-1]
    assert (end["type"], end["reason"]) == ("dropped", "exit")


async def test_a_task_that_asks_for_the_shutdown_is_not_dropped_itself(recorded: Recorded) -> None:
    async with looseends.track("main"):
        draining = looseends.shutdown(timeout=0.1)
        assert draining is not None
        await draining
    assert shown(recorded(), "main") == ["started", "finished"]


async def test_spawn_raises_what_create_task_raises(spool: str) -> None:
    with pytest.raises(TypeError, match="coroutine was expected"):
        looseends.spawn(3)  # type: ignore[arg-type]
    coroutine = fetch(1)
    with pytest.raises(RuntimeError, match="no running event loop"):
        await asyncio.to_thread(lambda: looseends.spawn(coroutine))
    coroutine.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"deadline": "soon"}, "deadline is a number of seconds.*\"never\".*'soon'"),
        ({"deadline": -1}, "deadline is a number"),
        ({"key": "nothing"}, "key names 'nothing', which is no parameter; allowed: order_id, subject"),
        ({"key": "order-{nope}"}, "key names 'nope'"),
        ({"replay": "yes"}, 'replay is True, "ask" or left out'),
        ({"tags": {"a": 1}}, "tags are at most 20 short texts"),
        ({"redact": (1,)}, "redact is a list of parameter names"),
        ({"name": "a\nb"}, "name is 1 to 200 printable characters"),
    ],
)
def test_a_wrong_option_says_where_and_what_is_allowed(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        looseends.task(**options)(lambda order_id, subject: None)


def test_what_cannot_be_a_task_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="takes a function, not int"):
        looseends.task(3)  # type: ignore[call-overload]


def test_a_wrong_option_at_run_time_is_counted_and_the_work_goes_on(recorded: Recorded) -> None:
    with looseends.track("odd", deadline="whenever"):  # the block runs all the same
        pass
    assert shown(recorded(), "odd") == ["started", "finished"]
    assert trouble.COUNTS["an option was left out"] == 1


def test_a_key_may_be_a_template_and_secrets_make_none(recorded: Recorded) -> None:
    @looseends.task(name="a", key="order-{number}-{part}")
    def a(number: int, part: str) -> None: ...

    @looseends.task(name="b", key="token")
    def b(token: str) -> None: ...

    a(7, part="x")
    b("s3cret")
    events = recorded()
    assert events[0]["key"] == "order-7-x" and "key" not in events[2]


def test_tasks_in_many_threads_get_numbers_of_their_own(recorded: Recorded) -> None:
    def work() -> None:
        for number in range(200):
            send(number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = recorded()
    started = [event for event in events if event["type"] == "started"]
    assert sorted(event["seq"] for event in started) == list(range(1, 801))
    assert len({event["task"] for event in started}) == 800 and len(events) == 1600


def test_an_error_that_cannot_be_shown_is_still_a_failure(recorded: Recorded) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with pytest.raises(Odd), looseends.track("odd"):
        raise Odd
    assert "could not be made" in recorded()[-1]["error"]["message"]


def test_disabled_means_no_folder_no_thread_and_the_same_answers(spool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOSEENDS_DISABLED", "1")
    assert send(1) == "1/hello/False"
    with looseends.track("x") as task:
        assert len(task.id) == 36
        task.progress(0.5)
    assert PROCESS.journal is None and looseends.flush() == 0
