"""A service of threads that runs until its standard input ends, then leaves in order: steady.py SERVICE KIND...

short    tasks of a tenth of a second, with a deadline far off
close    tasks that end half a second before their deadline
distant  tasks that end two and a half seconds before it: longer than what this service may be silent
moving   tasks that promise progress, and make it
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import looseends
from looseends import record
from looseends.spec import Spec

SHUTDOWN_S = 20.0
stopping = threading.Event()
service, *kinds = sys.argv[1:]
looseends.init(service=service)


@looseends.task(name="steady.short", deadline="5m", replay=True)
def short(number: int) -> int:
    """A little work."""
    time.sleep(0.1)
    return number


@looseends.task(name="steady.close", deadline="2.5s")
def close(number: int) -> int:
    """Just in time."""
    time.sleep(2.0)
    return number


@looseends.task(name="steady.distant", deadline="4.5s")
def distant(number: int) -> int:
    """In time, and told of in time if the network allows."""
    time.sleep(2.0)
    return number


@looseends.task(name="steady.moving", progress_within="2s", deadline="30s")
def moving(number: int) -> int:
    """Longer than its promise of progress, which it keeps."""
    task = looseends.current()
    for step in range(8):
        time.sleep(0.5)
        if task is not None:
            task.progress(step / 8, f"step {step}")
    return number


def work(function: Any) -> None:
    """One after the other."""
    number = 0
    while not stopping.is_set():
        number = function(number) + 1


def main() -> None:
    """A loop as old as the process, and a thread for every kind."""
    record.begin(Spec("steady.poll_forever", None, source="threading", declared=False), "{}", None)
    threads = [threading.Thread(target=work, args=(globals()[kind],)) for kind in kinds]
    for thread in threads:
        thread.start()
    print("at work", flush=True)
    sys.stdin.read()
    stopping.set()
    for thread in threads:
        thread.join()
    looseends.shutdown(timeout=SHUTDOWN_S)


main()
