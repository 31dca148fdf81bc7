"""What all queue systems share: from a message to its task's id, records and current task; and how a library is patched.

Rules:

1. The producer writes `scheduled` before the broker is asked and marks the record as handed over when it answered. A message
   that the broker refused is `dropped`; one that was never confirmed must begin within a minute.
2. The worker writes `started` before the body runs, in the process and thread that runs it. How an attempt ended is told by
   the library and not by what left the body: an exception may mean "again in a minute". A function that is audited by itself
   runs inside the record of its message and does not end it (`Running`).
3. What only a parent process sees (revoked, killed by a time limit) is a record with an end and no start.
4. The id is the library's where that is a UUID, else made of system, queue, job id and the time it was created.
5. Nothing here raises into a library: every hook goes through `quiet`, which counts and says what went wrong.
"""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import Token
from typing import Any, TypeVar

from looseends import record, trouble
from looseends.capture import Shape
from looseends.context import CURRENT, Task
from looseends.errors import UsageError
from looseends.journal import Journal
from looseends.lifecycle import PROCESS
from looseends.plain import dumps
from looseends.redact import is_secret
from looseends.scrub import scrub
from looseends.slots import CANCELLED, DROPPED, FAILED, FINISHED, HANDED, clean
from looseends.spec import Spec
from looseends.stacks import begins_here, ends_here
from looseends.task import audited
from looseends.wire import NS, canonical_uuid, is_uuid, queue_task_id

F = TypeVar("F", bound=Callable[..., Any])
SPECS_MAX = 5_000
LIMIT_SLACK_S = 5.0
"""What a library's own time limit is given on top before we call the task stuck: the library should have ended it by then."""
ATTEMPTS_MAX = 10_000
REDELIVERS = {"redelivery": "possible"}
"""The tag of messages that their broker keeps until they have ended: it may deliver a lost one again."""
FRAMES_MAX = 20
MARK = "__looseends_patched__"


