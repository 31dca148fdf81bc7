"""Forks in C, so that no Python hook runs, while a task of the parent is open: c_fork.py HOW. The child works on or just ends."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time

import looseends


@looseends.task(name="c.task", key="key", deadline="never")
def task(key: str) -> None:
    """One task, told apart by who runs it."""


@looseends.task(name="c.open", deadline="never")
def stays_open() -> None:
    """The parent's, open across the fork."""
    begun.set()
    ended.wait()


begun, ended = threading.Event(), threading.Event()
looseends.init(service="c-fork")
worker = threading.Thread(target=stays_open)
worker.start()
begun.wait()
for number in range(50):
    task(f"before-{number}")
looseends.flush(10)
time.sleep(0.3)  # a thread that waits for the interpreter's lock at the fork would hang the child, with or without us
hooked: list[int] = []
os.register_at_fork(after_in_child=lambda: hooked.append(1))
child = ctypes.PyDLL(None).fork()
if child == 0:
    assert not hooked, "a hook ran: this is no fork in C"
    if sys.argv[1] == "works":
        for number in range(50):
            task(f"child-{number}")
        looseends.flush(10)
        os._exit(0)
    looseends.shutdown()
    os._exit(0)
for number in range(50):
    task(f"parent-{number}")
os.waitpid(child, 0)
looseends.flush(10)
print("forked", flush=True)
sys.stdin.readline()
ended.set()
worker.join()
