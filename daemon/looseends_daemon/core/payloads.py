"""Payloads within the bound that the operator set: what is larger is left out, and said so, before anything is folded.

Rules: the same event is always cut the same way, so that order and duplication of events stay without effect. Arguments are kept
whole or not at all: half of them must never be replayed. Of an error its type and the ends of its texts stay.
"""

from __future__ import annotations

from typing import Any

from looseends.wire import PAYLOAD_BYTES_MAX, Batch, Problem, canonical


def within(batch: Batch, bytes_max: int) -> Batch:
    """The batch with every payload over `bytes_max` left out or cut, and a warning for each; at the wire's own bound, itself."""
    if bytes_max >= PAYLOAD_BYTES_MAX:
        return batch
    events, warnings = [], list(batch.warnings)
    for index, event in zip(batch.indexes, batch.events, strict=True):
        cut = dict(event)
        warnings += [Problem(index, f"/{field}", words) for field, words in _cut(cut, bytes_max)]
        events.append(cut)
    return batch._replace(events=events, warnings=warnings)


def _cut(event: dict[str, Any], bytes_max: int) -> list[tuple[str, str]]:
    """Leave out what is too large, in place; (field, what was done) of each."""
    done = []
    for field in ("args", "result", "error", "stack"):
        size = _size(event.get(field))
        if size <= bytes_max:
            continue
        done.append((field, f"is {size} bytes of JSON, over [storage] max_payload = {bytes_max}: it is not kept whole"))
        _leave_out(event, field, size, bytes_max)
    return done


def _size(value: Any) -> int:
    return 0 if value is None else len(canonical(value).encode())


def _leave_out(event: dict[str, Any], field: str, size: int, bytes_max: int) -> None:
    value = event.pop(field)
    if field == "args" and event["type"] in ("scheduled", "started"):
        event["not_replayable_because"] = f"its arguments are {size} bytes, over the {bytes_max} bytes of [storage] max_payload"
    if field == "error":
        event["error"] = {name: text if name == "type" else text[-bytes_max // 6 :] for name, text in value.items() if text}
    if field == "stack":
        event["stack"] = value[-max(1, bytes_max // (size // len(value) + 1)) :]
