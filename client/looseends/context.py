"""The task that is running here, and the object user code sees of it.

Rules: the current task travels by a contextvar, so it follows `await`, `create_task` and `to_thread`. Nothing here
raises into user code: a record that could not be kept leaves a `Task` that does nothing but answer.
"""

from __future__ import annotations

import os
import time
from contextvars import ContextVar, Token
from typing import Any

from . import slots, trouble
from .journal import Segment
from .lifecycle import PROCESS
from .plain import dumps
from .redact import is_secret
from .scrub import MARK, scrub
from .slots import HEADER_BYTES, NO_ID, SIDE_UNIT, SLOT_BYTES
from .wire import NOTE_CHARS_MAX


class Task:
    """One recorded piece of work, as its own code sees it."""

    # What nearly no task has stays on the class until it is set: making a Task is part of what every call costs.
    __slots__ = ("__dict__", "at", "name", "segment", "state", "token")

    attempt: int = 1
    awaits: object = None
    """The spec whose next call is this very task (handed inward by a hook)."""
    replay_of: str | None = None
    idempotency: str | None = None
    hidden: tuple[str, ...] = ()
    """Texts that were redacted in its arguments: its messages and notes are kept free of them."""
    _id: bytes = NO_ID
    _places: list[tuple[int, int]] | None = None
    _turn: int = 0

    def __init__(self, name: str, segment: Segment | None, at: int) -> None:
        """A task whose record lies at `at` in `segment`; without a segment it has none."""
        self.name = name
        self.segment = segment
        self.at = at
        self.state = "running"
        self.token: Token[Task | None] | None = None

    def set_id(self, raw_id: bytes) -> None:
        """Give the task the id that somebody else knows it by (an order's, a queue's)."""
        self._id = raw_id

    @property
    def raw_id(self) -> bytes:
        """The id as 16 bytes, made of segment time, nonce and slot when first asked for."""
        if self._id is NO_ID:
            if self.segment is None:
                raw = bytearray(os.urandom(16))
                raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
                self._id = bytes(raw)
            else:
                self._id = slots.task_id(self.segment.head, (self.at - HEADER_BYTES) // SLOT_BYTES)
        return self._id

    @property
    def id(self) -> str:
        """The task's id, a UUID as text."""
        return slots.id_text(self.raw_id)

    @property
    def is_replay(self) -> bool:
        """Whether an operator asked for this run."""
        return self.replay_of is not None

    @property
    def idempotency_key(self) -> str:
        """What to hand to a system downstream so that it does the work once: the order's key, else this task's id."""
        return self.idempotency or self.id

    def progress(self, done: float | None = None, note: str | None = None) -> None:
        """Say how far this task is: `done` from 0 to 1, `note` up to 500 characters. The latest one counts."""
        try:
            self._progress(done, note)
        except Exception as error:  # noqa: BLE001 - never into a task
            trouble.note("progress could not be recorded", error)

    def _progress(self, done: float | None, note: str | None) -> None:
        if self.segment is None:
            return
        if self._places is None:
            self._places = [(-1, 0), (-1, 0)]
        said: dict[str, Any] = {"at": time.monotonic_ns()}
        if done is not None and done == done:
            said["done"] = min(1.0, max(0.0, float(done)))
        if note is not None:
            said["note"] = slots.clean(scrub(str(note)[: 4 * NOTE_CHARS_MAX], self.hidden), NOTE_CHARS_MAX)
        import json

        data = json.dumps(said, ensure_ascii=False).encode()
        # Two places in turn: the word points at the one while the other is written, so a kill finds one of them whole.
        side, size = self.segment.side, len(data) + slots.SIDE_HEAD.size
        self._turn += 1
        unit, room = self._places[self._turn & 1]
        if room < size:
            unit, room = side.reserve(size), -(-size // SIDE_UNIT) * SIDE_UNIT
            self._places[self._turn & 1] = unit, room
        if unit >= 0 and side.write(unit, data):
            at = self.at + slots.PROGRESS_AT
            self.segment.map[at : at + 8] = slots.WORD.pack(slots.pack_ref(unit, len(data), self._turn))
        if PROCESS.idle:
            PROCESS.wake()


CURRENT: ContextVar[Task | None] = ContextVar("looseends_task", default=None)
REQUEST: ContextVar[Any] = ContextVar("looseends_request", default=None)
"""What work is begun in, where that is a request: an object with its `label` ("POST /register"), or None."""


def current() -> Task | None:
    """The task this code runs in, or None."""
    return CURRENT.get()


def _clean(value: Any) -> Any:
    if type(value) is str:
        return scrub(value)
    if type(value) is dict:
        return {name: MARK if is_secret(str(name)) else _clean(item) for name, item in value.items()}
    return value


def extra_json(fields: dict[str, Any]) -> bytes:
    """What one record says beyond its name's entry, as JSON; empty for nothing. Its texts (a request, a key, tags) go without
    the secrets that show themselves."""
    kept = {name: _clean(value) for name, value in fields.items() if value is not None}
    return dumps(kept).encode() if kept else b""
