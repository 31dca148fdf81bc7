"""Who is not the daemon runs nothing: a rogue on the port, another user's daemon, one with a token but not its order key.

Real processes on both sides. The receipt of what ran is a file of its own; the rogue logs what it was asked.
"""

from __future__ import annotations

import logging
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

import harness
from daemon.replay.behind_doors import ID, SEND, Served

HERE = Path(__file__).parent
NOBODY = 65_534


class Scene:
    """A rogue at an address, and a service that talks to it."""

    def __init__(self, processes: harness.Processes, folder: Path) -> None:
        self.processes, self.log, self.charges = processes, folder / "asked", folder / "charges"
        self.spool = folder / "spool"

    def play(self, address: str, url: str, *, uid: int | None = None, **env: str) -> harness.Process:
        """Both, until the service has looked for orders three times, or been told three times that one waits."""
        words = (sys.executable, HERE / "rogue.py", address, self.log, str(uuid.uuid4()))
        self.processes.start(*words, *([str(uid)] if uid is not None else [])).wait_for("rogue is up")
        told = {"LOOSEENDS_URL": url, "LOOSEENDS_SPOOL_DIR": str(self.spool), "CHARGES": str(self.charges), **env}
        service = self.processes.start(sys.executable, HERE / "chargeable.py", env=told, stdin=True)
        service.wait_for("service is up")
        harness.wait_until(lambda: self.asked("heartbeat") >= 3 or self.asked("result"), "three heartbeats")
        return service

    def asked(self, what: str) -> int:
        return sum(what in line for line in self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def scene(processes: harness.Processes, tmp_path: Path) -> Scene:
    return Scene(processes, tmp_path)


def test_a_rogue_on_the_port_gets_nothing_run_and_a_line_is_logged(scene: Scene) -> None:
    port = harness.free_port()
    service = scene.play(f"127.0.0.1:{port}", f"http://127.0.0.1:{port}")
    assert not scene.charges.exists() and scene.asked("/claim") == 0
    assert "this connection proves nothing" in service.output
    service.hang_up()


def test_nor_does_one_that_has_the_token_but_not_its_order_key(scene: Scene) -> None:
    port = harness.free_port()
    service = scene.play(f"127.0.0.1:{port}", f"http://127.0.0.1:{port}", LOOSEENDS_TOKEN="in_1.secret.orderkey")
    assert not scene.charges.exists() and scene.asked("/claim") == 1, "an order id is tried once"
    assert "its mac is missing or wrong" in service.output
    assert "orderkey" not in scene.log.read_text()
    service.hang_up()


@pytest.mark.skipif(os.geteuid() != 0, reason="ANOTHER USER'S DAEMON DID NOT RUN: only root can play two users")
def test_nor_does_the_daemon_of_another_user_behind_a_socket(scene: Scene, state_dir: Path) -> None:
    path = f"{state_dir}/rogue.sock"
    service = scene.play(f"unix:{path}", f"unix:{path}", uid=NOBODY)
    assert not scene.charges.exists() and scene.asked("/claim") == 0
    assert "this connection proves nothing" in service.output
    service.hang_up()


def test_the_same_scene_charges_when_the_daemon_is_ones_own(scene: Scene, state_dir: Path) -> None:
    """The harness can fail: behind a socket of our own user, the same answers do run the function."""
    path = f"{state_dir}/own.sock"
    service = scene.play(f"unix:{path}", f"unix:{path}")
    harness.wait_until(scene.charges.exists, "the charge")
    service.hang_up()


async def test_a_token_of_another_service_takes_no_order_and_settles_nothing(served: Served, caplog: Any) -> None:
    logging.getLogger("looseends.orders").filters.clear()  # it says each thing once a minute, whichever test it was
    task = await served.lost_task()
    order = (await served.world.commands.replay_task(task, served.world.operator)).items[0].id
    evil = await served.token("ingest", "evil")
    other = "01234567-89ab-8def-8123-0000000000ee"
    assert (await served.call("POST", "/events", {"instance": {"id": other, "service": "evil"}}, token=evil))[0] == 200
    assert (await served.call("PUT", f"/instances/{other}/functions", [SEND], token=evil))[0] == 200
    assert (await served.call("GET", f"/instances/{other}/orders", token=evil))[1]["items"] == []
    for instance, status in ((other, 409), (ID, 403)):
        assert (await served.call("POST", f"/orders/{order}/claim", {"instance": instance}, token=evil))[0] == status
    events = [{"type": kind, "task": order, "name": "mail.send"} for kind in ("started", "finished")]
    told = (await served.call("POST", "/events", {"instance": {"id": other, "service": "evil"}, "events": events}, token=evil))[1]
    assert told["accepted"] == 0 and len(told["rejected"]) == 2 and "order" in told["rejected"][0]["detail"]
    (row,) = await served.world.rows("SELECT state FROM replay_order")
    assert row["state"] == "waiting" and await served.world.rows("SELECT 1 FROM task WHERE settled IS NOT NULL") == []
    assert "tried to tell of an order that is not theirs" in caplog.text
    assert "tried to claim an order that is not theirs" in caplog.text
