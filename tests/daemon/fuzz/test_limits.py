"""Many who send slowly, or rubbish, and what everybody else notices of it: the real daemon with its own limits."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode needs to be told where the town is

from fuzz_line import Case, Line
from fuzz_town import Town

SLOW = 400
ASKED = 30
HEAD = b"POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
FORM = b"application/x-www-form-urlencoded"
PACKED = gzip.compress(b" " * ((1 << 20) - 100), mtime=0)
BEGINNINGS = {
    "headers that never end": b"POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    "bodies that never end": HEAD + b"Content-Length: 100000\r\n\r\n[" + b" " * 90_000,
    "packed bodies of 1 MiB without their last byte": HEAD
    + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (len(PACKED) + 1)
    + PACKED,
    "pipelines whose answers nobody takes": b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nX: y\r\n\r\n" * 500,
}
MEMORY_KIB_MAX = 320 << 10
HELD_MIN = 50
"""Packed bodies make room for each other, so that 64 of the 400 stay; of all others all do."""
LINES_MAX = 40


@pytest.fixture
def town(processes: harness.Processes, state_dir: Path) -> Iterator[Town]:
    """A daemon that nobody has told anything."""
    with Town(processes, state_dir) as town:
        yield town


def ask(line: Line, number: int) -> float:
    """How long it takes until an event is on disk (s)."""
    event = {"type": "started", "task": f"run-{number}", "name": "mail.send", "service": "shop"}
    headers = ((b"Host", b"localhost"), (b"Content-Type", b"application/json"))
    began = time.monotonic()
    reply = line.ask(Case("", "POST", b"/api/v1/events", headers, json.dumps(event).encode()))
    assert reply.status == 200, reply
    return time.monotonic() - began


def held(town: Town) -> int:
    """How many files and connections the daemon holds open."""
    return len(list(Path(f"/proc/{town.process.pid}/fd").iterdir()))


@pytest.mark.parametrize("what", BEGINNINGS)
def test_four_hundred_slow_connections_hold_nobody_up(town: Town, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = held(town)
    with contextlib.ExitStack() as slow, Line(("127.0.0.1", town.port)) as line:
        quiet = sorted(ask(line, number) for number in range(ASKED))
        for _ in range(SLOW):
            sock = slow.enter_context(socket.create_connection(("127.0.0.1", town.port)))
            sock.settimeout(10)
            with contextlib.suppress(ConnectionError):  # one that made room for others is closed already
                sock.sendall(BEGINNINGS[what])
        first = ask(line, ASKED)
        during = sorted(ask(line, number) for number in range(ASKED + 1, 2 * ASKED))
        most, open_now = town.memory_kib()[1], held(town) - before
        with capsys.disabled():
            print(f"\n{SLOW} {what} ({open_now} connections held): the next request takes {first * 1e3:.0f} ms, then")
            print(f"  {_figures(during)}; without them {_figures(quiet)}; memory at most {most >> 10} MiB")
        assert open_now > HELD_MIN, "nobody was slow"
        assert most < MEMORY_KIB_MAX
        assert not town.bad_lines()


def _figures(delays: list[float]) -> str:
    return f"median {delays[len(delays) // 2] * 1e3:.1f} ms, at most {delays[-1] * 1e3:.0f} ms"


RUBBISH = (
    *(
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\n\r\n",
    ),
    *(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\n\r\n"),
    b"GET /api/v1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer op_x.wrong\r\n\r\n",
    b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\nContent-Length: 7\r\n\r\ntoken=x" % FORM,
    HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\njunk",
    HEAD + b"Content-Length: 4\r\n\r\n[[[[",
    HEAD + b"Content-Length: 100\r\n\r\n[",  # cut off in the middle of a body
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Expect: 200-maybe\r\nContent-Length: 2\r\n\r\n[]",
    b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\njunk",
    b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/v1/tasks?q=" + b"%00" * 100 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
)


def flood(town: Town, rounds: int) -> list[str]:
    """Send every kind of rubbish this often; what the daemon wrote meanwhile."""
    before = len(town.process.lines)
    for sent in itertools.islice(itertools.cycle(RUBBISH), rounds * len(RUBBISH)):
        with socket.create_connection(("127.0.0.1", town.port)) as sock:
            sock.settimeout(10)
            with contextlib.suppress(ConnectionError):
                sock.sendall(sent)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65_536):
                    pass
    with Line(town.socket) as line:
        ask(line, 1)
    return town.process.lines[before:]


def test_a_flood_of_bad_requests_does_not_flood_the_log(town: Town) -> None:
    said = flood(town, 100)
    assert 1 <= len(said) <= LINES_MAX, "\n".join(said[:100])
    assert not town.bad_lines()


def test_a_planted_log_that_tells_everything_is_found(processes: harness.Processes, state_dir: Path) -> None:
    with Town(processes, state_dir, "chatters") as town:
        assert len(flood(town, 30)) > LINES_MAX


@pytest.mark.parametrize("filling", [b"[],", b"{},", b'"",', b'{"a":[{}]},', b"0,"])
def test_a_body_full_of_tiny_values_is_refused_and_not_remembered(town: Town, filling: bytes) -> None:
    full = b'[{"type":"started","task":"a","name":"n","service":"s","args":[' + filling * (1_000_000 // len(filling))
    headers = ((b"Host", b"localhost"), (b"Content-Type", b"application/json"))
    with Line(town.socket) as line:
        for _ in range(5):
            reply = line.ask(Case("", "POST", b"/api/v1/events", headers, full[:-1] + b"]}]"))
            assert (reply.status, json.loads(reply.body)["accepted"]) == (422, 0)
        ask(line, 1)
    assert town.memory_kib()[1] < MEMORY_KIB_MAX
