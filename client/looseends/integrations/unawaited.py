"""Coroutines that were called and never awaited: work that will not run, told where it was let go.

Rules: Python calls `warnings._warn_unawaited_coroutine` with the coroutine each time, before any filter; we look at it there and
then let Python say what it always says. A coroutine whose task we know is that task's to tell, not a second one's.
"""

from __future__ import annotations

import functools
import sys
import warnings
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

from looseends import record, trouble
from looseends.context import Task
from looseends.integrations.coroutines import read
from looseends.integrations.owncode import OWN, place_of, short
from looseends.lifecycle import PROCESS

TAG = "never_awaited"
"""The tag of such a task: the line of the service's own code where its coroutine was let go."""
MINE: dict[int, Task] = {}
"""Coroutines of captured tasks that have not ended, by id."""
_NAME = "_warn_unawaited_coroutine"


def forget(number: int, task: Task) -> None:
    """This task's coroutine is done, or was told of. Its id may be another's by now, which stays."""
    if MINE.get(number) is task:
        MINE.pop(number, None)


def install() -> None:
    """Listen to Python's warning; where this Python has none of that name, say so once."""
    original = getattr(warnings, _NAME, None)
    if original is None:
        trouble.say("this Python does not tell of coroutines that were never awaited")
        return

    say = _two_frames_deeper(original)

    @functools.wraps(original)
    def warn(coroutine: Any) -> Any:
        try:
            _tell(coroutine)
        except Exception as error:  # noqa: BLE001 - a finaliser calls us
            trouble.note("a hook failed: a coroutine that was never awaited", error)
        return say(coroutine)

    setattr(warnings, _NAME, warn)


def _two_frames_deeper(original: Any) -> Any:
    """The same function, made to name the line it would name if we did not stand between it and the service."""
    code, space = getattr(original, "__code__", None), getattr(original, "__globals__", {})
    if not isinstance(code, CodeType) or "warn" not in code.co_names or "warn" not in space:
        return original  # somebody else's, or a Python that words it differently: then the line is ours

    def warn_further_out(message: Any, category: Any = None, stacklevel: int = 1, source: Any = None) -> None:
        warnings.warn(message, category, stacklevel + 2, source)

    further = {**space, "warn": warn_further_out}
    if "_wm" in code.co_names and "_wm" in space:  # Python 3.14 asks the module for it
        further["_wm"] = SimpleNamespace(**{**vars(warnings), "warn": warn_further_out})
    return FunctionType(code, further, original.__name__, original.__defaults__)


def _tell(coroutine: Any) -> None:
    mine = MINE.pop(id(coroutine), None)
    if mine is not None:
        record.drop(mine, "collected")
        return
    if PROCESS.journal is None and sys.is_finalizing():
        return
    place = _place(coroutine)
    call = read(coroutine)
    if call is None or not call.own:
        return
    own = call.spec.fields.get("tags")
    extra = {"tags": {**(own if isinstance(own, dict) else {}), TAG: place}}
    task = record.begin(call.spec, call.text, call.problem, scheduled=True, extra=extra)
    record.drop(task, "collected")


def _place(coroutine: Any) -> str:
    """Where it was made, if Python tracks that; else where the last reference went; else where its function is written."""
    for path, line, _ in reversed(getattr(coroutine, "cr_origin", None) or ()):
        if OWN.has(path):
            return f"{short(path)}:{line}"
    found = place_of(sys._getframe(1))
    code = coroutine.cr_code
    return found or f"{short(code.co_filename)}:{code.co_firstlineno}"
