"""`looseends exec` and the daemon: killed, with the daemon down, with it hung, and after others that died before it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from town import PYTHON, Town

from harness import Process, wait_until
from looseends.wire import parse_time

EXEC = (PYTHON, "-m", "looseends.cli", "exec")


def run(town: Town, *words: str, **env: str) -> Process:
    return town.processes.start(*EXEC, *words, env=town.env(**env))


def only(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(tasks) == 1, tasks
    return tasks[0]


def test_a_killed_exec_is_a_lost_task_within_a_second(town: Town) -> None:
    town.start_daemon()
    process = run(town, "--name", "nightly.backup", "--key", "today", "--", "sh", "-c", "echo begun; exec sleep 60")
    process.wait_for("begun")
    wait_until(lambda: town.tasks("state:running"), "the daemon to know of it")
    os.kill(process.pid, signal.SIGKILL)
    killed = time.monotonic()
    task = only(wait_until(lambda: town.tasks("verdict:lost"), "its verdict"))  # type: ignore[arg-type]
    print(f"SIGKILL of exec to verdict: {time.monotonic() - killed:.2f} s (bar 1 s)")
    assert (task["name"], task["key"], task["service"], task["source"]) == ("nightly.backup", "today", "cron", "exec")
    assert "killed" in task["reason"] or "crashed" in task["reason"]
    assert task["replayable"] is False and "copy its command line" in task["not_replayable_because"]


def test_a_failed_command_says_why_and_its_page_offers_the_command_line(town: Town) -> None:
    town.start_daemon()
    assert run(town, "--name", "copy", "--", "sh", "-c", "echo 'disk is full'; exit 12").wait() == 12
    task = only(wait_until(lambda: town.tasks("state:failed"), "the failure"))  # type: ignore[arg-type]
    assert task["error"]["type"] == "ExitCode" and task["error"]["message"] == "exit code 12: disk is full"
    status, page = town.http(town.port, "GET", f"/tasks/{task['id']}", None, {"Authorization": f"Bearer {town.token}"})
    assert status == 200
    assert b"sh -c &#39;echo &#39;&#34;&#39;&#34;&#39;disk is full" in page and b"Last output" in page


def test_what_ran_while_the_daemon_was_down_is_told_when_it_is_back(town: Town) -> None:
    town.start_daemon()
    assert town.daemon is not None
    town.daemon.stop()
    assert run(town, "--name", "night", "--", "sh", "-c", "echo fine").wait() == 0
    assert run(town, "--name", "night", "--", "false").wait() == 1
    ran_by = time.time_ns()
    town.start_daemon()
    wait_until(lambda: len(town.tasks("name:night")) == 2, "both to be told")
    tasks = {task["state"]: task for task in town.tasks("name:night")}
    assert tasks["succeeded"]["result"]["output"] == "fine" and tasks["succeeded"]["verdict"] is None
    assert tasks["failed"]["verdict"] is None and tasks["failed"]["error"]["message"] == "exit code 1"
    wait_until(lambda: not left(town), "their journals to be gone")
    assert town.tasks("is:gap") == []
    assert all(parse_time(task["began_at"]) < ran_by for task in tasks.values()), "told late, with the time at which they ran"
    assert [task["instance"]["alive"] for task in tasks.values()] == [False, False]


def left(town: Town) -> list[str]:
    """Journals in the spool of this user."""
    folder = town.folder / "looseends/spool"
    return sorted(str(path) for path in folder.iterdir()) if folder.exists() else []


def test_a_hung_daemon_holds_no_command_up_for_more_than_a_second(town: Town) -> None:
    town.start_daemon()
    assert town.daemon is not None
    assert run(town, "--", "true").wait() == 0
    wait_until(lambda: town.tasks("name:true"), "the first to be told")
    os.kill(town.daemon.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert run(town, "--", "sh", "-c", "exit 9").wait() == 9
        print(f"exec beside a stopped daemon: {time.monotonic() - began:.2f} s")
        assert time.monotonic() - began < 10, "a bound for a busy machine; the figure is printed above"
    finally:
        os.kill(town.daemon.pid, signal.SIGCONT)
    wait_until(lambda: town.tasks("name:sh state:failed"), "the second to be told")


def test_a_short_command_sends_what_others_left_where_the_daemon_cannot_look(town: Town, tmp_path: Path) -> None:
    """A spool that no daemon watches: the next client of the user adopts it, however briefly it lives."""
    spool = tmp_path / "spool"
    nobody = f"unix:{tmp_path}/nobody"
    assert run(town, "--name", "first", "--", "false", LOOSEENDS_SPOOL_DIR=str(spool), LOOSEENDS_URL=nobody).wait() == 1
    [folder] = spool.iterdir()
    town.start_daemon()
    url = f"http://127.0.0.1:{town.port}"
    assert run(town, "--name", "second", "--", "true", LOOSEENDS_SPOOL_DIR=str(spool), LOOSEENDS_URL=url).wait() == 0
    assert folder.exists(), "a young journal is left to whoever watches"
    an_hour_ago = time.time() - 3600
    os.utime(folder, (an_hour_ago, an_hour_ago))
    assert run(town, "--name", "third", "--", "true", LOOSEENDS_SPOOL_DIR=str(spool), LOOSEENDS_URL=url).wait() == 0
    assert list(spool.iterdir()) == []
    wait_until(lambda: len(town.tasks("service:cron")) == 3, "all three to be told")
    assert only(town.tasks("name:first"))["state"] == "failed"
    assert town.tasks("is:gap") == []
