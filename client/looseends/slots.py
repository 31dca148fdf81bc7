"""The bytes of a journal, version 1: how a task's record lies in a segment. Pure; its events are in telling.py.

Rules (docs/journal.md draws them):

1. A record is one 256-byte slot. Body first, commit byte last; a slot without its commit byte was never written.
2. What changes later (scheduled, started, ended, progress) are aligned 8-byte words, each set by one assignment of
   packed bytes, so a kill finds the old word or the new one and nothing between. Never `pack_into`: it fills with
   zeros first, and a reader sees them.
3. An end is time and outcome in one word; its detail lies in the side file *before* the word is set.
4. Everything that does not change carries a CRC, seeded with its segment and its slot: bytes that were copied to another
   place are no record there. A reader believes nothing else: wrong magic, size, CRC, name or time means "no such record",
   never an exception and never an invented task.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from zlib import crc32

from .wire import NAME_CHARS_MAX

MAGIC = b"LOOSEND1"
VERSION = 1
HEADER_BYTES = 4096
SLOT_BYTES = 256
SEGMENT_BYTES = (64 << 10, 256 << 10, 1 << 20, 4 << 20)
SEGMENT_BYTES_MAX = SEGMENT_BYTES[-1]
SLOTS = tuple((size - HEADER_BYTES) // SLOT_BYTES for size in SEGMENT_BYTES)
INLINE_BYTES_MAX = 168
SIDE_UNIT = 256
SIDE_DATA_BYTES_MAX = (1 << 20) - 1
SIDE_BYTES_MAX = 16 << 20  # per segment; beyond it arguments and tracebacks are left out, starts and ends are not
NAMES_BYTES_MAX = 4 << 20
NAMES_MAX = 20_000

HEADER = struct.Struct("<8sIIQQQ")  # magic, version, slots, time (unix ms), nonce (58 bits), base of seq
HEADER_CRC = struct.Struct("<I")
ANCHOR_AT = 48  # signed: wall clock minus monotonic clock in ns, refreshed while the process lives
DROPPED_AT = 56  # records this process could not keep so far: the only trace of them once it is killed
FIXED = struct.Struct("<BHIHH")  # flags, attempt, name, bytes of args, bytes of extra: what the CRC begins with
STAMP = struct.Struct("<BBHI")
SLOT = struct.Struct("<BBHIIHHQQQQQ")
"""commit, flags, attempt, name, crc, bytes of args, bytes of extra; then scheduled, started, ended, detail, progress."""
IDS_AT, INLINE_AT = 56, 88
_COLUMNS = struct.Struct("<xBxxI8x5Q32xQ160x")
SCHEDULED_AT, STARTED_AT, ENDED_AT, DETAIL_AT, PROGRESS_AT = 16, 24, 32, 40, 48
WORD = struct.Struct("<Q")
OFFSET = struct.Struct("<q")
SIDE_HEAD = struct.Struct("<II")  # length, crc

OWN_ID, SPILLED = 1, 2  # flags
FINISHED, FAILED, CANCELLED, DROPPED = 1, 2, 3, 4  # the low three bits of the ended word
HANDED = 5
"""A broker has the message: nothing more is to be told from here, and whoever runs it tells of its start and end."""
UNSURE, HANDLED = 6, 7
"""A failure of captured work: nobody has retrieved its exception so far (told as not handled, and held back for UNSURE_S to see
whether somebody does), and one whose exception was retrieved."""
UNSURE_S = 60.0
STATUS = {
    FINISHED: "finished",
    FAILED: "failed",
    CANCELLED: "cancelled",
    DROPPED: "dropped",
    UNSURE: "failed",
    HANDLED: "failed",
}
HAS_SCHEDULED, HAS_STARTED, HAS_PROGRESS, HAS_END = 1, 2, 4, 8
NO_ID = bytes(16)
HAND_OVER_S = 60.0
"""A message that no broker confirmed for so long is not waiting its turn: it most likely never got there."""
EXPECTS = "expect"
"""The `source` of names whose records are expectations, not tasks."""

ReadSide = Callable[[int, int], bytes]
"""offset, length -> what stands there in the side file (short or empty where nothing does)."""


class Header(NamedTuple):
    """The unchanging head of a segment. `seal`: 29 bits of its CRC, from which its slots' CRCs begin (30 bits add fastest)."""

    slots: int
    time_ms: int
    nonce: int
    base: int
    seal: int


class Name(NamedTuple):
    """One line of the names table: what all tasks of one function share. `fields` are fields of `started` as sent."""

    name: str
    params: tuple[str, ...]
    key: str | None
    fields: dict[str, Any]


class Record(NamedTuple):
    """One task as its slot tells it; times are the process's monotonic ns, 0 where it did not come to that."""

    seq: int
    task: bytes
    attempt: int
    name: Name
    parent: bytes
    args: bytes
    extra: bytes
    scheduled: int
    started: int
    ended: int
    status: int
    detail: int
    progress: int


