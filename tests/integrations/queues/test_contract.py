"""One contract for all queue systems: from the real library to the daemon's row."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from stage import VERSIONS, Stage, python_of

from harness import wait_until


def test_the_library_under_test_is_the_version_we_say(played: Stage) -> None:
    code = f"from importlib.metadata import version; print(version({played.system!r}))"
    said = subprocess.run([python_of(played.system), "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == VERSIONS[played.system]


@pytest.mark.cells("scheduled", "started", "finished", "arguments")
def test_a_task_that_ends_well_is_told_by_producer_and_worker(played: Stage) -> None:
    job = played.send("ok", 7, password="canary-0815")
    played.wait(job, state="succeeded")
    wait_until(lambda: played.task(job)["scheduled_at"], "the producer's word")
    row = played.task(job)
    assert (row["source"], row["attempt"], row["verdict"], row["loose"]) == (played.system, 1, None, False)
    assert row["service"] == "work" and row["queue"] and row["name"].rpartition(".")[2] == "ok"
    assert row["args"] == {"n": 7, "password": {"$t": "redacted"}} and not row["replayable"]
    assert row["scheduled_at"] <= row["started_at"] <= row["ended_at"] and not row["flags"]
    told = {(item["what"], item["instance"]["service"]) for item in facts(played, job)}
    assert {("scheduled", "shop"), ("started", "work"), ("finished", "work")} <= told


def facts(stage: Stage, job: str) -> list[dict[str, Any]]:
    """The facts of a job's history, each with the service that told it."""
    services = {one["id"]: one for one in stage.api("/instances?limit=500")["items"]}
    found = []
    for item in stage.history(job):
        what = item.get("type") or item.get("what")
        if item.get("instance") is not None and what in ("scheduled", "started", "finished", "failed", "cancelled"):
            who = item["instance"]["id"] if isinstance(item["instance"], dict) else item["instance"]
            found.append({**item, "what": what, "instance": services[who]})
    return found


def test_secrets_never_leave_the_process(played: Stage) -> None:
    job = played.send("ok", 8, password="canary-4711")
    played.wait(job, state="succeeded")
    assert "canary-4711" not in json.dumps([played.task(job), played.history(job)])


@pytest.mark.cells("failed")
def test_a_task_that_raises_fails_with_its_error(played: Stage) -> None:
    row = played.wait(played.send("bad", 1), state="failed", loose=True)
    assert row["error"]["type"] == "ValueError" and row["error"]["message"] == "planted 1"
    assert "planted" in row["error"]["traceback"] and row["attempt"] == 1


@pytest.mark.cells("retried")
def test_a_retry_is_the_next_attempt_of_the_same_task(played: Stage) -> None:
    row = played.wait(played.send("flaky", 2), state="succeeded")
    assert row["attempt"] == 2 and not row["loose"] and row["settled"] is None
    assert "ran_twice" not in row["flags"] and "redelivered" not in row["flags"]


def test_retries_that_are_used_up_are_a_failure_for_good(played: Stage) -> None:
    row = played.wait(played.send("always", 3), state="failed", loose=True)
    assert row["attempt"] == 2 and row["error"]["type"] == "KeyError"


def test_a_task_that_sends_another_is_its_parent(played: Stage) -> None:
    job = played.send("outer", 4)
    row = played.wait(job, state="succeeded")
    wait_until(lambda: played.task(job)["children"] == {"total": 1, "ended": 1}, "its child to end")
    children = [one for one in played.tasks() if one["parent"] == row["id"]]
    assert [child["name"].rpartition(".")[2] for child in children] == ["ok"]


def test_an_audited_function_on_a_queue_is_one_task(played: Stage) -> None:
    row = played.wait(played.send("both", 5), state="succeeded")
    assert row["name"] == "both" and row["key"] == "5" and row["progress"]["done"] == 0.5
    assert [one["id"] for one in played.tasks("name:both")] == [row["id"]]


def test_a_task_for_later_has_time_until_then(played: Stage) -> None:
    job = played.send("ok", 6, delay=1.0)
    early = wait_until(lambda: played.task(job), "its row")
    assert isinstance(early, dict) and early["state"] in ("scheduled", "running", "succeeded")
    row = played.wait(job, state="succeeded")
    assert row["verdict"] is None and not row["loose"] and not row["flags"]


def test_a_name_that_no_worker_knows_is_a_failure(played: Stage) -> None:
    if played.system == "huey":
        return  # Huey's producer needs the function; its worker logs what it cannot read, and says nothing more
    job = played.ask(do="unknown", name="nobody.knows")[0]
    row = played.wait(job, state="failed")
    assert "nobody" in row["error"]["message"] or "nobody" in row["name"]


def test_somebody_outside_sees_where_a_running_task_stands(played: Stage) -> None:
    job = played.send("looks", 9)
    wait_until(lambda: any(r["job"] == job for r in played.receipts()), "its receipt")
    lines = next(r["lines"] for r in played.receipts() if r["job"] == job)
    assert any("_app.py" in line and "looks" in line for line in lines), lines


def test_nothing_else_is_loose(played: Stage) -> None:
    loose = {one["name"].rpartition(".")[2] for one in played.tasks("is:loose")}
    assert loose <= {"bad", "always", "knows"}, loose
    ledger = played.api("/ledger")
    assert ledger["gap"] == 0, played.tasks("is:gap")
