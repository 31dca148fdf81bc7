"""What systemd hears: the datagrams of a real daemon on a real socket, and silence while something hangs."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import ROOT, wait_until
from looseends_daemon.services import shell
from looseends_daemon.services.shell import Loop
from looseends_daemon.systemd import Systemd, Watchdog
from receivers import configuration

UNIT = ROOT / "deploy" / "looseends.service"


@pytest.fixture
def ear(state_dir: Path) -> Iterator[socket.socket]:
    """The socket that systemd would listen on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(state_dir / "notify"))
        sock.settimeout(30)
        yield sock


def hear(ear: socket.socket, until: str) -> list[str]:
    """Every datagram up to the first that begins so."""
    heard: list[str] = []
    while not heard or not heard[-1].startswith(until):
        heard.append(ear.recv(4096).decode())
    return heard


def test_a_daemon_says_ready_alive_reloading_and_stopping(processes: Any, state_dir: Path, ear: socket.socket) -> None:
    env = {"NOTIFY_SOCKET": ear.getsockname(), "WATCHDOG_USEC": "600000"}
    serve = (sys.executable, "-m", "looseends.cli", "serve", "-c", configuration(state_dir, 0))
    daemon = processes.start(*serve, env=env)
    first = ear.recv(4096).decode()
    assert first.startswith("READY=1\nSTATUS=listening on http://127.0.0.1:"), "nothing is said before the doors are open"
    assert hear(ear, "WATCHDOG=1")[-1] == "WATCHDOG=1"
    hear(ear, "WATCHDOG=1")
    daemon.signal(signal.SIGHUP)
    begun = hear(ear, "RELOADING=1")[-1]
    assert 0 < int(re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", begun)[1]) <= time.monotonic_ns() // 1000  # type: ignore[index]
    assert hear(ear, "READY=1")[-1] == "READY=1\nSTATUS=reloaded: nothing changed"
    daemon.signal(signal.SIGTERM)
    hear(ear, "STOPPING=1")
    assert daemon.wait(20) == 0


def test_a_daemon_that_is_frozen_feeds_no_watchdog(processes: Any, state_dir: Path, ear: socket.socket) -> None:
    env = {"NOTIFY_SOCKET": ear.getsockname(), "WATCHDOG_USEC": "300000"}
    serve = (sys.executable, "-m", "looseends.cli", "serve", "-c", configuration(state_dir, 0))
    daemon = processes.start(*serve, env=env)
    hear(ear, "WATCHDOG=1")
    daemon.signal(signal.SIGSTOP)
    ear.settimeout(0.5)
    with pytest.raises(TimeoutError):
        hear(ear, "never said")
    daemon.signal(signal.SIGCONT)
    ear.settimeout(30)
    hear(ear, "WATCHDOG=1")


async def test_a_loop_that_hangs_is_not_called_alive_and_one_that_fails_is(
    ear: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shell, "TURN_S", 0.2)
    for_ever = asyncio.Event()

    async def hangs(now: int) -> None:
        await for_ever.wait()

    async def fails(now: int) -> None:
        raise ValueError("planted")

    loops = [Loop("hangs", hangs, idle_s_max=0.01), Loop("fails", fails, idle_s_max=0.1)]
    watchdog = Watchdog(
        Systemd({"NOTIFY_SOCKET": ear.getsockname()}, 1), lambda: [loop.name for loop in loops if not loop.turning()]
    )
    await watchdog.run_once(0)
    assert ear.recv(100) == b"WATCHDOG=1", "loops that have not begun hang nowhere"
    loops[0].start()
    await asyncio.to_thread(wait_until, lambda: not loops[0].turning(), "the loop to hang", 10)
    ear.setblocking(False)
    for _ in range(3):
        await watchdog.run_once(0)
    with pytest.raises(BlockingIOError):
        ear.recv(100)
    assert [record.message for record in caplog.records] == ["hangs: hanging; systemd's watchdog is not fed until this ends"]
    for_ever.set()
    await loops[0].stop()
    loops.pop(0)
    loops[0].start()
    await asyncio.to_thread(wait_until, lambda: loops[0].errors, "the loop to fail", 10)
    await watchdog.run_once(0)
    assert ear.recv(100) == b"WATCHDOG=1", "what fails goes round: a restart mends no full disk"
    await loops[0].stop()


def test_an_abstract_socket_is_one_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind("")  # the kernel chooses an abstract name
        ear.settimeout(5)
        Systemd({"NOTIFY_SOCKET": "@" + ear.getsockname()[1:].decode()}, 1).ready("two\nlines=1")
        assert ear.recv(100) == b"READY=1\nSTATUS=two lines=1"


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000"}, 10.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 10.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1"}, 0.1),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, None),
        ({"NOTIFY_SOCKET": "/x"}, None),
        ({"WATCHDOG_USEC": "30000000"}, None),
    ],
)
def test_how_often_the_watchdog_is_fed(environ: dict[str, str], seconds: float | None) -> None:
    assert Systemd(environ, 7).watchdog_s == seconds


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "relative", "@" + "x" * 200, "/a\0b"])
def test_a_socket_that_cannot_be_reached_stops_nobody(address: str, caplog: pytest.LogCaptureFixture) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": address}, 1)
    for _ in range(3):
        systemd.alive()
    assert len(caplog.records) == (1 if address else 0)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit_and_calls_it_well_confined(tmp_path: Path) -> None:
    unit = tmp_path / "looseends.service"
    unit.write_text(re.sub(r"/opt/looseends/bin/looseends", str(Path(sys.executable).parent / "looseends"), UNIT.read_text()))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "looseends" in line]
    assert (done.returncode, ours) == (0, [])
    checked = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", unit], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout[-500:] + checked.stderr
    print(checked.stdout.splitlines()[-1])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_a_planted_fault_in_the_unit_is_found(tmp_path: Path) -> None:
    unit = tmp_path / "looseends.service"
    unit.write_text(UNIT.read_text().replace("/opt/looseends/bin/looseends", "/nowhere/looseends"))
    assert subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, timeout=60).returncode != 0
