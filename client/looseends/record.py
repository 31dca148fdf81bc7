"""From a call to a record: begin, start, end. The only door between user code and the journal.

Rules: nothing here raises (what goes wrong is counted, the user's call goes on). A start is committed before the body
runs. One piece of work is one record: a task that a hook handed inward is started in place, not begun again.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from . import slots, trouble
from .capture import dumps
from .context import CURRENT, Task, extra_json
from .journal import Journal
from .lifecycle import PROCESS
from .slots import CANCELLED, DROPPED, FAILED, FINISHED, NO_ID
from .spec import Spec
from .wire import PAYLOAD_BYTES_MAX, TEXT_CHARS_MAX

FRAMES_MAX = 30
TRACEBACK_CHARS_MAX = PAYLOAD_BYTES_MAX // 4
_OURS = __file__.rsplit("/", 1)[0] + "/"
_now = time.monotonic_ns
_current, _make_current, _reset = CURRENT.get, CURRENT.set, CURRENT.reset
_end = Journal.end


def begin(
    spec: Spec,
    text: str,
    problem: str | None,
    scheduled: bool = False,
    extra: dict[str, Any] | None = None,
    raw_id: bytes = NO_ID,
    attempt: int = 1,
) -> Task:
    """Commit a record for one call, scheduled or started now. Never raises; a Task without a record answers as well."""
    try:
        journal = PROCESS.journal or PROCESS.open()
        place = None
        if journal is not None:
            if spec.journal is not journal:
                spec.enroll(journal)
            packed = b"" if problem is None and not extra else extra_json({"not_replayable_because": problem, **(extra or {})})
            parent = _current()
            now = _now()
            place = journal.begin(
                spec.number,
                text.encode(),
                packed,
                now if scheduled else 0,
                0 if scheduled else now,
                NO_ID if parent is None else parent.raw_id,
                raw_id,
                attempt,
            )
            if PROCESS.idle:
                PROCESS.wake()
        task = Task(spec.name, place, raw_id, attempt)
    except Exception as error:  # noqa: BLE001 - the one promise to every caller
        trouble.note("a task could not be recorded", error)
        if PROCESS.journal is not None:
            PROCESS.journal.dropped += 1
        task = Task(spec.name, None, raw_id, attempt)
    if scheduled:
        task.state = "scheduled"
    return task


def enter(spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Task:
    """A call of an audited function begins: its record, started, as the current task."""
    held = _current()
    if held is not None and held.awaits is spec:
        start(held)
        return held
    try:
        text, problem = spec.shape.encode(args, kwargs)
    except Exception as error:  # noqa: BLE001 - as in begin
        trouble.note("arguments could not be captured", error)
        text, problem = "{}", "its arguments could not be captured"
    journal = PROCESS.journal
    if problem is None and journal is not None and spec.journal is journal:
        task = _begin_plain(spec, text, journal, held)
    else:
        task = begin(spec, text, problem)
    task.token = _make_current(task)
    return task


def _begin_plain(spec: Spec, text: str, journal: Journal, parent: Task | None) -> Task:
    """`begin` as nearly every call needs it, without its options: they cost a tenth of an audited call."""
    try:
        place = journal.begin(spec.number, text.encode(), b"", 0, _now(), NO_ID if parent is None else parent.raw_id, NO_ID, 1)
        if PROCESS.idle:
            PROCESS.wake()
        return Task(spec.name, place)
    except Exception as error:  # noqa: BLE001 - as in begin
        trouble.note("a task could not be recorded", error)
        journal.dropped += 1
        return Task(spec.name, None)


def start(task: Task) -> None:
    """A scheduled task's body begins here and now; it is no longer waiting for anybody."""
    task.awaits = None
    task.state = "running"
    if task.segment is None:
        return
    try:
        Journal.start(task.segment, task.at, _now())
        if PROCESS.idle:
            PROCESS.wake()
    except Exception as error:  # noqa: BLE001 - as in begin
        trouble.note("a start could not be recorded", error)


def leave(task: Task, error: BaseException | None) -> None:
    """The body ended, well or with `error`: record it, and give the place of the current task back."""
    end(task, error)
    token = task.token
    if token is not None:
        task.token = None
        try:
            _reset(token)
        except ValueError:
            # A collected coroutine ends in whatever context the collector ran; that context was never ours to reset.
            trouble.COUNTS["ended elsewhere"] = trouble.COUNTS.get("ended elsewhere", 0) + 1


def end(task: Task, error: BaseException | None) -> None:
    """Record how a task ended."""
    segment = task.segment
    if segment is None or task.state == "ended":
        return
    try:
        ended = _now()
        if error is None:
            _end(segment, task.at, ended, FINISHED)
        else:
            status, detail = outcome(error)
            _end(segment, task.at, ended, status, detail)
        task.state = "ended"
        if PROCESS.idle:
            PROCESS.wake()
    except Exception as failure:  # noqa: BLE001 - as in begin
        trouble.note("an end could not be recorded", failure)


def drop(task: Task, reason: str) -> None:
    """Record that a task will not run, or not to its end."""
    if task.segment is None or task.state in ("ended", "dropped"):
        return
    try:
        Journal.end(task.segment, task.at, _now(), DROPPED, dumps({"reason": reason}).encode())
        task.state = "dropped"
        if PROCESS.idle:
            PROCESS.wake()
    except Exception as failure:  # noqa: BLE001 - as in begin
        trouble.note("a drop could not be recorded", failure)


def outcome(error: BaseException) -> tuple[int, bytes]:
    """What an exception that left a task's body means: (status, detail as JSON)."""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return FINISHED, b""
    if isinstance(error, GeneratorExit):
        return DROPPED, b'{"reason":"collected"}'
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and isinstance(error, asyncio.CancelledError):
        if loop_is_ending():
            return DROPPED, b'{"reason":"loop_shutdown"}'
        return CANCELLED, b'{"reason":"requested"}'
    return FAILED, dumps({"error": describe(error)}).encode()


def loop_is_ending() -> bool:
    """Whether this cancellation comes from the end of the loop: `asyncio.run` cancels what is left from one function."""
    frame = sys._getframe(1)
    for _ in range(200):
        if frame.f_code.co_name == "_cancel_all_tasks" and frame.f_globals.get("__name__") == "asyncio.runners":
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


def describe(error: BaseException) -> dict[str, str]:
    """An exception as the wire takes it: type, message, and the end of its traceback without locals or frames of ours."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ in ("builtins", None) else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)[:TEXT_CHARS_MAX]
    except Exception as failure:  # noqa: BLE001 - a message that cannot be made is said to be that
        message = f"(its message could not be made: {type(failure).__name__})"
    return {"type": slots.clean(name), "message": slots.clean(message, TEXT_CHARS_MAX), "traceback": _traceback(error)}


def _traceback(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    try:
        import traceback

        lines = traceback.format_exception(type(error), error, trace, limit=-FRAMES_MAX)
        return slots.clean("".join(lines)[-TRACEBACK_CHARS_MAX:], TRACEBACK_CHARS_MAX)
    except Exception as failure:  # noqa: BLE001 - a traceback is a help, not a duty
        return f"(no traceback: {type(failure).__name__})"
