"""A generator of load in a process of its own: several connections, each with one batch on its way, as fast as answers come.

    python bench/load.py ADDRESS --batch 100 --connections 8 --seconds 2      ADDRESS: 127.0.0.1:PORT or unix:PATH

Bodies are made before the clock starts. Every task ends in the batch after the one that told of its start, so each is written
twice. Prints one line of JSON: events and seconds, the time of each answer in microseconds, and the CPU it used itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import selectors
import socket
import sys
import time
from typing import Any

from kit import end_of, new_instance, percentile, start_of

READ_BYTES = 1 << 16


def bodies(count: int, batch: int, *, bare: bool = False, first: int = 0) -> list[bytes]:
    """`count` bodies of one instance; `bare`: single events without an instance, as a shell user posts them."""
    now, number, instance = time.time_ns(), first, new_instance()
    open_: list[dict[str, Any]] = []
    made = []
    for _ in range(count):
        events = [end_of(start, now - 1_000_000) for start in open_]
        open_ = []
        while len(events) < batch and len(open_) < max(1, batch // 2):
            number += 1
            open_.append(start_of(number, now - 9_000_000 + number))
            events.append(open_[-1])
        if bare:
            said: Any = {**events[0], "service": "shop-web"}
            del said["seq"]
        else:
            said = {"instance": instance, "sent_at": now, "backlog": 0, "events": events}
        made.append(json.dumps(said, separators=(",", ":")).encode())
    return made


class Caller:
    """One kept connection with its own bodies. `took`: seconds of each answer."""

    def __init__(self, address: str, made: list[bytes], path: str) -> None:
        if address.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            self.sock = socket.create_connection((host, int(port)))
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        self._made = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in made]
        self._next, self._sent, self._got = 0, 0.0, b""
        self.took: list[float] = []

    def send(self) -> bool:
        """The next body; False: there is none left."""
        if self._next >= len(self._made):
            return False
        self._got, self._sent = b"", time.perf_counter()
        self.sock.sendall(self._made[self._next])
        self._next += 1
        return True

    def take(self) -> bool:
        """Read what came; whether the answer is whole. Raises SystemExit for any other answer than 200."""
        self._got += self.sock.recv(READ_BYTES)
        head, _, body = self._got.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"answered with {self._got[:400]!r}")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) < length:
            return False
        self.took.append(time.perf_counter() - self._sent)
        return True


def run(callers: list[Caller], seconds: float) -> tuple[int, float]:
    """Until time or bodies run out, then wait for what is on its way: answers, seconds."""
    chooser, waiting = selectors.DefaultSelector(), len(callers)
    began = time.perf_counter()
    for caller in callers:
        chooser.register(caller.sock, selectors.EVENT_READ, caller)
        caller.send()
    until, answers = began + seconds, 0
    while waiting:
        for key, _ in chooser.select():
            caller = key.data
            if not caller.take():
                continue
            answers += 1
            if time.perf_counter() >= until or not caller.send():
                chooser.unregister(caller.sock)
                waiting -= 1
    return answers, time.perf_counter() - began


def main() -> int:
    """Send, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=100_000.0, help="events a second for which bodies are made")
    parser.add_argument("--bare", action="store_true", help="single events without an instance")
    parser.add_argument("--path", default="/api/v1/events")
    given = parser.parse_args()
    each = max(2, int(given.rate * given.seconds / given.batch / given.connections))
    callers = [
        Caller(given.address, bodies(each, given.batch, bare=given.bare, first=n * 10_000_000), given.path)
        for n in range(given.connections)
    ]
    gc.collect()
    gc.disable()
    print("ready", flush=True)
    sys.stdin.readline()
    cpu = time.process_time()
    answers, seconds = run(callers, given.seconds)
    took = [one for caller in callers for one in caller.took]
    result = {
        "answers": answers,
        "events": answers * given.batch
        - given.connections * (given.batch - max(1, given.batch // 2)),  # the first tell of starts
        "seconds": seconds,
        "p50_us": percentile(took, 0.5) * 1e6,
        "p99_us": percentile(took, 0.99) * 1e6,
        "cpu": time.process_time() - cpu,
    }
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
