"""A wrapper's code, written for the calls that it gets: what an audited function runs from its second plain call on.

Rules:

1. It does what `record.enter` and `record.leave` do, in one piece: a quarter of what an audited call cost went into our calls of
   each other (`make bench`). Read those two; this is the same for nearly every call: so many plain values by position, outside of
   any task and any trace, into a journal that is open.
2. It decides nothing itself. A call that is not so, and every error of ours, takes the general way with all that it looks at.
3. The function object stays; its `__code__` is exchanged, once. One text serves all functions whose calls look alike. Nothing of
   the user's is in it: numbers of ours, nothing else. It is compiled, never evaluated, and its frames count as ours.
"""

from __future__ import annotations

import functools
import sys
from types import CodeType
from typing import Any

from .plain import INT_MAX, INT_MIN, LETTERED_CHARS, TEXT_CHARS_MAX
from .scrub import SHORT_CHARS
from .slots import ENDED_AT, FINISHED, HEADER_BYTES, SLOT_BYTES
from .spec import Spec

FILE = __file__.rsplit("/", 1)[0] + "/<tailored>"
TEXTS_MAX = 500
"""How many kinds of calls get code of their own; with the rest, the general wrapper does."""

_PLAIN = {
    int: f"type({{0}}) is int and {INT_MIN} <= {{0}} <= {INT_MAX}",
    str: f"type({{0}}) is str and len({{0}}) <= {TEXT_CHARS_MAX}",
    float: "type({0}) is float and {0} - {0} == 0",
    bool: "type({0}) is bool",
    type(None): "{0} is None",
}
"""What makes a value plain, as `plain.checked_scalars` has it."""
_LONG = f" or len({{0}}) > {LETTERED_CHARS} or len({{0}}) > {SHORT_CHARS} and {{0}}[-1] <= '9'"
"""What has a text looked at for secrets, as there."""
_JSON = {int: "{{{0}}}", str: "{{quote({0})}}", float: "{{{0}!r}}", bool: "{{'true' if {0} else 'false'}}", type(None): "null"}

_TEXT = r"""
def made(function, spec):
    {define} looseends_task(*args, **kwargs):
        task = None
        if len(args) == {count} and not kwargs:
            try:
                {unpack}
                journal = PROCESS.journal
                if {plain}:
                    if CODEC.fast:
                        data = CODEC.write(args)
                    else:
                        text = f"[{json}]"
                        data = None if "\\ud" in text else text.encode()
                    if data is not None and (58 in data or 61 in data{long}) and hides(args, data, data.decode()):
                        data = None
                else:
                    data = CODEC.scalars(args)
                if (
                    data is not None
                    and len(data) <= INLINE_BYTES_MAX
                    and spec.journal is journal
                    and journal is not None
                    and journal.alive[0]
                    and current() is None
                    and TRACE not in modules
                    and (segment := journal.current) is not None
                ):
                    index = segment.next()
                    if index >= segment.count:
                        segment, index = journal.place(segment, index) or (None, 0)
                    if segment is not None:
                        size = len(data)
                        stamp = spec.stamp
                        seed = stamp.seeds.get(size) or stamp.seed(size, None)
                        at = {header} + index * {slot}
                        map = segment.map
                        crc = crc32(data, seed ^ segment.seal + index)
                        PACKERS[size](map, at, stamp.head, crc, size, 0, 0, now(), NO_ID, data)
                        map[at] = 1
                        made = new(Task)
                        made.name = spec.name
                        made.segment = segment
                        made.at = at
                        made.state = "running"
                        made.token = None
                        if observers:
                            tell(spec.name)
                        token = make_current(made)
                        task = made
                        if PROCESS.idle:
                            PROCESS.wake()
            except UnicodeEncodeError:
                task = None
            except Exception as error:
                note("a task took the general way", error)
        {loop}
        if task is None:
            task = enter(spec, args, kwargs)
            try:
                result = {await_}function(*args, **kwargs)
            except BaseException as error:
                leave(task, error)
                raise
            leave(task, None)
            return result
        try:
            result = {await_}function({names})
        except BaseException as error:
            task.token = token
            leave(task, error)
            raise
        try:
            if task.state == "running":
                segment.words[at + {ended} >> 3] = now() & ~7 | {finished}
                task.state = "ended"
                if PROCESS.idle:
                    PROCESS.wake()
            else:
                end(task, None)
            reset(token)
        except Exception:
            task.token = token
            leave(task, None)
        return result
    return looseends_task
"""
_REMEMBER = """loop = PROCESS.loop
        if loop is None or loop.is_closed():
            remember_loop()"""


def fit(wrapper: Any, spec: Spec, args: tuple[Any, ...]) -> None:
    """Give a wrapper code for calls like this one, of plain values by position; leave it as it is where it cannot be."""
    kinds = tuple(map(type, args))
    if len(args) <= spec.shape._clean and sys.byteorder == "little" and _PLAIN.keys() >= set(kinds):
        code = code_for(kinds, spec.is_async)
        if code is not None:
            wrapper.__code__ = code


@functools.cache
def _codes() -> dict[tuple[tuple[type, ...], bool], CodeType]:
    return {}


def code_for(kinds: tuple[type, ...], is_async: bool) -> CodeType | None:
    """The code of a wrapper for calls with values of these types; None: there are too many of them already."""
    known = _codes()
    code = known.get((kinds, is_async))
    if code is None and len(known) < TEXTS_MAX:
        code = known[kinds, is_async] = _compiled(text_for(kinds, is_async))
    return code


def text_for(kinds: tuple[type, ...], is_async: bool) -> str:
    """The same as text."""
    names = [f"a{number}" for number in range(len(kinds))]
    each = list(zip(kinds, names, strict=True))
    return _TEXT.format(
        define="async def" if is_async else "def",
        await_="await " if is_async else "",
        loop=_REMEMBER if is_async else "",
        count=len(names),
        unpack=f"{', '.join(names)}, = args" if names else "pass",
        names=", ".join(names),
        plain=" and ".join(_PLAIN[kind].format(name) for kind, name in each) or "True",
        json=",".join(_JSON[kind].format(name) for kind, name in each),
        long="".join(_LONG.format(name) for kind, name in each if kind is str),
        header=HEADER_BYTES,
        slot=SLOT_BYTES,
        ended=ENDED_AT,
        finished=FINISHED,
    )


def _compiled(text: str) -> CodeType:
    """The innermost function's code, without running any of it."""
    code = compile(text, FILE, "exec", dont_inherit=True)
    for _ in range(2):
        code = next(inner for inner in code.co_consts if isinstance(inner, CodeType))
    return code
