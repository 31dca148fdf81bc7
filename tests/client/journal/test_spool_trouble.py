"""A spool that is full, read-only, deleted under a running process, or as large as it may be: counted, said, never raised."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

import looseends
from looseends import adoption, folder, journal, segment, trouble
from looseends.journal import Journal, SpoolFull
from looseends.lifecycle import PROCESS
from looseends.slots import FINISHED, Name
from looseends.transport import Transport

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def made(spool: str) -> tuple[Journal, int]:
    """A journal and the number of a name in it."""
    journal_ = Journal(spool, {"id": str(uuid.uuid4()), "service": "tests"})
    return journal_, journal_.name(Name("work", ("n",), None, {"source": "task", "declared": True}))


def left_in(spool: str) -> list[dict[str, Any]]:
    """Every event of every journal of the dead."""
    events = []
    for path in journal.folders(spool):
        orphan = journal.adopt(path)
        assert orphan is not None
        events += [event for batch in orphan.batches() for event in batch]
        assert orphan.damaged == 0
        orphan.close()
    return events


# --- deleted --------------------------------------------------------------------------------------------------------

DELETED = """
import sys, threading, time
import looseends
from looseends.lifecycle import PROCESS
sys.setswitchinterval(1e-4)
numbers = {1: 0, 2: 0}

@looseends.task(name="work")
def work(worker, n, text):
    numbers[worker] = n

def loop(worker):
    while not stop.is_set():
        work(worker, numbers[worker] + 1, "z" * (400 if numbers[worker] % 5 == 0 else 3))
        time.sleep(0.0001)

stop = threading.Event()
opened = looseends.track("open before, ended after")
lost = looseends.track("open to the end")
opened.__enter__()
lost.__enter__()
threads = [threading.Thread(target=loop, args=(worker,), daemon=True) for worker in numbers]
for thread in threads:
    thread.start()
while min(numbers.values()) < 20:
    time.sleep(0.001)
print("up", flush=True)
sys.stdin.readline()
PROCESS.journal.refresh()  # what the sender's thread does each 5 s
opened.__exit__(None, None, None)
time.sleep(0.05)
stop.set()
for thread in threads:
    thread.join()
late = looseends.task(name="a name that came later")(lambda: None)
late()
print(numbers[1], numbers[2], flush=True)
sys.stdin.readline()
"""


def test_a_spool_deleted_under_a_running_process_is_made_anew_with_all_that_was_in_it(child: Any, spool: str) -> None:
    process = child(DELETED)
    assert process.stdout.readline() == "up\n"
    shutil.rmtree(spool)
    process.stdin.write("\n")
    process.stdin.flush()
    told = [int(word) for word in process.stdout.readline().split()]
    [path] = journal.folders(spool)
    assert journal.is_held(path) and os.stat(spool).st_mode & 0o777 == os.stat(path).st_mode & 0o777 == 0o700
    process.send_signal(signal.SIGKILL)
    process.wait()
    events = left_in(spool)
    for worker, last in zip((1, 2), told, strict=True):
        mine = [event for event in events if event["name"] == "work" and event.get("args", {}).get("worker") == worker]
        assert sorted(event["args"]["n"] for event in mine) == list(range(1, last + 1)) and last > 20
    assert len([event for event in events if event["type"] == "finished"]) == sum(told) + 2
    assert [e["type"] for e in events if e["name"] == "open before, ended after"] == ["started", "finished"]
    assert [e["type"] for e in events if e["name"] == "open to the end"] == ["started"]
    assert [e["type"] for e in events if e["name"] == "a name that came later"] == ["started", "finished"]


@pytest.mark.parametrize("gone", ["lock", "names", "00000001.seg"])
def test_a_single_file_deleted_is_noticed_too(gone: str, spool: str) -> None:
    mine, number = made(spool)
    assert mine.begin(number, b"[1]", b"", 0, time.monotonic_ns()) is not None
    os.unlink(f"{mine.folder}/{gone}")
    mine.refresh()
    assert sorted(os.listdir(mine.folder)) == ["00000001.seg", "instance.json", "lock", "names"]
    assert len([kind for kind in trouble.COUNTS if kind.startswith("the spool folder was deleted")]) == 1
    mine.refresh()
    assert sum(trouble.COUNTS.values()) == 1, "once is enough"
    mine.close()
    assert [event["args"] for event in left_in(spool)] == [{"n": 1}]


def test_a_spool_deleted_and_not_to_be_made_again_raises_nothing(spool: str) -> None:
    looseends.init()
    work = looseends.task(name="work")(lambda n: n * n)
    assert work(1) == 1
    assert PROCESS.journal is not None
    shutil.rmtree(spool)
    Path(spool).write_text("a file stands there now")
    PROCESS.journal.refresh()
    assert [work(n) for n in range(2000)] == [n * n for n in range(2000)]
    assert trouble.COUNTS["the spool folder cannot be kept up; a kill now may lose records"] >= 1
    assert PROCESS.journal.dropped >= 1000


# --- full, read-only ------------------------------------------------------------------------------------------------

FULL = """
import os, subprocess, sys, time
folder = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
import looseends
from looseends.lifecycle import PROCESS
ballast = os.open(f"{folder}/ballast", os.O_RDWR | os.O_CREAT)
os.posix_fallocate(ballast, 0, 600 << 10)
work = looseends.task(name="work")(lambda n, text: n)
total = 0
while PROCESS.journal is None or not PROCESS.journal.dropped:
    work(total, "z" * 300)
    total += 1
