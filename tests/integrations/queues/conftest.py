"""Each system with its real library in an environment of its own, with a real Redis of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Processes

sys.path.insert(0, str(Path(__file__).parent))
from lasting import enter, long_lived
from stage import VERSIONS, Stage


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
    yield from long_lived(str(request.param), Stage)
