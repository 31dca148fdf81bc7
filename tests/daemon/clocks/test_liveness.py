"""Who lives, on a real daemon with real connections and real processes: lock, connection, lease, and locks that lie."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from living import Living

import harness
from looseends.wire import NS
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.presence import Presence
from looseends_daemon.services.adopter import Adopter
from looseends_daemon.services.vigil import Vigil

TOLD = {"id": "web-1", "service": "shop"}
STARTED = {"type": "started", "task": "nightly", "name": "n", "deadline": "never"}


@pytest.fixture
def living(processes: harness.Processes, state_dir: Path) -> Living:
    living = Living(processes, state_dir, grace="500ms")
    living.start()
    time.sleep(0.6)  # in its grace it believes no hang-up
    return living


def test_who_hangs_up_and_does_not_come_back_is_gone_and_its_task_lost(living: Living) -> None:
    connection = living.connect()
    living.ask("POST", "/api/v1/events", {"instance": TOLD, "events": [STARTED]}, by=connection)
    living.beat("web-1", by=connection)
    began = time.monotonic()
    connection.close()
    harness.wait_until(lambda: living.instance("web-1")["state"] == "gone", "the instance to be gone", 10)
    assert 1.9 <= time.monotonic() - began < 5
    assert living.instance("web-1")["reason"].startswith("its connection ended at ")
    harness.wait_until(lambda: living.count("verdict:lost") == 1, "the verdict", 5)


def test_who_opens_a_connection_for_every_request_is_not_called_gone(living: Living) -> None:
    living.ask("POST", "/api/v1/events", {"instance": TOLD, "events": [STARTED]})
    kept = living.connect()
    told = {"id": "web-2", "service": "shop"}
    living.ask("POST", "/api/v1/events", {"instance": told, "events": []}, by=kept)
    living.beat("web-2", by=kept)
    kept.close()
    harness.wait_until(lambda: living.instance("web-2")["state"] == "gone", "the one that kept its connection to be gone", 10)
    assert living.instance("web-1")["state"] == "alive"


def test_who_comes_back_at_once_stays_alive(living: Living) -> None:
    connection = living.connect()
    living.ask("POST", "/api/v1/events", {"instance": TOLD, "events": [STARTED]}, by=connection)
    for _ in range(3):
        living.beat("web-1", by=connection)
        connection.close()
        connection = living.connect()
        time.sleep(1)
    living.beat("web-1", by=connection)
    assert living.instance("web-1")["state"] == "alive"
    connection.close()


@pytest.mark.parametrize("ending", ["in order", "with an error"])
def test_who_hangs_up_before_it_took_its_answer_has_lost_patience_and_not_its_life(living: Living, ending: str) -> None:
    connection = living.connect()
    living.ask("POST", "/api/v1/events", {"instance": TOLD, "events": [STARTED]}, by=connection)
    living.beat("web-1", by=connection)
    heard = living.instance("web-1")["last_heard_at"]
    connection.request("PUT", "/api/v1/instances/web-1/heartbeat", "{}", {"Content-Type": "application/json"})
    harness.wait_until(lambda: living.instance("web-1")["last_heard_at"] > heard, "the heartbeat to be heard", 5)
    time.sleep(0.2)  # by now it is answered, too
    if ending == "in order":
        connection.sock.shutdown(socket.SHUT_WR)
    else:
        connection.close()
    time.sleep(3)
    assert living.instance("web-1")["state"] == "alive"
    connection.close()


def test_a_daemon_that_was_stopped_says_so_and_calls_nobody_dead(living: Living) -> None:
    connection = living.connect()
    living.ask("POST", "/api/v1/events", {"instance": TOLD, "events": [STARTED]}, by=connection)
    living.beat("web-1", by=connection)
    os.kill(living.pid(), signal.SIGSTOP)
    connection.close()
    time.sleep(6.5)
    os.kill(living.pid(), signal.SIGCONT)

    def frozen() -> Any:
        return [one for one in living.ask("GET", "/api/v1/blind-windows")["items"] if one["cause"] == "frozen"]

    (window,) = harness.wait_until(frozen, "the window of the freeze", 10)  # type: ignore[misc]
    assert "was stopped or this machine asleep" in window["reason"]
    time.sleep(2.5)
    assert living.instance("web-1")["state"] == "alive", "a connection that ended while we could not look is no sign"
    assert not living.ask("GET", "/api/v1/ledger")["complete"]


def test_a_daemon_that_was_killed_shows_how_long_it_was_away(living: Living) -> None:
    time.sleep(2.5)
    assert living.process is not None
    living.process.kill()
    living.process.wait()
    time.sleep(1.5)
    living.start()
    (window,) = living.ask("GET", "/api/v1/blind-windows")["items"]
    assert window["cause"] == "down" and "the daemon was not running" in window["reason"]


async def _lock_is_free(house: Any, tmp_path: Path) -> tuple[str, Path, Presence, Adopter]:
    """An instance with one running task that spoke once; nobody holds its journal's lock. Its id, folder, presence, adopter."""
    who = "01234567-89ab-8def-8123-456789abcdef"
    folder = tmp_path / "spool" / who
    folder.mkdir(parents=True, mode=0o700)
    (tmp_path / "spool").chmod(0o700)
    (folder / "lock").touch(0o600)
    (folder / "names").touch(0o600)
    (folder / "instance.json").write_text(f'{{"id": "{who}", "service": "shop"}}')
    os.utime(folder, (1, 1))
    await house.tell({**STARTED, "task": "00000000-0000-8000-8000-000000000001"}, instance=who)
    presence = Presence()
    vigil = Vigil(grace_s=1, boot_ns=house.clocks.boot_ns)
    adopter = Adopter(house.database, [str(tmp_path / "spool")], Policy(), vigil=vigil, presence=presence)
    presence.spoke(1, who, house.clocks.wall)
    return who, folder, presence, adopter


async def test_a_lock_that_is_free_while_its_process_speaks_is_not_believed(house: Any, tmp_path: Path) -> None:
    who, folder, presence, adopter = await _lock_is_free(house, tmp_path)
    for _ in range(5):
        house.clocks.pass_by(1)
        await adopter.run_once(house.clocks.wall)
    assert folder.exists(), "it may just have died: one more heartbeat decides"
    presence.spoke(1, who, house.clocks.wall + NS)
    await house.beat(who)
    for _ in range(40):
        house.clocks.pass_by(1)
        await house.beat(who)
        await adopter.run_once(house.clocks.wall)
    assert folder.exists() and adopter.adopted == 0
    instance = await house.reader.instance(who)
    assert instance.state == "alive" and "its journal's lock was free while it was connected" in instance.notes[-1]
    presence.ended(1, house.clocks.wall, by_peer=False, unanswered=False)
    for _ in range(40):
        house.clocks.pass_by(1)
        await adopter.run_once(house.clocks.wall)
    assert adopter.adopted == 1, "once its lease is over it is dead, and its journal is taken"


async def test_a_lock_that_is_free_because_its_process_died_is_believed_though_a_child_kept_the_connection(
    house: Any, tmp_path: Path
) -> None:
    who, _, _, adopter = await _lock_is_free(house, tmp_path)
    for _ in range(20):
        house.clocks.pass_by(1)
        await adopter.run_once(house.clocks.wall)
    assert adopter.adopted == 1
    assert (await house.reader.instance(who)).state == "gone"
