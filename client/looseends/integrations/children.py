"""What crosses into another process with a call: who it is, so that the child tells of it under the id its parent gave it.

Rules:

1. What is sent is plain: the function as the service gave it, and words. The child needs no `install`; unpickling is enough.
2. `started` is written in the child, in a journal of its own, before the body runs: from then on its life is watched there.
3. The child tells how it ended. Whether anybody asked for the exception of a pool's failure, its parent alone will know: until
   then the failure is told as `later`, which calls nobody, and a child that is gone by then has nothing open.
4. A child that cannot record runs its work all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from looseends import record
from looseends.context import CURRENT, Task
from looseends.integrations import calls
from looseends.integrations.calls import quiet
from looseends.journal import Journal
from looseends.lifecycle import PROCESS
from looseends.plain import dumps
from looseends.slots import FAILED, HANDED
from looseends.task import audited
from looseends.wire import LATER

if TYPE_CHECKING:
    from looseends.integrations.calls import Call, Work


class Words(NamedTuple):
    """One task, as its parent process wrote it down. `given`: what the parent told `looseends.init`; `born`: when it started."""

    name: str
    source: str
    fields: dict[str, Any]
    raw_id: bytes
    parent: bytes | None
    text: str
    problem: str | None
    hidden: tuple[str, ...]
    request: str | None
    given: dict[str, str | None]
    born: int


KEPT = ("start_within",)
"""Of a Spec's fields, what the child's own Spec of the same function does not know by itself."""


def words(call: Call, work: Work) -> Words:
    """What to send along with a call that was just recorded as scheduled."""
    spec, parent = call.spec, CURRENT.get()
    return Words(
        name=spec.name,
        source=spec.source,
        fields={name: spec.fields[name] for name in KEPT if name in spec.fields},
        raw_id=work.task.raw_id,
        parent=parent.raw_id if parent is not None else None,
        text=call.text,
        problem=str(call.problem) if call.problem is not None else None,
        hidden=work.task.hidden,
        request=getattr(work.request, "label", None),
        given=dict(PROCESS.given),
        born=PROCESS.born,
    )


class Begun:
    """A task in the process that runs it."""

    def __init__(self, said: Words, function: Any) -> None:
        function = calls.unwrapped(function, (), {})[0]
        inner = audited(function)
        spec = calls.spec_of(said.source, function, inner, None if inner is not None else said.name, **said.fields)
        PROCESS.look_for_fork()
        if PROCESS.journal is None:
            PROCESS.given = PROCESS.given or said.given
            # A child is as old as its service: else all that it does would be begun at a service's start, as loops are.
            PROCESS.born = min(PROCESS.born, said.born)
        above = CURRENT.set(_parent(said))
        try:
            extra = {"request": said.request}
            self.task: Task = record.begin(
                spec, said.text, said.problem, scheduled=inner is not None, extra=extra, raw_id=said.raw_id
            )
        finally:
            CURRENT.reset(above)
        self.task.hidden, self.task.awaits, self.inner = said.hidden, inner, inner
        self._above = CURRENT.set(self.task)

    def finished(self) -> None:
        """The body is over, and raised nothing."""
        if self.task.state == "scheduled":  # an audited `async def` that nobody awaits
            record.drop(self.task, "collected")
        else:
            record.end(self.task, None)

    def failed(self, error: BaseException) -> None:
        """The body raised."""
        record.end(self.task, error)

    def raised(self, error: BaseException) -> None:
        """The body raised in a pool: its parent will know whether anybody asks for the exception."""
        task, self.task.state = self.task, "ended"
        if self.inner is None and task.segment is not None:
            detail = dumps({"error": record.describe(error, task.hidden), "handled": LATER}).encode()
            Journal.end(task.segment, task.at, time.monotonic_ns(), FAILED, detail)
            if PROCESS.idle:
                PROCESS.wake()

    def give_back(self) -> None:
        """The current task of this thread is again what it was."""
        CURRENT.reset(self._above)


def hand_over(task: Task) -> None:
    """Nothing more will be told of this task from here."""
    segment, task.state = task.segment, "ended"
    if segment is not None:
        Journal.end(segment, task.at, time.monotonic_ns(), HANDED)
        if PROCESS.idle:
            PROCESS.wake()


def _parent(said: Words) -> Task | None:
    if said.parent is None:
        return None
    above = Task("parent", None, 0)
    above.set_id(said.parent)
    return above


@quiet
def begin(said: Words, function: Any) -> Begun | None:
    """The task begins here and now. None: it could not be recorded."""
    return Begun(said, function)


@quiet
def close(begun: Begun, told: Callable[..., None], *args: Any) -> None:
    """Tell the end, and give the place of the current task back."""
    try:
        told(*args)
    finally:
        begun.give_back()


class Sent:
    """A function on its way to a process of a pool."""

    def __init__(self, function: Any, said: Words) -> None:
        self.function, self.said = function, said

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it there, as a task."""
        begun = begin(self.said, self.function)
        if begun is None:
            return self.function(*args, **kwargs)
        task = begun.task  # by this name stacks.py finds where it hangs
        try:
            result = self.function(*args, **kwargs)
        except BaseException as error:
            close(begun, begun.raised, error)
            raise
        close(begun, begun.finished)
        del task
        return result
