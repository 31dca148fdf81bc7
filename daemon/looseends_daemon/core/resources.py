"""What the daemon shows: the resources of the HTTP API, and the two ports through which pages and routes reach the store.

Rules: times are unix nanoseconds, durations float seconds, ids text; `encode` is the only door to JSON (RFC 3339 times,
`None` kept as null). Fields may be added, none renamed: other things are built against them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from looseends.wire import format_time

T = TypeVar("T")
STATES = ("scheduled", "running", "retrying", "succeeded", "failed", "cancelled")
VERDICTS = ("missed", "never_started", "stalled", "stuck", "lost")
"""From the least to the worst: a worse verdict replaces a lesser one."""
SETTLEMENTS = ("finished_late", "retried", "replayed", "dismissed")
PROBLEMS = ("failed", *VERDICTS)
RAW = ("args", "result", "tags")
"""What a task was given and gave back is nobody's to rewrite: an integer named `at` in there is no time of ours."""
FLAGS = ("contradiction", "late", "no_start", "redelivered", "ran_twice", "overlap")


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all values in this file: frozen, keyword-only."""


class Progress(Value, frozen=True):
    """The latest progress of a task: `done` 0..1, `note` up to 500 characters, `stack` up to 40 lines."""

    done: float | None = None
    note: str | None = None
    at: int | None = None
    stack: list[str] | None = None


class Error(Value, frozen=True):
    """How a task failed."""

    type: str
    message: str = ""
    traceback: str | None = None


class InstanceRef(Value, frozen=True):
    """The process a task's head execution ran in; `alive` as the daemon knows it now."""

    id: str
    host: str | None = None
    pid: int | None = None
    release: str | None = None
    alive: bool = False


class Children(Value, frozen=True):
    """How many tasks name this one as their parent, and how many of them ended."""

    total: int = 0
    ended: int = 0


class Expected(Value, frozen=True):
    """Of a task that was expected: how late it might begin (s), by which rule, and the task that met it, in time or `late`."""

    within: float
    cron: str | None = None
    after: str | None = None
    met_by: str | None = None
    late: bool = False


class Task(Value, frozen=True):
    """One task as the API, the pages and the command line show it."""

    id: str
    name: str
    service: str
    environment: str
    state: str
    external_id: str | None = None
    verdict: str | None = None
    reason: str | None = None
    loose: bool = False
    settled: str | None = None
    attempt: int = 1
    key: str | None = None
    declared: bool = True
    source: str | None = None
    queue: str | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    scheduled_at: int | None = None
    started_at: int | None = None
    began_at: int | None = None
    ended_at: int | None = None
    due_at: int | None = None
    duration: float | None = None
    progress: Progress | None = None
    args: Any = None
    result: Any = None
    error: Error | None = None
    instance: InstanceRef | None = None
    parent: str | None = None
    children: Children = Children()
    replay_of: str | None = None
    replays: list[str] = msgspec.field(default_factory=list)
    replayable: bool = False
    not_replayable_because: str | None = None
    trace_id: str | None = None
    request: str | None = None
    incident: str | None = None
    flags: list[str] = msgspec.field(default_factory=list)
    expected: Expected | None = None
    url: str | None = None


class HistoryEntry(Value, frozen=True):
    """One line of a task's history: a fact (what a client reported) or a judgement (what the daemon or a person concluded).

    `what` is an event type for facts; for judgements `verdict`, `carried`, `overruled`, `settled`, `loose`, `withdrawn`,
    `dismissed` or `restored`.
    `reason` is in words.
    """

    at: int
    kind: str
    what: str
    attempt: int = 1
    instance: str | None = None
    verdict: str | None = None
    reason: str | None = None
    by: str | None = None


class Bucket(Value, frozen=True):
    """One bar of the ledger: the same terms as the whole, for tasks that began in [at, at + bucket)."""

    at: int
    tasks: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    in_time: int = 0
    gap: int = 0
    settled_failed: int = 0
    settled_gap: int = 0
    loose: int = 0


class Ledger(Value, frozen=True):
    """The equation of a window [from, to): tasks = succeeded + failed + cancelled + in_time + gap, all five counted."""

    from_: int = msgspec.field(name="from")
    to: int
    tasks: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    in_time: int = 0
    gap: int = 0
    settled: dict[str, int] = msgspec.field(default_factory=dict)
    loose: int = 0
    complete: bool = True
    bucket: float | None = None
    buckets: list[Bucket] = msgspec.field(default_factory=list)


class BlindWindow(Value, frozen=True):
    """A time in which something may be missing. `cause`: down, frozen or clock (of the daemon itself), records or dropped (of an
    instance, `missing` of them; records of none: commits of the daemon itself, lost with a damaged log); `reason` says it in
    words.
    """

    cause: str
    from_: int = msgspec.field(name="from")
    to: int
    reason: str
    instance: str | None = None
    service: str | None = None
    environment: str | None = None
    missing: int = 0


class Counts(Value, frozen=True):
    """How an incident stands: loose ends still open, all it ever had, and how the others were settled."""

    open: int = 0
    total: int = 0
    settled: dict[str, int] = msgspec.field(default_factory=dict)


class Incident(Value, frozen=True):
    """The loose ends that share a cause. `why` holds the named reason of every transition, newest last."""

    id: str
    state: str
    problem: str
    environment: str
    service: str
    name: str | None
    instance: str | None
    severity: str
    title: str
    reason: str
    opened_at: int
    acknowledged: dict[str, Any] | None = None
    silenced: dict[str, Any] | None = None
    resolved_at: int | None = None
    resolution: str | None = None
    release: dict[str, Any] | None = None
    counts: Counts = Counts()
    why: list[dict[str, Any]] = msgspec.field(default_factory=list)
    url: str | None = None


