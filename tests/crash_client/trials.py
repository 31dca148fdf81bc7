"""One kill after another: start doomed.py, kill it at a random instant, compare what it acknowledged with what can be read.

Rules: what counts as there is in the journals its processes left, or was taken by the receiver. A start is acknowledged when the
task's body runs, an end when the call is back. Lost: acknowledged and not there. Corrupt: there, and not what was called, or
there twice. A task that has no record, and was counted as dropped both by its own thread and by the journal, is neither.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crash_client import cells
from crash_client.cells import FAILS, Cell, text_of
from crash_client.receiver import receiving
from looseends import journal

TESTS = Path(__file__).parents[1]
KINDS = ("plain", "threads", "forks", "signals", "sent")
INSTANT_S = {"sent": 0.5, "full": 0.05}
INSTANT_ELSE_S = 0.25
YOUNG_SHARE = 0.1
"""Of the trials are killed on the way up: half-made folders and segments are part of it."""
YOUNG_S = 0.25
UP_S = 30.0
READY_S = 5.0
READY: dict[str, Callable[[list[Cell]], object]] = {
    "plain": lambda acked: acked[0].began,
    "threads": lambda acked: all(cell.began for cell in acked[:4]),
    "forks": lambda acked: acked[2].began,
    "signals": lambda acked: acked[1].began,
    "sent": lambda acked: acked[0].began > 250,
    "full": lambda acked: any(cell.dropped for cell in acked),
}
WORKERS_MAX = 8
LEFT_OUT = "its detail could not be kept"
NO_ROOM = "the spool had no room"
BARE = -1
"""In place of the worker of a record whose arguments found no room: who it was is not known, that there was one is."""


@dataclass
class Figures:
    """What was counted. The lists must stay empty; they hold words."""

    kills: int = 0
    young: int = 0
    processes: int = 0
    acknowledged: int = 0
    rotated: int = 0
    """Journals that had come past their first segment."""
    drained: int = 0
    """Journals whose first segment was taken and unlinked by the time of the kill."""
    received: int = 0
    full: int = 0
    """Kills after the disk was full."""
    dropped: int = 0
    bare: int = 0
    """Records kept without their arguments: the disk had no room for those."""
    lost: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Figures) -> None:
        """Have another account's counts in this one."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills ({self.young} on the way up, {self.full} on a full disk) of {self.processes} processes; "
            f"{self.acknowledged:,} events acknowledged, {len(self.lost)} lost, {len(self.corrupt)} corrupt; "
            f"{self.rotated} journals rotated, {self.drained} drained, {self.received:,} events received, "
            f"{self.dropped:,} tasks counted as dropped, {self.bare:,} kept without their arguments"
        )

    def as_json(self) -> str:
        """For the account of another process."""
        return json.dumps(asdict(self))


