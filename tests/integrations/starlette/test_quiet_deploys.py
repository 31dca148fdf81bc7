"""A FastAPI service with both hooks, under load, deployed ten times: nobody is called, every task is accounted for."""

from __future__ import annotations

import functools
import http.client
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from harness import free_port

DEPLOYS = 10
SERVICE = """
import asyncio, contextlib, sys
import looseends
looseends.install("asyncio", "starlette")
import uvicorn
from fastapi import BackgroundTasks, FastAPI

running = set()

async def poll_partner():
    while True: await asyncio.sleep(0.02)
async def keep_cache():
    while True: await asyncio.sleep(3600)
async def flush_metrics(stopped):
    while not stopped.is_set():
        with contextlib.suppress(TimeoutError): await asyncio.wait_for(stopped.wait(), 0.05)

def kept(coroutine):
    task = asyncio.create_task(coroutine)
    running.add(task)
    task.add_done_callback(running.discard)

@contextlib.asynccontextmanager
async def lifespan(app):
    stopped = asyncio.Event()
    polling, app.state.cache = asyncio.create_task(poll_partner()), asyncio.create_task(keep_cache())
    flushing = asyncio.create_task(flush_metrics(stopped))
    yield
    if running: await asyncio.wait(running)      # what a careful service does: let its own work end
    stopped.set()
    await flushing
    polling.cancel()                             # the cache's loop is left to the end of the process, as many are

app = FastAPI(lifespan=lifespan)

async def send(n): await asyncio.sleep(0.02)
async def flaky(n):
    await asyncio.sleep(0.005)
    if n % 3 == 0: raise TimeoutError("planted, and handled")
async def with_retry(n):
    for attempt in range(3):
        try: return await asyncio.create_task(flaky(n + attempt))
        except TimeoutError: pass
async def fan_out(n): await asyncio.gather(*[send(n) for _ in range(3)])
def to_file(n): pass
async def too_slow(): await asyncio.sleep(60)

@app.post("/orders/{n}")
async def order(n: int, tasks: BackgroundTasks):
    kept(send(n)); kept(with_retry(n)); kept(fan_out(n))
    looseends.spawn(send(n))
    tasks.add_task(to_file, n); tasks.add_task(send, n)
    try: await asyncio.wait_for(asyncio.create_task(too_slow()), 0.005)
    except TimeoutError: pass
    return {}

async def doomed(): await asyncio.sleep(3600)
@app.post("/doomed")
async def planted():
    kept(doomed())
    return {}

uvicorn.run(app, port=int(sys.argv[1]), log_level="info")
"""
EACH = 1 + 1 + 1 + 3 + 1 + 2 + 1
"""Tasks of one order, tries of `flaky` apart: send, with_retry, fan_out and its three, the spawned, two behind the response, and
the one that is given up."""


class Load:
    """Orders, one after another, from several threads; a service that is being replaced is asked again."""

    def __init__(self, port: int, threads: int = 3) -> None:
        self.port, self.answers, self.stopping = port, Counter[int](), threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    def _run(self, first: int) -> None:
        number = first
        while not self.stopping.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request("POST", f"/orders/{number}")
                answer = connection.getresponse()
                answer.read()
                self.answers[answer.status] += 1
                number += len(self.threads)
            except (OSError, http.client.HTTPException):
                self.answers[0] += 1
                time.sleep(0.02)
            finally:
                connection.close()

    def has(self, orders: int) -> bool:
        """Whether so many orders were answered."""
        return self.answers[200] >= orders

    def stop(self) -> None:
        """Let the last orders be answered."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(15)


def test_ten_deploys_under_load_call_nobody(daemon: Any, tmp_path: Path, capsys: Any) -> None:
    port = free_port()
    service = daemon.python(SERVICE, tmp_path, str(port))
    service.wait_for("Uvicorn running on")
    load = Load(port)
    try:
        for _ in range(DEPLOYS):
            wanted = load.answers[200] + 20
            daemon.wait(functools.partial(load.has, wanted), "some orders")
            service.signal(signal.SIGTERM)
            service.wait()
            service = daemon.python(SERVICE, tmp_path, str(port))
            service.wait_for("Uvicorn running on")
        daemon.wait(lambda: load.answers[200] > 20 * (DEPLOYS + 1), "the last orders")
    finally:
        load.stop()
    service.signal(signal.SIGTERM)
    service.wait()
    daemon.wait(lambda: not daemon.tasks("is:open"), "everything to be told")
    ledger, orders = daemon.ledger(), load.answers[200]
    with capsys.disabled():
        print(f"\n  {orders} orders, {ledger['tasks']} tasks, {DEPLOYS + 1} processes ended: {ledger['gap']} in the gap", end=" ")
        print(f"{ledger['loose']} loose ends, {len(daemon.notices())} notices")
    assert set(load.answers) <= {0, 200}
    assert (ledger["gap"], ledger["loose"], ledger["in_time"], daemon.notices()) == (0, 0, 0, [])
    assert ledger["cancelled"] == orders + 2 * (DEPLOYS + 1), "what was given up, and two loops of each process"
    tries = sum(1 for n in ("succeeded", "failed") for _ in range(ledger[n])) - (EACH - 1) * orders - (DEPLOYS + 1)
    assert tries >= orders and ledger["failed"] == tries - orders, "each flaky order failed once and then ended well"

    planted = daemon.python(SERVICE, tmp_path, str(port))
    planted.wait_for("Uvicorn running on")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/doomed")
    assert connection.getresponse().status == 200
    connection.close()
    daemon.wait_for("state:running name:shop.doomed")
    planted.kill()
    lost = daemon.wait_for("is:loose")
    assert [(task["name"], task["verdict"]) for task in lost] == [("shop.doomed", "lost")], "the harness can see a loss"
