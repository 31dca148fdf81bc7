"""From a call to a record: begin, start, end. The only door between user code and the journal.

Rules: nothing here raises (what goes wrong is counted, the user's call goes on). A start is committed before the body
runs. One piece of work is one record: a task that a hook handed inward is started in place, not begun again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextvars import Token
from typing import Any

from . import slots, trouble
from .context import CURRENT, REQUEST, Task, extra_json
from .journal import Journal
from .lifecycle import PROCESS
from .plain import dumps
from .scrub import scrub
from .slots import CANCELLED, DROPPED, ENDED_AT, FAILED, FINISHED, NO_ID
from .spec import Spec
from .tracebacks import KNOWN, SCRUBBED_CHARS_MAX, format_error
from .wire import PAYLOAD_BYTES_MAX, TEXT_CHARS_MAX

TRACEBACK_CHARS_MAX = PAYLOAD_BYTES_MAX // 4
_OURS = __file__.rsplit("/", 1)[0] + "/"
_now = time.monotonic_ns
_current, _reset = CURRENT.get, CURRENT.reset
_make_current: Callable[[Task], Token[Task | None]] = CURRENT.set
_end = Journal.end
_word = slots.WORD.pack
_modules = sys.modules
_observers: list[Callable[[str], None]] = []
TRACE = "opentelemetry.trace"
LOOP_ENDS = ("_cancel_all_tasks", "_cancel_tasks")
"""Where asyncio, uvicorn, uvloop (the first) and aiohttp (the second) cancel every task that is left, before the loop closes."""
SERVER_ENDS = "graceful shutdown exceeded"
"""What uvicorn says where it cancels the requests that did not end within its patience, long before the loop's end."""


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
    segment, at = None, 0
    try:
        journal = PROCESS.journal or PROCESS.open()
        if journal is not None and not journal.alive[0]:
            journal = PROCESS.forked(journal)
        if journal is not None:
            if spec.journal is not journal:
                spec.enroll(journal)
            said = {"not_replayable_because": problem, **trace_fields(), **(extra or {})}
            request = REQUEST.get()
            if request is not None:
                said.setdefault("request", request.label)
            parent = _current()
            now = _now()
            place = journal.begin(
                spec.number,
                text.encode(),
                extra_json(said),
                now if scheduled else 0,
                0 if scheduled else now,
                NO_ID if parent is None else parent.raw_id,
                raw_id,
                attempt,
            )
            segment, at = place or (None, 0)
            if PROCESS.idle:
                PROCESS.wake()
        elif not PROCESS.disabled:
            PROCESS.missed += 1
    except Exception as error:  # noqa: BLE001 - the one promise to every caller
        _dropped("a task could not be recorded", error)
    task = Task(spec.name, segment, at)
    if _observers and spec.source != slots.EXPECTS:
        _tell(spec.name)
    if raw_id is not NO_ID:
        task.set_id(raw_id)
    if attempt != 1:
        task.attempt = attempt
    if scheduled:
        task.state = "scheduled"
    if problem is not None:
        task.hidden = getattr(problem, "hidden", ())
    return task


def observe(note: Callable[[str], None]) -> None:
    """Have `note` called with the name of every task begun from now on. Who does not ask pays nothing on the way of a call."""
    global _make_current
    _observers.append(note)
    _make_current = _make_current_and_tell


def _make_current_and_tell(task: Task) -> Token[Task | None]:
    _tell(task.name)
    return CURRENT.set(task)


def _tell(name: str) -> None:
    for note in _observers:
        try:
            note(name)
        except Exception as error:  # noqa: BLE001 - as in begin
            trouble.note("who wanted to know of a task failed", error)


def _dropped(kind: str, error: Exception) -> None:
    trouble.note(kind, error)
    if PROCESS.journal is not None:
        PROCESS.journal.drop()


