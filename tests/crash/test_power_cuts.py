"""The power goes at any moment of a recorded run: what was answered is in the file that comes back, and the file is whole.

The disk is simulated (disk.py): it keeps what was synced and, of the rest, what it pleases. The recorded system calls, the files
and the store that opens them are real. The checks are proven on a store that syncs as rarely as many do.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import harness
from crash import books
from crash.disk import TRACED, Disk, Op, answered, recorded
from crash.story import State, story
from crash.tellings import Found, Teller, Told, judge, needs_strace, undisturbed

pytestmark = needs_strace

CUTS_VARIABLE = "CRASH_CUTS"
CUTS = 60
CUTS_PLANTED = 40
SEED_PLANTED = 1
"""The controls are cut at the same places each time: that they lose is no matter of luck."""
FAILED_SYNCS = 17
"""So many syncs the desk makes in a story of one round; the writer makes fewer."""
FAILED_SYNCS_TRIED = 4
ROUNDS = 4
WHOLE = ("-f", "-y", "-xx", "-s", str(1 << 20))


@dataclass
class Figures:
    """What the cuts of one recorded run, or of several, left."""

    seed: int
    answered: int = 0
    found: Found = field(default_factory=Found)

    def __str__(self) -> str:
        return f"{self.found.judged} cuts (seed {self.seed}) with {self.answered} answered steps; {self.found}"


@pytest.fixture
def cuts() -> int:
    """How often the power is cut."""
    return int(os.environ.get(CUTS_VARIABLE, CUTS))


def record(teller: Teller, folder: Path, *strace: str, rounds: int = ROUNDS) -> list[Op]:
    """What one telling does to the disk."""
    place, log = folder / "place", folder / "log"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    told = teller.tell(place / "looseends.db", "all", *WHOLE, "-o", str(log), "-e", f"trace={TRACED}", *strace, rounds=rounds)
    assert told.closed and told.answered == len(story(rounds)), told
    ops = recorded(log, place)
    assert answered(ops) == told.answered, "every answer must be in the record"
    return ops


def cut(ops: list[Op], at: int, place: Path, chance: random.Random) -> Told:
    """Put into `place` what is left when the power goes after so many ops; what had been answered by then."""
    disk = Disk(str(place))
    for op in ops[:at]:
        disk.do(op)
    shutil.rmtree(place)
    place.mkdir()
    for name, data in disk.cut(chance).items():
        Path(name).write_bytes(data)
    return Told(answered=answered(ops[:at]))


def cut_often(ops: list[Op], folder: Path, states: list[State], cuts: int, figures: Figures) -> None:
    """Cut so often, and judge what is left each time."""
    place = folder / "place"
    for number in range(figures.found.judged, figures.found.judged + cuts):
        chance = random.Random(f"{figures.seed}/{number}")
        at = chance.randint(0, len(ops))
        told = cut(ops, at, place, chance)
        figures.answered += max(0, told.answered)
        figures.found.count(f"cut {number}, after {at} of {len(ops)}", judge(place / "looseends.db", told, states))


def cut_a_run(processes: harness.Processes, folder: Path, fault: str | None, cuts: int, seed: int) -> Figures:
    """Record a telling and cut it."""
    figures, states = Figures(seed), undisturbed(folder / "undisturbed.db", ROUNDS)
    with Teller(processes, fault) as teller:
        ops = record(teller, folder)
    cut_often(ops, folder, states, cuts, figures)
    return figures


def cut_after_failed_syncs(processes: harness.Processes, folder: Path, fault: str | None, cuts: int, seed: int) -> Figures:
    """Record tellings in each of which one sync of each thread fails, and cut them."""
    figures, states = Figures(seed), undisturbed(folder / "undisturbed.db", 1)
    tried = min(FAILED_SYNCS, max(FAILED_SYNCS_TRIED, cuts // 20))
    with Teller(processes, fault) as teller:
        for n in sorted(random.Random(seed).sample(range(1, FAILED_SYNCS + 1), tried)):
            ops = record(teller, folder, "-e", f"inject=fdatasync,fsync:error=EIO:when={n}", rounds=1)
            assert any(op.what == "unsync" for op in ops), f"no sync {n} failed"
            cut_often(ops, folder, states, cuts // tried, figures)
    return figures


def test_a_power_cut_loses_nothing_that_was_answered(
    processes: harness.Processes, state_dir: Path, cuts: int, seed: int, say: Callable[[str], None]
) -> None:
    figures = cut_a_run(processes, state_dir, None, cuts, seed)
    say(str(figures))
    assert not figures.found.wrong, books.some(figures.found.wrong)


def test_a_power_cut_some_time_after_a_failed_sync_loses_nothing_that_was_answered(
    processes: harness.Processes, state_dir: Path, cuts: int, seed: int, say: Callable[[str], None]
) -> None:
    figures = cut_after_failed_syncs(processes, state_dir, None, cuts, seed)
    say(str(figures))
    assert not figures.found.wrong, books.some(figures.found.wrong)


def test_a_store_that_does_not_sync_its_commits_is_caught(
    processes: harness.Processes, state_dir: Path, say: Callable[[str], None]
) -> None:
    figures = cut_a_run(processes, state_dir, "synchronous-normal", CUTS_PLANTED, SEED_PLANTED)
    say(f"planted: {figures}")
    assert figures.found.lost, figures
    assert not figures.found.corrupt + figures.found.torn, figures


def test_a_store_that_never_syncs_is_caught(processes: harness.Processes, state_dir: Path, say: Callable[[str], None]) -> None:
    figures = cut_a_run(processes, state_dir, "synchronous-off", CUTS_PLANTED, SEED_PLANTED)
    say(f"planted: {figures}")
    assert figures.found.lost and figures.found.corrupt, figures


def test_a_store_that_takes_a_failed_sync_for_a_good_one_is_caught(
    processes: harness.Processes, state_dir: Path, say: Callable[[str], None]
) -> None:
    figures = cut_after_failed_syncs(processes, state_dir, "answers-anyway", 2 * CUTS_PLANTED, SEED_PLANTED)
    say(f"planted: {figures}")
    assert figures.found.lost or figures.found.torn, figures