def make_header(slots: int, time_ms: int, nonce: int, base: int) -> Header:
    """The head of a new segment."""
    return Header(slots, time_ms, nonce, base, crc32(HEADER.pack(MAGIC, VERSION, slots, time_ms, nonce, base)) >> 3)


def pack_header(head: Header, anchor: int, dropped: int = 0) -> bytes:
    """The first bytes of a new segment."""
    packed = HEADER.pack(MAGIC, VERSION, head.slots, head.time_ms, head.nonce, head.base)
    packed += HEADER_CRC.pack(crc32(packed))
    return packed + bytes(ANCHOR_AT - len(packed)) + OFFSET.pack(anchor) + WORD.pack(dropped)


def read_header(data: bytes | memoryview, size: int) -> Header | None:
    """The head of a segment of `size` bytes, or None where this is no segment of ours."""
    if size not in SEGMENT_BYTES or len(data) < HEADER_BYTES:
        return None
    packed = bytes(data[: HEADER.size])
    magic, version, slots, time_ms, nonce, base = HEADER.unpack(packed)
    crc = crc32(packed)
    if magic != MAGIC or version != VERSION or HEADER_CRC.unpack_from(data, HEADER.size)[0] != crc:
        return None
    if slots != (size - HEADER_BYTES) // SLOT_BYTES or time_ms >= 1 << 48 or nonce >= 1 << 58 or base >= 1 << 40:
        return None
    return Header(slots, time_ms, nonce, base, crc >> 3)


def version_of(data: bytes) -> int:
    """The version of the format that these first bytes of a segment name, 0 where they are damaged. Every version begins so."""
    packed = data[: HEADER.size]
    if len(data) < HEADER.size + HEADER_CRC.size or packed[: len(MAGIC)] != MAGIC:
        return 0
    return int(HEADER.unpack(packed)[1]) if HEADER_CRC.unpack_from(data, HEADER.size)[0] == crc32(packed) else 0


def committed(data: Any, head: Header) -> bytes:
    """The commit bytes of a segment, one a slot."""
    return bytes(data[HEADER_BYTES::SLOT_BYTES])[: head.slots]


def dropped_in(data: Any) -> int:
    """How many records the process had dropped by the time it last wrote to this segment; 0 where the word is absurd."""
    count: int = WORD.unpack_from(data, DROPPED_AT)[0]
    return count if count < 1 << 40 else 0


def task_id(head: Header, slot: int) -> bytes:
    """The id of the task in this slot: a UUIDv8 of segment time, slot and nonce, ordered within a process."""
    rest = slot << 58 | head.nonce
    value = head.time_ms << 80 | 0x8 << 76 | (rest >> 62) << 64 | 0b10 << 62 | rest & ((1 << 62) - 1)
    return value.to_bytes(16, "big")


def id_text(raw: bytes) -> str:
    """16 bytes as the text of a UUID."""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def seal(place: int, flags: int, attempt: int, name: int, args: int, extra: int, rest: bytes) -> int:
    """The CRC of what never changes in a slot: fixed numbers, both ids; then `place` (head.seal + slot); then the body."""
    return crc32(rest[32:], crc32(FIXED.pack(flags, attempt, name, args, extra) + rest[:32]) ^ place & 0xFFFFFFFF)


class Stamp:
    """What the plain records of one name share, worked out once: the first bytes of a slot, and where its CRC begins.

    Plain: a first attempt begun now, with the slot's own id, and arguments that fit into the slot with nothing beside them.
    """

    __slots__ = ("head", "number", "seeds")

    def __init__(self, number: int) -> None:
        self.number = number
        self.head = STAMP.pack(0, 0, 1, number)
        self.seeds: dict[int, int] = {}  # by bytes of arguments, of tasks without a parent: at most INLINE_BYTES_MAX of them

    def seed(self, size: int, parent: bytes | None) -> int:
        """Where the CRC of a record with `size` bytes of arguments begins, up to its place."""
        found = crc32(FIXED.pack(0, 1, self.number, size, 0) + NO_ID + (parent or NO_ID))
        if parent is None:
            self.seeds[size] = found
        return found


PACKERS = tuple(struct.Struct(f"<8sIHHQQ40x16s{size}s").pack_into for size in range(INLINE_BYTES_MAX + 1))
"""By bytes of arguments, what writes a plain record: head, crc, bytes of args, of extra, scheduled, started, parent, args.

`pack_into` fills with zeros before it writes; here alone that harms nobody: no reader looks at a slot without its commit byte.
"""


def pack_ref(unit: int, length: int, turn: int = 0) -> int:
    """Where detail lies in the side file: unit (28 bits), length (20), and a turn so that a rewritten place looks new."""
    return unit << 36 | length << 16 | turn & 0xFFFF


def read_ref(ref: int, side: ReadSide) -> bytes | None:
    """The bytes a word points at, or None where they are not whole."""
    offset, length = ref_place(ref)
    data = side(offset, length) if length else b""
    if not length or len(data) != length:
        return None
    said, crc = SIDE_HEAD.unpack_from(data)
    body = data[SIDE_HEAD.size :]
    return body if said == len(body) and crc == crc32(body) else None


