"""A real daemon, a real service and what lies between them: each fault is made on a whole process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import harness

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode needs to be told where faulty.py and between.py are

from between import Between
from faulty import Faulty, Service


@pytest.fixture
def faulty(processes: harness.Processes, state_dir: Path) -> Faulty:
    """A daemon that is not started yet."""
    return Faulty(processes, state_dir)


@pytest.fixture
def between(faulty: Faulty) -> Iterator[Between]:
    """A socket in front of the daemon's."""
    made = Between(f"{faulty.folder}/between", faulty.socket)
    yield made
    made.close()


@pytest.fixture
def service(faulty: Faulty) -> Callable[..., Service]:
    """Start a service that sends to the daemon, or to the socket that is named."""
    return lambda socket=None: Service(faulty, socket or faulty.socket)
