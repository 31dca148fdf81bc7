"""What a journal's files hold and how large they get: segments ready in time, versions to come, bounds for whoever reads."""

from __future__ import annotations

import os
import struct
import sys
import time
import uuid
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from looseends import journal, slots
from looseends.journal import Journal
from looseends.slots import HEADER_BYTES, SEGMENT_BYTES, SLOT_BYTES, Name
from looseends.wire import BODY_BYTES_MAX, EVENTS_MAX

MOMENTS = 120
FIRST_SLOTS = (SEGMENT_BYTES[0] - HEADER_BYTES) // SLOT_BYTES


def made(spool: Path) -> tuple[Journal, int]:
    """A journal and the number of a name in it."""
    journal_ = Journal(str(spool), {"id": str(uuid.uuid4()), "service": "tests"})
    return journal_, journal_.name(Name("work", ("n",), None, {"source": "task", "declared": True}))


def fill(mine: Journal, number: int, count: int) -> None:
    """So many records, none of them dropped."""
    for _ in range(count):
        assert mine.begin(number, b"[1]", b"", 0, time.monotonic_ns()) is not None


def adopted(folder: str) -> journal.Orphan:
    """The journal of a process that is gone."""
    orphan = journal.adopt(folder)
    assert orphan is not None
    return orphan


# --- segments -------------------------------------------------------------------------------------------------------


