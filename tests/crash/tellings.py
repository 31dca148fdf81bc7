"""Tellings of the story under strace: what was answered, what was refused, how it ended; and what may be found afterwards.

A file must be what the story makes after a whole number of steps: no fewer than were answered, at most one more (the step that
was under way). That every row is that of an undisturbed run says it all at once: nothing lost, torn or counted twice.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self

import pytest

import harness
from crash import story
from crash.story import State
from looseends_daemon.store import checkpoints
from looseends_daemon.store.schema import StoreError

HERE = Path(__file__).parent
STRACE = shutil.which("strace")
NO_STRACE = "strace is not installed: no write was made to fail and no power was cut (Debian: apt install strace)"
NO_TRACER = "AssertionError no tracer came"
needs_strace = pytest.mark.skipif(STRACE is None, reason=NO_STRACE)
CHANGES = "pwrite64,fdatasync,fsync,ftruncate,?rename,?renameat,?renameat2,?unlink,?unlinkat"
"""The system calls by which SQLite and store/files.py change the disk. That these are all is checked where they are counted."""


@dataclass
class Told:
    """What one telling said. `answered`: the last step that was; -1: not even the opening."""

    answered: int = -1
    refused: list[str] = field(default_factory=list)
    raised: str | None = None
    closed: bool = False
    status: int = 0

    def hear(self, line: str) -> None:
        """Take in one line of teller.py."""
        word, _, rest = line.partition(" ")
        if word == "did":
            self.answered = int(rest)
        elif word == "refused":
            self.refused.append(rest)
        elif word == "raised":
            self.raised = rest
        elif word == "closed":
            self.closed = True
        elif word == "over":
            self.status = int(rest)


class Teller:
    """One parent of tellers (see teller.py). `fault` is planted in each telling."""

    def __init__(self, processes: harness.Processes, fault: str | None = None) -> None:
        self._processes, self._fault = processes, fault
        self._parent = processes.start(sys.executable, HERE / "teller.py", env={"PYTHONPATH": str(HERE.parent)}, stdin=True)
        self._parent.wait_for("^ready$")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.hang_up()
        self._parent.stop()

    def tell(self, path: Path, thread: str, *strace: str, rounds: int = 1) -> Told:
        """One telling with its `thread` (writer, desk, all) under strace with these arguments."""
        order = {"path": str(path), "rounds": rounds, "thread": thread, "fault": self._fault}
        self._parent.say(json.dumps(order))
        tracer: harness.Process | None = None
        told = Told()
        while True:
            line = self._parent.wait_for("^(trace|did|refused|raised|closed|over)( |$)").string.strip()
            if line.startswith("trace "):
                tracer = self._processes.start(str(STRACE), "-q", *strace, "-p", line.split()[1])
            told.hear(line)
            if line.startswith("over "):
                break
        assert tracer is not None, self._parent.output
        tracer.wait()
        assert told.raised != NO_TRACER, f"strace could not trace: {tracer.output}"
        self._processes.started.remove(tracer)
        return told


class Verdict(NamedTuple):
    """What is wrong with a file, in words; `lost`: how many answered steps it lacks; `alarm`: the store says so where none is."""

    lost: int = 0
    corrupt: str | None = None
    torn: str | None = None
    alarm: str | None = None


def judge(path: Path, told: Told, states: Sequence[State]) -> Verdict:
    """Open the file with the real store and compare it with what was answered."""
    try:
        found = asyncio.run(story.reopened(str(path)))
    except (StoreError, sqlite3.DatabaseError) as error:
        return Verdict(corrupt=f"cannot be opened: {error}")
    if found.damage:
        return Verdict(corrupt="; ".join(found.damage))
    if found.miscounted:
        return Verdict(torn="; ".join(found.miscounted))
    places = [place for place, state in enumerate(states) if state.rows == found.rows]
    answered = max(0, told.answered)
    if not places:
        return Verdict(torn=f"the rows are those after no step; answered {answered}")
    if places[-1] < answered:
        return Verdict(lost=answered - places[-1])
    if places[0] > answered + 1:
        return Verdict(torn=f"the rows are those after step {places[0]}; answered {answered}")
    return Verdict(alarm=found.alarm)


@dataclass
class Found:
    """What was wrong after how many tellings or cuts, each with its place in words."""

    judged: int = 0
    lost: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    steps_lost: list[int] = field(default_factory=list)

    def count(self, where: str, verdict: Verdict) -> None:
        """Add one."""
        self.judged += 1
        for words, kept in ((verdict.corrupt, self.corrupt), (verdict.torn, self.torn), (verdict.alarm, self.alarms)):
            kept += [f"{where}: {words}"] if words else []
        if verdict.lost:
            self.steps_lost.append(verdict.lost)
            self.lost.append(f"{where}: {verdict.lost} answered steps")

    @property
    def wrong(self) -> list[str]:
        """Everything that is."""
        return self.lost + self.corrupt + self.torn + self.alarms

    def __str__(self) -> str:
        worst = f" (median {median(self.steps_lost):g}, at most {max(self.steps_lost)} steps)" if self.steps_lost else ""
        counts = f"answered and lost in {len(self.lost)}{worst}, corrupt {len(self.corrupt)}"
        return f"{counts}, torn or miscounted {len(self.torn)}, false alarms {len(self.alarms)}"


def undisturbed(path: Path, rounds: int) -> list[State]:
    """The states of the story. Fails if the story itself is no good."""
    before = checkpoints.EVERY_S
    try:
        states = asyncio.run(story.states(str(path), rounds))
    finally:
        checkpoints.EVERY_S = before
    assert not any(state.damage or state.miscounted for state in states)
    changed = [step.kind for step in story.story(rounds) if states[step.no].rows != states[step.no - 1].rows]
    same = [step.kind for step in story.story(rounds) if step.kind not in ("copy", "stop")]
    assert changed == same, "every step that is answered must be seen in the rows"
    return states
