"""The events of a record as the JSON texts they are sent as, the short way: for what nearly every record is. Pure.

Rule: whatever this writes reads back as what `telling.events_of` says; a record that is not plain (scheduled, failed, with
progress, a trace, a parent) is left to it. This runs in the sender's thread, which takes the interpreter's lock from the
service's own work while it writes: every microsecond here is one that a request may wait.
"""

from __future__ import annotations

import json
from typing import Any

from .plain import dumps
from .slots import EXPECTS, FINISHED, HAS_END, HAS_STARTED, NO_ID, Name, ReadSide, Record
from .telling import events_of, key_of
from .wire import INT_MAX, NS

TEMPLATES_MAX = 5_000


class Texts:
    """One journal's way to write; remembers what all records of a name share."""

    def __init__(self) -> None:
        self._templates: dict[int, tuple[Name, str, str]] = {}

    def of(self, record: Record, anchor: int, side: ReadSide, want: int) -> list[str]:
        """The texts of `events_of(record, anchor, side, want)`."""
        plain = record.started and not (record.scheduled or record.progress or record.detail or record.extra)
        if plain and record.parent == NO_ID and record.attempt == 1 and record.status == (FINISHED if record.ended else 0):
            found = self._plain(record, anchor, want)
            if found is not None:
                return found
        return [text_of(event) for event in events_of(record, anchor, side, want)]

    def _plain(self, record: Record, anchor: int, want: int) -> list[str] | None:
        name, head, fields = self._template(record.name)
        began, ended = record.started + anchor, record.ended + anchor
        if not head or not 0 < began <= INT_MAX or record.ended and not 0 < ended <= INT_MAX:
            return None
        raw = record.task.hex()
        task = f'{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}",{head},"seq":{record.seq}'
        texts = []
        if want & HAS_STARTED:
            said = self._arguments(name, record.args)
            if said is None:
                return None
            texts.append(f'{{"type":"started","task":"{task},"at":{began}{fields}{said}}}')
        if record.ended and want & HAS_END:
            took = max(0.0, (record.ended - record.started) / NS)
            texts.append(f'{{"type":"finished","task":"{task},"at":{ended},"duration":{took!r}}}')
        return texts

    @staticmethod
    def _arguments(name: Name, data: bytes) -> str | None:
        """Arguments and key, as members of an object; None where they are no JSON of ours."""
        if not data:
            return ""
        try:
            args = json.loads(data)
            if type(args) is list:
                args = dict(zip(name.params, args, strict=False))
            if type(args) is not dict:
                return None
            key = key_of(name.key, args)
            return f',"args":{dumps(args)}' + (f',"key":{dumps(key)}' if key is not None else "")
        except (ValueError, TypeError, RecursionError):
            return None

    def _template(self, name: Name) -> tuple[Name, str, str]:
        found = self._templates.get(id(name))
        if found is None:
            kept: dict[str, Any] = {field: value for field, value in name.fields.items() if value is not None}
            head = f'"name":{text_of(name.name)},"attempt":1' if kept.get("source") != EXPECTS else ""
            found = name, head, "".join(f",{text_of(field)}:{text_of(value)}" for field, value in kept.items())
            if len(self._templates) < TEMPLATES_MAX:
                self._templates[id(name)] = found  # which holds the name, so that its id stays its own
        return found


def text_of(value: Any) -> str:
    """A value as JSON without blanks."""
    try:
        return dumps(value)
    except (ValueError, TypeError):  # a number that is none: what the daemon rejects it may reject by name
        return json.dumps(value, separators=(",", ":"))
