"""Watches the spools of this host: who lives, and what a dead process left behind. Who is out of sight: services/leases.py.

Rules:

1. A journal's lock is held exactly as long as its process lives. While it is held the instance needs no lease; once it is free
   the journal is ours to take: everything in it is folded first, and only then is the instance gone. So no task is called lost
   whose end stood in the journal.
2. What was folded is on disk before the journal is unlinked. A daemon killed in between folds it once more: that is harmless.
3. A watched spool speaks for the instances in it, whatever way they came by: only its owner can write there.
4. A pass is bounded: ORPHANS_MAX journals at a time, BATCHES_MAX batches of each. Large ones take several passes, and nobody's
   death waits behind them.
5. A lock that lies is not believed: a journal whose process is connected and speaks is left alone (services/leases.py).

Honest limit: a process that closes every descriptor it did not open (some daemonizers do) frees its lock while it lives. It is
then called gone until it is heard again, which takes the verdicts back.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from looseends import journal
from looseends.wire import NS, PAYLOAD_BYTES_MAX, Batch, Refused, check_batch
from looseends_daemon.core.payloads import within
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.presence import Presence
from looseends_daemon.core.resources import Actor
from looseends_daemon.core.words import clock
from looseends_daemon.services.leases import Leases
from looseends_daemon.services.vigil import Vigil
from looseends_daemon.store import facts, instances
from looseends_daemon.store.connection import Database, StoreBusy
from looseends_daemon.store.questions import ask_async

log = logging.getLogger(__name__)

POLL_NS = NS // 5
YOUNG_NS = 3 * NS // 10
"""A folder this young may belong to a process that has made it and not yet taken its lock."""
REFUSED_NS = 60 * NS
HOLLOW_NS = 60 * NS
"""A folder without any record is removed at this age: its maker was killed, or would have gone on by now."""
REFUSED_NAMED_MAX = 20
"""Journals named in the log as not adoptable within a minute: a spool full of rubbish must not fill the log too."""
ORPHANS_MAX = 8
BATCHES_MAX = 10


def _nobody() -> None:
    """There is nobody to wake."""


class _Adoption:
    """One dead process's journal on its way into the database."""

    def __init__(self, folder: str, uid: int, orphan: journal.Orphan) -> None:
        self.folder, self.orphan = folder, orphan
        # A journal speaks as the user who owns it, the same as that user's processes on our socket.
        self.actor = Actor(name=f"journal of uid {uid}", role="ingest", channel=f"uds:{uid}", uid=uid)
        self.instance_id = str(orphan.instance["id"])
        self.batches: Iterator[list[dict[str, Any]]] = iter(orphan.batches())
        self.pending: list[dict[str, Any]] | None = None
        self.before: instances.Standing | None = None
        self.looked = False


