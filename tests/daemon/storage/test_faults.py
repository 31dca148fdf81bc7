"""What the disk may do to us, one test each: refuse a write, fail a sync, be full, be read-only; and that it heals by itself.

The faults are real ones, made by strace in the system calls of a real process, or by a file system that is really full.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import harness
from looseends_daemon.store.connection import Database

HERE = Path(__file__).parent
STRACE = shutil.which("strace")
NO_STRACE = "strace is not installed: no fault of the disk was injected (Debian: apt install strace)"
needs_strace = pytest.mark.skipif(STRACE is None, reason=NO_STRACE)


class Scribe:
    """A process that writes what it is told."""

    def __init__(self, processes: harness.Processes, path: Path) -> None:
        self.processes, self.path = processes, path
        self.process = processes.start(sys.executable, HERE / "scribe.py", path, stdin=True)
        self.process.wait_for("ready")

    def say(self, line: str) -> str:
        """Its answer to one line."""
        self.process.say(line)
        return self.process.wait_for("^(ok|no|limited|reopened)").string.strip()

    def write(self, number: int) -> bool:
        """Whether it says that this is stored."""
        return self.say(f"write {number}").startswith("ok")

    @contextmanager
    def failing(self, rule: str) -> Iterator[None]:
        """Meanwhile system calls fail as the rule of strace says."""
        assert STRACE is not None
        calls = rule.partition(":")[0]
        tracer = self.processes.start(
            STRACE, "-f", "-q", "-p", str(self.process.pid), "-e", f"trace={calls}", "-e", f"inject={rule}"
        )
        harness.wait_until(lambda: self._tracer() == tracer.pid, "strace to attach")
        yield
        tracer.signal(2)
        tracer.wait()

    def _tracer(self) -> int:
        """The tracer of the youngest thread: strace attaches to the threads one after the other."""
        threads = sorted(Path(f"/proc/{self.process.pid}/task").iterdir(), key=lambda path: int(path.name))
        traced = [
            int(line.split()[1]) for path in threads for line in (path / "status").read_text().splitlines() if "TracerPid" in line
        ]
        return traced[0] if len(set(traced)) == 1 else 0

    def stored(self) -> list[int]:
        """What a fresh look at the file finds."""
        conn = sqlite3.connect(self.path)
        try:
            assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            return [row[0] for row in conn.execute("SELECT id FROM environment ORDER BY id")]
        finally:
            conn.close()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        with contextlib.suppress(OSError):
            self.process.hang_up()

    def end(self) -> None:
        """Let it close in order."""
        self.process.hang_up()
        assert self.process.wait() == 0, self.process.output


@pytest.fixture
def scribe(processes: harness.Processes, tmp_path: Path) -> Iterator[Callable[..., Scribe]]:
    """Start a scribe."""
    made: list[Scribe] = []

    def start(path: Path | None = None) -> Scribe:
        made.append(Scribe(processes, path or tmp_path / "looseends.db"))
        return made[-1]

    yield start
    for one in made:
        one.kill()


@needs_strace
@pytest.mark.parametrize(
    ("rule", "reopens"),
    [
        ("fdatasync:error=EIO", True),
        ("pwrite64:error=EIO", True),
        ("pwrite64:error=EROFS", True),
        ("pwrite64:error=ENOSPC", False),
    ],
)
def test_nothing_is_answered_while_the_disk_fails_and_everything_again_once_it_does_not(
    scribe: Callable[..., Scribe], rule: str, reopens: bool
) -> None:
    one = scribe()
    answered = [number for number in range(1, 4) if one.write(number)]
    with one.failing(rule):
        assert [number for number in range(4, 8) if one.write(number)] == []
        assert "trouble None" not in one.say("state")
    answered += [number for number in range(8, 12) if one.write(number)]
    assert answered == [1, 2, 3, 8, 9, 10, 11], "it heals by itself"
    state = one.say("state")
    assert ("reopened 0" not in state) == reopens, state
    assert "missing None trouble None" in state
    one.kill()
    assert set(answered) <= set(one.stored()), "what was answered is on the disk"


@needs_strace
def test_after_a_failed_sync_the_file_is_opened_anew_before_anything_is_answered(scribe: Callable[..., Scribe]) -> None:
    one = scribe()
    assert one.write(1)
    with one.failing("fdatasync:error=EIO:when=1"):
        assert not one.write(2)
        assert one.write(3), "the second sync works"
    assert "reopened 1 missing None" in one.say("state")
    one.end()
    assert {1, 3} <= set(one.stored())


def test_a_file_that_may_not_grow_refuses_and_heals_when_it_may(scribe: Callable[..., Scribe]) -> None:
    one = scribe()
    assert one.write(1)
    one.say(f"limit {os.path.getsize(f'{one.path}-wal') + 4_096}")
    results = [one.write(number) for number in range(2, 6)]
    assert not any(results), one.process.output
    one.say("limit 0")
    assert one.write(6)
    one.end()
    assert {1, 6} <= set(one.stored())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount the small file system that this test fills")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_refuses_and_heals_when_it_is_freed(scribe: Callable[..., Scribe], small_disk: Path) -> None:
    one = scribe(small_disk / "looseends.db")
    assert one.write(1)
    ballast = small_disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 4_096)
    refused = [number for number in range(2, 6) if not one.write(number)]
    assert refused, "the disk is full"
    ballast.unlink()
    assert one.write(10)
    assert "trouble None" in one.say("state")
    one.end()
    assert {1, 10} <= set(one.stored())


async def test_a_reopening_that_does_not_find_what_was_answered_says_so_for_good(tmp_path: Path) -> None:
    path = str(tmp_path / "looseends.db")
    database = await Database.open(path)
    newest = "INSERT OR REPLACE INTO mark (name, value) VALUES ('last_event_at', ?)"
    await database.write(lambda conn: conn.execute(newest, (2,)).rowcount)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute(newest, (1,))  # the disk went back to what it held before
    database._broken = True
    await database.write(lambda conn: None)
    assert database.missing is not None and database.reopened == 1
    await database.write(lambda conn: None)
    assert database.missing is not None
    await database.close()


def test_a_file_that_lost_its_last_writes_is_noticed(scribe: Callable[..., Scribe]) -> None:
    """The planted fault: what these tests look at must be able to lack what was answered."""
    one = scribe()
    answered = [number for number in range(1, 4) if one.write(number)]
    one.kill()
    wal = Path(f"{one.path}-wal")
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])
    assert not set(answered) <= set(one.stored())
