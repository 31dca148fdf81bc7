"""Work that was called off, ran out of time, or never reached its broker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from stage import Stage

from harness import wait_until

Stages = Callable[..., Stage]


@pytest.mark.parametrize("system", ["celery", "rq", "arq"])
@pytest.mark.cells("cancelled")
def test_a_running_task_that_is_called_off_is_cancelled_and_no_failure(stages: Stages, system: str) -> None:
    stage = stages(system)
    stage.start_worker()
    job = stage.send("slow", 1)
    stage.began(job)
    stage.ask(do="revoke", job=job)
    row = stage.wait(job, state="cancelled")
    assert not row["loose"] and row["verdict"] is None, stage.history(job)


@pytest.mark.parametrize("system", ["celery", "rq", "huey"])
@pytest.mark.cells("cancelled")
def test_a_waiting_task_that_is_called_off_is_cancelled(stages: Stages, system: str) -> None:
    stage = stages(system)
    stage.start_worker()
    job = stage.send("ok", 1, delay=1.0)
    stage.ask(do="revoke", job=job)
    row = stage.wait(job, state="cancelled")
    assert not row["loose"] and not [r for r in stage.receipts() if r["job"] == job]


@pytest.mark.cells("cancelled", system="dramatiq")
def test_a_message_that_an_actor_of_dramatiq_skips_is_cancelled(stages: Stages) -> None:
    stage = stages("dramatiq")
    stage.start_worker()
    assert not stage.wait(stage.send("skips", 1), state="cancelled")["loose"]


def test_a_hard_time_limit_of_celery_is_one_failure(stages: Stages) -> None:
    stage = stages("celery")
    stage.start_worker()
    row = stage.wait(stage.send("hard", 1), state="failed", loose=True)
    assert row["error"]["type"].endswith("TimeLimitExceeded") and "contradiction" not in row["flags"]


@pytest.mark.parametrize("system", ["celery", "rq", "dramatiq", "huey", "arq"])
def test_a_worker_that_is_told_to_stop_leaves_nothing_behind(stages: Stages, system: str) -> None:
    stage = stages(system)
    worker = stage.start_worker()
    stage.wait(stage.send("ok", 1), state="succeeded")
    worker.signal(signal.SIGINT if system == "huey" else signal.SIGTERM)
    worker.wait()
    wait_until(lambda: workers(stage) and all(one["state"] == "gone" for one in workers(stage)), "its instances to be gone")
    assert not stage.tasks("is:loose")


def workers(stage: Stage) -> list[dict[str, Any]]:
    """The worker service's instances."""
    return [one for one in stage.api("/instances?limit=500")["items"] if one["service"] == "work"]


@pytest.mark.parametrize("system", ["celery", "dramatiq"])
def test_a_message_that_never_reached_its_broker_is_never_started(stages: Stages, system: str) -> None:
    stage = without_broker(stages, system)
    found = wait_until(lambda: [one for one in stage.tasks("is:loose") if one["verdict"] == "never_started"], "the verdict")
    assert isinstance(found, list) and len(found) == 1 and "never run" in found[0]["reason"]


@pytest.mark.parametrize("system", ["rq", "arq"])
def test_a_library_that_asks_its_broker_first_has_promised_nothing_when_that_fails(stages: Stages, system: str) -> None:
    assert without_broker(stages, system).tasks() == []


def without_broker(stages: Stages, system: str) -> Stage:
    """Send a task where no broker is: the library's own error reaches the caller as ever."""
    stage = stages(system)
    assert stage.broker is not None and stage.producer is not None
    stage.broker.stop()
    stage.producer.say('{"do": "send", "name": "ok", "args": [1], "kwargs": {}, "delay": null}')
    stage.producer.wait_for("Error", timeout_s=30)
    return stage


def test_a_producer_killed_between_its_record_and_the_broker_is_found_out(stages: Stages) -> None:
    stage = stages("rq", HANG_IN_BROKER="1")
    assert stage.producer is not None
    stage.producer.say('{"do": "send", "name": "ok", "args": [1], "kwargs": {}, "delay": null}')
    stage.producer.wait_for("in the broker")
    wait_until(lambda: stage.tasks(), "its row")
    os.kill(stage.producer.pid, signal.SIGKILL)
    row = stage.tasks()[0]
    assert row["state"] == "scheduled" and row["due_at"] is not None, "it must begin within a minute, unlike what waits its turn"
