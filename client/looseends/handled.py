"""Failures of captured work: whether somebody retrieved the exception, told apart without retrieving it ourselves.

Rules:

1. The failure is on disk at once, marked UNSURE; a kill after that is read as "not handled". It is sent when this is known:
   handled, when its exception was retrieved; not handled, when it was collected unretrieved (Python says so to the loop's
   exception handler, and we listen), when its loop is closed, when the process says goodbye, or after UNSURE_S.
2. Handled wins: an exception retrieved after it was told as not handled is told again, under the same id.
3. A future that died in silence was retrieved. In a garbage collection its weak references go before its finaliser speaks:
   there, that is believed SETTLE_S later only.
4. We look at `_log_traceback` alone. `exception()` would mark it retrieved and silence Python's own warning.
"""

from __future__ import annotations

import gc
import os
import time
import weakref
from typing import Any

from . import record, slots, trouble
from .context import Task
from .journal import Journal
from .lifecycle import PROCESS
from .plain import dumps
from .slots import FAILED, HANDLED, HEADER_BYTES, SLOT_BYTES, UNSURE, UNSURE_S
from .spec import Spec
from .wire import NS

FAILURES_MAX = 1_000
"""So many are watched at a time; beyond them the oldest is told as not handled."""
LOOK_S = (0.05, 5.0)
SETTLE_S = 1.0
IN_PLACE_S = UNSURE_S - 10.0
"""Younger than this, the record is surely not sent yet, and is changed where it lies."""


class Failure:
    """One exception that left a captured task, and the future that holds it."""

    __slots__ = ("detail", "died_at", "ended", "future", "key", "kept", "loop", "spec", "task", "told")

    def __init__(self, task: Task, spec: Spec, future: Any, detail: bytes) -> None:
        self.task, self.spec, self.detail = task, spec, detail
        self.ended = time.monotonic_ns() & ~7
        self.key = id(future)
        self.died_at = 0.0
        self.loop = weakref.ref(future.get_loop())
        self.future = weakref.ref(future, self._died)
        self.kept: slots.Record | None = None
        self.told = False  # as not handled: from then on the record may be sent and gone at any time

    def _died(self, _: Any) -> None:
        self.died_at = time.monotonic()
        if not _collecting and _failures.get(self.key) is self:
            _decide(self.key, True)

    def write(self, status: int) -> None:
        """Put this outcome into the record, in one word, as if it had stood there from the beginning."""
        segment = self.task.segment
        if segment is not None:
            at = self.task.at + slots.ENDED_AT
            segment.map[at : at + 8] = slots.WORD.pack(self.ended | status)
            if PROCESS.idle:
                PROCESS.wake()

    def age_s(self) -> float:
        """Seconds since the failure."""
        return (time.monotonic_ns() - self.ended) / NS

    def is_retrieved(self, final: bool) -> bool | None:
        """Whether the exception was retrieved; None: it may still be. `final`: nothing more will come."""
        future = self.future()
        if future is not None:
            return None if future._log_traceback else True
        return True if final or time.monotonic() - self.died_at >= SETTLE_S else None


_failures: dict[int, Failure] = {}
_looking: weakref.WeakSet[Any] = weakref.WeakSet()
_collecting: list[str] = []
"""Not empty while the garbage collector runs."""


def failed(task: Task, spec: Spec, future: Any, error: BaseException) -> None:
    """A captured task's future holds this exception. Called by its first done callback. Never raises."""
    try:
        if task.segment is None or task.state == "ended":
            return
        task.state = "ended"
        detail = dumps({"error": record.describe(error, task.hidden), "handled": False}).encode()
        failure = Failure(task, spec, future, detail)
        Journal.end(task.segment, task.at, failure.ended, UNSURE, detail)
        follow(failure)
    except Exception as problem:  # noqa: BLE001 - never into the loop that calls us back
        trouble.note("a failure could not be recorded", problem)


def follow(failure: Failure) -> None:
    """Watch whether the exception of this failure, which stands in the journal as unsure, is retrieved."""
    _decide(failure.key, True)  # one whose memory this future got: it died in silence
    if len(_failures) >= FAILURES_MAX:
        _decide(next(iter(_failures)), False)
    _failures[failure.key] = failure
    _listen()
    loop = getattr(failure.future(), "get_loop", None)
    if loop is not None:
        _look_later(loop())


