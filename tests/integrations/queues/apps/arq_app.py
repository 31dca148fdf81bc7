"""The contract's tasks on arq."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import work
from arq import Retry, create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Job
from arq.worker import func

import looseends

looseends.install("arq", *os.environ.get("ALSO", "").split())
work.plant_faults()

settings = RedisSettings(unix_socket_path=os.environ["REDIS"])


async def ok(ctx: Any, n: int, password: str = "") -> int:
    work.receipt(ctx["job_id"], "ended")
    return n


async def bad(ctx: Any, n: int) -> None:
    raise ValueError(f"planted {n}")


async def flaky(ctx: Any, n: int) -> None:
    if ctx["job_try"] < 2:
        raise Retry(defer=0.1) from KeyError(n)


async def always(ctx: Any, n: int) -> None:
    raise Retry(defer=0.05) from KeyError(n)


async def outer(ctx: Any, n: int) -> None:
    await ctx["redis"].enqueue_job("ok", n)


@looseends.task(name="both", key="n")
async def both(ctx: Any, n: int) -> None:
    task = looseends.current()
    assert task is not None
    task.progress(0.5, "half")


async def slow(ctx: Any, n: int) -> None:
    await _slowly(ctx["job_id"])


async def again(ctx: Any, n: int) -> None:
    await _slowly(ctx["job_id"])


async def _slowly(job: str) -> None:
    first = work.is_first(job)
    work.receipt(job, "began")
    if first:
        await asyncio.sleep(120)
    work.receipt(job, "ended")


async def looks(ctx: Any, n: int) -> None:
    work.receipt(ctx["job_id"], "ended", lines=await asyncio.to_thread(work.lines_at, work.place()))


async def mixed(ctx: Any, n: int, kind: str) -> None:
    try:
        work.mixed(ctx["job_id"], ctx["job_try"], kind)
    except ValueError as error:
        raise Retry from error


class WorkerSettings:
    functions = (ok, bad, flaky, func(always, max_tries=2), outer, both, slow, again, looks, func(mixed, max_tries=3))
    redis_settings = settings
    poll_delay = 0.05
    allow_abort_jobs = True
    job_timeout = float(os.environ.get("ARQ_JOB_TIMEOUT", "300"))


loop = asyncio.new_event_loop()
_pool: ArqRedis | None = None


async def pool() -> ArqRedis:
    global _pool
    if _pool is None:
        _pool = await create_pool(settings)
    return _pool


async def _send(name: str, args: list[Any], kwargs: dict[str, Any], delay: float | None) -> str:
    job = await (await pool()).enqueue_job(name, *args, _defer_by=delay, **kwargs)
    assert job is not None
    return job.job_id


async def _abort(job: str) -> None:
    await Job(job, await pool()).abort(timeout=10)


def send(name: str, args: list[Any], kwargs: dict[str, Any], delay: float | None) -> str:
    return loop.run_until_complete(_send(name, args, kwargs, delay))


async def _send_own(name: str, job: str) -> str:
    made = await (await pool()).enqueue_job(name, 1, _job_id=job)
    return "known already" if made is None else made.job_id


def send_own(name: str, job: str) -> str:
    return loop.run_until_complete(_send_own(name, job))


def send_unknown(name: str) -> str:
    return send(name, [1], {}, None)


def revoke(job: str) -> None:
    loop.run_until_complete(_abort(job))
