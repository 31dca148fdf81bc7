"""The journal: what survives a kill, a fork, a full disk, and bytes that somebody else wrote."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import struct
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import looseends
from harness import wait_until
from looseends import journal, segment, slots, trouble
from looseends.journal import Journal
from looseends.lifecycle import PROCESS
from looseends.slots import FAILED, FINISHED, Name
from looseends.wire import check_batch


def instance() -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "service": "tests"}


def events_in(folder: str) -> list[dict[str, Any]]:
    orphan = journal.adopt(folder)
    assert orphan is not None
    try:
        return [event for batch in orphan.batches() for event in batch]
    finally:
        orphan.close()


def write_some(spool: str, count: int = 20) -> str:
    """A closed journal with starts, ends, failures, long arguments. -> its folder."""
    written = Journal(spool, instance())
    number = written.name(Name("mail.send", ("n", "text"), "n", {"source": "task", "declared": True}))
    for n in range(count):
        long = '"' + "x" * (400 if n % 3 == 0 else 3) + '"'
        place = written.begin(number, f"[{n},{long}]".encode(), b"", 0, time.monotonic_ns())
        assert place is not None
        if n % 2:
            written.end(*place, time.monotonic_ns(), FINISHED)
        elif n % 4:
            written.end(*place, time.monotonic_ns(), FAILED, b'{"error":{"type":"E","message":"m"}}')
    written.close()
    return written.folder


KILLED = """
import os, struct, sys, threading, mmap
import looseends
sys.setswitchinterval(0.0001)
counters = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 4096)

@looseends.task(name="killed")
def work(worker, number, text):
    # the body of a task has begun: from here on its start may not be lost
    counters[worker * 8 : worker * 8 + 8] = struct.pack("<Q", number)

def loop(worker):
    number = 0
    while True:
        number += 1
        work(worker, number, "y" * (number % 300))

for worker in range(1, 3):
    threading.Thread(target=loop, args=(worker,), daemon=True).start()
print("up", flush=True)
loop(0)
"""


def begun_by(acknowledged: Path, count: int) -> None:
    """Wait until so many tasks have begun in all."""
    wait_until(lambda: sum(struct.unpack("<3Q", acknowledged.read_bytes()[:24])) >= count, f"{count} tasks to begin")


def test_no_start_is_lost_by_25_kills_of_three_threads(child: Any, spool: str, tmp_path: Path) -> None:
    checked = 0
    for trial in range(25):
        acknowledged = tmp_path / f"counters{trial}"
        acknowledged.write_bytes(bytes(4096))
        process = child(KILLED, str(acknowledged))
        assert process.stdout.readline() == "up\n"
        begun_by(acknowledged, random.Random(trial).choice((0, 1, 10, 100, 1_000)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        folder = next(iter(journal.folders(spool)), None)
        if folder is None or journal.read_instance(folder) is None:  # killed before its folder was made: nothing could begin
            assert acknowledged.read_bytes() == bytes(4096)
            shutil.rmtree(spool, ignore_errors=True)
            continue
        assert not journal.is_held(folder)
        found: dict[int, int] = {0: 0, 1: 0, 2: 0}
        counts: dict[int, int] = {0: 0, 1: 0, 2: 0}
        for event in events_in(folder):
            assert event["name"] == "killed"
            if event["type"] == "started":
                worker, number = event["args"]["worker"], event["args"]["number"]
                assert event["args"]["text"] == "y" * (number % 300)
                found[worker], counts[worker] = max(found[worker], number), counts[worker] + 1
        for worker, last in enumerate(struct.unpack("<3Q", acknowledged.read_bytes()[:24])):
            assert found[worker] >= last, f"worker {worker} began {last} tasks, the journal has {found[worker]}"
            assert counts[worker] == found[worker], "each number once, none missing"
            checked += last
        shutil.rmtree(folder)
    assert checked > 100, "there must have been something to lose"


QUEUED = """
from looseends.lifecycle import PROCESS
import collections
queue = collections.deque()
PROCESS.open().begin = PROCESS.open().begin_plain = lambda *a: queue.append(a)
record._fit = lambda *a: None
"""
LATE = """
assert tailored._TEXT.count("map[at] = 1") == 1
tailored._TEXT = tailored._TEXT.replace("map[at] = 1", "pass").replace("result = {await_}function({names})",
    "result = {await_}function({names}); segment.map[at] = 1")