def read_slot(data: Any, index: int, head: Header, names: dict[int, Name], side: ReadSide) -> Record | None:
    """The record in slot `index` of a segment's bytes, or None: not committed, not whole, or not ours."""
    at = HEADER_BYTES + index * SLOT_BYTES
    return read_one(bytes(data[at : at + SLOT_BYTES]), index, head, names, side)


def read_one(slot: bytes, index: int, head: Header, names: dict[int, Name], side: ReadSide) -> Record | None:
    """The same of the slot's own bytes, wherever they were copied to."""
    commit, flags, attempt, number, crc, args, extra, scheduled, started, ended, detail, progress = SLOT.unpack_from(slot)
    if commit != 1 or not (scheduled or started):
        return None
    size = WORD.size if flags & SPILLED else args + extra
    name = names.get(number)
    if name is None or size > INLINE_BYTES_MAX:
        return None
    if crc != seal(head.seal + index, flags, attempt, number, args, extra, slot[IDS_AT : INLINE_AT + size]):
        return None
    body: bytes | None = slot[INLINE_AT : INLINE_AT + size]
    if flags & SPILLED:
        body = read_ref(WORD.unpack_from(slot, INLINE_AT)[0], side)
        if body is None or len(body) != args + extra:
            body, args = b'{"not_replayable_because":"its arguments could not be read back from the spool"}', 0
    assert body is not None
    return Record(
        head.base + index + 1,
        slot[IDS_AT : IDS_AT + 16] if flags & OWN_ID else task_id(head, index),
        attempt,
        name,
        slot[IDS_AT + 16 : INLINE_AT],
        body[:args],
        body[args:],
        scheduled,
        started,
        ended & ~7,
        ended & 7,
        detail,
        progress,
    )


def records(data: Any, head: Header, names: dict[int, Name], side: ReadSide) -> Iterator[Record | None]:
    """What was committed to a segment, in order; None for a record that is damaged."""
    for index, commit in enumerate(committed(data, head)):
        if commit:
            yield read_slot(data, index, head, names, side)


def words_of(data: Any, index: int) -> tuple[int, int, int, int, int]:
    """The five changing words of a slot: scheduled, started, ended with status, detail, progress."""
    at = HEADER_BYTES + index * SLOT_BYTES + SCHEDULED_AT
    return struct.unpack("<5Q", data[at : at + 40])


class Columns(NamedTuple):
    """What stands in the slots of a run, by what it is: a few calls for hundreds of records. `spilled`: where arguments lie."""

    flags: tuple[int, ...]
    names: tuple[int, ...]
    scheduled: tuple[int, ...]
    started: tuple[int, ...]
    ended: tuple[int, ...]
    detail: tuple[int, ...]
    progress: tuple[int, ...]
    spilled: tuple[int, ...]


def columns(data: bytes) -> Columns:
    """The columns of at least one slot's bytes."""
    return Columns(*zip(*_COLUMNS.iter_unpack(data), strict=True))


def ref_place(ref: int) -> tuple[int, int]:
    """Offset and length of what a word points at, its length and CRC before it; length 0: it points at nothing."""
    length = ref >> 16 & 0xFFFFF
    return (ref >> 36) * SIDE_UNIT, SIDE_HEAD.size + length if length else 0


def read_names(data: bytes) -> dict[int, Name]:
    """The names table. A line that is torn, foreign or too much is left out; of two with one number the first counts."""
    names: dict[int, Name] = {}
    for line in data[:NAMES_BYTES_MAX].split(b"\n")[: 2 * NAMES_MAX + 1]:
        entry = loads(line[9:]) if line[:9] == b"%08x " % crc32(line[9:]) else None
        if not isinstance(entry, dict):
            continue
        number, name, params, key, fields = (entry.get(k) for k in ("n", "name", "params", "key", "fields"))
        if type(number) is not int or number in names or not isinstance(name, str) or not name or not isinstance(fields, dict):
            continue
        if isinstance(params, list) and all(isinstance(p, str) for p in params) and isinstance(key, str | None):
            names[number] = Name(name, tuple(params), key, fields)
    return names


def pack_name(number: int, name: Name) -> bytes:
    """One line of the names table."""
    entry = {"n": number, "name": name.name, "params": name.params, "key": name.key, "fields": name.fields}
    line = json.dumps(entry, separators=(",", ":")).encode()
    # a line feed on both sides: a line that a full disk cut short must not swallow the next one
    return b"\n%08x %s\n" % (crc32(line), line)


def loads(data: bytes) -> Any:
    """JSON, or None where it is none: torn, too deep, no text."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def clean(text: str, chars_max: int = NAME_CHARS_MAX) -> str:
    """Text that every database and the wire take: no NUL, no half surrogate, at most `chars_max` characters."""
    if "\0" in text:
        text = text.replace("\0", "\\0")
    return text.encode("utf-8", "backslashreplace").decode()[:chars_max]