class Trials:
    """Kills in one folder. `run` any number of them; then read `figures`."""

    def __init__(self, folder: Path, seed: int, client: str = "looseends", environ: dict[str, str] | None = None) -> None:
        self.folder, self.figures, self._client = folder, Figures(), client
        self._chance, self._environ = random.Random(seed), environ or {}

    def run(self, kind: str) -> None:
        """One of KINDS, or `full`: threads, and the disk has no room for what they tell."""
        young = self._chance.random() < YOUNG_SHARE
        spool, acks = self.folder / "spool", self.folder / "acks"
        acks.write_bytes(bytes(cells.FILE_BYTES))
        with ExitStack() as stack:
            socket = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="le-"))) / "s"
            listens = kind == "sent" or self._client != "looseends"
            events = stack.enter_context(receiving(str(socket))) if listens else []
            self._kill(kind, young, spool, acks, f"unix:{socket}")
        self.figures.kills += 1
        self.figures.young += young
        self.figures.received += len(events)
        self._compare(kind, spool, cells.read(acks), events)
        shutil.rmtree(spool, ignore_errors=True)

    def _kill(self, kind: str, young: bool, spool: Path, acks: Path, url: str) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("LOOSEENDS_", "OTEL_"))}
        environ |= {"LOOSEENDS_SPOOL_DIR": str(spool), "LOOSEENDS_URL": url, "CRASH_CLIENT": self._client, **self._environ}
        environ |= {"TMPDIR": str(self.folder), "PYTHONPATH": python_path()}
        with (self.folder / "said").open("w+") as said:
            doomed = subprocess.Popen(
                [sys.executable, TESTS / "crash_client/doomed.py", "threads" if kind == "full" else kind, acks],
                env=environ,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
            assert doomed.stdout is not None
            with doomed.stdout:
                if not young and doomed.stdout.readline() != b"up\n":
                    self.figures.wrong.append(f"it did not come up: {_tail(said)}")
                elif not young:
                    _wait_ready(acks, kind)
                time.sleep(self._chance.uniform(0.0, YOUNG_S if young else INSTANT_S.get(kind, INSTANT_ELSE_S)))
                with suppress(ProcessLookupError):
                    os.killpg(doomed.pid, signal.SIGKILL)  # a session of its own: it and its children
                if doomed.wait() != -signal.SIGKILL:
                    self.figures.wrong.append(f"it ended by itself with {doomed.returncode}: {_tail(said)}")
            if "Traceback" in _tail(said):
                self.figures.wrong.append(_tail(said))

    def _compare(self, kind: str, spool: Path, acked: list[Cell], events: list[dict[str, Any]]) -> None:
        counted = 0
        found = list(events)
        for folder in journal.folders(str(spool)):
            _wait_free(folder)
            orphan = journal.adopt(folder)
            if orphan is None:  # killed before it had said who it is: nothing could begin
                continue
            segments = [name for name in os.listdir(folder) if name.endswith(".seg")]
            self.figures.rotated += len(segments) > 1 or "00000001.seg" not in segments
            self.figures.drained += "00000001.seg" not in segments
            self.figures.processes += 1
            told = [event for batch in orphan.batches() for event in batch]
            starts = [event["seq"] for event in told if event["type"] == "started"]
            if len(starts) != len(set(starts)):
                self.figures.corrupt.append(f"{kind}: two records of {folder} have one number")
            found += told
            counted += orphan.dropped
            if orphan.damaged:
                self.figures.corrupt.append(f"{kind}: {orphan.damaged} records of {folder} cannot be read")
            orphan.close()
        self._account(kind, acked, _by_worker(self.figures, kind, found))
        dropped = sum(cell.dropped for cell in acked)
        self.figures.dropped += dropped
        self.figures.full += dropped > 0
        if self._client == "looseends" and abs(dropped - counted) > WORKERS_MAX:  # each may be killed between the two counts
            self.figures.wrong.append(f"{kind}: {dropped} tasks had no record, the journals counted {counted}")
        if dropped and kind != "full":
            self.figures.wrong.append(f"{kind}: {dropped} tasks had no record on a disk with room")

    def _account(self, kind: str, acked: list[Cell], found: dict[int, dict[int, set[str]]]) -> None:
        missing = 0
        for worker, cell in enumerate(acked):
            there = found[worker]
            starts = sum(number <= cell.began and "started" in types for number, types in there.items())
            open_ones = [n for n, types in there.items() if n <= cell.ended and not types & {"finished", "failed"}]
            self.figures.acknowledged += cell.began + cell.ended - 2 * cell.dropped
            missing += max(0, cell.began - cell.dropped - starts)
            if open_ones:
                self.figures.lost.append(f"{kind}, worker {worker}: {len(open_ones)} of {cell.ended} ends are not there")
            if there and max(there) > cell.began + 1:
                self.figures.corrupt.append(f"{kind}, worker {worker}: task {max(there)} is there, it came to {cell.began}")
        bare = len(found[BARE])
        self.figures.bare += bare
        if missing > bare:
            self.figures.lost.append(f"{kind}: {missing - bare} acknowledged starts are not there")
        if bare and kind != "full":
            self.figures.corrupt.append(f"{kind}: {bare} records without arguments on a disk with room")


def python_path() -> str:
    """Where a process of ours finds these tests, and what we find."""
    return os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))


def _by_worker(figures: Figures, kind: str, events: Iterable[dict[str, Any]]) -> dict[int, dict[int, set[str]]]:
    """worker -> number -> event types; what is not as it was called goes to `figures.corrupt`."""
    places: dict[str, tuple[int, int]] = {}
    found: dict[int, dict[int, set[str]]] = defaultdict(dict)
    ends: list[dict[str, Any]] = []
    for event in events:
        if event["type"] != "started":
            ends.append(event)
            continue
        if "args" not in event and str(event.get("not_replayable_because")).startswith(NO_ROOM):
            found[BARE].setdefault(len(found[BARE]), set()).add("started")
            places[event["task"]] = BARE, -1
            continue
        worker, number, text = (event["args"][name] for name in ("worker", "number", "text"))
        if event["name"] != "doomed.work" or text != text_of(number):
            figures.corrupt.append(f"{kind}: {str(event)[:200]}")
        if number in found[worker] and places.get(event["task"]) != (worker, number):
            figures.corrupt.append(f"{kind}: task {number} of worker {worker} is there twice")
        places[event["task"]] = worker, number
        found[worker].setdefault(number, set()).add("started")
    for event in ends:
        if event["task"] not in places:
            figures.corrupt.append(f"{kind}: an end without its start: {str(event)[:200]}")
            continue
        worker, number = places[event["task"]]
        if worker == BARE:
            continue
        found[worker][number].add(event["type"])
        if (event["type"] == "failed") != (number % FAILS == 0) or not _says_so(event, number, kind):
            figures.corrupt.append(f"{kind}: task {number} ended so: {str(event)[:200]}")
    return found


def _says_so(event: dict[str, Any], number: int, kind: str) -> bool:
    if event["type"] != "failed":
        return True
    message = event["error"]["message"]
    return message == f"planted {number}" or (kind == "full" and message == LEFT_OUT)


def _wait_ready(acks: Path, kind: str) -> None:
    """Until there is what this kind is about. A program that dies of it is found out by how it ended."""
    until = time.monotonic() + READY_S
    while not READY[kind](cells.read(acks)) and time.monotonic() < until:
        time.sleep(0.002)


def _wait_free(folder: str) -> None:
    """Until the kernel has taken a killed process apart."""
    until = time.monotonic() + UP_S
    while journal.is_taken(folder):
        assert time.monotonic() < until, f"{folder} is still held"
        time.sleep(0.001)


def _tail(file: Any) -> str:
    file.seek(0)
    return str(file.read()[-2000:])
