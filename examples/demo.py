"""Loses work in four ways while you watch, and shows each loss being found.

    make demo                       stays up afterwards: open the dashboard, press Replay, stop with Ctrl-C
    python examples/demo.py --once  runs through, and exits 0 if every loss was reported by a signed webhook

It starts four real processes on free ports of 127.0.0.1, with their state in a folder of their own: the daemon, a
FastAPI service under uvicorn, a worker with threads, and a receiver that verifies every webhook. All end with it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
HERE = Path(__file__).resolve().parent
CLI = [sys.executable, "-c", "import sys; from looseends.cli import main; sys.exit(main())"]
NEEDED = ("aiohttp", "fastapi", "uvicorn", "standardwebhooks")
WAIT_S = 20.0
CONFIG = """\
# Made for one demonstration: everything waits less than it would in production.
[server]
listen = ["127.0.0.1:{port}", "unix:{folder}/looseends/looseends.sock"]
external_url = "http://127.0.0.1:{port}"

[storage]
path = "{folder}/looseends/looseends.db"

[detect]
grace = "500ms"

[alerts]
group_wait = "100ms"
group_interval = "1s"

[[endpoint]]
name = "demo"
kind = "webhook"
url = "{receiver}"
secrets = ["{secret}"]
"""


class DemoError(Exception):
    """What was expected did not happen; the message says what, and where to look."""


def wait_for(check: Callable[[], T | None], what: str, timeout_s: float = WAIT_S) -> T:
    """Poll until `check` gives something. Raises DemoError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = check()
        if found is not None:
            return found
        time.sleep(0.05)
    raise DemoError(f"waited {timeout_s:g} s for {what}")


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(url: str, body: dict[str, Any] | None = None) -> bool | None:
    """Whether this address answers well; None while nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except OSError:
        return None


class Stage:
    """The processes of the demonstration, their logs and their state, in one folder that goes away with them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="looseends-demo-"))
        self.children: dict[str, subprocess.Popen[str]] = {}
        self.began = time.monotonic()
        self.heard = 0
        quick = {"SHOP_DEADLINE": "1s", "SHOP_HANG_S": "3", "WORKER_DEADLINE": "5s"}
        own = {"XDG_STATE_HOME": str(self.folder), "SHOP_RECEIPTS": str(self.folder / "receipts.jsonl")}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LOOSEENDS_")}
        self.env = {**clean, **quick, **own, "PYTHONUNBUFFERED": "1"}

    def start(self, name: str, *args: str) -> subprocess.Popen[str]:
        """Start one process in a group of its own, so that Ctrl-C reaches this one alone."""
        with open(self.folder / f"{name}.log", "a", encoding="utf-8") as log:
            child = subprocess.Popen(
                args,
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.children[name] = child
        return child

    def log(self, name: str) -> str:
        """What a process has said."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def said(self, name: str, pattern: str) -> str:
        """The first group of the first match in what a process says. Raises DemoError with its last lines."""

        def look() -> str | None:
            found = re.search(pattern, self.log(name))
            if found is None and self.children[name].poll() is not None:
                raise DemoError(f"{name} ended at once:\n{textwrap.indent(self.log(name)[-2000:], '    ')}")
            return found[1] if found is not None else None

        return wait_for(look, f"{name} to say {pattern}")

    def notices(self) -> list[dict[str, Any]]:
        """Every notice that arrived and was verified."""
        file = self.folder / "notices.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [json.loads(line)["notice"] for line in lines]

    def hear(self, what: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a notice that fits, and read its title aloud."""
        since = time.monotonic()
        notice = wait_for(lambda: next((n for n in self.notices() if fits(n)), None), f"a webhook that says {what}")
        incident = notice["data"]["incident"]
        self.tell(f"webhook after {time.monotonic() - since:.1f} s, signature verified: {incident['title']}", "    ->")
        return notice

    def tell(self, text: str, mark: str = "") -> None:
        """One sentence with the seconds since the beginning."""
        head = f"{time.monotonic() - self.began:5.1f} s {mark} "
        width = max(60, shutil.get_terminal_size().columns)
        lines = textwrap.TextWrapper(width, initial_indent=head, subsequent_indent=" " * len(head))
        lines.break_on_hyphens = lines.break_long_words = False  # a link that is cut in two opens nothing
        print(lines.fill(text), flush=True)

    def end(self) -> None:
        """End every process and remove the folder."""
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        deadline = time.monotonic() + 5
        for child in self.children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if child.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Demo:
    """The story: four losses, one after another, each waited for until its webhook came."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.port, self.shop_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.shop_url = f"http://127.0.0.1:{self.shop_port}"

    def set_up(self) -> None:
        """Receiver, daemon, service and worker, each ready before the next one needs it."""
        stage = self.stage
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        notices = str(stage.folder / "notices.jsonl")
        receiver = [str(HERE / "webhook_receiver.py"), "--port", "0", "--secret", secret, "--append", notices]
        stage.start("receiver", sys.executable, *receiver)
        address = stage.said("receiver", r"listening on (\S+)")
        config = stage.folder / "config.toml"
        config.write_text(CONFIG.format(port=self.port, folder=stage.folder, receiver=address, secret=secret))
        config.chmod(0o600)
        stage.start("daemon", *CLI, "serve", "-c", str(config))
        self.link = stage.said("daemon", r"(http://\S+/sign-in/\S+)")
        wait_for(lambda: fetch(f"{self.url}/readyz"), "the daemon to be ready")
        self.start_shop()
        self.worker = stage.start("worker", sys.executable, str(HERE / "worker.py"))
        stage.said("worker", r"(reading lines)")
        stage.tell(f"A daemon, a FastAPI service, a worker and a webhook receiver are up. Dashboard: {self.link}")

    def start_shop(self) -> None:
        """The service under uvicorn."""
        app = ["--app-dir", str(HERE), "fastapi_service:app", "--port", str(self.shop_port), "--log-level", "warning"]
        self.stage.start("shop", sys.executable, "-m", "uvicorn", *app)
        wait_for(lambda: fetch(self.shop_url), "the service to answer")

    def register(self, email: str) -> None:
        """What a visitor does; the answer is 202 every time, whatever becomes of the work."""
        if not fetch(f"{self.shop_url}/register", {"email": email}):
            raise DemoError(f"the service did not answer a registration:\n{self.stage.log('shop')[-2000:]}")

    def nothing_wrong(self) -> None:
        """Work that ends well makes no noise."""
        self.register("grace@example.com")
        self.say_to_worker("thumbnail cat.png", "report 2026-11-20")
        receipts = self.stage.folder / "receipts.jsonl"
        wait_for(lambda: True if receipts.exists() and receipts.read_text().count("\n") >= 3 else None, "three receipts")
        self.stage.tell("Somebody registered; mail, audit row and partner webhook ended well. Nothing to report.")

    def say_to_worker(self, *lines: str) -> None:
        """Hand the worker its work."""
        assert self.worker.stdin is not None
        self.worker.stdin.writelines(f"{line}\n" for line in lines)
        self.worker.stdin.flush()

    def a_thread_raises(self) -> None:
        """Loss one."""
        self.stage.tell("1. A report for a day that does not exist raises in a thread. Its caller has long gone.")
        self.say_to_worker("report 2026-02-30")
        self.stage.hear("report.render failed", about("report.render", None))

    def a_neighbour_raises(self) -> None:
        """Loss two."""
        self.stage.tell("2. The audit row raises after the answer 202: Starlette drops the partner webhook behind it.")
        self.register("alan+audit-raises@example.com")
        self.stage.hear("audit.write_row failed", about("audit.write_row", None))
        self.stage.hear("partner.notify never started", about("partner.notify", "never_started"))

    def a_task_hangs(self) -> None:
        """Loss three, which mends itself."""
        self.stage.tell("3. The mail server does not answer: the task is past its deadline of 1 s, and alive.")
        self.register("edsger+mail-hangs@example.com")
        opened = self.stage.hear("mail.send_welcome is stuck", about("mail.send_welcome", "stuck"))
        incident = opened["data"]["incident"]["id"]
        self.stage.tell("   ... and now it ends after all, late. That settles it:")
        self.stage.hear("this incident is resolved", lambda n: n["type"].endswith(".resolved") and n["subject"] == incident)

    def a_service_is_killed(self) -> None:
        """Loss four."""
        self.stage.tell("4. The service is killed with SIGKILL in the middle of a mail. It can say nothing any more.")
        self.register("ada+mail-slow@example.com")
        shop = self.stage.children["shop"]
        time.sleep(0.3)  # let the mail begin: a task that is only scheduled would be lost too, and look less alarming
        os.killpg(shop.pid, signal.SIGKILL)
        shop.wait()
        self.stage.hear("mail.send_welcome is lost", about("mail.send_welcome", "lost"))
        self.start_shop()
        self.stage.tell("The service is back up, and has no idea what it lost. The daemon has.")

    def farewell(self) -> None:
        """What to click."""
        print(
            f"\n  Open      {self.link}\n"
            "  Click     Incidents, then the one that is lost: it lists its three tasks\n"
            "  Open      one of them: its arguments, its history, why it is lost\n"
            "  Press     Replay: the service that is back up runs it again, as a new task; then the other two\n"
            "  See       the incident resolve itself with the third, and its last webhook arrive below\n"
            f"  Lose more curl -d '{{\"email\": \"you+mail-raises@example.com\"}}' -H 'Content-Type: application/json'"
            f" {self.shop_url}/register\n"
            "  Stop      Ctrl-C\n",
            flush=True,
        )

    def watch(self) -> None:
        """Read every further notice aloud until Ctrl-C."""
        read = len(self.stage.notices())
        while True:
            for notice in self.stage.notices()[read:]:
                read += 1
                incident = notice["data"].get("incident") or {}
                kind = notice["type"].removeprefix("looseends.")
                self.stage.tell(f"webhook: {kind}: {incident.get('title', '')}", "    ->")
            for name, child in self.stage.children.items():
                if child.poll() is not None:
                    raise DemoError(f"{name} ended:\n{textwrap.indent(self.stage.log(name)[-2000:], '    ')}")
            time.sleep(0.2)

    def play(self, once: bool) -> None:
        """The whole story."""
        self.set_up()
        self.nothing_wrong()
        self.a_thread_raises()
        self.a_neighbour_raises()
        self.a_task_hangs()
        self.a_service_is_killed()
        if once:
            self.stage.tell("Every loss was found and reported.")
            return
        self.farewell()
        self.watch()


def about(name: str, verdict: str | None) -> Callable[[dict[str, Any]], bool]:
    """Fits a notice that holds a task of this name with this verdict (None: it failed)."""

    def fits(notice: dict[str, Any]) -> bool:
        return any(task["name"] == name and task["verdict"] == verdict for task in notice["data"].get("tasks", []))

    return fits


def main() -> int:
    """Run the demonstration; exit code 1 when a loss went unreported."""
    parser = argparse.ArgumentParser(description="Lose work in several ways and see each loss found.")
    parser.add_argument("--once", action="store_true", help="run through and exit: 0 if every loss was reported")
    options = parser.parse_args()
    missing = [name for name in NEEDED if not importable(name)]
    if missing:
        print(f"the demonstration needs {', '.join(missing)}: run `make demo`, which installs it", file=sys.stderr)
        return 2
    stage = Stage()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        Demo(stage).play(options.once)
    except KeyboardInterrupt:
        print("\nstopped; everything this demonstration started has been ended")
    except DemoError as error:
        print(f"\nThis went wrong: {error}", file=sys.stderr)
        for name in stage.children:
            print(f"--- {name}, last lines\n{textwrap.indent(stage.log(name)[-1500:], '    ')}", file=sys.stderr)
        return 1
    finally:
        stage.end()
    return 0


def importable(name: str) -> bool:
    """Whether a package is there, without importing it."""
    from importlib.util import find_spec

    return find_spec(name) is not None


if __name__ == "__main__":
    sys.exit(main())
