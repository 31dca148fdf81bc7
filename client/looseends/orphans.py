"""Reading journals that others wrote: who is alive, and what a dead process left behind.

Rules: everything read here may be hostile. Only real folders and regular files of the folder's owner are opened, by
descriptor, without following links; every size has a bound; what is damaged is skipped. A process never opens the lock
file of a folder it holds itself (`OWN`): closing it would free the lock. Whose process lives holds the whole lock file;
who adopts leaves out its first byte, so that nobody takes him for the process that is dead.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from typing import Any

from . import slots, trouble
from .slots import HEADER_BYTES, SEGMENT_BYTES_MAX
from .wire import EVENTS_MAX, SPOOL_BYTES_MAX, Refused, check_instance, is_uuid

OWN: set[str] = set()
"""Folders whose lock this process holds, by writing or by adopting."""

ADOPTED_FROM = 1
"""The byte from which on an adopting process holds a lock file."""
FOLDERS_MAX = 10_000
SEGMENTS_MAX = 4_096
INSTANCE_BYTES_MAX = 16 << 10
_FLOCK = struct.Struct("@hhqqi0q")  # l_type, l_whence, l_start, l_len, l_pid as Linux lays them out on 64 bits
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def folders(spool: str) -> list[str]:
    """Instance folders of a spool: real directories of the spool's owner with an instance id for a name. No spool: none."""
    try:
        owner = os.stat(spool).st_uid
        with os.scandir(spool) as entries:
            found = [e.path for e, _ in zip(entries, range(FOLDERS_MAX), strict=False) if _is_folder(e, owner)]
    except OSError:
        return []
    return sorted(found)


def _is_folder(entry: os.DirEntry[str], owner: int) -> bool:
    try:
        info = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return is_uuid(entry.name) and stat.S_ISDIR(info.st_mode) and info.st_uid == owner


def folder_bytes(folder: str) -> int:
    """Disk an instance folder takes, by its files' blocks."""
    try:
        with os.scandir(folder) as entries:
            return sum(e.stat(follow_symlinks=False).st_blocks * 512 for e in entries)
    except OSError:
        return 0


def read_instance(folder: str) -> dict[str, Any] | None:
    """The wire `instance` of a folder, or None: none there, or not one of ours."""
    directory = _open_folder(folder)
    if directory is None:
        return None
    try:
        return _read_instance(directory, os.path.basename(folder))
    finally:
        os.close(directory)


def _read_instance(directory: int, expected: str) -> dict[str, Any] | None:
    document = slots.loads(_read(directory, "instance.json", INSTANCE_BYTES_MAX) or b"")
    try:
        instance = check_instance(document)
    except Refused:
        return None
    return document if instance["id"] == expected else None


def is_held(folder: str) -> bool:
    """Whether the process of this folder lives. Never takes the lock. No folder or no lock: False."""
    return folder in OWN or _is_locked(folder, 1)


def is_taken(folder: str) -> bool:
    """Whether somebody holds this folder: its own process, or one that adopts it. Never takes the lock."""
    return folder in OWN or _is_locked(folder, 0)


def _is_locked(folder: str, length: int) -> bool:
    """Whether another process holds any of the first `length` bytes of the lock file; 0: of all of it."""
    directory = _open_folder(folder)
    if directory is None:
        return False
    fd = _open(directory, "lock", _READ)
    os.close(directory)
    if fd is None:
        return False
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, length, 0)
        found: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))[0]
        return found != fcntl.F_UNLCK
    except OSError:
        return True  # locks that do not work prove no death
    finally:
        os.close(fd)


def adopt(folder: str) -> Orphan | None:
    """Take over what a dead process left. None: it lives, another one adopts it, or this is no journal of ours."""
    if folder in OWN:
        return None
    directory = _open_folder(folder)
    if directory is None:
        return None
    lock = _open(directory, "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    instance = _read_instance(directory, os.path.basename(folder)) if lock is not None else None
    if lock is None or instance is None or not _take(lock):
        os.close(directory)
        if lock is not None:
            os.close(lock)
        return None
    OWN.add(folder)
    return Orphan(folder, directory, lock, instance)


def _take(lock: int) -> bool:
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, ADOPTED_FROM)
    except OSError:
        return False
    return True


