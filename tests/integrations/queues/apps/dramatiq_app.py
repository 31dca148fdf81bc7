"""The contract's tasks on Dramatiq, on Redis or on the stub broker."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
import redis
import work
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage, SkipMessage

import looseends

looseends.install("dramatiq", *os.environ.get("ALSO", "").split())
work.plant_faults()

# With its default a killed worker's messages come back within hours: upkeep is done by a random share of the commands.
broker = RedisBroker(
    client=redis.Redis(unix_socket_path=os.environ["REDIS"]), maintenance_chance=1_000_000, heartbeat_timeout=2_000
)
broker.add_middleware(CurrentMessage())
dramatiq.set_broker(broker)


def _id() -> str:
    message = CurrentMessage.get_current_message()
    assert message is not None
    return str(message.message_id)


@dramatiq.actor
def ok(n: int, password: str = "") -> None:
    work.receipt(_id(), "ended")


@dramatiq.actor(max_retries=0)
def bad(n: int) -> None:
    raise ValueError(f"planted {n}")


@dramatiq.actor(max_retries=2, min_backoff=50)
def flaky(n: int) -> None:
    if work.is_first(_id()):
        raise KeyError(n)


@dramatiq.actor(max_retries=1, min_backoff=50)
def always(n: int) -> None:
    raise KeyError(n)


@dramatiq.actor
def outer(n: int) -> None:
    ok.send(n)


@dramatiq.actor
@looseends.task(name="both", key="n")
def both(n: int) -> None:
    task = looseends.current()
    assert task is not None
    task.progress(0.5, "half")


@dramatiq.actor
def slow(n: int) -> None:
    work.slowly(_id())


@dramatiq.actor
def again(n: int) -> None:
    work.slowly(_id())


@dramatiq.actor
def skips(n: int) -> None:
    raise SkipMessage("not today")


@dramatiq.actor
def looks(n: int) -> None:
    work.looked_at(_id())


@dramatiq.actor(max_retries=2, min_backoff=10, max_backoff=20)
def mixed(n: int, kind: str) -> None:
    message = CurrentMessage.get_current_message()
    assert message is not None
    work.mixed(str(message.message_id), message.options.get("retries", 0) + 1, kind)


def send(name: str, args: list[Any], kwargs: dict[str, Any], delay: float | None) -> str:
    wait = None if delay is None else int(delay * 1000)
    return str(broker.get_actor(name).send_with_options(args=tuple(args), kwargs=kwargs, delay=wait).message_id)


def send_own(name: str, job: str) -> str:
    message: Any = dramatiq.Message("default", name, (1,), {}, {}, message_id=job)
    return str(broker.enqueue(message).message_id)


def send_unknown(name: str) -> str:
    message: Any = dramatiq.Message("default", name, (1,), {}, {})
    return str(broker.enqueue(message).message_id)
