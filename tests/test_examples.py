"""The examples are services: they run, refuse bad input in words, and the demonstration finds everything it loses."""

from __future__ import annotations

import json
import re
import signal
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

import harness
from harness import ROOT

EXAMPLES = ROOT / "examples"
SECRET = "whsec_bm90IGEgc2VjcmV0LCBtYWtlIHlvdXIgb3duIG9uZSE="
NOTICE = {
    "type": "looseends.incident.opened",
    "data": {"incident": {"title": "1 task lost", "url": "http://x/"}, "tasks": [{"name": "mail", "reason": "killed"}]},
}


def signed(body: bytes, webhook_id: str, secret: str = SECRET) -> dict[str, str]:
    """The headers of a Standard Webhook, made by the package that the receiver verifies with."""
    now = datetime.now(UTC)
    signature = Webhook(secret).sign(webhook_id, now, body.decode())
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
        "Content-Type": "application/json",
    }


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The status of the answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture
def receiver(processes: harness.Processes, tmp_path: Path) -> tuple[harness.Process, str, Path]:
    """The receiver on a free port: process, address, file it appends to."""
    file = tmp_path / "notices.jsonl"
    options = ["--port", "0", "--secret", SECRET, "--append", str(file)]
    process = processes.start(sys.executable, EXAMPLES / "webhook_receiver.py", *options)
    return process, process.wait_for(r"listening on (\S+)")[1], file


def test_the_receiver_takes_what_is_signed_and_says_what_happened(
    receiver: tuple[harness.Process, str, Path],
) -> None:
    process, url, file = receiver
    body = json.dumps(NOTICE).encode()
    assert post(url, body, signed(body, "msg_1")) == 204
    process.wait_for("incident.opened: 1 task lost")
    process.wait_for("mail.*killed")
    harness.wait_until(file.exists, "the line in the file")
    assert json.loads(file.read_text())["notice"] == NOTICE


def test_the_receiver_acts_once_on_a_notice_that_comes_twice(receiver: tuple[harness.Process, str, Path]) -> None:
    process, url, file = receiver
    body = json.dumps(NOTICE).encode()
    headers = signed(body, "msg_1")
    assert [post(url, body, headers), post(url, body, headers)] == [204, 204]
    assert post(url, body, signed(body, "msg_2")) == 204
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == ["msg_1", "msg_2"]


@pytest.mark.parametrize("wrong", ["secret", "body", "no signature", "not JSON", "too large"])
def test_the_receiver_refuses_what_our_daemon_did_not_sign(receiver: tuple[harness.Process, str, Path], wrong: str) -> None:
    _, url, file = receiver
    body = b"\xff" if wrong == "not JSON" else json.dumps(NOTICE).encode()
    headers = signed(b"{}" if wrong == "not JSON" else body, "msg_1", "whsec_b3RoZXI=" if wrong == "secret" else SECRET)
    if wrong == "body":
        body = body.replace(b"lost", b"fine")
    if wrong == "no signature":
        del headers["webhook-signature"]
    if wrong == "too large":
        body = b" " * (65 << 10)
    assert post(url, body, headers) == (413 if wrong == "too large" else 401)
    assert not file.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "a secret is needed"),
        (["--secret", "whsec_"], "must be whsec_ and base64"),
        (["--secret", SECRET, "--port", "99999"], "--port"),
    ],
)
def test_the_receiver_refuses_wrong_usage_in_one_line(processes: harness.Processes, options: list[str], said: str) -> None:
    process = processes.start(sys.executable, EXAMPLES / "webhook_receiver.py", *options)
    assert process.wait() == 2
    assert said in process.output and "Traceback" not in process.output


SETTLED = {"name": "mail", "key": "order-7", "verdict": "lost", "settled": "replayed", "reason": "killed"}


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ({"name": "mail", "verdict": "stuck", "reason": "no end within 1 s"}, "    mail: stuck, no end within 1 s"),
        ({"name": "mail", "state": "failed", "reason": "failed for good: OSError"}, "    mail: failed for good: OSError"),
        ({"name": "mail", "verdict": "never_started", "reason": "never started: dropped"}, "    mail: never started: dropped"),
        (SETTLED, "    mail order-7: settled, replayed (was: lost, killed)"),
        ({"name": "mail", "verdict": None, "settled": "finished_late", "reason": None}, "    mail: settled, finished late"),
    ],
)
def test_the_receiver_says_what_became_of_a_task(
    receiver: tuple[harness.Process, str, Path], task: dict[str, object], line: str
) -> None:
    process, url, _ = receiver
    where = {"url": None, "host": "web-3", "command": "curl --unix-socket /x http://localhost/api/v1/incidents/1"}
    body = json.dumps(
        {"type": "looseends.incident.resolved", "data": {"incident": {**where, "title": "x"}, "tasks": [task]}}
    ).encode()
    assert post(url, body, signed(body, "msg_1")) == 204
    process.wait_for(re.escape(f"incident.resolved: x  on web-3: {where['command']}"))
    process.wait_for(f"^{re.escape(line)}$")


def test_the_receiver_says_which_package_it_wants(processes: harness.Processes) -> None:
    process = processes.start(sys.executable, "-S", EXAMPLES / "webhook_receiver.py")
    assert process.wait() == 1
    assert process.lines == ["this receiver verifies with the standardwebhooks package: python -m pip install standardwebhooks"]


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_says_what_it_is(processes: harness.Processes, name: str) -> None:
    process = processes.start(sys.executable, EXAMPLES / name, "--help")
    assert process.wait() == 0, process.output
    assert name.removesuffix(".py") in process.output


def test_the_receiver_ends_quietly_on_ctrl_c(receiver: tuple[harness.Process, str, Path]) -> None:
    process, _, _ = receiver
    process.signal(signal.SIGINT)
    assert process.wait() == 0
    assert "Traceback" not in process.output


def test_the_worker_does_its_lines_and_outlives_one_that_raises(processes: harness.Processes, port: int) -> None:
    env = {"LOOSEENDS_URL": f"http://127.0.0.1:{port}", "WORKER_STEP_S": "0.001"}
    process = processes.start(sys.executable, EXAMPLES / "worker.py", env=env, stdin=True)
    process.wait_for("reading lines")
    for line in ("report 2026-02-30", "sing a song", "report 2026-11-20", "thumbnail cat.png"):
        process.say(line)
    process.hang_up()
    assert process.wait(30) == 0, process.output
    assert "report 2026-02-30:" in process.output
    assert "cannot do 'sing a song': a line is report or thumbnail" in process.output


def test_the_demonstration_finds_every_loss_and_leaves_nothing_behind(processes: harness.Processes) -> None:
    process = processes.start(sys.executable, EXAMPLES / "demo.py", "--once")
    assert process.wait(90) == 0, process.output
    assert "Every loss was found and reported." in process.output


def test_the_demonstration_ends_everything_on_ctrl_c(processes: harness.Processes) -> None:
    """What it started is found by its mark: the `processes` fixture fails if anything is left."""
    process = processes.start(sys.executable, EXAMPLES / "demo.py")
    process.wait_for("are up", 30)
    process.signal(signal.SIGINT)
    assert process.wait(30) == 0, process.output
    assert "Traceback" not in process.output
