"""What service.py noted, read back: which tasks had begun, which were seen to end, with what result."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    """One note. `at`: the machine's monotonic clock in seconds. `more`: number and result of what ended."""

    what: str
    pid: int
    at: float
    task: str
    more: tuple[str, ...]


class Receipt:
    """The file as it grows; `lines` holds the whole lines read so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Line] = []
        self._offset = 0

    def read(self) -> list[Line]:
        """Take in what is new and return just that."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        new = [_line(text) for text in whole.decode().splitlines()]
        self.lines += new
        return new

    def tasks(self, *what: str) -> list[str]:
        """Ids of the tasks with such a line, in order."""
        return [line.task for line in self.lines if line.what in what]


def _line(text: str) -> Line:
    what, pid, at, task, *more = text.split(" ")
    return Line(what, int(pid), float(at), task, tuple(more))
