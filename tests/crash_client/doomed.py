"""A program that runs audited tasks as fast as it can until it is killed: doomed.py KIND ACKS.

plain     one thread
threads   four threads that change places all the time
forks     two threads, and children forked while these are at work, each with a thread of its own; some children leave early
signals   one thread, and a signal handler that runs tasks in the middle of its tasks
sent      two threads that pause, so that a receiver keeps up and drained segments go

ACKS is a mapped file of cells, one a worker: how many tasks it began, how many of its calls came back, how many of its tasks
have no record. A task's body writes its number first thing: from there on its start may not be lost, and from the call's return
on its end may not. Each number is set by one assignment of eight bytes. CRASH_CLIENT names another client (queued.py).
"""

from __future__ import annotations

import importlib
import mmap
import os
import signal
import sys
import threading
import time
from typing import Any

from crash_client.cells import CELL_BYTES, FAILS, FILE_BYTES, FORKS_MAX, WORD, text_of

kind, path = sys.argv[1:]
client: Any = importlib.import_module(os.environ.get("CRASH_CLIENT", "looseends"))
acks = mmap.mmap(os.open(path, os.O_RDWR), FILE_BYTES)
if "DOOMED_FILE_BYTES" in os.environ:  # where no small disk can be had
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["DOOMED_FILE_BYTES"]),) * 2)


@client.task(name="doomed.work")  # type: ignore[untyped-decorator]
def work(worker: int, number: int, text: str) -> None:
    """The body of a task: it has begun, and says so."""
    at = worker * CELL_BYTES
    if getattr(client.current(), "segment", acks) is None:
        acks[at + 16 : at + 24] = WORD.pack(WORD.unpack(acks[at + 16 : at + 24])[0] + 1)
    acks[at : at + 8] = WORD.pack(number)
    if number % FAILS == 0:
        raise ValueError(f"planted {number}")


def call(worker: int, number: int) -> None:
    """One task, begun and ended."""
    try:
        work(worker, number, text_of(number))
    except ValueError:
        if number % FAILS:
            raise
    acks[worker * CELL_BYTES + 8 : worker * CELL_BYTES + 16] = WORD.pack(number)


def loop(worker: int, pause_each: int = 0, last: int = 1 << 62) -> None:
    """Task after task."""
    for number in range(1, last):
        call(worker, number)
        if pause_each and number % pause_each == 0:
            time.sleep(0.001)


def in_thread(worker: int, pause_each: int = 0) -> None:
    """A worker of its own."""
    threading.Thread(target=loop, args=(worker, pause_each), daemon=True).start()


def forks() -> None:
    """Children, one after the other; every second one leaves as a killed worker of a pool does, without a word."""
    in_thread(0)
    in_thread(1)
    for child in range(FORKS_MAX):
        time.sleep(0.004)
        if os.fork() == 0:
            loop(2 + child, last=1 << 62 if child % 2 else 400)
            os._exit(0)
    loop(2 + FORKS_MAX)


def signals() -> None:
    """Tasks that interrupt tasks."""
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        call(1, handled)
        signal.setitimer(signal.ITIMER_REAL, 0.0005)  # armed anew only now: handlers must not pile up on a slow machine

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    loop(0)


def threads() -> None:
    """Four at once."""
    sys.setswitchinterval(1e-5)
    for worker in range(1, 4):
        in_thread(worker)
    loop(0)


def sent() -> None:
    """Two, at a pace."""
    in_thread(1, 10)
    loop(0, 10)


client.init(service="doomed")
print("up", flush=True)
{"plain": lambda: loop(0), "threads": threads, "forks": forks, "signals": signals, "sent": sent}[kind]()
