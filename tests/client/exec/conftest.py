"""`looseends exec` as a real process, and what it left in its spool."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from looseends import journal

WAIT_S = 20.0
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Begin = Callable[..., "subprocess.Popen[str]"]


def command(*words: str) -> list[str]:
    """The command line of `looseends exec` with these words behind it."""
    return [sys.executable, "-m", "looseends.cli", "exec", *words]


@pytest.fixture
def run(spool: str) -> Run:
    """Run it to its end, with pipes for its streams."""

    def start(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, **more.pop("env", {})}
        environ.pop("LOOSEENDS_SERVICE")
        return subprocess.run(command(*words), capture_output=True, text=True, timeout=WAIT_S, env=environ, **more)

    return start


@pytest.fixture
def begin(spool: str) -> Iterator[Begin]:
    """Begin it, and end what is left of its group with the test."""
    begun: list[subprocess.Popen[str]] = []

    def start(*words: str, **more: Any) -> subprocess.Popen[str]:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "process_group": 0, **more}
        process = subprocess.Popen(command(*words), **options)
        begun.append(process)
        return process

    yield start
    for process in begun:
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            continue
    for process in begun:
        process.communicate()


@pytest.fixture
def left(spool: str) -> Callable[[], list[dict[str, Any]]]:
    """The events that dead processes left in the spool, by whoever adopts them, in order of time."""

    def read() -> list[dict[str, Any]]:
        events = []
        for folder in journal.folders(spool):
            orphan = journal.adopt(folder)
            if orphan is not None:
                events += [{**event, "service": orphan.instance["service"]} for batch in orphan.batches() for event in batch]
                orphan.close()
        return sorted(events, key=lambda event: event["at"])

    return read
