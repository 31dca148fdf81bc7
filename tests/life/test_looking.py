"""The client's look from outside: whose frame it is, which lines are the service's own, when it looks and what that costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import looseends
from looseends import hangs, stacks, trouble
from looseends.context import CURRENT, Task
from looseends.cursor import Cursors
from looseends.hangs import Hangs, Lags, Probe
from looseends.lifecycle import PROCESS
from looseends.wire import NS, STACK_LINES_MAX, check_batch

HERE = Path(__file__).name


@pytest.fixture(autouse=True)
def own_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is a service of its own, and nobody listens."""
    monkeypatch.setenv("LOOSEENDS_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("LOOSEENDS_URL", f"unix:{tmp_path}/nobody")
    PROCESS.goodbye(0.1)
    PROCESS.given, PROCESS.disabled, PROCESS._retry_at = {}, False, 0.0
    trouble.COUNTS.clear()
    yield
    PROCESS.goodbye(0.1)


def look_at(task: Task) -> list[str]:
    """The lines of one task, seen from another thread."""
    assert task.segment is not None
    place = id(task.segment), task.at
    seen: list[list[str]] = []
    thread = threading.Thread(target=lambda: seen.append(stacks.Look().stacks([place]).get(place, ([], None))[0]))
    thread.start()
    thread.join()
    return seen[0]


def names(lines: list[str]) -> list[str]:
    """What stands behind the place of each line."""
    return [line.split(" ", 1)[1] for line in lines]


def test_a_task_sees_itself_from_its_body_inward_and_nothing_of_ours() -> None:
    @looseends.task
    def outer() -> list[str]:
        return inner()

    def inner() -> list[str]:
        task = looseends.current()
        assert task is not None
        return look_at(task)

    lines = outer()
    assert [name.rpartition(".")[2] for name in names(lines)[:3]] == ["outer", "inner", "look_at"]
    assert all(line.startswith(str(Path(__file__).parent)) for line in lines[:3])
    assert lines[3].startswith("threading.py:") and lines[3].endswith("[threading]")


def test_of_nested_tasks_each_has_its_own_part() -> None:
    @looseends.task
    def child(parent: Task) -> tuple[list[str], list[str]]:
        own = CURRENT.get()
        assert own is not None
        return look_at(own), look_at(parent)

    @looseends.task(redact=("parent",))
    def parent() -> tuple[list[str], list[str]]:
        task = CURRENT.get()
        assert task is not None
        return child(task)

    mine, above = parent()
    assert above[-len(mine) + 1 :][0].split(" ")[1].endswith(("child", "look_at"))
    assert len(above) == len(mine) + 1


@pytest.mark.parametrize("loops", ["asyncio", "uvloop"])
def test_coroutines_are_followed_through_what_they_await(loops: str) -> None:
    made = pytest.importorskip("uvloop").new_event_loop if loops == "uvloop" else asyncio.new_event_loop
    tasks: dict[str, Task] = {}

    parked: list[str] = []
    all_parked = asyncio.Event()

    async def deepest() -> None:
        parked.append("deepest")
        if len(parked) == 3:
            all_parked.set()
        await asyncio.get_running_loop().create_future()

    @looseends.task
    async def gathers() -> None:
        tasks["gathers"] = current()
        await asyncio.gather(asyncio.sleep(0), deepest())

    @looseends.task
    async def awaits_a_task() -> None:
        tasks["awaits_a_task"] = current()
        await asyncio.create_task(deepest())

    @looseends.task
    async def iterates() -> None:
        tasks["iterates"] = current()
        async for _ in generator():
            await deepest()

    async def generator() -> Any:
        yield 1

    async def main() -> dict[str, list[str]]:
        held = [asyncio.create_task(one()) for one in (gathers, awaits_a_task, iterates)]
        await all_parked.wait()
        for _ in range(5):  # turns of the loop: the `sleep(0)` beside it takes one more than it took to get here
            await asyncio.sleep(0)
        found = {name: await asyncio.to_thread(look_at, task) for name, task in tasks.items()}
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        return found

    with asyncio.Runner(loop_factory=made) as runner:
        found = runner.run(main())
    for name, lines in found.items():
        own = [one.rpartition(".")[2] for one in names([line for line in lines if not stacks.is_library(line)])]
        assert own == [name, "deepest"], lines


def current() -> Task:
    task = looseends.current()
    assert task is not None
    return task


def test_a_captured_task_is_found_by_its_coroutine(own_spool: None, tmp_path: Path) -> None:
    """Nothing of ours stands around it; in a process of its own, since the hook stays installed."""
    import subprocess

    source = tmp_path / "captured.py"
    source.write_text(
        """
import asyncio, threading
import looseends
from looseends import slots, stacks
from looseends.lifecycle import PROCESS
looseends.install("asyncio")
async def worker():
    await asyncio.Event().wait()
def look():
    places = [(id(segment), at) for segment, at in PROCESS.open_places()]
    for lines, _ in stacks.Look().stacks(places).values():
        print(lines)
async def main():
    held = asyncio.create_task(worker())
    await asyncio.sleep(0.05)
    await asyncio.to_thread(look)
    held.cancel()
asyncio.run(main())
"""
    )
    done = subprocess.run([sys.executable, source], capture_output=True, text=True, timeout=30)
    assert f"'{source}:8 worker', 'asyncio/locks.py" in done.stdout, done.stdout + done.stderr


def test_a_block_gives_its_frame_back_when_it_ends_however_it_ends() -> None:
    with looseends.track("block") as task:
        assert HERE in look_at(task)[0]
    with contextlib.suppress(ValueError), looseends.track("block"):
        raise ValueError
    assert PROCESS.blocks == {}


def test_a_stack_is_at_most_forty_lines_and_keeps_the_innermost_of_own_code() -> None:
    def deep(left: int) -> list[str]:
        return look_at(current()) if not left else deep(left - 1)

    @looseends.task
    def task() -> list[str]:
        return deep(200)

    lines = task()
    assert len(lines) == STACK_LINES_MAX
    import re as library

    code = library.compile.__code__
    own = (task.__wrapped__.__code__, 1, sys._getframe())  # type: ignore[attr-defined]
    kept = stacks.lines_of([own, *[(code, 5, sys._getframe())] * 100])
    assert len(kept) == STACK_LINES_MAX and kept[0].startswith(str(Path(__file__).parent)) and stacks.is_library(kept[1])


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/srv/shop/mail.py", ("/srv/shop/mail.py", "")),
        ("/srv/.venv/lib/python3.12/site-packages/httpx/_client.py", ("httpx/_client.py", "httpx")),
        ("/usr/lib/python3/dist-packages/six.py", ("six.py", "six")),
        (asyncio.locks.__file__, ("asyncio/locks.py", "asyncio")),
        (threading.__file__, ("threading.py", "threading")),
        ("<frozen importlib._bootstrap>", ("importlib._bootstrap", "importlib")),
        ("<string>", ("<string>", "")),
        (stacks.__file__, None),
    ],
)
def test_own_code_is_what_lies_neither_in_the_standard_library_nor_among_packages(path: str, shown: Any) -> None:
    assert stacks.file_of(path) == shown


