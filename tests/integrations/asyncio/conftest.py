"""Programs under capture, each in a process of its own: what is wrapped stays wrapped, and must not reach other tests."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import Processes

sys.path.insert(0, str(Path(__file__).parents[1]))
from hooked import Daemon
from told import NOBODY, Run

collect_ignore = ["test_eager.py"] if sys.version_info < (3, 12) else []
RunIt = Callable[..., Run]
PREFACE = "import asyncio, contextvars, gc, sys, warnings\nimport looseends\n"


@pytest.fixture
def run(processes: Processes, tmp_path: Path) -> RunIt:
    """Run this source as shop.py, with a spool of its own and no daemon; wait for its end. `capture`: install first."""

    def start(source: str, *args: str, capture: bool = True, env: dict[str, str] | None = None) -> Run:
        spool = tmp_path / f"spool-{len(processes.started)}"
        install = 'looseends.install("asyncio")\n' if capture else "pass\n"
        (tmp_path / "shop.py").write_text(PREFACE + install + textwrap.dedent(source))
        settings = {"LOOSEENDS_SPOOL_DIR": str(spool), "LOOSEENDS_URL": NOBODY, **(env or {})}
        return Run(processes.start(sys.executable, "shop.py", *args, env=settings, cwd=tmp_path), spool)

    return start


@pytest.fixture
def daemon(processes: Processes, state_dir: Path) -> Any:
    """A real daemon; what the test starts beside it shares its spool."""
    return Daemon(processes, state_dir)