def test_the_next_segment_is_asked_for_at_a_quarter_and_made_before_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, number = made(tmp_path / "spool")
    asked: list[int] = []
    mine.ask = lambda: asked.append(1)
    fill(mine, number, FIRST_SLOTS // 4)
    mine.prepare()
    assert not asked and len(os.listdir(mine.folder)) == 4, "a process with few tasks takes one small file"
    fill(mine, number, 1)
    assert asked == [1]
    mine.prepare()
    mine.prepare()
    assert sorted(name for name in os.listdir(mine.folder) if name.endswith(".seg")) == ["00000001.seg", "00000002.seg"]
    monkeypatch.setattr(os, "posix_fallocate", _not_in_a_tasks_way)
    fill(mine, number, FIRST_SLOTS)
    assert mine.dropped == 0 and mine.current is mine.segments[1]
    monkeypatch.undo()
    mine.close()
    orphan = adopted(mine.folder)
    assert orphan.void() == [], "no number is lost at the mark or at the edge"
    assert [event["seq"] for batch in orphan.batches() for event in batch] == list(range(1, FIRST_SLOTS * 5 // 4 + 2))
    orphan.close()


def _not_in_a_tasks_way(*_: object) -> None:
    raise AssertionError("a task waited for the disk")


def test_segments_grow_from_64_kib_to_4_mib(tmp_path: Path) -> None:
    mine, number = made(tmp_path / "spool")
    while len(mine.segments) < 5:
        fill(mine, number, 1)
    sizes = [os.stat(segment.path).st_size for segment in mine.segments]
    blocks = [os.stat(segment.path).st_blocks * 512 for segment in mine.segments]
    assert sizes == [64 << 10, 256 << 10, 1 << 20, 4 << 20, 4 << 20]
    assert all(there >= size for there, size in zip(blocks, sizes, strict=True)), "a hole is a SIGBUS on a disk that fills up"
    mine.close()


def test_a_signal_handler_may_come_anywhere_while_a_segment_is_changed(tmp_path: Path) -> None:
    """At each call under way from the last slot of a segment to the first of the next, somebody else fills segments."""
    came = 0
    for moment in range(1, MOMENTS):
        mine, number = made(tmp_path / str(moment))
        fill(mine, number, FIRST_SLOTS)
        left = moment

        def handler(*_: object, mine: Journal = mine, number: int = number) -> None:
            nonlocal left, came
            left -= 1
            if left == 0:
                sys.setprofile(None)
                came += 1
                fill(mine, number, 2 * FIRST_SLOTS if came % 2 else 1)

        sys.setprofile(handler)
        try:
            fill(mine, number, 2)
        finally:
            sys.setprofile(None)
        fill(mine, number, FIRST_SLOTS)
        mine.close()
        orphan = adopted(mine.folder)
        told = [event["seq"] for batch in orphan.batches() for event in batch]
        assert len(told) == len(set(told)) and mine.dropped == 0 and orphan.damaged == 0, f"at call {moment}"
        orphan.close()
    assert came > 30


def test_a_journal_that_is_closed_takes_no_more_and_makes_no_file(tmp_path: Path) -> None:
    mine, number = made(tmp_path / "spool")
    mine.close()
    before = os.listdir(mine.folder)
    assert mine.begin(number, b"[1]", b"", 0, 1) is None and mine.dropped == 1
    assert os.listdir(mine.folder) == before


# --- versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [True, False])
def test_a_journal_of_a_later_version_is_left_alone_and_a_damaged_one_is_not_taken_for_it(sealed: bool, tmp_path: Path) -> None:
    mine, number = made(tmp_path / "spool")
    fill(mine, number, 3)
    mine.close()
    segment = Path(mine.folder, "00000001.seg")
    data = bytearray(segment.read_bytes())
    data[8:12] = struct.pack("<I", 2)
    if sealed:
        data[40:44] = struct.pack("<I", crc32(bytes(data[:40])))
    segment.write_bytes(data)
    orphan = journal.adopt(mine.folder)
    if sealed:
        assert orphan is None and not journal.is_taken(mine.folder)
        assert journal.obstacle(mine.folder) == "it is of version 2, and 1 is what is read here; a newer looseends can read it"
    else:
        assert orphan is not None and list(orphan.batches()) == [] and orphan.damaged == 1
        orphan.close()


# --- names ----------------------------------------------------------------------------------------------------------


def test_names_are_bounded_in_bytes_too_and_those_written_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "NAMES_BYTES_MAX", 2000)
    mine, number = made(tmp_path / "spool")
    with pytest.raises(OSError, match="names table is full"):
        for n in range(100):
            mine.name(Name(f"a.long.name.{n}." + "x" * 100, (), None, {}))
    fill(mine, number, 1)
    assert mine.begin(len(mine.names) + 1, b"[]", b"", 0, 1) is None and mine.dropped == 1
    mine.close()
    assert os.stat(f"{mine.folder}/names").st_size <= 2000
    orphan = adopted(mine.folder)
    assert [event["name"] for batch in orphan.batches() for event in batch] == ["work"]
    orphan.close()


def test_a_name_that_was_damaged_names_nothing(tmp_path: Path) -> None:
    mine, number = made(tmp_path / "spool")
    fill(mine, number, 2)
    mine.close()
    names = Path(mine.folder, "names")
    names.write_bytes(names.read_bytes().replace(b'"work"', b'"walk"'))
    orphan = adopted(mine.folder)
    assert list(orphan.batches()) == [] and orphan.damaged == 2
    orphan.close()


# --- whoever reads --------------------------------------------------------------------------------------------------


def sizes_of(folder: str) -> list[tuple[int, int]]:
    """(events, bytes of arguments) of every batch."""
    orphan = adopted(folder)
    try:
        return [(len(batch), sum(len(str(event.get("args"))) for event in batch)) for batch in orphan.batches()]
    finally:
        orphan.close()


def test_what_is_read_at_a_time_is_bounded_in_bytes(tmp_path: Path) -> None:
    mine, number = made(tmp_path / "spool")
    for _ in range(100):
        assert mine.begin(number, b'["' + b"x" * 50_000 + b'"]', b"", 0, time.monotonic_ns()) is not None
    mine.close()
    batches = sizes_of(mine.folder)
    assert sum(count for count, _ in batches) == 100
    assert max(size for _, size in batches) <= BODY_BYTES_MAX and max(count for count, _ in batches) <= EVENTS_MAX


def test_a_million_records_that_point_at_one_entry_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, number = made(tmp_path / "spool")
    args = b'["' + b"x" * 59_000 + b'"]'
    kept: dict[str, Any] = {}
    real = journal.Side.put
    monkeypatch.setattr(journal.Side, "put", lambda side, data: kept.setdefault(side.path, real(side, data)))
    for _ in range(FIRST_SLOTS * 4):  # 57 MB of arguments out of two side files of 60 KB
        assert mine.begin(number, args, b"", 0, time.monotonic_ns()) is not None
    monkeypatch.undo()
    mine.close()
    given = sum(size for _, size in sizes_of(mine.folder))
    assert given <= 2 * slots.SIDE_BYTES_MAX


def test_the_time_told_is_the_same_whoever_tells_it(tmp_path: Path) -> None:
    mine, number = made(tmp_path / "spool")
    fill(mine, number, FIRST_SLOTS + 1)
    anchors = {slots.OFFSET.unpack_from(segment.map, slots.ANCHOR_AT)[0] for segment in mine.segments}
    assert anchors == {mine.steady_anchor()}
    mine.anchor -= 3_600_000_000_000  # the machine's clock was set by an hour
    mine.refresh()
    anchors = {slots.OFFSET.unpack_from(segment.map, slots.ANCHOR_AT)[0] for segment in mine.segments}
    assert anchors == {mine.anchor} and abs(mine.anchor - journal.anchor_now()) < 1_000_000_000
    mine.close()
