"""Events as they travel: names, limits and the checks that both ends share. Pure; no I/O, no clock.

Rules of this file:

1. Inside the project a time is an integer of unix nanoseconds and a duration is a float of seconds.
   RFC 3339 exists only on the wire; `parse_time` and `format_time` (times.py) are the two doors.
2. One bad event never holds up the good ones beside it: `check_batch` sorts them, it does not raise for one of them.
3. Unknown fields of an *event* are ignored and named in `warnings`, so that clients and daemons of different versions
   work together. Unknown *types* are rejected: nobody could fold them.
4. Every bound has a number, and it stands here.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from .times import INT_MAX as INT_MAX
from .times import NS as NS
from .times import days_from_civil as days_from_civil
from .times import format_time as format_time
from .times import parse_time as parse_time

BODY_BYTES_MAX = 1 << 20
EVENTS_MAX = 1_000
NAME_CHARS_MAX = 200
PAYLOAD_BYTES_MAX = 64 << 10
TEXT_CHARS_MAX = 2_000
NOTE_CHARS_MAX = 500
STACK_LINES_MAX = 40
TAGS_MAX = 20
DEPTH_MAX = 32
AGE_S_MAX = 30 * 86_400
AHEAD_S_MAX = 300
DURATION_S_MAX = 366 * 86_400
SPOOL_BYTES_MAX = 256 << 20
SPOOL_AGE_S_MAX = 7 * 86_400

TYPES = ("scheduled", "started", "progress", "finished", "failed", "cancelled", "dropped", "expected")
CANCEL_REASONS = ("requested", "revoked", "timeout", "with_process")
DROP_REASONS = (
    "loop_shutdown",
    "collected",
    "exit",
    "neighbour_raised",
    "request_failed",
    "response_replaced",
    "pool_broken",
)
LATER = "later"
"""Of a failure's `handled`: another process will know, and tell."""
DEFAULT_ENVIRONMENT = "production"
DEFAULT_PORT = 3637
NEVER = -1.0
"""A duration that does not end: `"deadline": "never"` on the wire, -1.0 inside."""


class Problem:
    """One thing that is wrong with one event: where (JSON pointer) and what, with the allowed values. Index -1: the envelope."""

    __slots__ = ("detail", "index", "pointer")

    def __init__(self, index: int, pointer: str, detail: str) -> None:
        self.index, self.pointer, self.detail = index, pointer, detail

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and self.as_json() == other.as_json()

    def __hash__(self) -> int:
        return hash((self.index, self.pointer, self.detail))

    def __repr__(self) -> str:
        return f"Problem({self.index}, {self.pointer!r}, {self.detail!r})"

    def as_json(self) -> dict[str, object]:
        """As it stands in the answer of POST /api/v1/events."""
        return {"index": self.index, "pointer": self.pointer, "detail": self.detail}


class Batch(NamedTuple):
    """A checked POST: the instance as sent (or None), the good events, and what was wrong with the rest.

    Events are plain dicts: `type`, `task` (canonical UUID text), `attempt`, `at` (ns) are always there; optional fields
    only where they were given and not null; durations in seconds (`NEVER` for "never").
    """

    instance: dict[str, Any] | None
    sent_at: int | None
    backlog: int
    events: list[dict[str, Any]]
    rejected: list[Problem]
    warnings: list[Problem]
    indexes: list[int]


