"""Processes killed at random instants with tasks in every state: what they acknowledged is in their journals.

`make crash-client` does it 1,000 times; `make test` takes CLIENT_KILLS_SHORT.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from crash_client.trials import KINDS, TESTS, Figures, Trials, python_path

CLIENT_KILLS_SHORT = 40
FULL_SHARE = 8
"""One kill in eight is on a full disk."""
PLANTED_KINDS = ("plain", "threads", "sent")
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
FILE_BYTES_MAX = 300 << 10
WORDS_MAX = 10


@pytest.fixture
def kills() -> int:
    """How often to kill."""
    return int(os.environ.get("CLIENT_KILLS", CLIENT_KILLS_SHORT))


@pytest.fixture
def events() -> int:
    """How many events to have acknowledged at least; a slow machine kills more often for that."""
    return int(os.environ.get("CLIENT_EVENTS", 0))


@pytest.fixture
def seed() -> int:
    """Decides where the kills fall. Printed with the figures; CRASH_SEED has a run's again."""
    return int(os.environ.get("CRASH_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print one line of figures under the test's name, whether or not it passes."""

    def line(figures: str) -> None:
        with capsys.disabled():
            print(f"\n  {request.node.name}: {figures}", file=sys.stderr, flush=True)

    return line


def on_a_full_disk(folder: Path, kills: int, seed: int, say: Callable[[str], None]) -> Figures:
    """Kills on a small file system of our own; where none can be had, with a limit on the size of files, and loudly so."""
    environ = {**os.environ, "PYTHONPATH": python_path()}
    if subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False).returncode:
        say("NO SMALL DISK can be mounted here: files are limited by RLIMIT_FSIZE instead, which is less than a full disk")
        trials = Trials(folder, seed, environ={"DOOMED_FILE_BYTES": str(FILE_BYTES_MAX)})
        for _ in range(kills):
            trials.run("full")
        return trials.figures
    command = [*UNSHARE, sys.executable, str(TESTS / "crash_client/small_disk.py"), str(folder), str(kills), str(seed)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def some(words: list[str]) -> str:
    """The first of many."""
    return "\n".join([*words[:WORDS_MAX], f"and {len(words) - WORDS_MAX} more" if len(words) > WORDS_MAX else ""])


def test_no_acknowledged_start_or_end_is_lost_by_a_kill(
    kills: int, events: int, seed: int, say: Callable[[str], None], tmp_path: Path
) -> None:
    full = max(1, kills // FULL_SHARE)
    trials = Trials(tmp_path, seed)
    small = tmp_path / "small"
    small.mkdir()
    figures = trials.figures
    figures.add(on_a_full_disk(small, full, seed, say))
    while figures.kills < kills or figures.acknowledged < events:
        trials.run(KINDS[figures.kills % len(KINDS)])
        if figures.kills % 100 == 0:
            say(f"so far: {figures}")
    say(f"{figures}; seed {seed}")
    assert not figures.lost, some(figures.lost)
    assert not figures.corrupt, some(figures.corrupt)
    assert not figures.wrong, some(figures.wrong)
    assert figures.acknowledged > 100 * kills and figures.processes > figures.kills - figures.young, "it had something to lose"
    assert figures.rotated > kills // 8 and figures.drained and figures.full and figures.dropped


def test_a_client_that_keeps_a_queue_in_memory_is_caught(seed: int, say: Callable[[str], None], tmp_path: Path) -> None:
    trials = Trials(tmp_path, seed, client="crash_client.queued")
    for kind in PLANTED_KINDS:
        trials.run(kind)
    say(f"planted: {trials.figures}; seed {seed}")
    assert trials.figures.lost, "what was still in memory must have been missed"
    assert not trials.figures.corrupt, some(trials.figures.corrupt)
