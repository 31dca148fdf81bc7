"""arq: jobs as they are queued, the coroutine that runs each, and the ends for which arq calls no hook.

Rules:

1. `scheduled` is written where arq writes a job down, after it looked whether it knows the job's id already. The parent's id
   rides in the stored job beside arq's own five fields, where a worker without us does not look; so do the words of a replay.
2. Starts and ends are written around the coroutine itself: arq's hooks know neither name nor arguments nor outcome.
3. A try that raised `Retry`, or was cancelled by the worker's shutdown, is followed by another; the last one arq allows is
   a failure for good there and then. What never reaches its coroutine (unknown function, expired, unreadable, aborted, tries
   used up by killed workers) is told where arq writes the failure down.
4. arq delivers the jobs of a killed worker again, after their time limit and ten seconds.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from looseends.context import Task
from looseends.integrations import handover, orders, queues
from looseends.integrations.queues import Kind, quiet
from looseends.slots import CANCELLED, FAILED
from looseends.task import remember_loop
from looseends.wire import NS, is_uuid

LEAST, BELOW = (0, 26), (0, 29)
FIELD = "looseends"
MARK = "__looseends_arq__"
GIVEN_UP_MAX = 10_000
SLACK_S = 0.25
"""arq's clock starts a moment before the coroutine does."""


class Enqueuing:
    """One call of `enqueue_job`: what arq does not hand to the place where the job is written down."""

    __slots__ = ("defer_by", "defer_until", "job", "queue", "task")

    def __init__(self, job: str, queue: str, defer_until: Any, defer_by: Any) -> None:
        self.job, self.queue, self.defer_until, self.defer_by = job, queue, defer_until, defer_by
        self.task: Task | None = None


class Job:
    """One run of a job in a worker: who asks for it, and what was found in the store."""

    __slots__ = ("args", "began", "created", "id", "kind", "kwargs", "outcome", "parent", "replay", "started", "tries", "worker")

    def __init__(self, worker: Any, job: str) -> None:
        self.worker, self.id = worker, job
        self.created = ""
        self.parent: str | None = None
        self.replay: object = None
        self.kind: Kind | None = None
        self.args: Any = ()
        self.kwargs: Any = {}
        self.began, self.started = 0.0, False
        self.tries = 1
        self.outcome: Any = None

    @property
    def task(self) -> bytes:
        """The task's id, as the producer made it."""
        return queues.raw_id("arq", self.worker.queue_name, self.id, self.created)


ENQUEUING: ContextVar[Enqueuing | None] = ContextVar("looseends_arq_enqueuing", default=None)
JOB: ContextVar[Job | None] = ContextVar("looseends_arq_job", default=None)


def install() -> None:
    """Patch arq's pool and worker, once per process. Raises UsageError where arq is not installed."""
    queues.install("arq", LEAST, BELOW, _hooks)


def _hooks() -> list[queues.Hook]:
    from arq import connections, worker

    return [
        (connections.ArqRedis, "enqueue_job", _enqueuing),
        (connections, "serialize_job", _writing),
        (worker.Worker, "main", _beginning),
        (worker.Worker, "run_job", _running),
        (worker, "deserialize_job_raw", _reading),
        (worker, "serialize_result", _telling),
        (worker.Worker, "finish_failed_job", _giving_up),
    ]


# --- the producer -------------------------------------------------------------------------------------------------


def _enqueuing(original: Callable[..., Any]) -> Callable[..., Any]:
    async def enqueue_job(self: Any, function: str, *args: Any, **kwargs: Any) -> Any:
        said = quiet(_asked)(self, kwargs)
        token = ENQUEUING.set(said)
        try:
            job = await original(self, function, *args, **kwargs)
        except BaseException:
            if said is not None:
                quiet(queues.refused)(said.task)
            raise
        finally:
            ENQUEUING.reset(token)
        if said is not None:
            quiet(queues.handed if job is not None else queues.taken_back)(said.task)
        return job

    return enqueue_job


def _asked(pool: Any, kwargs: dict[str, Any]) -> Enqueuing:
    """arq makes the id of a job too late for us, so it is made here, as arq makes it."""
    if not kwargs.get("_job_id"):
        from uuid import uuid4

        kwargs["_job_id"] = uuid4().hex
    queue = str(kwargs.get("_queue_name") or pool.default_queue_name)
    handover.keep("arq", queue, (pool, asyncio.get_running_loop()))
    return Enqueuing(str(kwargs["_job_id"]), queue, kwargs.get("_defer_until"), kwargs.get("_defer_by"))