def test_of_a_service_that_is_itself_a_package_its_own_package_is_its_own_code() -> None:
    code = (lambda: None).__code__
    shop = code.replace(co_filename="/app/site-packages/shop/mail.py", co_qualname="send")
    httpx = code.replace(co_filename="/app/site-packages/httpx/_client.py", co_qualname="read")
    frame = sys._getframe()
    lines = stacks.lines_of([(shop, 88, frame), (httpx, 120, frame)])
    assert lines == ["shop/mail.py:88 send", "httpx/_client.py:120 read [httpx]"]


# --- when ---------------------------------------------------------------------------------------------------------


class Looking:
    """A Hangs of the test's own over this process's journal, at times that the test chooses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looseends.init(service="looking")
        journal = PROCESS.open()
        assert journal is not None and PROCESS.sender is not None
        self.cursors = Cursors(journal)
        self.hangs = Hangs(PROCESS, journal, self.cursors)
        self.ahead = 0
        real = time.monotonic_ns
        monkeypatch.setattr(hangs.time, "monotonic_ns", lambda: real() + self.ahead)

    def after(self, seconds: float) -> list[dict[str, Any]]:
        """The events of a look that happens so many seconds later than now, in a thread of its own as the sender's."""
        self.ahead = int(seconds * NS)
        self.hangs.rest_until = 0.0
        thread = threading.Thread(target=self.hangs.look)
        thread.start()
        thread.join()
        events = [json.loads(text) for text in self.hangs.texts()]
        self.hangs.sent()
        return events


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> Looking:
    return Looking(monkeypatch)


