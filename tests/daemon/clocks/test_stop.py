"""A daemon that is stopped judges nothing behind closed doors: what falls due then is told to the next one, in time."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from living import Living

import harness

TOLD = {"id": "web-1", "service": "shop"}
STOP_S = 3.0


def stopped_while_a_task_falls_due(processes: harness.Processes, folder: Path, fault: str | None) -> Living:
    """A task has a second to go when the daemon is stopped, which takes 3 s, since somebody holds a door."""
    living = Living(processes, folder, grace="200ms", stop=f"{STOP_S:g}s", fault=fault)
    living.start()
    connection, slow = living.connect(), living.connect()
    started = {"type": "started", "task": "nightly", "name": "n", "deadline": 1.5}
    living.ask("POST", "/api/v1/events", {"instance": TOLD, "events": [started]}, by=connection)
    slow.sock.sendall(b"POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    time.sleep(0.5)
    living.beat("web-1", by=connection)
    assert living.process is not None
    living.process.signal(signal.SIGTERM)
    began = time.monotonic()
    living.process.wait()
    assert time.monotonic() - began > STOP_S * 0.8, "nobody held the door"
    connection.close()
    slow.close()
    return living


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_falls_due_while_the_doors_are_closed_is_not_judged(processes: harness.Processes, state_dir: Path) -> None:
    living = stopped_while_a_task_falls_due(processes, state_dir, None)
    assert living.judgements() == []
    living.start()
    ended = {"type": "finished", "task": "nightly", "name": "n", "duration": 1.2, "at": time.time_ns()}
    living.ask("POST", "/api/v1/events", {"instance": TOLD, "events": [ended]})
    harness.wait_until(lambda: living.count("state:succeeded") == 1, "its end to be known", 10)
    assert living.judgements() == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_daemon_that_judges_behind_closed_doors_is_caught(processes: harness.Processes, state_dir: Path) -> None:
    living = stopped_while_a_task_falls_due(processes, state_dir, "late_judges")
    assert [what for what, _ in living.judgements()] == ["verdict"]
