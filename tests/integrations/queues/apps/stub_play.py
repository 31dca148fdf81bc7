"""Dramatiq's own stub broker: producer and worker in one process, as a user's tests have them."""

from __future__ import annotations

import dramatiq
import work
from dramatiq.brokers.stub import StubBroker

import looseends

looseends.install("dramatiq")
broker = StubBroker()
dramatiq.set_broker(broker)


@dramatiq.actor
def ok(n: int) -> None:
    work.receipt(str(n), "ended")


@dramatiq.actor(max_retries=0)
def bad(n: int) -> None:
    raise ValueError(f"planted {n}")


worker = dramatiq.Worker(broker, worker_timeout=100)
worker.start()
jobs = [ok.send(1).message_id, bad.send(2).message_id]
broker.join("default", fail_fast=False)
worker.join()
worker.stop()
assert looseends.flush(10) == 0
print("jobs", *jobs, flush=True)