class Orphan:
    """The journal of a process that is gone, held by us until `close` or `discard`."""

    def __init__(self, folder: str, directory: int, lock: int, instance: dict[str, Any]) -> None:
        self.folder, self.instance = folder, instance
        self._directory, self._lock = directory, lock

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """All events the journal holds, in lists of at most 1,000, each with `seq` and `at`; sent before or not."""
        batch: list[dict[str, Any]] = []
        for event in self._events():
            batch.append(event)
            if len(batch) == EVENTS_MAX:
                yield batch
                batch = []
        if batch:
            yield batch

    def last_seq(self) -> int:
        """The greatest record number this journal holds."""
        return max((event["seq"] for event in self._events()), default=0)

    def void(self) -> list[int]:
        """Record numbers that were reserved and never written: below the last written one, in whatever segment."""
        void: list[int] = []
        pending: list[int] = []
        for name in self._segments():
            data = _read(self._directory, name, SEGMENT_BYTES_MAX)
            head = slots.read_header(data, len(data)) if data else None
            if data is None or head is None:
                continue
            column = data[HEADER_BYTES :: slots.SLOT_BYTES][: head.slots]
            written = column.rfind(1) + 1
            void += pending if written else []
            void += [head.base + index + 1 for index in range(written) if column[index] != 1]
            pending = [head.base + index + 1 for index in range(written, head.slots)]
        return void

    def _events(self) -> Iterator[dict[str, Any]]:
        names = slots.read_names(_read(self._directory, "names", slots.NAMES_BYTES_MAX) or b"")
        for name in self._segments():
            data = _read(self._directory, name, SEGMENT_BYTES_MAX)
            head = slots.read_header(data, len(data)) if data else None
            if data is None or head is None:
                continue
            side = _SideFile(self._directory, name[: -len("seg")] + "side")
            try:
                anchor: int = slots.OFFSET.unpack_from(data, slots.ANCHOR_AT)[0]
                column = data[HEADER_BYTES :: slots.SLOT_BYTES]
                for index in range(head.slots):
                    record = slots.read_slot(data, index, head, names, side.read) if column[index] == 1 else None
                    if record is not None:
                        yield from slots.events_of(record, anchor, side.read)
            finally:
                side.close()

    def _segments(self) -> list[str]:
        found = [n for n in os.listdir(self._directory) if len(n) == 12 and n.endswith(".seg") and n[:8].isdigit()]
        return sorted(found)[:SEGMENTS_MAX]

    def discard(self) -> None:
        """Unlink the folder with everything of ours in it, and close."""
        entries = os.listdir(self._directory)
        try:
            # instance.json first: should something foreign keep the folder, nobody adopts it a second time
            for entry in sorted(entries, key=lambda name: name != "instance.json"):
                os.unlink(entry, dir_fd=self._directory)
            os.rmdir(self.folder)
        except OSError as error:
            trouble.note("an adopted folder could not be removed", error)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the lock; the folder stays. May be called twice."""
        if self._lock >= 0:
            os.close(self._lock)
            os.close(self._directory)
            self._lock = self._directory = -1
        OWN.discard(self.folder)


class _SideFile:
    """Bounded reads of a dead process's side file, opened on first need."""

    def __init__(self, directory: int, name: str) -> None:
        self._directory, self._name = directory, name
        self._fd: int | None = -1

    def read(self, offset: int, length: int) -> bytes:
        if self._fd == -1:
            self._fd = _open(self._directory, self._name, _READ)
        if self._fd is None or offset > SPOOL_BYTES_MAX:
            return b""
        try:
            return os.pread(self._fd, length, offset)
        except OSError:
            return b""

    def close(self) -> None:
        if self._fd is not None and self._fd >= 0:
            os.close(self._fd)


def _open_folder(folder: str) -> int | None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if os.fstat(fd).st_uid != os.stat(os.path.dirname(folder) or ".").st_uid:
        os.close(fd)
        return None
    return fd


def _open(directory: int, name: str, flags: int) -> int | None:
    """A regular file of the folder's owner with one name, or None."""
    try:
        fd = os.open(name, flags, dir_fd=directory)
    except OSError:
        return None
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.fstat(directory).st_uid or info.st_nlink != 1:
        os.close(fd)
        return None
    return fd


def _read(directory: int, name: str, bytes_max: int) -> bytes | None:
    fd = _open(directory, name, _READ)
    if fd is None:
        return None
    with open(fd, "rb", buffering=0) as file:
        data = b""
        while len(data) <= bytes_max:
            try:
                piece = file.read(bytes_max + 1 - len(data))
            except OSError:
                return None
            if not piece:
                return data
            data += piece
    return None  # larger than anything we write
