"""The contract's tasks on RQ."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import redis
import work
from rq import Queue, Retry, get_current_job
from rq.command import send_stop_job_command
from rq.job import Job

import looseends

looseends.install("rq", *os.environ.get("ALSO", "").split())
work.plant_faults()

connection = redis.Redis(unix_socket_path=os.environ["REDIS"])
queue = Queue(connection=connection)
RETRIES = {"flaky": Retry(max=2), "always": Retry(max=1), "again": Retry(max=1), "mixed": Retry(max=2)}


def _id() -> str:
    job = get_current_job()
    assert job is not None
    return str(job.id)


def ok(n: int, password: str = "") -> int:
    work.receipt(_id(), "ended")
    return n


def bad(n: int) -> None:
    raise ValueError(f"planted {n}")


def flaky(n: int) -> None:
    if work.is_first(_id()):
        raise KeyError(n)


def always(n: int) -> None:
    raise KeyError(n)


def outer(n: int) -> None:
    queue.enqueue(ok, n)


@looseends.task(name="both", key="n")
def both(n: int) -> None:
    task = looseends.current()
    assert task is not None
    task.progress(0.5, "half")


def slow(n: int) -> None:
    work.slowly(_id())


def again(n: int) -> None:
    work.slowly(_id())


def looks(n: int) -> None:
    work.looked_at(_id())


def mixed(n: int, kind: str) -> None:
    job = get_current_job()
    assert job is not None
    work.mixed(str(job.id), 3 - (job.retries_left or 0), kind)


if os.environ.get("HANG_IN_BROKER"):

    def _hang(*args: Any, **kwargs: Any) -> None:
        print("in the broker", flush=True)
        work.time.sleep(120)

    Job.save = _hang


def send(name: str, args: list[Any], kwargs: dict[str, Any], delay: float | None) -> str:
    more: dict[str, Any] = {"args": args, "kwargs": kwargs, "retry": RETRIES.get(name)}
    function = globals()[name]
    job = queue.enqueue(function, **more) if delay is None else queue.enqueue_in(timedelta(seconds=delay), function, **more)
    return str(job.id)


def send_own(name: str, job: str) -> str:
    return str(queue.enqueue(globals()[name], 1, job_id=job).id)


def send_unknown(name: str) -> str:
    return str(queue.enqueue(name, 1).id)


def revoke(job: str) -> None:
    found = Job.fetch(job, connection=connection)
    if found.get_status() == "started":
        send_stop_job_command(connection, job)
    else:
        found.cancel()
