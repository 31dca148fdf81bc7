"""The marks by which tests name the cells of docs/coverage.md that they cover, and the writing of that document."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import ROOT

sys.path.insert(0, str(Path(__file__).parent))
import cells

WRITE, LIST = os.environ.get("COVERAGE_WRITE"), os.environ.get("COVERAGE_LIST")
"""Files to write: the document, if every cell's tests pass; the cells as JSON, as they were collected."""
_covered: dict[tuple[str, str], set[str]] = {}
_passed: set[str] = set()
_problems: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """The mark is a known one."""
    config.addinivalue_line("markers", "cells(*columns, system=None): cells of docs/coverage.md that this test covers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note which test covers what."""
    for item in items:
        for mark in item.iter_markers("cells"):
            system = mark.kwargs.get("system") or _parameter(item)
            for column in mark.args:
                _covered.setdefault((system, column), set()).add(named(item.nodeid))
    if LIST:
        found = [[*cell, sorted(tests)] for cell, tests in sorted(_covered.items())]
        Path(LIST).write_text(json.dumps(found))


def _parameter(item: pytest.Item) -> str:
    given: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return str(given.get("system") or given.get("played") or f"{item.nodeid} names none, so that")


def named(nodeid: str) -> str:
    """A test as the document names it: without the parameter that is its row."""
    return nodeid.partition("[")[0]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test without a pass of its own is a problem of every cell that rests on it."""
    if report.when == "call" and report.passed:
        _passed.add(named(report.nodeid))
    elif not report.passed:
        _problems.append(f"{named(report.nodeid)} {report.outcome}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the document, or say why not."""
    if not WRITE:
        return
    needed = {test for tests in _covered.values() for test in tests}
    found = [*cells.faults(_covered), *(f"{test} did not run" for test in sorted(needed - _passed)), *_problems]
    if found:
        print("\nthe document was not written:", *found, sep="\n  ")
        session.exitstatus = 1
    else:
        (ROOT / WRITE).write_text(cells.render(_covered))
        print(f"\n{WRITE} was written from {len(needed)} tests")
