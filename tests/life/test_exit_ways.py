"""What arrives at a real daemon when a process ends, in seven ways and six kinds of process: the table in docs/guarantees.md.

The test fails where the document says something else than what was seen; this writes what was seen into it:
`EXIT_WAYS=write make test T=tests/life/test_exit_ways.py`.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import ROOT, Process, free_port, wait_until

SERVICES = Path(__file__).with_name("services")
DOCUMENT = ROOT / "docs" / "guarantees.md"
BEGIN, END = "<!-- exit ways: begin -->", "<!-- exit ways: end -->"
KINDS = ("plain", "fork", "spawn", "thread", "gunicorn", "uvicorn")
HEADS = {
    "plain": "a script",
    "fork": "multiprocessing, fork",
    "spawn": "multiprocessing, spawn",
    "thread": "a thread",
    "gunicorn": "gunicorn, in a request",
    "uvicorn": "uvicorn, in a request",
}
WAYS = {
    "return": "it returns",
    "exit": "`sys.exit(3)`",
    "_exit": "`os._exit(3)`",
    "raise": "an exception nobody catches",
    "term": "SIGTERM, nobody drains",
    "drain": "SIGTERM, and a drain",
    "kill": "SIGKILL",
}
PARALLEL = 3


def serve(house: Any, kind: str, way: str) -> tuple[Process, int]:
    """Start the program of one cell; (process, port or 0)."""
    env = {"LOOSEENDS_SERVICE": f"{kind}-{way}", "PYTHONPATH": str(SERVICES)}
    if kind in ("plain", "fork", "spawn", "thread"):
        return house.processes.start(sys.executable, SERVICES / "exits.py", kind, way, env=env), 0
    port = free_port()
    if kind == "gunicorn":
        limits = ("--graceful-timeout", "10" if way == "drain" else "1", *(("--max-requests", "1") if way == "return" else ()))
        args = ("--workers", "1", "--bind", f"127.0.0.1:{port}", "--no-control-socket", *limits, "exit_wsgi:app")
        server = house.processes.start(sys.executable, "-m", "gunicorn", *args, env=env, cwd=house.folder)
        server.wait_for("Booting worker")
    else:
        limits = ("--timeout-graceful-shutdown", "10" if way == "drain" else "1")
        limits += ("--limit-max-requests", "1") if way == "return" else ()
        server = house.processes.start(sys.executable, "-m", "uvicorn", "--port", str(port), *limits, "exit_asgi:app", env=env)
        server.wait_for("Uvicorn running on")
    threading.Thread(target=get, args=(port, way), daemon=True).start()
    return server, port


def get(port: int, way: str) -> None:
    """One request; whoever answers it may be gone before it does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", f"/{way}")
        connection.getresponse().read()


def cell(house: Any, kind: str, way: str) -> tuple[str, str]:
    """What the daemon says in the end of (the task in whose body it happened, the one beside it)."""
    server, _ = serve(house, kind, way)

    def tasks() -> dict[str, Any] | None:
        found = {task["name"]: task for task in house.tasks(f"service:{kind}-{way}")}
        return found if len(found) == 2 else None

    if way in ("term", "drain", "kill"):
        running = wait_until(tasks, f"both tasks of {kind} {way}", 30)
        assert isinstance(running, dict)
        pid = running["exit.body"]["instance"]["pid"]
        os.kill(server.pid if kind == "gunicorn" and way != "kill" else pid, signal.SIGKILL if way == "kill" else signal.SIGTERM)
    stays = way in ("raise", "exit") and kind in ("gunicorn", "uvicorn")  # servers answer 500 and live on

    def settled() -> dict[str, Any] | None:
        found = tasks() or {}
        done = [task for task in found.values() if task["verdict"] or task["ended_at"]]
        return found if len(done) == (1 if stays else 2) else None

    found = wait_until(settled, f"the end of {kind} {way}; it said {server.output[-2000:]}", 30)
    assert isinstance(found, dict)
    server.kill()
    return words(found["exit.body"]), words(found["exit.beside"])


JOURNAL_TELLS = ("without saying goodbye", "another process of its user")
"""Whoever comes first adopts a journal, the daemon or the next client of the user; what it holds is the same."""


def words(task: dict[str, Any]) -> str:
    """A task as the table shows it."""
    if task["verdict"] is None:
        return str(task["state"])
    if any(told in task["reason"] for told in JOURNAL_TELLS):
        return f"{task['verdict']}, by its journal"
    if "its event loop was shut down" in task["reason"]:
        return f"{task['verdict']}, by the end of its loop"
    assert task["reason"].startswith("lost in mid-task: its process ended before it did"), task["reason"]
    return f"{task['verdict']}, by its goodbye"


def table(cells: dict[tuple[str, str], str]) -> str:
    """One table of the document."""
    head = "| the process ends by | " + " | ".join(HEADS[kind] for kind in KINDS) + " |\n|" + "---|" * (len(KINDS) + 1)
    rows = [f"| {said} | " + " | ".join(cells[kind, way] for kind in KINDS) + " |" for way, said in WAYS.items()]
    return "\n".join([head, *rows])


def test_what_arrives_in_each_way_to_end_is_what_the_document_says(house: Any) -> None:
    places = [(kind, way) for kind in reversed(KINDS) for way in WAYS]
    with ThreadPoolExecutor(PARALLEL) as pool:
        seen = dict(zip(places, pool.map(lambda place: cell(house, *place), places), strict=True))
    own = table({place: one for place, (one, _) in seen.items()})
    other = table({place: one for place, (_, one) in seen.items()})
    told = f"The task in whose body it happens:\n\n{own}\n\nA task beside it, in a daemon thread:\n\n{other}"
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    written, _, after = rest.partition(END)
    if os.environ.get("EXIT_WAYS") == "write":
        DOCUMENT.write_text(f"{before}{BEGIN}\n{told}\n{END}{after}")
    else:
        assert written.strip() == told, f"docs/guarantees.md says something else; seen was:\n{told}"
