"""Programs with threads, pools and processes under capture, each in a process of its own."""

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

RunIt = Callable[..., Run]
PREFACE = """\
import asyncio, concurrent.futures as cf, contextvars, functools, gc, multiprocessing as mp, os, signal, sys, threading, time
import looseends
"""
HOOKS = '"threading", "futures", "multiprocessing"'


@pytest.fixture
def run(processes: Processes, tmp_path: Path) -> RunIt:
    """Run this source as shop.py, with a spool of its own and no daemon; wait for its end. `hooks`: what to install first."""

    def start(source: str, *args: str, hooks: str = HOOKS, env: dict[str, str] | None = None) -> Run:
        spool = tmp_path / f"spool-{len(processes.started)}"
        install = f"looseends.install({hooks})\n" if hooks else "pass\n"
        (tmp_path / "shop.py").write_text(PREFACE + install + textwrap.dedent(source))
        settings = {"LOOSEENDS_SPOOL_DIR": str(spool), "LOOSEENDS_URL": NOBODY, **(env or {})}
        return Run(processes.start(sys.executable, "shop.py", *args, env=settings, cwd=tmp_path), spool)

    return start


@pytest.fixture
def daemon(processes: Processes, state_dir: Path) -> Any:
    """A real daemon; what the test starts beside it shares its spool."""
    return Daemon(processes, state_dir)
