"""The incident machine against the clock: one timeline for each line of its table, in a real daemon, heard by a real receiver.

They run beside each other, each about a service of its own, so that all of them take little more than the longest (a minute: the
shortest `repeat_interval` that a configuration may have). `pytest -s` prints how late each notice was.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from timeline import LATENESS, Arrived, Stage

from harness import Processes, wait_until
from looseends_daemon.core.incidents import RULES

WAIT, INTERVAL, REPEAT, KEEP = 0.5, 2.0, 60.0, 1.0
"""group_wait, group_interval, repeat_interval, keep_open_for of the stage's configuration, s."""


@pytest.fixture
def stage(state_dir: Path, processes: Processes) -> Iterator[Stage]:
    made = Stage(state_dir, processes)
    yield made
    made.close()


def opens_and_resolves(stage: Stage, me: str) -> None:
    at = stage.fail(me)
    stage.hears(me, 1, "opened", "first_notification", at + WAIT)
    settled = stage.retry(me)
    ended = stage.hears(me, 2, "resolved", "all_settled", settled + KEEP)
    assert ended.incident["resolution"] == "retried"


def mended_at_once_is_still_told(stage: Stage, me: str) -> None:
    """A failure that was mended within group_wait: opened and over, or only over, where the first was overtaken."""
    at = stage.fail(me)
    stage.retry(me)
    wait_until(lambda: any(one.type == "resolved" for one in stage.of(me)), f"the end of {me}", WAIT + KEEP + 4)
    types = [one.type for one in stage.of(me)]
    assert types in (["resolved"], ["opened", "resolved"]), types
    assert stage.of(me)[-1].at <= at + KEEP + 3


def ends_late_unseen(stage: Stage, me: str) -> None:
    """Stuck for a moment, and ended before anybody had to be told: nobody is."""
    stage.say(me, {"type": "started", "task": "run-1", "name": "job", "deadline": 0.2})
    wait_until(lambda: stage.ask("GET", f"/tasks?q=service:{me}")["items"][0]["loose"], f"{me} is stuck", 5)
    stage.say(me, {"type": "finished", "task": "run-1"})
    wait_until(lambda: stage.incident(me)["state"] == "resolved", f"{me} is over", 5)
    found = stage.incident(me)
    if [why["reason"] for why in found["why"]] != ["first_loose_end", "settled_before_notice"]:
        assert stage.of(me), "it took longer than group_wait to say that it ended: then it is told"


def opens_only_after_enough(stage: Stage, me: str) -> None:
    for n in (1, 2):
        stage.fail(me, f"run-{n}", "patient")
    time.sleep(WAIT + 1)  # a silence has no signal to wait for
    assert stage.of(me) == []
    at = stage.fail(me, "run-3", "patient")
    opened = stage.hears(me, 1, "opened", "first_notification", at)
    assert opened.incident["counts"]["open"] == 3


def tells_more_once_per_interval(stage: Stage, me: str) -> None:
    at = stage.fail(me)
    first = stage.hears(me, 1, "opened", "first_notification", at + WAIT)
    for n in (2, 3, 4):
        stage.fail(me, f"run-{n}")
    second = stage.hears(me, 2, "updated", "new_tasks", first.at + INTERVAL)
    assert second.incident["counts"]["open"] == 4


def worse_is_told_at_once(stage: Stage, me: str) -> None:
    at = stage.say(me, {"type": "started", "task": "run-1", "name": "job", "deadline": 0.2})
    first = stage.hears(me, 1, "opened", "first_notification", at + 0.2 + WAIT)
    assert (first.incident["problem"], first.incident["severity"]) == ("stuck", "warning")
    at = stage.say(me, {"type": "dropped", "task": "run-1", "reason": "exit"})
    second = stage.hears(me, 2, "updated", "severity", at)
    assert (second.incident["problem"], second.incident["severity"]) == ("lost", "critical")


def severity_by_rule(stage: Stage, me: str) -> None:
    at = stage.say(me, {"type": "started", "task": "run-1", "name": "trifle", "deadline": 0.2})
    first = stage.hears(me, 1, "opened", "first_notification", at + 0.2 + WAIT)
    stage.say(me, {"type": "dropped", "task": "run-1", "reason": "exit"})
    assert first.incident["severity"] == "info"


def repeats_what_stays_open(stage: Stage, me: str) -> None:
    at = stage.fail(me)
    first = stage.hears(me, 1, "opened", "first_notification", at + WAIT)
    stage.hears(me, 2, "repeated", "repeat_interval", first.at + REPEAT)


def acknowledge(stage: Stage, me: str, expires: float | None = None) -> float:
    wish = {"note": "I look at it", **({} if expires is None else {"expires": expires})}
    shown = stage.ask("POST", f"/incidents/{stage.incident(me)['id']}/acknowledge", wish)
    assert shown["acknowledged"]["note"] == "I look at it"
    return time.time()


