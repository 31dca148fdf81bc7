"""OpenTelemetry: chosen spans of a service that is instrumented already become tasks, so that one that never ends is found.

    from looseends.integrations.opentelemetry import LooseEndsSpanProcessor
    provider.add_span_processor(LooseEndsSpanProcessor(match=["job.*"]))

A tracer exports a span when it ends: work that dies with its process leaves no span at all. Here the start is on disk before the
span's own code goes on, so such work is `lost`.

Rules:

1. Chosen are the spans that begin work on their own: by default those of kind CONSUMER, and others whose tracer or name somebody
   named in `match`. Spans of requests are none: whoever asked notices that no answer comes.
2. The task bears the ids of its span, and the daemon does not export it again (source "opentelemetry"). Its name is the span's.
   Of attributes only those of an exception are read: they may hold anything.
3. Only what the sampler lets through is seen: a tracer does not tell of spans that it drops. Whoever samples 1 in 10 audits
   1 in 10; declare what must never be missed (`looseends.task`).
4. Nothing here raises into the tracer: what goes wrong is counted and said once a minute. Nothing here takes a lock: a process
   may fork while another thread is in here. At most OPEN_MAX spans are open at a time; those beyond it are not recorded.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from typing import Any

from looseends import record, slots, trouble
from looseends.context import CURRENT, Task
from looseends.errors import UsageError
from looseends.plain import dumps
from looseends.scrub import scrub
from looseends.spec import Spec
from looseends.wire import NAME_CHARS_MAX, TEXT_CHARS_MAX

SOURCE = "opentelemetry"
OPEN_MAX = 100_000
SPECS_MAX = 1_000
OTHERS = "(other spans)"
NO_REPLAY = "a span says what was done, not with which arguments"
CONSUMER = "CONSUMER"
ERROR = "ERROR"
TRACEBACK_CHARS_MAX = 16 << 10


class LooseEndsSpanProcessor:
    """A span processor for `TracerProvider.add_span_processor`.

    `match`: patterns on the span's name, `*` for any text; spans that fit one are tasks beside those of kind CONSUMER.
    `choose`: a function that takes the span and says whether it is a task, instead of both. `deadline` as in `looseends.task`;
    without one there is none: an instrumentation does not know how long work may take. Raises UsageError for a wrong option.
    """

    def __init__(
        self, match: Iterable[str] = (), *, choose: Callable[[Any], bool] | None = None, deadline: object = "never"
    ) -> None:
        self._match = (match,) if isinstance(match, str) else tuple(match)
        if not all(isinstance(one, str) and one for one in self._match):
            raise UsageError(f"LooseEndsSpanProcessor: match is a list of patterns such as ['job.*'], not {match!r:.200}")
        if choose is not None and not callable(choose):
            raise UsageError(f"LooseEndsSpanProcessor: choose is a function that takes a span, not {choose!r:.200}")
        self._choose, self._deadline = choose, deadline
        self._make(OTHERS)  # a wrong deadline is said here, not in the middle of a span
        self._specs: dict[str, Spec] = {}
        self._open: dict[tuple[int, int], Task] = {}

    # --- what the tracer calls ---

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """A span began: record it where it is work of its own. Never raises."""
        try:
            if self._is_task(span):
                self._begin(span)
        except Exception as error:  # noqa: BLE001 - the one promise to every caller
            trouble.note("a span could not be recorded", error)

    def on_end(self, span: Any) -> None:
        """A span ended: so did its task. Never raises."""
        try:
            context = span.get_span_context()
            task = self._open.pop((context.trace_id, context.span_id), None)
            if task is not None:
                _end(task, span)
        except Exception as error:  # noqa: BLE001 - as in on_start
            trouble.note("the end of a span could not be recorded", error)

    def _on_ending(self, span: Any) -> None:
        """The SDK calls this before `on_end`; there is nothing to do."""

    def shutdown(self) -> None:
        """The tracer ends. What is open stays so: it is not over because nobody traces it any more."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Whether everything recorded was sent within the time (ms)."""
        try:
            from looseends.task import flush

            return flush(timeout=timeout_millis / 1000) == 0
        except Exception as error:  # noqa: BLE001 - as in on_start
            trouble.note("spans could not be flushed", error)
            return False

    # --- how ---

    def _is_task(self, span: Any) -> bool:
        if self._choose is not None:
            return bool(self._choose(span))
        if getattr(span.kind, "name", "") == CONSUMER:
            return not _inside_ours()
        return any(fnmatch.fnmatchcase(span.name, pattern) for pattern in self._match)

    def _begin(self, span: Any) -> None:
        if len(self._open) >= OPEN_MAX:
            trouble.note("too many spans are open at a time", RuntimeError(f"{OPEN_MAX} are"))
            return
        context = span.get_span_context()
        ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
        # The span is not the current one yet: the ids that `begin` finds are those of the span around it.
        self._open[context.trace_id, context.span_id] = record.begin(self._spec(span.name), "{}", NO_REPLAY, extra=ids)

    def _spec(self, name: str) -> Spec:
        """What all spans of one name share. Names with ids in them must not fill the journal's table of names."""
        name = slots.clean(scrub(name)).strip()[:NAME_CHARS_MAX] or OTHERS
        if name not in self._specs and len(self._specs) >= SPECS_MAX:
            name = OTHERS
        return self._specs.get(name) or self._specs.setdefault(name, self._make(name))

    def _make(self, name: str) -> Spec:
        return Spec(name if name.isprintable() else OTHERS, source=SOURCE, declared=True, deadline=self._deadline)


def _inside_ours() -> bool:
    """Whether a hook of ours records this very work already: a worker's span of a task that is the current one."""
    task = CURRENT.get()
    return task is not None and task.state == "running"


def _end(task: Task, span: Any) -> None:
    """A span that ended with an error is a failure, whatever else it was a finish."""
    status = span.status
    if getattr(status.status_code, "name", "") != ERROR:
        record.end(task, None)
        return
    told = _exception(span)
    message = told.get("exception.message") or status.description or "the span ended with an error"
    error = {
        "type": slots.clean(str(told.get("exception.type") or "SpanError")),
        "message": slots.clean(scrub(str(message)), TEXT_CHARS_MAX),
    }
    trace = told.get("exception.stacktrace")
    if trace:
        error["traceback"] = slots.clean(scrub(str(trace)[-TRACEBACK_CHARS_MAX:]), TRACEBACK_CHARS_MAX)
    record.fail(task, dumps({"error": error}).encode())


def _exception(span: Any) -> dict[str, Any]:
    """The attributes of the exception that the span recorded last."""
    for event in reversed(span.events or ()):
        if event.name == "exception":
            return dict(event.attributes or {})
    return {}
