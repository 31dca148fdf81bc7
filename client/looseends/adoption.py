"""What the dead left in this spool: their records are sent as theirs, then their folders go.

Rules: a folder is adopted when its lock has been free for over 2 s (a daemon that watches this spool is faster), sent
as batches of that instance, ended with the reason `adopted`, then discarded. Until that end is told its backlog is never
0, so that nobody waits for a dead process as if it lived. What no daemon took for 7 days is given up, and counted. Used by
the sender's thread alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from . import journal as journals
from . import trouble
from .journal import Journal, Orphan
from .transport import Answer, Transport
from .wire import SPOOL_AGE_S_MAX, canonical

EVERY_S = 5.0
ORPHAN_S = 2.0
VOID_MAX = 1_000


class Adoption:
    """One process's look at its neighbours."""

    def __init__(self, journal: Journal, transport: Transport, hold: Callable[[Answer], bool]) -> None:
        """`hold` takes every answer, backs the sender off where it must, and says whether to stop here."""
        self._journal, self._transport, self._hold = journal, transport, hold
        self._free_since: dict[str, float] = {}
        self.due_at = time.monotonic() + ORPHAN_S

    def look_around(self, now: float, may_send: bool) -> None:
        """See who is there, how much room they take, and adopt who is gone."""
        total = 0
        free: dict[str, float] = {}
        for folder in journals.folders(self._journal.spool):
            if folder == self._journal.folder:
                continue
            total += journals.folder_bytes(folder)
            if not journals.is_taken(folder):
                free[folder] = self._free_since.get(folder, now)
        self._free_since, self._journal.others_bytes = free, total
        self.due_at = now + (ORPHAN_S / 4 if free else EVERY_S)
        for folder, since in free.items():
            if now - since >= ORPHAN_S and (may_send or _is_old(folder)) and not self._adopt(folder):
                may_send = False

    def _adopt(self, folder: str) -> bool:
        """Whether to go on with the next one."""
        orphan = journals.adopt(folder)
        if orphan is None:
            if _is_old(folder) and not journals.is_taken(folder):
                _remove(folder)
            return True
        try:
            sent = self._send(orphan)
            if sent:
                orphan.discard()
            elif _is_old(folder):
                trouble.note("a dead process's records were given up after 7 days without a daemon", folder)
                orphan.discard()
            return sent
        finally:
            orphan.close()

    def _send(self, orphan: Orphan) -> bool:
        batches = [*orphan.batches(), []]
        numbers = [{event["seq"] for event in events} for events in batches]
        last = max((max(told) for told in numbers if told), default=0)
        for events in batches:
            numbers.pop(0)
            if not self._post(orphan, events, len(set().union(*numbers))):
                return False
        said = canonical({"reason": "adopted", "last_seq": last, "open": [], "void": orphan.void()[:VOID_MAX]}).encode()
        answer = self._transport.request("DELETE", f"/instances/{orphan.instance['id']}", said)
        return answer.status in (200, 204, 404)

    def _post(self, orphan: Orphan, events: list[dict[str, Any]], to_come: int) -> bool:
        """Whether it was taken. `to_come`: how many records follow; what ended unheard is told by the goodbye alone."""
        body = {"instance": orphan.instance, "sent_at": time.time_ns(), "backlog": max(1, to_come), "events": events}
        answer = self._transport.request("POST", "/events", canonical(body).encode())
        if answer.status == 413 and len(events) > 1:
            half = len(events) // 2
            rest = events[half:]
            first = self._post(orphan, events[:half], to_come + len({event["seq"] for event in rest}))
            return first and self._post(orphan, rest, to_come)
        return not self._hold(answer)


def _is_old(folder: str) -> bool:
    try:
        return time.time() - os.stat(folder, follow_symlinks=False).st_mtime > SPOOL_AGE_S_MAX
    except OSError:
        return False


def _remove(folder: str) -> None:
    """A folder that nobody can adopt (killed while it was made, or damaged) goes after 7 days with what is in it."""
    try:
        for entry in os.listdir(folder):
            os.unlink(f"{folder}/{entry}")
        os.rmdir(folder)
        trouble.note("a spool folder was removed after 7 days: it could not be read", folder)
    except OSError as error:
        trouble.note("an old spool folder cannot be removed", error)
