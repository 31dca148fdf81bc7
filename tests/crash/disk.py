"""A disk that can be cut from its power: what was synced is on it, of everything else some, none, or torn pieces.

Rules:

1. A sync covers the writes to that file which had ended before; an fsync of the folder covers which names its files have.
2. After a sync that failed the writes it should have covered are clean for the kernel: no later sync covers them any more.
3. What was not covered is kept, dropped, or torn: any of its 512-byte sectors may be there or not. Names too are kept or dropped.
4. `-shm` and `.lock` hold nothing that must outlive the machine and are not kept.
"""

from __future__ import annotations

import codecs
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
KEPT_SHARES = (0.0, 0.0, 0.3, 0.7, 0.95, 1.0)
TORN_SHARE = 0.3
TRACED = "openat,?open,?creat,pwrite64,fdatasync,fsync,ftruncate,?rename,?renameat,?renameat2,?unlink,?unlinkat,write"
_FORGOTTEN = ("-shm", ".lock")


class Op(NamedTuple):
    """One thing that was done. `what`: create, write, cut (to a size), sync, unsync (it failed), rename, unlink, answer."""

    what: str
    path: str = ""
    at: int = 0
    data: bytes = b""
    to: str = ""


# --- reading what strace wrote ------------------------------------------------------------------------------------

_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(<.*>)?")
_FD = re.compile(r"\d+<([^>]*)>")
_QUOTED = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")


def recorded(log: Path, folder: Path) -> list[Op]:
    """What a log of `strace -f -y -xx -s SIZE -e trace=TRACED` did in this folder, in the order in which it was done."""
    return [op for line in _joined(log) if (op := _op(line)) is not None and _concerns(op, str(folder))]


def _joined(log: Path) -> Iterator[str]:
    """Whole calls, at the place where they ended."""
    begun: dict[str, str] = {}
    for line in log.read_text().splitlines():
        thread, _, rest = line.partition(" ")
        rest = rest.lstrip()
        if rest.endswith(_UNFINISHED):
            begun[thread] = rest.removesuffix(_UNFINISHED)
        elif resumed := _RESUMED.match(rest):
            yield begun.pop(thread) + resumed[1]
        else:
            yield rest


def _op(line: str) -> Op | None:
    call = _CALL.match(line)
    if call is None:
        return None
    name, args, failed = call[1], call[2], int(call[3]) < 0
    fd = _FD.match(args)
    path = _plain(fd[1]) if fd else ""
    texts = [bytes.fromhex(found.replace("\\x", "")) for found in _QUOTED.findall(args)]
    if name in ("fdatasync", "fsync"):
        return Op("unsync" if failed else "sync", path)
    if failed:
        return None
    if name == "pwrite64":
        size, at = map(int, args.rsplit(", ", 2)[1:])
        assert len(texts) == 1 and len(texts[0]) == size == int(call[3]), f"not recorded whole: {line[:80]}"
        return Op("write", path, at, texts[0])
    if name == "ftruncate":
        return Op("cut", path, int(args.rsplit(", ", 1)[1]))
    if name == "write":
        return Op("answer", data=texts[0]) if texts and args.startswith("1<") else None
    if name.startswith(("open", "creat")):
        return Op("create", texts[0].decode()) if "O_CREAT" in args else None
    return Op("rename" if "rename" in name else "unlink", texts[0].decode(), to=texts[-1].decode())


def _plain(path: str) -> str:
    return codecs.decode(path, "unicode_escape") if "\\x" in path else path


def _concerns(op: Op, folder: str) -> bool:
    inside = op.path == folder or op.path.startswith(folder + "/") and not op.path.endswith(_FORGOTTEN)
    return op.what == "answer" or inside


def answered(ops: list[Op]) -> int:
    """The last step that was answered; -1: none."""
    did = [int(op.data.split()[1]) for op in ops if op.what == "answer" and op.data.startswith(b"did ")]
    return did[-1] if did else -1


# --- cutting ------------------------------------------------------------------------------------------------------


class _Change:
    """A change of a file's bytes or of a folder's names. `sure`: it outlives a cut; `missed`: no sync will cover it."""

    __slots__ = ("missed", "op", "sure", "target")

    def __init__(self, op: Op, target: int) -> None:
        self.op, self.target = op, target
        self.sure = self.missed = False


class Disk:
    """The disk of one folder while ops happen to it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._now: dict[str, int] = {}
        self._files: list[list[_Change]] = []
        self._names: list[_Change] = []

    def do(self, op: Op) -> None:
        """One more thing is done."""
        if op.what == "create":
            if op.path not in self._now:
                self._now[op.path] = len(self._files)
                self._files.append([])
                self._name(op, self._now[op.path])
        elif op.what in ("write", "cut"):
            number = self._now[op.path]
            self._files[number].append(_Change(op, number))
        elif op.what in ("sync", "unsync"):
            self._sync(op)
        elif op.what == "rename":
            self._now[op.to] = self._now.pop(op.path)
            self._name(op, self._now[op.to])
        elif op.what == "unlink":
            self._name(op, self._now.pop(op.path))

    def _name(self, op: Op, target: int) -> None:
        self._names.append(_Change(op, target))

    def _sync(self, op: Op) -> None:
        for change in self._names if op.path == self._folder else self._files[self._now[op.path]]:
            if op.what == "unsync":
                change.missed = not change.sure
            elif not change.missed:
                change.sure = True

    def cut(self, chance: random.Random) -> dict[str, bytes]:
        """The files that are there when the power comes back, by their names."""
        share = chance.choice(KEPT_SHARES)
        names: dict[str, int] = {}
        for change in self._names:
            if change.sure or chance.random() < share:
                names.pop(change.op.path, None)
                if change.op.what != "unlink":
                    names[change.op.to or change.op.path] = change.target
        return {name: self._bytes(number, share, chance) for name, number in sorted(names.items())}

    def _bytes(self, number: int, share: float, chance: random.Random) -> bytes:
        data = bytearray()
        for change in self._files[number]:
            if change.sure:
                _apply(data, change.op)
            elif chance.random() < share:
                for piece in _pieces(change.op, chance):
                    _apply(data, piece)
        return bytes(data)


def _pieces(op: Op, chance: random.Random) -> Iterator[Op]:
    """A write that was not synced: whole, or those of its sectors that made it."""
    if op.what != "write" or len(op.data) <= SECTOR or chance.random() >= TORN_SHARE:
        yield op
        return
    first = SECTOR - op.at % SECTOR
    edges = [0, *range(first, len(op.data), SECTOR), len(op.data)]
    for begin, end in zip(edges, edges[1:], strict=False):
        if chance.random() < 0.5:
            yield op._replace(at=op.at + begin, data=op.data[begin:end])


def _apply(data: bytearray, op: Op) -> None:
    end = op.at + len(op.data)
    if op.what == "cut":
        del data[op.at :]
    data.extend(bytes(max(0, end - len(data))))
    data[op.at : end] = op.data
