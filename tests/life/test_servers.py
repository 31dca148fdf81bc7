"""Servers that fork, load twice and reload: each process an instance of its own, nothing lost, nothing left behind, no alarm."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import Process, WaitedTooLong, free_port, wait_until

SERVICES = Path(__file__).with_name("services")


def get(port: int) -> bool:
    """Whether one request, on a connection of its own, was answered well."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        return answer.status == 200
    return False


def workers_of(house: Any, port: int, count: int) -> set[int]:
    """Ask until so many processes have answered; their pids."""

    def seen() -> set[int] | None:
        get(port)  # a worker that says it has started may not listen yet
        pids = {t["instance"]["pid"] for t in house.tasks("key:request")}
        return pids if len(pids) >= count else None

    found = wait_until(seen, f"answers of {count} workers", 30)
    assert isinstance(found, set)
    return found


def all_is_well(house: Any, *, instances: int) -> None:
    """Every task ended well, every instance said goodbye, no journal is left, nobody was alarmed."""
    wait_until(lambda: not any(one["state"] == "alive" for one in house.ask("/instances")["items"]), "all goodbyes")
    found = house.ask("/instances")["items"]
    assert len(found) == instances, [(one["pid"], one["reason"]) for one in found]
    assert {one["reason"] for one in found} == {"its process ended and said goodbye"}
    assert {task["state"] for task in house.tasks()} == {"succeeded"}
    assert len({one["pid"] for one in found}) == instances
    assert house.ask("/incidents")["items"] == []
    assert list((house.folder / "looseends" / "spool").iterdir()) == []


@pytest.mark.parametrize("preload", [False, True])
def test_gunicorn_prefork(house: Any, preload: bool) -> None:
    port, env = free_port(), {"LOOSEENDS_SERVICE": "server", "PYTHONPATH": str(SERVICES)}
    args = (
        "--workers",
        "2",
        "--bind",
        f"127.0.0.1:{port}",
        "--no-control-socket",
        *(["--preload"] if preload else []),
        "wsgi:app",
    )
    server = house.processes.start(sys.executable, "-m", "gunicorn", *args, env=env, cwd=house.folder)
    for _ in range(2):
        server.wait_for("Booting worker")
    pids = workers_of(house, port, 2)
    assert server.pid not in pids
    loaded = {task["instance"]["pid"] for task in house.tasks("key:load")}
    assert loaded == ({server.pid} if preload else pids)
    assert server.stop(20) == 0
    all_is_well(house, instances=3 if preload else 2)


def test_uvicorn_with_workers(house: Any) -> None:
    port = free_port()
    server = uvicorn(house, port, SERVICES, "--workers", "2")
    for _ in range(2):
        server.wait_for("Application startup complete")
    workers_of(house, port, 2)
    server.stop(20)
    all_is_well(house, instances=2)


def test_uvicorn_that_reloads(house: Any, tmp_path: Path) -> None:
    port = free_port()
    shutil.copy(SERVICES / "asgi.py", tmp_path)
    server = uvicorn(house, port, tmp_path, "--reload", "--reload-dir", str(tmp_path))
    server.wait_for("Application startup complete")
    first = workers_of(house, port, 1)
    change(tmp_path / "asgi.py", server)
    assert len(workers_of(house, port, 2) - first) == 1
    server.stop(20)
    all_is_well(house, instances=2)


def change(source: Path, server: Process) -> None:
    """Change a file until its reloader has noticed: what it sees at its first look is no change to it."""
    for _ in range(6):
        os.utime(source)
        with contextlib.suppress(WaitedTooLong):
            server.wait_for("Application startup complete", 5)
            return
    raise AssertionError(server.output)


def uvicorn(house: Any, port: int, folder: Path, *args: str) -> Process:
    """uvicorn of asgi.py in `folder`."""
    env = {"LOOSEENDS_SERVICE": "server", "PYTHONPATH": str(folder)}
    process: Process = house.processes.start(
        sys.executable, "-m", "uvicorn", "--port", str(port), *args, "asgi:app", env=env, cwd=folder
    )
    return process


def test_no_signal_handler_is_ours_and_importing_starts_no_thread(house: Any) -> None:
    service = house.service("signals.py")
    assert service.wait() == 0, service.output
    assert service.lines == ["unchanged"]


def test_work_at_the_interpreters_exit_is_recorded_before_and_after_our_goodbye(house: Any) -> None:
    service = house.service("at_exit.py")
    assert service.wait() == 0, service.output
    wait_until(lambda: len(house.tasks("state:succeeded")) == 3, "all three tasks")
    assert {task["key"] for task in house.tasks()} == {"before", "early", "late"}
    assert house.ask("/incidents")["items"] == []


def test_a_signal_that_ends_the_process_ends_it_as_ever(house: Any) -> None:
    service = house.service("hanging.py", "reading")
    service.wait_for("at work")
    os.kill(service.pid, signal.SIGTERM)
    assert service.wait() == -signal.SIGTERM