class DeliveryAttempt(Value, frozen=True):
    """One try to send a notice: when, the answer's status (None: no answer), how long, and its first bytes or the error."""

    at: int
    status: int | None = None
    duration: float = 0.0
    detail: str = ""


class Notice(Value, frozen=True):
    """One message about one incident to one endpoint, with every delivery attempt."""

    id: str
    incident: str | None
    endpoint: str
    type: str
    reason: str
    state: str
    created_at: int
    delivered_at: int | None = None
    next_attempt_at: int | None = None
    attempts: list[DeliveryAttempt] = msgspec.field(default_factory=list)
    body: str | None = None


class ReplayItem(Value, frozen=True):
    """One order: `id` is the new task's id, `task` the recorded task it runs again."""

    id: str
    task: str
    name: str
    state: str
    detail: str | None = None
    fence: int | None = None
    instance: str | None = None


class Replay(Value, frozen=True):
    """The wish to run recorded tasks again, with its orders counted by state; `run`: how it is paced, if it was planned."""

    id: str
    state: str
    requested_by: str
    requested_at: int
    note: str | None = None
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    items: list[ReplayItem] = msgspec.field(default_factory=list)
    run: Any = None
    url: str | None = None


class Instance(Value, frozen=True):
    """One OS process of a service. `state` is alive, gone or unreachable; `reason` says in words how we know.

    `open`: its tasks that have neither an end nor a verdict. `missing`: records that are known by number and never came;
    `notes`: sentences on what else to know about its records.
    """

    id: str
    service: str
    environment: str
    state: str
    reason: str | None = None
    release: str | None = None
    host: str | None = None
    pid: int | None = None
    python: str | None = None
    client: str | None = None
    started_at: int | None = None
    first_heard_at: int | None = None
    last_heard_at: int | None = None
    backlog: int = 0
    dropped: int = 0
    missing: int = 0
    open: int = 0
    skew: float = 0.0
    notes: list[str] = msgspec.field(default_factory=list)
    functions: list[dict[str, Any]] = msgspec.field(default_factory=list)


class AuditRow(Value, frozen=True):
    """One act of a person: who, when, what, on which thing, with what result."""

    at: int
    actor: str
    act: str
    subject: str
    detail: str = ""


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A list with an opaque cursor; None: this was the last page. `searched` says in words how far a text search got."""

    items: Sequence[T]
    next_cursor: str | None = None
    searched: str | None = None


class Actor(Value, frozen=True):
    """Who acts: `name` goes into the audit log; `role` is ingest, viewer or operator; `channel` is the way they came."""

    name: str
    role: str
    channel: str
    service: str | None = None
    token: str | None = None
    uid: int | None = None


class Reader(Protocol):
    """The read side of the store, as routes and pages see it. Every method is one consistent read."""

    async def tasks(
        self, q: str, *, from_: int | None = None, to: int | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[Task]:
        """Newest begun first. Raises core.query.QueryError with column and allowed words."""
        ...

    async def task(self, task_id: str) -> Task | None: ...
    async def history(self, task_id: str) -> list[HistoryEntry] | None: ...
    async def ledger(self, from_: int, to: int, bucket: float | None = None, service: str | None = None) -> Ledger: ...
    async def incidents(self, state: str | None = None, limit: int = 50, cursor: str | None = None) -> Page[Incident]: ...
    async def incident(self, incident_id: str) -> Incident | None: ...
    async def notices(self, incident: str | None = None, limit: int = 50, cursor: str | None = None) -> Page[Notice]: ...
    async def notice(self, notice_id: str) -> Notice | None: ...
    async def replays(self, limit: int = 50, cursor: str | None = None) -> Page[Replay]: ...
    async def replay(self, replay_id: str) -> Replay | None: ...
    async def instances(self, limit: int = 50, cursor: str | None = None) -> Page[Instance]: ...
    async def instance(self, instance_id: str) -> Instance | None: ...
    async def blind_windows(
        self, from_: int | None = None, to: int | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[BlindWindow]: ...
    async def audit(self, limit: int = 50, cursor: str | None = None) -> Page[AuditRow]: ...
    async def last_event_at(self) -> int | None:
        """Arrival of the newest event ever stored; None: nothing has been seen yet."""
        ...


class CommandRefused(Exception):
    """An act that cannot be done: `status` is the HTTP status, `reasons` one sentence each with the way out."""

    def __init__(self, status: int, title: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.reasons = list(reasons)


class Commands(Protocol):
    """The write side, as routes and pages see it. Every act is audited in the transaction that does it."""

    async def replay_task(
        self, task_id: str, actor: Actor, *, note: str = "", args: Any = None, confirm: Sequence[str] = ()
    ) -> Replay:
        """Make one order for one recorded task. Raises CommandRefused (404, 409 with the reasons)."""
        ...

    async def resolve_order(self, order_id: str, actor: Actor, *, answer: str, note: str) -> Replay:
        """A person decides an `outcome_unknown`: `ran`, `did_not_run` or `run_again`."""
        ...

    async def dismiss_task(self, task_id: str, actor: Actor, *, note: str) -> Task:
        """A person decides that nothing is to be done about an open loose end; `note` 1 to 500 characters says why.

        Raises CommandRefused (404, 409 with the reason, 422).
        """
        ...


def _jsonable(value: Any, key: str) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and (key in ("at", "from", "to") or key.endswith("_at")):
        return format_time(value)
    if isinstance(value, Mapping):
        return {k: v if k in RAW else _jsonable(v, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item, "") for item in value]
    return value


def encode(value: Any) -> Any:
    """A resource (or a Page of them) as plain JSON types: RFC 3339 times, wire names, nulls kept."""
    return _jsonable(msgspec.to_builtins(value), "")
