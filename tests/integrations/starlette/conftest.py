"""A FastAPI service under uvicorn with both hooks, beside a real daemon."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from harness import Processes

sys.path.insert(0, str(Path(__file__).parents[1]))
from hooked import Daemon


@pytest.fixture
def daemon(processes: Processes, state_dir: Path) -> Any:
    """A real daemon; what the test starts beside it shares its spool."""
    return Daemon(processes, state_dir)
