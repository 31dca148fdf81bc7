"""The command line against a real daemon: what it lists, shows and follows, and what a person decides with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

import harness
from looseends_daemon.commands import reading, tables

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def daemon(processes: harness.Processes, state_dir: Path, port: int) -> str:
    """A running daemon; its address."""
    served = processes.start(
        sys.executable, "-m", "looseends.cli", "serve", "--listen", f"127.0.0.1:{port}", "--db", str(state_dir / "d.db")
    )
    served.wait_for("sign-in")
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def run(daemon: str, state_dir: Path, port: int) -> Run:
    """Run one command of looseends against it."""
    env = {**os.environ, "LOOSEENDS_SERVER_LISTEN": f"127.0.0.1:{port}", "LOOSEENDS_STORAGE_PATH": str(state_dir / "d.db")}

    def run(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        made = [sys.executable, "-m", "looseends.cli", *args]
        done = subprocess.run(made, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


def tell(daemon: str, *events: dict[str, Any]) -> None:
    """POST events."""
    body = json.dumps(list(events)).encode()
    with urlopen(Request(f"{daemon}/api/v1/events", body, {"Content-Type": "application/json"}), timeout=10) as answer:
        assert answer.status == 200


def failed(daemon: str, name: str = "mail.send", **more: Any) -> str:
    """A task that failed for good; its id."""
    task = str(uuid.uuid4())
    error = {"type": "SMTPError", "message": "no route"}
    tell(
        daemon,
        {"type": "started", "task": task, "name": name, "service": "shop-web", "key": "order-7", "args": {"order_id": 7}, **more},
        {"type": "failed", "task": task, "error": error},
    )
    return task


def incident_of(run: Run, name: str = "mail.send") -> str:
    """The id of the open incident of this name, once there is one."""

    def found() -> str | None:
        items = json.loads(run("incidents", "--json").stdout)["items"]
        return next((str(one["id"]) for one in items if one["name"] == name and one["state"] == "open"), None)

    ident = harness.wait_until(found, "the incident to open", 20)
    assert isinstance(ident, str)
    return ident


def test_what_is_lost_is_listed_shown_and_followed(daemon: str, run: Run) -> None:
    assert "every task is accounted for" in run("ls").stderr
    task = failed(daemon)
    harness.wait_until(lambda: task in run("ls").stdout, "the loose end in the list", 20)
    listed = run("ls", "name:mail.*", "--since", "1h").stdout.splitlines()
    assert listed[0].split()[:3] == ["STATE", "BEGAN", "(UTC)"]
    assert "order-7" in listed[1] and "shop-web" in listed[1] and task in listed[1]
    assert json.loads(run("ls", "--json").stdout)["items"][0]["id"] == task
    assert "nothing fits" in run("ls", "name:other").stderr
    shown = run("show", task).stdout
    for words in ("mail.send of shop-web (production): failed", "SMTPError: no route", '{"order_id": 7}', "history", "started"):
        assert words in shown
    assert json.loads(run("show", task, "--json").stdout)["history"][0]["what"] == "started"
    assert task in run("tail").stdout


def test_a_mistake_is_one_line_with_the_way_out(run: Run) -> None:
    said = run("ls", "stat:failed", code=1).stderr
    assert said.count("\n") == 1 and "stat" in said and "state" in said
    assert "no task" in run("show", str(uuid.uuid4()), code=1).stderr
    assert "how long" in run("silence", "service=shop", code=2).stderr
    assert "no span" in run("silence", "service=shop", "--for", "soon", code=2).stderr
    assert "one task or incident" in run("dismiss", code=2).stderr


def test_a_daemon_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "LOOSEENDS_OPERATOR_TOKEN": "x"}
    env["LOOSEENDS_SERVER_LISTEN"] = f"127.0.0.1:{harness.free_port()}"
    made = [sys.executable, "-m", "looseends.cli", "ls"]
    done = subprocess.run(made, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "no daemon answers" in done.stderr and done.stderr.count("\n") == 1


def test_an_incident_is_acknowledged_dismissed_and_taken_back(daemon: str, run: Run) -> None:
    task = failed(daemon)
    incident = incident_of(run)
    assert "is acknowledged" in run("ack", incident, "--note", "on it", "--for", "2h").stdout
    assert "(acknowledged)" in run("incidents").stdout
    shown = run("show", incident).stdout
    assert "acknowledged" in shown and "nobody: no endpoint" in shown
    assert "1 loose end(s) would be dismissed" in run("dismiss", incident).stdout
    assert task in run("ls").stdout, "counted only"
    made = json.loads(run("dismiss", incident, "--note", "provider lost it", "--yes", "--json").stdout)
    harness.wait_until(lambda: task not in run("ls").stdout, "it to be settled", 20)
    run("dismiss", "--undo", made["id"])
    harness.wait_until(lambda: task in run("ls").stdout, "it to be open again", 20)


def test_one_task_is_dismissed_by_its_id(daemon: str, run: Run) -> None:
    task = failed(daemon)
    harness.wait_until(lambda: task in run("ls").stdout, "the loose end", 20)
    assert "note" in run("dismiss", task, code=1).stderr
    assert f"{task} is dismissed" in run("dismiss", task, "--note", "sent by hand").stdout
    assert "failed, dismissed" in run("ls", "name:mail.send").stdout


def test_a_silence_is_previewed_made_listed_and_ended(daemon: str, run: Run) -> None:
    failed(daemon)
    incident_of(run)
    matcher = 'name=~"mail.*"'
    assert "would hide 1 incident" in run("silence", matcher, "--for", "2h", "--dry-run").stdout
    made = json.loads(run("silence", matcher, "--for", "2h", "--comment", "provider is down", "--json").stdout)
    assert "provider is down" in run("silence").stdout
    assert "(silenced)" in run("incidents").stdout
    assert "is over" in run("silence", "--end", made["id"]).stdout


def test_names_cannot_speak_to_the_terminal(daemon: str, run: Run) -> None:
    task = failed(daemon, key="\u202eevil\u202c")
    harness.wait_until(lambda: task in run("ls").stdout, "the loose end", 20)
    for said in (run("ls").stdout, run("show", task).stdout):
        assert "\u202e" not in said and "\N{REPLACEMENT CHARACTER}evil" in said


def test_following_prints_a_task_again_when_it_changes() -> None:
    seen: dict[str, tuple[object, ...]] = {}
    task: dict[str, Any] = {"id": "a", "state": "running", "verdict": None, "settled": None, "attempt": 1}
    other = {**task, "id": "b"}
    assert [t["id"] for t in reading._news([other, task], seen)] == ["a", "b"], "newest last"
    assert list(reading._news([other, task], seen)) == []
    assert [t["id"] for t in reading._news([other, {**task, "verdict": "stuck"}], seen)] == ["a"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "-"), (0.0042, "0.0042 s"), (4.24, "4.2 s"), (42, "42 s"), (190, "3 min 10 s"), (7_500, "2 h 5 min")],
)
def test_durations_are_said_as_people_say_them(seconds: float | None, said: str) -> None:
    assert tables.span(seconds) == said
