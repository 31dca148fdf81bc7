"""multiprocessing: every Process that the service's own code starts, by fork, spawn or forkserver, up to its exit code.

Rules:

1. `scheduled` is on disk before the process exists. The child tells its start and its end, as an instance of its own, and lets
   its parent know that it did.
2. The parent watches for the exit of a child that did not: killed by a signal (named), ended by `os._exit`, or never begun.
   `terminate()` and `kill()` by the service itself are a cancellation.
3. The exit is looked at, never taken: `join()` and `exitcode` find what they would find without us.
4. The workers of pools are no work; what they run is told by futures.py.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing.connection
import multiprocessing.process
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from looseends import record
from looseends.integrations import calls, children, exits
from looseends.integrations.calls import Work, quiet
from looseends.integrations.owncode import OWN, caller_package
from looseends.integrations.queues import Hook
from looseends.journal import Journal
from looseends.lifecycle import PROCESS
from looseends.plain import dumps
from looseends.slots import CANCELLED, DROPPED, FAILED, FINISHED

SOURCE = "multiprocessing"
ATTRIBUTE = "_looseends"
CODE_S = 0.5
"""How long the exit code of a child that is gone may take to be seen: its parent may be in the middle of taking it."""
_BASE = multiprocessing.process.BaseProcess
_RUN = _BASE.run


def install() -> None:
    """Patch the base of all Process classes, once. A second time is said and changes nothing."""
    OWN.add(caller_package(2))
    hooks: list[Hook] = [(_BASE, "start", _starting), (_BASE, "terminate", _ending), (_BASE, "kill", _ending)]
    if calls.install(SOURCE, hooks):
        PROCESS.endings.append(exits.look)


class Child:
    """A process that was started: whose task it is, and what is known of its exit. `read`: the end of its pipe to us."""

    def __init__(self, process: Any, work: Work, read: int) -> None:
        self.process, self.work, self.read = process, work, read
        self.popen = process._popen
        self.by_us = False
        self.mute = False  # what runs there knows nothing of us, and its exit code is all there is to hear

    def exited(self) -> None:
        """It is gone. Tell what it did not tell itself. Never raises."""
        try:
            if not self._told():
                self._tell()
        finally:
            vars(self.process).pop(ATTRIBUTE, None)
            os.close(self.read)

    def _told(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return os.read(self.read, 1) == b"."
        return False

    @quiet
    def _tell(self) -> None:
        code = exit_code(self.popen)
        if self.mute and code == 0:
            status, detail = FINISHED, {}
        elif self.by_us and (code is None or code < 0):
            status, detail = CANCELLED, {"reason": "requested"}
        elif code == -signal.SIGTERM and self.process.daemon and _is_exiting():
            status, detail = DROPPED, {"reason": "exit"}
        else:
            error = {"type": "ChildProcessError", "message": f"{self.process.name} (pid {self.popen.pid}) {words_of(code)}"}
            status, detail = FAILED, {"error": error}  # type: ignore[dict-item]
        spec, task = self.work.spec, self.work.task
        again = record.begin(spec, "", None, scheduled=True, raw_id=task.raw_id)
        if again.segment is not None:
            Journal.end(again.segment, again.at, time.monotonic_ns(), status, dumps(detail).encode())
            PROCESS.wake()


def words_of(code: int | None) -> str:
    """How a process ended that told no end of its own."""
    if code is None:
        return "ended before its work did; its exit code is not known"
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with exit code {code} before its work did"


def exit_code(popen: Any) -> int | None:
    """The exit code of a child that is gone, without waiting for it in its parent's place; None: nobody can know."""
    until = time.monotonic() + CODE_S
    while popen.returncode is None:
        if popen.method == "forkserver":
            popen.poll()  # as guarded by _guard
        else:
            with contextlib.suppress(ChildProcessError):  # somebody has waited for it already, and is about to note the code
                found = os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
                if found is not None:
                    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        if time.monotonic() >= until:
            return None
        time.sleep(0.01)
    code: int = popen.returncode
    return code


_reading = threading.Lock()
_guarded: set[type] = set()


