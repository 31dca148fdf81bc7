"""Documents are tests: every block of code runs or says why not. CONTRIBUTING.md has the table of fences.

tests/test_docs_complete.py holds that nothing is left out of them.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import harness
from harness import ROOT
from looseends import wire

RUN_S_MAX = 30
# A block that does not run is a promise nobody checks: this number goes down, or up with a good reason.
NOT_RUN_MAX = 11
RUNNABLE = {"python", "sh"}
PARSED = {"json", "toml"}
SHOWN = {"text", "http", "html", "mermaid"}
QUEUES = {"arq", "celery", "dramatiq", "huey", "rq"}
TAGS = {"daemon", "driven", "past", "promtool", "stays", *QUEUES}
# What a block that stays in the foreground says when it is up.
UP = "looseends is running|listening on|Uvicorn running on"
# The task, the incident and the places that the documents name; what they stand for where a block runs.
TASK, INCIDENT = "0197a3c2-58d1-8c3e-9a41-6a1b5cf0d2e7", "inc_019ab3"
PLACES = ("/etc/", "/var/lib/looseends/", "/var/backups/")
CONFIG = (
    '[[endpoint]]\nname = "ops"\nurl = "http://127.0.0.1:9/"\nsecrets = ["whsec_bm90IGEgc2VjcmV0LCBtYWtlIHlvdXIgb3duIG9uZSE="]\n'
)
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
INFO = re.compile(r'(?P<language>[\w-]*)(?P<tags>(?: +\w+)*?)(?: +norun="(?P<norun>[^"]*)")?\s*')


class Block(NamedTuple):
    """One fenced block: where it stands, in which language, with which tags, and why it does not run (None: it does)."""

    path: str
    line: int
    language: str
    tags: frozenset[str]
    norun: str | None
    text: str

    @property
    def name(self) -> str:
        """What a failing test is called by."""
        return f"{self.path}:{self.line}"


def blocks_of(path: str, text: str) -> Iterator[Block]:
    """Every fenced block of a document. Raises ValueError for a fence that cannot be read."""
    for found in FENCE.finditer(text):
        info = INFO.fullmatch(found["info"])
        line = text.count("\n", 0, found.start()) + 1
        if info is None:
            raise ValueError(f'{path}:{line}: a fence is a language, tags and norun="reason", not {found["info"]!r}')
        indent = len(found["indent"])
        inside = "".join(row[indent:] if row.strip() else row for row in found["text"].splitlines(keepends=True))
        yield Block(path, line, info["language"], frozenset(info["tags"].split()), info["norun"], inside)


@cache
def documents() -> dict[str, str]:
    """Every document by its path from the root."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(paths)}


def all_blocks() -> list[Block]:
    """Every block of every document."""
    return [block for path, text in documents().items() for block in blocks_of(path, text)]


def faults(block: Block) -> Iterator[str]:
    """What is wrong with a block before anything runs."""
    if block.language not in RUNNABLE | PARSED | SHOWN:
        yield f"{block.name}: language {block.language!r}; known are {', '.join(sorted(RUNNABLE | PARSED | SHOWN))}"
    if block.tags - TAGS:
        yield f"{block.name}: tags {', '.join(sorted(block.tags - TAGS))}; known are {', '.join(sorted(TAGS))}"
    if block.norun is not None and len(block.norun) < 12:
        yield f"{block.name}: norun needs a reason in words, not {block.norun!r}"
    try:
        check_syntax(block)
    except (SyntaxError, ValueError) as error:
        yield f"{block.name}: {error}"


def check_syntax(block: Block) -> None:
    """Raises SyntaxError or ValueError where the block is not what its fence says."""
    if block.language == "python":
        compile(block.text, block.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    elif block.language == "json" and block.norun is None:
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "sh":
        done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=10)
        if done.returncode:
            raise ValueError(done.stderr)


def test_every_block_is_what_its_fence_says() -> None:
    found = [fault for block in all_blocks() for fault in faults(block)]
    assert not found, "\n".join(found)


def test_blocks_that_do_not_run_are_few_and_give_a_reason() -> None:
    held = [f"{block.name}: {block.norun}" for block in all_blocks() if block.norun is not None]
    print(f"{len(held)} blocks do not run:", *held, sep="\n  ")
    assert len(held) <= NOT_RUN_MAX, "\n".join(held)


