"""Celery on a real RabbitMQ: `make rabbitmq`. No part of `make test`, since pip has none; the target says so where there is none.

One server and one daemon serve all of it: a RabbitMQ takes many seconds to start.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from lasting import long_lived
from rabbit import RabbitStage, listeners
from stage import Stage, children

from harness import wait_until

LOOPBACK = {"0100007F", "00000000000000000000000001000000"}
"""127.0.0.1, and ::1, which Erlang's port mapper adds to whatever it is told."""


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Stage]:
    """Celery, a RabbitMQ and a worker."""
    yield from long_lived("celery", RabbitStage)


@pytest.fixture
def stage(rabbit: Stage) -> Stage:
    """The same, with a worker that lives: a test before may have killed it."""
    assert rabbit.worker is not None
    if not rabbit.worker.running:
        rabbit.start_worker()
    return rabbit


def test_the_server_is_of_this_test_alone_and_listens_on_loopback_only(stage: Stage) -> None:
    started = [process.pid for process in stage.processes.started[:2]]
    found = list(listeners({*started, *(child for pid in started for child in children(pid))}))
    assert len(found) >= 3, "the mapper, the server, and its way to other servers"
    assert set(found) <= LOOPBACK


def test_success_failure_and_retry_get_their_rows(stage: Stage) -> None:
    well, bad, flaky, always = (stage.send(name, 7) for name in ("ok", "bad", "flaky", "always"))
    row = stage.wait(well, state="succeeded")
    assert (row["source"], row["queue"], row["args"]["n"], row["loose"]) == ("celery", "celery", 7, False)
    row = stage.wait(bad, state="failed", loose=True)
    assert row["error"]["type"] == "ValueError" and row["attempt"] == 1
    row = stage.wait(flaky, state="succeeded")
    assert row["attempt"] == 2 and not row["loose"]
    row = stage.wait(always, state="failed", loose=True)
    assert row["attempt"] == 2
    for job in (well, bad, flaky, always):
        wait_until(lambda job=job: stage.task(job)["scheduled_at"], "the producer's word")  # type: ignore[misc]


def test_sigkill_in_mid_task_is_lost(stage: Stage) -> None:
    job = stage.send("slow", 1)
    stage.began(job)
    killed = stage.kill_worker()
    row = stage.wait(job, verdict="lost")
    given = next(item["at"] for item in stage.history(job) if "lost" in json.dumps(item))
    print(f"\nrabbitmq: lost {datetime.fromisoformat(given).timestamp() - killed:.2f} s after SIGKILL: {row['reason']}")
    assert row["loose"] and "may still redeliver" not in row["reason"], "it was acknowledged before it began"


def test_what_rabbitmq_delivers_again_is_the_same_task(stage: Stage) -> None:
    job = stage.send("again", 1)
    stage.began(job)
    stage.kill_worker()
    row = stage.wait(job, verdict="lost")
    assert "the broker may still redeliver it" in row["reason"]
    stage.start_worker()
    stage.began(job, times=2)
    row = stage.wait(job, state="succeeded", loose=False, timeout_s=30)
    assert row["verdict"] is None and "redelivered" in row["flags"] and "ran_twice" not in row["flags"]
    assert (row["attempt"], row["settled"]) == (1, "finished_late")
