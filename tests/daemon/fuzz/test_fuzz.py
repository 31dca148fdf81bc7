"""Whatever anybody sends to whichever door: a clear answer, true books afterwards, and a daemon that goes on.

2,000 requests in the suite, made in the same way every time; FUZZ_CASES=20000 asks that many, FUZZ_SEED=7 asks others.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import harness

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode needs to be told where the fuzzer is

from fuzz_cases import Book, Cases
from fuzz_judge import faults
from fuzz_line import Case, Line, Reply
from fuzz_town import Town
from fuzz_values import BY_CHECK, field_values

from looseends import wire
from looseends_daemon.store import retention

CASES = int(os.environ.get("FUZZ_CASES", "2000"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
SHOWN_MAX = 2_000
"""A run of more cases also shows what each door said."""
ROUND = 500
CONTROL_CASES = 500
MEMORY_KIB_MAX = 160 << 10
AT_THE_DOOR = (400, 401, 403, 405, 413, 415, 421)
"""What is answered before a handler is asked."""


class Asked:
    """What was answered to whom. `wrong` holds one request for each kind of fault."""

    def __init__(self) -> None:
        self.by_door: dict[str, Counter[int]] = defaultdict(Counter)
        self.wrong: dict[tuple[str, str], str] = {}

    def note(self, case: Case, reply: Reply) -> None:
        """Judge an answer."""
        self.by_door[case.door][reply.status] += 1
        for fault in faults(case, reply):
            self.wrong.setdefault((case.door, fault[:120]), f"{fault}\n    after {case.shown()}")

    def __str__(self) -> str:
        every = sum(self.by_door.values(), Counter[int]())
        lines = [f"{door:<48} {_counted(seen)}" for door, seen in self.by_door.items() if CASES > SHOWN_MAX]
        return "\n".join([*lines, f"{every.total()} requests to {len(self.by_door)} doors: {_counted(every)}"])

    def unentered(self) -> list[str]:
        """Doors behind which nobody came in all this time."""
        return [door for door, seen in self.by_door.items() if not any(status not in AT_THE_DOOR for status in seen)]


def _counted(seen: Counter[int]) -> str:
    return ", ".join(f"{status} x{count}" for status, count in sorted(seen.items()))


def fuzz(town: Town, book: Book, count: int) -> Asked:
    """Ask every door without a mistake, then `count` times whatever comes to mind; a tired town is filled once more."""
    asked = Asked()
    with Line(town.socket) as line:

        def ask(case: Case) -> None:
            asked.note(case, line.ask(case))
            if case.door == "POST /sign-out":
                town.sign_in_again(book)

        town.tell(book)
        for door in book.doors:
            _run(ask, Cases(book).good(door), 2, SEED)
        for done in range(0, count, ROUND):
            town.fill()
            town.tell(book)
            _run(ask, Cases(book).any(), min(ROUND, count - done), SEED + done)
    return asked


def _run(ask: Callable[[Case], None], cases: Any, count: int, number: int) -> None:
    quiet = settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    seed(number)(quiet(given(cases)(ask)))()  # type: ignore[no-untyped-call]


def books_of(town: Town) -> list[str]:
    """What does not add up, in words."""
    conn = town.look()
    try:
        wrong = retention.recount(conn) + [row[0] for row in conn.execute("PRAGMA integrity_check") if row[0] != "ok"]
    finally:
        conn.close()
    whole = town.get("/api/v1/ledger?bucket=1h")
    assert whole["tasks"] and whole["buckets"]
    terms = ("succeeded", "failed", "cancelled", "in_time", "gap")
    for part in (whole, *whole["buckets"]):
        if part["tasks"] != sum(part[term] for term in terms):
            wrong.append(f"a ledger that does not add up: {part}")
    return wrong


@pytest.fixture
def town(processes: harness.Processes, state_dir: Path) -> Iterator[Town]:
    """A daemon with some of everything in it."""
    with Town(processes, state_dir) as town:
        town.fill()
        yield town


def test_whatever_is_sent_gets_a_clear_answer_and_the_books_stay_true(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    book = town.book()
    before, _ = town.memory_kib()
    asked = fuzz(town, book, CASES)
    now, most = town.memory_kib()
    with capsys.disabled():
        print(f"\n{asked}")
        print(f"memory of the daemon: {before >> 10} MiB before, {now >> 10} after, {most >> 10} at most")
    assert not asked.wrong, "\n".join(f"{door}: {what}" for (door, _), what in asked.wrong.items())
    assert sorted(asked.by_door) == sorted(door.name for door in book.doors)
    assert asked.unentered() == []
    assert (books_of(town), town.bad_lines()) == ([], [])
    assert town.ask("GET", "/livez").status == 200 and town.process.running
    assert most < MEMORY_KIB_MAX


def test_a_planted_handler_that_raises_is_found(processes: harness.Processes, state_dir: Path) -> None:
    with Town(processes, state_dir, "raises") as town:
        town.fill()
        asked = fuzz(town, town.book(), CONTROL_CASES)
        assert any(fault == "status 500" for _, fault in asked.wrong) and town.bad_lines()


def test_a_planted_ledger_that_counts_again_is_found(processes: harness.Processes, state_dir: Path) -> None:
    with Town(processes, state_dir, "counts-again") as town:
        town.fill()
        assert books_of(town)


@pytest.mark.parametrize("kind", wire.TYPES)
def test_every_field_of_an_event_has_values_to_send(kind: str) -> None:
    for field in (*wire.FIELDS[kind], *wire._COMMON, *wire._INSTANCE):
        if field in wire.FIELDS[kind] or field in wire._COMMON:
            field_values(kind, field, st.just("x")).validate()
        else:
            assert wire._INSTANCE[field] in BY_CHECK
