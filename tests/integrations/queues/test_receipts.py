"""Many tasks with retries, kills and redeliveries: our rows equal the receipts that the tasks wrote themselves, one by one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from stage import VERSIONS, Stage

from harness import wait_until

COUNT = int(os.environ.get("QUEUE_TASKS", "60"))
WAIT_S = float(os.environ.get("QUEUE_WAIT_S", "120"))
DEATHS = 3
PARENT_TELLS = ("celery", "rq")
"""Systems whose main process sees its child die, and says that this was a failure (RQ then tries again)."""
REDELIVERS = ("arq", "dramatiq")
FORGETS = ("celery", "huey")
"""Systems that take a task off their queue before it begins: whoever is killed in between takes it along, and nobody knows."""
MOMENT_S = 0.2
LOOK_S = 0.05
REST = 5
"""A look at all rows is followed by a rest of so many times its own length: they are many, and the daemon has more to do."""
HUEY_THREADS = 4
HELPERS = {"rq": 2}
"""Workers beside the one that is killed, where there are many tasks: RQ forks for each of them."""
UNBEGUN_MAX = {"huey": HUEY_THREADS * (DEATHS + 2), "celery": DEATHS + 2, "rq": 2}
"""How many tasks may be killed before their first line: in the hands of the killed, on the way to or from the broker."""


@pytest.mark.parametrize("system", sorted(VERSIONS))
def test_the_rows_equal_the_receipts_one_by_one(stages: Callable[..., Stage], system: str) -> None:
    stage = stages(system)
    stage.patience_s = WAIT_S
    began = time.monotonic()
    sent = stage.ask(do="mixed", count=COUNT, dies_every=max(10, COUNT // DEATHS))
    jobs = [plain(job) for job in sent]
    assert len(set(jobs)) == COUNT
    for _ in range(HELPERS.get(system, 0) if COUNT > 1_000 else 0):
        stage.start_worker()
    stage.start_worker(until_ready=False, ARQ_JOB_TIMEOUT="1")
    wait_until(lambda: len(ended(stage)) > COUNT // 2 or restart(stage, LOOK_S), "half of them", WAIT_S)
    stage.kill_worker()
    stage.start_worker(until_ready=False, ARQ_JOB_TIMEOUT="1")
    look = Look(stage, jobs)
    try:
        wait_until(lambda: restart(stage, LOOK_S) or look.equal(), "rows and receipts to be equal", WAIT_S)
    except AssertionError as error:
        raise AssertionError(f"{error}: {differences(stage, jobs)[:10]}") from None
    rows = all_rows(stage)
    shown = Counter(row["verdict"] or row["state"] for row in rows.values())
    flags = Counter(flag for row in rows.values() for flag in row["flags"])
    took = time.monotonic() - began
    print(f"\n{system}: {COUNT} tasks, {len(stage.receipts())} receipts, {took:.0f} s; rows {dict(shown)}, flags {dict(flags)}")
    assert set(rows) == set(jobs)
    if system in REDELIVERS:
        assert shown["lost"] == 0
    assert shown["scheduled"] + shown["never_started"] <= UNBEGUN_MAX.get(system, 0)
    assert stage.api("/ledger")["gap"] == shown["lost"] + shown["never_started"]


def restart(stage: Stage, pause_s: float = 0.0) -> bool:
    """A worker that a task took with it is started again, as a supervisor would; always False."""
    assert stage.worker is not None
    time.sleep(pause_s)
    if not stage.worker.running:
        stage.start_worker(until_ready=False, ARQ_JOB_TIMEOUT="1")
    return False


class Look:
    """Compares all rows with all receipts, and then rests."""

    def __init__(self, stage: Stage, jobs: list[str]) -> None:
        self.stage, self.jobs, self.rests_until, self.calm = stage, jobs, 0.0, 0

    def equal(self) -> bool:
        """Whether both say the same, twice in a row: once may be a moment in which a worker is about to begin."""
        began = time.monotonic()
        if began < self.rests_until or (self.stage.system in FORGETS and waiting(self.stage)):
            return False
        found = differences(self.stage, self.jobs)
        self.rests_until = time.monotonic() + max(MOMENT_S, REST * (time.monotonic() - began))
        self.calm = 0 if found else self.calm + 1
        return self.calm >= 2


def waiting(stage: Stage) -> int:
    """How many tasks the broker has still. Where it forgets what it hands out, a row may wait only once it has none."""
    if stage.system == "celery":
        import redis

        with redis.Redis(unix_socket_path=stage.redis) as found:
            return int(found.llen("celery")) + int(found.hlen("unacked"))
    with contextlib.closing(sqlite3.connect(f"file:{stage.receipts_file}.huey?mode=ro", uri=True)) as huey:
        return int(huey.execute("SELECT (SELECT count(*) FROM task) + (SELECT count(*) FROM schedule)").fetchone()[0])


def kept_by_rq(stage: Stage) -> set[str]:
    """Jobs that a worker has taken off its queue and not done with. Those of a dead one RQ gives up in its own time."""
    import redis

    with redis.Redis(unix_socket_path=stage.redis) as found:
        members = [*found.lrange("rq:queue:default:intermediate", 0, -1), *found.zrange("rq:wip:default", 0, -1)]
    return {member.decode().partition(":")[0] for member in members}


def ended(stage: Stage) -> list[dict[str, Any]]:
    """Receipts of tries that came to their end."""
    return [one for one in stage.receipts() if one["what"] != "began"]


def all_rows(stage: Stage) -> dict[str, dict[str, Any]]:
    """Every row of the play, by id."""
    found: dict[str, dict[str, Any]] = {}
    cursor = ""
    while True:
        page = stage.api(f"/tasks?limit=500{cursor}")
        found.update((row["id"], row) for row in page["items"])
        if not page["next_cursor"]:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def differences(stage: Stage, jobs: list[str]) -> list[tuple[str, Any, Any]]:
    """Jobs whose row does not say what their receipts say: (job, receipts, row)."""
    told: dict[str, list[dict[str, Any]]] = {job: [] for job in jobs}
    for one in stage.receipts():
        told[plain(one["job"])].append(one)
    last_words: dict[int, float] = {}
    for mine in told.values():
        for one in mine:
            last_words[one["pid"]] = max(one["at"], last_words.get(one["pid"], 0.0))
    rows, kept = all_rows(stage), kept_by_rq(stage) if stage.system == "rq" else set()
    shown = ("state", "verdict", "attempt", "reason", "flags")
    return [
        (job, [(r["what"], r["attempt"]) for r in mine], {name: rows.get(job, {}).get(name) for name in shown})
        for job, mine in told.items()
        if not agrees(stage.system, mine, rows.get(job), last_words, is_kept=job in kept)
    ]


def receipts_end_well(receipts: list[dict[str, Any]]) -> bool:
    """Whether the task's own last word is that it ended."""
    return bool(receipts) and receipts[-1]["what"] == "ended"


