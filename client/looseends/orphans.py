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

from . import slots, telling, trouble
from .slots import HEADER_BYTES, SEGMENT_BYTES_MAX, SIDE_BYTES_MAX
from .wire import BODY_BYTES_MAX, EVENTS_MAX, Refused, check_instance, is_uuid

OWN: set[str] = set()
"""Folders whose lock this process holds, by writing or by adopting."""

ADOPTED_FROM = 1
"""The byte from which on an adopting process holds a lock file."""
FOLDERS_MAX = 10_000
SEGMENTS_MAX = 4_096
INSTANCE_BYTES_MAX = 16 << 10
BATCH_BYTES_MAX = BODY_BYTES_MAX
EVENT_BYTES = 300  # of an event besides arguments and detail, about
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
    """Take over what a dead process left. None: it lives, another one adopts it, or `obstacle` says why not."""
    if folder in OWN:
        return None
    directory = _open_folder(folder)
    if directory is None:
        return None
    lock = _open(directory, "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    instance = _read_instance(directory, os.path.basename(folder)) if lock is not None else None
    if lock is None or instance is None or _newer(directory) or not _take(lock):
        os.close(directory)
        if lock is not None:
            os.close(lock)
        return None
    OWN.add(folder)
    return Orphan(folder, directory, lock, instance)


def obstacle(folder: str) -> str:
    """Why a journal that nobody holds cannot be adopted, in words."""
    directory = _open_folder(folder)
    if directory is None:
        return "it is no folder of the spool's owner"
    try:
        newer = _newer(directory)
        if newer:
            return f"it is of version {newer}, and {slots.VERSION} is what is read here; a newer looseends can read it"
        return "its lock or its instance.json is no regular file of its owner, or damaged"
    finally:
        os.close(directory)


def _newer(directory: int) -> int:
    """The version of a segment that is newer than what we can read; 0: there is none."""
    for name in _segments(directory):
        fd = _open(directory, name, _READ)
        if fd is not None:
            try:
                version = slots.version_of(os.pread(fd, HEADER_BYTES, 0))
            except OSError:
                version = 0
            finally:
                os.close(fd)
            if version > slots.VERSION:
                return version
    return 0


def _segments(directory: int) -> list[str]:
    """Names of the segments in order of their making."""
    found = [n for n in os.listdir(directory) if 12 <= len(n) <= 20 and n.endswith(".seg") and n[:-4].isdecimal() and n.isascii()]
    return sorted(found, key=lambda name: (len(name), name))[:SEGMENTS_MAX]


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
        self.damaged = 0
        """Records, and segments as a whole, that were written and cannot be read."""
        self.dropped = 0
        """Records that the process itself counted as not kept."""
        self._directory, self._lock = directory, lock

    def batches(self, events_max: int | None = None) -> Iterator[list[dict[str, Any]]]:
        """All events the journal holds, each with `seq` and `at`; sent before or not. A record's events stay together.

        A list holds at most 1,000 events, or `events_max` and one record, and about 1 MiB. Afterwards `damaged` and `dropped`
        are known.
        """
        batch: list[dict[str, Any]] = []
        size = 0
        most = min(EVENTS_MAX, events_max or EVENTS_MAX)
        self.damaged = 0
        for events, weight in self._told():
            if batch and (len(batch) + len(events) > most or size + weight > BATCH_BYTES_MAX):
                yield batch
                batch, size = [], 0
            batch += events
            size += weight
        if batch:
            yield batch

    def last_seq(self) -> int:
        """The greatest record number this journal holds."""
        return max((events[0]["seq"] for events, _ in self._told()), default=0)

    def count(self) -> int:
        """How many records were committed: the most that `batches` can tell of."""
        return sum(slots.committed(data, head).count(1) for _, data, head in self._each() if head is not None)

    def void(self) -> list[int]:
        """Record numbers that were reserved and never written: below the last written one, in whatever segment."""
        void: list[int] = []
        pending: list[int] = []
        for _, data, head in self._each():
            if head is None:
                continue
            column = slots.committed(data, head)
            written = column.rfind(1) + 1
            void += pending if written else []
            void += [head.base + index + 1 for index in range(written) if column[index] != 1]
            pending = [head.base + index + 1 for index in range(written, head.slots)]
        return void

    def _each(self) -> Iterator[tuple[str, bytes, slots.Header | None]]:
        """(name, bytes, head) of every segment; without a head it is damaged."""
        for name in _segments(self._directory):
            data = _read(self._directory, name, SEGMENT_BYTES_MAX) or b""
            yield name, data, slots.read_header(data, len(data))

    def _told(self) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """The events of each record, and about how many bytes of JSON they are."""
        names = slots.read_names(_read(self._directory, "names", slots.NAMES_BYTES_MAX, cut=True) or b"")
        for segment, data, head in self._each():
            if head is None:
                self.damaged += 1
                continue
            self.dropped = max(self.dropped, slots.dropped_in(data))
            side = _SideFile(self._directory, segment[: -len("seg")] + "side")
            try:
                anchor: int = slots.OFFSET.unpack_from(data, slots.ANCHOR_AT)[0]
                for record in slots.records(data, head, names, side.read):
                    before = side.given
                    events = telling.events_of(record, anchor, side.read) if record is not None else []
                    if record is None or not events:
                        self.damaged += 1
                        continue
                    body = len(record.args) + len(record.extra)
                    yield events, side.given - before + (body + EVENT_BYTES) * len(events)
            finally:
                side.close()

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
    """Bounded reads of a dead process's side file, opened on first need.

    In all no more is given than such a file holds: a million records that point at one entry are no journal of ours.
    """

    def __init__(self, directory: int, name: str) -> None:
        self._directory, self._name = directory, name
        self._fd: int | None = -1
        self.given = 0

    def read(self, offset: int, length: int) -> bytes:
        if self._fd == -1:
            self._fd = _open(self._directory, self._name, _READ)
        if self._fd is None or offset > SIDE_BYTES_MAX or self.given + length > SIDE_BYTES_MAX:
            return b""
        self.given += length
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


def _read(directory: int, name: str, bytes_max: int, cut: bool = False) -> bytes | None:
    """The whole file; more than anything we write is None, or cut off there."""
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
    return data[:bytes_max] if cut else None
