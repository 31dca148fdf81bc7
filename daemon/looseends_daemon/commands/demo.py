"""`looseends demo`: loses work on purpose, on a daemon of its own, and shows each loss being found.

Rules: everything is in one temporary folder on free ports of 127.0.0.1 and goes with it; a daemon that already runs is left
alone. Exit codes: 0 every loss was found (or Ctrl-C), 1 one was not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from looseends.errors import LooseEndsError
from looseends_daemon.commands.tables import printable

DONE = 0
WAIT_S = 20.0
LOOK_S = 0.1
PLACE_CHARS_MAX = 50
CONFIG = """\
[server]
listen = ["127.0.0.1:{port}", "unix:{folder}/looseends/looseends.sock"]
external_url = "http://127.0.0.1:{port}"
[storage]
path = "{folder}/looseends/looseends.db"
[detect]
grace = "500ms"
[alerts]
group_wait = "100ms"
"""


def add(commands: Any, raw: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="lose work on purpose and watch each loss being found",
        formatter_class=raw,
        description="Start a daemon and a small service of their own, lose work in three ways, and show each being found.\n"
        "Then stay up, so that you can look at the dashboard and press Replay. Ctrl-C ends everything.",
        epilog="examples:\n  looseends demo\n  looseends demo --once",
    )
    parser.add_argument("--once", action="store_true", help="run through and exit: 0 if every loss was found")
    parser.set_defaults(run=run)


class Stage:
    """The two processes, their state and what they said, in one folder that goes away with them."""

    def __init__(self) -> None:
        place = tempfile.gettempdir()
        # a unix socket lies in it, and such a path is short
        self.folder = Path(tempfile.mkdtemp(prefix="looseends-demo-", dir=place if len(place) <= PLACE_CHARS_MAX else "/tmp"))
        self.began = time.monotonic()
        self.children: list[subprocess.Popen[str]] = []
        self.port = free_port()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LOOSEENDS_")}
        self.env = {**clean, "XDG_STATE_HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}

    def tell(self, words: str, mark: str = "  ") -> None:
        """One line with the seconds since the beginning."""
        print(f"{time.monotonic() - self.began:5.1f} s {mark} {words}", flush=True)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start a process in a group of its own, so that Ctrl-C reaches this one alone."""
        log = open(self.folder / f"{len(self.children)}.log", "w", encoding="utf-8")  # noqa: SIM115 - the child's to close
        with log:
            child = subprocess.Popen(
                [sys.executable, "-m", *args],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.env,
                start_new_session=True,
            )
        self.children.append(child)
        number = len(self.children) - 1
        self.wait(lambda: self.log(number) or (child.poll() is not None), f"{args[0]} to start")
        return child

    def log(self, number: int) -> str:
        """What a process has said so far."""
        return (self.folder / f"{number}.log").read_text(encoding="utf-8", errors="replace")

    def wait(self, look: Callable[[], Any], what: str) -> Any:
        """What `look` gives, once it gives anything. Raises LooseEndsError."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(LOOK_S)
        logs = "\n".join(self.log(n)[-500:] for n in range(len(self.children)))
        raise LooseEndsError(f"waited {WAIT_S:g} s for {what}; the processes said:\n{logs}")

    def api(self, path: str) -> Any:
        """GET as the operator; None while nobody answers."""
        from http.client import HTTPConnection, HTTPException

        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            token = (self.folder / "looseends" / "looseends.db.token").read_text().strip()
            connection.request("GET", f"/api/v1{path}", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def close(self) -> None:
        """End what was started, and take the folder away."""
        for child in reversed(self.children):
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        for child in reversed(self.children):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if child.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(args: argparse.Namespace) -> int:
    """Play it. Raises LooseEndsError where a loss was not found."""
    stage = Stage()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _play(stage, once=args.once)
    except KeyboardInterrupt:
        print("\nstopped; everything this demonstration started has been ended")
    finally:
        stage.close()
    return DONE


def _play(stage: Stage, *, once: bool) -> None:
    config = stage.folder / "config.toml"
    config.write_text(CONFIG.format(port=stage.port, folder=stage.folder), encoding="utf-8")
    stage.start("looseends.cli", "serve", "-c", str(config))
    link = stage.wait(lambda: next((w for w in stage.log(0).split() if "/sign-in/" in w), None), "the sign-in link")
    shop = stage.start("looseends_daemon.commands.demo_service")
    stage.tell(f"a daemon and a small service are up; the dashboard: {link}")
    _say(shop, "ok ada")
    _found(stage, "state:succeeded name:mail.*")
    stage.tell("a receipt was sent in the background and ended well: nothing to report")
    stage.tell("1. the audit row raises after its caller was answered 200")
    _say(shop, "raise alan")
    _verdict(stage, "state:failed name:audit.*")
    stage.tell(f"2. the partner does not answer: past its deadline, and alive (process {shop.pid})")
    _say(shop, "hang grace")
    _verdict(stage, "verdict:stuck name:partner.*")
    stage.tell("3. the service is killed with SIGKILL in the middle of a receipt")
    _say(shop, "slow edsger")
    _found(stage, "state:running name:mail.*")
    os.killpg(shop.pid, signal.SIGKILL)
    shop.wait()
    _verdict(stage, "verdict:lost name:mail.*")
    stage.start("looseends_daemon.commands.demo_service")
    if once:
        stage.tell("every loss was found")
        return
    print(
        f"\n  Open   {link}\n"
        "  Click  Incidents, then the one that is lost, then its task\n"
        "  Press  Replay: the service that is back up runs it again, as a new task\n"
        "  See    the incident resolve itself once nothing of it is open\n"
        "  Stop   Ctrl-C\n",
        flush=True,
    )
    stage.children[0].wait()


def _say(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin is not None
    child.stdin.write(f"{line}\n")
    child.stdin.flush()


def _found(stage: Stage, query: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        page = stage.api(f"/tasks?q={quote(query)}&limit=1")
        return page["items"][0] if page and page["items"] else None

    found: dict[str, Any] = stage.wait(look, f"a task with {query}")
    return found


def _verdict(stage: Stage, query: str) -> None:
    begun = time.monotonic()
    task = _found(stage, query)
    why = task["reason"] or f"{task['error']['type']}: {task['error']['message']}"
    took = time.monotonic() - begun
    stage.tell(printable(f"found after {took:.1f} s: {task['name']} is {task['verdict'] or task['state']}: {why}"), "->")
