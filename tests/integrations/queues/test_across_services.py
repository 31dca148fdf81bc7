"""Producer and worker are services of their own, each with a token of its own, and either may be heard first."""

from __future__ import annotations

import http.client
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from stage import CONFIG

from harness import Processes, free_port

DONE = ("scheduled", "shop"), ("started", "work"), ("finished", "work")


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (1, 0, 2)])
def test_a_queue_joins_what_two_services_tell_in_any_order(processes: Processes, state_dir: Path, order: tuple[int, ...]) -> None:
    port, folder = free_port(), state_dir
    config = folder / "config.toml"
    config.write_text(CONFIG.format(port=port, socket=folder / "s.sock", folder=folder))
    processes.start(sys.executable, "-m", "looseends.cli", "serve", "-c", config).wait_for("looseends is running")
    tokens = {service: token_for(processes, config, service) for service in ("shop", "work")}
    task, now = str(uuid.uuid4()), time.time_ns()
    events = [event(task, kind, now + n) for n, (kind, _) in enumerate(DONE)]
    for n in order:
        service = DONE[n][1]
        status, body = post(port, tokens[service], service, events[n])
        assert status == 200 and body["rejected"] == [], body
    operator = (folder / "looseends.db.token").read_text().strip()
    row = ask(port, operator, "GET", f"/api/v1/tasks/{task}")[1]
    assert (row["state"], row["service"], row["queue"], row["scheduled_at"] is None) == ("succeeded", "work", "mails", False)


def event(task: str, kind: str, at: int) -> dict[str, Any]:
    """One event of a queued task."""
    body = {"queue": "mails"} if kind in ("scheduled", "started") else {}
    return {"type": kind, "task": task, "name": "mail.send", "at": at, **body}


def token_for(processes: Processes, config: Path, service: str) -> str:
    """An ingest token that is bound to one service."""
    command = ("-m", "looseends.cli", "token", "create", "--role", "ingest", "--service", service, "-c", config)
    made = processes.start(sys.executable, *command)
    assert made.wait() == 0, made.output
    return ".".join(made.lines[-1].split(".")[:2])


def post(port: int, token: str, service: str, told: dict[str, Any]) -> tuple[int, Any]:
    """What one instance of a service tells."""
    instance = {"id": str(uuid.uuid5(uuid.NAMESPACE_DNS, service)), "service": service, "host": "h", "pid": 1}
    return ask(port, token, "POST", "/api/v1/events", {"instance": instance, "events": [told]})


def ask(port: int, token: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """One request with a token."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()
