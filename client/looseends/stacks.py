"""Where a task is right now: its frame is found from outside, without the loop's help and at no cost to the task.

Rules:

1. Looked at: the frames of every thread, and the coroutine of every asyncio task, followed through what it awaits. A task is
   known by a frame of ours around its body (a wrapper whose local `task` or `hold` is the one sought), or by the frame that
   `begins_here` noted where no wrapper of ours can stand (`with track(...)`, a library's hooks).
2. Lines are outermost first, as in a traceback, and ours are left out: `/srv/shop/mail.py:88 send` is the user's own code,
   `httpx/_client.py:120 read [httpx]` is a library's. No locals, no source text. At most STACK_LINES_MAX lines.
3. Nothing here stops the thread it looks at. What it sees is what stood there at some moment of the look.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from types import CodeType, FrameType
from typing import Any

from .context import Task
from .lifecycle import PROCESS
from .slots import clean
from .wire import STACK_LINES_MAX

Place = tuple[int, int]
"""A record as its Task names it: id of the segment, offset in it."""

FRAMES_MAX = 2_000
TASKS_MAX = 100_000
HOPS_MAX = 20
CALLERS_MAX = 50
LINE_CHARS_MAX = 400
_OURS = os.path.dirname(os.path.abspath(__file__)) + "/"
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + "/"
_INSTALLED = ("/site-packages/", "/dist-packages/")
_FILES_MAX = 5_000
_files: dict[str, tuple[str, str] | None] = {}

Spot = tuple[CodeType, int, FrameType]
"""One frame of a chain: its code, the line it stands at, the frame itself."""


def begins_here(task: Task, depth: int = 1) -> None:
    """Note that what runs in (or is called by) the caller's frame, `depth` frames up, is this task, until `ends_here`.

    For hooks that a library calls before a body that they do not call themselves. Call it beneath a frame that also calls the
    body, in its thread; a coroutine that ends before the body begins gives the `depth` of who awaits it. Costs 0.1 us.
    """
    PROCESS.blocks[task] = sys._getframe(depth)


def ends_here(task: Task) -> None:
    """The block that `begins_here` noted is over. Safe to repeat."""
    PROCESS.blocks.pop(task, None)


class Look:
    """One look at everything that runs in this process now. Short-lived: it holds frames."""

    def __init__(self) -> None:
        mine = threading.get_ident()
        self._threads = {n: _of_thread(frame) for n, frame in sys._current_frames().items() if n != mine}

    def stacks(self, wanted: Collection[Place]) -> dict[Place, tuple[list[str], Any]]:
        """Lines, and the event loop that it waits in (None: it runs in a thread), of those of these tasks that are found."""
        found: dict[Place, tuple[list[str], Any]] = {}
        missing, blocks = set(wanted), _blocks(wanted)
        # What runs in a thread is seen there in full; its coroutine may only wait for that thread.
        for loop, chain in itertools.chain(((None, chain) for chain in self._threads.values()), _suspended()):
            for place, at in _places_in(chain, missing, blocks):
                found[place] = lines_of(chain[at:]), loop
                missing.discard(place)
            if not missing:
                break
        return {place: one for place, one in found.items() if one[0]}

    def holder(self, thread: int) -> str | None:
        """The innermost line of user code that this thread stands at; None: none, or no such thread."""
        lines = lines_of(self._threads.get(thread, ()))
        return next((line for line in reversed(lines) if not is_library(line)), None)


def _suspended() -> Iterator[tuple[Any, list[Spot]]]:
    """(its loop, its frames) of every asyncio task that waits, one at a time: there may be many."""
    for task in asyncio_tasks():
        chain = _of_coroutines(task)
        if chain:
            yield task.get_loop(), chain


# --- chains of frames, outermost first ----------------------------------------------------------------------------


def _of_thread(frame: FrameType | None) -> list[Spot]:
    chain: list[Spot] = []
    while frame is not None and len(chain) < FRAMES_MAX:
        chain.append((frame.f_code, frame.f_lineno or 0, frame))
        frame = frame.f_back
    chain.reverse()
    return chain


def _of_coroutines(task: Any) -> list[Spot]:
    """The frames of a suspended asyncio task, through other asyncio tasks that it waits for."""
    chain: list[Spot] = []
    for _ in range(HOPS_MAX):
        _follow(task.get_coro(), chain)
        task = _awaited(task, chain)
        if task is None:
            break
    return chain


def _follow(body: Any, chain: list[Spot]) -> None:
    """From a coroutine through whatever it awaits. One that runs at this moment stands in its thread's frames already."""
    while body is not None and len(chain) < FRAMES_MAX:
        if getattr(body, "cr_running", False) or getattr(body, "gi_running", False) or getattr(body, "ag_running", False):
            return
        frame = getattr(body, "cr_frame", None) or getattr(body, "gi_frame", None) or getattr(body, "ag_frame", None)
        if isinstance(frame, FrameType):
            chain.append((frame.f_code, frame.f_lineno or 0, frame))
        body = getattr(body, "cr_await", None) or getattr(body, "gi_yieldfrom", None) or getattr(body, "ag_await", None)