def enter(spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Task:
    """A call of an audited function begins: its record, started, as the current task.

    As nearly every call needs it, without the options of `begin`: each call made here costs a twentieth of an audited call.
    """
    parent = _current()
    if parent is not None and parent.awaits is spec:
        start(parent)
        return parent
    journal, data = PROCESS.journal, None
    try:
        data = spec.shape.plain(args, kwargs)
        if data is None or journal is None or spec.journal is not journal or not journal.alive[0]:
            task = _enter(spec, args, kwargs)
        else:
            above = None if parent is None else parent.raw_id
            traced = trace_fields() if TRACE in _modules else None
            if not traced:
                place = journal.begin_plain(spec.stamp, data, _now(), above)
            else:
                place = journal.begin(spec.number, data, extra_json(traced), 0, _now(), above or NO_ID)
            segment, at = place or (None, 0)
            task = Task(spec.name, segment, at)
            if PROCESS.idle:
                PROCESS.wake()
    except Exception as error:  # noqa: BLE001 - as in begin
        _dropped("a task could not be recorded", error)
        task = Task(spec.name, None, 0)
    if spec.wrapper is not None and data is not None and data[:1] == b"[":
        _fit(spec, args)
    task.token = _make_current(task)
    return task


def enter_block(spec: Spec, data: bytes) -> Task | None:
    """`begin` as nearly every `track` needs it; None where more is to be said than these arguments, or this is the first."""
    journal = PROCESS.journal
    if journal is None or spec.journal is not journal or not journal.alive[0] or _observers:
        return None
    if REQUEST.get() is not None or TRACE in _modules:
        return None
    parent = _current()
    segment, at = journal.begin_plain(spec.stamp, data, _now(), None if parent is None else parent.raw_id) or (None, 0)
    if PROCESS.idle:
        PROCESS.wake()
    return Task(spec.name, segment, at)


def _fit(spec: Spec, args: tuple[Any, ...]) -> None:
    """A first plain call of a function: from the next one on it has code of its own."""
    wrapper, spec.wrapper = spec.wrapper, None
    try:
        from .tailored import fit

        fit(wrapper, spec, args)
    except Exception as error:  # noqa: BLE001 - as in begin
        trouble.note("a function goes on in the general way", error)


def _enter(spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Task:
    """`enter` for what is not plain, and for the first call in a process."""
    try:
        text, problem = spec.shape.encode(args, kwargs)
    except Exception as error:  # noqa: BLE001 - as in begin
        trouble.note("arguments could not be captured", error)
        text, problem = "{}", "its arguments could not be captured"
    return begin(spec, text, problem)


def trace_fields() -> dict[str, str]:
    """`trace_id` and `span_id` of the OpenTelemetry span this code runs in; nothing where the program uses none.

    Whoever has a span has imported OpenTelemetry, so it is looked for among the modules, never imported.
    """
    tracing = _modules.get(TRACE)
    if tracing is None:
        return {}
    try:
        found = tracing.get_current_span().get_span_context()
        return {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"} if found.is_valid else {}
    except Exception as error:  # noqa: BLE001 - as in begin; a task without its trace is still a task
        trouble.note("a trace could not be read", error)
        return {}


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
    segment = task.segment
    if error is not None or segment is None or task.state != "running":
        end(task, error)
    else:
        try:
            at = task.at + ENDED_AT  # Journal.end, without a call
            segment.map[at : at + 8] = _word(_now() & ~7 | FINISHED)
            task.state = "ended"
            if PROCESS.idle:
                PROCESS.wake()
        except Exception as failure:  # noqa: BLE001 - as in begin
            trouble.note("an end could not be recorded", failure)
    if task.token is not None:
        pause(task)


def pause(task: Task) -> None:
    """Give the place of the current task back: for good, or until a generator's body goes on."""
    token = task.token
    if token is not None:
        task.token = None
        try:
            _reset(token)
        except ValueError:
            # A collected coroutine ends in whatever context the collector ran; that context was never ours to reset.
            trouble.COUNTS["ended elsewhere"] = trouble.COUNTS.get("ended elsewhere", 0) + 1


def resume(task: Task) -> None:
    """A generator's body goes on: it is the current task again."""
    task.token = CURRENT.set(task)


def close(task: Task) -> None:
    """A generator was ended early by whoever consumed it: `break`, `close()`, a consumer that was done. Nothing was lost."""
    segment = task.segment
    if segment is None or task.state == "ended":
        return
    try:
        _end(segment, task.at, _now(), CANCELLED, b'{"reason":"requested"}')
        task.state = "ended"
        if PROCESS.idle:
            PROCESS.wake()
    except Exception as failure:  # noqa: BLE001 - as in begin
        trouble.note("an end could not be recorded", failure)


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
            status, detail = outcome(error, task.hidden)
            _end(segment, task.at, ended, status, detail)
        task.state = "ended"
        if PROCESS.idle:
            PROCESS.wake()
    except Exception as failure:  # noqa: BLE001 - as in begin
        trouble.note("an end could not be recorded", failure)


def fail(task: Task, detail: bytes) -> None:
    """Record a failure that was told and not raised: `detail` is JSON as the wire takes it."""
    if task.segment is None or task.state == "ended":
        return
    try:
        _end(task.segment, task.at, _now(), FAILED, detail)
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


def outcome(error: BaseException, hidden: tuple[str, ...] = ()) -> tuple[int, bytes]:
    """What an exception that left a task's body means: (status, detail as JSON). `hidden` as in `describe`."""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return FINISHED, b""
    if isinstance(error, GeneratorExit):
        return DROPPED, b'{"reason":"collected"}'
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and isinstance(error, asyncio.CancelledError):
        if loop_is_ending() or any(isinstance(said, str) and SERVER_ENDS in said for said in error.args):
            return DROPPED, b'{"reason":"loop_shutdown"}'
        return CANCELLED, b'{"reason":"requested"}'
    return FAILED, dumps({"error": describe(error, hidden)}).encode()


def loop_is_ending() -> bool:
    """Whether this cancellation comes from the loop's end: `asyncio.run` and servers cancel what is left from one function."""
    frame = sys._getframe(1)
    for _ in range(200):
        if frame.f_code.co_name in LOOP_ENDS:
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


def describe(error: BaseException, hidden: tuple[str, ...] = ()) -> dict[str, str]:
    """An exception as the wire takes it: type, message, and the end of its traceback without locals or frames of ours.

    Without secrets: those that show themselves, and `hidden`, what was redacted in the task's own arguments.
    """
    try:
        message = _exactly(str(error))
    except Exception as failure:  # noqa: BLE001 - a message that cannot be made is said to be that
        message = f"(its message could not be made: {type(failure).__name__})"
    message = slots.clean(scrub(message[:SCRUBBED_CHARS_MAX], hidden), SCRUBBED_CHARS_MAX)
    return {
        "type": KNOWN.kind_of(type(error)).name,
        "message": message[:TEXT_CHARS_MAX],
        "traceback": _traceback(error, message, hidden),
    }


def _exactly(text: str) -> str:
    """A text as text alone: what a `__str__` gives may be of a class with methods of its own."""
    return str.__str__(text)


def _traceback(error: BaseException, message: str, hidden: tuple[str, ...]) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    try:
        text = format_error(error, message, trace, TRACEBACK_CHARS_MAX)
        return scrub(text, hidden)[-TRACEBACK_CHARS_MAX:] if hidden else text
    except Exception as failure:  # noqa: BLE001 - a traceback is a help, not a duty
        return f"(no traceback: {type(failure).__name__})"
