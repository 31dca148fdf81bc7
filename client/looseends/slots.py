"""The bytes of a journal, version 1: how a task's record lies in a segment, and how its events come back out. Pure.

Rules (docs/journal.md draws them):

1. A record is one 256-byte slot. Body first, commit byte last; a slot without its commit byte was never written.
2. What changes later (scheduled, started, ended, progress) are aligned 8-byte words, each set by one assignment of
   packed bytes, so a kill finds the old word or the new one and nothing between. Never `pack_into`: it fills with
   zeros first, and a reader sees them.
3. An end is time and outcome in one word; its detail lies in the side file *before* the word is set.
4. Everything that does not change carries a CRC. A reader believes nothing else: wrong magic, size, CRC, name or time
   means "no such record", never an exception and never an invented task.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any, NamedTuple
from zlib import crc32

from .wire import CANCEL_REASONS, DROP_REASONS, INT_MAX, NAME_CHARS_MAX, NOTE_CHARS_MAX, NS

MAGIC = b"LOOSEND1"
VERSION = 1
HEADER_BYTES = 4096
SLOT_BYTES = 256
SEGMENT_BYTES = (64 << 10, 256 << 10, 1 << 20, 4 << 20)
SEGMENT_BYTES_MAX = SEGMENT_BYTES[-1]
INLINE_BYTES_MAX = 168
SIDE_UNIT = 256
SIDE_DATA_BYTES_MAX = (1 << 20) - 1
NAMES_BYTES_MAX = 4 << 20
NAMES_MAX = 20_000

HEADER = struct.Struct("<8sIIQQQ")  # magic, version, slots, time (unix ms), nonce (58 bits), base of seq
HEADER_CRC = struct.Struct("<I")
ANCHOR_AT = 48  # signed: wall clock minus monotonic clock in ns, refreshed while the process lives
FIXED = struct.Struct("<BHIHH")  # flags, attempt, name, bytes of args, bytes of extra: what the CRC begins with
SLOT = struct.Struct("<BBHIIHHQQQQQ")
"""commit, flags, attempt, name, crc, bytes of args, bytes of extra; then scheduled, started, ended, detail, progress."""
IDS_AT, INLINE_AT = 56, 88
SCHEDULED_AT, STARTED_AT, ENDED_AT, DETAIL_AT, PROGRESS_AT = 16, 24, 32, 40, 48
WORD = struct.Struct("<Q")
OFFSET = struct.Struct("<q")
SIDE_HEAD = struct.Struct("<II")  # length, crc

OWN_ID, SPILLED = 1, 2  # flags
FINISHED, FAILED, CANCELLED, DROPPED = 1, 2, 3, 4  # the low three bits of the ended word
STATUS = {FINISHED: "finished", FAILED: "failed", CANCELLED: "cancelled", DROPPED: "dropped"}
HAS_SCHEDULED, HAS_STARTED, HAS_PROGRESS, HAS_END = 1, 2, 4, 8
NO_ID = bytes(16)
EXPECTS = "expect"
"""The `source` of names whose records are expectations, not tasks."""

ReadSide = Callable[[int, int], bytes]
"""offset, length -> what stands there in the side file (short or empty where nothing does)."""


class Header(NamedTuple):
    """The unchanging head of a segment."""

    slots: int
    time_ms: int
    nonce: int
    base: int


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


def pack_header(slots: int, time_ms: int, nonce: int, base: int, anchor: int) -> bytes:
    """The first bytes of a new segment."""
    head = HEADER.pack(MAGIC, VERSION, slots, time_ms, nonce, base)
    return head + HEADER_CRC.pack(crc32(head)) + bytes(ANCHOR_AT - HEADER.size - 4) + OFFSET.pack(anchor)


def read_header(data: bytes | memoryview, size: int) -> Header | None:
    """The head of a segment of `size` bytes, or None where this is no segment of ours."""
    if size not in SEGMENT_BYTES or len(data) < HEADER_BYTES:
        return None
    head = bytes(data[: HEADER.size])
    magic, version, slots, time_ms, nonce, base = HEADER.unpack(head)
    if magic != MAGIC or version != VERSION or HEADER_CRC.unpack_from(data, HEADER.size)[0] != crc32(head):
        return None
    if slots != (size - HEADER_BYTES) // SLOT_BYTES or time_ms >= 1 << 48 or nonce >= 1 << 58 or base >= 1 << 40:
        return None
    return Header(slots, time_ms, nonce, base)


def task_id(head: Header, slot: int) -> bytes:
    """The id of the task in this slot: a UUIDv8 of segment time, slot and nonce, ordered within a process."""
    rest = slot << 58 | head.nonce
    value = head.time_ms << 80 | 0x8 << 76 | (rest >> 62) << 64 | 0b10 << 62 | rest & ((1 << 62) - 1)
    return value.to_bytes(16, "big")


def id_text(raw: bytes) -> str:
    """16 bytes as the text of a UUID."""
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def seal(flags: int, attempt: int, name: int, args: int, extra: int, rest: bytes) -> int:
    """The CRC of what never changes in a slot: the fixed numbers, both ids and the body."""
    return crc32(rest, crc32(FIXED.pack(flags, attempt, name, args, extra)))


def pack_ref(unit: int, length: int, turn: int = 0) -> int:
    """Where detail lies in the side file: unit (28 bits), length (20), and a turn so that a rewritten place looks new."""
    return unit << 36 | length << 16 | turn & 0xFFFF


def read_ref(ref: int, side: ReadSide) -> bytes | None:
    """The bytes a word points at, or None where they are not whole."""
    length = ref >> 16 & 0xFFFFF
    if not length:
        return None
    data = side((ref >> 36) * SIDE_UNIT, SIDE_HEAD.size + length)
    if len(data) != SIDE_HEAD.size + length:
        return None
    said, crc = SIDE_HEAD.unpack_from(data)
    body = data[SIDE_HEAD.size :]
    return body if said == length and crc == crc32(body) else None


def read_slot(data: Any, index: int, head: Header, names: dict[int, Name], side: ReadSide) -> Record | None:
    """The record in slot `index` of a segment's bytes, or None: not committed, not whole, or not ours."""
    at = HEADER_BYTES + index * SLOT_BYTES
    slot = bytes(data[at : at + SLOT_BYTES])
    commit, flags, attempt, number, crc, args, extra, scheduled, started, ended, detail, progress = SLOT.unpack_from(slot)
    if commit != 1 or not (scheduled or started):
        return None
    size = WORD.size if flags & SPILLED else args + extra
    name = names.get(number)
    if name is None or size > INLINE_BYTES_MAX:
        return None
    if crc != seal(flags, attempt, number, args, extra, slot[IDS_AT : INLINE_AT + size]):
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