def _awaited(task: Any, chain: list[Spot]) -> Any:
    """The asyncio task that this one waits for: directly, in `gather`, or in `wait_for`, which made one before Python 3.12."""
    waiter = getattr(task, "_fut_waiter", None)
    if hasattr(waiter, "get_coro"):
        return waiter
    for child in getattr(waiter, "_children", None) or ():
        if hasattr(child, "get_coro") and not child.done():
            return child
    if chain and chain[-1][0].co_name == "wait_for" and chain[-1][0].co_filename.startswith(_STDLIB):
        inner: Any = chain[-1][2].f_locals.get("fut")
        return inner if hasattr(inner, "get_coro") and not inner.done() else None
    return None


def asyncio_tasks() -> Iterator[Any]:
    """Every asyncio task of every loop of this process that is not done; importing asyncio is left to others."""
    asyncio, tasks = sys.modules.get("asyncio"), sys.modules.get("asyncio.tasks")
    if asyncio is None or tasks is None:
        return
    seen: set[int] = set()
    for held in (*(getattr(tasks, name, None) for name in _HELD_IN), _of_loop(asyncio)):
        for task in _copied(held):
            if id(task) not in seen and len(seen) < TASKS_MAX and not task.done():
                seen.add(id(task))
                yield task


_HELD_IN = ("_all_tasks", "_scheduled_tasks", "_eager_tasks")
"""Where asyncio keeps its tasks for all loops together; Python 3.14 keeps them in C, by loop."""


def _of_loop(asyncio: Any) -> Iterable[Any]:
    hook = sys.modules.get(f"{__package__}.integrations.asyncio") if sys.version_info >= (3, 14) else None
    loops = {PROCESS.loop, *(hook.loops() if hook is not None else ())} - {None}
    return [task for loop in loops if not loop.is_closed() for task in asyncio.all_tasks(loop)]


def _copied(held: Iterable[Any] | None) -> list[Any]:
    """A copy of what other threads change; a few tries, since each may meet a change."""
    for _ in range(50):
        try:
            return list(held or ())
        except RuntimeError:
            continue
    return []


# --- whose frames these are ---------------------------------------------------------------------------------------


def _blocks(wanted: Collection[Place]) -> dict[int, list[tuple[Place, int]]]:
    """Frames noted by `begins_here`, by id: which task, and how far out from the one noted.

    A frame that has returned since (a hook's, or `ExitStack.enter_context`) still knows its caller, which does stand somewhere.
    """
    marks: dict[int, list[tuple[Place, int]]] = {}
    for task, noted in (*_copied(PROCESS.blocks.items()), *_captured()):
        place = (id(task.segment), task.at)
        frame: FrameType | None = noted
        for rank in range(CALLERS_MAX if place in wanted else 0):
            if frame is None:
                break
            marks.setdefault(id(frame), []).append((place, rank))
            frame = frame.f_back
    return marks


