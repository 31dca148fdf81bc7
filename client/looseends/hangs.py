"""When to look where tasks are: at half their deadline, right before it, and when the daemon asks.

Rules (all of it runs in the sender's thread):

1. A task costs nothing for this: its due times are read from its record after it was sent, and only of those still open then.
2. "At the deadline" is a little before it (a tenth, at most 0.5 s), so that the verdict at the deadline can name the place.
   The same before a promise of progress is broken.
3. A look's own cost in CPU time decides when the next one may come (PACE times as long), so that a thousand deadlines at once
   cost no more than a share of one core; on a busy machine waiting is no cost. At most STACKS_MAX tasks a look.
4. A stack is a `progress` event that waits in memory until it is sent, the newest of each task, PENDING_MAX at most. What the
   daemon has not been told when this process is killed is lost; the task is not, it stands in the journal.
5. How far an event loop lags is how long it takes to come round to one call put into it from here.
"""

from __future__ import annotations

import _thread
import json
import struct
import threading
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from . import slots, trouble
from .cursor import Cursor, Cursors
from .slots import HEADER_BYTES, SLOT_BYTES
from .wire import DURATION_S_MAX, NS, STACK_LINES_MAX

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from .journal import Journal
    from .lifecycle import Process
    from .stacks import Look, Place

DEFAULT_DEADLINE_S = 300.0
"""Of declared work that names none, unless the daemon's configuration says otherwise; then the daemon asks in time."""
BEFORE_S_MAX = 0.5
PACE = 20
STACKS_MAX = 100
PENDING_MAX = 100
ASKED_MAX = 100
LOOPS_MAX = 8
LAG_WAIT_S = 0.02
HELD_S = 0.5
"""A loop that has not turned for so long is worth a word in the stacks of what waits in it."""
TROUBLE_S = 10.0
NOT_FOUND = "(no frame of this task was found in its process: it may wait for another process, or run where no hook can see it)"
_HEAD = struct.Struct("<4xI6xH")  # of a slot: the number of its name, the bytes of its extra


class Probe:
    """One event loop: a call put into it, and when it came round to it."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = 0
        self._sent = self._answered = 0.0
        self._lock = _thread.allocate_lock()

    def lag_s(self) -> float | None:
        """How long the loop took, or has been taking so far, to come round to us; None: it does not run."""
        late = self._answered - self._sent if self._answered else 0.0
        try:
            runs = not self.loop.is_closed() and self.loop.is_running()
            if runs and (not self._sent or self._answered):
                self._ask()
                self._wait()
        except RuntimeError:  # it was closed just now
            runs = False
        if not runs:
            self._sent = self._answered = 0.0
            return None
        return max(late, (self._answered or time.monotonic()) - self._sent)

    def _ask(self) -> None:
        self._sent, self._answered = time.monotonic(), 0.0
        self._lock = lock = _thread.allocate_lock()
        lock.acquire()

        def answer() -> None:
            if self._lock is lock:
                self._answered, self.thread = time.monotonic(), threading.get_ident()
                lock.release()

        self.loop.call_soon_threadsafe(answer)

    def _wait(self) -> None:
        if self._lock.acquire(timeout=LAG_WAIT_S):
            self._lock.release()


class Lags:
    """The loops of this process that we know of."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._probes: dict[int, Probe] = {}

    def lag_ms(self) -> float | None:
        """The worst lag of all loops in ms; None: no loop runs."""
        if self._process.loop is not None:
            self.of(self._process.loop)
        lags = {number: probe.lag_s() for number, probe in self._probes.items()}
        for number in [number for number, lag in lags.items() if lag is None]:
            del self._probes[number]
        return max((round(lag * 1000, 1) for lag in lags.values() if lag is not None), default=None)

    def of(self, loop: AbstractEventLoop) -> Probe | None:
        """The probe of a loop; None: there are too many loops."""
        probe = self._probes.get(id(loop))
        if (probe is None or probe.loop is not loop) and len(self._probes) < LOOPS_MAX:
            probe = self._probes[id(loop)] = Probe(loop)
        return probe

    def words(self, loop: AbstractEventLoop, look: Look) -> str | None:
        """A line about a loop that does not turn, and who holds it; None: it turns."""
        probe = self.of(loop)
        lag = probe.lag_s() if probe is not None else None
        if probe is None or lag is None or lag < HELD_S:
            return None
        holder = look.holder(probe.thread or getattr(loop, "_thread_id", None) or 0)
        held = "" if holder is None else f"; {holder.rpartition('/')[2]} holds it"
        return f"(its event loop has not turned for {lag:.1f} s{held})"


class _Due:
    """When to look at the tasks of one segment: `next` in monotonic ns, `looked` the last time all were gone through."""

    __slots__ = ("looked", "next", "seen")

    def __init__(self, now: int) -> None:
        self.seen, self.looked, self.next = 0, now, 1 << 62


