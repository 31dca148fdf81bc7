"""What the dead left in this spool: their records are sent as theirs, then their folders go; and how ours is kept up.

Rules: a folder is adopted when its lock has been free for over 2 s (a daemon that watches this spool is faster), sent
as batches of that instance, ended with the reason `adopted`, then discarded. Until that end is told its backlog is never
0, so that nobody waits for a dead process as if it lived. What no daemon took for 7 days after its process last showed that
it lived is given up, and counted. One batch at a time is in memory. Used by the sender's thread alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from typing import Any

from . import journal as journals
from . import trouble
from .journal import Journal, Orphan
from .transport import Answer, Transport, was_read
from .wire import SPOOL_AGE_S_MAX, canonical

EVERY_S = 5.0
ORPHAN_S = 2.0
VOID_MAX = 1_000
EVENTS_MAX = 100
"""In one batch. To make one takes the interpreter's lock from the service's own work: a millisecond is felt by few."""
Way = Generator[None, None, bool]


class Adoption:
    """One process's look at its neighbours."""

    def __init__(self, journal: Journal, transport: Transport, hold: Callable[[Answer], bool]) -> None:
        """`hold` takes every answer, backs the sender off where it must, and says whether to stop here."""
        self._journal, self._transport, self._hold = journal, transport, hold
        self._free_since: dict[str, float] = {}
        self._under_way: tuple[Orphan, Way] | None = None
        self._look_at = 0.0
        self.due_at = time.monotonic()

    def look_around(self, now: float, may_send: bool) -> bool:
        """Show that we live; see who is there, how much room they take, and adopt who is gone: one batch, then it returns.

        -> whether there is more to send at once.
        """
        if now >= self._look_at:
            self._look(now)
        if self._under_way is None:
            self._begin(now, may_send)
        elif may_send:
            self._go_on()
        goes_on = self._under_way is not None and may_send
        self.due_at = now if goes_on else self._look_at
        return goes_on

    def close(self) -> None:
        """Let go of what is not sent yet; somebody else's turn."""
        if self._under_way is not None:
            self._under_way[0].close()
            self._under_way = None

    def _look(self, now: float) -> None:
        self._journal.refresh()
        total = 0
        free: dict[str, float] = {}
        for folder in journals.folders(self._journal.spool):
            if folder == self._journal.folder:
                continue
            total += journals.folder_bytes(folder)
            if not journals.is_taken(folder):
                free[folder] = self._free_since.get(folder, now)
        self._free_since, self._journal.others_bytes = free, total
        self._look_at = now + (ORPHAN_S / 4 if free and self._under_way is None else EVERY_S)

    def _begin(self, now: float, may_send: bool) -> None:
        """Adopt the first whose process is surely gone; those with nothing to tell are done with on the way."""
        for folder, since in list(self._free_since.items()):
            if now - since >= ORPHAN_S and (may_send or _is_old(folder)):
                del self._free_since[folder]  # if it cannot be sent now, it is another 2 s until it is tried again
                self._adopt(folder, may_send)
                if self._under_way is not None:
                    return

    def _adopt(self, folder: str, may_send: bool) -> None:
        orphan = journals.adopt(folder)
        if orphan is None:
            if _is_old(folder) and not journals.is_taken(folder):
                _remove(folder)
        elif may_send:
            self._under_way = orphan, self._send(orphan)
            self._go_on()
        else:
            self._end(orphan, False)

    def _go_on(self) -> None:
        """The next batch of the one that is being adopted."""
        if self._under_way is None:
            return
        orphan, way = self._under_way
        sent = False
        try:
            next(way)
            return
        except StopIteration as end:
            sent = bool(end.value)
        except Exception as error:  # noqa: BLE001 - what cannot be read or sent now is tried again, or grows old
            trouble.note("a dead process's records could not be sent", error)
        self._under_way = None
        self._end(orphan, sent)

    def _end(self, orphan: Orphan, sent: bool) -> None:
        """All of it was told, or nothing more can be told now."""
        try:
            if sent:
                orphan.discard()
            elif _is_old(orphan.folder):
                count = orphan.count()
                trouble.note(
                    "a dead process's records were given up after 7 days without a daemon", f"{count} in {orphan.folder}"
                )
                self._journal.drop(count)  # whoever listens to us next learns that so many are missing
                orphan.discard()
        finally:
            orphan.close()

    def _send(self, orphan: Orphan) -> Way:
        """One post a step. -> whether all of it was taken."""
        to_come, last = orphan.count(), 0
        for events in orphan.batches(EVENTS_MAX):
            told = {event["seq"] for event in events}
            to_come, last = to_come - len(told), max(last, *told)
            if not (yield from self._post(orphan, events, to_come)):
                return False
        if not (yield from self._post(orphan, [], 0)):
            return False
        if orphan.damaged:
            trouble.note("a dead process's records could not be read", f"{orphan.damaged} in {orphan.folder}")
        if orphan.dropped and not self._tell_dropped(orphan, last):
            return False
        said = canonical({"reason": "adopted", "last_seq": last, "open": [], "void": orphan.void()[:VOID_MAX]}).encode()
        answer = self._transport.request("DELETE", f"/instances/{orphan.instance['id']}", said)
        return answer.status in (200, 204, 404)

    def _tell_dropped(self, orphan: Orphan, last: int) -> bool:
        """What it could not keep is in its journal's head; a heartbeat is where that is said. -> whether to go on."""
        said = {"at": time.time_ns(), "last_seq": last, "open": 0, "ended": 0, "dropped": orphan.dropped, "backlog": 1}
        answer = self._transport.request("PUT", f"/instances/{orphan.instance['id']}/heartbeat", canonical(said).encode())
        return answer.status == 200 or not self._hold(answer)

    def _post(self, orphan: Orphan, events: list[dict[str, Any]], to_come: int) -> Way:
        """Whether it was taken. `to_come`: how many records follow; what ended unheard is told by the goodbye alone."""
        body = {"instance": orphan.instance, "sent_at": time.time_ns(), "backlog": max(1, to_come), "events": events}
        answer = self._transport.request("POST", "/events", canonical(body).encode())
        yield
        if was_read(answer):
            _count_rejected(answer)
            return True
        if self._hold(answer):
            return False
        if len(events) > 1:
            half = len(events) // 2
            rest = events[half:]
            first = yield from self._post(orphan, events[:half], to_come + len({event["seq"] for event in rest}))
            return first and (yield from self._post(orphan, rest, to_come))
        if events:  # it will never be taken, and its neighbours must not wait for it
            self._journal.drop()
            trouble.note("a dead process's record was refused by the daemon", f"{answer.status} {str(answer.body)[:200]}")
        return bool(events)


def _count_rejected(answer: Answer) -> None:
    rejected = answer.body.get("rejected")
    if isinstance(rejected, list) and rejected:
        trouble.note("a dead process's events were rejected by the daemon", str(rejected[:3])[:300])
        trouble.COUNTS["rejected"] = trouble.COUNTS.get("rejected", 0) + len(rejected)


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