def is_lost_retry(last: dict[str, Any], row: dict[str, Any], last_words: dict[int, float]) -> bool:
    """Whether its process was killed while it put the next try into the queue: on record by then, and not with the broker."""
    was_last = last_words[last["pid"]] - last["at"] < MOMENT_S
    return bool(was_last and last["what"] == "failed" and row["attempt"] == last["attempt"] + 1 <= 3)


def plain(job: str) -> str:
    """Receipts bear the library's own text of the id."""
    return job if "-" in job else f"{job[:8]}-{job[8:12]}-{job[12:16]}-{job[16:20]}-{job[20:]}"


def agrees(
    system: str, receipts: list[dict[str, Any]], row: dict[str, Any] | None, last_words: dict[int, float], *, is_kept: bool
) -> bool:
    """Whether a row says what the receipts of its task say.

    `last_words`: of each process, when it wrote its last receipt. `is_kept`: RQ has it as taken by a worker.
    """
    if row is None:
        return False
    if is_kept and row["state"] == "scheduled" and row["verdict"] is None:
        return row["attempt"] == len({one["attempt"] for one in receipts}) + 1  # killed before the try that was next
    if row["verdict"] == "never_started" and receipts and system in PARENT_TELLS:
        return is_lost_retry(receipts[-1], row, last_words)
    tries = len([one for one in receipts if one["what"] == "began"])
    if system in FORGETS and row["state"] == "scheduled" and row["attempt"] > tries and not receipts_end_well(receipts):
        return True  # taken off the queue by a process that was killed before it began: nobody has it any more
    if system == "arq" and "retries exceeded" in (row["reason"] or ""):  # the last was killed before its first line, or its end
        return bool(row["state"] == "failed" and tries <= row["attempt"] == 3 and not receipts_end_well(receipts))
    if system in REDELIVERS and row["verdict"] == "lost":
        return False  # its broker delivers it again: that is to be waited for
    if not receipts:
        return bool(row["verdict"] == "lost")  # killed between its recorded start and its own first line
    last = receipts[-1]
    if row["attempt"] != max(one["attempt"] for one in receipts):
        return False
    if row["verdict"] == "lost":  # it did not end, or its library was killed before it could note the end
        return bool(last["what"] == "began" or last_words[last["pid"]] - last["at"] < MOMENT_S)
    if last["what"] == "ended":
        return bool(row["state"] == "succeeded" and row["verdict"] is None)
    if last["what"] == "failed":
        return bool(row["state"] == "failed" and last["attempt"] == 3)
    return bool(system in PARENT_TELLS and row["state"] == "failed")
