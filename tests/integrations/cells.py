"""docs/coverage.md, as the tests write it: which system tells of what, each cell a test that passed or a reason why it cannot.

Rules: a test names its cells by `@pytest.mark.cells("started", "lost", system="threading")`; one with its system as a parameter
leaves that out. A cell is covered by one or more tests, or stands in CANNOT with a reason, and never both. `make coverage` runs
the tests and writes the document only if every one of them passed; test_coverage.py holds the document to the marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

COLUMNS = ("scheduled", "started", "finished", "failed", "retried", "cancelled", "lost", "arguments")


class System(NamedTuple):
    """A row: how it is called, and its page."""

    title: str
    page: str


SYSTEMS = {
    "asyncio": System("asyncio tasks", "asyncio.md"),
    "starlette": System("Starlette and FastAPI `BackgroundTasks`", "fastapi.md"),
    "threading": System("`threading.Thread` and `Timer`", "threads.md"),
    "thread pools": System("thread pools, `run_in_executor`, `to_thread`", "threads.md"),
    "process pools": System("process pools", "processes.md"),
    "multiprocessing": System("`multiprocessing.Process`", "processes.md"),
    "celery": System("Celery", "celery.md"),
    "arq": System("arq", "arq.md"),
    "rq": System("RQ", "rq.md"),
    "dramatiq": System("Dramatiq", "dramatiq.md"),
    "huey": System("Huey", "huey.md"),
}
_EACH_TRY = "knows no retries: each try is a task of its own"
CANNOT = {
    ("asyncio", "retried"): f"asyncio {_EACH_TRY}",
    ("starlette", "retried"): "Starlette runs each background task once",
    ("starlette", "cancelled"): "nothing hands a background task out, so nobody can call it off; one that its loop ends is lost",
    ("threading", "retried"): f"a thread {_EACH_TRY}",
    ("thread pools", "retried"): f"a pool {_EACH_TRY}",
    ("process pools", "retried"): f"a pool {_EACH_TRY}",
    ("multiprocessing", "retried"): f"a process {_EACH_TRY}",
}
Cells = Mapping[tuple[str, str], Iterable[str]]
"""(system, column) -> the tests that cover it, as `file::test`."""


def faults(cells: Cells) -> list[str]:
    """What is wrong with the marks: unknown words, a cell without a test or a reason, one with both."""
    found = [f"{system}: no system of that name" for system, _ in cells if system not in SYSTEMS]
    found += [f"{column}: no column of that name; there are {', '.join(COLUMNS)}" for _, column in cells if column not in COLUMNS]
    for system in SYSTEMS:
        for column in COLUMNS:
            covered, cannot = bool(cells.get((system, column))), (system, column) in CANNOT
            if covered and cannot:
                found.append(f"{system}, {column}: a test covers what is said to be impossible")
            if not covered and not cannot:
                found.append(f"{system}, {column}: neither a test nor a reason why not")
    return found


def render(cells: Cells) -> str:
    """The document."""
    head = f"| system | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}\n"
    rows = []
    for name, system in SYSTEMS.items():
        marks = ("yes" if cells.get((name, column)) else "cannot" for column in COLUMNS)
        rows.append(f"| [{system.title}]({system.page}) | {' | '.join(marks)} |\n")
    return f"{INTRODUCTION}\n{head}{''.join(rows)}\n{_reasons()}\n{_proofs(cells)}"


def _reasons() -> str:
    lines = ["## Cannot, because\n\n"]
    for (name, column), reason in CANNOT.items():
        lines.append(f"- {SYSTEMS[name].title}, {column}: {reason}.\n")
    return "".join(lines)


def _proofs(cells: Cells) -> str:
    """Each test once per system, with the cells that it covers."""
    lines = ["## The tests\n"]
    for name, system in SYSTEMS.items():
        lines.append(f"\n**{system.title}**\n\n")
        tests: dict[str, list[str]] = {}
        for column in COLUMNS:
            for test in sorted(cells.get((name, column), ())):
                tests.setdefault(test, []).append(column)
        lines += [f"- `{test}`: {', '.join(columns)}\n" for test, columns in tests.items()]
    return "".join(lines)


INTRODUCTION = """\
# What is covered

Written by the tests: `make coverage` runs them, and writes this page only if all of them pass. Each *yes* is a test with the
real library, whose names are below; each *cannot* has its reason. What a system cannot see beyond that stands on its own page.

*lost* means: the process that ran it was killed by SIGKILL in the middle, and the daemon's row says `lost`, within a second
on the same host. *arguments* means: they are on the task's page, without secrets.

All of it is for Python 3.11. Of the later ones only asyncio was run, eager tasks among it, with 3.13 and 3.14; the other systems
are unseen there, and Python 3.12 is unseen altogether.
"""