PLANTED = [
    "```\nno language\n```\n",
    "```ruby\nputs 1\n```\n",
    "```python deamon\nx = 1\n```\n",
    "```python\nx = = 1\n```\n",
    '```python norun="no"\nx = 1\n```\n',
    "```json\n{'single': 1}\n```\n",
    "```toml\na = b\n```\n",
    "```sh\nif true; then\n```\n",
]


@pytest.mark.parametrize("text", PLANTED)
def test_a_planted_fault_in_a_block_is_found(text: str) -> None:
    assert [fault for block in blocks_of("planted.md", text) for fault in faults(block)]


def test_a_block_in_a_list_loses_its_indent() -> None:
    [block] = blocks_of("x.md", "- item:\n\n  ```python daemon\n  if x:\n      y\n  ```\n")
    assert (block.text, block.line, set(block.tags)) == ("if x:\n    y\n", 3, {"daemon"})


class Daemon(NamedTuple):
    """A real daemon of one test, on a free port and on the unix socket of the test's own state."""

    process: harness.Process
    port: int
    state: Path

    def get(self, path: str) -> Any:
        """An answer of its API, asked for as the operator."""
        return self._ask(path, None)

    def post(self, path: str) -> Any:
        """The answer to an act without a body."""
        return self._ask(path, b"{}")

    def _ask(self, path: str, body: bytes | None) -> Any:
        token = (self.state / "looseends/looseends.db.token").read_text().strip()
        headers = {
            "Authorization": f"Bearer {token}",
            "Idempotency-Key": f"docs-{time.time_ns()}",
            "Content-Type": "application/json",
        }
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


def looseends_script() -> Path:
    """The command as installed beside the Python that runs the tests."""
    return Path(sys.executable).with_name("looseends")


def start_daemon(processes: harness.Processes, state: Path, port: int) -> Daemon:
    """Start it and wait until it answers."""
    config = state / "served.toml"
    config.write_text(CONFIG)
    listen = ["--listen", f"127.0.0.1:{port}", "--listen", f"unix:{state}/looseends/looseends.sock"]
    process = processes.start(looseends_script(), "serve", "-c", config, *listen)
    process.wait_for(re.escape(f"http://127.0.0.1:{port}"))
    return Daemon(process, port, state)


def place(block: Block, folder: Path, port: int, incident: str) -> Path:
    """The block as a file in an empty folder, with what the documents name replaced by what there is."""
    text = block.text.replace(f"127.0.0.1:{wire.DEFAULT_PORT}", f"127.0.0.1:{port}").replace(INCIDENT, incident)
    for named in PLACES:
        text = text.replace(named, f"{folder}/")
    if block.language == "sh":
        text = re.sub(r"(?<![\w/])(examples|tests)/", rf"{ROOT}/\1/", text)
        # Installing for real is what tests/test_packaging.py does.
        text = "pip() { :; }\n" + text.replace("python -m pip", "pip")
        (folder / "looseends.toml").write_text(CONFIG)
        (folder / "config.toml").write_text(CONFIG + f'[server]\nlisten = ["127.0.0.1:{port}"]\n')
    file = folder / ("block.py" if block.language == "python" else "block.sh")
    file.write_text(text)
    return file


def python_for(block: Block) -> tuple[str, str]:
    """The interpreter, and where it looks first: each queue library has an environment of its own."""
    for queue in block.tags & QUEUES:
        found = ROOT / ".venv/queues" / queue / "bin/python"
        if not found.exists():
            pytest.skip(f"{queue} is not installed: make .venv/queues/{queue}/stamp")
        return str(found), str(ROOT / "client")
    return sys.executable, ""


def run_block(block: Block, processes: harness.Processes, folder: Path, port: int, incident: str = "") -> harness.Process:
    """Run one block in an empty folder; an address of the default port leads to `port`. Fails with what it said."""
    file, (python, first) = place(block, folder, port, incident), python_for(block)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    env = {"LOOSEENDS_URL": f"http://127.0.0.1:{port}", "PATH": path, **({"PYTHONPATH": first} if first else {})}
    command: list[str | Path] = [python, file] if block.language == "python" else ["bash", "-euo", "pipefail", file]
    process = processes.start(*command, env=env, cwd=folder)
    if "stays" in block.tags:
        process.wait_for(UP, RUN_S_MAX)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does it
        assert process.wait(RUN_S_MAX) in (0, 130, -signal.SIGINT), process.output
    else:
        code = process.wait(RUN_S_MAX)
        assert code == 0, f"{block.name} ended with {code}:\n{process.output}"
    assert "Traceback" not in process.output, f"{block.name}:\n{process.output}"
    return process


