"""Documents are tests: every block of code runs or says why not, every link leads somewhere, and nothing is left out.

CONTRIBUTING.md has the table of fences. What has to be named in the documents (routes, settings, event fields, commands)
is read from the code, so that a new one without a word about it fails here.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import pytest

import harness
from harness import ROOT
from looseends import wire

RUN_S_MAX = 30
# A block that does not run is a promise nobody checks: this number goes down, or up with a good reason.
NOT_RUN_MAX = 40
RUNNABLE = {"python", "sh"}
PARSED = {"json", "toml"}
SHOWN = {"text", "http", "html", "mermaid"}
TAGS = {"daemon"}
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
        token = (self.state / "looseends/looseends.db.token").read_text().strip()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


def looseends_script() -> Path:
    """The command as installed beside the Python that runs the tests."""
    return Path(sys.executable).with_name("looseends")


def start_daemon(processes: harness.Processes, state: Path, port: int) -> Daemon:
    """Start it and wait until it answers."""
    listen = ["--listen", f"127.0.0.1:{port}", "--listen", f"unix:{state}/looseends/looseends.sock"]
    process = processes.start(looseends_script(), "serve", *listen)
    process.wait_for(re.escape(f"http://127.0.0.1:{port}"))
    return Daemon(process, port, state)


def run_block(block: Block, processes: harness.Processes, folder: Path, port: int) -> harness.Process:
    """Run one block in an empty folder; an address of the default port leads to `port`. Fails with what it said."""
    file = folder / ("block.py" if block.language == "python" else "block.sh")
    file.write_text(block.text.replace(f"127.0.0.1:{wire.DEFAULT_PORT}", f"127.0.0.1:{port}"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    env = {"LOOSEENDS_URL": f"http://127.0.0.1:{port}", "PATH": path}
    command: list[str | Path] = [sys.executable, file] if block.language == "python" else ["bash", "-euo", "pipefail", file]
    process = processes.start(*command, env=env, cwd=folder)
    code = process.wait(RUN_S_MAX)
    assert code == 0, f"{block.name} ended with {code}:\n{process.output}"
    assert "Traceback" not in process.output, f"{block.name}:\n{process.output}"
    return process


def runnable() -> list[Any]:
    """Every block that has to run, as test parameters."""
    blocks = [block for block in all_blocks() if block.language in RUNNABLE and block.norun is None]
    return [pytest.param(block, id=block.name) for block in blocks]


@pytest.mark.parametrize("block", runnable())
def test_the_block_runs(block: Block, processes: harness.Processes, state_dir: Path, port: int, tmp_path: Path) -> None:
    if "daemon" in block.tags:
        start_daemon(processes, state_dir, port)
    run_block(block, processes, tmp_path, port)


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


# --- nothing is left out ------------------------------------------------------------------------------------------


def prose() -> str:
    """All documents as one text, placeholders made equal: `/tasks/{id}` and `/tasks/{task}` are the same path."""
    return re.sub(r"\{\w+(?::[^}]*)?\}", "{}", "\n".join(documents().values()))


def routes() -> list[Any]:
    """Every row of the route tables. They are only listed, never asked, so a stand-in serves for what they hold."""
    folder = ROOT / "daemon/looseends_daemon/http"
    modules = [f"looseends_daemon.http.{path.stem}" for path in sorted(folder.glob("[a-z]*.py"))]
    found = []
    for name in [*modules, "looseends_dashboard.routes"]:
        module = importlib.import_module(name)
        made = getattr(module, "api_routes" if name.endswith(".api") else "routes", None)
        if callable(made) and made.__module__ == name:
            found += made(MagicMock())
    return found


def is_named(method: str, path: str, text: str) -> bool:
    """Whether some line names this door: the method, then the path (`/api/v1` may be left out)."""
    bare = re.sub(r"\{\w+(?::[^}]*)?\}", "{}", path).removeprefix("/api/v1")
    door = rf"\b{method}\b[^\n]*(?<![\w}}])(?:/api/v1)?{re.escape(bare)}(?![\w/{{])"
    return re.search(door, text) is not None


def test_every_route_is_named() -> None:
    text = prose()
    found = routes()
    assert len(found) > 20, "the route tables were not found"
    missing = [f"{route.method} {route.path}" for route in found if not is_named(route.method, route.path, text)]
    assert not missing, "not named in any document:\n  " + "\n  ".join(missing)


def test_a_route_that_is_only_part_of_another_is_not_named() -> None:
    text = "`POST /tasks/{}/replay` and `GET /tasks`"
    assert is_named("POST", "/api/v1/tasks/{id}/replay", text) and is_named("GET", "/tasks", text)
    assert not is_named("GET", "/api/v1/tasks/{id}", text) and not is_named("POST", "/replay", text)


def test_every_setting_is_named() -> None:
    from looseends_daemon.config.declared import tables

    text = documents()["docs/configuration.md"]
    missing = [
        f"{table.name}.{setting.name}"
        for table in tables()
        for setting in table.settings
        if f"[{table.name}]" not in text or re.search(rf"(?<!\w){setting.name}(?!\w)", text) is None
    ]
    assert not missing, f"docs/configuration.md does not name {', '.join(missing)}"


def test_every_event_and_every_field_of_it_is_named() -> None:
    text = prose()
    words = {*wire.TYPES, *(field for fields in wire.FIELDS.values() for field in fields)}
    words |= {*wire.CANCEL_REASONS, *wire.DROP_REASONS}
    missing = sorted(word for word in words if re.search(rf'[`"| ]{word}[`"| ,:]', text) is None)
    assert not missing, f"no document names {', '.join(missing)}"


def commands() -> list[str]:
    """Every command that `looseends --help` lists."""
    done = subprocess.run([looseends_script(), "--help"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    listed = re.search(r"\{([a-z,-]+)\}", done.stdout)
    assert listed is not None, f"no list of commands in:\n{done.stdout}"
    return listed[1].split(",")


def test_every_command_is_named() -> None:
    text = "\n".join(documents().values())
    missing = [name for name in commands() if re.search(rf"looseends {name}\b", text) is None]
    assert not missing, f"no document names looseends {', '.join(missing)}"


def test_every_link_inside_the_documents_leads_somewhere() -> None:
    broken = []
    for path, text in documents().items():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", FENCE.sub("", text)):
            if not urllib.parse.urlsplit(target).scheme and not (ROOT / path).parent.joinpath(target).exists():
                broken.append(f"{path}: {target}")
    assert not broken, "\n".join(broken)


def test_every_target_of_make_is_listed_by_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert declared is not None
    listed = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert set(declared[1].split()) == listed