class Adopter:
    """`run_once(now)` for the supervised loop; `close()` lets go of the journals it holds. `wake` tells the detector."""

    def __init__(
        self,
        database: Database,
        spools: Sequence[str],
        policy: Policy,
        wake: Callable[[], None] = _nobody,
        *,
        payload_bytes_max: int = PAYLOAD_BYTES_MAX,
        vigil: Vigil | None = None,
        presence: Presence | None = None,
    ) -> None:
        self._database, self._spools, self._policy, self._wake = database, tuple(spools), policy, wake
        self._vigil = vigil or Vigil(grace_s=policy.grace)
        self._leases = Leases(database, policy, self._vigil, presence or Presence())
        self._payload_bytes_max = payload_bytes_max
        self._adoptions: dict[str, _Adoption] = {}
        self._watched: dict[str, str] | None = None
        self._refused: dict[str, int] = {}
        self.adopted = 0
        """Journals taken over since the start."""

    def take(self, policy: Policy) -> None:
        """Go on by another policy."""
        self._policy = self._leases.policy = policy

    async def run_once(self, now: int) -> int:
        """Look at every spool and every lease once; when to look again (ns)."""
        self._vigil.look(now)
        # In a thread: a spool with thousands of folders takes a second to look through, and nobody is to wait for that.
        found, held = await asyncio.to_thread(_look, self._spools, frozenset(self._adoptions))
        await self._watch(held, found)
        free = await self._leases.believed(set(found) - set(held) - self._adoptions.keys(), now)
        await asyncio.to_thread(self._take_free, free, now)
        for adoption in list(self._adoptions.values()):
            await self._go_on(adoption, now)
        if await self._leases.run_once(now):
            self._wake()
        return now if self._adoptions else now + POLL_NS

    def close(self) -> None:
        """Let go of every journal; what is not folded yet stays for the next daemon."""
        for adoption in self._adoptions.values():
            adoption.orphan.close()
        self._adoptions.clear()

    # --- who lives ------------------------------------------------------------------------------------------------

    async def _watch(self, held: Sequence[str], found: Sequence[str]) -> None:
        """Mark the instances whose journals we see held; a folder that is gone leaves its instance to the lease again."""
        if self._watched is None:
            self._watched = await self._database.read(lambda conn: ask_async(conn, instances.watched()))
        there = set(found)
        vanished = [folder for folder in self._watched if folder not in there]
        unmarked = {folder: os.path.basename(folder) for folder in held if folder not in self._watched}
        known = await self._database.read(lambda conn: ask_async(conn, instances.known(unmarked.values()))) if unmarked else set()
        new = {folder: who for folder, who in unmarked.items() if who in known}
        if not vanished and not new:
            return
        await self._database.write(lambda conn: instances.rewatch(conn, new, vanished))
        self._watched = {**{f: w for f, w in self._watched.items() if f in there}, **new}

    # --- what the dead left ---------------------------------------------------------------------------------------

    def _take_free(self, free: set[str], now: int) -> None:
        self._refused = {folder: at for folder, at in self._refused.items() if folder in free and 0 <= now - at < REFUSED_NS}
        for folder in sorted(free - self._adoptions.keys() - self._refused.keys()):
            if len(self._adoptions) >= ORPHANS_MAX:
                return
            owner = _owner_of_old(folder, now)
            orphan = journal.adopt(folder) if owner is not None else None
            if owner is not None and orphan is not None:
                self._adoptions[folder] = _Adoption(folder, owner, orphan)
            elif owner is not None and not journal.is_taken(folder) and not _remove_hollow(folder, now):
                self._refuse(folder, now, journal.obstacle(folder))

    def _refuse(self, folder: str, now: int, why: str) -> None:
        """Leave a journal alone for a minute. It is never deleted: what we cannot read may be somebody's only trace."""
        if len(self._refused) < REFUSED_NAMED_MAX:
            log.warning("the journal %s cannot be adopted: %s", folder, why)
        elif len(self._refused) == REFUSED_NAMED_MAX:
            log.warning("more than %d journals cannot be adopted; the others are not named", REFUSED_NAMED_MAX)
        self._refused[folder] = now

    def _give_up(self, adoption: _Adoption, now: int, why: str) -> None:
        """Let go of a journal before its end; a later look begins it anew."""
        self._adoptions.pop(adoption.folder, None)
        adoption.orphan.close()
        self._refuse(adoption.folder, now, why)

    async def _go_on(self, adoption: _Adoption, now: int) -> None:
        """Fold the next batches of one journal; after the last, its instance is gone and the journal is unlinked."""
        try:
            for _ in range(BATCHES_MAX):
                if adoption.pending is None:
                    adoption.pending = await asyncio.to_thread(next, adoption.batches, None)
                if adoption.pending is None:
                    await self._finish(adoption, now)
                    return
                await self._fold(adoption, adoption.pending, now)
                adoption.pending = None
        except StoreBusy:
            return  # the batch is still pending, the next pass tries it again
        except Refused as refused:
            self._give_up(adoption, now, f"{refused.pointer} {refused.detail}")
        except Exception as error:
            # A reader that failed once looks like one that has come to its end: it must never get as far as `_finish`.
            self._give_up(adoption, now, f"{type(error).__name__}: {error}")
            raise

    async def _fold(self, adoption: _Adoption, events: list[dict[str, Any]], now: int) -> None:
        batch = check_batch({"instance": adoption.orphan.instance, "events": events}, now)
        if batch.rejected:
            first = batch.rejected[0]
            log.warning(
                "%d records of the journal %s cannot be used, the first: %s %s",
                len(batch.rejected), adoption.folder, first.pointer, first.detail,
            )  # fmt: skip
        bounded = within(batch, self._payload_bytes_max)
        await self._database.write(lambda conn: self._apply(conn, adoption, bounded, now), size=512 * len(events), grows=True)

    def _apply(self, conn: Any, adoption: _Adoption, batch: Batch, now: int) -> None:
        if not adoption.looked:  # before its own journal makes it known
            adoption.before, adoption.looked = instances.standing(conn, adoption.instance_id), True
        facts.apply_batch(conn, batch, actor=adoption.actor, now=now, policy=self._policy, heard=False)
        # No lease runs while its journal is being read: it must not be called lost before its ends are here.
        instances.rewatch(conn, {adoption.folder: adoption.instance_id}, ())

    async def _finish(self, adoption: _Adoption, now: int) -> None:
        """The instance is gone, in one commit; then the journal has told everything and goes."""
        empty = check_batch({"instance": adoption.orphan.instance, "events": []}, now)
        void = await asyncio.to_thread(adoption.orphan.void)

        def end(conn: Any) -> None:
            self._apply(conn, adoption, empty, now)
            instances.rewatch(conn, {}, (adoption.folder,))
            reason = _gone_words(adoption.before)
            who, dropped = adoption.instance_id, adoption.orphan.dropped
            facts.end_instance(conn, who, state="gone", reason=reason, now=now, adopted=True, void=void, dropped=dropped)

        await self._database.write(end)
        del self._adoptions[adoption.folder]
        if self._watched is not None:
            self._watched.pop(adoption.folder, None)
        self.adopted += 1
        if adoption.orphan.damaged:
            log.warning("%d records of the journal %s could not be read", adoption.orphan.damaged, adoption.folder)
        self._wake()
        if not await asyncio.to_thread(_discarded, adoption):
            self._refuse(adoption.folder, now, "all of it is stored, but the folder could not be removed")