def words_of(data: Any, index: int) -> tuple[int, int, int, int, int]:
    """The five changing words of a slot: scheduled, started, ended with status, detail, progress."""
    at = HEADER_BYTES + index * SLOT_BYTES + SCHEDULED_AT
    return struct.unpack("<5Q", data[at : at + 40])


def read_names(data: bytes) -> dict[int, Name]:
    """The names table. A line that is torn, foreign or too much is left out."""
    names: dict[int, Name] = {}
    for line in data[:NAMES_BYTES_MAX].split(b"\n")[: 2 * NAMES_MAX]:
        entry = loads(line)
        if not isinstance(entry, dict):
            continue
        number, name, params, key, fields = (entry.get(k) for k in ("n", "name", "params", "key", "fields"))
        if not isinstance(number, int) or not isinstance(name, str) or not name or not isinstance(fields, dict):
            continue
        if isinstance(params, list) and all(isinstance(p, str) for p in params) and isinstance(key, str | None):
            names[number] = Name(name, tuple(params), key, fields)
    return names


def pack_name(number: int, name: Name) -> bytes:
    """One line of the names table."""
    entry = {"n": number, "name": name.name, "params": name.params, "key": name.key, "fields": name.fields}
    # a line feed on both sides: a line that a full disk cut short must not swallow the next one
    return b"\n" + json.dumps(entry, separators=(",", ":")).encode() + b"\n"


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


def key_of(template: str | None, args: dict[str, Any]) -> str | None:
    """A task's key from its recorded arguments: the value of the parameter named, or a template "order-{order_id}"."""
    if template is None:
        return None
    if "{" not in template:
        return plain(args.get(template))
    text = template
    for name, value in args.items():
        if f"{{{name}}}" in text:
            shown = plain(value)
            if shown is None:
                return None
            text = text.replace(f"{{{name}}}", shown)
    return clean(text)


