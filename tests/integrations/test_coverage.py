"""docs/coverage.md is what the tests say: no cell without a test or a reason, none that no test covers any more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cells
import pytest

from harness import ROOT

QUIETLY = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist")


@pytest.fixture(scope="module")
def covered(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[str]]:
    """The cells that the tests name, collected by a pytest of its own."""
    listed = tmp_path_factory.mktemp("coverage") / "cells.json"
    command = [sys.executable, "-m", "pytest", "tests/integrations", "--collect-only", *QUIETLY]
    env = {**os.environ, "COVERAGE_LIST": str(listed)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    return {(system, column): tests for system, column, tests in json.loads(listed.read_text())}


def test_every_cell_has_a_test_or_a_reason(covered: dict[tuple[str, str], list[str]]) -> None:
    assert not cells.faults(covered)


def test_the_document_is_what_the_tests_say(covered: dict[tuple[str, str], list[str]]) -> None:
    said = (ROOT / "docs" / "coverage.md").read_text()
    assert said == cells.render(covered), "the marks have changed: make coverage"


def test_a_planted_fault_in_the_marks_is_found(covered: dict[tuple[str, str], list[str]]) -> None:
    whole = dict(covered)
    del whole["asyncio", "lost"]
    assert cells.faults(whole) == ["asyncio, lost: neither a test nor a reason why not"]
    assert cells.render(whole) != cells.render(covered)
    doubled = {**covered, ("asyncio", "retried"): ["x::y"]}
    assert cells.faults(doubled) == ["asyncio, retried: a test covers what is said to be impossible"]
    for wrong in (("celrey", "lost"), ("celery", "lots")):
        assert [fault for fault in cells.faults({**covered, wrong: ["x::y"]}) if "of that name" in fault]


def test_a_document_is_not_written_when_a_test_of_it_did_not_run(tmp_path: Path) -> None:
    document = tmp_path / "coverage.md"
    command = [sys.executable, "-m", "pytest", "tests/integrations/threads/test_threads.py", *QUIETLY]
    env = {**os.environ, "COVERAGE_WRITE": str(document)}
    done = subprocess.run([*command, "-k", "a_timer"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "the document was not written" in done.stdout and not document.exists()
