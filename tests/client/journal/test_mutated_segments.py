"""Segments, names and side files that were damaged in every way we can think of: nothing is raised and no task is invented.

`make fuzz-journal` reads 1,000,000 of them, `make test` MUTANTS_SHORT. Most are read from memory by the functions that sender and
adopter share; each FILE_EVERYth goes the whole way, from files through `adopt` to the daemon's check of a batch.

What is not invented: every event's task is one that was written, under its own name, with its own arguments, key and parent, or
with none and a reason. The words that change in place (times, outcome, references) carry no CRC: see docs/journal.md.
"""

from __future__ import annotations

import os
import random
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import pytest

from looseends import journal, slots, telling
from looseends.journal import Journal
from looseends.slots import CANCELLED, DROPPED, FAILED, FINISHED, HEADER_BYTES, SLOT_BYTES, Name
from looseends.wire import check_batch

MUTANTS_SHORT = 20_000
FILE_EVERY = 100
SAY_EVERY = 100_000
RECORDS = 12
NOT_READ = "its arguments could not be read back from the spool"


class Files(NamedTuple):
    """What one process left: one segment, its side file, its names."""

    segment: bytes
    side: bytes
    names: bytes


def written(spool: Path, first: int, base: int = 0) -> tuple[str, Files]:
    """A journal with records of every kind; the numbers in its arguments begin at `first`. -> (folder, files)."""
    made = Journal(str(spool), {"id": str(uuid.uuid4()), "service": "tests"})
    for _ in range(base):
        made.reserve()
    fields = {"source": "task", "declared": True}
    mail = made.name(Name("mail.send", ("n", "text"), "n", fields))
    report = made.name(Name("nightly.report", ("day",), "report-{day}", fields))
    for n in range(first, first + RECORDS):
        now = time.monotonic_ns()
        text = "x" * (400 if n % 3 == 0 else n % 40)
        own, parent = (bytes([7, n % 256] * 8) if n % 5 == 0 else slots.NO_ID), (bytes([9] * 16) if n % 4 == 0 else slots.NO_ID)
        args = f'[{n},"{text}"]' if n % 2 else f"[{n}]"
        extra = b'{"request":"GET /x"}' if n % 6 == 0 else b""
        waits = now if n % 4 == 1 else 0
        place = made.begin(mail if n % 2 else report, args.encode(), extra, waits, 0 if waits else now, parent, own, n % 3 + 1)
        assert place is not None
        if n % 4 == 2:
            made.end(*place, now + 1_000, (FINISHED, FAILED, CANCELLED, DROPPED)[n // 4 % 4], b'{"reason":"requested"}')
        if n % 4 == 3:
            made.end(*place, now + 1_000, FAILED, b'{"error":{"type":"E","message":"' + b"m" * 200 + b'"}}')
    made.close()
    folder = Path(made.folder)
    side = folder / "00000001.side"
    return made.folder, Files((folder / "00000001.seg").read_bytes(), side.read_bytes(), (folder / "names").read_bytes())


def read(files: Files) -> list[dict[str, Any]]:
    """All events, by the functions that the sender and the adopter read with."""
    names = slots.read_names(files.names)
    head = slots.read_header(files.segment, len(files.segment))
    if head is None:
        return []
    (anchor,) = slots.OFFSET.unpack_from(files.segment, slots.ANCHOR_AT)

    def side(offset: int, length: int) -> bytes:
        return files.side[offset : offset + length]

    events: list[dict[str, Any]] = []
    for record in slots.records(files.segment, head, names, side):
        if record is not None:
            events += telling.events_of(record, anchor, side)
    return events


# --- damage ---------------------------------------------------------------------------------------------------------


Damage = Callable[[random.Random, bytearray], None]


def _place(chance: random.Random, data: bytearray) -> int:
    """Where there is something: in the head, in a slot that was written, now and then anywhere."""
    kind = chance.random()
    if kind < 0.2:
        return chance.randrange(min(64, len(data)))
    return chance.randrange(min(len(data), HEADER_BYTES + (RECORDS + 2) * SLOT_BYTES) if kind < 0.95 else len(data))


def flipped_bits(chance: random.Random, data: bytearray) -> None:
    """A few single bits."""
    for _ in range(chance.randrange(1, 6)):
        data[_place(chance, data)] ^= 1 << chance.randrange(8)


def rubbish(chance: random.Random, data: bytearray) -> None:
    """Random bytes over a stretch."""
    at = _place(chance, data)
    stretch = min(chance.choice((1, 8, 40, 300, 4096)), len(data) - at)
    data[at : at + stretch] = chance.randbytes(stretch)


def zeros(chance: random.Random, data: bytearray) -> None:
    """A stretch that was never written, as a lost page is."""
    at = _place(chance, data)
    stretch = min(chance.choice((8, 256, 512, 4096)), len(data) - at)
    data[at : at + stretch] = bytes(stretch)


def odd_words(chance: random.Random, data: bytearray) -> None:
    """Extreme numbers where a number stands."""
    at = _place(chance, data) & ~7
    if at + 8 <= len(data):
        word = chance.choice((0, 1, 7, 0xFF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, chance.getrandbits(64)))
        data[at : at + 8] = word.to_bytes(8, "little")


def slots_moved(chance: random.Random, data: bytearray) -> None:
    """A whole slot stands in another's place, as a sector written to the wrong place would."""
    source, target = (HEADER_BYTES + chance.randrange(RECORDS + 4) * SLOT_BYTES for _ in range(2))
    data[target : target + SLOT_BYTES] = data[source : source + SLOT_BYTES]


def committed_rubbish(chance: random.Random, data: bytearray) -> None:
    """A slot that nobody wrote claims that it was written, with fields that make sense."""
    at = HEADER_BYTES + chance.randrange(240) * SLOT_BYTES
    size = chance.randrange(200)
    fixed = slots.SLOT.pack(1, chance.randrange(4), 1, chance.randrange(4), chance.getrandbits(32), size, 0, 1, 1, 0, 0, 0)
    data[at : at + len(fixed)] = fixed
    data[at + slots.INLINE_AT : at + SLOT_BYTES] = b"[1]".ljust(SLOT_BYTES - slots.INLINE_AT)


def cut(chance: random.Random, data: bytearray) -> None:
    """The end is missing."""
    del data[chance.randrange(len(data)) :]


def longer(chance: random.Random, data: bytearray) -> None:
    """There is more than was written."""
    data += chance.randbytes(chance.randrange(1, 5000))


IN_PLACE: tuple[Damage, ...] = (flipped_bits, rubbish, zeros, odd_words, slots_moved, committed_rubbish)
ANYWHERE: tuple[Damage, ...] = (flipped_bits, rubbish, zeros, odd_words, cut, longer)


def spliced(chance: random.Random, data: bytearray, other: bytes) -> None:
    """Slots of another process's segment among ours: whole, sealed, and not ours. Now and then all of them, without its head."""
    count = chance.choice((1, 1, 3, RECORDS + 4))
    at = HEADER_BYTES + chance.randrange(RECORDS + 4) * SLOT_BYTES
    data[at : at + count * SLOT_BYTES] = other[at : at + count * SLOT_BYTES]


def mutant(chance: random.Random, good: Files, other: Files) -> Files:
    """The same files, damaged once to three times."""
    data = [bytearray(part) for part in good]
    for _ in range(chance.choice((1, 1, 2, 3))):
        kind = chance.random()
        if kind < 0.1:
            spliced(chance, data[0], other.segment)
        elif kind < 0.7:
            if len(data[0]) == len(good.segment):
                chance.choice(IN_PLACE)(chance, data[0])
        elif kind < 0.72:
            chance.choice((cut, longer))(chance, data[0])
        else:
            part = data[chance.choice((1, 2))]
            if part:
                chance.choice(ANYWHERE)(chance, part)
            if chance.random() < 0.1:
                data[2] += other.names  # a second table behind the first
    return Files(*map(bytes, data))


# --- what may be there ----------------------------------------------------------------------------------------------


Truth = dict[str, dict[str, Any]]


def truth_of(events: list[dict[str, Any]]) -> Truth:
    """task -> what was said of it when it began."""
    return {event["task"]: event for event in events if event["type"] in ("scheduled", "started")}


def invented(events: list[dict[str, Any]], truth: Truth) -> list[str]:
    """Events that tell of something that was never written, in words."""
    wrong = []
    for event in events:
        known = truth.get(event["task"])
        if (
            known is None
            or event["name"] != known["name"]
            or event["attempt"] != known["attempt"]
            or event["seq"] != known["seq"]
        ):
            wrong.append(f"no such task: {event}")
        elif event["type"] in ("scheduled", "started"):
            left_out = event.get("not_replayable_because") == NOT_READ and "args" not in event
            if not left_out and any(event.get(field) != known.get(field) for field in ("args", "key", "parent", "request")):
                wrong.append(f"not as it was written: {event}")
    return wrong


@pytest.fixture
def mutants() -> int:
    """How many to read."""
    return int(os.environ.get("MUTANTS", MUTANTS_SHORT))


@pytest.fixture
def seed() -> int:
    """Decides the damage. Printed with the figures; MUTANTS_SEED has a run's again."""
    return int(os.environ.get("MUTANTS_SEED", random.SystemRandom().randrange(1 << 32)))


def test_damaged_segments_raise_nothing_and_invent_no_task(
    mutants: int, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, good = written(tmp_path / "spool", 1)
    _, other = written(tmp_path / "other", 101)
    truth = truth_of(read(good))
    assert len(truth) == RECORDS and {event["type"] for event in read(good)} >= {"scheduled", "started", "finished", "failed"}
    chance = random.Random(seed)
    survived = 0
    for number in range(1, mutants + 1):
        files = mutant(chance, good, other)
        events = read_files(folder, files) if number % FILE_EVERY == 0 else read(files)
        assert not invented(events, truth), f"mutant {number} of seed {seed}: {invented(events, truth)[:3]}"
        survived += len(events) > 0
        if number % SAY_EVERY == 0 or number == mutants:
            with capsys.disabled():
                words = f"{number:,} damaged journals read, {survived:,} with something left in them, 0 raised, 0 tasks invented"
                print(f"\n  {words}; seed {seed}", file=sys.stderr, flush=True)
    assert mutants // 2 < survived < mutants, "most must leave something to read, or the damage proves nothing"


def read_files(folder: str, files: Files) -> list[dict[str, Any]]:
    """The same from the folder, as an adopter reads it, and through the daemon's check of a batch."""
    for name, data in zip(("00000001.seg", "00000001.side", "names"), files, strict=True):
        Path(folder, name).write_bytes(data)
    orphan = journal.adopt(folder)
    if orphan is None:  # a whole head of a version to come: left alone, and said so
        assert "version" in journal.obstacle(folder)
        return []
    try:
        events = [event for batch in orphan.batches() for event in batch]
        assert orphan.void() is not None and orphan.damaged >= 0 and 0 <= orphan.dropped < 1 << 40
        check_batch({"instance": orphan.instance, "events": events[:1000]}, time.time_ns())
        return events
    finally:
        orphan.close()


# --- planted faults -------------------------------------------------------------------------------------------------


class _Anything:
    """Agrees with every CRC."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def _sealed_without_place(files: Files) -> Files:
    """The same records, sealed as if a slot could stand anywhere."""
    data = bytearray(files.segment)
    for index in range(RECORDS):
        at = HEADER_BYTES + index * SLOT_BYTES
        _, flags, attempt, number, _, args, extra, *_ = slots.SLOT.unpack_from(data, at)
        size = 8 if flags & slots.SPILLED else args + extra
        rest = bytes(data[at + slots.IDS_AT : at + slots.INLINE_AT + size])
        data[at + 8 : at + 12] = slots.seal(0, flags, attempt, number, args, extra, rest).to_bytes(4, "little")
    return files._replace(segment=bytes(data))


def _resealed(names: bytes) -> bytes:
    """Every line of a names table as if it were right."""
    lines = [line[9:] for line in names.split(b"\n") if line]
    return b"".join(b"\n%08x %s\n" % (crc32(line), line) for line in lines)


@pytest.mark.parametrize("fault", ["believes every slot", "does not ask where a slot stands", "believes every name"])
def test_a_reader_with_a_planted_fault_is_caught(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, good = written(tmp_path / "spool", 1)
    _, other = written(tmp_path / "other", 101)
    truth, seal, read_names = truth_of(read(good)), slots.seal, slots.read_names
    if fault == "believes every slot":
        monkeypatch.setattr(slots, "seal", lambda *_: _Anything())
    elif fault == "does not ask where a slot stands":
        good, other = _sealed_without_place(good), _sealed_without_place(other)
        monkeypatch.setattr(slots, "seal", lambda _, *rest: seal(0, *rest))
    else:
        monkeypatch.setattr(slots, "read_names", lambda data: read_names(_resealed(data)))
    assert len(truth_of(read(good))) == RECORDS
    chance = random.Random(2026)
    assert any(invented(read(mutant(chance, good, other)), truth) for _ in range(3000))
