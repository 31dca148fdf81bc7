"""How long to listen, and a way to show the table even when a test passes."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import harness
from quiet.stage import Stage

SECONDS = 60.0
LONGEST = "test_quiet_run.py::test_quiet_work_alarms_nobody"
SECONDS_VARIABLE = "QUIET_S"  # not LOOSEENDS_...: those are settings of the product, and tests are kept from them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test of the suite begins first: at the end one worker would wait for the other."""
    items.sort(key=lambda item: LONGEST not in item.nodeid)


@pytest.fixture
def seconds() -> float:
    """How long the whole run takes, about."""
    return float(os.environ.get(SECONDS_VARIABLE, SECONDS))


@pytest.fixture
def seed() -> int:
    """Decides what waits how long. Printed with the figures; QUIET_SEED has a run's again."""
    return int(os.environ.get("QUIET_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.fixture
def set_stage(state_dir: Path, processes: harness.Processes, seed: int) -> Iterator[Callable[..., Stage]]:
    """Makes a stage in a folder of its own; nothing is started on it yet."""
    made: list[Stage] = []

    def make(**options: Any) -> Stage:
        made.append(Stage(state_dir, processes, seed=seed, **options))
        return made[-1]

    yield make
    for stage in made:
        stage.end()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[object], None]:
    """Print figures under the test's name, whether or not it passes; on standard error, which workers share with the terminal."""

    def line(figures: object) -> None:
        with capsys.disabled():
            print(f"\n  {request.node.name}: {figures}", file=sys.stderr, flush=True)

    return line