class Refused(Exception):
    """The whole body cannot be used: `pointer` says where, the message says what is allowed."""

    def __init__(self, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer


class _Bad(Exception):
    """One field of one event is wrong."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.detail = detail


SMALL_MAX, SMALL_CHARS_MAX = 16, 256
_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")


def canonical(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8 kept. What digests, macs and tie-breaks are made of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def uuid8(data: bytes) -> str:
    """The first 16 bytes of `data` as the text of a UUID of version 8 (RFC 9562)."""
    raw = bytearray(data[:16])
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def external_task_id(environment: str, service: str, text: str) -> str:
    """The task id of a shell user's own text (`backup-7`): UUIDv8 of SHA-256 over environment, service and text."""
    import hashlib  # with OpenSSL behind it, a third of what importing looseends would cost

    return uuid8(hashlib.sha256("\0".join((environment, service, text)).encode()).digest())


def queue_task_id(system: str, queue: str, job: str, created: str = "") -> str:
    """The task id of a queue's job whose own id is no UUID; the same in producer and worker."""
    import hashlib

    return uuid8(hashlib.sha256("\0".join((system, queue, job, created)).encode()).digest())


def is_uuid(text: str) -> bool:
    """Whether this text is a UUID, with or without hyphens."""
    return _UUID.fullmatch(text) is not None


def canonical_uuid(text: str) -> str:
    """A UUID as lower-case text with hyphens."""
    raw = text.replace("-", "").lower()
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


def order_mac(order_key: str, order: dict[str, Any], instance: str) -> str:
    """What proves a daemon to a client: hex HMAC-SHA256 by the order key over the order's canonical JSON, "\\n", instance."""
    message = f"{canonical(order)}\n{instance}".encode()
    import hashlib
    import hmac

    return hmac.new(order_key.encode(), message, hashlib.sha256).hexdigest()


# --- checks of single fields: value, pointer -> value inside, or _Bad ---------------------------------------------


def _text(value: object, pointer: str, chars_max: int = TEXT_CHARS_MAX, empty: bool = False) -> str:
    if not isinstance(value, str) or (not value and not empty):
        raise _Bad(pointer, f"must be text of 1 to {chars_max} characters")
    if len(value) > chars_max:
        raise _Bad(pointer, f"is {len(value)} characters long, at most {chars_max} are taken")
    if "\0" in value or _SURROGATE.search(value):
        raise _Bad(pointer, "holds NUL or half a surrogate pair, which no database keeps")
    return value


def _name(value: object, pointer: str) -> str:
    if type(value) is str and value.isascii() and 0 < len(value) <= NAME_CHARS_MAX and "\0" not in value:
        return value  # as nearly all are: half of what checking an event costs
    return _text(value, pointer, NAME_CHARS_MAX)


def _clipped(value: object, pointer: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    """Prose is mended rather than refused, cut at its end, NUL and half surrogates shown as U+FFFD: an odd message must not
    lose the failure it describes."""
    if not isinstance(value, str):
        raise _Bad(pointer, "must be text")
    return _SURROGATE.sub("\ufffd", value[:chars_max].replace("\0", "\ufffd"))


def _note(value: object, pointer: str) -> str:
    return _clipped(value, pointer, NOTE_CHARS_MAX)


def _when(value: object, pointer: str) -> int:
    try:
        return parse_time(value)
    except ValueError as error:
        raise _Bad(pointer, str(error)) from None


def _seconds(value: object, pointer: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Bad(pointer, "must be a number of seconds")
    if not 0 <= value <= DURATION_S_MAX:  # also false for NaN and infinity, and safe for whole numbers of any length
        raise _Bad(pointer, f"must be between 0 and {DURATION_S_MAX} seconds")
    return float(value)


def _deadline(value: object, pointer: str) -> float:
    return NEVER if value == "never" else _seconds(value, pointer)


def _bool(value: object, pointer: str) -> bool:
    if not isinstance(value, bool):
        raise _Bad(pointer, "must be true or false")
    return value


def _handled(value: object, pointer: str) -> bool | str:
    """`later`: another process holds the exception, and will know whether anybody asked for it."""
    if isinstance(value, bool) or value == LATER:
        return value
    raise _Bad(pointer, f"must be true, false or {LATER!r}")


def _count(value: object, pointer: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INT_MAX:
        raise _Bad(pointer, "must be a whole number from 0")
    return value


def _attempt(value: object, pointer: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10_000:
        raise _Bad(pointer, "must be a whole number from 1 to 10000")
    return value


def _fraction(value: object, pointer: str) -> float:
    number = _seconds(value, pointer)
    if number > 1:
        raise _Bad(pointer, "must be a share of the work between 0 and 1")
    return number


def _depth(value: object, left: int) -> bool:
    if left < 0:
        return False
    if isinstance(value, dict):
        return all(_depth(item, left - 1) for item in value.values())
    if isinstance(value, list):
        return all(_depth(item, left - 1) for item in value)
    return True


def _is_small(value: object) -> bool:
    """Whether this is an object of a few plain values, which is within every bound of a payload whatever they are."""
    if type(value) is not dict or len(value) > SMALL_MAX:
        return False
    for name, one in value.items():
        if not name.isascii() or len(name) > SMALL_CHARS_MAX:
            return False
        kind = type(one)
        if kind is str:
            if not one.isascii() or len(one) > SMALL_CHARS_MAX:
                return False
        elif not (one is None or kind is bool or (kind in (int, float) and -INT_MAX <= one <= INT_MAX)):
            return False
    return True


def _payload(value: object, pointer: str) -> Any:
    if _is_small(value):
        return value  # as most are: its JSON need not be made to be measured
    if not _depth(value, DEPTH_MAX):
        raise _Bad(pointer, f"is nested deeper than {DEPTH_MAX} levels")
    try:
        size = len(canonical(value).encode())
    except (ValueError, UnicodeEncodeError):
        raise _Bad(pointer, "holds what JSON cannot carry: NaN, infinity or half a surrogate pair") from None
    if size > PAYLOAD_BYTES_MAX:
        raise _Bad(pointer, f"is {size} bytes of JSON, at most {PAYLOAD_BYTES_MAX} are taken")
    return value


def _stack(value: object, pointer: str) -> list[str]:
    if not isinstance(value, list) or len(value) > STACK_LINES_MAX:
        raise _Bad(pointer, f"must be a list of at most {STACK_LINES_MAX} lines of text")
    return [_clipped(line, f"{pointer}/{n}") for n, line in enumerate(value)]


def _tags(value: object, pointer: str) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > TAGS_MAX:
        raise _Bad(pointer, f"must be an object of at most {TAGS_MAX} texts")
    return {_name(k, pointer): _name(v, f"{pointer}/{_escaped(k)}") for k, v in value.items()}


def _escaped(key: str) -> str:
    """A key as it stands in a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _error(value: object, pointer: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Bad(pointer, 'must be an object {"type", "message", "traceback"}')
    kept = {"type": _clipped(value.get("type") or "Error", f"{pointer}/type", NAME_CHARS_MAX)}
    kept["message"] = _clipped(value.get("message") or "", f"{pointer}/message")
    trace = value.get("traceback")
    if trace is not None:
        if not isinstance(trace, str):
            raise _Bad(f"{pointer}/traceback", "must be text")
        # The end of a traceback names the error; its beginning is what can be spared.
        kept["traceback"] = _clipped(trace[-PAYLOAD_BYTES_MAX // 4 :], f"{pointer}/traceback", PAYLOAD_BYTES_MAX)
    return kept


def _task_ref(value: object, pointer: str) -> str:
    text = _name(value, pointer)
    return canonical_uuid(text) if is_uuid(text) else text


def _one_of(*words: str) -> Any:
    def check(value: object, pointer: str) -> str:
        if value not in words:
            raise _Bad(pointer, f"must be one of {', '.join(words)}")
        return str(value)

    return check


_COMMON: dict[str, Any] = {"name": _name, "service": _name, "environment": _name, "seq": _count}
_BODY: dict[str, Any] = {
    "eta": _when,
    "start_within": _deadline,
    "queue": _name,
    "deadline": _deadline,
    "progress_within": _deadline,
    "args": _payload,
    "key": _name,
    "parent": _task_ref,
    "declared": _bool,
    "request": _name,
    "source": _name,
    "not_replayable_because": _clipped,
    "replay_of": _task_ref,
    "trace_id": _name,
    "span_id": _name,
    "tags": _tags,
    "code": _name,
}
FIELDS: dict[str, dict[str, Any]] = {
    "scheduled": _BODY,
    "started": _BODY,
    "progress": {"done": _fraction, "note": _note, "stack": _stack},
    "finished": {"duration": _seconds, "result": _payload},
    "failed": {"duration": _seconds, "error": _error, "handled": _handled, "will_retry": _bool, "retry_at": _when},
    "cancelled": {"duration": _seconds, "reason": _one_of(*CANCEL_REASONS)},
    "dropped": {"reason": _one_of(*DROP_REASONS)},
    "expected": {"within": _seconds, "key": _name, "args": _payload, "not_replayable_because": _clipped},
}
"""Optional fields per event type, each with its check. The single source of what the wire knows."""
_CHECKS = {kind: {field: (check, f"/{field}") for field, check in (_COMMON | own).items()} for kind, own in FIELDS.items()}

_INSTANCE: dict[str, Any] = {
    "id": _name,
    "service": _name,
    "environment": _name,
    "release": _name,
    "host": _name,
    "pid": _count,
    "started_at": _when,
    "python": _name,
    "client": _name,
}


def check_instance(value: object, pointer: str = "/instance") -> dict[str, Any]:
    """The `instance` object of a batch, checked. Raises Refused: without it nothing of the batch can be placed."""
    if not isinstance(value, dict):
        raise Refused("must be an object with at least id and service", pointer)
    try:
        kept = {k: check(value[k], f"{pointer}/{k}") for k, check in _INSTANCE.items() if value.get(k) is not None}
    except _Bad as bad:
        raise Refused(bad.detail, bad.pointer) from None
    for needed in ("id", "service"):
        if needed not in kept:
            raise Refused(f"an instance needs {needed}", f"{pointer}/{needed}")
    kept.setdefault("environment", DEFAULT_ENVIRONMENT)
    return kept


def check_batch(document: object, now: int) -> Batch:
    """A decoded body (envelope, bare array or bare event) -> Batch. `now` is the arrival in ns.

    Raises Refused where nothing can be used: not an object or array, a broken envelope, over EVENTS_MAX events.
    """
    envelope: dict[str, Any] = {}
    warnings: list[Problem] = []
    if isinstance(document, list):
        raw = document
    elif isinstance(document, dict) and ("events" in document or "instance" in document):
        envelope, raw = document, document.get("events", [])
        known = {"instance", "sent_at", "backlog", "events"}
        warnings += [Problem(-1, f"/{k}", "unknown member, ignored") for k in document if k not in known]
    elif isinstance(document, dict):
        raw = [document]
    else:
        raise Refused('send {"instance": ..., "events": [...]}, an array of events, or one event')
    if not isinstance(raw, list):
        raise Refused("must be an array of events", "/events")
    if len(raw) > EVENTS_MAX:
        raise Refused(f"{len(raw)} events, at most {EVENTS_MAX} are taken in one batch", "/events")
    instance = check_instance(envelope["instance"]) if envelope.get("instance") is not None else None
    try:
        sent_at = _when(envelope["sent_at"], "/sent_at") if envelope.get("sent_at") is not None else None
        told = envelope.get("backlog")
        backlog = 0 if told is None else _count(told, "/backlog")
    except _Bad as bad:
        raise Refused(bad.detail, bad.pointer) from None
    batch = Batch(instance, sent_at, backlog, [], [], warnings, [])
    skew = skew_of(sent_at, now)
    for index, item in enumerate(raw):
        try:
            batch.events.append(_event(item, index, instance, now, skew, warnings))
            batch.indexes.append(index)
        except _Bad as bad:
            batch.rejected.append(Problem(index, bad.pointer, bad.detail))
    return batch


SKEW_NS_MIN = 2 * NS


def skew_of(sent_at: int | None, now: int) -> int:
    """What has to be added to a sender's times: 0 up to 2 s of difference, which is travel and not a wrong clock."""
    if sent_at is None or abs(now - sent_at) <= SKEW_NS_MIN:
        return 0
    return now - sent_at


def _event(
    item: object, index: int, instance: dict[str, Any] | None, now: int, skew: int, warnings: list[Problem]
) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise _Bad("", "an event is a JSON object")
    kind = item.get("type")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise _Bad("/type", f"must be one of {', '.join(TYPES)}")
    checks = _CHECKS[kind]
    kept: dict[str, Any] = {"type": kind}
    for field, value in item.items():
        check = checks.get(field)
        if check is not None:
            if value is not None:
                kept[field] = check[0](value, check[1])
        elif field not in ("type", "task", "attempt", "at"):
            warnings.append(Problem(index, f"/{field}", "unknown field, ignored"))
    attempt = item.get("attempt")
    kept["attempt"] = 1 if attempt is None else _attempt(attempt, "/attempt")
    kept["at"] = _checked_at(item.get("at"), now, skew)
    _place(kept, item.get("task"), instance)
    return kept


def _checked_at(value: object, now: int, skew: int) -> int:
    """The time as sent; whoever folds it adds the skew of its instance. Its bounds hold for the corrected time."""
    at = now - skew if value is None else _when(value, "/at")
    if at + skew < now - AGE_S_MAX * NS:
        raise _Bad("/at", f"is more than {AGE_S_MAX // 86_400} days old")
    if at + skew > now + AHEAD_S_MAX * NS:
        raise _Bad("/at", f"lies more than {AHEAD_S_MAX // 60} minutes ahead of this daemon's clock")
    return at


def _place(kept: dict[str, Any], task: object, instance: dict[str, Any] | None) -> None:
    """Fill in service and environment from the instance, and turn the task's own text into its id."""
    text = _name(task, "/task")
    service = kept.get("service") or (instance or {}).get("service")
    kept["environment"] = kept.get("environment") or (instance or {}).get("environment") or DEFAULT_ENVIRONMENT
    if service is not None:
        kept["service"] = service
    if _CANONICAL.fullmatch(text):
        kept["task"] = text
    elif is_uuid(text):
        kept["task"] = canonical_uuid(text)
    elif service is None:
        raise _Bad("/service", "a task with an id of its own needs the service it belongs to")
    else:
        kept["task"] = external_task_id(kept["environment"], service, text)
        kept["external_id"] = text
    if kept["type"] in ("scheduled", "started", "expected"):
        for needed in ("name", "service"):
            if needed not in kept:
                raise _Bad(f"/{needed}", f"{kept['type']} needs a {needed}")
