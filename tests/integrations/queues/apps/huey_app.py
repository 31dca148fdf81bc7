"""The contract's tasks on Huey, on SQLite or on Redis."""

from __future__ import annotations

import os
from typing import Any

import work
from huey import RedisHuey, SqliteHuey

import looseends

looseends.install("huey", *os.environ.get("ALSO", "").split())
work.plant_faults()

if os.environ.get("HUEY") == "redis":
    huey = RedisHuey(url="unix://" + os.environ["REDIS"])
else:
    huey = SqliteHuey(filename=os.environ["RECEIPTS"] + ".huey")


@huey.task(context=True)
def ok(n: int, password: str = "", task: Any = None) -> int:
    work.receipt(task.id, "ended")
    return n


@huey.task()
def bad(n: int) -> None:
    raise ValueError(f"planted {n}")


@huey.task(retries=2, context=True)
def flaky(n: int, task: Any = None) -> None:
    if work.is_first(task.id):
        raise KeyError(n)


@huey.task(retries=1)
def always(n: int) -> None:
    raise KeyError(n)


@huey.task()
def outer(n: int) -> None:
    ok(n)


@huey.task()
@looseends.task(name="both", key="n")
def both(n: int) -> None:
    task = looseends.current()
    assert task is not None
    task.progress(0.5, "half")


@huey.task(context=True)
def slow(n: int, task: Any = None) -> None:
    work.slowly(task.id)


@huey.task(context=True)
def looks(n: int, task: Any = None) -> None:
    work.looked_at(task.id)


@huey.task(retries=2, context=True)
def mixed(n: int, kind: str, task: Any = None) -> None:
    work.mixed(task.id, 3 - task.retries, kind)


def send(name: str, args: list[Any], kwargs: dict[str, Any], delay: float | None) -> str:
    task = globals()[name]
    result = task(*args, **kwargs) if delay is None else task.schedule(args, kwargs, delay=delay)
    return str(result.id)


def revoke(job: str) -> None:
    huey.revoke_by_id(job)
