"""A real daemon with a database that holds some of everything, told over its own doors, and what an asker may know of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from fuzz_cases import Book, Door
from fuzz_line import Case, Line, Reply

import harness
from looseends.wire import uuid8
from looseends_daemon import config
from looseends_daemon.app import Daemon, all_routes
from looseends_daemon.clock import Clock
from looseends_daemon.store import access
from looseends_daemon.store.connection import Database

HERE = Path(__file__).resolve().parent
COMMAND = Path(sys.executable).with_name("looseends")
CONFIG = """\
[server]
listen = ["unix:{folder}/s", "127.0.0.1:{port}"]
[storage]
path = "{folder}/looseends.db"
[detect]
grace = "100ms"
spools = ["{folder}/spool"]
[alerts]
group_wait = "100ms"
[log]
level = "info"
[[task]]
match = "shop/mail.*"
overlap = "warn"
[[expect]]
name = "nightly.tick"
within = "1s"
cron = "* * * * *"
service = "shop"
[[expect]]
name = "mail.send"
within = "1s"
after = "report"
by = "key"
[[endpoint]]
name = "nobody"
url = "http://127.0.0.1:{closed}/"
secrets = ["whsec_bm90IGEgc2VjcmV0LCBtYWtlIHlvdXIgb3duIG9uZSE="]
"""
TASKS_EACH = 24
BAD_LINE = re.compile(r'"level": "(error|critical)"|Traceback|^Fatal')
LISTS = ("tasks", "incidents", "notices", "replays", "instances")


class Town:
    """`looseends serve` in a folder of its own. `planted`: a fault of planted_daemon.py."""

    def __init__(self, processes: harness.Processes, folder: Path, planted: str | None = None) -> None:
        self.folder, self.port = folder, harness.free_port()
        self.socket = f"{folder}/s"
        (folder / "spool").mkdir(mode=0o700)
        path = folder / "config.toml"
        path.write_text(CONFIG.format(folder=folder, port=self.port, closed=harness.free_port()))
        command = [COMMAND] if planted is None else [sys.executable, HERE / "planted_daemon.py", planted]
        self.process = processes.start(*command, "serve", "-c", path, env={"XDG_STATE_HOME": str(folder)})
        self.process.wait_for("looseends is running")
        self.token = (folder / "looseends.db.token").read_text().strip()
        with access.offline(f"{folder}/looseends.db") as conn:
            self.viewer = access.create_token(conn, role="viewer", service=None, name="", now=time.time_ns())
            self.service = access.create_token(conn, role="ingest", service="shop", name="", now=time.time_ns())
        self.line = Line(self.socket)
        self._keys = itertools.count()
        self.rounds = 0
        self.tasks: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.line.close()

    # --- asking ---

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> Reply:
        """A request of ours, by the operator where it is not one of a service and there is no token."""
        serves = path.startswith("/api/v1/") and (method in ("PUT", "DELETE") or path.endswith(("/events", "/claim", "/result")))
        headers = [(b"Host", b"localhost"), (b"Content-Type", b"application/json")]
        shown = token if token is not None or serves else self.token
        headers += [] if shown is None else [(b"Authorization", _bearer(shown))]
        headers += [(b"Idempotency-Key", b"town-%08d" % next(self._keys))] if method == "POST" else []
        data = None if body is None else json.dumps(body).encode()
        return self.line.ask(Case("", method, path.encode(), tuple(headers), data))

    def get(self, path: str) -> Any:
        """The document at a path, which must be there."""
        reply = self.ask("GET", path)
        assert reply.status == 200, (path, reply)
        return json.loads(reply.body)

    def _told(self, method: str, path: str, body: Any, token: str | None = None) -> None:
        reply = self.ask(method, path, body, token)
        assert reply.status in (200, 202, 204), (method, path, reply)

    # --- what is in it ---

    def fill(self) -> None:
        """Once more tasks in every state, incidents, notices, replays with orders, instances and expectations."""
        self.rounds += 1
        self.tasks = tasks = [uuid8(bytes([7, self.rounds, number]) * 6) for number in range(TASKS_EACH)]
        web, dead, worker = (uuid8(bytes([9, self.rounds, number]) * 6) for number in range(3))
        self._tell(web, *_ended(tasks[0], "finished"), *_ended(tasks[1], "failed"), *_ended(tasks[2], "cancelled"))
        self._tell(web, _event("started", tasks[3], deadline=0.01), _event("progress", tasks[3], done=0.4, note="half"))
        self._tell(web, _event("scheduled", tasks[4], start_within=0.01), _event("expected", tasks[5], within=0.01, key="none"))
        self._tell(web, *_ended(tasks[6], "failed", will_retry=True), _event("started", tasks[7], deadline="never"))
        self._tell(dead, *(_event("started", task, args={"order_id": 7}, key="order-7") for task in tasks[8:12]))
        self._tell(worker, *_ended(tasks[12], "failed", handled=True), *_ended(tasks[13], "dropped"), token=self.service)
        offer = [{"name": "mail.send", "signature": "(order_id)", "replay": "yes"}]
        self._told("PUT", f"/api/v1/instances/{web}/functions", offer)
        self._told("DELETE", f"/api/v1/instances/{dead}", {"reason": "killed"})
        harness.wait_until(lambda: self._has_judged(dead), "verdicts, an incident and a notice")
        for task in tasks[8:10]:
            self._told("POST", f"/api/v1/tasks/{task}/replay", {"note": "again"})
        self._told("POST", f"/api/v1/orders/{self._orders()[0]}/claim", {"instance": web})
        self._told("POST", f"/api/v1/tasks/{tasks[11]}/dismiss", {"note": "known"})

    def _tell(self, instance: str, *events: dict[str, Any], token: str | None = None) -> None:
        who = {"id": instance, "service": "shop", "host": "web-1", "pid": 7, "release": "2026.11.3"}
        self._told("POST", "/api/v1/events", {"instance": who, "events": events}, token)

    def _has_judged(self, dead: str) -> bool:
        lost = self.get(f"/api/v1/tasks?q=verdict:lost%20instance:{dead}")["items"]
        return len(lost) == 4 and all(self.get(f"/api/v1/{name}")["items"] for name in ("incidents", "notices"))

    def _orders(self) -> list[str]:
        """The ids of the newest orders, which are those of the tasks they make."""
        newest = self.get("/api/v1/replays?limit=10")["items"]
        return [item["id"] for replay in newest for item in self.get(f"/api/v1/replays/{replay['id']}")["items"]]

    # --- what an asker knows ---

    def book(self) -> Book:
        """Doors and parameters, and what `tell` tells."""
        doors = route_table()
        parameters = {door.name: self._parameters(door) for door in doors if door.method == "GET" and not door.page}
        parameters |= {door.name: PAGE_PARAMETERS for door in doors if door.method == "GET" and door.page}
        book = Book(doors=doors, token=self.token, parameters=parameters)
        self.tell(book)
        return book

    def tell(self, book: Book) -> None:
        """The ids, callers and cursors of now."""
        ids = {name: [item["id"] for item in self.get(f"/api/v1/{name}")["items"]] for name in LISTS}
        page = self.ask("GET", "/tasks").body.decode()
        folder, name = re.findall(r"/static/([0-9a-f]+)/([\w.]+)", page)[0]
        # Most can be done with a task that was lost, and the fewest tasks are.
        ids["tasks"] = [*ids["tasks"][:20], *self.tasks, *self.tasks[8:12] * 5]
        orders = self._orders()
        book.ids = {**ids, "orders": orders, "order": orders, "hash": [folder], "name": [name], "cursor": self._cursors()}
        book.ids |= {"key": [".".join(self.service.split(".")[:2])], "slug": ["nightly"], "action": ["start", "fail", "log", "7"]}
        book.callers = {
            "nobody": (),
            "operator": ((b"Authorization", _bearer(self.token)),),
            "viewer": ((b"Authorization", _bearer(self.viewer)),),
            "service": ((b"Authorization", _bearer(self.service)),),
            "guesser": ((b"Authorization", b"Bearer tok_x.wrong"),),
            "odd": ((b"Authorization", b"Basic \xff"),),
            "odd session": ((b"Cookie", b'looseends_session_unix=\xff; a="; =;'),),
        }
        self.sign_in_again(book)

    def sign_in_again(self, book: Book) -> None:
        """Whoever asks for a sign-out and gets it needs a new session."""
        cookie, book.csrf = self.sign_in()
        book.callers["session"] = ((b"Cookie", cookie),)

    def sign_in(self) -> tuple[bytes, str]:
        """(the cookie of a new session, its form token)."""
        form = ((b"Host", b"localhost"), (b"Content-Type", b"application/x-www-form-urlencoded"))
        reply = self.line.ask(Case("", "POST", b"/sign-in", form, f"token={self.token}".encode()))
        assert reply.status == 303, reply
        cookie = reply.headers["set-cookie"].partition(";")[0].encode()
        page = self.line.ask(Case("", "GET", b"/tasks", ((b"Host", b"localhost"), (b"Cookie", cookie))))
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', page.body.decode())
        assert found, page.body.decode()[:2_000]
        return cookie, found[1]

    def _cursors(self) -> list[str]:
        answers = [self.get(f"/api/v1/{name}?limit=1") for name in LISTS]
        return [answer["next_cursor"] for answer in answers if answer["next_cursor"]]

    def _parameters(self, door: Door) -> list[str]:
        """What the door itself names as known when it is asked for something else."""
        path = re.sub(r"\{\w+\}", self.tasks[0], door.path)
        reply = self.ask("GET", f"{path}?zzzzzzzz=1")
        if reply.status != 422:
            return []
        known: str = json.loads(reply.body)["detail"].partition("known here: ")[2]
        return [] if known == "none" else known.split(", ")

    # --- how it is ---

    def memory_kib(self) -> tuple[int, int]:
        """What the daemon holds in memory now, and the most it ever did."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        now, most = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
        assert now and most
        return int(now[1]), int(most[1])

    def look(self) -> sqlite3.Connection:
        """The tables as one consistent view, read-only. Close it."""
        conn = sqlite3.connect(f"file:{self.folder}/looseends.db?mode=ro", uri=True, isolation_level=None)
        conn.row_factory = sqlite3.Row
        conn.execute("BEGIN")
        return conn

    def bad_lines(self) -> list[str]:
        """Errors it has logged."""
        return [line for line in self.process.lines if BAD_LINE.search(line)]


PAGE_PARAMETERS = ["q", "from", "to", "cursor", "window", "refresh", "next"]
"""Pages take what they are not asked for in silence, so nobody but their documentation names these."""


def _bearer(token: str) -> bytes:
    return f"Bearer {token}".encode()


def _event(kind: str, task: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "task": task, "name": "mail.send", "at": time.time_ns(), **fields}


def _ended(task: str, kind: str, **fields: Any) -> list[dict[str, Any]]:
    why: dict[str, dict[str, Any]] = {
        "failed": {"error": {"type": "E", "message": "m"}},
        "cancelled": {"reason": "requested"},
        "dropped": {"reason": "exit"},
    }
    return [_event("started", task, args={"a": 1}), _event(kind, task, **why.get(kind, {}), **fields)]


def route_table() -> list[Door]:
    """Every row of `app.all_routes`."""

    async def rows() -> list[Door]:
        with tempfile.TemporaryDirectory() as folder:
            database = await Database.open(f"{folder}/x.db")
            daemon = Daemon(config.load(None, {"HOME": folder}), database, Clock())
            table = all_routes(daemon.context())
            await database.close()
        return [Door(route.method, route.path, route.role, route.page) for route in table]

    return asyncio.run(rows())
