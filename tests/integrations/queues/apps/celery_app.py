"""The contract's tasks on Celery."""

from __future__ import annotations

import os
from typing import Any

import work
from celery import Celery

import looseends

looseends.install("celery", *os.environ.get("ALSO", "").split())
work.plant_faults()

app = Celery("celery_app", broker=os.environ.get("BROKER") or "redis+socket://" + os.environ["REDIS"])
REDIS_OPTIONS = {"visibility_timeout": 2, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
app.conf.update(
    broker_transport_options={} if os.environ.get("BROKER") else REDIS_OPTIONS,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)


@app.task(bind=True)
def ok(self: Any, n: int, password: str = "") -> int:
    work.receipt(self.request.id, "ended")
    return n


@app.task
def bad(n: int) -> None:
    raise ValueError(f"planted {n}")


@app.task(bind=True, max_retries=2)
def flaky(self: Any, n: int) -> None:
    if self.request.retries < 1:
        raise self.retry(exc=KeyError(n), countdown=0.1)


@app.task(bind=True, max_retries=1)
def always(self: Any, n: int) -> None:
    raise self.retry(exc=KeyError(n), countdown=0.1)


@app.task
def outer(n: int) -> None:
    ok.delay(n)


@app.task
@looseends.task(name="both", key="n")
def both(n: int) -> None:
    task = looseends.current()
    assert task is not None
    task.progress(0.5, "half")


@app.task(bind=True)
def slow(self: Any, n: int) -> None:
    work.slowly(self.request.id)


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def again(self: Any, n: int) -> None:
    work.slowly(self.request.id)


@app.task(bind=True)
def looks(self: Any, n: int) -> None:
    work.looked_at(self.request.id)


@app.task(time_limit=1)
def hard(n: int) -> None:
    work.time.sleep(120)


@app.task(bind=True, autoretry_for=(ValueError,), retry_kwargs={"max_retries": 2, "countdown": 0})
def mixed(self: Any, n: int, kind: str) -> None:
    work.mixed(self.request.id, self.request.retries + 1, kind)


def send(name: str, args: list[Any], kwargs: dict[str, Any], delay: float | None) -> str:
    return str(app.tasks[f"celery_app.{name}"].apply_async(args, kwargs, countdown=delay).id)


def send_own(name: str, job: str) -> str:
    return str(app.tasks[f"celery_app.{name}"].apply_async((1,), task_id=job).id)


def send_unknown(name: str) -> str:
    return str(app.send_task(name, (1,)).id)


def revoke(job: str) -> None:
    app.control.revoke(job, terminate=True)
