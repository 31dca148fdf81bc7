"""Other pools, other workers, other brokers, and ids that somebody chose: the same rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stage import APPS, Stage, python_of

from harness import wait_until

Stages = Callable[..., Stage]


@pytest.mark.parametrize(
    ("system", "worker", "env"),
    [
        ("celery", ("--pool", "threads"), {}),
        ("celery", ("--pool", "solo"), {}),
        ("rq", ("--worker-class", "rq.SimpleWorker"), {}),
        ("dramatiq", ("--processes", "2"), {}),
        ("huey", ("--worker-type", "process"), {}),
        ("huey", ("--worker-type", "process"), {"HUEY": "redis"}),
    ],
    ids=["celery threads", "celery solo", "rq simple", "dramatiq two", "huey processes", "huey on redis"],
)
def test_every_kind_of_worker_tells_the_same(stages: Stages, system: str, worker: tuple[str, ...], env: dict[str, str]) -> None:
    stage = stages(system, **env)
    stage.start_worker(*worker, **env)
    jobs = {name: stage.send(name, n) for n, name in enumerate(("ok", "flaky", "bad", "both", "outer"))}
    shown = {name: stage.wait(job, state="failed" if name == "bad" else "succeeded") for name, job in jobs.items()}
    assert {name: row["attempt"] for name, row in shown.items()} == {"ok": 1, "flaky": 2, "bad": 1, "both": 1, "outer": 1}
    assert shown["both"]["name"] == "both" and not any(row["flags"] for row in shown.values())
    wait_until(lambda: len(stage.tasks("state:succeeded")) == 5, "the child of the last one to end")
    assert len(stage.tasks()) == 6


def test_a_process_of_huey_that_is_killed_loses_its_own_task_alone(stages: Stages) -> None:
    stage = stages("huey")
    stage.start_worker("--worker-type", "process")
    job = stage.send("slow", 1)
    stage.began(job)
    stage.kill_worker()
    stage.wait(job, verdict="lost")
    assert [one["id"] for one in stage.tasks("is:loose")] == [job]


def test_the_stub_broker_of_dramatiq_is_covered_too(stages: Stages) -> None:
    stage = stages("dramatiq")
    play = stage.processes.start(python_of("dramatiq"), APPS / "stub_play.py", env=stage.env("tests"), cwd=stage.folder)
    ok, bad = play.wait_for("^jobs (.*) (.*)").groups()
    assert stage.wait(ok, state="succeeded")["service"] == "tests"
    assert stage.wait(bad, state="failed")["error"]["message"] == "planted 2"


@pytest.mark.parametrize("system", ["celery", "rq", "dramatiq", "arq"])
def test_an_id_that_somebody_chose_is_one_task_each_time_it_is_used(stages: Stages, system: str) -> None:
    stage = stages(system)
    stage.start_worker()
    for times in range(1, 2 if system == "arq" else 3):  # arq keeps the result, and refuses the same id until that is gone
        assert stage.ask(do="own", job="nightly-report") == ["nightly-report"]
        wait_until(lambda n=times: len(whole(stage)) == n, f"{times} whole rows")
    assert len(stage.tasks()) == times
    if system == "arq":
        assert stage.ask(do="own", job="nightly-report") == ["known already"]
        assert len(stage.tasks()) == 1


def whole(stage: Stage) -> list[object]:
    """Rows that producer and worker both told of."""
    return [one for one in stage.tasks("state:succeeded") if one["scheduled_at"] and one["started_at"] and not one["flags"]]


def test_arq_beside_the_hook_of_every_create_task_is_one_task_each(stages: Stages) -> None:
    stage = stages("arq", ALSO="asyncio")
    stage.start_worker(ALSO="asyncio")
    jobs = [stage.send(name, 1) for name in ("ok", "both", "outer")]
    for job in jobs:
        stage.wait(job, state="succeeded")
    wait_until(lambda: sum(one["declared"] for one in stage.tasks("state:succeeded")) == 4, "the child of the last one to end")
    assert sorted((one["name"], one["source"]) for one in stage.tasks() if one["declared"]) == [
        ("both", "arq"),
        ("ok", "arq"),
        ("ok", "arq"),
        ("outer", "arq"),
    ]
    captured = {one["name"] for one in stage.tasks() if not one["declared"]}
    assert not {name for name in captured if name.startswith("arq_app.") or "looseends" in name}, captured