def plain(value: Any) -> str | None:
    """A recorded argument as key text: numbers, text and ids as they read, None for everything that has no short form."""
    if isinstance(value, dict) and value.get("$t") in ("uuid", "int", "decimal", "date", "datetime", "path"):
        value = value.get("v")
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    return clean(str(value))


def _body(record: Record) -> dict[str, Any]:
    """The fields that `scheduled` and `started` share."""
    fields: dict[str, Any] = dict(record.name.fields)
    args = loads(record.args) if record.args else None
    if isinstance(args, list):
        args = dict(zip(record.name.params, args, strict=False))
    if isinstance(args, dict):
        fields["args"] = args
        fields["key"] = key_of(record.name.key, args)
    extra = loads(record.extra) if record.extra else None
    if isinstance(extra, dict):
        fields.update(extra)
    if record.parent != NO_ID:
        fields["parent"] = id_text(record.parent)
    return {name: value for name, value in fields.items() if value is not None}


def events_of(record: Record, anchor: int, side: ReadSide, want: int = 15) -> list[dict[str, Any]]:
    """The events of a record as they go on the wire, `at` in unix ns by `anchor` (wall minus monotonic).

    `want` is a mask of HAS_*. A time that no clock can show means that this record is not to be believed: nothing.
    """
    times = [t + anchor for t in (record.scheduled, record.started, record.ended) if t]
    if not times or not all(0 < at <= INT_MAX for at in times) or not 1 <= record.attempt <= 10_000:
        return []
    common = {"task": id_text(record.task), "name": record.name.name, "attempt": record.attempt, "seq": record.seq}
    events: list[dict[str, Any]] = []
    if record.name.fields.get("source") == EXPECTS:
        return [_expected(record, common, anchor)] if want & HAS_SCHEDULED else []
    body = _body(record) if want & (HAS_SCHEDULED | HAS_STARTED) else {}
    if record.scheduled and want & HAS_SCHEDULED:
        events.append({"type": "scheduled", **common, "at": record.scheduled + anchor, **body})
    if record.started and want & HAS_STARTED:
        events.append({"type": "started", **common, "at": record.started + anchor, **body})
    if record.progress and want & HAS_PROGRESS:
        events += _progress(record, common, anchor, side)
    if record.ended and record.status in STATUS and want & HAS_END:
        events.append(_end(record, common, anchor, side))
    return events


def _expected(record: Record, common: dict[str, Any], anchor: int) -> dict[str, Any]:
    """What must begin; that the record has ended is its own affair."""
    body = _body(record)
    kept: dict[str, Any] = {name: body[name] for name in ("within", "key", "args", "not_replayable_because") if name in body}
    return {"type": "expected", **common, "at": record.scheduled + anchor, **kept}


def _progress(record: Record, common: dict[str, Any], anchor: int, side: ReadSide) -> list[dict[str, Any]]:
    data = loads(read_ref(record.progress, side) or b"")
    if not isinstance(data, dict) or not isinstance(data.get("at"), int) or not 0 < data["at"] + anchor <= INT_MAX:
        return []
    event = {"type": "progress", **common, "at": data["at"] + anchor}
    if isinstance(data.get("done"), int | float):
        event["done"] = data["done"]
    if isinstance(data.get("note"), str):
        event["note"] = data["note"][:NOTE_CHARS_MAX]
    return [event]


def _end(record: Record, common: dict[str, Any], anchor: int, side: ReadSide) -> dict[str, Any]:
    kind = STATUS[record.status]
    event = {"type": kind, **common, "at": record.ended + anchor}
    detail = loads(read_ref(record.detail, side) or b"") if record.detail else None
    detail = detail if isinstance(detail, dict) else {}
    if record.started and kind != "dropped":
        event["duration"] = max(0.0, (record.ended - record.started) / NS)
    if kind == "failed":
        error = detail.get("error")
        event["error"] = error if isinstance(error, dict) else {"type": "Error", "message": "its detail could not be kept"}
    if kind == "cancelled":
        event["reason"] = detail["reason"] if detail.get("reason") in CANCEL_REASONS else "requested"
    if kind == "dropped":
        event["reason"] = detail["reason"] if detail.get("reason") in DROP_REASONS else "exit"
    return event
