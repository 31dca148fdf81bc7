"""What doomed.py and whoever reads its acknowledgements agree on."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

WORD = struct.Struct("<Q")
CELL_BYTES = 64
CELLS = 32
FILE_BYTES = CELL_BYTES * CELLS
FORKS_MAX = 6
FAILS = 101
LONG = 9
_TEXTS = ["y" * length for length in range(90)]
_LONG_TEXT = "z" * 400  # no slot holds it: it goes to the side file


class Cell(NamedTuple):
    """What one worker had acknowledged: numbers count from 1."""

    began: int
    ended: int
    dropped: int


def text_of(number: int) -> str:
    """The text that the task of this number is called with."""
    return _LONG_TEXT if number % LONG == 0 else _TEXTS[number % len(_TEXTS)]


def read(path: Path) -> list[Cell]:
    """Every worker's cell."""
    data = path.read_bytes()
    return [Cell(*struct.unpack_from("<3Q", data, at)) for at in range(0, FILE_BYTES, CELL_BYTES)]