class Hangs:
    """`look()` when `due_at` has come; `texts()` are events to send, `sent()` says that they were."""

    def __init__(self, process: Process, journal: Journal, cursors: Cursors) -> None:
        self._journal, self._cursors = journal, cursors
        self.lags = Lags(process)
        self.due_at = self.rest_until = 0.0
        self._asked: dict[bytes, None] = {}
        self._due: dict[int, _Due] = {}
        self._limits: dict[int, tuple[int, int, bool]] = {}
        self._pending: dict[Place, tuple[slots.Record, int, list[str]]] = {}

    def ask(self, ids: object) -> None:
        """The daemon wants to know where these tasks are: ids as text."""
        for text in ids[:ASKED_MAX] if isinstance(ids, list) else ():
            if isinstance(text, str) and len(raw := text.replace("-", "")) == 32 and len(self._asked) < ASKED_MAX:
                try:
                    self._asked[bytes.fromhex(raw)] = None
                except ValueError:
                    continue
        if self._asked:
            self.due_at = min(self.due_at, self.rest_until)

    def look(self) -> None:
        """Take the stacks that are due, unless the last look cost too much. Never raises: the records behind it must go on."""
        if time.monotonic() < self.rest_until:
            self.due_at = self.rest_until
            return
        try:
            cost = self._look()
        except Exception as error:  # noqa: BLE001 - a stack is a help; the records behind it must go on
            trouble.note("a stack could not be taken", error)
            cost = TROUBLE_S / PACE
        self.rest_until = time.monotonic() + cost * PACE
        wanted = min((due.next for due in self._due.values()), default=1 << 62) / NS
        self.due_at = max(wanted, self.rest_until)

    def _look(self) -> float:
        """-> the CPU seconds it cost; 0 where nothing was due."""
        from . import stacks  # noqa: F401 - its first import is not what a look costs

        now, began = time.monotonic_ns(), time.thread_time()
        self._cursors.look()
        cursors = self._cursors.all()
        wanted: dict[Place, tuple[Cursor, int]] = {}
        known = {id(cursor) for cursor in cursors}
        self._due = {number: due for number, due in self._due.items() if number in known}
        passed = False
        for cursor in cursors:
            passed |= self._look_at(cursor, now, wanted)
        asked = self._find_asked(cursors)
        wanted.update(asked)
        if wanted:
            self._take(wanted, asked.keys(), now)
        return time.thread_time() - began if wanted or passed else 0.0

    # --- who is due ---

    def _look_at(self, cursor: Cursor, now: int, wanted: dict[Place, tuple[Cursor, int]]) -> bool:
        """Add what is due of one segment; whether all of its open records were gone through."""
        due = self._due.get(id(cursor))
        if due is None:
            due = self._due[id(cursor)] = _Due(now)
        if due.next <= now:
            soonest = 1 << 62
            for index in cursor.unended():
                soonest = min(soonest, self._point(cursor, index, due.looked, now, wanted))
            due.next, due.looked, due.seen = soonest, now, cursor.seen
            return True
        for index in cursor.unended(due.seen):
            due.next = min(due.next, self._point(cursor, index, 0, now, wanted))
        due.seen = cursor.seen
        return False

    def _point(self, cursor: Cursor, index: int, looked: int, now: int, wanted: dict[Place, tuple[Cursor, int]]) -> int:
        """When to look at this record next (monotonic ns); added to `wanted` if a time for it came since `looked`."""
        limit, within = self._limit(cursor, index)
        scheduled, started, ended, _, progress = slots.words_of(cursor.segment.map, index)
        if ended or not (limit or within):
            return 1 << 62
        if not started:  # it will not be due before this, whenever it starts
            shorter = min(span for span in (limit, within) if span)
            return max(scheduled + shorter // 2, now + min(shorter // 4, NS))
        points = [started + limit // 2, _before(started, limit)] if limit else []
        if within:
            points.append(_before(max(started, _moved_at(cursor, progress)), within))
        if any(looked < point <= now for point in points) and len(wanted) < STACKS_MAX:
            wanted[id(cursor.segment), HEADER_BYTES + index * SLOT_BYTES] = cursor, index
        return min((point for point in points if point > now), default=1 << 62)

    def _limit(self, cursor: Cursor, index: int) -> tuple[int, int]:
        """The deadline of a record and the time within which it promises progress, in ns; 0: none."""
        number, extra = _HEAD.unpack_from(cursor.segment.map, HEADER_BYTES + index * SLOT_BYTES)
        known = self._limits.get(number)
        if known is None:
            name = self._journal.names.get(number)
            known = self._limits[number] = (0, 0, True) if name is None else _limit_of(name.fields)
        limit, within, sure = known
        return (limit if sure or not extra else self._own_limit(cursor, index, limit)), within

    def _own_limit(self, cursor: Cursor, index: int, usual: int) -> int:
        """The deadline that this very record may name (a queue's own time limit), else the usual one."""
        record = self._read(cursor, index)
        said = slots.loads(record.extra) if record is not None else None
        own = said.get("deadline") if isinstance(said, dict) else None
        return usual if own is None else _ns(own)

    def _read(self, cursor: Cursor, index: int) -> slots.Record | None:
        segment = cursor.segment
        return slots.read_slot(segment.map, index, segment.head, self._journal.names, segment.side.read)

    def _find_asked(self, cursors: Collection[Cursor]) -> dict[Place, tuple[Cursor, int]]:
        found: dict[Place, tuple[Cursor, int]] = {}
        for raw in list(self._asked):
            del self._asked[raw]
            for cursor in cursors:
                index = _index_of(cursor, raw)
                if index is not None:
                    found[id(cursor.segment), HEADER_BYTES + index * SLOT_BYTES] = cursor, index
                    break
        return found

    # --- what they do ---

    def _take(self, wanted: dict[Place, tuple[Cursor, int]], asked: Collection[Place], now: int) -> None:
        from .stacks import Look

        look = Look()
        found = look.stacks(wanted.keys())
        for place, (cursor, index) in wanted.items():
            lines, loop = found.get(place, ([NOT_FOUND] if place in asked else [], None))
            remark = self.lags.words(loop, look) if loop is not None else None
            if lines:
                self._keep(place, cursor, index, now, lines if remark is None else [remark, *lines[1 - STACK_LINES_MAX :]])

    def _keep(self, place: Place, cursor: Cursor, index: int, now: int, lines: list[str]) -> None:
        record = self._read(cursor, index)
        if record is None or record.ended or not record.started:
            return
        self._pending.pop(place, None)
        self._pending[place] = record, now, lines
        while len(self._pending) > PENDING_MAX:
            del self._pending[next(iter(self._pending))]

    @property
    def waiting(self) -> int:
        """How many stacks were taken and not told yet. A batch that hides them would bring a verdict without its place."""
        return len(self._pending)

    def texts(self) -> list[str]:
        """The `progress` events that wait, as JSON texts."""
        anchor = self._cursors.steady_anchor()
        return [json.dumps(_event(record, at + anchor, lines)) for record, at, lines in self._pending.values()]

    def sent(self) -> None:
        """All that `texts` gave was taken, or never will be."""
        self._pending.clear()


def _event(record: slots.Record, at: int, lines: list[str]) -> dict[str, Any]:
    task = slots.id_text(record.task)
    common = {"task": task, "name": record.name.name, "attempt": record.attempt, "seq": record.seq}
    return {"type": "progress", **common, "at": at, "stack": lines}


def _limit_of(fields: dict[str, Any]) -> tuple[int, int, bool]:
    """Deadline, promise of progress (ns; 0: none), and whether the name says the deadline, so that no record can."""
    if fields.get("source") == slots.EXPECTS:
        return 0, 0, True
    usual = DEFAULT_DEADLINE_S if fields.get("declared", True) else 0
    return _ns(fields.get("deadline", usual)), _ns(fields.get("progress_within", 0)), "deadline" in fields


def _ns(seconds: object) -> int:
    return int(seconds * NS) if isinstance(seconds, int | float) and 0 < seconds < DURATION_S_MAX else 0


def _before(begun: int, span: int) -> int:
    """A little before a time is over: what is found then is known when it is."""
    return begun + span - min(span // 10, int(BEFORE_S_MAX * NS))


def _moved_at(cursor: Cursor, progress: int) -> int:
    """When a record's task last said how far it is (monotonic ns); 0: never, or that cannot be read."""
    said = slots.loads(slots.read_ref(progress, cursor.segment.side.read) or b"") if progress else None
    at = said.get("at") if isinstance(said, dict) else None
    return at if isinstance(at, int) else 0


def _index_of(cursor: Cursor, raw: bytes) -> int | None:
    """The open record of a segment that has this id: its own id says where it lies, a given one is searched for."""
    data, head = cursor.segment.map, cursor.segment.head
    value = int.from_bytes(raw, "big")
    rest = (value >> 64 & 0xFFF) << 62 | value & ((1 << 62) - 1)
    index = rest >> 58
    if index < head.slots and slots.task_id(head, index) == raw:
        return index if index < cursor.seen else None
    for index in cursor.unended():
        at = HEADER_BYTES + index * SLOT_BYTES
        if data[at + slots.IDS_AT : at + slots.IDS_AT + 16] == raw:
            return index
    return None
