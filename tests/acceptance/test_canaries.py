"""Secrets planted in a real service: nowhere in journal, database, logs, notices, pages and API. And a search that finds them.

The control runs the same service with redaction switched off, and the same search then finds every canary, in every kind of
place: a search that looked in the wrong place would not.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import sqlite3
import threading
import urllib.parse
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from town import PYTHON, Town

from harness import Process, wait_until

FOLDER = Path(__file__).parent
PAGES_MAX = 600
LINK = re.compile(rb"""(?:href|action)="(/[^"#]*)["#]""")
LISTS = "incidents notices instances types ledger endpoints silences blind-windows audit replays storage openapi.json tasks"


class Place(NamedTuple):
    """One thing that was searched: its kind, its name, what it held."""

    kind: str
    name: str
    data: bytes


def variants(secret: str) -> list[bytes]:
    """A secret as it may stand somewhere: plain, as base64 at any offset, as hex."""
    plain = secret.encode()
    shifted = [base64.b64encode(b"\0" * shift + plain)[4 if shift else 0 : -4] for shift in range(3)]
    return [plain, plain.hex().encode(), *(text for text in shifted if len(text) > 12)]


def hits(places: list[Place], canaries: dict[str, str]) -> list[tuple[str, str, str]]:
    """(way, kind of place, name of place) of every canary found."""
    wanted = [(way, variant) for way, secret in canaries.items() for variant in variants(secret)]
    return [(way, place.kind, place.name) for place in places for way, variant in wanted if variant in place.data]


def files(kind: str, folder: Path) -> Iterator[Place]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield Place(kind, str(path.relative_to(folder)), path.read_bytes())


def crawl(town: Town) -> Iterator[Place]:
    """Every page that can be reached by links from the front page, and every form's page."""
    waiting, seen = ["/", "/tasks?limit=500"], set[str]()
    headers = {"Authorization": f"Bearer {town.token}", "Accept": "text/html"}
    while waiting and len(seen) < PAGES_MAX:
        path = waiting.pop(0)
        if path in seen or path.startswith(("/static/", "/sign-", "/theme", "/api/v1/stream")):
            continue
        seen.add(path)
        status, body = town.http(town.port, "GET", path, None, headers)
        if status == 200:
            yield Place("api" if path.startswith("/api/") else "page", path, body)
            waiting += [link.decode().replace("&amp;", "&") for link in LINK.findall(body)]


def answers(town: Town) -> Iterator[Place]:
    """Every list and every single thing that the API tells."""
    headers = {"Authorization": f"Bearer {town.token}"}
    paths = [f"/api/v1/{name}" for name in LISTS.split()]
    for task in town.tasks():
        paths += [f"/api/v1/tasks/{task['id']}", f"/api/v1/tasks/{task['id']}/history"]
    paths += [f"/api/v1/incidents/{one['id']}" for one in town.api("/incidents?limit=500")["items"]]
    paths += [f"/api/v1/notices/{one['id']}" for one in town.api("/notices?limit=500")["items"]]
    for path in [*paths, "/metrics", "/livez", "/readyz"]:
        status, body = town.http(town.port, "GET", path, None, headers)
        if status == 200:
            yield Place("api", path, body)


