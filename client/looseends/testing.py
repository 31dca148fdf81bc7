"""For the tests of a service: was that work begun, did it end, and how? A pytest fixture, and plain functions.

Rules: `pytest_plugins = ["looseends.testing"]` in a conftest makes the fixture `looseends_tasks`; whoever does not ask for it
pays nothing. No daemon, no thread, no network, no spool left behind. A failed assertion lists what was recorded instead.

    def test_registering_sends_a_welcome(looseends_tasks, client):
        client.post("/register", json={"email": "ada@example.com"})
        looseends_tasks.assert_finished("mail.send_welcome", times=1, args={"email": "ada@example.com"})
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .capture import encode_named
from .recording import Recording, Seen, recording

try:
    import pytest
except ImportError:  # another runner: `recorded` is all it takes
    pytest = None  # type: ignore[assignment]

__all__ = [
    "Seen",
    "Tasks",
    "assert_cancelled",
    "assert_dropped",
    "assert_failed",
    "assert_finished",
    "assert_never_started",
    "assert_no_loose_ends",
    "assert_not_begun",
    "looseends_tasks",
    "recorded",
]
SHOWN_MAX = 30
POLL_S = 0.005


class Tasks:
    """The tasks recorded in a test. Every `assert_...` takes a task's name, and

    times: exactly so many of them (left out: one or more); key: with this key; args: with these among their recorded arguments;
    within: seconds to wait until it is so, for work that runs on in a thread or a loop. Raises AssertionError, with a list.
    """

    def __init__(self, found: Recording) -> None:
        self._recording = found

    def all(self, name: str | None = None) -> list[Seen]:
        """Every task recorded so far, of this name or of all, in the order in which they began."""
        return self._recording.tasks(name)

    def assert_finished(self, name: str, **wanted: Any) -> list[Seen]:
        """They ended well. -> those tasks."""
        __tracebackhide__ = True
        return self._assert(name, "finished", lambda seen: seen.state == "succeeded", **wanted)

    def assert_failed(self, name: str, *, error: str | None = None, **wanted: Any) -> list[Seen]:
        """They raised. error: the exception's class name, with or without its module, or words of its message. -> those tasks."""
        __tracebackhide__ = True
        words = "failed" if error is None else f"failed with {error}"
        return self._assert(name, words, lambda seen: seen.state == "failed" and _raised(seen, error), **wanted)

    def assert_cancelled(self, name: str, **wanted: Any) -> list[Seen]:
        """They were cancelled. -> those tasks."""
        __tracebackhide__ = True
        return self._assert(name, "cancelled", lambda seen: seen.state == "cancelled", **wanted)

    def assert_dropped(self, name: str, *, reason: str | None = None, **wanted: Any) -> list[Seen]:
        """They were lost before their end: collected, left at the end of a loop, behind one that raised. -> those tasks."""
        __tracebackhide__ = True
        lost = ("dropped", "never_started")
        words = "dropped" if reason is None else f"dropped because of {reason}"
        return self._assert(name, words, lambda seen: seen.state in lost and reason in (None, seen.reason), **wanted)

    def assert_never_started(self, name: str, **wanted: Any) -> list[Seen]:
        """They were scheduled and never began. -> those tasks."""
        __tracebackhide__ = True
        waiting = ("scheduled", "never_started")
        return self._assert(name, "scheduled and never started", lambda seen: seen.state in waiting, **wanted)

    def assert_not_begun(self, name: str, *, key: object = None, args: Mapping[str, Any] | None = None) -> None:
        """None was scheduled or started, so far."""
        __tracebackhide__ = True
        found = [seen for seen in self.all(name) if seen.state != "expected" and _matches(seen, key, args)]
        if found:
            raise AssertionError(f"{_called(name, key, args)} was not to begin, and did:\n{_listed(found)}")

    def assert_no_loose_ends(self, within: float = 0.0) -> None:
        """Everything that was begun ended well, was cancelled, or failed into somebody's hands; what was expected has begun."""
        __tracebackhide__ = True
        loose = _until(self._loose, lambda found: not found, within)
        if loose:
            raise AssertionError(f"{len(loose)} without a good end:\n{_listed(loose)}")

    def _loose(self) -> list[Seen]:
        tasks = self.all()
        begun = [seen for seen in tasks if seen.state != "expected"]
        unmet = []
        for wish in (seen for seen in tasks if seen.state == "expected"):
            met = next((seen for seen in begun if seen.name == wish.name and wish.key in (None, seen.key)), None)
            if met is None:
                unmet.append(wish)
        return [seen for seen in begun if _is_loose(seen)] + unmet

    def _assert(
        self,
        name: str,
        words: str,
        holds: Callable[[Seen], bool],
        *,
        times: int | None = None,
        key: object = None,
        args: Mapping[str, Any] | None = None,
        within: float = 0.0,
    ) -> list[Seen]:
        __tracebackhide__ = True

        def look() -> list[Seen]:
            return [seen for seen in self.all(name) if seen.state != "expected" and _matches(seen, key, args) and holds(seen)]

        found = _until(look, lambda found: len(found) == times if times is not None else bool(found), within)
        if len(found) == times or (times is None and found):
            return found
        wanted = {None: "at least one", 1: "one"}.get(times, str(times))
        said = f"{_called(name, key, args)}: {wanted} {words} expected, {len(found) or 'none'} {words}"
        seen = self.all(name)
        if seen:
            raise AssertionError(f"{said}. Recorded of this name:\n{_listed(seen)}")
        rest = self.all()
        others = f"Recorded instead:\n{_listed(rest)}" if rest else "No task at all was recorded"
        raise AssertionError(f"{said}. None of this name was recorded. {others}")