def runnable() -> list[Any]:
    """Every block that has to run, as test parameters."""
    blocks = [block for block in all_blocks() if block.language in RUNNABLE and block.norun is None]
    blocks = [block for block in blocks if "driven" not in block.tags]
    return [pytest.param(block, id=block.name) for block in blocks]


def live_through(daemon: Daemon) -> str:
    """A past for the daemon: the task that the documents name has failed. Returns the incident of it."""
    same = {"task": TASK, "service": "shop-web", "name": "mail.send_receipt"}
    error = {"type": "SMTPError", "message": "mailbox full"}
    events = [{"type": "started", **same, "args": {"order_id": 7}}, {"type": "failed", **same, "error": error}]
    body = json.dumps([{"at": time.time_ns() - 1_000_000, **event} for event in events]).encode()
    address = f"http://127.0.0.1:{daemon.port}/api/v1/events"
    urllib.request.urlopen(urllib.request.Request(address, body, {"Content-Type": "application/json"}), timeout=10).close()
    found: Any = harness.wait_until(lambda: daemon.get("/api/v1/incidents")["items"], "the incident")
    return str(found[0]["id"])


@pytest.mark.parametrize("block", runnable())
def test_the_block_runs(block: Block, processes: harness.Processes, state_dir: Path, port: int, tmp_path: Path) -> None:
    if "promtool" in block.tags and shutil.which("promtool") is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    incident = ""
    if block.tags & {"daemon", "past"}:
        daemon = start_daemon(processes, state_dir, port)
        incident = live_through(daemon) if "past" in block.tags else ""
    run_block(block, processes, tmp_path, port, incident)


def test_the_service_of_the_quickstart_is_killed_found_lost_and_replayed(
    processes: harness.Processes, state_dir: Path, port: int, tmp_path: Path
) -> None:
    [block] = [one for one in all_blocks() if "driven" in one.tags]
    file = tmp_path / "shop.py"
    file.write_text(block.text.replace("time.sleep(20)", "time.sleep(2)"))
    daemon = start_daemon(processes, state_dir, port)

    def tasks(query: str) -> Any:
        return daemon.get(f"/api/v1/tasks?q=name:mail.send_receipt%20{query}")["items"]

    shop = processes.start(sys.executable, file, cwd=tmp_path, stdin=True)
    shop.say("y")
    harness.wait_until(lambda: tasks("state:running"), "the task to run")
    shop.kill()
    shop.hang_up()
    found: Any = harness.wait_until(lambda: tasks("verdict:lost"), "the task to be lost")
    [lost] = found
    shop = processes.start(sys.executable, file, cwd=tmp_path, stdin=True)
    shop.say("n")
    harness.wait_until(lambda: daemon.get(f"/api/v1/tasks/{lost['id']}")["replayable"], "the service to be back")
    daemon.post(f"/api/v1/tasks/{lost['id']}/replay")
    shop.wait_for("sent the receipt of order-7", RUN_S_MAX)
    harness.wait_until(lambda: daemon.get(f"/api/v1/tasks/{lost['id']}")["settled"] == "replayed", "it to be settled")
    harness.wait_until(lambda: not daemon.get("/api/v1/incidents?state=open")["items"], "the incident to resolve")
    shop.hang_up()


def configurations() -> list[Any]:
    """Every TOML block, as test parameters."""
    return [pytest.param(block, id=block.name) for block in all_blocks() if block.language == "toml"]


@pytest.mark.parametrize("block", configurations())
def test_the_configuration_is_accepted(block: Block) -> None:
    from looseends_daemon import config

    if block.norun is None:
        assert config.check(block.text, file=block.name) == []


def test_curl_alone_starts_finishes_and_fails_a_task(
    processes: harness.Processes, state_dir: Path, port: int, tmp_path: Path
) -> None:
    [block] = [one for one in all_blocks() if one.path == "README.md" and one.language == "sh" and "daemon" in one.tags]
    daemon = start_daemon(processes, state_dir, port)
    answers = run_block(block, processes, tmp_path, port).output
    assert answers.count('"accepted":1') + answers.count('"accepted": 1') == 4, answers
    tasks = {task["name"]: task for task in daemon.get("/api/v1/tasks?q=service:cron")["items"]}
    assert {name: task["state"] for name, task in tasks.items()} == {"backup": "succeeded", "backup.copy": "failed"}
    assert tasks["backup.copy"]["error"]["message"] == "rsync ended with 12"
