"""How often to kill, and a way to say what was seen even when a test passes."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable

import pytest

KILLS = 25
KILLS_VARIABLE = "CRASH_KILLS"  # not LOOSEENDS_...: those are settings of the product, and tests are kept from them


@pytest.fixture
def kills() -> int:
    """How often each test kills what it is about."""
    return int(os.environ.get(KILLS_VARIABLE, KILLS))


@pytest.fixture
def seed() -> int:
    """Decides what is sent and where the kills fall. Printed with the figures; CRASH_SEED has a run's again."""
    return int(os.environ.get("CRASH_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print one line of figures under the test's name, whether or not it passes.

    On standard error, for it is the one stream that a worker of pytest-xdist shares with the terminal.
    """

    def line(figures: str) -> None:
        with capsys.disabled():
            print(f"\n  {request.node.name}: {figures}", file=sys.stderr, flush=True)

    return line
