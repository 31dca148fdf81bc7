"""Batches as bodies of `POST /events`: as the JSON that any receiver takes, or as the journal's own bytes.

Rules: used by the sender's thread alone. Writing JSON is the dear way: in small steps, since this thread takes the interpreter's
lock from the service's own work meanwhile. It would be asked for that after 5 ms only, and a service that needs it after every
read and write would answer 1 % of 2,000 requests a second 12 ms late (bench/service.py).
"""

from __future__ import annotations

import time

from . import parcel, slots
from .batch import Batch, Part
from .journal import Journal
from .texts import Texts

BREATH_RECORDS, BREATH_S, HURRIED_S = 4, 500e-6, 50e-6
"""After so many records written as JSON this thread sleeps for so long, and shorter once HURRY_RECORDS wait."""
HURRY_RECORDS = 1_000
READ_BYTES_MAX = 256 << 10


class Writing:
    """One journal's way to write its batches."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._texts = Texts()
        self._lines: dict[int, bytes] = {}

    def as_json(self, envelope: str, batch: Batch) -> bytes:
        """`envelope`: the members instance, sent_at and backlog as JSON."""
        texts: list[str] = []
        breath = BREATH_S if batch.backlog < HURRY_RECORDS else HURRIED_S
        for part in batch.parts:
            for index in range(len(part.run)):
                texts += self._told(part, index, batch.anchor)
                if index % BREATH_RECORDS == BREATH_RECORDS - 1:
                    time.sleep(breath)
        return f'{{{envelope},"events":[{",".join(texts)}]}}'.encode()

    def _told(self, part: Part, index: int, anchor: int) -> list[str]:
        run, side = part.run, part.cursor.segment.side.read
        record = slots.read_one(run.slot(index), run.first + index, run.head, self._journal.names, side)
        return self._texts.of(record, anchor, side, run.want) if record is not None else []

    def as_parcel(self, envelope: str, batch: Batch) -> bytes:
        """The same, told by the bytes of the journal."""
        numbers = sorted(frozenset().union(*(part.names for part in batch.parts)))
        sides = [_entries(part) for part in batch.parts]
        runs = [part.run for part in batch.parts]
        return parcel.pack(envelope, batch.anchor, runs, sides, [self._line(number) for number in numbers])

    def _line(self, number: int) -> bytes:
        line = self._lines.get(number)
        if line is None:
            name = self._journal.names.get(number)
            line = self._lines[number] = slots.pack_name(number, name) if name is not None else b""
        return line


def _entries(part: Part) -> list[parcel.Entry]:
    """What the side file holds for these records; in one read where it lies together, as it does unless much was left out."""
    places, read = part.places, part.cursor.segment.side.read
    if len(places) < 2:
        return [(offset, read(offset, length)) for offset, length in places]
    first, end = min(places)[0], max(offset + length for offset, length in places)
    if end - first > READ_BYTES_MAX:
        return [(offset, read(offset, length)) for offset, length in places]
    data = read(first, end - first)
    return [(offset, data[offset - first : offset - first + length]) for offset, length in places]