def _writing(original: Callable[..., Any]) -> Callable[..., Any]:
    """The one place that knows everything about a new job: arq is about to store it."""

    def serialize_job(function: Any, args: Any, kwargs: Any, job_try: Any, created: Any, *, serializer: Any = None) -> Any:
        said = ENQUEUING.get()
        parent = quiet(queues.parent_id)()
        if said is not None:
            said.task = quiet(_schedule)(said, function, args, kwargs, job_try, created, parent)
        carried = {FIELD: parent, orders.FIELD: quiet(_order)(said) if said is not None else None}
        carrying = functools.partial(_carry, serializer, carried) if any(carried.values()) else serializer
        return original(function, args, kwargs, job_try, created, serializer=carrying)

    return serialize_job


def _order(said: Enqueuing) -> str | None:
    return orders.words(said.task.raw_id) if said.task is not None else None


def _carry(serializer: Any, carried: dict[str, str | None], data: dict[str, Any]) -> Any:
    from arq import jobs

    known = {name: value for name, value in carried.items() if value is not None}
    return (serializer or jobs.pickle.dumps)({**data, **known})  # arq's own default


def _schedule(said: Enqueuing, function: str, args: Any, kwargs: Any, job_try: Any, created: Any, parent: str | None) -> Task:
    return queues.schedule(
        _known.get(function) or queues.kind_of("arq", function),
        args,
        kwargs,
        task=queues.raw_id("arq", said.queue, said.job, created),
        queue=said.queue,
        attempt=job_try or 1,
        eta=_eta(said),
        parent=parent,
    )


def _eta(said: Enqueuing) -> int | None:
    if said.defer_until is not None:
        when = said.defer_until
        return int((when if when.tzinfo else when.astimezone()).timestamp() * NS)  # as arq: no zone is local time
    if said.defer_by is None:
        return None
    seconds = said.defer_by.total_seconds() if hasattr(said.defer_by, "total_seconds") else float(said.defer_by)
    return queues.wall_ns(seconds)


# --- the worker ---------------------------------------------------------------------------------------------------

_given_up: set[bytes] = set()
"""Tasks whose last try failed here. arq takes each up once more, to say that its tries are used up."""
_known: dict[str, Kind] = {}
"""Functions that a worker in this process runs: a job queued here is named and shaped as the function is."""


def _running(original: Callable[..., Any]) -> Callable[..., Any]:
    async def run_job(self: Any, job_id: str, score: int) -> Any:
        quiet(_wrap_functions)(self)
        token = JOB.set(Job(self, job_id))
        try:
            return await original(self, job_id, score)
        finally:
            JOB.reset(token)

    return run_job


def _beginning(original: Callable[..., Any]) -> Callable[..., Any]:
    """From its start a worker can put work back into its queue; its functions are known before the first of them runs."""

    async def main(self: Any, *args: Any, **kwargs: Any) -> Any:
        quiet(_wrap_functions)(self)
        handover.keep("arq", self.queue_name, (self, asyncio.get_running_loop()))
        return await original(self, *args, **kwargs)

    return main


def _wrap_functions(worker: Any) -> None:
    if getattr(worker, MARK, False):
        return
    setattr(worker, MARK, True)
    for name, function in worker.functions.items():
        inner = function.coroutine
        kind = queues.kind_of("arq", name, inner, own_first=True, redelivers=True)
        if len(_known) < queues.SPECS_MAX:
            _known[name] = kind
        limit = worker.job_timeout_s if function.timeout_s is None else function.timeout_s
        tries = worker.max_tries if function.max_tries is None else function.max_tries
        if not hasattr(inner, MARK):
            function.coroutine = _recorded(inner, kind, limit, tries, worker.retry_jobs)


