"""BackgroundTasks of a real FastAPI application under a real uvicorn, seen by a real receiver."""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

SERVICE = """
import asyncio, functools, sys, threading, time
import looseends
looseends.install("starlette")
import uvicorn
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.background import BackgroundTask

app = FastAPI()

def plain(order_id, password="p"): return order_id
async def coro(n): await asyncio.sleep(0)
def raising(n): raise RuntimeError("planted")
async def waits(n): await asyncio.sleep(60)

@looseends.task(name="audited.sync", key="n", deadline="30s")
def audited_sync(n): return n

@looseends.task(name="audited.async")
async def audited_async(n): return n

class Mailer:
    def send(self, n): return n
    @looseends.task(name="mailer.audited")
    def audited(self, n): return n

@app.post("/ok")
async def ok(tasks: BackgroundTasks):
    tasks.add_task(plain, 7, password="canary")
    tasks.add_task(coro, 8)
    return {}

@app.post("/audited")
def audited(tasks: BackgroundTasks):
    tasks.add_task(audited_sync, 1)
    tasks.add_task(audited_async, n=2)
    tasks.add_task(functools.partial(audited_sync, n=3))
    tasks.add_task(Mailer().audited, 4)
    tasks.add_task(Mailer().send, 5)
    return {}

@app.post("/raises")
async def raises(tasks: BackgroundTasks):
    tasks.add_task(plain, 1)
    tasks.add_task(raising, 2)
    tasks.add_task(coro, 3)
    tasks.add_task(audited_sync, 4)
    return {}

@app.post("/refused")
async def refused(tasks: BackgroundTasks):
    tasks.add_task(plain, 1)
    raise HTTPException(409)

@app.post("/broken")
async def broken(tasks: BackgroundTasks):
    tasks.add_task(plain, 1)
    raise RuntimeError("endpoint")

@app.post("/replaced")
async def replaced(tasks: BackgroundTasks):
    tasks.add_task(plain, 1)
    return JSONResponse({}, background=BackgroundTask(coro, 2))

@app.post("/streamed")
async def streamed(tasks: BackgroundTasks):
    tasks.add_task(plain, 1)
    return StreamingResponse(iter(["a", "b"]))

@app.post("/hangs")
async def hangs(tasks: BackgroundTasks):
    tasks.add_task(waits, 1)
    return {}

@app.post("/spawned")
async def spawned():
    async def later():
        await asyncio.sleep(0.2)
    looseends.spawn(later(), name="later")
    return {}

inner = FastAPI()
@inner.post("/x")
async def mounted(tasks: BackgroundTasks):
    tasks.add_task(coro, 1)
    return {}
app.mount("/inner", inner)

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)

Server(uvicorn.Config(app, port=0, log_level="critical")).run()
"""


