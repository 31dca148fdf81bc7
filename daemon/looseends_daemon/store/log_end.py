"""Whether the log that a killed daemon left behind was cut by damage: SQLite takes a damaged frame for the end, without a word.

Rules:

1. A commit is synced before the next one is written. So a power cut tears the last one at most, which nobody was told of; two or
   more behind the end that SQLite sees were answered, and something has damaged the log.
2. Frames of an earlier round of the log, which lie behind its end as a rule, carry other salts and count for nothing.
3. The log is only read. Its form: https://www.sqlite.org/walformat.html
"""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

HEADER_BYTES, FRAME_BYTES = 32, 24
TORN_MAX = 1
_FRAME = struct.Struct(">4xI8s")
"""Pages of the database after this commit (0: this is not its last frame), salts of its round."""
_INDEX = struct.Struct("=12xB3xI")
"""Whether the index of the log is made, and how many frames are in it."""


def frames_in(index: BinaryIO) -> int | None:
    """How many frames of the log SQLite takes for whole, by its open -shm file; None: it does not tell."""
    head = index.read(_INDEX.size)
    made, frames = _INDEX.unpack(head) if len(head) == _INDEX.size else (0, 0)
    return int(frames) if made == 1 else None


def commits_cut_off(log: str, frames: int, page: int) -> int:
    """How many commits that were answered lie behind the end at `frames`; 0: none. `page` in bytes. Raises OSError."""
    with open(log, "rb") as file:
        header = file.read(HEADER_BYTES)
        behind = list(_frames(file, frames, page))
    if not behind:
        return 0
    salts = header[16:24] if _is_whole(header) else behind[0][1]
    commits = sum(size > 0 and its == salts for size, its in behind)
    return commits if commits > TORN_MAX else 0


def _is_whole(header: bytes) -> bool:
    """Whether the header of a log is as SQLite wrote it. If so, frames with other salts are of an earlier round."""
    if len(header) < HEADER_BYTES:
        return False
    words = struct.unpack(">6I" if header[3] & 1 else "<6I", header[:24])
    one = two = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return struct.pack(">2I", one, two) == header[24:]


def _frames(file: BinaryIO, first: int, page: int) -> Iterator[tuple[int, bytes]]:
    at = HEADER_BYTES + first * (FRAME_BYTES + page)
    while file.seek(at) and len(head := file.read(FRAME_BYTES)) == FRAME_BYTES:
        yield _FRAME.unpack_from(head)
        at += FRAME_BYTES + page


class Cut(NamedTuple):
    """A log lost its end: how many commits that were answered, and that in words."""

    commits: int
    words: str


def keep(path: str, commits: int) -> Cut:
    """Copy the cut log of this database aside, since it will be written over, and say what was lost. Raises OSError."""
    kept = f"{path}-wal.damaged-{time.time_ns()}"
    shutil.copyfile(f"{path}-wal", kept)
    words = (
        f"the log of {path} is damaged: up to {commits} commits that had been answered are no longer there"
        f" (it is kept as {kept}); records of services that are missing are shown as missing"
    )
    return Cut(commits, words)