class Collector:
    """Where OpenTelemetry's exports go: keeps each body as it came, unpacked."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                packed = self.headers.get("Content-Encoding") == "gzip"
                collector.bodies.append((self.path, gzip.decompress(body) if packed else body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def holds(self, tasks: set[str]) -> bool:
        """Whether each of them has been told of."""
        whole = b"".join(body for _, body in list(self.bodies))
        return all(task.encode() in whole for task in tasks)

    def close(self) -> list[Place]:
        """Stop; what came."""
        self.server.shutdown()
        self.server.server_close()
        return [Place("otlp", f"{path} {n}", body) for n, (path, body) in enumerate(self.bodies)]


class Careless:
    """One run: service, daemon and receiver, and everything they wrote or said."""

    def __init__(self, town: Town, control: bool) -> None:
        self.town = town
        self.env = {"CANARY_SEED": uuid.uuid4().hex, "CANARY_CONTROL": "1" if control else "0"}
        self.service: Process | None = None
        self.canaries: dict[str, str] = {}

    def start_service(self) -> None:
        town = self.town
        args = ("-m", "uvicorn", "--app-dir", str(FOLDER), "canary_service:app", "--port", str(town.shop_port), "--no-access-log")
        self.service = town.processes.start(PYTHON, *args, env=town.env(**self.env))
        self.service.wait_for("Uvicorn running on")

    def go_every_way(self) -> None:
        status, body = self.town.http(self.town.shop_port, "GET", "/plant")
        assert status == 200, body
        self.canaries = json.loads(body)
        path = f"/reset/token={self.canaries['request path']}/confirm"
        assert self.town.http(self.town.shop_port, "GET", path)[0] == 200

    def run(self) -> list[Place]:
        """Plant with no daemon there: all of it must lie in the spool. Then let the daemon take it, and look everywhere."""
        town = self.town
        collector = Collector()
        otel = f'[otel]\nendpoint = "{collector.url}"\n'
        town.config.write_text(town.config.read_text() + "include_args = true\n" + otel)
        town.start_receiver()
        self.start_service()
        self.go_every_way()
        found = list(files("journal", town.folder / "looseends"))
        daemon = town.start_daemon()
        wanted = len(self.canaries) - 1  # the request's label stands on the background task
        wait_until(lambda: len(town.tasks()) >= wanted, f"{wanted} tasks", 30.0)
        wait_until(lambda: not town.tasks("state:running -name:careless.hangs"), "all ends")
        wait_until(lambda: len(town.tasks("is:loose name:careless.hangs")) == 2, "the stuck ones to be seen", 30.0)
        wait_until(lambda: town.tasks("verdict:missed"), "the expectation to be missed", 30.0)
        loose = {task["id"] for task in town.tasks("is:loose")}
        wait_until(
            lambda: loose <= {t["id"] for n in town.notices() for t in n["data"]["tasks"]} or len(town.notices()) > 8, "notices"
        )
        found += [*crawl(town), *answers(town)]
        found += [place for place in files("database", town.folder) if place.name.startswith("looseends.db")]
        found += files("journal", town.folder / "looseends")
        found += [
            Place("webhook", f"notice {n}", line.encode()) for n, line in enumerate(town.notices_file.read_text().splitlines())
        ]
        assert self.service is not None
        self.service.stop()
        told = {task["id"] for task in town.tasks("-state:running -state:scheduled")}
        wait_until(lambda: collector.holds(told), "every task's span", 30.0)
        daemon.stop()
        found += collector.close()
        found += [place for place in files("database", town.folder) if place.name.startswith("looseends.db")]
        copy = "\n".join(sqlite3.connect(f"file:{town.folder}/looseends.db?mode=ro", uri=True).iterdump())
        found.append(Place("database", "as SQL", copy.encode()))
        found += [Place("log", str(p.args[-4:]), p.output.encode()) for p in town.processes.started]
        return found


def searched(places: list[Place]) -> dict[str, int]:
    return {kind: sum(place.kind == kind for place in places) for kind in sorted({place.kind for place in places})}


def test_no_canary_is_anywhere(town: Town) -> None:
    run = Careless(town, control=False)
    places = run.run()
    counts = searched(places)
    print(f"{len(run.canaries)} canaries in {len(places)} places, {sum(len(p.data) for p in places):,} bytes: {counts}")
    assert (
        set(counts) == {"journal", "database", "webhook", "page", "api", "log", "otlp"}
        and counts["page"] > 50
        and counts["webhook"] > 3
    )
    assert not hits(places, run.canaries)
    whole = b"".join(place.data for place in places)
    assert b"careless.login" in whole and urllib.parse.quote("postgres://ada").encode() not in whole
    assert b"postgres://ada:[redacted]@db:5432/shop" in whole, "what is no secret is still there"


def test_the_search_finds_every_canary_when_redaction_is_switched_off(town: Town) -> None:
    run = Careless(town, control=True)
    places = run.run()
    found = hits(places, run.canaries)
    assert {way for way, _, _ in found} == set(run.canaries)
    by_kind = {kind: len({way for way, where, _ in found if where == kind}) for kind in searched(places)}
    print(f"without redaction, of {len(run.canaries)} canaries: {by_kind}, {len(found)} hits in all")
    assert by_kind["journal"] == by_kind["database"] == len(run.canaries)
    assert by_kind["otlp"] > 5, "messages of exceptions, keys and tags are exported"
    assert by_kind["page"] > 30 and by_kind["api"] > 30 and by_kind["webhook"] > 5
