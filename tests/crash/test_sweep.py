"""Every system call by which a fixed course of events changes the disk fails once, or is the last: nothing answered is missing.

`make test` takes some of the calls, `make crash` all of them: the process is killed at it, or the call answers EIO or ENOSPC
once, or EIO from then on. The checks are proven on stores that answer too early, answer in spite of an error, or store a step in
two commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

import harness
from crash import books, story
from crash.story import State
from crash.tellings import CHANGES, Found, Teller, Told, judge, needs_strace, undisturbed

pytestmark = needs_strace

HOW = {
    "kill": "signal=SIGKILL:when={}",
    "EIO": "error=EIO:when={}",
    "ENOSPC": "error=ENOSPC:when={}",
    "EIO-for-good": "error=EIO:when={}+",
}
THREADS = ("desk", "writer")
SWEEP_VARIABLE = "CRASH_SWEEP"
POINTS = 12
POINTS_PLANTED = 6
OTHER_CHANGES = ("pwritev", "fallocate", "sync_file_range", "copy_file_range", "sendfile", "truncate", "link", "linkat")


class Point(NamedTuple):
    """The n-th such call of this thread, from 1."""

    thread: str
    call: str
    n: int

    def __str__(self) -> str:
        return f"{self.call} {self.n} of the {self.thread}"


@dataclass
class Figures:
    """What a sweep saw. `odd`: processes that neither told all nor refused."""

    how: str
    struck: int = 0
    refusals: int = 0
    found: Found = field(default_factory=Found)
    odd: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.how} at {self.found.judged} points, {self.struck} struck, {self.refusals} refusals; {self.found}"


class Sweep:
    """Tellings of the same story with one fault each. `states`: what the file is after each step of the story.

    `source`: the file it begins with; None: there is none. `told`: the last one.
    """

    def __init__(self, teller: Teller, folder: Path, source: Path | None = None) -> None:
        self._teller, self._folder, self._source = teller, folder, source
        self.told = Told()
        self.states: list[State] = undisturbed(folder / "undisturbed.db", 1)

    def calls(self) -> dict[tuple[str, str], int]:
        """How often each thread makes each call when nothing fails."""
        counted: Counter[tuple[str, str]] = Counter()
        for thread in THREADS:
            log = self._folder / "log"
            told = self._tell(thread, "-o", str(log), "-e", f"trace={CHANGES},?{',?'.join(OTHER_CHANGES)}")
            assert told.closed and not told.refused, told
            counted.update((thread, call) for call in re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE))
        unknown = {call for _, call in counted} & set(OTHER_CHANGES)
        assert not unknown, f"the disk is changed by calls that are not swept: {unknown}"
        return dict(sorted(counted.items()))

    def _tell(self, thread: str, *strace: str) -> Told:
        place = self._folder / "place"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if self._source is not None:
            shutil.copyfile(self._source, place / "looseends.db")
        return self._teller.tell(place / "looseends.db", thread, *strace)

    def strike(self, point: Point, figures: Figures, files: set[str] | None = None) -> bool:
        """Tell it with a fault at this point and judge what is left (`files` gets its names); whether the point was reached."""
        log = self._folder / "log"
        rule = f"{point.call}:{HOW[figures.how].format(point.n)}"
        told = self.told = self._tell(point.thread, "-o", str(log), "-e", f"trace={point.call}", "-e", f"inject={rule}")
        killed, injected = told.status == -9, "(INJECTED)" in log.read_text()
        struck = killed if figures.how == "kill" else injected
        figures.struck += struck
        figures.refusals += len(told.refused)
        if files is not None:
            files.update(path.name for path in (self._folder / "place").iterdir())
        figures.found.count(str(point), judge(self._folder / "place" / "looseends.db", told, self.states))
        if not killed and not self._is_sound(told, figures.how):
            figures.odd.append(f"{point}: {told}")
        return struck

    def _is_sound(self, told: Told, how: str) -> bool:
        """It told all, or gave up because it was refused again and again: nothing else may come of an error."""
        if how.endswith("for-good") and told.refused:
            return told.raised is None or told.raised.startswith("StoreError ")
        return told.closed and told.answered == len(self.states) - 1


def chosen(calls: dict[tuple[str, str], int], points: int | None) -> Iterator[Point]:
    """All points, or somewhat more than so many: of each kind of call the first and every k-th."""
    every = 1 if points is None else max(1, sum(calls.values()) // points)
    for (thread, call), count in calls.items():
        yield from (Point(thread, call, n) for n in range(1, count + 1, every))


@pytest.fixture
def points() -> int | None:
    """About how many points to take; None: all."""
    return None if os.environ.get(SWEEP_VARIABLE) == "all" else POINTS


def swept(teller: Teller, folder: Path, how: str, points: int | None) -> tuple[Figures, int]:
    """One fault at each of the points; and how many calls there are. Fails where a point is not what it seems."""
    sweep, figures = Sweep(teller, folder), Figures(how)
    calls = sweep.calls()
    for point in chosen(calls, points):
        assert sweep.strike(point, figures), f"{point} was not reached, and the story is always the same"
    for (thread, call), count in calls.items() if points is None else ():
        assert not sweep.strike(Point(thread, call, count + 1), Figures(how)), f"the {thread} makes more than {count} {call}"
    return figures, sum(calls.values())


@pytest.mark.parametrize("how", HOW)
def test_a_fault_at_any_write_or_sync_loses_nothing_that_was_answered(
    processes: harness.Processes, state_dir: Path, how: str, points: int | None, say: Callable[[str], None]
) -> None:
    with Teller(processes) as teller:
        figures, calls = swept(teller, state_dir, how, points)
    say(f"{figures}; the whole makes {calls} calls")
    assert not figures.found.wrong, books.some(figures.found.wrong)
    assert not figures.odd, books.some(figures.odd)
    assert how == "kill" or figures.refusals, "an error that nobody sees is no test"


def restored(path: Path) -> Path:
    """An empty database as a backup is: whole, and not yet with a log. (Backups are: test_backup.py.)"""
    asyncio.run(story.reopened(str(path)))
    with contextlib.closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    return path


def test_a_journal_that_a_kill_leaves_beside_a_file_just_restored_does_not_shut_it_out(
    processes: harness.Processes, state_dir: Path
) -> None:
    with Teller(processes) as teller:
        sweep, figures = Sweep(teller, state_dir, restored(state_dir / "restored.db")), Figures("kill")
        removals = {call: count for call, count in sweep.calls().items() if call[0] == "desk" and "unlink" in call[1]}
        left = 0
        for point in chosen(removals, None):
            files: set[str] = set()
            sweep.strike(point, figures, files)
            left += "looseends.db-journal" in files
    assert left, "the kill that this is about was not among them"
    assert not figures.found.wrong, books.some(figures.found.wrong)


def test_a_file_whose_log_cannot_be_begun_is_refused_and_not_used_without(processes: harness.Processes, state_dir: Path) -> None:
    with Teller(processes) as teller:
        sweep, figures = Sweep(teller, state_dir, restored(state_dir / "restored.db")), Figures("EIO")
        assert sweep.strike(Point("desk", "fdatasync", 1), figures)
    assert [words[:2] for words in sweep.told.refused] == ["0 "], "the first sync belongs to the change of mode, in the opening"
    assert not figures.found.wrong, books.some(figures.found.wrong)


def planted(processes: harness.Processes, folder: Path, fault: str, how: str, call: str = "pwrite64") -> Figures:
    """What the same sweep, at such calls of the writer, says of a store with a fault."""
    with Teller(processes, fault) as teller:
        sweep, figures = Sweep(teller, folder), Figures(how)
        count = sweep.calls()["writer", call]
        for point in chosen({("writer", call): count}, POINTS_PLANTED if call == "pwrite64" else None):
            sweep.strike(point, figures)
        return figures


def test_a_store_that_answers_before_the_commit_is_caught(
    processes: harness.Processes, state_dir: Path, say: Callable[[str], None]
) -> None:
    figures = planted(processes, state_dir, "answers-early", "kill")
    say(f"planted: {figures}")
    assert figures.found.lost, figures


@pytest.mark.parametrize("how", ["EIO", "ENOSPC"])
def test_a_store_that_answers_in_spite_of_an_error_is_caught(
    processes: harness.Processes, state_dir: Path, how: str, say: Callable[[str], None]
) -> None:
    figures = planted(processes, state_dir, "answers-anyway", how)
    say(f"planted: {figures}")
    assert figures.found.lost or figures.found.torn, figures


def test_a_store_that_commits_a_step_in_two_halves_is_caught(
    processes: harness.Processes, state_dir: Path, say: Callable[[str], None]
) -> None:
    figures = planted(processes, state_dir, "commits-halves", "kill", "fdatasync")
    say(f"planted: {figures}")
    assert figures.found.torn, figures
    assert not figures.found.lost, "this fault loses nothing"