"""


@pytest.mark.parametrize("fault", [QUEUED, LATE], ids=["a queue in memory", "a commit after the body"])
def test_a_planted_journal_without_write_through_fails_the_same_check(child: Any, spool: str, tmp_path: Path, fault: str) -> None:
    acknowledged = tmp_path / "counters"
    acknowledged.write_bytes(bytes(4096))
    planted = "from looseends import record, tailored\n" + fault + KILLED
    if fault is LATE:  # so that the kill comes while bodies run, and all of them are short records
        planted = planted.replace('"y" * (number % 300)', '"y"').replace(
            'pack("<Q", number)', 'pack("<Q", number); time.sleep(0.05)'
        )
        planted = "import time\n" + planted
    process = child(planted, str(acknowledged))
    assert process.stdout.readline() == "up\n"
    begun_by(acknowledged, 20 if fault is LATE else 300)
    process.send_signal(signal.SIGKILL)
    process.wait()
    [folder] = journal.folders(spool)
    began = struct.unpack("<3Q", acknowledged.read_bytes()[:24])
    assert sum(began) > sum(event["type"] == "started" for event in events_in(folder))


def test_a_forked_child_is_an_instance_of_its_own(spool: str, receiver: Any) -> None:
    with looseends.track("parent"):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with looseends.track("child"):
                    pass
                code = 0 if looseends.flush(10) == 0 else 3
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert PROCESS.journal is not None and journal.is_held(PROCESS.journal.folder)
    assert looseends.flush(10) == 0
    by_name = {event["name"]: event for event in receiver.events if event["type"] == "started"}
    assert set(by_name) == {"parent", "child"} and by_name["child"]["parent"] == by_name["parent"]["task"]
    pids = {batch.instance["pid"] for batch in receiver.batches}
    assert len(pids) == 2 and len({batch.instance["id"] for batch in receiver.batches}) == 2
    assert receiver.types("parent") == ["started", "finished"] and receiver.types("child") == ["started", "finished"]


def test_a_task_that_ends_in_a_forked_child_does_not_end_in_the_parent(recorded: Callable[[], Any]) -> None:
    task = looseends.track("both")
    task.__enter__()
    pid = os.fork()
    if pid == 0:
        task.__exit__(None, None, None)
        os._exit(0)
    os.waitpid(pid, 0)
    events = recorded()
    task.__exit__(None, None, None)
    assert [event["type"] for event in events] == ["started", "dropped"] and events[1]["reason"] == "exit"


EXITS = {
    "the end of the script": ("", 0, ["started", "finished"]),
    "sys.exit": ("import sys; sys.exit(3)", 3, ["started", "finished"]),
    "an exception": ("raise RuntimeError('planted')", 1, ["started", "finished"]),
    "os._exit": ("import os; os._exit(4)", 4, ["started", "finished"]),
    "a daemon thread still at work": (
        "import threading, time\n"
        "def work():\n    with looseends.track('left'): up.set(); time.sleep(60)\n"
        "up = threading.Event(); threading.Thread(target=work, daemon=True).start(); up.wait()",
        0,
        ["started", "finished", "started", "dropped"],
    ),
}


@pytest.mark.parametrize("way", EXITS)
def test_whatever_way_a_process_ends_its_records_are_there(way: str, child: Any, spool: str) -> None:
    code, status, types = EXITS[way]
    process = child(f"import looseends\nwith looseends.track('done'): pass\n{code}")
    process.communicate(timeout=20)
    assert process.returncode == status
    [folder] = journal.folders(spool)
    assert [event["type"] for event in events_in(folder)] == types


def test_a_process_that_ends_with_a_daemon_listening_leaves_no_folder(child: Any, spool: str, receiver: Any) -> None:
    process = child("import looseends\nwith looseends.track('done'): pass")
    process.communicate(timeout=20)
    assert receiver.types("done") == ["started", "finished"] and receiver.calls[-1][0] == "DELETE"
    assert journal.folders(spool) == []


def test_segments_grow_and_drained_ones_are_unlinked(spool: str, receiver: Any) -> None:
    tick = looseends.task(name="tick")(lambda n: None)
    for n in range(2000):
        tick(n)
    assert looseends.flush(20) == 0
    assert PROCESS.journal is not None
    files = sorted(name for name in os.listdir(PROCESS.journal.folder) if name.endswith(".seg"))
    assert "00000001.seg" not in files and 1 <= len(files) <= 2
    assert sorted(e["seq"] for e in receiver.of("tick") if e["type"] == "started") == list(range(1, 2001))


def test_ids_are_uuids_of_version_8_that_sort_by_their_making(spool: str) -> None:
    ids = []
    for _ in range(300):  # over the edge of the first segment
        with looseends.track("x") as task:
            ids.append(task.id)
    assert len(set(ids)) == 300 and all(uuid.UUID(i).version == 8 for i in ids)
    first = ids[:240]
    assert first == sorted(first)


def test_a_full_disk_is_counted_and_the_work_goes_on(spool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with looseends.track("before"):
        pass
    monkeypatch.setattr(os, "posix_fallocate", full)
    for _ in range(600):
        with looseends.track("x"):
            pass
    assert PROCESS.journal is not None and PROCESS.journal.dropped >= 300
    monkeypatch.undo()


def test_a_full_side_file_loses_arguments_and_no_start(spool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "SIDE_BYTES_MAX", 4096)
    written = Journal(spool, instance())
    number = written.name(Name("n", ("a",), None, {}))
    for _ in range(20):
        assert written.begin(number, b'["' + b"x" * 500 + b'"]', b"", 0, time.monotonic_ns()) is not None
    written.close()
    events = events_in(written.folder)
    lost = [event for event in events if event.get("not_replayable_because", "").startswith("the spool had no room")]
    assert len(events) == 20 and 10 <= len(lost) < 20 and "args" not in lost[0]


def test_an_unwritable_spool_falls_back_and_says_so(
    spool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOOSEENDS_SPOOL_DIR", str(tmp_path / "file" / "spool"))
    with looseends.track("x"):
        pass
    assert PROCESS.journal is not None and PROCESS.journal.folder.startswith(f"{tmp_path}/tmp/looseends-{os.getuid()}")
    assert caplog.text.count("cannot be written") == 1


def test_the_process_bound_holds(spool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PROCESS_BYTES_MAX", 5 << 20)
    written = Journal(spool, instance())
    number = written.name(Name("n", (), None, {}))
    for _ in range(30_000):
        written.begin(number, b"[]", b"", 0, 1)
    assert written.dropped > 0 and written.bytes_used() <= 5 << 20
    written.close()


def test_signal_handlers_and_finalisers_may_run_tasks_while_tasks_are_recorded(recorded: Callable[[], Any]) -> None:
    tick = looseends.task(name="tick")(lambda n: None)
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        tick(-handled)
        signal.setitimer(signal.ITIMER_REAL, 0.0003)  # armed anew only now: handlers must not pile up on a slow machine

    class Finalised:
        def __del__(self) -> None:
            tick(0)

    tick(0)
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0003)
    try:
        for number in itertools.count(1):
            Finalised()
            tick(number)
            if number >= 3_000 and handled > 5:
                break
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert trouble.COUNTS.keys() <= {"no answer"}
    assert PROCESS.journal is not None and PROCESS.journal.dropped == 0
    started = [event for event in recorded() if event["type"] == "started"]
    assert len(started) == 6001 + handled and len({event["seq"] for event in started}) == len(started)
    assert len({event["task"] for event in started}) == len(started)
    assert sorted(e["args"]["args"]["v"][0] if "args" in e["args"] else e["args"]["n"] for e in started)[0] == -handled


def test_a_spool_of_somebody_else_is_not_written_to(spool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a folder of somebody else's")
    os.mkdir(spool)
    os.chown(spool, 65534, 65534)
    with looseends.track("x"):
        pass
    assert os.listdir(spool) == []
    assert PROCESS.journal is not None and PROCESS.journal.folder.startswith(f"{tmp_path}/tmp/looseends-0/")


def test_a_journal_that_cannot_be_made_leaves_nothing_behind(spool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    descriptors = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        Journal(spool, instance())
    assert os.listdir(spool) == [] and len(os.listdir("/proc/self/fd")) == descriptors


# --- reading what others wrote ------------------------------------------------------------------------------------


def test_every_event_of_a_journal_passes_the_daemons_checks(spool: str) -> None:
    folder = write_some(spool)
    events = events_in(folder)
    batch = check_batch({"instance": journal.read_instance(folder), "events": events}, time.time_ns())
    assert batch.rejected == [] and batch.warnings == []
    assert [e["type"] for e in events].count("started") == 20 and [e["type"] for e in events].count("failed") == 5


def test_thousands_of_damaged_journals_raise_nothing_and_invent_no_task(spool: str) -> None:
    folder = write_some(spool)
    names = [n for n in os.listdir(folder) if n not in ("lock", "instance.json")]
    good = {name: Path(folder, name).read_bytes() for name in names}
    known = {event["task"] for event in events_in(folder)}
    rng = random.Random(2026)
    survived = 0
    for _ in range(1500):
        name = rng.choice(names)
        data = bytearray(good[name])
        kind = rng.randrange(5)
        used = min(len(data), 4096 + 20 * 256) if name.endswith("seg") else len(data)
        if kind == 0:
            data = data[: rng.randrange(len(data))]
        elif kind == 1:
            data += rng.randbytes(rng.randrange(5000))
        elif kind == 2:
            start = rng.randrange(used)
            data[start : start + 40] = rng.randbytes(40)
        else:
            for _ in range(rng.randrange(1, 20)):
                data[rng.randrange(used)] = rng.randrange(256)
        Path(folder, name).write_bytes(data)
        events = events_in(folder)
        assert {event["task"] for event in events} <= known
        survived += len(events) > 0
        check_batch({"instance": {"id": "x", "service": "y"}, "events": events[:1000]}, time.time_ns())
        Path(folder, name).write_bytes(good[name])
    assert 100 < survived < 1500
    assert {event["task"] for event in events_in(folder)} == known


def test_random_bytes_under_our_names_are_no_journal(spool: str) -> None:
    rng = random.Random(7)
    for _ in range(200):
        folder = Path(spool, str(uuid.uuid4()))
        folder.mkdir(parents=True)
        for name in ("lock", "instance.json", "names", "00000001.seg", "00000001.side"):
            (folder / name).write_bytes(rng.randbytes(rng.choice([0, 1, 100, 64 << 10])))
        assert journal.read_instance(str(folder)) is None
        assert journal.adopt(str(folder)) is None and not journal.is_held(str(folder))


def test_links_pipes_and_foreign_names_are_not_followed(spool: str, tmp_path: Path) -> None:
    folder = write_some(spool)
    os.symlink(folder, f"{spool}/{uuid.uuid4()}")
    os.mkdir(f"{spool}/not-an-id")
    Path(f"{spool}/{uuid.uuid4()}").write_text("a file")
    assert journal.folders(spool) == [folder]
    secret = tmp_path / "secret.json"
    Path(folder, "instance.json").rename(secret)
    os.symlink(secret, f"{folder}/instance.json")
    assert journal.read_instance(folder) is None and journal.adopt(folder) is None
    os.unlink(f"{folder}/instance.json")
    os.mkfifo(f"{folder}/instance.json")
    assert journal.read_instance(folder) is None
    os.unlink(f"{folder}/instance.json")
    os.link(secret, f"{folder}/instance.json")
    assert journal.read_instance(folder) is None, "a second name may stand in another user's folder"
    os.unlink(f"{folder}/instance.json")
    secret.rename(f"{folder}/instance.json")
    assert journal.read_instance(folder) is not None


def test_a_foreign_owner_is_not_read(spool: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a file of somebody else's")
    folder = write_some(spool)
    os.chown(f"{folder}/instance.json", 65534, 65534)
    assert journal.read_instance(folder) is None
    os.chown(folder, 65534, 65534)
    assert journal.folders(spool) == [] and journal.adopt(folder) is None


def test_a_live_journal_is_not_adopted_and_a_dead_one_only_once(spool: str) -> None:
    live = Journal(spool, instance())
    assert journal.is_held(live.folder) and journal.adopt(live.folder) is None
    live.close()
    assert not journal.is_held(live.folder)
    orphan = journal.adopt(live.folder)
    assert orphan is not None and journal.is_held(live.folder) and journal.adopt(live.folder) is None
    orphan.close()
    orphan.close()
    again = journal.adopt(live.folder)
    assert again is not None
    again.discard()
    assert not Path(live.folder).exists()


def test_a_lock_is_seen_from_another_process(child: Any, spool: str) -> None:
    process = child(
        "import looseends\nwith looseends.track('x'):\n    print('up', flush=True)\n    input()\n    import os; os._exit(0)"
    )
    assert process.stdout.readline() == "up\n"
    [folder] = journal.folders(spool)
    assert journal.is_held(folder) and journal.adopt(folder) is None
    process.communicate("\n", timeout=20)
    assert not journal.is_held(folder) and not journal.is_taken(folder)
    assert [event["type"] for event in events_in(folder)] == ["started"]


def test_who_adopts_a_journal_is_not_taken_for_its_process(child: Any, spool: str) -> None:
    folder = write_some(spool)
    neighbour = child(
        f"from looseends import journal\norphan = journal.adopt({folder!r})\nprint(orphan is not None, flush=True)\ninput()"
    )
    assert neighbour.stdout.readline() == "True\n"
    assert journal.is_taken(folder) and not journal.is_held(folder), "somebody has it, and its process is dead"
    assert journal.adopt(folder) is None
    neighbour.communicate("\n", timeout=20)
    assert not journal.is_taken(folder)


def test_a_spool_that_is_not_there_has_no_folders(tmp_path: Path) -> None:
    assert journal.folders(str(tmp_path / "nothing")) == []
    assert journal.adopt(str(tmp_path / "nothing")) is None and not journal.is_held(str(tmp_path / "nothing"))
    assert journal.folder_bytes(str(tmp_path / "nothing")) == 0


def test_a_side_reference_and_its_bytes_must_agree() -> None:
    data = slots.SIDE_HEAD.pack(3, slots.crc32(b"abc")) + b"abc"
    assert slots.read_ref(slots.pack_ref(0, 3), lambda offset, size: data[offset : offset + size]) == b"abc"
    assert slots.read_ref(slots.pack_ref(0, 4), lambda offset, size: data) is None
    assert slots.read_ref(slots.pack_ref(1, 3), lambda offset, size: b"") is None
    assert slots.read_ref(slots.pack_ref(0, 3), lambda offset, size: data[:-1] + b"x") is None
    assert "other" not in trouble.COUNTS