def retrieved(task: Task, error: BaseException) -> None:
    """A captured task failed, and its exception was retrieved by the time we heard of it. Never raises."""
    try:
        if task.segment is not None and task.state != "ended":
            task.state = "ended"
            detail = dumps({"error": record.describe(error, task.hidden)}).encode()
            Journal.end(task.segment, task.at, time.monotonic_ns(), HANDLED, detail)
            if PROCESS.idle:
                PROCESS.wake()
    except Exception as problem:  # noqa: BLE001 - as in failed
        trouble.note("a failure could not be recorded", problem)


def unretrieved(future: Any) -> None:
    """Python says that this future was collected with an exception nobody retrieved."""
    if id(future) in _failures:
        _decide(id(future), False)


def loop_closed(loop: Any) -> None:
    """Nobody will run in this loop any more: what is not retrieved now counts as not handled."""
    _settle([key for key, failure in list(_failures.items()) if failure.loop() in (loop, None)])


def settle() -> None:
    """This process says goodbye: decide what is still unsure."""
    _settle(list(_failures))


def _settle(keys: list[int]) -> None:
    for key in keys:
        failure = _failures.get(key)
        if failure is not None:
            _decide(key, bool(failure.is_retrieved(final=True)), forget=failure.future() is None)


def _decide(key: int, handled: bool, forget: bool = True) -> None:
    """Write the outcome. One told as not handled stays watched as long as its future lives, unless `forget`."""
    failure = _failures.get(key)
    if failure is None:
        return
    if handled or forget:
        _failures.pop(key, None)
    try:
        in_place = not failure.told and failure.age_s() < IN_PLACE_S
        if not handled and not forget:
            _keep(failure)
        if in_place:
            failure.write(HANDLED if handled else FAILED)
        if not handled:
            failure.told = True
        elif not in_place or failure.age_s() >= IN_PLACE_S:  # frozen in between, it may have been sent by now
            _tell_again(failure)
    except Exception as problem:  # noqa: BLE001 - called by finalisers and timers
        trouble.note("a failure could not be recorded", problem)


def _keep(failure: Failure) -> None:
    """Keep what the record says: once it was taken, it is gone from here, and the same must be said again."""
    segment, journal = failure.task.segment, PROCESS.journal
    if failure.kept is None and segment is not None and journal is not None:
        index = (failure.task.at - HEADER_BYTES) // SLOT_BYTES
        failure.kept = slots.read_slot(segment.map, index, segment.head, journal.names, segment.side.read)


def _tell_again(failure: Failure) -> None:
    """A second record of the same task, with the same times and words, whose failure is handled."""
    journal, kept = PROCESS.journal, failure.kept
    if journal is None or kept is None:
        return
    if failure.spec.journal is not journal:
        failure.spec.enroll(journal)
    times = kept.scheduled, kept.started
    place = journal.begin(failure.spec.number, kept.args, kept.extra, *times, kept.parent, kept.task, kept.attempt)
    if place is not None:
        Journal.end(*place, failure.ended, HANDLED, failure.detail)
        if PROCESS.idle:
            PROCESS.wake()


# --- looking ------------------------------------------------------------------------------------------------------


def _look_later(loop: Any) -> None:
    """Have the loop look from time to time, as long as there is something to look at: one timer at most."""
    if loop not in _looking and not loop.is_closed():
        _looking.add(loop)
        loop.call_later(LOOK_S[0], _look, loop, LOOK_S[0])


def _look(loop: Any, waited: float) -> None:
    """Decide what can be decided; look again later, less and less often."""
    try:
        mine = [(key, failure) for key, failure in list(_failures.items()) if failure.loop() is loop]
        left = False
        for key, failure in mine:
            handled = failure.is_retrieved(final=False)
            if handled:
                _decide(key, True)
            elif failure.kept is None and failure.age_s() >= IN_PLACE_S - LOOK_S[1]:
                _keep(failure)
            left = left or key in _failures
        wait = min(waited * 2, LOOK_S[1])
        if left and not loop.is_closed():
            loop.call_later(wait, _look, loop, wait)
        else:
            _looking.discard(loop)
    except Exception as problem:  # noqa: BLE001 - never into the loop that calls us back
        _looking.discard(loop)
        trouble.note("a failure could not be followed", problem)


def _listen() -> None:
    """From the first failure on: be asked before this process says goodbye, and know when the garbage collector runs."""
    if settle not in PROCESS.endings:
        PROCESS.endings.append(settle)
        gc.callbacks.append(_collects)


def _collects(phase: str, _: Any) -> None:
    if phase == "start":
        _collecting.append(phase)
    else:
        _collecting.clear()


def _forget() -> None:
    """In a forked child: its parent's failures are its parent's to tell."""
    _failures.clear()
    _looking.clear()


os.register_at_fork(after_in_child=_forget)
