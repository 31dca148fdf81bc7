"""A daemon that may open hardly any files: who is connected goes on, who comes is told or waits, and it ends with the crowd."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from http.client import HTTPConnection

from faulty import Faulty, started

import harness
from wired import unix_connection

LIMIT, CROWD = 64, 80


def open_descriptors(pid: int) -> int:
    """How many it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def come(faulty: Faulty) -> socket.socket:
    """Somebody who connects and says nothing."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(5)
    sock.connect(faulty.socket)
    return sock


def told(sock: socket.socket, timeout_s: float = 0.3) -> bytes:
    """What the daemon says unasked within a moment; nothing: it waits for a request, or was not accepted yet."""
    sock.settimeout(timeout_s)
    with contextlib.suppress(TimeoutError):
        return sock.recv(4_096)
    return b""


def post(faulty: Faulty, number: int, by: HTTPConnection | None = None) -> bool:
    """Whether one event was acknowledged."""
    try:
        return faulty.ask("POST", "/api/v1/events", started(number, 1, deadline="never"), by=by)[0] == 200
    except OSError:
        return False


def test_without_descriptors_who_is_connected_goes_on_and_who_comes_is_told_or_waits(faulty: Faulty) -> None:
    faulty.start(descriptors=LIMIT)
    pid = faulty.process.pid
    kept = unix_connection(faulty.socket)
    answered = [number for number in range(5) if post(faulty, number, kept)]

    crowd = [come(faulty) for _ in range(CROWD)]
    refused = [sock for sock in crowd if b" 503 " in told(sock, 0.05)]
    assert 0 < len(refused) < CROWD and open_descriptors(pid) < LIMIT, "the last descriptors are left for files"
    answered += [number for number in range(5, 10) if post(faulty, number, kept)]

    resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_descriptors(pid), LIMIT))  # now not even that
    late = come(faulty)
    before = os.times().elapsed, cpu_s(pid)
    for number in range(10, 15):
        answered += [number] if post(faulty, number, kept) else []
        time.sleep(0.5)
    assert told(late) == b"", "it waits in the queue of the system"
    busy = (cpu_s(pid) - before[1]) / (os.times().elapsed - before[0])
    assert answered == list(range(15)), "who was connected has noticed nothing"
    assert busy < 0.5, f"a daemon that cannot accept must not spend its time trying ({busy:.0%})"

    for sock in crowd:
        sock.close()
    harness.wait_until(lambda: post(faulty, 15), "somebody new to be served")
    assert post(faulty, 16, kept)
    late.close()
    kept.close()
    complaints = [line for line in faulty.process.lines if "out of system resource" in line]
    assert len(complaints) == 1, f"once a minute is enough: {len(complaints)}"
    assert len(faulty.states()) == 17
    faulty.stop()


def cpu_s(pid: int) -> float:
    """The processor time it has taken (s)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
