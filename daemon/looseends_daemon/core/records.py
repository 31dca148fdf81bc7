"""Which of an instance's journal records are here, as ranges of their numbers: what is missing between them is known by number.

Rules:

1. Records are numbered from 1 without a gap, so a number that is not here although a greater one is, is missing or on its way.
2. Each range keeps when its first and its last record began: a gap lies between the good records beside it.
3. At most SPANS_MAX ranges are kept. Beyond, the oldest gap is closed by counting what is missing in it for good (`below`):
   that may say too much, when one of those comes late, and never too little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from looseends_daemon.core.resources import Value

SPANS_MAX = 64
Span = tuple[int, int, int, int]
"""(first number, last number, when the first began, when the last began); a time of 0 is not known."""


class Records(Value, frozen=True):
    """`floor`: every number up to it is dealt with; `below`: how many of those are missing for good; then the ranges above."""

    floor: int = 0
    below: int = 0
    spans: tuple[Span, ...] = ()

    @property
    def whole(self) -> bool:
        """Nothing is missing up to the greatest number seen."""
        return not self.below and len(self.spans) <= 1 and (not self.spans or self.spans[0][0] == self.floor + 1)


class Gap(Value, frozen=True):
    """Records `first` to `last` are not here; the tasks they tell of began between `from_at` and `to_at` (ns)."""

    first: int
    last: int
    from_at: int
    to_at: int

    @property
    def missing(self) -> int:
        """How many."""
        return self.last - self.first + 1


def seen(records: Records, told: Mapping[int, int]) -> Records:
    """The ranges with these records in them: number -> when it began (ns; 0: it tells of nothing)."""
    new = [(number, number, at, at) for number, at in sorted(told.items()) if number > records.floor]
    if not new:
        return records
    spans = _merged(sorted([*records.spans, *new]))
    floor, below = records.floor, records.below
    for first, last, _, _ in spans[: max(0, len(spans) - SPANS_MAX)]:
        below += first - floor - 1
        floor = last
    return Records(floor=floor, below=below, spans=tuple(spans[max(0, len(spans) - SPANS_MAX) :]))


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for first, last, began, ended in spans:
        if merged and first <= merged[-1][1] + 1:
            before = merged[-1]
            merged[-1] = (
                before[0],
                max(before[1], last),
                before[2] or began,
                before[3] if last <= before[1] else ended or before[3],
            )
        else:
            merged.append((first, last, began, ended))
    return merged


def gaps(records: Records, last_seq: int, *, since: int, until: int) -> list[Gap]:
    """What is missing up to record `last_seq`, between `since` (its instance's start) and `until` (its end, or now)."""
    found = []
    number, began = records.floor, since
    for first, last, from_at, to_at in records.spans:
        if first > number + 1:
            found.append(_gap(number + 1, first - 1, began, from_at or until))
        number, began = last, to_at or from_at or began
    if last_seq > number:
        found.append(_gap(number + 1, last_seq, began, until))
    return found


def _gap(first: int, last: int, from_at: int, to_at: int) -> Gap:
    return Gap(first=first, last=last, from_at=min(from_at, to_at), to_at=max(from_at, to_at))


def pack(records: Records) -> bytes:
    """For the instance's row: at most 2.5 KB."""
    return msgspec.msgpack.encode((records.floor, records.below, records.spans))


def unpack(packed: bytes | None) -> Records:
    """None: none was ever seen."""
    if packed is None:
        return Records()
    floor, below, spans = msgspec.msgpack.decode(packed, type=tuple[int, int, tuple[Span, ...]])
    return Records(floor=floor, below=below, spans=spans)