def _captured() -> list[tuple[Task, FrameType]]:
    """What the asyncio hook follows: nothing of ours stands around its coroutines."""
    hook = sys.modules.get(f"{__package__}.integrations.asyncio")
    return hook.frames() if hook is not None else []


def _places_in(
    chain: list[Spot], wanted: Collection[Place], blocks: dict[int, list[tuple[Place, int]]]
) -> list[tuple[Place, int]]:
    """Which of these tasks a chain holds, and from which of its frames on it is theirs."""
    found: dict[Place, tuple[int, int]] = {}
    for at, (code, _, frame) in enumerate(chain):
        place = _place_of(code, frame) if code.co_filename.startswith(_OURS) else None
        if place is not None and place in wanted and found.get(place, (1, 0))[0] > 0:
            found[place] = 0, at
        for marked, rank in blocks.get(id(frame), ()):
            if marked in wanted and (marked not in found or rank < found[marked][0]):
                found[marked] = rank, at
    return [(place, at) for place, (_, at) in found.items()]


def _place_of(code: CodeType, frame: FrameType) -> Place | None:
    for name in ("task", "hold"):
        if name in code.co_varnames or name in code.co_freevars:
            held = frame.f_locals.get(name)
            ours = type(held).__module__.startswith(f"{__package__}.")
            task = held if isinstance(held, Task) else getattr(held, "task", None) if ours else None
            if isinstance(task, Task) and task.segment is not None:
                return id(task.segment), task.at
    return None


# --- lines --------------------------------------------------------------------------------------------------------


def lines_of(chain: Iterable[Spot]) -> list[str]:
    """A chain as lines; beyond the limit the innermost ones stay, and the innermost one of user code with them."""
    spots = [(code, number, file_of(code.co_filename)) for code, number, _ in chain]
    shown = [(_line(code, number, file), file) for code, number, file in spots if file is not None]
    lines = _with_own(shown)
    if len(lines) <= STACK_LINES_MAX:
        return lines
    kept = lines[-STACK_LINES_MAX:]
    if all(is_library(line) for line in kept):
        own = next((line for line in reversed(lines) if not is_library(line)), None)
        return kept if own is None else [own, *kept[1:]]
    return kept


def _line(code: CodeType, number: int, file: tuple[str, str]) -> str:
    return clean(f"{file[0]}:{number} {code.co_qualname}", LINE_CHARS_MAX)


def _with_own(shown: list[tuple[str, tuple[str, str]]]) -> list[str]:
    """Lines with the library's name behind those of libraries. A service that is itself installed as a package has no other
    code: then the package of the outermost frame, the task's own, is the user's."""
    own = None
    if all(package for _, (_, package) in shown):
        own = next((package for _, (path, package) in shown if not os.path.exists(_STDLIB + path)), None)
    return [line if not package or package == own else f"{line} [{package}]" for line, (_, package) in shown]


def is_library(line: str) -> bool:
    """Whether a line of `lines_of` is no code of the user's."""
    return line.endswith("]")


def file_of(path: str) -> tuple[str, str] | None:
    """(path as shown, library it belongs to or "") of a source file; None: it is ours."""
    if path in _files:
        return _files[path]
    found = _file_of(path)
    if len(_files) < _FILES_MAX:
        _files[path] = found
    return found


def _file_of(path: str) -> tuple[str, str] | None:
    if path.startswith(_OURS):
        return None
    for folder in _INSTALLED:
        if folder in path:
            rest = path.rpartition(folder)[2]
            return rest, _package(rest)
    if path.startswith(_STDLIB):
        rest = path[len(_STDLIB) :]
        return rest, _package(rest)
    if path.startswith("<frozen "):
        name = path[len("<frozen ") : -1]
        return name, name.partition(".")[0]
    return path, ""


def _package(rest: str) -> str:
    return rest.partition("/")[0].removesuffix(".py")
