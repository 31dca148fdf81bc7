"""A real daemon application on a real unix socket and a real database, with a clock that the test sets.

Its loops are not started: the test says when the detector runs, so it can run between any two events.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import urllib.parse
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from expecting import stated, symbol_id
from model import Model, task_id, wire_batch

from looseends.wire import NS, format_time, parse_time
from looseends_daemon import config
from looseends_daemon.app import Daemon, all_routes
from looseends_daemon.clock import Clock
from looseends_daemon.http.listen import listen
from looseends_daemon.http.server import make_app
from looseends_daemon.services.detector import Detector
from looseends_daemon.services.vigil import Vigil
from looseends_daemon.store.cells import InstanceIds
from looseends_daemon.store.codes import blob
from looseends_daemon.store.connection import Database
from looseends_daemon.store.expectations import Expecting
from looseends_daemon.store.facts import end_instance

T = TypeVar("T")
EPOCH = parse_time("2026-11-20T14:00:00Z")


class HandClock(Clock):
    """A wall clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = EPOCH

    def wall_ns(self) -> int:
        return self.now


class Unmoved(Vigil):
    """The clock of a history goes to and fro: that is neither a freeze nor a clock that was set."""

    def look(self, now: int) -> None:
        return


class UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(self._path)


class Served:
    """The daemon in a thread of its own, and one kept connection to it."""

    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.socket = str(folder / "s")
        self.daemon = self.call(self._open(str(folder / "x.db")))
        self.token = (folder / "x.db.token").read_text().strip()
        self._connection = UnixConnection(self.socket)
        self.posts = 0

    async def _open(self, path: str) -> Daemon:
        settings = config.with_flags(config.load(None, {"HOME": path}), listen=(f"unix:{self.socket}",), path=path)
        daemon = Daemon(settings, await Database.open(path), self.clock)
        await daemon.prepare()
        self.context = daemon.context()
        daemon.listener = await listen(make_app(all_routes(self.context), self.context), [f"unix:{self.socket}"])
        return daemon

    def call(self, what: Coroutine[Any, Any, T]) -> T:
        """Run something on the daemon's own loop."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(20)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request; anything but success is a failure of the test."""
        headers = {"Authorization": f"Bearer {self.token}"} if method == "GET" else {"Content-Type": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status in (200, 202, 204), (method, path, answer.status, text)
        self.posts += method == "POST"
        return json.loads(text) if text else None

    def close(self) -> None:
        """Close in order."""
        self._connection.close()
        self.call(self.daemon.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Played:
    """One history over HTTP, under names of its own so that many share a database."""

    def __init__(self, served: Served, history: dict[str, Any], number: int) -> None:
        self.served, self.number = served, number
        self.expects = "after" in history or any(
            "expect" in step or step.get("event", {}).get("type") == "expected" for step in history["steps"]
        )
        self.history = {**history, "instances": {self._own(who): self._own(s) for who, s in history["instances"].items()}}
        self.history |= {"suffix": f"-{number}", "after": [self._own_names(rule) for rule in history.get("after", [])]}
        self.history["starts"] = {self._own(who): at for who, at in history.get("starts", {}).items()}
        self.clock = parse_time(history["clock"])
        self.pure = Model(self.history)
        started_at = self.clock - 100_000 * NS
        self.detector = Detector(
            served.daemon.database,
            self.pure.policy,
            lambda: served.daemon.rules,
            started_at=started_at,
            vigil=Unmoved(started_at=started_at, grace_s=self.pure.policy.grace),
        )
        self.ended: set[str] = set()

    def _own(self, name: str) -> str:
        return f"{name}-{self.number}"

    def _own_names(self, told: dict[str, Any]) -> dict[str, Any]:
        """Tasks of one name meet each other's expectations, so the names of a history that expects are its own too."""
        names = ("name", "after", "service") if "event" not in told else ()
        return {k: self._own(v) if self.expects and k in names else v for k, v in told.items()}

    def own_step(self, step: dict[str, Any]) -> dict[str, Any]:
        """The step under this history's own names."""
        step = {**step}
        for field in ("from", "instance"):
            if step.get(field) is not None:
                step[field] = self._own(step[field])
        if "event" in step:
            event = {**step["event"], "task": self._own(step["event"]["task"])}
            for field in ("replay_of", "parent"):
                if field in event:
                    event[field] = self._own(event[field])
            if "service" in event:
                event["service"] = self._own(event["service"])
            if self.expects and "name" in event:
                event["name"] = self._own(event["name"])
            step["event"] = event
        if "expect" in step:
            step["expect"] = self._own_names(step["expect"])
        if "events" in step:
            step["events"] = [self.own_step(one) for one in step["events"]]
        if "replay" in step:
            step["replay"] = {key: self._own(value) for key, value in step["replay"].items()}
        return step

    def take(self, steps: list[dict[str, Any]]) -> None:
        """Steps in this order; consecutive events of one instance may travel in one batch (`together`)."""
        object.__setattr__(self.served.context, "policy", self.pure.policy)
        for step in steps:
            now = self.clock + int(step["at"] * NS)
            self.served.clock.now = now
            if "event" in step:
                self.served.ask("POST", "/api/v1/events", wire_batch(self.history, step))
            elif "events" in step:
                batches = [wire_batch(self.history, one) for one in step["events"]]
                whole = {**batches[0], "events": [event for batch in batches for event in batch["events"]]}
                self.served.ask("POST", "/api/v1/events", whole)
            elif "instance" in step:
                self._news(step, now)
            elif "replay" in step:
                self._replay(step["replay"], now)
            elif "expect" in step:
                self._expect(step, now)
            elif step.get("judge"):
                self.judge(now)

    def _expect(self, step: dict[str, Any], now: int) -> None:
        def write(conn: Any) -> None:
            expecting = Expecting(conn, InstanceIds(conn), self.pure.policy, now)
            for one, body, at in stated(self.history, step):
                expecting.state(one, body, at)

        self.served.call(self.served.daemon.database.write(write))

    def _replay(self, replay: dict[str, str], now: int) -> None:
        self.served.call(self.served.daemon.database.write(lambda conn: _order(conn, replay, now)))

    def _news(self, step: dict[str, Any], now: int) -> None:
        who = step["instance"]
        told = {"id": who, "service": self.history["instances"][who]}
        if step["is"] == "alive" or who not in self.ended:
            self.served.ask("POST", "/api/v1/events", {"instance": told, "events": []})
        if step["is"] == "alive":
            return
        self.ended.add(who)
        backlog = 0 if step["caught_up"] else 3

        def end(conn: Any) -> None:
            conn.execute("UPDATE instance SET backlog = ? WHERE id = ?", (backlog, who))
            end_instance(conn, who, state=step["is"], reason=step["reason"], now=now, adopted=step["caught_up"])

        self.served.call(self.served.daemon.database.write(end))

    def judge(self, now: int) -> None:
        """Live instances beat, then the detector runs."""

        def beat(conn: Any) -> None:
            conn.execute("UPDATE instance SET last_heard_at = ?1, said_at = ?1 WHERE state = 'alive'", (now,))

        self.served.call(self.served.daemon.database.write(beat))
        self.served.call(self.detector.run_once(now))

    def id_of(self, symbol: str) -> str:
        """The id of this history's task or expectation of that name."""
        own = f"after@{self._own(symbol[6:])}" if symbol.startswith("after@") else self._own(symbol)
        return symbol_id(self.history, own)

    def _shown(self, symbol: str) -> dict[str, Any] | None:
        """A task as the API shows it; None: an expectation that is none, because nothing missed it."""
        task = self.id_of(symbol)
        if task in self.pure.expected:
            listed = self.served.ask("GET", f"/api/v1/tasks?q=id:{task}")["items"]
            return listed[0] if listed else None
        found: dict[str, Any] = self.served.ask("GET", f"/api/v1/tasks/{task}")
        return found

    def outcome(self, symbols: set[str]) -> dict[str, Any]:
        """The five terms over this history's services, and what the API shows of each task."""
        day = 86_400 * NS
        window = {"from": format_time(self.clock - day), "to": format_time(self.clock + 2 * day)}
        terms = dict.fromkeys(("tasks", "succeeded", "failed", "cancelled", "in_time", "gap"), 0)
        tasks, services = {}, set()
        for symbol in sorted(symbols):
            found = self._shown(symbol)
            if found is None:
                continue
            services.add(found["service"])
            instance = found["instance"]["id"] if found["instance"] else None
            times = tuple(None if found[at] is None else parse_time(found[at]) for at in ("began_at", "ended_at"))
            tasks[symbol] = (found["state"], found["verdict"], found["attempt"], *times, instance, found["name"])
        services |= set(self.history["instances"].values()) if self.expects else set()
        for service in services:
            query = urllib.parse.urlencode({**window, "service": service})
            ledger = self.served.ask("GET", f"/api/v1/ledger?{query}")
            terms = {term: count + ledger[term] for term, count in terms.items()}
        return {"ledger": terms, "tasks": tasks}


def _order(conn: Any, replay: dict[str, str], now: int) -> None:
    new, old = blob(task_id(replay["as"])), blob(task_id(replay["of"]))
    columns = {row["name"] for row in conn.execute("PRAGMA table_info(replay_order)")}
    values = {"id": new, "replay": 1, "task": old, "root": old, "name": "n", "environment": "production", "service": "s"}
    values |= {"args": "{}", "state": "claimed", "created_at": now, "expires_at": now, "fence": 1}
    values |= {"depth": 1, "edited": 0, "was_done": 0}
    kept = {name: value for name, value in values.items() if name in columns}
    marks = ", ".join("?" * len(kept))
    conn.execute(f"INSERT INTO replay_order ({', '.join(kept)}) VALUES ({marks})", list(kept.values()))
