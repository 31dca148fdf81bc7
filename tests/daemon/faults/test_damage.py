"""Bytes of the database that were changed by something else: it is refused whole and untouched, or what is missing is shown."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from faulty import Faulty, Service, started

import harness

PAGE = 4_096


def patch(path: Path, at: int, junk: bytes = b"\xa5" * 64) -> None:
    """Overwrite bytes in place."""
    raw = bytearray(path.read_bytes())
    assert at + len(junk) <= len(raw)
    raw[at : at + len(junk)] = junk
    path.write_bytes(raw)


def page_of(path: Path, table: str) -> int:
    """The page, from 0, at which a table begins."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as conn:
        return int(conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]) - 1


def full(faulty: Faulty, service: Callable[..., Service]) -> dict[str, str]:
    """A past of 300 tasks and a backup of it; their states. The daemon still runs."""
    faulty.start()
    one = service()
    one.do("run 290")
    one.do("fail 10")
    one.send()
    one.end()
    assert faulty.command("backup", faulty.folder / "backup")[0] == 0
    states = faulty.states()
    assert len(states) == 300
    return states


def is_refused_untouched_and_restored(faulty: Faulty, words: str, states: dict[str, str]) -> None:
    """It does not start, says why and what to do, changes nothing, and what it says helps."""
    damaged = faulty.files()
    for _ in range(2):
        line = faulty.refuses()
        assert line.startswith("looseends: ") and words in line, line
        assert "keep it as it is" in line and "looseends restore BACKUP" in line, line
        assert faulty.files() == damaged, "not a byte is changed"
    assert faulty.command("doctor")[0] == 1
    code, said = faulty.command("restore", faulty.folder / "backup")
    assert code == 0 and "is kept as" in said, said
    kept = next(path for path in faulty.folder.glob("looseends.db.before-*") if not path.name.endswith("-wal"))
    assert kept.read_bytes() == damaged["looseends.db"], "the damaged file is still there"
    faulty.start()
    assert faulty.states() == states and faulty.ready() == ""


def test_a_damaged_header_is_refused_untouched_with_the_way_out(faulty: Faulty, service: Callable[..., Service]) -> None:
    states = full(faulty, service)
    faulty.kill()
    patch(faulty.database, 0)
    is_refused_untouched_and_restored(faulty, "is not a looseends database", states)


def test_a_damaged_page_is_refused_untouched_with_the_way_out(faulty: Faulty, service: Callable[..., Service]) -> None:
    states = full(faulty, service)
    faulty.stop()  # now all of it is in the file
    pages = faulty.database.stat().st_size // PAGE
    patch(faulty.database, pages // 2 * PAGE)
    is_refused_untouched_and_restored(faulty, "is damaged", states)


def test_of_a_file_too_large_to_look_at_what_is_whole_is_served_and_what_is_not_is_said(
    faulty: Faulty, service: Callable[..., Service]
) -> None:
    states = full(faulty, service)
    faulty.stop()
    patch(faulty.database, page_of(faulty.database, "task") * PAGE)
    faulty.start(bounds={"VERIFY_BYTES_MAX": 0})
    status, problem = faulty.ask("GET", "/api/v1/tasks?limit=500", operator=True)
    assert status == 503 and "doctor says more" in problem["detail"], (status, problem)
    assert faulty.get("ledger")["tasks"] == len(states), "what is whole is served"
    assert len(faulty.get("instances")["items"]) == 1
    assert faulty.ask("POST", "/api/v1/events", started(0, 1))[0] == 503, "nothing is answered that is not stored"
    assert "malformed" in faulty.ready()
    code, words = faulty.command("doctor")
    assert code == 1 and "trouble  integrity" in words, words
    faulty.stop()


def test_records_that_a_damaged_log_took_along_are_missed_by_their_numbers(
    faulty: Faulty, service: Callable[..., Service]
) -> None:
    faulty.start(bounds={"EVERY_S": 3_600})  # nothing of the log is in the file yet
    log = Path(f"{faulty.database}-wal")
    one = service()
    one.do("run 20")
    one.send()
    whole = log.stat().st_size
    for _ in range(4):
        one.do("run 10")
        one.send()
    assert len(faulty.states()) == 60
    faulty.kill()
    patch(log, (whole + log.stat().st_size) // 2)
    damaged = log.read_bytes()

    faulty.start()
    assert "commits that had been answered are no longer there" in faulty.ready()
    assert any("is damaged" in line and '"level": "error"' in line for line in faulty.process.lines)
    (kept,) = faulty.folder.glob("looseends.db-wal.damaged-*")
    assert kept.read_bytes() == damaged
    one.do("run 5")
    one.send()
    one.end()
    states = faulty.states()
    instance = harness.wait_until(lambda: (told := faulty.get(f"instances/{one.id}"))["missing"] and told, "what is missing")
    assert 0 < instance["missing"] < 40, instance  # type: ignore[index]
    assert len(states) + instance["missing"] == 65, "each record is here or counted as missing"  # type: ignore[index]
    assert f"{instance['missing']} records of this instance are missing" in instance["notes"]  # type: ignore[index]
    ledger = faulty.get("ledger")
    assert not ledger["complete"] and ledger["tasks"] == len(states)
    assert Counter(states.values())["succeeded"] == ledger["succeeded"]
    windows = faulty.get("blind-windows")["items"]
    assert {window["instance"] for window in windows if window["cause"] == "records"} == {one.id, None}
    assert any("the log of the database was damaged" in window["reason"] for window in windows)
    faulty.stop()
    faulty.start()
    assert faulty.ready() == "", "it was said; what is missing stays shown"
    assert not faulty.get("ledger")["complete"]