@contextlib.contextmanager
def hung(*names: str, **options: Any) -> Iterator[None]:
    """Threads that stand in a `track` block each."""
    done, begun = threading.Event(), threading.Semaphore(0)

    def stand(name: str) -> None:
        with looseends.track(name, **options):
            begun.release()
            done.wait()

    threads = [threading.Thread(target=stand, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
        begun.acquire()
    yield
    done.set()
    for thread in threads:
        thread.join()


def test_it_looks_at_half_the_deadline_and_right_before_it_and_else_never(looking: Looking) -> None:
    with hung("a", deadline=100):
        seen = [bool(looking.after(at)) for at in (0, 40, 51, 60, 90, 99.6, 101, 1_000)]
    assert seen == [False, False, True, False, False, True, False, False]


def test_work_without_a_deadline_of_its_own_is_looked_at_by_the_usual_one_and_never_means_never(looking: Looking) -> None:
    with hung("usual"), hung("never", deadline="never"):
        found = looking.after(151)
    assert [event["name"] for event in found] == ["usual"]


def test_it_looks_right_before_a_promise_of_progress_is_broken(looking: Looking) -> None:
    with hung("a", deadline="never", progress_within=10):
        assert [bool(looking.after(at)) for at in (5, 9, 9.6, 30)] == [False, False, True, False]


def test_who_makes_progress_is_left_alone(looking: Looking) -> None:
    with looseends.track("a", deadline="never", progress_within=10) as task:
        assert not looking.after(9)
        monkey = time.monotonic_ns
        try:
            time.monotonic_ns = lambda: monkey() + 9 * NS  # type: ignore[assignment]
            task.progress(0.5)
        finally:
            time.monotonic_ns = monkey
        assert not looking.after(9.8), "its promise runs to 19"


def test_what_it_sends_is_an_event_that_the_daemon_takes(looking: Looking) -> None:
    with hung("a", deadline=100):
        events = looking.after(51)
        batch = check_batch({"instance": {"id": "i", "service": "s"}, "events": events}, time.time_ns() + 60 * NS)
    assert not batch.rejected and not batch.warnings
    assert batch.events[0]["stack"][0].split(":")[0] == __file__ and batch.events[0]["seq"] == 1


def test_who_is_asked_answers_also_when_nothing_is_found(looking: Looking) -> None:
    from looseends import record
    from looseends.spec import Spec

    with looseends.track("seen", deadline="never") as seen:
        lost = record.begin(Spec("unseen", None, source="threading", deadline="never"), "{}", None)
        looking.hangs.ask([seen.id, lost.id, "no id", 7, None, "f" * 32])
        found = {event["name"]: event["stack"] for event in looking.after(0)}
        assert HERE in found["seen"][0] and found["unseen"] == [hangs.NOT_FOUND]
        record.drop(lost, "exit")
        looking.hangs.ask([lost.id])
        assert looking.after(0) == [], "it has ended: there is nothing to see"
    for rubbish in (None, {}, "abc", 5):
        looking.hangs.ask(rubbish)
    assert looking.after(0) == []


def test_an_id_that_somebody_else_gave_is_found_too(looking: Looking) -> None:
    from looseends import record
    from looseends.spec import Spec

    own = bytes(range(16))
    task = record.begin(Spec("queued", None, source="celery"), "{}", None, raw_id=own)
    stacks.begins_here(task)
    looking.hangs.ask([task.id])
    [event] = looking.after(0)
    assert event["task"] == task.id and HERE in event["stack"][0]
    stacks.ends_here(task)


def test_a_time_limit_that_stands_in_the_record_alone_counts(looking: Looking) -> None:
    from looseends import record
    from looseends.spec import Spec

    task = record.begin(Spec("queued", None, source="celery"), "{}", None, extra={"deadline": 20})
    stacks.begins_here(task)
    assert [bool(looking.after(at)) for at in (5, 11)] == [False, True]
    stacks.ends_here(task)


def test_a_look_has_bounds_in_number_and_what_waits_too(looking: Looking) -> None:
    with hung(*[f"t{n}" for n in range(hangs.STACKS_MAX + 20)], deadline=100):
        looking.ahead = 51 * NS
        looking.hangs.look()
        assert len(looking.hangs.texts()) == hangs.PENDING_MAX == hangs.STACKS_MAX


def test_its_own_cost_decides_when_it_looks_again(looking: Looking, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: stacks.Look) -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.05:  # its cost is CPU time
            continue
        raise_or_make(self)

    raise_or_make: Callable[[stacks.Look], None] = stacks.Look.__init__
    monkeypatch.setattr(stacks.Look, "__init__", slow)
    with hung("a", deadline=100):
        before = time.monotonic()
        assert looking.after(51)
        assert looking.hangs.due_at - before > 0.05 * hangs.PACE
        looking.ahead = int(99.6 * NS)
        looking.hangs.look()
        assert looking.hangs.texts() == [], "it rests, whatever is due"
        looking.hangs.ask(["f" * 32])
        assert looking.hangs.due_at - before > 0.05 * hangs.PACE, "also for who asks"
        assert len(looking.after(99.6)) == 1, "and forgets nothing meanwhile"


def test_a_look_that_fails_is_counted_and_holds_up_nothing(looking: Looking, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: stacks.Look) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(stacks.Look, "__init__", broken)
    with hung("a", deadline=100):
        assert looking.after(51) == []
    assert trouble.COUNTS["a stack could not be taken"] == 1
    assert looking.hangs.due_at > time.monotonic() + 5


# --- the loop -----------------------------------------------------------------------------------------------------


class Clock:
    """What `hangs` reads as the time: it stands still until it is set."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    monotonic_ns = staticmethod(time.monotonic_ns)


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(hangs, "time", found)
    return found


def turned(loop: asyncio.AbstractEventLoop) -> None:
    """Wait until a running loop has come round to what was put into it before."""
    done = threading.Event()
    loop.call_soon_threadsafe(done.set)
    assert done.wait(20)


def test_the_lag_of_a_loop_is_how_long_it_takes_to_come_round(stopped_clock: Clock) -> None:
    clock = stopped_clock
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    probe = Probe(loop)
    turned(loop)
    assert probe.lag_s() == 0.0
    blocked, release = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        release.wait()

    loop.call_soon_threadsafe(block)
    blocked.wait()
    seen = []
    for later in (0.0, 0.2, 0.5):
        clock.now = 100.0 + later
        seen.append(probe.lag_s())
    assert seen == pytest.approx([0.0, 0.2, 0.5]), "it is told while it lasts, and grows"
    release.set()
    turned(loop)
    clock.now = 200.0
    assert probe.lag_s() == pytest.approx(0.5), "and how long it was, once it turns again"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert probe.thread == thread.ident
    assert probe.lag_s() is None, "a loop that does not run lags by nothing"
    loop.close()
    assert probe.lag_s() is None


def test_a_process_without_a_loop_tells_no_lag_and_one_whose_loop_ended_none_any_more(stopped_clock: Clock) -> None:
    lags = Lags(PROCESS)
    PROCESS.loop = None
    assert lags.lag_ms() is None

    async def main() -> float | None:
        PROCESS.loop = asyncio.get_running_loop()
        return await asyncio.to_thread(lags.lag_ms)

    lag = asyncio.run(main())
    assert lag == 0.0
    assert lags.lag_ms() is None
    PROCESS.loop = None
