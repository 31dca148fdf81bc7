"""RQ: jobs as they are queued, the work horse that runs each, and what only the worker beside it sees.

Rules:

1. `scheduled` is written where RQ puts a job on a queue, a schedule or a waiting list; a retry, a requeue by hand and a
   job that repeats pass there too. Which attempt a job is stands in its `meta`, which RQ keeps with it.
2. A work horse is forked for every job: an instance of its own, which says goodbye before RQ ends it by `os._exit`.
3. The worker tells of a horse that was killed or stopped. RQ calls a stop a failure; it is a cancellation.
4. A job that repeats is a new task each time: RQ gives all of them one id, so ours is made with the count of repeats left.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from looseends.context import Task
from looseends.integrations import handover, orders, queues
from looseends.integrations.queues import Kind, Running, quiet
from looseends.lifecycle import PROCESS
from looseends.slots import CANCELLED, FAILED
from looseends.wire import NS

LEAST, BELOW = (2, 0), (3,)
META = "looseends"
ATTRIBUTE = "_looseends"
COUNTED = "_looseends_counted"
GOODBYE_S = 0.5
"""How long a work horse may stay for its goodbye; what it could not send is in the spool."""
OVER = ("failed", "finished", "stopped", "canceled", "started")
"""States from which a job comes back to its queue as another try."""
WAITING = ("queued", "scheduled", "deferred")

IN_WORKER: ContextVar[bool] = ContextVar("looseends_rq_in_worker", default=False)


def install() -> None:
    """Patch RQ's queue, job and worker classes, once per process. Raises UsageError where RQ is not installed."""
    queues.install("rq", LEAST, BELOW, _hooks)


def _hooks() -> list[queues.Hook]:
    from rq.job import Job
    from rq.queue import Queue
    from rq.worker import BaseWorker

    return [
        (Queue, "enqueue_job", _waiting),
        (Queue, "_enqueue_job", _queueing),
        (Queue, "schedule_job", _scheduling),
        (Job, "retry", _counting),
        (Job, "_handle_retry_result", _counting),
        (Job, "perform", _performing),
        (Job, "_handle_failure", _giving_up),
        (Job, "cancel", _cancelling),
        (Job, "delete", _cancelling),
        (BaseWorker, "register_birth", _beginning),
        (BaseWorker, "perform_job", _working),
        (BaseWorker, "handle_job_success", _succeeding),
        (BaseWorker, "handle_job_failure", _failing),
        (BaseWorker, "handle_job_retry", _asked_again),
    ]


# --- what a job is ------------------------------------------------------------------------------------------------


def _state(job: Any) -> str:
    status = job.get_status(refresh=False)
    return str(getattr(status, "value", status) or "")


def _own(job: Any) -> dict[str, Any]:
    """Our part of a job's meta; another run of a repeating job begins to count anew."""
    found = job.meta.get(META)
    if isinstance(found, dict) and found.get("left") == job.repeats_left:
        return found
    kept = found.get("parent") if isinstance(found, dict) else None
    made: dict[str, Any] = {"n": 1, "left": job.repeats_left, "parent": kept or queues.parent_id()}
    job.meta[META] = made
    return made


def _attempt(job: Any) -> int:
    found = job.meta.get(META)
    return queues.attempt_of(found.get("n")) if isinstance(found, dict) else 1


def _id(job: Any) -> bytes:
    created = job.created_at
    if isinstance(created, datetime.datetime):
        created = created.replace(tzinfo=created.tzinfo or datetime.UTC).astimezone(datetime.UTC).isoformat()
    if job.repeats_left is None:
        return queues.raw_id("rq", job.origin, job.id, created)
    return queues.raw_id("rq", job.origin, f"{job.id} with {job.repeats_left} left", created)


def _kind(job: Any, load: bool = False) -> Kind:
    """The Kind of a job. A producer may name a function that it does not have: nothing is imported there."""
    name, function = str(job.func_name or "unknown"), None
    if load:
        function = quiet(_loaded)(job)
    elif not job.instance:
        module, _, attribute = name.rpartition(".")
        function = getattr(sys.modules.get(module), attribute, None)
    return queues.kind_of("rq", name, function)


