"""The table of faults in docs/guarantees.md: each line names a test that is there, and each test of this folder is in it."""

from __future__ import annotations

import re

from harness import ROOT

TITLE = "## What happens when"
APART = {"test_table.py", "test_log_end.py"}
"""The table's own, and single decisions behind a line of it."""
DEFINED = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)


def named(text: str) -> list[str]:
    """The tests that the lines of the table name, one list for all."""
    lines = [line for line in text.partition(TITLE)[2].partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    bare = [line for line in lines if not re.search(r"`test_\w+`", line)]
    assert lines and not bare, f"lines without a test: {bare}"
    return [name for line in lines for name in re.findall(r"`(test_\w+)`", line)]


def defined(folder: str) -> set[str]:
    """Every test below a folder of tests/."""
    files = [path for path in (ROOT / "tests" / folder).rglob("test_*.py") if path.name not in APART or not folder]
    return {name for path in files for name in DEFINED.findall(path.read_text())}


def test_every_line_of_the_table_names_a_test_that_is_there() -> None:
    missing = set(named((ROOT / "docs/guarantees.md").read_text())) - defined("")
    assert not missing, missing


def test_every_fault_that_is_tested_here_is_in_the_table() -> None:
    unnamed = defined("daemon/faults") - set(named((ROOT / "docs/guarantees.md").read_text()))
    assert unnamed <= {"test_there_is_a_recording_of_this_version"}, unnamed


def test_a_line_that_names_nothing_is_caught() -> None:
    planted = f"{TITLE}\n\n| a | b | c | d |\n|---|---|---|---|\n| fire | smoke | hope | `test_of_fire` |\n\n## Next\n"
    assert named(planted) == ["test_of_fire"] and not {"test_of_fire"} <= defined("")