def acknowledged_until_twice_as_many(stage: Stage, me: str) -> None:
    at = stage.fail(me)
    stage.fail(me, "run-2")
    stage.hears(me, 1, "opened", "first_notification", at + WAIT)
    told = stage.hears(me, 2, "acknowledged", "acknowledged", acknowledge(stage, me))
    assert told.incident["acknowledged"]["by"] == "operator"
    stage.fail(me, "run-3")
    time.sleep(INTERVAL + 0.5)  # one more is not told, and there is no signal for that
    assert len(stage.of(me)) == 2
    at = stage.fail(me, "run-4")
    update = stage.hears(me, 3, "updated", "new_tasks", at)
    assert update.incident["acknowledged"] is None
    assert "acknowledgement_outgrown" in [why["reason"] for why in stage.incident(me)["why"]]


def acknowledged_until_it_is_worse(stage: Stage, me: str) -> None:
    at = stage.say(me, {"type": "started", "task": "run-1", "name": "job", "deadline": 0.2})
    stage.hears(me, 1, "opened", "first_notification", at + 0.2 + WAIT)
    stage.hears(me, 2, "acknowledged", "acknowledged", acknowledge(stage, me))
    at = stage.say(me, {"type": "dropped", "task": "run-1", "reason": "exit"})
    stage.hears(me, 3, "updated", "severity", at)
    assert "acknowledgement_worse" in [why["reason"] for why in stage.incident(me)["why"]]


def acknowledged_until_its_time_is_over(stage: Stage, me: str) -> None:
    at = stage.fail(me)
    stage.hears(me, 1, "opened", "first_notification", at + WAIT)
    at = acknowledge(stage, me, expires=REPEAT)
    told = stage.hears(me, 2, "acknowledged", "acknowledged", at)
    stage.hears(me, 3, "repeated", "repeat_interval", max(at, told.at) + REPEAT)
    assert "acknowledgement_expired" in [why["reason"] for why in stage.incident(me)["why"]]


def silence(stage: Stage, me: str, seconds: float) -> str:
    wish = {"matchers": [f'service="{me}"'], "comment": "we are moving house", "duration": seconds}
    made: str = stage.ask("POST", "/silences", wish)["id"]
    return made


def silenced_until_its_time_is_over(stage: Stage, me: str) -> None:
    silence(stage, me, 4)
    ends = time.time() + 4
    stage.fail(me)
    told = stage.hears(me, 1, "opened", "silence_ended", ends)
    assert told.incident["counts"]["open"] == 1


def silenced_until_somebody_ends_it(stage: Stage, me: str) -> None:
    made = silence(stage, me, 3_600)
    stage.fail(me)
    wait_until(lambda: stage.incident(me)["state"] == "open", f"{me} is open", 5)
    assert stage.incident(me)["silenced"]["id"] == made
    stage.ask("DELETE", f"/silences/{made}")
    stage.hears(me, 1, "opened", "silence_ended", time.time())


def settled_under_a_silence_is_never_told(stage: Stage, me: str) -> None:
    made = silence(stage, me, 3_600)
    stage.fail(me)
    wait_until(lambda: stage.incident(me)["state"] == "open", f"{me} is open", 5)
    stage.retry(me)
    wait_until(lambda: stage.incident(me)["state"] == "resolved", f"{me} is over", 6)
    stage.ask("DELETE", f"/silences/{made}")


def dismissed_whole(stage: Stage, me: str) -> None:
    at = stage.fail(me)
    stage.fail(me, "run-2")
    stage.hears(me, 1, "opened", "first_notification", at + WAIT)
    which = {"incident": stage.incident(me)["id"]}
    frozen = stage.ask("POST", "/dismissals", which)
    done = stage.ask("POST", "/dismissals", {**which, "digest": frozen["digest"], "note": "known"})
    ended = stage.hears(me, 2, "resolved", "all_settled", time.time() + KEEP)
    assert (done["dismissed"], ended.incident["resolution"]) == (2, "dismissed")
    stage.ask("DELETE", f"/dismissals/{done['id']}")
    again = stage.hears(me, 3, "opened", "first_notification", time.time() + WAIT)
    assert again.incident["id"] != ended.incident["id"]


def ends_late_and_settles_itself(stage: Stage, me: str) -> None:
    at = stage.say(me, {"type": "started", "task": "run-1", "name": "job", "deadline": 0.2})
    stage.hears(me, 1, "opened", "first_notification", at + 0.2 + WAIT)
    at = stage.say(me, {"type": "finished", "task": "run-1"})
    assert stage.hears(me, 2, "resolved", "all_settled", at + KEEP).incident["resolution"] == "finished_late"


def what_comes_after_the_end_is_a_new_incident(stage: Stage, me: str) -> None:
    ids = set()
    for n in (1, 2):
        at = stage.fail(me, f"run-{n}")
        ids.add(stage.hears(me, 2 * n - 1, "opened", "first_notification", at + WAIT).incident["id"])
        at = stage.retry(me, f"run-{n}")
        stage.hears(me, 2 * n, "resolved", "all_settled", at + KEEP)
    assert len(ids) == 2


