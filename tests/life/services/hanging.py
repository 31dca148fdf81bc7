"""Work that hangs, each kind on a line of its own: hanging.py KIND...   It says "at work" when all of them have begun."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import looseends

DEADLINE = "1s"
LOOP_DEADLINE = "2s"  # between the two looks the loop must stand for longer than is worth a word
listener = socket.create_server(("127.0.0.1", 0))  # takes connections into its backlog, and never answers
begun = threading.Semaphore(0)


@looseends.task(name="hang.awaiting", deadline=DEADLINE)
async def awaiting() -> None:
    """A coroutine stuck in `await`."""
    begun.release()
    await deeper()


async def deeper() -> None:
    await asyncio.Event().wait()  # HERE awaiting


@looseends.task(name="hang.timed", deadline=DEADLINE)
async def timed() -> None:
    """The same through `wait_for`, which hides what it waits for in a task of its own before Python 3.12."""
    begun.release()
    await asyncio.wait_for(deep_in_a_task(), 3600)


async def deep_in_a_task() -> None:
    await asyncio.get_running_loop().create_future()  # HERE timed


@looseends.task(name="hang.reading", deadline=DEADLINE)
def reading() -> None:
    """A thread stuck in a socket read."""
    with socket.create_connection(listener.getsockname()) as sock:
        begun.release()
        sock.recv(1)  # HERE reading


@looseends.task(name="hang.fetching", deadline=DEADLINE)
def fetching() -> None:
    """The same, beneath a library of the interpreter."""
    begun.release()
    urllib.request.urlopen(f"http://127.0.0.1:{listener.getsockname()[1]}/")  # HERE fetching


@looseends.task(name="hang.computing", deadline=LOOP_DEADLINE)
async def computing() -> None:
    """A loop blocked by CPU work."""
    begun.release()
    crunch()


def crunch() -> None:
    until = time.monotonic() + 3600
    while time.monotonic() < until:
        sum(range(1000))  # HERE computing


@looseends.task(name="hang.held_up", deadline=LOOP_DEADLINE)
async def held_up() -> None:
    """Innocent: it would be done, if its loop were not held by another task."""
    begun.release()
    await asyncio.sleep(0.2)  # HERE held_up


def tracked() -> None:
    """A block, around which no frame of ours stands."""
    with looseends.track("hang.tracked", deadline=DEADLINE):
        begun.release()
        threading.Event().wait()  # HERE tracked


def stacked() -> None:
    """A block entered by somebody else's frame, which has returned."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(looseends.track("hang.stacked", deadline=DEADLINE))
        begun.release()
        threading.Event().wait()  # HERE stacked


async def tracked_in_a_coroutine() -> None:
    async with looseends.track("hang.tracked_async", deadline=DEADLINE):
        begun.release()
        await asyncio.Event().wait()  # HERE tracked_async


async def spawned() -> None:
    begun.release()
    await asyncio.Event().wait()  # HERE spawned


@looseends.task(name="hang.stalled", deadline="never", progress_within="1s")
def stalled() -> None:
    """Promises progress and makes none."""
    begun.release()
    threading.Event().wait()  # HERE stalled


@looseends.task(name="hang.far_away", deadline="2h", replay=True)
def far_away() -> None:
    """Far from its deadline: nobody looks, unless somebody asks."""
    begun.release()
    threading.Event().wait()  # HERE far_away


@looseends.task(name="hang.configured", replay=True)
def configured() -> None:
    """Its deadline is known to the daemon alone."""
    begun.release()
    threading.Event().wait()  # HERE configured


@looseends.task(name="hang.deep", deadline=DEADLINE)
def deep() -> None:
    """Far deeper than a stack may be long, the bottom of it in a library."""
    begun.release()
    recurse(60)


def recurse(left: int) -> None:
    if left:
        recurse(left - 1)
    else:
        pool = ThreadPoolExecutor(1)
        pool.submit(threading.Event().wait).result()  # HERE deep


THREADS = {
    "reading": reading,
    "fetching": fetching,
    "tracked": tracked,
    "stacked": stacked,
    "stalled": stalled,
    "far_away": far_away,
    "configured": configured,
    "deep": deep,
}
COROUTINES = {
    "awaiting": awaiting,
    "timed": timed,
    "held_up": held_up,
    "computing": computing,
    "tracked_async": tracked_in_a_coroutine,
}


async def main(kinds: list[str]) -> None:
    held = [asyncio.create_task(COROUTINES[kind]()) for kind in kinds if kind in COROUTINES]
    if "spawned" in kinds:
        looseends.spawn(spawned(), name="hang.spawned", deadline=DEADLINE)
    await asyncio.gather(*held)
    await asyncio.Event().wait()


def say_when_all_have_begun(count: int) -> None:
    for _ in range(count):
        begun.acquire()
    print("at work", flush=True)


kinds = sys.argv[1:]
threading.Thread(target=say_when_all_have_begun, args=(len(kinds),), daemon=True).start()
for kind in kinds:
    if kind in THREADS:
        threading.Thread(target=THREADS[kind], daemon=True).start()
asyncio.run(main(kinds))