def _recorded(coroutine: Any, kind: Kind, limit_s: float, tries_max: int, retries: bool) -> Any:
    @functools.wraps(coroutine)
    async def run(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        task = quiet(_start)(kind, ctx, args, kwargs, limit_s)
        try:
            result = await coroutine(ctx, *args, **kwargs)
        except BaseException as error:
            quiet(_failed)(task, error, retries, tries_max, limit_s)
            raise
        quiet(queues.finish)(task)
        return result

    setattr(run, MARK, True)
    return run


def _start(kind: Kind, ctx: Any, args: Any, kwargs: Any, limit_s: float) -> Any:
    remember_loop()
    job = JOB.get()
    if job is None or job.id != ctx.get("job_id"):
        return None  # called by hand, past the worker
    job.began, job.started = time.monotonic(), True
    job.tries = ctx["job_try"]
    running = queues.start(
        kind, args, kwargs, task=job.task, queue=job.worker.queue_name, attempt=job.tries, parent=job.parent, limit_s=limit_s
    )
    orders.tell(running, job.replay)
    return running


def _failed(task: Any, error: BaseException, retries: bool, tries_max: int, limit_s: float) -> None:
    """What arq will make of it, by arq's own rules: see `run_job`, which decides after us."""
    from arq.worker import Retry, RetryJob

    job = JOB.get()
    if task is None or job is None:
        return
    if retries and isinstance(error, Retry):
        _again(task, error, (error.defer_score or 0) / 1000, tries_max)
    elif isinstance(error, asyncio.CancelledError) and job.id in job.worker.aborting_tasks:
        queues.cancel(task, "requested")
    elif isinstance(error, asyncio.CancelledError) and _is_over(job, limit_s):
        queues.fail(task, TimeoutError(f"it was not done within its time limit of {limit_s:g} s"))
    elif retries and isinstance(error, asyncio.CancelledError | RetryJob):
        _again(task, error, 0.0, tries_max)
    else:
        queues.fail(task, error)


def _again(task: Any, error: BaseException, wait_s: float, tries_max: int) -> None:
    left = task.attempt < tries_max
    if not left and len(_given_up) < GIVEN_UP_MAX:
        _given_up.add(task.raw_id)
    queues.fail(task, error.__cause__ or error, retry_at=queues.wall_ns(wait_s), will_retry=left)


def _is_over(job: Job, limit_s: float) -> bool:
    """arq ends a job that is over its time by a cancellation, as it does at its own shutdown; only the time tells them apart."""
    return time.monotonic() - job.began >= limit_s - min(SLACK_S, limit_s / 10)


def _reading(original: Callable[..., Any]) -> Callable[..., Any]:
    def deserialize_job_raw(data: Any, *, deserializer: Any = None) -> Any:
        job, seen = JOB.get(), []

        def reading(raw: bytes) -> Any:
            from arq import jobs

            seen.append((deserializer or jobs.pickle.loads)(raw))  # what arq was about to do
            return seen[0]

        result = original(data, deserializer=reading)
        if job is not None:
            quiet(_found)(job, result, seen[0] if seen else {})
        return result

    return deserialize_job_raw


def _found(job: Job, result: Any, stored: Any) -> None:
    name, job.args, job.kwargs, _, created = result
    job.created = str(created)
    job.kind = _known.get(name) or queues.kind_of("arq", name)
    parent = stored.get(FIELD) if isinstance(stored, dict) else None
    job.parent = parent if isinstance(parent, str) else None
    job.replay = stored.get(orders.FIELD) if isinstance(stored, dict) else None


def _telling(original: Callable[..., Any]) -> Callable[..., Any]:
    """The result that arq is about to store, kept for `_giving_up`: it is handed on as bytes only."""

    def serialize_result(*args: Any, **kwargs: Any) -> Any:
        job = JOB.get()
        if job is not None:
            quiet(_note)(job, args, kwargs)
        return original(*args, **kwargs)

    return serialize_result


def _note(job: Job, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    job.tries = kwargs["job_try"] if "job_try" in kwargs else args[3]
    job.outcome = kwargs["result"] if "result" in kwargs else args[6]


def _giving_up(original: Callable[..., Any]) -> Callable[..., Any]:
    async def finish_failed_job(self: Any, job_id: str, result: Any) -> Any:
        quiet(_gave_up)(job_id)
        return await original(self, job_id, result)

    return finish_failed_job


def _gave_up(job_id: str) -> None:
    """arq never began this run: say why, on the try that was the last to begin."""
    job = JOB.get()
    if job is None or job.id != job_id or job.started:
        return
    if not job.created and not is_uuid(job_id):
        return  # expired, so when it was queued is gone, and with it its id
    if job.task in _given_up:  # with its own error, which says more than arq does now
        _given_up.discard(job.task)
        return
    kind = job.kind or queues.kind_of("arq", "unknown")
    queue = job.worker.queue_name
    if isinstance(job.outcome, asyncio.CancelledError):
        queues.report(kind, CANCELLED, {"reason": "requested"}, task=job.task, queue=queue, attempt=job.tries)
        return
    detail = queues.failure(job.outcome if isinstance(job.outcome, BaseException) else "arq gave it up without a word")
    used_up = "retries exceeded" in str(job.outcome)
    queues.report(kind, FAILED, detail, task=job.task, queue=queue, attempt=job.tries - used_up)