def run_b_succeeds_and_run_a_still_hangs(stage: Stage, me: str) -> None:
    """Two runs of one name overlap: the success of one says nothing about the other."""
    at = stage.say(me, {"type": "started", "task": "run-a", "name": "backup", "deadline": 0.5})
    stage.say(me, {"type": "started", "task": "run-b", "name": "backup", "deadline": 30})
    stage.say(me, {"type": "finished", "task": "run-b"})
    opened = stage.hears(me, 1, "opened", "first_notification", at + 0.5 + WAIT)
    stage.say(me, {"type": "started", "task": "run-c", "name": "backup", "deadline": 30}, {"type": "finished", "task": "run-c"})
    assert opened.incident["counts"]["open"] == 1
    assert stage.incident(me)["state"] == "open"


TIMELINES: tuple[Callable[[Stage, str], None], ...] = (
    opens_and_resolves,
    mended_at_once_is_still_told,
    ends_late_unseen,
    opens_only_after_enough,
    tells_more_once_per_interval,
    worse_is_told_at_once,
    severity_by_rule,
    repeats_what_stays_open,
    acknowledged_until_twice_as_many,
    acknowledged_until_it_is_worse,
    acknowledged_until_its_time_is_over,
    silenced_until_its_time_is_over,
    silenced_until_somebody_ends_it,
    settled_under_a_silence_is_never_told,
    dismissed_whole,
    ends_late_and_settles_itself,
    what_comes_after_the_end_is_a_new_incident,
    run_b_succeeds_and_run_a_still_hangs,
)
NOTHING_AT_ALL = (settled_under_a_silence_is_never_told,)


def test_every_transition_of_the_table_is_told_at_its_time(stage: Stage) -> None:
    stage.start_daemon()
    with ThreadPoolExecutor(len(TIMELINES)) as pool:
        running = {line.__name__: pool.submit(line, stage, line.__name__) for line in TIMELINES}
    broken = {name: one.exception() for name, one in running.items() if one.exception() is not None}
    assert not broken, "\n".join(f"{name}: {error!r}" for name, error in broken.items())
    for line in NOTHING_AT_ALL:
        assert stage.of(line.__name__) == []
    for service, type_, reason, late in sorted(LATENESS, key=lambda one: one[-1]):
        print(f"{late:+7.3f} s  {service}: {type_}, {reason}")
    seen = {why["reason"] for one in stage.ask("GET", "/incidents?limit=500")["items"] for why in one["why"]}
    missing = {rule.reason for rule in RULES} - seen - {"settled_before_notice"}
    assert not missing, "a line of the table that no timeline took"


def test_a_daemon_killed_between_send_and_mark_tells_it_again_with_the_same_id_and_bytes(stage: Stage) -> None:
    daemon = stage.start_daemon()

    def kill(one: Arrived) -> None:
        stage.receiver.before_answer = lambda one: None
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()

    stage.receiver.before_answer = kill
    stage.fail("killed")
    wait_until(lambda: len(stage.of("killed")) == 1 and not daemon.running, "the daemon is killed with its notice in flight")
    stage.start_daemon()
    wait_until(lambda: len(stage.of("killed")) == 2, "the notice comes again")
    first, second = stage.of("killed")
    assert (first.id, first.body) == (second.id, second.body)
    stage.retry("killed")
    wait_until(lambda: len(stage.of("killed")) == 3, "the end")
    ended = stage.of("killed")[-1]
    assert (ended.type, ended.incident["id"]) == ("resolved", first.incident["id"])


SERVICE = """
import sys, time, looseends
looseends.init(service="deployed")

@looseends.task(name="work", deadline=60)
def work():
    print("working", flush=True)
    time.sleep(60)

if sys.argv[1] == "work":
    work()
else:
    looseends.flush(5)
    print("up", flush=True)
    time.sleep(60)
"""


def test_a_deploy_that_kills_its_predecessor_is_one_incident_with_both_releases(stage: Stage, processes: Processes) -> None:
    stage.start_daemon()
    common = {"LOOSEENDS_URL": f"http://127.0.0.1:{stage.port}", "LOOSEENDS_SPOOL_DIR": str(stage.folder / "spool")}
    old = processes.start(sys.executable, "-c", SERVICE, "work", env={**common, "LOOSEENDS_RELEASE": "2026.11.2"})
    old.wait_for("working")
    wait_until(lambda: stage.ask("GET", "/tasks?q=service:deployed")["items"], "the task is known")
    new = processes.start(sys.executable, "-c", SERVICE, "idle", env={**common, "LOOSEENDS_RELEASE": "2026.11.3"})
    new.wait_for("up")
    wait_until(lambda: len(stage.ask("GET", "/instances")["items"]) == 2, "the new release is known")
    os.kill(old.pid, signal.SIGKILL)
    wait_until(lambda: stage.of("deployed"), "the loss is told", 10)
    told = stage.of("deployed")[0]
    assert told.incident["release"] == {"before": "2026.11.2", "after": "2026.11.3"}
    assert told.incident["title"].endswith("(release 2026.11.2 -> 2026.11.3)")
