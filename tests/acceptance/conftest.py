"""The cast of the acceptance tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Processes

sys.path.insert(0, str(Path(__file__).parent))
from town import Town


@pytest.fixture
def town(state_dir: Path, processes: Processes) -> Iterator[Town]:
    """A folder of its own, free ports, nothing started yet."""
    yield Town(state_dir, processes)