def _look(spools: Sequence[str], ours: Collection[str]) -> tuple[list[str], list[str]]:
    """(instance folders, those whose lock a living process holds); `ours` are held by us."""
    found = [folder for spool in spools for folder in journal.folders(spool)]
    return found, [folder for folder in found if folder not in ours and journal.is_held(folder)]


def _discarded(adoption: _Adoption) -> bool:
    """Unlink a journal that is stored; False: some of it would not go, and the next look would find it again."""
    adoption.orphan.discard()
    return not os.path.lexists(adoption.folder)


def _owner_of_old(folder: str, now: int) -> int | None:
    """The uid that owns a folder; None: it is too young to be judged, or went away."""
    try:
        info = os.stat(folder, follow_symlinks=False)
    except OSError:
        return None
    return None if 0 <= now - info.st_mtime_ns < YOUNG_NS else info.st_uid


def _remove_hollow(folder: str, now: int) -> bool:
    """Remove the folder of a process that was killed while it made it; whether it was one. It holds a lock and what has a
    temporary name, so no record: the first one comes after instance.json."""
    try:
        names = os.listdir(folder)
        old = now - os.stat(folder, follow_symlinks=False).st_mtime_ns >= HOLLOW_NS
        if not old or any(name != "lock" and not name.endswith(".tmp") for name in names):
            return False
        for name in names:
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except OSError:
        return False
    return True


def _gone_words(before: instances.Standing | None) -> str:
    """Why it is gone: what its goodbye said, if it sent one; else that it sent none."""
    if before is not None and before.goodbye:
        return before.goodbye
    heard = f"last heard {clock(before.last_heard_at)}" if before is not None else "known by its journal alone"
    return f"process ended without saying goodbye: killed or crashed; {heard}"
