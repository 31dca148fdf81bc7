"""The folder of one process in a spool: its lock, its names table, who it is. Its segments are journal.py's.

Rules:

1. Made in this order: lock (held), names, instance; a reader that finds no `instance.json` finds no journal.
2. The lock file is opened here and by nobody else in this process: closing any other descriptor of it would free it.
3. A folder that somebody deleted is made anew under the numbers of the same descriptors: no writer meets a closed one.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
from typing import Any

from . import slots
from .orphans import OWN
from .slots import SEGMENT_BYTES, Name
from .wire import SPOOL_BYTES_MAX

JOURNALS_MAX = SPOOL_BYTES_MAX // SEGMENT_BYTES[0]
_NEW = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class SpoolFull(OSError):
    """The spool holds as many journals as it may: a folder elsewhere would only get round the bound."""


class Folder:
    """`<spool>/<instance id>/` while its process lives."""

    def __init__(self, spool: str, instance: dict[str, Any]) -> None:
        """Make it. Raises OSError: no room, no permission, somebody else's spool; SpoolFull."""
        self.spool, self.path = spool, f"{spool}/{instance['id']}"
        self.names: dict[int, Name] = {}
        self._instance = instance
        self._numbers = itertools.count(1)
        self._names_bytes = self._made = 0
        self._lock_fd = self._names_fd = -1
        _check(spool)
        os.mkdir(self.path, 0o700)
        OWN.add(self.path)
        try:
            self._fill()
        except OSError:
            self.remove()
            raise

    def _fill(self) -> None:
        lock = os.open(f"{self.path}/lock", os.O_RDWR | _NEW, 0o600)
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        old, self._lock_fd = self._lock_fd, lock
        names = os.open(f"{self.path}/names", os.O_WRONLY | os.O_APPEND | _NEW, 0o600)
        if old < 0:
            self._names_fd = names
        else:  # restored
            os.close(old)
            os.dup2(names, self._names_fd, inheritable=False)
            os.close(names)
        self._made += 1
        for number, name in list(self.names.items()):
            os.write(self._names_fd, slots.pack_name(number, name))
        temporary = f"{self.path}/instance.tmp"
        with open(os.open(temporary, os.O_WRONLY | _NEW, 0o600), "w", encoding="utf-8") as file:
            json.dump(self._instance, file)
        os.rename(temporary, f"{self.path}/instance.json")

    def name(self, name: Name) -> int:
        """The number of this name in the table, written there before any record can point at it. Raises OSError: no room."""
        number = next(self._numbers)
        line = slots.pack_name(number, name)
        if number > slots.NAMES_MAX or self._names_bytes + len(line) > slots.NAMES_BYTES_MAX:
            raise OSError(errno.ENOSPC, f"the names table is full at {number} names, {self._names_bytes} bytes")
        made = self._made
        if os.write(self._names_fd, line) != len(line):
            raise OSError(errno.ENOSPC, "the names table has no room on its disk")
        self._names_bytes += len(line)
        self.names[number] = name
        if made != self._made:  # the table was made anew meanwhile, perhaps without this line; of two the first counts
            os.write(self._names_fd, line)
        return number

    def is_whole(self) -> bool:
        """Whether lock and names still have a name in some folder."""
        return all(os.fstat(fd).st_nlink for fd in (self._lock_fd, self._names_fd))

    def touch(self) -> None:
        """Show that we live: a dead process's folder is kept for 7 days from its last such sign. Raises OSError."""
        os.utime(self.path)

    def restore(self) -> None:
        """Make anew what was deleted; segments excepted. Raises OSError."""
        os.makedirs(self.spool, mode=0o700, exist_ok=True)
        if not os.path.isdir(self.path):
            os.mkdir(self.path, 0o700)
        for entry in os.listdir(self.path):
            os.unlink(f"{self.path}/{entry}")
        self._fill()

    def close(self) -> None:
        """Free descriptors and lock; the files stay for whoever adopts them. May be called twice."""
        for fd in (self._names_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._names_fd = self._lock_fd = -1
        OWN.discard(self.path)

    def remove(self) -> None:
        """Close and unlink everything. What somebody deleted before us is no trouble."""
        self.close()
        try:
            for entry in os.listdir(self.path):
                os.unlink(f"{self.path}/{entry}")
            os.rmdir(self.path)
        except FileNotFoundError:
            return


def _check(spool: str) -> None:
    """Make the spool if need be. Raises OSError: it cannot be made or is somebody else's; SpoolFull."""
    os.makedirs(spool, mode=0o700, exist_ok=True)
    owner = os.stat(spool).st_uid
    if owner != os.getuid():  # theirs to read and to rename, and no adopter would look at ours
        raise PermissionError(errno.EPERM, f"it belongs to uid {owner}, not to us", spool)
    if len(os.listdir(spool)) >= JOURNALS_MAX:
        raise SpoolFull(errno.EDQUOT, f"it holds {JOURNALS_MAX} journals that nobody has taken", spool)
