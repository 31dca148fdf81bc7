"""Requests at a steady rate that waits for nobody, every answer checked, in a process of its own.

    python load.py PORT FIRST COUNT RATE      prints {"answers", "wrong", "p50_ms", "p99_ms", "max_ms", "seconds"}

Rules: the time of a request counts from when it was due, not from when there was room to send it: a service that stalls is not
asked less often, and does not look better for it. `select` knows microseconds; asyncio's timers round up to a millisecond.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import Any

CONNECTIONS = 32
WAIT_S = 30.0
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"


def expected(number: int) -> dict[str, Any]:
    """What served.py answers for this number, audited or not."""
    if number % 50 == 49:
        return {"error": f"no {number}"}
    return {"number": number, "twice": number * 2, "customer": "ada@example.com", "total": number / 4}


class Connection:
    """One kept connection: a request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number, self.due = -1, 0.0
        self._seen = b""

    def ask(self, number: int, due: float) -> None:
        """Send the request for this number."""
        self.number, self.due, self._seen = number, due, b""
        self.socket.sendall(b"GET /do/%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % number)

    def hear(self) -> bytes | None:
        """The body, once it is whole. Raises ConnectionError where the service hung up."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the service closed a connection")
        self._seen += data
        head, found, body = self._seen.partition(HEAD_END)
        if not found:
            return None
        size = next(int(line[len(LENGTH) :]) for line in head.lower().split(b"\r\n") if line.startswith(LENGTH))
        return body if len(body) >= size else None


def run(port: int, first: int, count: int, rate: float) -> dict[str, Any]:
    """Ask for `count` numbers from `first` on, `rate` a second; wait for every answer, at most WAIT_S after the last was due."""
    connections = {one.socket: one for one in (Connection(port) for _ in range(CONNECTIONS))}
    free, wrong = list(connections.values()), 0
    took: list[float] = []
    begun = time.perf_counter() + 0.01
    asked = 0
    while len(took) < count:
        now = time.perf_counter()
        while free and asked < count and begun + asked / rate <= now:
            free.pop().ask(first + asked, begun + asked / rate)
            asked += 1
        if now > begun + count / rate + WAIT_S:
            break
        pause = max(0.0, begun + asked / rate - now) if free and asked < count else 0.05
        for ready in select.select(list(connections), [], [], pause)[0]:
            one = connections[ready]
            body = one.hear()
            if body is not None:
                took.append((time.perf_counter() - one.due) * 1e3)
                wrong += json.loads(body) != expected(one.number)
                free.append(one)
    for one in connections.values():
        one.socket.close()
    return summary(sorted(took), wrong, time.perf_counter() - begun)


def summary(took: list[float], wrong: int, seconds: float) -> dict[str, Any]:
    """The slice in a line."""
    answers = len(took)
    return {
        "answers": answers,
        "wrong": wrong,
        "p50_ms": took[answers // 2] if took else None,
        "p99_ms": took[min(answers - 1, answers * 99 // 100)] if took else None,
        "max_ms": took[-1] if took else None,
        "seconds": seconds,
    }


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))), flush=True)