assert total < 5000
assert [work(n, "x") for n in range(1000)] == list(range(1000))
dropped = PROCESS.journal.dropped
assert dropped == 1001, dropped
os.ftruncate(ballast, 0)
while PROCESS.journal.current is None:  # the sender's thread tries once a second
    PROCESS.sender.wake()
    time.sleep(0.01)
for n in range(100):
    work(n, "after")
assert PROCESS.journal.dropped == dropped
from looseends import journal
place = PROCESS.journal.folder
PROCESS.goodbye(0.5)
orphan = journal.adopt(place)
events = [event for batch in orphan.batches() for event in batch]
started = [event for event in events if event["type"] == "started"]
print(len(started) - (total - 1), orphan.dropped, orphan.damaged)
"""


def test_a_full_disk_is_counted_said_kept_and_gone_when_there_is_room_again(spool: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "none", small], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here: needs user namespaces, or root")
    environ = {**os.environ, "LOOSEENDS_SPOOL_DIR": f"{small}/spool", "TMPDIR": str(small)}
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", FULL, small], env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["100", "1001", "0"]
    assert "tasks could not be recorded" in done.stderr and "No space left on device" in done.stderr


def test_what_is_left_out_of_a_record_is_counted_apart_and_said(spool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "SIDE_BYTES_MAX", 512)
    mine, number = made(spool)
    places = [mine.begin(number, b'["' + b"x" * 500 + b'"]', b"", 0, time.monotonic_ns()) for _ in range(3)]
    assert all(places) and (mine.dropped, mine.left_out()) == (0, 2), "no record is missing"
    mine.prepare()
    mine.prepare()
    assert trouble.COUNTS == {"arguments, errors or progress found no room in the spool": 1}
    mine.close()


READ_ONLY = """
import os, sys, time
import looseends
from looseends.lifecycle import PROCESS
work = looseends.task(name="work")(lambda n: n)
work(0)
os.chmod(PROCESS.journal.folder, 0o500)
while not PROCESS.journal.dropped and PROCESS.journal.bytes_used() < 10 << 20:
    assert work(1) == 1