class Service:
    def __init__(self, process: Any, receiver: Any) -> None:
        self.process, self.receiver = process, receiver
        self.port = int(process.stdout.readline())

    def post(self, path: str) -> int:
        """Ask, and wait until the receiver has the outcome of everything this request began."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", path)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def shown(self, path: str) -> list[tuple[str, Any]]:
        """(name or its end, types and reasons) of every task of this request, in the order they were scheduled."""
        label = f"POST {path}"
        tasks = dict.fromkeys(e["task"] for e in self.receiver.events if e.get("request") == label)
        found = []
        for task in tasks:
            mine = [event for event in self.receiver.events if event["task"] == task]
            kinds = dict.fromkeys(f"{e['type']}:{e['reason']}" if "reason" in e else e["type"] for e in mine)
            found.append((mine[0]["name"].split(".")[-1], list(kinds)))
        return found

    def wait_ended(self, path: str, count: int) -> list[tuple[str, Any]]:
        ends = ("finished", "failed", "cancelled", "dropped")

        def ended(_: Any) -> bool:
            shown = self.shown(path)
            return len(shown) == count and all(kinds[-1].split(":")[0] in ends for _, kinds in shown)

        self.receiver.wait(ended)
        return self.shown(path)


@pytest.fixture
def service(child: Any, receiver: Any) -> Iterator[Service]:
    yield Service(child(SERVICE), receiver)


DONE = ["scheduled", "started", "finished"]


def test_what_becomes_of_background_tasks(service: Service) -> None:
    assert service.post("/ok") == 200
    assert service.wait_ended("/ok", 2) == [("plain", DONE), ("coro", DONE)]
    scheduled = service.receiver.of("__main__.plain") or [e for e in service.receiver.events if e["name"].endswith("plain")]
    first = scheduled[0]
    assert first["args"] == {"order_id": 7, "password": {"$t": "redacted"}} and first["source"] == "starlette"
    assert first["declared"] is True and first["start_within"] == -1.0
    assert "canary" not in repr(service.receiver.calls)

    assert service.post("/audited") == 200
    assert service.wait_ended("/audited", 5) == [
        ("sync", DONE),
        ("async", DONE),
        ("sync", DONE),
        ("audited", DONE),
        ("send", DONE),
    ]
    audited = service.receiver.of("audited.sync")
    assert {e["key"] for e in audited if e["type"] == "started"} == {"1", "3"} and audited[0]["deadline"] == 30.0
    assert {e.get("parent") for e in audited} == {None}

    assert service.post("/raises") == 200
    assert service.wait_ended("/raises", 4) == [
        ("plain", DONE),
        ("raising", ["scheduled", "started", "failed"]),
        ("coro", ["scheduled", "dropped:neighbour_raised"]),
        ("sync", ["scheduled", "dropped:neighbour_raised"]),
    ]
    assert service.post("/refused") == 409
    assert service.wait_ended("/refused", 1) == [("plain", ["scheduled", "dropped:request_failed"])]
    assert service.post("/broken") == 500
    assert service.wait_ended("/broken", 1) == [("plain", ["scheduled", "dropped:request_failed"])]
    assert service.post("/replaced") == 200
    assert service.wait_ended("/replaced", 2) == [("plain", ["scheduled", "dropped:response_replaced"]), ("coro", DONE)]
    assert service.post("/streamed") == 200
    assert service.wait_ended("/streamed", 1) == [("plain", DONE)]
    assert service.post("/inner/x") == 200
    assert service.wait_ended("/inner/x", 1) == [("coro", DONE)]
    total = len({event["task"] for event in service.receiver.events})
    assert total == 2 + 5 + 4 + 1 + 1 + 2 + 1 + 1, "one piece of work is one task"


def test_the_service_is_known_before_its_first_task(service: Service) -> None:
    service.receiver.wait(lambda r: r.batches)
    assert service.receiver.batches[0].events == []


def test_a_drain_on_sigterm_lets_spawned_work_finish(service: Service) -> None:
    assert service.post("/spawned") == 200
    service.receiver.wait(lambda r: "started" in r.types("later"))
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(15)
    assert service.receiver.types("later") == DONE and service.receiver.calls[-1][0] == "DELETE"


def test_a_kill_in_mid_task_leaves_its_start(service: Service) -> None:
    assert service.post("/hangs") == 200
    service.receiver.wait(lambda r: any(e["type"] == "started" for e in r.events))
    service.process.send_signal(signal.SIGKILL)
    service.process.wait()
    assert service.shown("/hangs") == [("waits", ["scheduled", "started"])]


async def test_a_list_run_by_hand_after_its_request_is_not_a_loss(recorded: Any) -> None:
    import looseends

    looseends.install("starlette")
    looseends.install("starlette")  # twice is once
    from starlette.applications import Starlette
    from starlette.background import BackgroundTasks
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    kept: list[Any] = []
    done = threading.Event()

    async def endpoint(request: Any) -> Any:
        tasks = BackgroundTasks()
        tasks.add_task(done.set)
        kept.append(tasks)
        return JSONResponse({})

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None: ...

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    await Starlette(routes=[Route("/", endpoint)])(scope, receive, send)
    await kept[0]()
    assert done.wait(5)
    events = recorded()
    assert [event["type"] for event in events] == ["scheduled", "dropped", "scheduled", "started", "finished"]
    assert len({event["task"] for event in events}) == 1
    assert time.time_ns() > events[-1]["at"]


def test_an_unknown_system_names_the_allowed_ones() -> None:
    import looseends

    with pytest.raises(looseends.UsageError, match=r"install\('flask'\): allowed are asyncio, .*starlette"):
        looseends.install("flask")
