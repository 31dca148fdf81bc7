"""A program that ends in one way: exits.py KIND WAY. `exit.body` ends the process, `exit.beside` runs in a daemon thread.

KIND: plain, fork, spawn (a child made by multiprocessing), thread. WAY: return, exit, _exit, raise, term, drain, kill; in the
last three the signal comes from outside while the body sleeps.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time

import looseends

LONG_S, DRAIN_S = 60.0, 3.0


@looseends.task(name="exit.body", deadline="never")
def body(way: str) -> None:
    """The task in whose body the process ends."""
    end_by(way)


@looseends.task(name="exit.beside", deadline="never")
def beside(way: str, begun: threading.Event) -> None:
    """A task that runs beside it."""
    begun.set()
    time.sleep(DRAIN_S if way == "drain" else LONG_S)


def end_by(way: str) -> None:
    """End in this way, or let a signal do it."""
    if way == "exit":
        sys.exit(3)
    if way == "_exit":
        os._exit(3)
    if way == "raise":
        raise ValueError("no such account")
    if way in ("term", "drain", "kill"):
        time.sleep(DRAIN_S if way == "drain" else LONG_S)


def run_beside(way: str) -> None:
    """Start the other task; back when it has begun."""
    begun = threading.Event()
    threading.Thread(target=beside, args=(way, begun), daemon=True).start()
    begun.wait()


def work(way: str) -> None:
    """The program itself. Who drains has a handler of its own, lets the work end, and shuts down."""
    if way == "drain":
        signal.signal(signal.SIGTERM, lambda *_: None)
    run_beside(way)
    body(way)
    if way == "drain":
        time.sleep(0.2)
        looseends.shutdown()


def main(kind: str, way: str) -> None:
    if kind == "plain":
        work(way)
    elif kind == "thread":
        if way == "drain":
            signal.signal(signal.SIGTERM, lambda *_: None)
        run_beside(way)
        worker = threading.Thread(target=body, args=(way,))
        worker.start()
        worker.join()
        if way == "drain":
            time.sleep(0.2)
            looseends.shutdown()
    else:
        child = multiprocessing.get_context(kind).Process(target=work, args=(way,))
        child.start()
        child.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