print(PROCESS.journal.folder, PROCESS.journal.dropped, flush=True)
os.chmod(PROCESS.journal.folder, 0o700)
"""


@pytest.mark.parametrize("where", ["a spool that is read-only", "a folder that becomes so"])
def test_a_read_only_folder_is_no_trouble_of_the_service(where: str, spool: str, tmp_path: Path) -> None:
    # root may write everywhere: in a user namespace without a mapping it is as bound as anybody
    bound = ("unshare", "--user") if os.getuid() == 0 else ()
    if bound and subprocess.run([*bound, "true"], capture_output=True, check=False).returncode:
        pytest.skip("root cannot give up its rights here: needs user namespaces, or an ordinary user")
    (tmp_path / "tmp").mkdir()
    os.mkdir(spool, 0o500 if where == "a spool that is read-only" else 0o700)
    command = [*bound, sys.executable, "-c", READ_ONLY]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]
    path, dropped = done.stdout.split()
    assert int(dropped) == 1
    if where == "a spool that is read-only":
        assert path.startswith(f"{tmp_path}/tmp/looseends-") and "cannot be written" in done.stderr
    else:
        assert path.startswith(spool)


def test_segments_are_made_in_a_storm_of_signals() -> None:
    memory = tempfile.mkdtemp(prefix="le-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    seen = 0

    def handler(*_: object) -> None:
        nonlocal seen
        seen += 1

    before = signal.signal(signal.SIGALRM, handler)
    try:
        mine, number = made(f"{memory}/spool")
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        begun = time.monotonic()
        while len(mine.segments) < 10:  # nobody prepares one here: each is made on the way of a record
            assert mine.begin(number, b"[1]", b"", 0, 1) is not None
            assert time.monotonic() - begun < 30
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        shutil.rmtree(memory)
    mine.close()
    assert seen > 10 and mine.dropped == 0


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_a_spool_with_as_many_journals_as_it_may_hold_gets_no_more_and_no_second_spool(
    spool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "JOURNALS_MAX", 2)
    others = [made(spool)[0] for _ in range(2)]
    with pytest.raises(SpoolFull, match="2 journals that nobody has taken"):
        made(spool)
    work = looseends.task(name="work")(lambda n: n)
    assert [work(n) for n in range(5)] == list(range(5))
    assert PROCESS.journal is None and PROCESS.missed == 5 and not (tmp_path / "tmp").exists()
    others[0].remove()
    PROCESS._retry_at = 0.0
    work(5)
    assert PROCESS.journal is not None and PROCESS.journal.dropped == 5 and PROCESS.missed == 0
    others[1].remove()


def test_who_shares_the_spool_counts(spool: str) -> None:
    mine, number = made(spool)
    mine.others_bytes = (256 << 20) - (4 << 20) - (64 << 10) + 1
    for _ in range(241):
        mine.begin(number, b"", b"", 0, 1)
    assert mine.dropped == 1
    mine.prepare()
    assert trouble.COUNTS["tasks could not be recorded"] == 1
    mine.close()


def test_a_process_that_lives_longer_than_a_week_leaves_a_journal_that_is_not_old(spool: str) -> None:
    mine, number = made(spool)
    mine.begin(number, b"[1]", b"", 0, time.monotonic_ns())
    os.utime(mine.folder, (1, 1))
    look = adoption.Adoption(mine, Transport(PROCESS.settings(), spool), lambda answer: True)
    look.look_around(1.0, may_send=False)
    assert time.time() - os.stat(mine.folder).st_mtime < 60
    mine.close()
    heir, _ = made(spool)
    look = adoption.Adoption(heir, Transport(PROCESS.settings(), spool), lambda answer: True)
    for now in (1.0, 10.0):
        look.look_around(now, may_send=False)
    assert os.path.exists(mine.folder), "it died a moment ago; nobody has given up on it"
    os.utime(mine.folder, (1, 1))
    look.look_around(20.0, may_send=False)
    assert not os.path.exists(mine.folder) and heir.dropped == 1
    heir.close()


def test_a_dead_process_s_drops_are_told_by_whoever_adopts_it(spool: str, receiver: Any) -> None:
    left, number = made(spool)
    place = left.begin(number, b"[1]", b"", 0, time.monotonic_ns())
    assert place is not None
    left.end(*place, time.monotonic_ns(), FINISHED)
    left.drop(3)
    left.close()
    looseends.init()
    receiver.wait(lambda r: any(method == "DELETE" for method, *_ in r.calls))
    who = os.path.basename(left.folder)
    beats = [body for method, path, body, _ in receiver.calls if method == "PUT" and path.endswith(f"{who}/heartbeat")]
    assert [beat["dropped"] for beat in beats] == [3]
    PROCESS.goodbye(2)
