"""A service whose threads run audited tasks and write a receipt of each: service.py steady|doomed RECEIPT.

steady   three threads with short tasks and two with long ones; ends with its standard input: says what is unsent, then goodbye
doomed   three threads with short tasks, one that hangs in a task, and a forked child with the same; runs until it is killed

A receipt is one line, written by one write() to a file opened for appending: it survives the writer's SIGKILL. A task's body
writes its id first thing, so whatever stands in the receipt had begun, and was on record before that. CRASH_CLIENT names
another client (in_memory.py).
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
import threading
import time
from typing import Any

SHORT_THREADS, LONG_THREADS = 3, 2
SHORT_S, LONG_S = 0.003, 0.2
DEADLINE_S = 0.8
FLUSH_S = 30.0

mode, path = sys.argv[1:]
client: Any = importlib.import_module(os.environ.get("CRASH_CLIENT", "looseends"))
receipt = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
stopping = threading.Event()


def note(what: str, *more: object) -> None:
    """One line: what, our pid, when (monotonic s), and more."""
    words = " ".join(map(str, (what, os.getpid(), f"{time.monotonic():.6f}", *more)))
    os.write(receipt, f"{words}\n".encode())


@client.task(name="crash.square", deadline=DEADLINE_S)  # type: ignore[untyped-decorator]
def square(number: int, seconds: float) -> tuple[str, int]:
    """Some work with a result."""
    task = client.current().id
    note("began", task)
    time.sleep(seconds)
    return task, number * number


@client.task(name="crash.hang", deadline="never")  # type: ignore[untyped-decorator]
def hang() -> None:
    """Work that nobody sees the end of."""
    note("hangs", client.current().id)
    threading.Event().wait()


def work(first: int, seconds: float) -> None:
    """Square one number after the other; what a call gave, or raised, is noted when it is back."""
    for number in itertools.count(first, SHORT_THREADS + LONG_THREADS):
        if stopping.is_set():
            return
        try:
            task, result = square(number, seconds)
        except Exception as error:  # noqa: BLE001 - the receipt must say so: nothing may be raised here
            note("raised", "-", type(error).__name__, error)
        else:
            note("ended", task, number, result)


def threads(*seconds: float) -> list[threading.Thread]:
    """One thread at work for each of these durations of a task."""
    made = [threading.Thread(target=work, args=(n, s), daemon=True) for n, s in enumerate(seconds)]
    for thread in made:
        thread.start()
    return made


def steady() -> None:
    """Work until standard input ends, then send everything."""
    working = threads(*[SHORT_S] * SHORT_THREADS, *[LONG_S] * LONG_THREADS)
    sys.stdin.read()
    stopping.set()
    for thread in working:
        thread.join()
    print(f"unsent {client.flush(timeout=FLUSH_S)}", flush=True)
    client.shutdown(timeout=FLUSH_S)


def begin() -> None:
    """Some threads at work, one that hangs, and a task of this thread's own."""
    threads(*[SHORT_S] * SHORT_THREADS)
    threading.Thread(target=hang, daemon=True).start()
    square(0, SHORT_S)


def doomed() -> None:
    """Work until killed, here and in a child that is forked while all of that is under way."""
    begin()
    if os.fork() == 0:
        begin()
    threading.Event().wait()


client.init(service=mode)
{"steady": steady, "doomed": doomed}[mode]()
