"""The ways of losing work that articles name, each as a service of its own, unchanged, under `looseends instrument`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hooked import Daemon, ask, hang_up_early

from harness import ROOT, Process, Processes, free_port

ARTICLES = ROOT / "examples" / "articles"
CONFIG = """
[[task]]
match = "shop/*.generate_report"
overlap = "warn"
[[task]]
match = "shop/*.notify_partner"
deadline = "1s"
"""


@pytest.fixture
def daemon(processes: Processes, state_dir: Path) -> Daemon:
    """A daemon whose configuration has what two of the services need."""
    return Daemon(processes, state_dir, CONFIG)


@pytest.fixture
def start(daemon: Daemon, tmp_path: Path) -> Callable[[str], tuple[Process, int]]:
    """Serve one of the articles' services with capture and no change to it: its process and port."""

    def served(name: str) -> tuple[Process, int]:
        port = free_port()
        command = ["instrument", "--service", "shop", "--", "uvicorn", "--app-dir", ARTICLES, f"{name}:app", "--port", str(port)]
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        service = daemon.start(sys.executable, "-m", "looseends.cli", *command, cwd=tmp_path, PATH=path)
        service.wait_for("Uvicorn running on")
        return service, port

    return served


def only(daemon: Daemon, q: str, name: str) -> dict[str, Any]:
    """The one task of this query, and that it has this name."""
    found = daemon.wait_for(q)[0]
    assert found["name"] == name
    return found


def test_an_unreferenced_task(daemon: Daemon, start: Any) -> None:
    service, port = start("unreferenced_task")
    assert ask(port, "POST", "/register?email=ada@example.com") == 200
    daemon.wait_for("state:running")
    service.signal(signal.SIGTERM)
    lost = only(daemon, "is:loose", "unreferenced_task.send_welcome_email")
    assert lost["verdict"] == "lost" and lost["args"] == {"email": "ada@example.com"} and lost["request"] == "POST /register"


def test_a_raising_notifier(daemon: Daemon, start: Any) -> None:
    _, port = start("raising_notifier")
    assert ask(port, "POST", "/webhook?recipient=ada") == 200
    failed = only(daemon, "is:loose", "raising_notifier.Notifier.send")
    assert (failed["state"], failed["error"]["message"]) == ("failed", "push provider refused ada")
    assert failed["args"]["recipient"] == "ada"


def test_seven_clicks_on_a_slow_endpoint(daemon: Daemon, start: Any) -> None:
    service, port = start("seven_clicks")
    for _ in range(7):
        hang_up_early(port, "/reports/42")
    daemon.wait_for("state:running name:seven_clicks.generate_report", 7)
    daemon.wait(lambda: len(daemon.tasks("is:overlap")) >= 6, "overlapping reports")
    assert daemon.tasks("is:loose") == [], "they run, and may end well"
    service.kill()
    lost = daemon.wait_for("verdict:lost", 7)
    assert {str(task["args"]) for task in lost} == {"{'user_id': 42}"}


def test_a_hung_outbound_call(daemon: Daemon, start: Any) -> None:
    _, port = start("hung_call")
    assert ask(port, "POST", "/orders/7") == 200
    stuck = only(daemon, "verdict:stuck", "hung_call.notify_partner")
    assert stuck["args"] == {"order_id": 7} and stuck["reason"].endswith("no end within 1 s; its process is alive")


def test_a_deploy_in_the_middle_of_a_render(daemon: Daemon, start: Any) -> None:
    service, port = start("deploy_kill")
    assert ask(port, "POST", "/documents/7") == 200
    daemon.wait_for("state:running")
    service.signal(signal.SIGTERM)
    service.wait_for("Waiting for background tasks to complete|Shutting down")
    assert daemon.tasks("is:loose") == [], "it may end well within its grace period"
    service.kill()
    lost = daemon.wait_for("verdict:lost", 2)
    assert {task["name"] for task in lost} == {"deploy_kill.render_pdf", "deploy_kill.mail_pdf"}


def test_an_early_return_before_the_task_was_added(daemon: Daemon, start: Any) -> None:
    _, port = start("early_return")
    assert ask(port, "POST", "/register?name=ada&email=ada@example.com") == 200
    daemon.wait_for("state:succeeded")
    assert ask(port, "POST", "/register?name=ada") == 200
    missed = only(daemon, "is:loose", "early_return.send_welcome_email")
    assert missed["verdict"] == "missed" and "POST /register" in missed["key"]


def test_a_session_closed_too_early(daemon: Daemon, start: Any) -> None:
    _, port = start("closed_session")
    assert ask(port, "POST", "/login/7") == 200
    failed = only(daemon, "is:loose", "closed_session.update_last_login")
    assert failed["error"]["message"] == "Cannot operate on a closed database." and failed["args"]["user_id"] == 7