def _loaded(job: Any) -> Any:
    return job.func


def _ns(when: Any) -> int | None:
    if not isinstance(when, datetime.datetime):
        return None
    return int(when.timestamp() * NS)  # RQ takes a time without a zone as local, and so does this


# --- the producer -------------------------------------------------------------------------------------------------


@quiet
def _schedule(queue: Any, job: Any, eta: int | None = None) -> Task:
    handover.keep("rq", queue.name, queue)
    again = _state(job) in OVER and not getattr(job, COUNTED, False)
    setattr(job, COUNTED, False)
    job.origin = queue.name
    known, own = job.meta.get(META), _own(job)
    if again and own is known:
        own["n"] += 1
    task = _id(job)
    carried = orders.words(task)
    if carried is not None:
        own["replay"] = carried
    return queues.schedule(
        _kind(job), job.args, job.kwargs, task=task, queue=queue.name, attempt=_attempt(job), eta=eta, parent=own["parent"]
    )


def _told(made: Task | None, call: Callable[[], Any]) -> Any:
    try:
        result = call()
    except BaseException:
        quiet(queues.refused)(made)
        raise
    quiet(queues.handed)(made)
    return result


def _waiting(original: Callable[..., Any]) -> Callable[..., Any]:
    """A job that depends on others is saved and waits for them, past the place where jobs are queued."""

    def enqueue_job(self: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        made = _schedule(self, job) if getattr(job, "_dependency_ids", None) else None
        return _told(made, lambda: original(self, job, *args, **kwargs))

    return enqueue_job


def _queueing(original: Callable[..., Any]) -> Callable[..., Any]:
    def _enqueue_job(self: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._is_async:  # it runs here and now, so it is a start and no schedule
            return original(self, job, *args, **kwargs)
        made = _schedule(self, job)
        return _told(made, lambda: original(self, job, *args, **kwargs))

    return _enqueue_job


def _scheduling(original: Callable[..., Any]) -> Callable[..., Any]:
    def schedule_job(self: Any, job: Any, datetime: Any, *args: Any, **kwargs: Any) -> Any:
        made = _schedule(self, job, _ns(datetime))
        return _told(made, lambda: original(self, job, datetime, *args, **kwargs))

    return schedule_job


def _counting(original: Callable[..., Any]) -> Callable[..., Any]:
    def retry(self: Any, *args: Any, **kwargs: Any) -> Any:
        quiet(_count)(self)
        return original(self, *args, **kwargs)

    return retry


def _count(job: Any) -> None:
    _own(job)["n"] += 1
    setattr(job, COUNTED, True)


def _cancelling(original: Callable[..., Any]) -> Callable[..., Any]:
    def cancel(self: Any, *args: Any, **kwargs: Any) -> Any:
        waits = quiet(_state)(self) in WAITING
        result = original(self, *args, **kwargs)
        if waits:
            quiet(_report)(self, CANCELLED, {"reason": "revoked"})
        return result

    return cancel


def _report(job: Any, status: int, detail: dict[str, Any], attempt: int | None = None) -> None:
    queues.report(_kind(job), status, detail, task=_id(job), queue=job.origin or "", attempt=attempt or _attempt(job))


# --- the worker ---------------------------------------------------------------------------------------------------


def _beginning(original: Callable[..., Any]) -> Callable[..., Any]:
    """Be known to the daemon before there is anything to tell: when a work horse is killed, there is no time for that."""

    def register_birth(self: Any, *args: Any, **kwargs: Any) -> Any:
        quiet(PROCESS.open)()
        for queue in getattr(self, "queues", ()):
            handover.keep("rq", queue.name, queue)
        return original(self, *args, **kwargs)

    return register_birth


def _working(original: Callable[..., Any]) -> Callable[..., Any]:
    def perform_job(self: Any, job: Any, queue: Any) -> Any:
        token = IN_WORKER.set(True)
        try:
            return original(self, job, queue)
        finally:
            IN_WORKER.reset(token)
            quiet(_left)(self, job)

    return perform_job


def _left(worker: Any, job: Any) -> None:
    """The job is over. A start that nobody ended was ended by what RQ could not write down: leave that to the worker."""
    running = _running(job)
    if running is not None:
        queues.leave_open(running)
    if getattr(worker, "_is_horse", False):
        PROCESS.service_ended(GOODBYE_S)


def _running(job: Any) -> Running | None:
    found = getattr(job, ATTRIBUTE, None)
    return found if isinstance(found, Running) and not found._closing else None


@quiet
def _start(job: Any) -> Running:
    found = job.meta.get(META)
    own = found if isinstance(found, dict) else {}
    limit = job.timeout if isinstance(job.timeout, int | float) else None
    running = queues.start(
        _kind(job, load=True),
        job.args,
        job.kwargs,
        task=_id(job),
        queue=job.origin or "",
        attempt=_attempt(job),
        parent=own.get("parent"),
        limit_s=limit,
    )
    orders.tell(running, own.get("replay"))
    setattr(job, ATTRIBUTE, running)
    return running


def _performing(original: Callable[..., Any]) -> Callable[..., Any]:
    def perform(self: Any, *args: Any, **kwargs: Any) -> Any:
        task = _start(self)  # under this name it is found when somebody asks where the task is
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            if not IN_WORKER.get():
                quiet(queues.fail)(task, error)
            raise
        if not IN_WORKER.get():
            quiet(queues.finish)(task)
        return result

    return perform


def _succeeding(original: Callable[..., Any]) -> Callable[..., Any]:
    def handle_job_success(self: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        quiet(queues.finish)(_running(job))
        return original(self, job, *args, **kwargs)

    return handle_job_success


def _failing(original: Callable[..., Any]) -> Callable[..., Any]:
    def handle_job_failure(self: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        _failed(self, job, kwargs.get("exc_string", args[2] if len(args) > 2 else ""))
        return original(self, job, *args, **kwargs)

    return handle_job_failure


@quiet
def _failed(worker: Any, job: Any, text: str) -> None:
    """In the horse, with the exception at hand; or in the worker, about a horse that is gone."""
    running, error = _running(job), sys.exc_info()[1]
    stopped = worker._stopped_job_id == job.id
    will_retry = bool(job.should_retry) and not stopped
    retry_at = queues.wall_ns(job.get_retry_interval() or 0) if will_retry else None
    if running is not None:
        queues.fail(running, error or RuntimeError(text), retry_at=retry_at, will_retry=will_retry)
    elif stopped:
        _report(job, CANCELLED, {"reason": "requested"})
    else:
        _report(job, FAILED, queues.failure(error or text.strip(), retry_at=retry_at, will_retry=will_retry))


def _asked_again(original: Callable[..., Any]) -> Callable[..., Any]:
    def handle_job_retry(self: Any, job: Any, queue: Any, retry: Any, *args: Any, **kwargs: Any) -> Any:
        _returned_retry(job, retry)
        return original(self, job, queue, retry, *args, **kwargs)

    return handle_job_retry


@quiet
def _returned_retry(job: Any, retry: Any) -> None:
    """The function gave back a Retry: RQ runs it again, or gives it up as failed once that was done often enough."""
    tries = job.number_of_retries or 0
    if tries >= retry.max > 0 and tries:
        queues.fail(_running(job), RuntimeError(f"it asked for another try {tries + 1} times; at most {retry.max} are given"))
        return
    wait = type(retry).get_interval(tries, retry.intervals)
    asked = RuntimeError("it returned a Retry: it asked to be run again")
    queues.fail(_running(job), asked, retry_at=queues.wall_ns(wait or 0), will_retry=True)


def _giving_up(original: Callable[..., Any]) -> Callable[..., Any]:
    """An abandoned job is written off by whichever worker cleans up, without any other hook."""

    def _handle_failure(self: Any, exc_string: str, *args: Any, **kwargs: Any) -> Any:
        if "AbandonedJobError" in str(exc_string)[:500]:
            quiet(_report)(self, FAILED, queues.failure(str(exc_string)))
        return original(self, exc_string, *args, **kwargs)

    return _handle_failure