def quiet(hook: F) -> F:
    """A hook that never raises into the library that calls it: what goes wrong is counted and said; the answer is None."""

    @functools.wraps(hook)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        try:
            return hook(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the one promise to every library
            trouble.note(f"a hook failed: {hook.__module__.rpartition('.')[2]}.{hook.__name__}", error)
            return None

    return hooked  # type: ignore[return-value]


# --- installing ---------------------------------------------------------------------------------------------------


Hook = tuple[Any, str, Callable[[Callable[..., Any]], Callable[..., Any]]]
"""Whose attribute of which name is replaced by `make(original)`."""


def install(system: str, least: tuple[int, ...], below: tuple[int, ...], hooks: Callable[[], list[Hook]]) -> bool:
    """Hook into a library, all of it or nothing, once per process. -> whether that was done now.

    Raises UsageError where it is not installed. A version that is too old or too new, or that lacks what we hook into, is left
    alone and said so in one line: a service must not fail to start since one of its libraries was updated.
    """
    found = _version(system)
    numbers = tuple(int(part) for part in re.findall(r"\d+", found))
    if not least <= numbers[: len(least)] or not numbers[: len(below)] < below:
        known = f"{'.'.join(map(str, least))} or later, below {'.'.join(map(str, below))}"
        trouble.say(f"install({system!r}): {system} {found} is installed, known are {known}; its tasks are not recorded")
        return False
    try:
        owner = __import__(system)
        if getattr(owner, MARK, False):
            trouble.say(f"install({system!r}) was called before in this process; nothing changed")
            return False
        wanted = [(owner_, name, make, getattr(owner_, name)) for owner_, name, make in hooks()]
        setattr(owner, MARK, True)
    except Exception as error:  # noqa: BLE001 - whatever a library's version lacks, its service goes on without us
        trouble.say(f"install({system!r}): {system} {found} has nothing to hook into ({error}); its tasks are not recorded")
        return False
    for owner_, name, make, original in wanted:
        setattr(owner_, name, functools.wraps(original)(make(original)))
    return True


def _version(system: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(system)
    except PackageNotFoundError:
        raise UsageError(f"looseends.install({system!r}): {system} is not installed here; pip install {system}") from None


def patch(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put `make(original)` in the place of a library's function; it keeps name and signature."""
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(make(original)))


# --- what a message is --------------------------------------------------------------------------------------------


class Bound(Shape):
    """The parameters of a function without the first, which the library fills in (`self`, `ctx`)."""

    __slots__ = ()

    def __init__(self, function: Any, redact: tuple[str, ...] = ()) -> None:
        super().__init__(function, redact)
        if self._positional:
            self.params, self._names = self.params[1:], self._names[1:]
            self._positional -= 1
            hidden = [is_secret(name, redact) for name in self.params]
            self._clean = hidden.index(True) if True in hidden else self._positional


class Kind:
    """All messages of one name in one system: their Spec, and the Spec of the function where that is audited by itself."""

    __slots__ = ("inner", "spec")

    def __init__(self, spec: Spec, inner: Spec | None) -> None:
        self.spec, self.inner = spec, inner

    @property
    def has_deadline(self) -> bool:
        """Whether its author wrote a deadline down."""
        return "deadline" in self.spec.fields


_kinds: dict[Any, Kind] = {}


def kind_of(system: str, name: object, function: Any = None, *, own_first: bool = False, redelivers: bool = False) -> Kind:
    """The Kind of a message: its function where this process has it (a producer may know the name alone).

    own_first: the library fills in the first parameter. redelivers: the broker keeps the message until it has ended.
    """
    inner = audited(function)
    known = (system, name, inner if inner is not None else getattr(function, "__code__", None), own_first, redelivers)
    kind = _kinds.get(known)
    if kind is None:
        kind = Kind(_spec(system, str(name), function, inner, own_first, redelivers), inner)
        if len(_kinds) < SPECS_MAX:
            _kinds[known] = kind
    return kind


def _spec(system: str, name: str, function: Any, inner: Spec | None, own_first: bool, redelivers: bool) -> Spec:
    if inner is not None:
        known: Any = inner.fields.get("tags") or {}
        spec = inner.via(system, **({"tags": {**REDELIVERS, **known}} if redelivers else {}))
        if own_first:
            spec.shape = Bound(inner.function, inner.shape._redact)
        return spec
    shown = clean("".join(char for char in name if char.isprintable()).strip()) or "unnamed"
    spec = Spec(shown, function, source=system, tags=REDELIVERS if redelivers else None)
    if own_first:
        spec.shape = Bound(function)
    spec.function = None
    return spec


def raw_id(system: str, queue: str, job: object, created: object = "") -> bytes:
    """A task's id as 16 bytes, the same in producer and worker."""
    text = str(job)
    return bytes.fromhex(id_of(system, queue, text, created).replace("-", ""))


def id_of(system: str, queue: str, job: object, created: object = "") -> str:
    """A task's id as text: the library's own where that is a UUID."""
    text = str(job)
    return canonical_uuid(text) if is_uuid(text) else queue_task_id(system, queue, text, str(created))


def parent_id() -> str | None:
    """The id of the task that runs here, for a message to carry; None outside one."""
    task = CURRENT.get()
    return task.id if task is not None else None


def wall_ns(seconds_from_now: float = 0.0) -> int:
    """A time as events carry it: unix ns."""
    return time.time_ns() + int(seconds_from_now * NS)


def attempt_of(number: object) -> int:
    """A library's count of attempts, from 1, as the wire takes it."""
    return min(max(number, 1), ATTEMPTS_MAX) if isinstance(number, int) else 1


# --- the producer -------------------------------------------------------------------------------------------------


def schedule(
    kind: Kind,
    args: Any,
    kwargs: Any,
    *,
    task: bytes,
    queue: str,
    attempt: int = 1,
    eta: int | None = None,
    parent: str | None = None,
) -> Task:
    """Record a message before its broker is asked. `eta` in unix ns."""
    text, problem = _encode(kind, args, kwargs)
    extra = {"queue": clean(queue) or "default", "eta": eta, "parent": parent}
    running = CURRENT.get()
    again = running is not None and running.raw_id == task  # a retry is sent from inside its task, which is not its parent
    token = CURRENT.set(None) if again else None
    try:
        return record.begin(kind.spec, text, problem, scheduled=True, extra=extra, raw_id=task, attempt=attempt_of(attempt))
    finally:
        if token is not None:
            CURRENT.reset(token)


def handed(task: Task | None) -> None:
    """The broker has it: from now on it waits its turn, wherever that is."""
    if task is not None and task.state == "scheduled":
        _end(task, HANDED, None)


def refused(task: Task | None) -> None:
    """The broker could not be asked, or said no: this message will not run."""
    if task is not None and task.state == "scheduled":
        record.drop(task, "request_failed")


def taken_back(task: Task | None) -> None:
    """The broker has this job already, so this message of it was not sent."""
    if task is not None and task.state == "scheduled":
        _end(task, CANCELLED, {"reason": "requested"})


# --- the worker ---------------------------------------------------------------------------------------------------


class Running(Task):
    """The task of a message while its body runs. Its end is told by the library's hook: whoever else ends it does nothing."""

    __slots__ = ("_closing", "_place", "_word")

    def __init__(self, made: Task, inner: Spec | None) -> None:
        self._closing, self._word = False, "running"
        # Not `token`: an audited function inside gives that one back, and may do so in another thread.
        self._place: Token[Task | None] | None = None
        super().__init__(made.name, made.segment, made.at)
        self.set_id(made.raw_id)
        self.attempt, self.awaits, self.hidden = made.attempt, inner, made.hidden

    @property
    def state(self) -> str:
        """As others see it: already ended, so that an audited function inside leaves the end to us."""
        return self._word if self._closing else "ended"

    @state.setter
    def state(self, word: str) -> None:
        self._word = word


def start(
    kind: Kind,
    args: Any,
    kwargs: Any,
    *,
    task: bytes,
    queue: str,
    attempt: int = 1,
    parent: str | None = None,
    limit_s: float | None = None,
) -> Running:
    """Record that the body of a message begins here and now, as the current task. `limit_s`: the library's own time limit."""
    text, problem = _encode(kind, args, kwargs)
    extra: dict[str, Any] = {"queue": clean(queue) or "default", "parent": parent}
    if limit_s is not None and limit_s > 0 and not kind.has_deadline:
        extra["deadline"] = limit_s + LIMIT_SLACK_S
    made = record.begin(kind.spec, text, problem, extra=extra, raw_id=task, attempt=attempt_of(attempt))
    running = Running(made, kind.inner)
    running._place = CURRENT.set(running)
    return running


def stands_in(task: Running, function: str) -> None:
    """Where to look when somebody asks where this task is: the library's function of this name, up from here, calls its body."""
    frame, depth = sys._getframe(1), 1
    while frame.f_code.co_name != function:
        if frame.f_back is None or depth >= FRAMES_MAX:
            return
        frame, depth = frame.f_back, depth + 1
    begins_here(task, depth + 1)


def finish(task: Running | None) -> None:
    """The attempt ended well."""
    _close(task, FINISHED, None)


def fail(task: Running | None, error: BaseException, *, retry_at: int | None = None, will_retry: bool = False) -> None:
    """The attempt failed, for good or until another try (at `retry_at`, unix ns)."""
    hidden = task.hidden if task is not None else ()
    _close(task, FAILED, failure(error, retry_at=retry_at, will_retry=will_retry, hidden=hidden))


def cancel(task: Running | None, reason: str) -> None:
    """The attempt was ended on purpose: requested, revoked or timeout."""
    _close(task, CANCELLED, {"reason": reason})


def drop(task: Running | None, reason: str) -> None:
    """The attempt will not come to its end, and nobody wanted that."""
    _close(task, DROPPED, {"reason": reason})


def leave_open(task: Running | None) -> None:
    """The body is over, but not the task: another message goes on with it under the same id."""
    if task is not None:
        _end(task, HANDED, None)
        _give_back(task)


def failure(
    error: BaseException | str, *, retry_at: int | None = None, will_retry: bool = False, hidden: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The detail of a failed attempt; a text is an error that only the library's words are known of. `hidden`: what was
    redacted in its arguments."""
    if isinstance(error, BaseException):
        said = record.describe(error, hidden)
    else:
        said = {"type": "Error", "message": clean(scrub(error, hidden), 1_000)}
    return {"error": said, "will_retry": will_retry or None, "retry_at": retry_at if will_retry else None}


def report(kind: Kind, status: int, detail: Mapping[str, Any] | None, *, task: bytes, queue: str, attempt: int = 1) -> None:
    """Record an end that this process knows of a message which it does not run, or which nobody ran."""
    made = record.begin(
        kind.spec, "", None, scheduled=True, extra={"queue": clean(queue) or "default"}, raw_id=task, attempt=attempt_of(attempt)
    )
    _end(made, status, detail)


def _encode(kind: Kind, args: Any, kwargs: Any) -> tuple[str, str | None]:
    try:
        return kind.spec.shape.encode(tuple(args or ()), dict(kwargs or {}))
    except Exception as error:  # noqa: BLE001 - the message is to be recorded all the same
        trouble.note("arguments could not be captured", error)
        return "{}", "its arguments could not be captured"


def _close(task: Running | None, status: int, detail: Mapping[str, Any] | None) -> None:
    if task is None:
        return
    task._closing = True
    if task.state != "ended":
        _end(task, status, detail)
    _give_back(task)


def _end(task: Task, status: int, detail: Mapping[str, Any] | None) -> None:
    if isinstance(task, Running):
        task._closing = True
    segment, task.state = task.segment, "ended"
    if segment is None:
        return
    kept = {name: value for name, value in detail.items() if value is not None} if detail else None
    Journal.end(segment, task.at, time.monotonic_ns(), status, dumps(kept).encode() if kept else b"")
    if PROCESS.idle:
        PROCESS.wake()


def _give_back(task: Running) -> None:
    ends_here(task)
    token, task._place = task._place, None
    if token is None:
        return
    try:
        CURRENT.reset(token)
    except ValueError:  # ended from another context than it began in: that one is not ours to change
        trouble.COUNTS["ended elsewhere"] = trouble.COUNTS.get("ended elsewhere", 0) + 1
