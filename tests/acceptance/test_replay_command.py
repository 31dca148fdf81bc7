"""`looseends replay` against a real daemon and a real service: the plan first, the run only when told to."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from on_call import kill_daemon, lose
from town import PYTHON, Town

from harness import wait_until

MAILER = Path(__file__).with_name("mailer.py")
LOST = 6


def command(town: Town, *words: str) -> subprocess.CompletedProcess[str]:
    args = [PYTHON, "-m", "looseends.cli", "replay", *words, "-c", str(town.config)]
    return subprocess.run(args, capture_output=True, text=True, env=town.env(), timeout=60, check=False)


def mailer(town: Town, receipts: Path) -> Any:
    process = town.processes.start(PYTHON, MAILER, env=town.env(MAILER_RECEIPTS=str(receipts)), stdin=True)
    process.wait_for("mailer is up")
    return process


def test_the_plan_is_shown_first_and_run_only_when_told_to(town: Town) -> None:
    receipts = town.folder / "mails"
    town.start_daemon()
    first = mailer(town, receipts)
    first.say(f"many {LOST}")
    first.wait_for("begun")
    wait_until(lambda: town.api("/ledger")["tasks"] == LOST, "all of them to be told")
    first.kill()
    first.hang_up()
    wait_until(lambda: town.api("/ledger")["gap"] == LOST, "all of them to be judged")

    blocked = command(town, "is:loose", "--yes")
    assert blocked.returncode == 1 and "no_live_instance" in blocked.stdout
    second = mailer(town, receipts)
    task = town.tasks("is:loose")[0]["id"]
    wait_until(lambda: town.api(f"/tasks/{task}")["replayable"], "the new process to make its function known")

    looked = command(town, "is:loose", "--since", "1h")
    assert looked.returncode == 0 and f"{LOST} total, {LOST} ready" in looked.stdout and "nothing was run" in looked.stderr
    assert not receipts.exists() and town.api("/replays")["items"] == []

    done = command(town, "is:loose", "--canary", "1", "--per-second", "50", "--note", "after the fix", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["replay"]["state"] == "done" and report["replay"]["counts"]["succeeded"] == LOST
    assert len(receipts.read_text().splitlines()) == LOST and report["replay"]["note"] == "after the fix"
    second.hang_up()


def test_a_run_is_followed_through_a_killed_daemon_and_goes_on_without_whoever_interrupts(town: Town) -> None:
    town.start_receiver()
    town.start_daemon()
    _, second = lose(town, town.folder / "mails", LOST)
    words = ("replay", "is:loose", "--canary", "0", "--per-second", "0.01", "--yes", "-c", town.config)
    following = town.processes.start(PYTHON, "-m", "looseends.cli", *words, env=town.env())
    following.wait_for(r"rpl_\w+: .*1 succeeded")
    kill_daemon(town)
    following.wait_for("the run goes on when it is back")
    town.start_daemon()
    following.wait_for(r"rpl_\w+: .*1 succeeded")
    following.signal(signal.SIGINT)
    assert following.wait() == 1 and "goes on without you" in following.output and "Traceback" not in following.output
    (replay,) = town.api("/replays")["items"]
    assert replay["state"] == "running" and replay["counts"]["waiting"] == LOST - 1
    second.hang_up()


def test_a_wrong_wish_is_one_line_with_the_way_out(town: Town) -> None:
    town.start_daemon()
    for words, code, says in (
        ((), 2, "name a query, --task or --incident"),
        (("is:loose", "--args", "{"), 2, "--args is no JSON"),
        (("is:loose",), 1, "no task fits"),
        (("colour:red",), 1, "colour"),
        (("is:loose", "--canary", "many"), 2, "invalid int value"),
    ):
        answer = command(town, *words)
        assert answer.returncode == code and says in answer.stderr and "Traceback" not in answer.stderr, answer
