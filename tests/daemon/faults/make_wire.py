"""Makes `client-<version>.json` and `daemon-<version>.json`: what this version's client says, and what its daemon answers.

    PYTHONPATH=tests python tests/daemon/faults/make_wire.py

Rules: both are recorded between a real service and a real daemon, so that every later version can be held to them. The files of
a released version are never made again: a later version gets files of its own beside them.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from between import Between, Exchange
from faulty import Faulty, Service

import harness
from looseends import __version__

WIRE = harness.ROOT / "tests/fixtures/wire"
LINES = ("run 3", "fail 2", "progress", "expect", "cancel", "open 1")


def kind_of(exchange: Exchange) -> str:
    """What an exchange is about, without ids: "PUT heartbeat", "POST events"."""
    return f"{exchange.method} {exchange.path.rsplit('/', 1)[-1]}" if exchange.method != "DELETE" else "DELETE instance"


def session(faulty: Faulty, between: Between) -> dict[str, str]:
    """A service's life with everything in it, a replay too; the states of its tasks at the end."""
    one = Service(faulty, between.path)
    for line in LINES:
        one.do(line)
        one.send()
    task = faulty.get("tasks?q=name:mail.double&limit=1")["items"][0]["id"]
    harness.wait_until(lambda: any(kind_of(exchange) == "PUT functions" for exchange in between.exchanges), "its functions")
    status, answer = faulty.ask(
        "POST", f"/api/v1/tasks/{task}/replay", {"note": "again", "confirm": ["ended_well"]}, operator=True
    )
    assert status == 202, answer
    harness.wait_until(lambda: faulty.get(f"tasks/{task}")["replays"], "the replay to be told of")
    harness.wait_until(lambda: any(kind_of(exchange) == "POST result" for exchange in between.exchanges), "its outcome")
    beats = len(between.exchanges)
    harness.wait_until(lambda: len(between.exchanges) > beats, "a heartbeat")
    one.send()
    one.end()
    return faulty.states()


def cleaned(value: Any) -> Any:
    """Without what only this machine knows."""
    text = json.dumps(value).replace(str(harness.ROOT), "/srv/shop").replace(f'"{os.uname().nodename}"', '"web-1"')
    return json.loads(text)


def write(name: str, document: Any) -> None:
    """One file."""
    path = WIRE / f"{name}-{__version__}.json"
    path.write_text(json.dumps(cleaned(document), indent=1) + "\n")
    print(f"{path} ({path.stat().st_size:,} bytes)")


def main() -> None:
    """Record a session and write it down from both sides."""
    with tempfile.TemporaryDirectory(prefix="le-") as folder:
        processes = harness.Processes({**os.environ, "XDG_STATE_HOME": folder})
        faulty = Faulty(processes, Path(folder))
        faulty.start()
        between = Between(f"{folder}/between", faulty.socket)
        try:
            states = session(faulty, between)
        finally:
            between.close()
            processes.end_all()
    asked = [{"method": one.method, "path": one.path, "body": one.asked, "status": one.status} for one in between.exchanges]
    write("client", {"requests": asked, "accepted": between.total("accepted"), "states": states})
    answers: dict[str, list[Any]] = {}
    for one in between.exchanges:
        answers.setdefault(kind_of(one), []).append({"status": one.status, "body": one.answered})
    write("daemon", answers)


if __name__ == "__main__":
    main()
