"""A record as its events: what a slot says, in the words of the wire. Pure; the sender and whoever adopts a journal use it.

Rules: a time that no clock can show, or a detail that cannot be read, is left out or said to be missing; nothing is made up, and
nothing here raises, whatever the record holds.
"""

from __future__ import annotations

import re
from typing import Any

from .slots import (
    EXPECTS,
    HAND_OVER_S,
    HANDED,
    HANDLED,
    HAS_END,
    HAS_PROGRESS,
    HAS_SCHEDULED,
    HAS_STARTED,
    NO_ID,
    STATUS,
    UNSURE,
    ReadSide,
    Record,
    clean,
    id_text,
    loads,
    read_ref,
)
from .wire import CANCEL_REASONS, DROP_REASONS, INT_MAX, NOTE_CHARS_MAX, NS, TEXT_CHARS_MAX

_PLACE = re.compile(r"\{([^{}]*)\}")


def key_of(template: str | None, args: dict[str, Any]) -> str | None:
    """A task's key from its recorded arguments: the value of the parameter named, or a template "order-{order_id}"."""
    if template is None:
        return None
    if "{" not in template:
        return plain(args.get(template))
    shown = {name: plain(args[name]) for name in _PLACE.findall(template[:TEXT_CHARS_MAX]) if name in args}
    if None in shown.values():
        return None
    # in one go: a value that looks like a place itself stays as it is, and cannot swell
    return clean(_PLACE.sub(lambda found: shown.get(found[1]) or found[0], template[:TEXT_CHARS_MAX]))


def plain(value: Any) -> str | None:
    """A recorded argument as key text: numbers, text and ids as they read, None for everything that has no short form."""
    if isinstance(value, dict) and value.get("$t") in ("uuid", "int", "decimal", "date", "datetime", "path"):
        value = value.get("v")
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    return clean(str(value))


def _body(record: Record) -> dict[str, Any]:
    """The fields that `scheduled` and `started` share."""
    fields: dict[str, Any] = dict(record.name.fields)
    args = loads(record.args) if record.args else None
    if isinstance(args, list):
        args = dict(zip(record.name.params, args, strict=False))
    if isinstance(args, dict):
        fields["args"] = args
        fields["key"] = key_of(record.name.key, args)
    extra = loads(record.extra) if record.extra else None
    if isinstance(extra, dict):
        fields.update(extra)
    if record.parent != NO_ID:
        fields["parent"] = id_text(record.parent)
    return {name: value for name, value in fields.items() if value is not None}


def events_of(record: Record, anchor: int, side: ReadSide, want: int = 15) -> list[dict[str, Any]]:
    """The events of a record as they go on the wire, `at` in unix ns by `anchor` (wall minus monotonic).

    `want` is a mask of HAS_*. A time that no clock can show means that this record is not to be believed: nothing.
    """
    times = [t + anchor for t in (record.scheduled, record.started, record.ended) if t]
    if not times or not all(0 < at <= INT_MAX for at in times) or not 1 <= record.attempt <= 10_000:
        return []
    common = {"task": id_text(record.task), "name": record.name.name, "attempt": record.attempt, "seq": record.seq}
    events: list[dict[str, Any]] = []
    if record.name.fields.get("source") == EXPECTS:
        return [_expected(record, common, anchor)] if want & HAS_SCHEDULED else []
    body = _body(record) if want & (HAS_SCHEDULED | HAS_STARTED) else {}
    if record.scheduled and want & HAS_SCHEDULED:
        # Two reports of one time and fact are told apart by their JSON: without `start_within` it is the greater one.
        unsure = {"start_within": HAND_OVER_S} if "queue" in body and not record.started and not record.ended else {}
        events.append({"type": "scheduled", **common, "at": record.scheduled + anchor, **unsure, **body})
    elif record.scheduled and record.status == HANDED and want & HAS_END:
        events.append({"type": "scheduled", **common, "at": record.ended + anchor, **_body(record)})
    if record.started and want & HAS_STARTED:
        events.append({"type": "started", **common, "at": record.started + anchor, **body})
    if record.progress and want & HAS_PROGRESS:
        events += _progress(record, common, anchor, side)
    if record.ended and record.status in STATUS and want & HAS_END:
        events.append(_end(record, common, anchor, side))
    return events


def _expected(record: Record, common: dict[str, Any], anchor: int) -> dict[str, Any]:
    """What must begin; that the record has ended is its own affair."""
    body = _body(record)
    kept: dict[str, Any] = {name: body[name] for name in ("within", "key", "args", "not_replayable_because") if name in body}
    return {"type": "expected", **common, "at": record.scheduled + anchor, **kept}


def _progress(record: Record, common: dict[str, Any], anchor: int, side: ReadSide) -> list[dict[str, Any]]:
    data = loads(read_ref(record.progress, side) or b"")
    if not isinstance(data, dict) or not isinstance(data.get("at"), int) or not 0 < data["at"] + anchor <= INT_MAX:
        return []
    event = {"type": "progress", **common, "at": data["at"] + anchor}
    if isinstance(data.get("done"), int | float):
        event["done"] = data["done"]
    if isinstance(data.get("note"), str):
        event["note"] = data["note"][:NOTE_CHARS_MAX]
    return [event]


def _end(record: Record, common: dict[str, Any], anchor: int, side: ReadSide) -> dict[str, Any]:
    kind = STATUS[record.status]
    event = {"type": kind, **common, "at": record.ended + anchor}
    detail = loads(read_ref(record.detail, side) or b"") if record.detail else None
    detail = detail if isinstance(detail, dict) else {}
    if record.started and kind != "dropped":
        event["duration"] = max(0.0, (record.ended - record.started) / NS)
    if kind == "finished" and "result" in detail:
        event["result"] = detail["result"]
    if kind == "failed":
        error = detail.get("error")
        event["error"] = error if isinstance(error, dict) else {"type": "Error", "message": "its detail could not be kept"}
        event |= {field: detail[field] for field in ("handled", "will_retry", "retry_at") if detail.get(field) is not None}
        event |= {"handled": record.status == HANDLED} if record.status in (UNSURE, HANDLED) else {}
    if kind == "cancelled":
        event["reason"] = detail["reason"] if detail.get("reason") in CANCEL_REASONS else "requested"
    if kind == "dropped":
        event["reason"] = detail["reason"] if detail.get("reason") in DROP_REASONS else "exit"
    return event