def _is_loose(seen: Seen) -> bool:
    """Not for what somebody dealt with (a captured task whose exception was retrieved), nor for what waits in a broker."""
    if seen.state == "failed":
        return seen.handled is not True
    return seen.state not in ("succeeded", "cancelled") and not (seen.state == "scheduled" and seen.queue is not None)


def _until(look: Callable[[], list[Seen]], good: Callable[[list[Seen]], bool], seconds: float) -> list[Seen]:
    until = time.monotonic() + seconds
    while True:
        found = look()
        if good(found) or time.monotonic() >= until:
            return found
        time.sleep(POLL_S)


def _raised(seen: Seen, error: str | None) -> bool:
    kind, message = str(seen.error.get("type", "")), str(seen.error.get("message", ""))
    return error is None or error in (kind, kind.rpartition(".")[2]) or error in message


def _matches(seen: Seen, key: object, args: Mapping[str, Any] | None) -> bool:
    if key is not None and seen.key != str(key):
        return False
    wanted = json.loads(encode_named(args)[0]) if args else {}
    return all(name in seen.args and seen.args[name] == value for name, value in wanted.items())


def _called(name: str, key: object, args: Mapping[str, Any] | None) -> str:
    said = [name, *([f"with key {key!r}"] if key is not None else [])]
    shown = ", ".join(f"{name}={value!r:.100}" for name, value in (args or {}).items())
    return " ".join([*said, f"with {shown}"] if shown else said)


def _listed(tasks: list[Seen]) -> str:
    lines = [f"  {seen!r}" for seen in tasks[:SHOWN_MAX]]
    return "\n".join([*lines, f"  and {len(tasks) - SHOWN_MAX} more"] if len(tasks) > SHOWN_MAX else lines)


_active: list[Tasks] = []


@contextmanager
def recorded() -> Iterator[Tasks]:
    """The fixture as a block, for test runners other than pytest: `with recorded() as tasks: ...`."""
    with recording() as found:
        tasks = Tasks(found)
        _active.append(tasks)
        try:
            yield tasks
        finally:
            _active.remove(tasks)


if pytest is not None:

    @pytest.fixture
    def looseends_tasks() -> Iterator[Tasks]:
        """The tasks that this test records, to be asserted about."""
        with recorded() as tasks:
            yield tasks


def _current() -> Tasks:
    __tracebackhide__ = True
    if not _active:
        raise RuntimeError(
            "nothing is recorded here: ask for the fixture looseends_tasks, or use `with looseends.testing.recorded():`"
        )
    return _active[-1]


def assert_finished(name: str, **wanted: Any) -> list[Seen]:
    """As Tasks.assert_finished, of the recording that runs here."""
    __tracebackhide__ = True
    return _current().assert_finished(name, **wanted)


def assert_failed(name: str, **wanted: Any) -> list[Seen]:
    """As Tasks.assert_failed, of the recording that runs here."""
    __tracebackhide__ = True
    return _current().assert_failed(name, **wanted)


def assert_cancelled(name: str, **wanted: Any) -> list[Seen]:
    """As Tasks.assert_cancelled, of the recording that runs here."""
    __tracebackhide__ = True
    return _current().assert_cancelled(name, **wanted)


def assert_dropped(name: str, **wanted: Any) -> list[Seen]:
    """As Tasks.assert_dropped, of the recording that runs here."""
    __tracebackhide__ = True
    return _current().assert_dropped(name, **wanted)


def assert_never_started(name: str, **wanted: Any) -> list[Seen]:
    """As Tasks.assert_never_started, of the recording that runs here."""
    __tracebackhide__ = True
    return _current().assert_never_started(name, **wanted)


def assert_not_begun(name: str, **wanted: Any) -> None:
    """As Tasks.assert_not_begun, of the recording that runs here."""
    __tracebackhide__ = True
    _current().assert_not_begun(name, **wanted)


def assert_no_loose_ends(within: float = 0.0) -> None:
    """As Tasks.assert_no_loose_ends, of the recording that runs here."""
    __tracebackhide__ = True
    _current().assert_no_loose_ends(within)
