"""The one thread: reads the journal back, sends it in batches, keeps the instance known, adopts what the dead left.

Rules:

1. At least once: a record stays until its end was answered with 200. What the answer means:

       200 with counts  taken; entries of `rejected` are counted and not sent again
       422 with counts  the same: read whole, and every event of it rejected
       413, 400, 4xx    the batch is halved; a single record refused for good is counted and not sent again
       401 403 429 5xx  hold, back off; so with whatever is no JSON object (413 apart): it is not our daemon that speaks
       no answer        hold, back off (0.1 s doubling to 10 s, each with jitter; any answer begins it anew)

2. The first thing sent is a batch, empty if need be; a heartbeat answered 404 is followed by one.
3. A connection that was cut while nothing was sent is noticed within 0.5 s and opened again at once with a heartbeat, also
   while records are held: the daemon takes an instance that does not come back in 2 s for dead. Held records hold up no
   heartbeat, or a daemon that can take none for half a minute would take everybody for dead.
4. Idle, it sleeps until a record wakes it (a raw lock: releasing one is safe in signal handlers and finalisers), so a
   first event leaves at once; busy, it gathers for 200 ms: each pass may hold up a request of the service for a moment.
5. A daemon that says that it takes the journal's own bytes gets them: JSON costs fifty times the time of this thread, which is
   time of the service's. Any other gets the JSON of the documents, and one that says so and then refuses them as well.
6. Nothing leaves this thread but counts.
"""

from __future__ import annotations

import _thread
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from . import parcel, trouble
from .adoption import Adoption
from .batch import Batch
from .cursor import Cursors
from .hangs import Hangs
from .journal import Journal
from .settings import Settings
from .spec import REGISTRY
from .transport import JSON, Answer, Transport, was_read
from .wire import EVENTS_MAX, canonical
from .writing import Writing

if TYPE_CHECKING:
    from .lifecycle import Process
    from .replay import Orders

GATHER_S = 0.17
BUSY_S = 0.25
"""How long to do nothing but send: beside it there are tasks to be looked at, and a spare segment to be made."""
HEARTBEAT_S = 10.0
HEARTBEAT_WITH_FUNCTIONS_S = 1.0
BACK_OFF_S = (0.1, 10.0)
LOOK_S = 0.5
"""How often to look whether the kept connection was cut. No lock can be waited for together with a socket, and waking a thread
by writing to one would cost every task more than this look costs."""
FIRST_EVENTS_MAX = 50
OPEN_IDS_MAX = 1_000
HOLD = (0, 401, 403, 408, 429)


