"""Fixtures for every suite: isolated state, real processes, and no silence about what did not run or did not end.

With REQUIRE_ALL=1 a skipped test is a failed test: where everything is installed, nothing may quietly stay untested.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import harness

REQUIRE_ALL = os.environ.get("REQUIRE_ALL", "") not in ("", "0")
KEPT_NAMES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", harness.MARK)
"""What a started process inherits; the rest of a developer's environment must not decide a test."""


def pytest_configure() -> None:
    """Mark this process's children, and keep a developer's own settings for looseends out of every test."""
    for name in [name for name in os.environ if name.startswith("LOOSEENDS_") and name != "LOOSEENDS_CHROMIUM"]:
        del os.environ[name]
    os.environ[harness.MARK] = uuid.uuid4().hex
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell ignores Ctrl-C for what it runs in the background, and what we start would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Fail when a process that any test started outlives the session (the last test reports it)."""
    mark = os.environ[harness.MARK]
    yield
    left = harness.end_leftovers(mark)
    assert not left, "processes left behind by tests, now killed:\n  " + "\n  ".join(left)


@pytest.fixture
def state_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of this test's own (XDG_STATE_HOME), short enough for a unix socket's path, 0700."""
    folder = Path(tempfile.mkdtemp(prefix="le-"))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def port() -> int:
    """A free port on 127.0.0.1."""
    return harness.free_port()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """For tests that need several ports."""
    return harness.free_port


@pytest.fixture
def processes(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[harness.Processes]:
    """Start real processes with `processes.start(...)`; all end with the test, and none of their children may stay."""
    outer, mark = os.environ[harness.MARK], uuid.uuid4().hex
    monkeypatch.setenv(harness.MARK, mark)
    env = {name: os.environ[name] for name in KEPT_NAMES if name in os.environ}
    env |= {"XDG_STATE_HOME": str(state_dir), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    running = harness.Processes(env)
    yield running
    running.end_all()
    left = harness.end_leftovers(mark)
    monkeypatch.setenv(harness.MARK, outer)
    assert not left, "children left behind by this test, now killed:\n  " + "\n  ".join(left)


def _reason(longrepr: Any) -> str:
    return str(longrepr[2] if isinstance(longrepr, tuple) else longrepr).removeprefix("Skipped: ")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under REQUIRE_ALL a skip becomes a failure; an expected failure (xfail) is no skip."""
    if REQUIRE_ALL and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        report.longrepr = f"skipped, and REQUIRE_ALL=1 allows no skips: {_reason(report.longrepr)}"
        report.outcome = "failed"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Every phase of every test passes here."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Every file passes here: one that skips as a whole is as silent as a skipped test."""
    report = yield
    _refuse_skip(report)
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say loudly what did not run, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    terminalreporter.section("DID NOT RUN", sep="!", red=True, bold=True)
    for report in skipped:
        terminalreporter.line(f"{report.nodeid}: {_reason(report.longrepr)}")
    terminalreporter.line(f"{len(skipped)} did not run; REQUIRE_ALL=1 makes each of them a failure.")