def _guard(popen: Any) -> None:
    """A forkserver sends the exit code through a pipe, from which it can be read once, and whoever reads it notes it for all.
    Let one thread at a time do that: then we may, and `join()` finds what we noted."""
    kind = type(popen)
    if popen.method != "forkserver" or kind in _guarded:
        return
    _guarded.add(kind)
    original = kind.poll

    @functools.wraps(original)
    def poll(self: Any, flag: int = os.WNOHANG) -> Any:
        if self.returncode is None and not multiprocessing.connection.wait([self.sentinel], 0 if flag == os.WNOHANG else None):
            return None
        with _reading:
            return original(self, os.WNOHANG)

    kind.poll = poll


def _is_exiting() -> bool:
    return bool(getattr(sys.modules.get("multiprocessing.util"), "_exiting", False))


# --- in the parent ------------------------------------------------------------------------------------------------


def _starting(original: Callable[..., None]) -> Callable[..., None]:
    def start(self: Any) -> None:
        body = _begin(self, sys._getframe(1))
        if body is None:
            original(self)
            return
        try:
            original(self)
        except BaseException as error:
            _refused(self, body, error)
            raise
        _started(self, body)

    return start


@quiet
def _begin(process: Any, frame: FrameType) -> Body | None:
    """The record of a process that is about to be started; None: no work of the service's."""
    if process._popen is not None or "run" in vars(process):
        return None
    own = getattr(process.run, "__func__", None) is not _RUN
    function, args, kwargs = (process.run, (), {}) if own else (process._target, process._args, process._kwargs)
    call = calls.read(SOURCE, function, args, kwargs, frame) if function is not None else None
    if call is None:
        return None
    read, write = os.pipe()  # before the record: without a descriptor left there is none
    work = Work(call)
    os.set_blocking(read, False)
    body = Body(process, children.words(call, work), work, read, write)
    vars(process)["run"] = body
    return body


@quiet
def _refused(process: Any, body: Body, error: BaseException) -> None:
    """The process could not be started, and the caller was told why."""
    vars(process).pop("run", None)
    os.close(body.read)
    os.close(body.write)
    record.end(body.work.task, error)


@quiet
def _started(process: Any, body: Body) -> None:
    vars(process).pop("run", None)
    os.close(body.write)
    children.hand_over(body.work.task)
    child = Child(process, body.work, body.read)
    child.mute = not body.sent and child.popen.method != "fork"
    vars(process)[ATTRIBUTE] = child
    _guard(child.popen)
    exits.watch(process.sentinel, child.exited)


def _ending(original: Callable[..., None]) -> Callable[..., None]:
    def end(self: Any) -> None:
        child = vars(self).get(ATTRIBUTE)
        if isinstance(child, Child):
            child.by_us = True
        original(self)

    return end


# --- in the child -------------------------------------------------------------------------------------------------


class Body:
    """What a child runs in place of its `run`: the same, as a task. In the parent it also holds the work and both ends of the
    pipe; across a pickle go the process, the words and the writing end."""

    def __init__(self, process: Any, said: children.Words, work: Work, read: int, write: int) -> None:
        self.process, self.said, self.work, self.read, self.write = process, said, work, read, write
        self.sent = False

    def __reduce__(self) -> Any:
        from multiprocessing import reduction

        self.sent = True
        return _arrived, (self.process, self.said, reduction.DupFd(self.write))

    def __call__(self) -> None:
        """Run it there."""
        process, run = self.process, type(self.process).run
        vars(process).pop("run", None)
        function = process._target if run is _RUN else run
        begun = children.begin(self.said, function)
        if begun is None:
            run(process)
            return
        task = begun.task  # by this name stacks.py finds where it hangs
        try:
            run(process)
        except BaseException as error:
            children.close(begun, self._end, begun.failed, error)
            raise
        children.close(begun, self._end, begun.finished)
        del task

    def _end(self, told: Callable[..., None], *args: Any) -> None:
        told(*args)
        os.write(self.write, b".")


def _arrived(process: Any, said: children.Words, write: Any) -> Body:
    """The same, in a child that was spawned."""
    body = Body.__new__(Body)
    body.process, body.said, body.write = process, said, write.detach()
    return body
