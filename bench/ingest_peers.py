"""What bench/ingest.py measures the daemon beside: each in a process of its own, started with its name as the only argument.

- `bare`: an aiohttp handler that reads a body and answers, no more: the limit of a single POST.
- `diy`: the audit table that many write themselves: FastAPI, pydantic, SQLAlchemy Core (asynchronous), and SQLite as durable
  as ours (WAL, synchronous=FULL), one transaction a request. Runs in .venv/ingest.
- `flower`: Flower's own store of events, Celery's `State`, fed with the events of as many tasks, in this process, without
  broker, network and web server: what is left of Flower's work is a lower bound of its cost. In memory; nothing is durable.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def bare(address: str) -> None:
    """Serve until ended."""
    from aiohttp import web

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"accepted": 1})

    app = web.Application()
    app.router.add_post("/api/v1/events", take)
    where: dict[str, Any] = {"path": address[5:]} if address.startswith("unix:") else {"host": "127.0.0.1"}
    if not where.get("path"):
        where["port"] = int(address.rpartition(":")[2])
    web.run_app(app, access_log=None, print=None, handle_signals=True, **where)


def diy(address: str, path: str) -> None:
    """Serve until ended."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from sqlalchemy import JSON, BigInteger, Column, MetaData, Table, Text, event
    from sqlalchemy.dialects.sqlite import insert
    from sqlalchemy.ext.asyncio import create_async_engine

    tables = MetaData()
    run = Table(
        *("run", tables, Column("id", Text, primary_key=True), Column("name", Text, index=True), Column("service", Text)),
        *(Column("state", Text, index=True), Column("args", JSON), Column("started_at", BigInteger, index=True)),
        Column("ended_at", BigInteger),
    )

    class Event(BaseModel):
        type: str
        task: str
        name: str
        at: int
        args: dict[str, Any] | None = None

    class Batch(BaseModel):
        instance: dict[str, Any]
        events: list[Event]

    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

    def durable(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 60000"):
            cursor.execute(f"PRAGMA {pragma}")

    event.listen(engine.sync_engine, "connect", durable)
    app = FastAPI()

    @app.get("/livez")
    async def livez() -> dict[str, bool]:
        async with engine.begin() as connection:
            await connection.run_sync(tables.create_all)
        return {"ok": True}

    @app.post("/api/v1/events")
    async def take(batch: Batch) -> dict[str, int]:
        async with engine.begin() as connection:
            for said in batch.events:
                if said.type == "started":
                    row: dict[str, Any] = {
                        "id": said.task,
                        "name": said.name,
                        "service": batch.instance["service"],
                        "state": "running",
                    }
                    row |= {"args": said.args, "started_at": said.at}
                    await connection.execute(insert(run).values(**row).on_conflict_do_nothing())
                else:
                    ended = {"state": said.type, "ended_at": said.at}
                    await connection.execute(run.update().where(run.c.id == said.task).values(**ended))
        return {"accepted": len(batch.events)}

    uvicorn.run(app, host="127.0.0.1", port=int(address.rpartition(":")[2]), log_level="error", access_log=False)


def flower() -> None:
    """A round of events for each line of input; a line of JSON for each."""
    from celery.events.state import State

    print("ready", flush=True)
    for line in sys.stdin:
        count, now = int(line), time.time()
        told: list[dict[str, Any]] = []
        for n in range(count):
            same = {"uuid": f"{now}-{n}", "hostname": "worker@web-1", "clock": n, "local_received": now, "utcoffset": 0, "pid": 1}
            body = {"name": f"mail.send_{n % 20}", "args": "(7,)", "kwargs": "{'customer': 'ada@example.com'}", "retries": 0}
            told.append({"type": "task-received", **same, **body, "timestamp": now})
            told.append({"type": "task-started", **same, "timestamp": now})
            told.append({"type": "task-succeeded", **same, "timestamp": now, "runtime": 0.008, "result": "None"})
        state = State(max_tasks_in_memory=100_000)
        # As Flower gets them: each is a message of its own, decoded from JSON.
        texts = [json.dumps(one) for one in told]
        wall, cpu = time.perf_counter(), time.process_time()
        for text in texts:
            state.event(json.loads(text))
        took = {"events": len(texts), "tasks": count, "seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    peers: dict[str, Callable[..., None]] = {"bare": bare, "diy": diy, "flower": flower}
    peers[sys.argv[1]](*sys.argv[2:])