class Sender:
    """One journal's way to the daemon. `start` once; `wake`, `flush`, `stop` from any thread."""

    def __init__(self, process: Process, journal: Journal, instance: dict[str, Any], settings: Settings) -> None:
        self._process, self._journal, self.instance, self._settings = process, journal, instance, settings
        self.transport = Transport(settings, journal.spool)
        self._cursors = Cursors(journal)
        self._writing = Writing(journal)
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._stopping = False
        self._stop_by = 0.0
        self._flushing = False
        self._clean_at = -1.0  # start of the last look that found nothing unsent
        self._unsent = 0
        self._busy = False  # the last round had something to send: more may be on its way
        self._json_only = False
        self._known = False  # this connection's daemon has had a batch of ours
        self._functions = -1
        self._heartbeat_at = 0.0
        self._try_at = 0.0  # records are held until then
        self._refused_s = self._silent_s = BACK_OFF_S[0]  # how long the next hold is, after a refusal and after no answer
        self._events_max = EVENTS_MAX
        self._adoption = Adoption(journal, self.transport, self._held)
        self._hangs = Hangs(process, journal, self._cursors)
        self._orders: Orders | None = None

    def start(self) -> None:
        """Start the thread; where that is no longer possible (interpreter shutdown), the spool keeps everything."""
        thread = threading.Thread(target=self._run, name="looseends-sender", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            trouble.note("the sender's thread cannot start; the spool keeps the records", error)

    def wake(self) -> None:
        """There is something new. No lock, safe in signal handlers."""
        self._process.idle = False
        try:
            self._wake.release()
        except RuntimeError:  # it was awake already
            return

    def flush(self, timeout: float) -> int:
        """Wait until what was recorded before this call is taken. -> records still unsent, 0 when all is taken."""
        asked = time.monotonic()
        self._flushing, self._try_at = True, 0.0
        try:
            while self._clean_at < asked:
                self.wake()
                if time.monotonic() - asked >= timeout or self._stopping:
                    return max(1, self._unsent)
                time.sleep(0.002)
        finally:
            self._flushing = False
        return 0

    def stop(self, timeout: float) -> bool:
        """Send what is left, say goodbye, remove the folder; wait at most `timeout` seconds. -> whether all of it was done."""
        self._stop_by = time.monotonic() + timeout
        self._stopping = True
        self.wake()
        return self._done.acquire(timeout=max(0.0, timeout))

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection."""
        self.transport.abandon()

    # --- the thread ---

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._sleep(self._cycle())
            except Exception as error:  # noqa: BLE001 - this thread must outlive whatever one cycle meets
                trouble.note("sending", error)
                self._sleep(BACK_OFF_S[1] if not self._stopping else 0)
        try:
            self._last_words()
        except Exception as error:  # noqa: BLE001 - the folder stays for whoever adopts it
            trouble.note("the goodbye failed", error)
        finally:
            self._done.release()

    def _sleep(self, seconds: float) -> None:
        """Until `seconds` have passed or somebody wakes us. After a batch its followers gather, and wake nobody."""
        if self._busy and not self._stopping:
            self._wake.acquire(timeout=min(max(0.0, seconds), GATHER_S))
            return
        if time.monotonic() >= self._try_at:  # while held back, new records need not wake anybody
            self._process.idle = True
            if self._cursors.unsent():  # what came between the last look and `idle` woke nobody
                self._process.idle = False
                return
        if not self._stopping:  # its wake may have been spent on the pause between two batches
            self._wait(max(0.0, seconds))
        self._process.idle = False

    def _wait(self, seconds: float) -> None:
        """Until somebody wakes us, `seconds` have passed, or the connection is found cut: then a heartbeat is due."""
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            if self._wake.acquire(timeout=max(0.0, min(left, LOOK_S))) or left <= LOOK_S:
                return
            if self.transport.was_cut():
                self.transport.close()
                self._heartbeat_at = 0.0
                return

    def _cycle(self) -> float:
        """One round. -> seconds until the next one is due."""
        self._journal.prepare()
        now = time.monotonic()
        if now >= self._hangs.due_at and not self._stopping:
            self._hangs.look()  # before the daemon hears that nothing is left: it may judge then
        self._busy = now >= self._try_at and self._send()
        if self._known:
            self._stay_known(time.monotonic())
        if not self._stopping:
            self._look()
        now = time.monotonic()
        if now >= self._adoption.due_at and not self._stopping:
            self._adoption.look_around(now, self._known and now >= self._try_at)
        return self._next_due()

    def _next_due(self) -> float:
        now = time.monotonic()
        due = min(self._adoption.due_at, self._hangs.due_at, self._heartbeat_at if self._known else self._try_at)
        return max(0.0, (min(due, self._try_at) if self._try_at > now else due) - now)

    # --- batches ---

    def _send(self) -> bool:
        """Send until nothing is left, the daemon wants a pause, or there is something else to do. -> whether more may follow."""
        until = min(self._heartbeat_at, time.monotonic() + BUSY_S)
        while True:
            looked_at = time.monotonic()
            batch = self._cut()
            if not batch.parts and self._known:
                self._clean_at, self._unsent = looked_at, 0
                return False
            self._unsent = batch.backlog + batch.records
            if not self._post(batch):
                return False
            if not (batch.backlog or self._flushing or self._stopping) or time.monotonic() >= until:
                return True
            self._journal.prepare()

    def _cut(self) -> Batch:
        """The next batch; a small one where nobody has said yet in which form records are taken here."""
        known = self.transport.asked or self._json_only
        return self._cursors.cut(self._events_max if known else min(self._events_max, FIRST_EVENTS_MAX))

    def _look(self) -> None:
        """See where the tasks are that are near their deadline, or were asked for, and tell it."""
        self._hangs.look()
        texts = self._hangs.texts()
        if not texts or not self._known or time.monotonic() < self._try_at:
            return
        body = f'{{{self._members(self._cursors.unsent(), 0)},"events":[{",".join(texts)}]}}'
        answer = self._ask("POST", "/events", body.encode())
        if was_read(answer):
            self._accepted(answer)
        elif self._held(answer):
            return
        self._hangs.sent()

    def _post(self, batch: Batch) -> bool:
        """Whether to go on sending."""
        answer = self._tell(batch)
        if was_read(answer):
            self._accepted(answer)
            self._cursors.taken(batch)
            self._known = True
            self._events_max = min(EVENTS_MAX, self._events_max * 2)
            return True
        if self._held(answer):
            return False
        self._refused(batch, answer)
        return True

    def _tell(self, batch: Batch) -> Answer:
        """Post it in the way that costs least of what the daemon takes."""
        if batch.parts and self.transport.takes_journal and not self._json_only:
            body = self._writing.as_parcel(self._members(batch.backlog), batch)
            answer = self._ask("POST", "/events", body, parcel.CONTENT_TYPE)
            if answer.status not in (400, 415, 422) or was_read(answer):
                return answer
            self._json_only = True
            trouble.note("the daemon refused a batch in the form it asked for; it gets JSON", str(answer.body)[:200])
        return self._ask("POST", "/events", self._writing.as_json(self._members(batch.backlog), batch))

    def _members(self, backlog: int, stacks: int | None = None) -> str:
        """What each batch says beside its events: with the records and stacks (all that wait) that come after it."""
        behind = backlog + (self._hangs.waiting if stacks is None else stacks)
        return f'"instance":{canonical(self.instance)},"sent_at":{time.time_ns()},"backlog":{behind}'

    def _accepted(self, answer: Answer) -> None:
        self._try_at, self._refused_s = 0.0, BACK_OFF_S[0]
        body = answer.body if isinstance(answer.body, dict) else {}
        rejected = body.get("rejected")
        if isinstance(rejected, list) and rejected:
            trouble.note("events were rejected by the daemon and are not sent again", str(rejected[:3])[:300])
            trouble.COUNTS["rejected"] = trouble.COUNTS.get("rejected", 0) + len(rejected)
        self._ask_orders(body)

    def _refused(self, batch: Batch, answer: Answer) -> None:
        """The body as it is will never be taken: smaller ones may be, a single record is given up."""
        if batch.records > 1:
            self._events_max = max(1, batch.events // 2)
            return
        if not batch.parts:
            self._hold(answer)
            return
        self._journal.dropped += 1
        trouble.note("a record was refused by the daemon", f"{answer.status} {str(answer.body)[:200]}")
        self._cursors.taken(batch)

    def _ask(self, method: str, path: str, body: bytes, kind: str = JSON) -> Answer:
        answer = self.transport.request(method, path, body, kind)
        if answer.status:
            self._silent_s = BACK_OFF_S[0]
        return answer

    def _held(self, answer: Answer) -> bool:
        """Whether this answer means: not now, or not ours to believe. Then no record is sent for a while."""
        foreign = not isinstance(answer.body, dict) and answer.status != 413  # which a proxy may say
        if answer.status < 400 or answer.status in HOLD or answer.status >= 500 or foreign:
            self._hold(answer)
            return True
        return False

    def _hold(self, answer: Answer) -> None:
        share = 0.5 + os.urandom(1)[0] / 512
        if answer.status:
            why = f"{answer.status} {str(answer.body)[:200]}"
            trouble.note("the daemon does not take records now; the spool keeps them", why)
            wait = max(self._refused_s * share, answer.retry_after)
            self._refused_s = min(BACK_OFF_S[1], self._refused_s * 2)
        else:
            wait = min(self.transport.silence.next_s(), self._silent_s * share)
            self._silent_s = min(BACK_OFF_S[1], self._silent_s * 2)
        self._try_at = time.monotonic() + min(BACK_OFF_S[1], wait)
        if not answer.status:
            self._heartbeat_at = self._try_at  # nothing at all is said before, and then at once

    # --- staying known ---

    def _stay_known(self, now: float) -> None:
        changed = self._functions != REGISTRY.version or (self._orders is not None and self._orders.changed(now))
        if REGISTRY.functions and changed and now >= self._try_at:
            self._put_functions()
        if now >= self._heartbeat_at:
            self._beat(now)

    def _put_functions(self) -> None:
        from .replay import Orders

        version = REGISTRY.version
        if self._orders is None:
            self._orders = Orders(self.instance["id"], self.transport, self._process)
        answer = self._ask("PUT", self._mine("/functions"), self._orders.functions())
        if answer.status in (200, 204):
            self._functions = version
        elif answer.status == 404:
            self._known = False
        elif not self._held(answer):
            self._functions = version
            trouble.note("functions were refused by the daemon; replay is off", str(answer.body)[:300])

    def _beat(self, now: float) -> None:
        self._heartbeat_at = now + (HEARTBEAT_WITH_FUNCTIONS_S if REGISTRY.functions else HEARTBEAT_S)
        for segment in list(self._journal.segments):
            segment.set_anchor(self._cursors.steady_anchor())
        said = {
            "at": time.time_ns(),
            "last_seq": self._cursors.last_seq,
            "open": self._cursors.open_count(),
            "ended": self._cursors.ended,
            "dropped": self._journal.dropped,
            "backlog": self._cursors.unsent() + self._hangs.waiting,
            "loop_lag_ms": self._hangs.lags.lag_ms(),
        }
        answer = self._ask("PUT", self._mine("/heartbeat"), canonical(said).encode())
        if answer.status == 404:
            self._known, self._functions, self._heartbeat_at = False, -1, now
            if not self._post(self._cut()):
                self._heartbeat_at = now + 1
        elif answer.status == 200 and isinstance(answer.body, dict):
            self._hangs.ask(answer.body.get("stacks"))
            self._ask_orders(answer.body)
        elif self._held(answer):
            self._heartbeat_at = self._try_at

    def _ask_orders(self, body: dict[str, Any]) -> None:
        if self._orders is not None and body.get("orders") and not self._stopping:
            self._orders.take()

    def _mine(self, rest: str = "") -> str:
        return f"/instances/{self.instance['id']}{rest}"

    # --- the end ---

    def _last_words(self) -> None:
        """Within the time that `stop` gave: send the rest, say goodbye, leave no folder behind."""
        self._try_at = 0.0
        self._hangs.sent()  # where a task was matters no more
        while time.monotonic() < self._stop_by:
            batch = self._cut()
            if not batch.parts and self._known:
                break
            if not self._post(batch):
                return self._close()
        if self._cursors.unsent():
            return self._close()
        said = {
            "reason": "exit",
            "last_seq": self._cursors.last_seq,
            "open": self._cursors.open_ids(OPEN_IDS_MAX),
            "void": self._cursors.void()[:OPEN_IDS_MAX],
        }
        answer = self.transport.request("DELETE", self._mine(), canonical(said).encode())
        if answer.status in (200, 204, 404):
            self._adoption.close()
            self.transport.close()
            self._journal.remove()
            return None
        return self._close()

    def _close(self) -> None:
        self._adoption.close()
        self.transport.close()
        self._journal.close()
