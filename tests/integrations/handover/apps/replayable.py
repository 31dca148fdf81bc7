"""One function in each system that may be replayed: it hangs at first, and writes a receipt when it runs again.

The receipt is a file of its own: one line per execution, the library's own id first. With TRIES set the first life fails
instead, and so does the first try of the second; what the task then knows of itself stands in the file that TRIES names.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

import looseends

SYSTEM = os.environ["SYSTEM"]
looseends.init()
looseends.install(SYSTEM)


def receipt(n: int) -> None:
    """One line, whole and at once."""
    task = looseends.current()
    fd = os.open(os.environ["RECEIPTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{task.id if task else '-'} {n}\n".encode())
    os.close(fd)


def hangs() -> bool:
    """Whether this is the first life of the work."""
    return not os.path.exists(os.environ["MENDED"])


TRIES = os.environ.get("TRIES", "")
RETRIES = 1 if TRIES else 0


def tried(again: bool = True) -> None:
    """Write down what the task knows of itself, and fail in the first life, and in the first try where there is another."""
    task = looseends.current()
    assert task is not None
    known = {"id": task.id, "try": task.attempt, "replay": task.is_replay, "of": task.replay_of, "key": task.idempotency_key}
    fd = os.open(TRIES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{json.dumps(known)}\n".encode())
    os.close(fd)
    if hangs() or (again and task.attempt == 1):
        raise ValueError("planted")


if SYSTEM == "arq":
    from arq import Retry
    from arq.connections import RedisSettings

    @looseends.task(name="mail.send", replay=True)
    async def send(ctx: object, n: int) -> None:
        if TRIES:
            try:
                tried()
            except ValueError as error:
                raise Retry from error
        if hangs():
            await asyncio.sleep(600)
        receipt(n)

    class WorkerSettings:
        """What arq's command reads."""

        functions = (send,)
        redis_settings = RedisSettings(unix_socket_path=os.environ["REDIS"])
        job_timeout = 600
        max_tries = 1 + RETRIES if TRIES else 5  # as arq has it
        poll_delay = 0.05

else:

    @looseends.task(name="mail.send", replay=True)
    def work(n: int) -> None:
        if TRIES:
            tried(again=SYSTEM != "rq")  # RQ gives a job its retries where it is queued
        if hangs():
            time.sleep(600)
        receipt(n)

    if SYSTEM == "celery":
        from celery import Celery

        app = Celery("replayable", broker="redis+socket://" + os.environ["REDIS"])
        app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
        send = app.task(name="send", autoretry_for=(ValueError,), max_retries=RETRIES, default_retry_delay=0)(work)
    elif SYSTEM == "dramatiq":
        import dramatiq
        from dramatiq.brokers.redis import RedisBroker

        dramatiq.set_broker(RedisBroker(url="unix://" + os.environ["REDIS"]))
        send = dramatiq.actor(work, actor_name="send", max_retries=RETRIES, min_backoff=10, max_backoff=20)
    elif SYSTEM == "huey":
        from huey import RedisHuey

        huey = RedisHuey("replayable", url="unix://" + os.environ["REDIS"])
        send = huey.task(retries=RETRIES)(work)
    elif SYSTEM == "rq":
        from redis import Redis
        from rq import Queue

        work.__module__ = "replayable"
        queue = Queue("default", connection=Redis(unix_socket_path=os.environ["REDIS"]))
        send = work
REDIS_URL = "unix://" + os.environ["REDIS"]
